package status

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// peersPath is where the page of replicas is, if there are any.
const peersPath = "/peers"

var peersPage = format{
	contentType: "text/html; charset=utf-8",
	parameters:  parametersNamed("refresh"),
	ask:         needPeers,
	write: func(to *bytes.Buffer, header http.Header, subject *Subject, q *query, problem error) error {
		p := &pageOfPeers{subject.frame(header, "peers", peersPath, q, problem)}
		if p.HasPeers() {
			p.JSON = "peers.json?"
		}
		return pageTemplates().ExecuteTemplate(to, "peers.html", p)
	},
}

// pageOfPeers is what the page of replicas shows.
type pageOfPeers struct{ frame }

// Group is all of them.
func (p *pageOfPeers) Group() *group { return p.group }

// Heard tells how many of the others are heard of.
func (g *group) Heard() string {
	heard, others := g.heardOf()
	return fmt.Sprintf("%d of %s", heard, several(others, "other replica"))
}

// Rule tells how a verdict comes about.
func (g *group) Rule() string {
	rule := fmt.Sprintf("A target is down if more than half of up to %s of it say so", several(g.Observers, "observer"))
	if g.Quorum {
		return rule + ", in more than half of the sites."
	}
	return rule + ", all of the site of this replica."
}

// Differ tells what replicas should have in common and do not, empty where there is nothing.
func (g *group) Differ() string {
	self := g.self()
	if slices.ContainsFunc(g.Members, func(m member) bool { return m.Alive && m.Quorum != self.Quorum }) {
		return "Some replicas have quorum and others do not, so they may decide differently."
	}
	return ""
}

// meanings are what is told of members, with what it means.
var meanings = []struct{ Words, Means string }{
	{"counts", "What it says of the targets that it observes counts."},
	{"other site", "It decides for its own site, and says nothing about the targets of this one."},
	{"frozen", "Nearly all of its targets fell silent together, so it may be cut off. Its words do not count until they are heard of again."},
	{"in doubt", "It says down where all others who check the same say up, on at least 10 hosts. That it says down does not count until that ends."},
	{"behind", "It lives, but what it says does not arrive, so that what is known of it may be old. Others observe in its place."},
	{"stuck", "It lives, but its checks do not end. Others observe in its place."},
	{"other settings", "None of its stanzas checks as those of this replica do, so it observes none of the same targets. Compare the Corefiles."},
	{"newer", "It speaks a version of the protocol that is not known here. Upgrade this replica."},
	{"silent", "Nothing has been heard of it for more than 3 seconds, and it did not say goodbye. Others observe in its place."},
}

// Meanings returns those that explain the page.
func (g *group) Meanings() (all []struct{ Words, Means string }) {
	for _, m := range meanings {
		if slices.ContainsFunc(g.Members, func(o member) bool { return o.Condition == m.Words }) {
			all = append(all, m)
		}
	}
	return all
}

// condition returns what decides whether the words of a member count, one of the meanings.
func (g *group) condition(m *member) string {
	switch {
	case !m.Alive:
		return "silent"
	case m.Newer:
		return "newer"
	case m.Frozen:
		return "frozen"
	case m.InDoubt:
		return "in doubt"
	case m.Behind:
		return "behind"
	case m.Stuck:
		return "stuck"
	case m.Strange:
		return "other settings"
	case m.Site != g.self().Site && !g.Quorum:
		return "other site"
	default:
		return "counts"
	}
}

// Class is how the condition looks.
func (m member) Class() string {
	switch m.Condition {
	case "counts":
		return "up"
	case "silent":
		return "down"
	case "other site":
		return ""
	default:
		return "unknown"
	}
}

// Otherwise is of how many targets this replica says otherwise than is decided.
func (g *group) Otherwise() string { return several(g.Disagreeing, "target") }

// Called is the name by which people know the replica.
func (m member) Called() string { return cmp.Or(m.Host, m.Name) }

// HeardFor tells how long ago it was heard of.
func (m member) HeardFor() string {
	switch heard := secondsAgo(m.Heard); {
	case m.Self:
		return ""
	case m.Alive && heard < time.Second:
		return "just now"
	default:
		return span(heard) + " ago"
	}
}

// KnownFor tells for how long it is known.
func (m member) KnownFor() string { return span(secondsAgo(m.Known)) }

func secondsAgo(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// reason is why something was rejected, and how often.
type reason struct {
	Reason string
	Times  uint64
}

// rejections are the reasons by which packets and connections are rejected, in words.
var rejections = map[string]string{
	"source": "not from an address that peers allow has",
	"key":    "encrypted with none of the keys, or not at all",
	"format": "not understood",
	"flood":  "too many at a time",
	"misled": "for another replica, mostly the one that had this address before",
	"replay": "a copy of what has come before",
}

// Reasons returns why packets and connections were rejected.
func (t traffic) Reasons() (all []reason) {
	for _, name := range slices.Sorted(maps.Keys(t.Rejected)) {
		if n := t.Rejected[name]; n > 0 {
			all = append(all, reason{cmp.Or(rejections[name], name), n})
		}
	}
	return all
}

// many writes a number with a narrow space before every third digit from the right.
func many(n uint64) string { return groupsOf(strconv.FormatUint(n, 10)) }

// severalMany writes a number of things.
func severalMany(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return many(n) + " " + what + "s"
}

// octets writes a number of them in short.
func octets(n uint64) string {
	if n < 1000 {
		return severalMany(n, "octet")
	}
	size, unit := float64(n)/1000, 0
	for ; size >= 999.5; unit++ { // else three digits would round it up to 1000
		size /= 1000
	}
	return fmt.Sprintf("%.3g\u202f%cB", size, "kMGTPE"[unit])
}
