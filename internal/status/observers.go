package status

import (
	"cmp"
	"fmt"
	"slices"
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
// says by its own checks. Where no other replica may decide it is empty.
func Tally(state string, all []Observer) string {
	var self Observer
	votes := make(map[string][]string) // words by site
	others := false
	for _, o := range all {
		if o.Self {
			self = o
		}
		if o.Votes {
			votes[o.Site] = append(votes[o.Site], o.Says)
			others = others || !o.Self
		}
	}
	if !others {
		return ""
	}
	return tallyOf(state, votes) + "; " + self.ownWords(state)
}

// tallyOf tells who says a state: observers, or sites where there are several. Who checks still counts as if it said so.
func tallyOf(state string, votes map[string][]string) string {
	var words []string
	what := "observer"
	for _, site := range votes {
		if words = site; len(votes) > 1 {
			break
		}
	}
	if len(votes) > 1 {
		words, what = nil, "site"
		for _, site := range votes {
			words = append(words, majority(site, state))
		}
	}
	return countWords(state, words, what)
}

// countWords tells how many of the words of some observers or sites are such.
func countWords(state string, words []string, what string) string {
	rest := len(words)
	var parts []string
	for _, word := range []string{state, health.Down.String(), health.Up.String()} {
		n := 0
		for _, w := range words {
			if w == word {
				n++
			}
		}
		if word == health.Unknown.String() || len(parts) > 0 && (n == 0 || word == state) {
			continue
		}
		part := strconv.Itoa(n)
		if len(parts) == 0 {
			part += " of " + several(len(words), what)
		}
		if word == state {
			word = "so"
		}
		parts = append(parts, fmt.Sprintf("%s %s %s", part, says(n), word))
		rest -= n
	}
	switch {
	case rest == len(words) && state == health.Unknown.String():
		return fmt.Sprintf("none of %s has a verdict", several(rest, what))
	case rest > 0:
		parts = append(parts, fmt.Sprintf("%d without a verdict", rest))
	}
	return strings.Join(parts, ", ")
}

// majority is the word of a site, of which these are the words of its observers.
func majority(words []string, inForce string) string {
	down := 0
	for _, word := range words {
		if word == "down" || word == "checking" && inForce == "down" {
			down++
		}
	}
	switch {
	case 2*down > len(words):
		return "down"
	case slices.Contains(words, "up"):
		return "up"
	default:
		return ""
	}
}

func says(n int) string {
	if n == 1 {
		return "says"
	}
	return "say"
}

// ownWords tell what this replica says by its own checks where others decide as well.
func (o Observer) ownWords(state string) string {
	words := ""
	switch o.Says {
	case "":
		return "this replica does not check it"
	case "checking":
		words = "this replica has no verdict of its own yet"
	case "unable":
		words = "this replica cannot tell"
	case state:
		words = "this replica says so, too"
	default:
		words = "this replica says " + o.Says
	}
	if !o.Votes && o.Says != state {
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
