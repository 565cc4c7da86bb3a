package members

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Counts are numbers since Open.
type Counts struct {
	SentMessages, SentOctets, ReceivedMessages, ReceivedOctets uint64
	// Rejected are packets and connections by reason: "source", not among those that may speak to us; "key", not sealed with a
	// key that we have; "format", another protocol; "flood", too many at a time; "misled", for another replica, mostly
	// for the one that had our address before; and "replay", a copy of what has come before.
	Rejected map[string]uint64
}

// tallies count what goes over the network, since the start.
type tallies struct {
	sentMessages, sentOctets, receivedMessages, receivedOctets atomic.Uint64
	refused                                                    [refusals]atomic.Uint64
}

func (t *tallies) sent(octets int) {
	t.sentMessages.Add(1)
	t.sentOctets.Add(uint64(octets))
}

func (t *tallies) received(octets int) {
	t.receivedMessages.Add(1)
	t.receivedOctets.Add(uint64(octets))
}

func (t *tallies) counts() Counts {
	c := Counts{
		SentMessages: t.sentMessages.Load(), SentOctets: t.sentOctets.Load(),
		ReceivedMessages: t.receivedMessages.Load(), ReceivedOctets: t.receivedOctets.Load(),
		Rejected: make(map[string]uint64),
	}
	for why := taken + 1; why < refusals; why++ {
		c.Rejected[why.String()] = t.refused[why].Load()
	}
	return c
}

const (
	// firstPause is how long the log is silent about what is refused after a line about it, at least. The pause doubles while
	// there is ever more, up to lastPause.
	firstPause = time.Second
	lastPause  = time.Minute
)

// complaints tell people what is refused, in few lines.
type complaints struct {
	tallies *tallies
	warnf   func(format string, args ...any)

	due atomic.Int64 // when the next line may be, as the time since began; read before all else, since there may be many

	began time.Time
	mu    sync.Mutex
	told  [refusals]uint64 // of what is refused, how many are told
	pause time.Duration
}

func newComplaints(t *tallies, warnf func(format string, args ...any)) *complaints {
	return &complaints{tallies: t, warnf: warnf, began: time.Now()}
}

// refuse counts what is refused, and tells it unless that was done lately.
func (c *complaints) refuse(why refusal, from netip.AddrPort) {
	c.tallies.refused[why].Add(1)
	if why >= misled {
		return // that happens after a restart, until all know of it, and where the network doubles packets
	}
	now := time.Since(c.began)
	if int64(now) < c.due.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	due := time.Duration(c.due.Load())
	if now < due {
		return
	}
	c.pause = min(max(2*c.pause, firstPause), lastPause)
	if now-due > lastPause {
		c.pause = firstPause
	}
	c.due.Store(int64(now + c.pause))
	c.warnf("Peers: %s. The last was from %v: %s", c.news(), from, why.meaning())
}

// news tells how many were refused since the line before. The caller holds mu.
func (c *complaints) news() string {
	var parts []string
	sum := uint64(0)
	for why := taken + 1; why < misled; why++ {
		n := c.tallies.refused[why].Load()
		if more := n - c.told[why]; more > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", why, more))
			sum += more
		}
		c.told[why] = n
	}
	what := "packets or connections were"
	if sum == 1 {
		what = "packet or connection was"
	}
	return fmt.Sprintf("%d %s refused (%s)", sum, what, strings.Join(parts, ", "))
}

// meaning tells people what a reason is.
func (r refusal) meaning() string {
	switch r {
	case source:
		return "it is not among those that may speak to this replica"
	case key:
		return "it is not sealed with a key in the key file here"
	case format:
		return "it speaks another protocol, or another version of it, or says nothing"
	}
	return "there are too many at a time"
}
