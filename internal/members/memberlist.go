package members

import (
	"errors"
	"fmt"
	"log"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// settings are those of memberlist, which does one thing here: it knows who is a member.
func settings(m *Members) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = m.name
	c.Transport = m.transport
	c.Delegate, c.Events, c.Alive = hooks{m}, hooks{m}, hooks{m}
	c.Logger = log.New(&memberlistLog{warnf: m.warnf, now: time.Now}, "", 0)
	c.TCPTimeout = 5 * time.Second
	c.UDPBufferSize = maxPacket - packetOverhead
	c.HandoffQueueDepth = 8192
	c.EnableCompression = false // it costs three times the CPU
	return c
}

// warnf tells what memberlist has to tell, which goes on for a while after Close.
func (m *Members) warnf(format string, args ...any) {
	if !m.gone.Load() {
		m.tell.Warningf(format, args...)
	}
}

// errPredecessor is that somebody has heard of the replica that was at our address before. It is no problem.
var errPredecessor = errors.New("this replica has its address now")

// memberlistLog takes the log lines of memberlist, and passes on those that people can do something about: one in ten
// seconds at most.
type memberlistLog struct {
	warnf func(format string, args ...any)
	now   func() time.Time

	mu    sync.Mutex
	due   time.Time // when the next one may be
	extra int       // not passed on since the last one
}

// linePause is how long there is no other line after one.
const linePause = 10 * time.Second

// mended are lines of memberlist for which there are better words. A line that becomes "" is told by somebody else.
var mended = []struct {
	line  *regexp.Regexp
	words string
}{
	{regexp.MustCompile(`^Was able to connect to (.*) over TCP but UDP probes failed`),
		"Peers: %s answers by TCP, but not by UDP, want packets to the same port let through both ways"},
	{regexp.MustCompile(`^Refuting a (?:suspect|dead) message \(from: (.*)\)`),
		"Peers: %s could not reach this replica, want this machine to be less busy, or the network between them mended"},
	{regexp.MustCompile(`^Conflicting address for (\S+)\.`),
		"Peers: two replicas have the name %s, want another one for each"},
	{regexp.MustCompile(`^ignoring alive message for '.*': ` + errPredecessor.Error()), ""},
	{regexp.MustCompile(`^ignoring alive message for (.*)`), "Peers: a replica is not taken as a member: %s"},
	// Whoever cannot be reached is told as lost, and places that cannot be joined are told as such.
	{regexp.MustCompile(`^(?:Push/Pull with|Failed fallback TCP ping|Failed to send|failed to receive|Failed to receive|Failed to push|Failed to read)`), ""},
	{regexp.MustCompile(`^Got ping for unexpected node`), ""},                 // the replica that was here before
	{regexp.MustCompile(`^Refuting an alive message`), ""},                    // somebody has an older meta
	{regexp.MustCompile(`^Binding to public address without encryption`), ""}, // we encrypt
}

// Write takes one line.
func (w *memberlistLog) Write(b []byte) (int, error) {
	level, line, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if level == "[DEBUG]" || level == "[INFO]" {
		return len(b), nil
	}
	if line = mend(strings.TrimPrefix(line, "memberlist: ")); line == "" {
		return len(b), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if now.Before(w.due) {
		w.extra++
		return len(b), nil
	}
	if w.extra > 0 {
		line = fmt.Sprintf("%s (and %d lines like that before)", line, w.extra)
	}
	w.due, w.extra = now.Add(linePause), 0
	w.warnf("%s", line)
	return len(b), nil
}

// mend finds better words. What comes from others cannot break a line.
func mend(line string) string {
	for _, m := range mended {
		if found := m.line.FindStringSubmatch(line); found != nil {
			if m.words == "" {
				return ""
			}
			return fmt.Sprintf(m.words, quoted(found[1]))
		}
	}
	return "Peers: memberlist: " + quoted(line)
}

// maxLine is how much of a line is passed on, in octets.
const maxLine = 300

func quoted(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxLine)], "")
}
