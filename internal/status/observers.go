package status

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// Observer is what a replica says of a target.
type Observer struct {
	Member    string    `json:"member"`
	Host      string    `json:"host"`
	Site      string    `json:"site"`
	Self      bool      `json:"self"`
	Votes     bool      `json:"votes"`
	Says      string    `json:"says"`
	InForce   string    `json:"in_force"`
	Since     time.Time `json:"since,omitzero"`
	Result    string    `json:"result,omitempty"`
	RoundTrip float64   `json:"round_trip_seconds,omitempty"`
}

// Observers returns what is said of a target now, which is nil where nobody knows it.
func Observers(all []peers.Said, now time.Time) (told []Observer) {
	for _, said := range all {
		told = append(told, newObserver(said, now))
	}
	return told
}

func newObserver(said peers.Said, now time.Time) Observer {
	word := said.Opinion.Word
	o := Observer{
		Member: said.Member, Host: said.Host, Site: said.Site, Self: said.Self, Votes: said.Observer,
		Says: wordOf(word), InForce: said.Opinion.InForce.String(),
	}
	if word == health.NoWord {
		return o
	}
	o.Since, o.RoundTrip = instant(now.Add(-said.Opinion.Age)), said.Opinion.RTT.Seconds()
	// An inconclusive one may be none: it is the zero value.
	if r := said.Opinion.Result; r != checker.Inconclusive {
		o.Result = r.String()
	}
	return o
}

// wordOf returns a word as JSON has it, empty where it is none.
func wordOf(w health.Word) string {
	switch w {
	case health.SaysDown:
		return health.Down.String()
	case health.SaysUp:
		return health.Up.String()
	case health.Checking:
		return "checking"
	case health.Unable:
		return "unable"
	default:
		return ""
	}
}

// differing returns what a word says where that is another state than this one, and else nothing.
func differing(w health.Word, state string) string {
	if word := wordOf(w); (w == health.SaysDown || w == health.SaysUp) && word != state {
		return word
	}
	return ""
}

// Tally tells in words who says the state of a target, such as "2 of 3 observers say so, 1 says up", and what this replica
// says by its own checks. It is empty where no other replica has a say.
func Tally(state health.State, all []peers.Said) string {
	var self peers.Said
	votes := make(map[string][]health.Word) // by site
	others := false
	for _, said := range all {
		if said.Self {
			self = said
		}
		if said.Observer {
			votes[said.Site] = append(votes[said.Site], said.Opinion.Word)
			others = others || !said.Self
		}
	}
	if !others {
		return ""
	}
	return countOf(state, votes) + "; " + ownWords(state, self)
}

// countOf tells who says a state: observers, or sites where there are several.
func countOf(state health.State, votes map[string][]health.Word) string {
	var observers health.Tally
	var sites []health.State
	for _, words := range votes {
		var site health.State
		site, observers = health.Agree(words, state)
		sites = append(sites, site)
	}
	if len(sites) > 1 {
		_, tally := health.AgreeSites(sites)
		return countWords(state, tally, "site")
	}
	return countWords(state, observers, "observer")
}

// countWords tells how many of some observers or sites say something.
func countWords(state health.State, t health.Tally, what string) string {
	all, rest := several(t.Of, what), t.Of-t.Up-t.Down
	if state == health.Unknown && rest == t.Of {
		return fmt.Sprintf("none of %s has a verdict", all)
	}
	say := func(n int, what string) string { return fmt.Sprintf("%d %s %s", n, says(n), what) }
	var parts []string
	switch state {
	case health.Down:
		parts = append(parts, fmt.Sprintf("%d of %s %s so", t.Down, all, says(t.Down)))
		if t.Up > 0 {
			parts = append(parts, say(t.Up, "up"))
		}
	case health.Up:
		parts = append(parts, fmt.Sprintf("%d of %s %s so", t.Up, all, says(t.Up)))
		if t.Down > 0 {
			parts = append(parts, say(t.Down, "down"))
		}
	default: // while it changes
		parts = append(parts, fmt.Sprintf("of %s, %s, %s", all, say(t.Down, "down"), say(t.Up, "up")))
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("%d without a verdict", rest))
	}
	return strings.Join(parts, ", ")
}

func says(n int) string {
	if n == 1 {
		return "says"
	}
	return "say"
}

// ownWords tell what this replica says by its own checks where others decide as well.
func ownWords(state health.State, self peers.Said) string {
	words := ""
	switch word := self.Opinion.Word; {
	case word == health.NoWord:
		return "this replica does not check it"
	case word == health.Checking:
		words = "this replica has no verdict of its own yet"
	case word == health.Unable:
		return "this replica cannot tell"
	case wordOf(word) == state.String():
		return "this replica says so, too"
	default:
		words = "this replica says " + wordOf(word)
	}
	if !self.Observer {
		words += ", which does not count"
	}
	return words
}

// Class is how the word looks.
func (o Observer) Class() string {
	if o.Says == health.Down.String() || o.Says == health.Up.String() {
		return o.Says
	}
	return health.Unknown.String()
}

// Called is the name by which people know the replica.
func (o Observer) Called() string { return cmp.Or(o.Host, o.Member) }

// Part tells what becomes of the word.
func (o Observer) Part() string {
	switch {
	case o.Votes:
		return "counts"
	case o.Says == "":
		return "does not check it"
	default:
		return "does not count"
	}
}

// Begin is when the word was said, For how long ago that is, and Milliseconds the round trip, empty where it is not known.
func (o Observer) Begin(now time.Time) string { return shortTime(o.Since, now) }
func (o Observer) For(now time.Time) string   { return span(now.Sub(o.Since)) }
func (o Observer) Milliseconds() string {
	if o.RoundTrip == 0 {
		return ""
	}
	return strconv.FormatFloat(o.RoundTrip*1e3, 'f', 2, 64)
}
