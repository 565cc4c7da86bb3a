package peers

import (
	"maps"
	"slices"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

const (
	defaultObservers = 3
	maxObservers     = health.MostVoters
	// speakWithin is how long a voter may say nothing until another one takes its place.
	speakWithin = 3 * time.Second
)

// roster is who takes part in checking targets with certain settings.
type roster struct {
	epoch uint64 // it is right in this one only
	// own are the candidates of this replica's site, and others those of each other site, where those count.
	own    []*member
	others [][]*member
}

// rosterOf returns the roster of settings. It is made anew when the candidates have changed.
func (c *core) rosterOf(settings uint64) *roster {
	r := c.rosters[settings]
	if r != nil && r.epoch == c.epoch {
		return r
	}
	r = &roster{epoch: c.epoch}
	sites := make(map[string][]*member)
	for _, m := range c.members {
		if m.isCandidate() && m.offers[settings].offered {
			sites[m.site] = append(sites[m.site], m)
		}
	}
	for _, site := range slices.Sorted(maps.Keys(sites)) { // signatures depend on the order
		members := sites[site]
		switch {
		case site == c.self.site:
			r.own = members
		case c.self.quorum:
			r.others = append(r.others, members)
		}
	}
	c.rosters[settings] = r
	return r
}

// seat is that of a voter who has said nothing of a target yet.
type seat struct {
	member *member
	since  int64
	ask    int64 // when to ask it to check the target, 0 before that is decided
	// passedOver tells that it was for too long, and that the topic was decided anew since.
	passedOver bool
}

// panel is who decides about a target in a site.
type panel struct {
	voters  [maxObservers]*member
	n       int
	checks  bool // this replica checks the target
	wanting bool // it would be one of the observers, were it not for its policies
}

func (p *panel) all() []*member { return p.voters[:p.n] }

// ranked is a candidate and how high it ranks for the target at hand.
type ranked struct {
	weight uint64
	member *member
}

// convene chooses who decides about a topic, of the candidates of a site: those that rank highest, but for those who are
// unable to tell, or have said nothing for too long. Observers who are frozen, or say down and are in doubt, go on checking, so
// that this can end, and others vote in their place.
func (c *core) convene(t *topic, candidates []*member, now int64) (p panel) {
	c.ranked = c.ranked[:0]
	for _, m := range candidates {
		c.ranked = append(c.ranked, ranked{health.Weight(t.record.hash, m.hash), m})
	}
	observers := 0
	for i := range c.ranked {
		if observers >= c.observers && p.n >= c.observers {
			break
		}
		for j := i + 1; j < len(c.ranked); j++ {
			if c.ranked[j].weight > c.ranked[i].weight {
				c.ranked[i], c.ranked[j] = c.ranked[j], c.ranked[i]
			}
		}
		m := c.ranked[i].member
		word := c.wordOf(t, m)
		switch {
		case m.self && !c.isAble(t):
			p.wanting = p.wanting || observers < c.observers
			continue
		case m.self && word == health.Unable:
			p.checks = p.checks || observers < c.observers
			continue
		case word == health.Unable:
			continue
		case word == health.NoWord:
			c.seated = append(c.seated, m)
			if t.isOverdue(m, now) {
				continue
			}
		}
		if m.self && observers < c.observers {
			p.checks = true
		}
		observers++
		if m.mayVote(word) && p.n < c.observers {
			p.voters[p.n] = m
			p.n++
			p.checks = p.checks || m.self
		}
	}
	return p
}

// wordOf returns what a member says of a topic. This replica is never silent.
func (c *core) wordOf(t *topic, m *member) health.Word {
	if m.self {
		return c.ownWord(t)
	}
	v := t.record.voice(m)
	switch {
	case v == nil:
		return health.NoWord
	case m.isStale(v.word, v.number):
		return health.Checking
	}
	return v.word
}

// ownWord returns what this replica says of a topic.
func (c *core) ownWord(t *topic) health.Word {
	if t.own.word == health.NoWord || c.self.isStale(t.own.word, t.wordAt) {
		return health.Checking
	}
	return t.own.word
}

// seat gives those a seat who have said nothing, and keeps since when they have it.
func (t *topic) seat(silent []*member, now int64) {
	if len(silent) == 0 && len(t.seats) == 0 {
		return
	}
	seats := make([]seat, 0, len(silent))
	for _, m := range silent {
		x := seat{member: m, since: now}
		for _, s := range t.seats {
			if s.member == m {
				x = s
			}
		}
		seats = append(seats, x)
	}
	t.seats = seats
}

// isOverdue tells whether a member has said nothing for too long since it should.
func (t *topic) isOverdue(m *member, now int64) bool {
	for i := range t.seats {
		if t.seats[i].member == m {
			return now-t.seats[i].since >= int64(speakWithin)
		}
	}
	return false
}

// decide finds out what is decided about a topic.
func (c *core) decide(t *topic, now int64) health.Decision {
	r := c.rosterOf(t.record.key.settings)
	own := c.assemble(t, r, now)
	t.wanting = own.wanting
	t.seat(c.seated, now)
	t.signature = c.signature(own.checks)
	if len(c.voters) == 0 {
		return health.Decision{Alone: true, Observes: true}
	}
	inForce := t.own.inForce
	if inForce == health.Unknown || c.self.stale > 0 {
		if elsewhere := c.inForceElsewhere(t); elsewhere != health.Unknown {
			inForce = elsewhere
		}
	}
	d := health.Decision{Observes: own.checks, RTT: c.shortestTrip(t)}
	d.State, d.Tally = c.count(t, own.all(), inForce)
	if len(c.panels) == 0 {
		return d
	}
	verdicts := c.verdicts[:0]
	if own.n > 0 {
		verdicts = append(verdicts, d.State)
	}
	for i := range c.panels {
		verdict, _ := c.count(t, c.panels[i].all(), inForce)
		verdicts = append(verdicts, verdict)
	}
	c.verdicts = verdicts
	d.State, d.Tally = health.AgreeSites(verdicts)
	return d
}

// assemble finds the panels that decide about a topic: that of the own site, and in c.panels those of others, where they
// count. c.voters has all voters, and c.seated those who may be waited for.
func (c *core) assemble(t *topic, r *roster, now int64) (own panel) {
	c.voters, c.seated, c.panels = c.voters[:0], c.seated[:0], c.panels[:0]
	own = c.convene(t, r.own, now)
	c.voters = append(c.voters, own.all()...)
	for _, candidates := range r.others {
		if p := c.convene(t, candidates, now); p.n > 0 {
			c.panels = append(c.panels, p)
			c.voters = append(c.voters, p.all()...)
		}
	}
	return own
}

// signature stands for who decides about a topic, and whether this replica checks it.
func (c *core) signature(checks bool) uint64 {
	x := uint64(1)
	if checks {
		x = 2
	}
	for _, m := range c.voters {
		x = health.Weight(x, m.hash)
		if m.stale > 0 {
			x++
		}
	}
	return x
}

// count counts the words of voters, of which those who have none yet count like the verdict in force.
func (c *core) count(t *topic, voters []*member, inForce health.State) (health.State, health.Tally) {
	var words [maxObservers]health.Word
	for i, m := range voters {
		words[i] = c.wordOf(t, m)
	}
	return health.Agree(words[:len(voters)], inForce)
}

// inForceElsewhere returns the verdict that is in force with others: with the voters, or with other candidates where no voter
// has told one.
func (c *core) inForceElsewhere(t *topic) health.State {
	voters, rest := c.verdicts[:0], [2]health.State{}
	for i := range t.record.voices {
		v := &t.record.voices[i]
		switch {
		case v.member.self || v.inForce == health.Unknown || !v.member.isCandidate():
		case slices.Contains(c.voters, v.member):
			voters = append(voters, v.inForce)
		case v.inForce == health.Down:
			rest[1] = v.inForce
		default:
			rest[0] = v.inForce
		}
	}
	c.verdicts = voters
	if len(voters) > 0 {
		return health.Told(voters)
	}
	return health.Told(rest[:])
}

// shortestTrip returns the shortest round trip that the observers of this site have told.
func (c *core) shortestTrip(t *topic) (rtt time.Duration) {
	for i := range t.record.voices {
		v := &t.record.voices[i]
		if d := v.trip(); d > 0 && v.member.isCandidate() && v.member.site == c.self.site && (rtt == 0 || d < rtt) {
			rtt = d
		}
	}
	return rtt
}
