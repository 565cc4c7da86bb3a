package status

import (
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// saidOf reads what replicas say: a word for each, SITE/ before it where that is not the own one, and after it - for one that
// does not count and ! for this replica.
func saidOf(t *testing.T, text string) (all []peers.Said) {
	t.Helper()
	words := map[string]health.Word{"nothing": health.NoWord, "checking": health.Checking, "unable": health.Unable, "up": health.SaysUp, "down": health.SaysDown}
	for word := range strings.FieldsSeq(text) {
		site, rest, found := strings.Cut(word, "/")
		if !found {
			site, rest = "own", word
		}
		rest, isSelf := strings.CutSuffix(rest, "!")
		rest, isNone := strings.CutSuffix(rest, "-")
		w, known := words[rest]
		if !known {
			t.Fatalf("%q is no word", word)
		}
		all = append(all, peers.Said{Site: site, Self: isSelf, Observer: !isNone, Opinion: health.Opinion{Word: w}})
	}
	return all
}

func TestTally(t *testing.T) {
	for _, tt := range []struct{ state, said, want string }{
		{"down", "down down up nothing-!", "2 of 3 observers say so, 1 says up; this replica does not check it"},
		{"down", "down! down up", "2 of 3 observers say so, 1 says up; this replica says so, too"},
		{"down", "down down down nothing-!", "3 of 3 observers say so; this replica does not check it"},
		{"down", "down checking! checking", "1 of 3 observers says so, 2 without a verdict; this replica has no verdict of its own yet"},
		{"down", "checking checking checking!", "0 of 3 observers say so, 3 without a verdict; this replica has no verdict of its own yet"},
		{"up", "up down up!", "2 of 3 observers say so, 1 says down; this replica says so, too"},
		{"up", "up up down!", "2 of 3 observers say so, 1 says down; this replica says down"},
		{"up", "up up up down-!", "3 of 3 observers say so; this replica says down, which does not count"},
		{"up", "up up up up-!", "3 of 3 observers say so; this replica says so, too"},
		{"up", "up up unable-!", "2 of 2 observers say so; this replica cannot tell"},
		{"up", "up nothing-!", "1 of 1 observer says so; this replica does not check it"},
		{"unknown", "checking nothing checking!", "none of 3 observers has a verdict; this replica has no verdict of its own yet"},
		{"unknown", "down nothing checking!", "of 3 observers, 1 says down, 0 say up, 2 without a verdict; this replica has no verdict of its own yet"},
		{"up", "up up unable!", "2 of 2 observers say so; this replica cannot tell"},
		{"up", "up up checking-!", "2 of 2 observers say so; this replica has no verdict of its own yet, which does not count"},
		{"up", "down!", ""},
		{"up", "down-! up-", ""},
		{"up", "", ""},
		// Sites.
		{"down", "a/down a/down a/up b/down b/checking b/down! c/up", "2 of 3 sites say so, 1 says up; this replica says so, too"},
		{"down", "a/checking! b/down c/nothing", "3 of 3 sites say so; this replica has no verdict of its own yet"},
		{"up", "a/up! b/down", "1 of 2 sites says so, 1 says down; this replica says so, too"},
	} {
		if got := Tally(stateNamed(tt.state), saidOf(t, tt.said)); got != tt.want {
			t.Errorf("%s by %q: %q, want %q", tt.state, tt.said, got, tt.want)
		}
	}
}

func TestObservers(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	opinion := func(w health.Word, r checker.Result, rtt time.Duration) health.Opinion {
		return health.Opinion{Word: w, InForce: health.Down, Age: 90 * time.Second, Result: r, RTT: rtt}
	}
	since := now.Add(-90 * time.Second)
	for _, tt := range []struct {
		opinion health.Opinion
		want    Observer
	}{
		{opinion(health.NoWord, checker.Answered, time.Second), Observer{}},
		{opinion(health.Checking, checker.Inconclusive, 0), Observer{Says: "checking", Since: since}},
		{opinion(health.Checking, checker.Timeout, 0), Observer{Says: "checking", Since: since, Result: "timeout"}},
		{opinion(health.Unable, checker.Inconclusive, 0), Observer{Says: "unable", Since: since}},
		{opinion(health.SaysUp, checker.Answered, time.Millisecond), Observer{Says: "up", Since: since, Result: "answered", RoundTrip: 0.001}},
		{opinion(health.SaysDown, checker.Refused, time.Millisecond), Observer{Says: "down", Since: since, Result: "refused", RoundTrip: 0.001}},
	} {
		tt.want.Member, tt.want.Host, tt.want.Site, tt.want.Self, tt.want.Votes, tt.want.InForce = "a-1", "a", "x", true, true, "down"
		got := Observers([]peers.Said{{Member: "a-1", Host: "a", Site: "x", Self: true, Observer: true, Opinion: tt.opinion}}, now)
		if len(got) != 1 || got[0] != tt.want {
			t.Errorf("%+v: %+v, want %+v", tt.opinion, got, tt.want)
		}
	}
	if got := Observers(nil, now); got != nil {
		t.Errorf("of nobody: %v", got)
	}
}
