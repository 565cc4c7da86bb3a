// Package events remembers what happened lately, and lets people follow it.
package events

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coredns-shaker/shaker/internal/clock"
)

const (
	// Known is how many events are remembered. One more takes the place of the oldest.
	Known = 1000
	// maxText bounds the text of an event, in octets.
	maxText = 1000
)

// Kind is what sort of event it is.
type Kind string

// The kinds of events.
const (
	Down      Kind = "down"      // a target is down
	Up        Kind = "up"        // a target is up
	Unknown   Kind = "unknown"   // a target is unknown again
	Freeze    Kind = "freeze"    // verdicts are frozen
	Thaw      Kind = "thaw"      // verdicts are no longer frozen
	Override  Kind = "override"  // what people have decided about an address has changed
	Overrides Kind = "overrides" // a file of overrides is in force, or cannot be used
	Reload    Kind = "reload"    // a reload worked or failed
	Start     Kind = "start"     // checking began
	Trouble   Kind = "trouble"   // something keeps checks or look-ups from their work, or does so no longer
	Peer      Kind = "peer"      // a replica came, left, or its words count no longer or again

	// Disagreement is of a target of which this replica says another verdict than is in force, or does so no longer.
	Disagreement Kind = "disagreement"
)

var kinds = []Kind{Down, Up, Unknown, Freeze, Thaw, Override, Overrides, Reload, Start, Trouble, Peer, Disagreement}

// Kinds returns all kinds.
func Kinds() []Kind { return slices.Clone(kinds) }

// Event is something that has happened. It must not be changed any more once it is in a log.
type Event struct {
	Kind Kind
	// Text tells it in a line. It is made anew each time that somebody reads it, by several at the same time.
	Text fmt.Stringer
	// Target is nil where the event is about none.
	Target *Target

	number uint64
	at     int64 // in the time of the log's clock
}

// Number counts the events of a log from 1. It is 0 before the event is in one.
func (e *Event) Number() uint64 { return e.number }

// Target is a target as it was when something happened to it.
type Target struct {
	Endpoint netip.AddrPort
	// Answered are the addresses that are answered instead of its own, and Names those that led to it.
	Answered []netip.Addr
	Names    []string
	Settings fmt.Stringer
	State    string
	// Result is the one that led to the event, and Reason what else is known of it. Both may be empty.
	Result, Reason string
}

// Clip returns a text of no more than so many octets, at least 3, which ends with … if it was longer. It shares no memory
// with one that was.
func Clip(text string, most int) string {
	const rest = "…"
	if len(text) <= most {
		return text
	}
	end := most - len(rest)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) + rest
}

// Log remembers the newest events. Its methods may be called from any goroutine.
type Log struct {
	clock clock.Clock

	mu     sync.Mutex
	newest uint64   // number of the newest event, 0 before there is one
	ring   []*Event // the event with number n is at (n-1) % Known
	// more is closed by the next event, nil while nobody waits for it.
	more chan struct{}
}

// New returns an empty log.
func New() *Log { return newLog(nil) }

// newLog returns a log with another wall clock.
func newLog(wall func() time.Time) *Log {
	l := new(Log)
	l.clock.Start(wall)
	return l
}

// Add adds an event. It waits for nobody who reads.
func (l *Log) Add(e *Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest++
	e.number, e.at = l.newest, l.clock.Now()
	if len(l.ring) < Known {
		l.ring = append(l.ring, e)
	} else {
		l.ring[(e.number-1)%Known] = e
	}
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// Addf adds an event that is about no target, with a text that is cut off after 1000 octets.
func (l *Log) Addf(kind Kind, format string, args ...any) {
	l.Add(&Event{Kind: kind, Text: line(Clip(fmt.Sprintf(format, args...), maxText))})
}

// line is a text that is made when the event happens.
type line string

// String implements fmt.Stringer.
func (l line) String() string { return string(l) }

// Time returns when an event of the log happened. It is the present time of the wall clock less the event's age: see
// [clock.Clock].
func (l *Log) Time(e *Event) time.Time { return l.clock.At(e.at) }

// Now returns the wall clock's present time, by which the times of events are told.
func (l *Log) Now() time.Time { return l.clock.At(l.clock.Now()) }

// All returns the events that are known, the oldest first.
func (l *Log) All() []*Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since(l.newest - uint64(len(l.ring)))
}

// since returns the events after the one with that number, of which none may be forgotten. The caller holds mu.
func (l *Log) since(number uint64) []*Event {
	later := make([]*Event, 0, l.newest-number)
	for n := number + 1; n <= l.newest; n++ {
		later = append(later, l.ring[(n-1)%Known])
	}
	return later
}

// Follower reads a log from some event on. It belongs to one goroutine.
type Follower struct {
	log  *Log
	last uint64 // number of the event that was read last
}

// Follow returns who reads what comes after the event with that number, as far as it is known. 0 is before the first. A
// number that no event has yet is that of an earlier process, which has counted its own: all that is known comes then.
func (l *Log) Follow(number uint64) *Follower {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number > l.newest {
		number = 0
	}
	return &Follower{l, number}
}

// Next returns the next events, no more than so many, and how many came before them that are forgotten already. Without
// any, more is closed as soon as there are some; otherwise it is nil.
func (f *Follower) Next(most int) (next []*Event, missed uint64, more <-chan struct{}) {
	l := f.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.last == l.newest {
		if l.more == nil {
			l.more = make(chan struct{})
		}
		return nil, 0, l.more
	}
	if oldest := l.newest - uint64(len(l.ring)); f.last < oldest {
		missed = oldest - f.last
		f.last = oldest
	}
	for len(next) < most && f.last < l.newest {
		next = append(next, l.ring[f.last%Known])
		f.last++
	}
	return next, missed, nil
}
