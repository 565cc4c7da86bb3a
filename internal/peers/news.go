package peers

import (
	"fmt"
	"time"
)

// What is told of members is told when it differs from what was told last. So whoever comes and goes all the time makes few
// lines, and the last of them is right.

const (
	// maxLines is how many lines there are in a second about all members.
	maxLines = 20
	// lineEvery is how often there is a line about the same member, after the first lineBurst.
	lineEvery = int64(10 * time.Second)
	lineBurst = 6
)

// teller is what was told of a member.
type teller struct {
	joined, lost, frozen, inDoubt, stuck, behind, newer, overfull, otherRule bool
	strange                                                                  int // for how many targets its settings were others
	spent                                                                    int64
}

// may tells whether there may be one more line, and takes account of it.
func (t *teller) may(now int64) bool {
	if t.spent = max(t.spent, now-lineBurst*lineEvery); t.spent > now-lineEvery {
		return false
	}
	t.spent += lineEvery
	return true
}

// tellMembers tells what has changed.
func (c *core) tellMembers(now int64) {
	for _, m := range c.members {
		if c.linesLeft == 0 {
			return
		}
		c.tellMember(m, now)
	}
}

func (c *core) tellMember(m *member, now int64) {
	is := m.told
	line, warning := "", false
	switch {
	case m.self && m.overfull && !is.overfull:
		is.overfull, warning = true, true
		line = fmt.Sprintf("There are more targets than replicas speak of, which are %d here and %d of all: on the rest each decides alone", maxWords, maxSubjects)
	case m.self:
	case !is.joined && m.greeted:
		is.joined = true
		line = fmt.Sprintf("Peer %s has joined: site %q, shaker %s", m.describe(), m.site, m.shaker)
	case is.lost && m.alive:
		is.lost = false
		line = fmt.Sprintf("Peer %s is heard of again", m.describe())
	case is.joined && !is.lost && !m.alive:
		is.lost, warning = true, true
		line = fmt.Sprintf("Peer %s is silent for %v: its verdicts do not count", m.describe(), silentAfter)
	case !is.newer && m.isNewer():
		is.newer, warning = true, true
		line = fmt.Sprintf("Peer %s speaks version %d of the protocol, and %d is spoken here: what is not understood is passed over", m.describe(), m.protocol, protocol)
	case !is.overfull && m.overfull:
		is.overfull, warning = true, true
		line = fmt.Sprintf("Peer %s speaks of more targets than there is room for: what it says of the rest is passed over", m.describe())
	case is.otherRule != c.hasOtherRule(m):
		is.otherRule, warning = c.hasOtherRule(m), !is.otherRule
		line = fmt.Sprintf("Peer %s agrees by another rule: %s there, and %s here. The two may decide otherwise", m.describe(), m.rule(), c.self.rule())
		if !is.otherRule {
			line = fmt.Sprintf("Peer %s agrees by the rule of this replica", m.describe())
		}
	case is.frozen != m.frozen:
		is.frozen = m.frozen
		line = fmt.Sprintf("Peer %s: verdicts are frozen there, and do not count", m.describe())
		if !m.frozen {
			line = fmt.Sprintf("Peer %s: verdicts are not frozen there any more", m.describe())
		}
	case is.stuck != m.stuck && m.alive:
		is.stuck, warning = m.stuck, m.stuck
		line = fmt.Sprintf("Peer %s finishes no checks: its verdicts do not count", m.describe())
		if !m.stuck {
			line = fmt.Sprintf("Peer %s finishes checks again", m.describe())
		}
	case is.behind != m.behind && m.alive:
		is.behind, warning = m.behind, m.behind
		line = fmt.Sprintf("Peer %s is heard of, but what it says does not arrive: its verdicts do not count", m.describe())
		if !m.behind {
			line = fmt.Sprintf("Peer %s: what it says arrives again", m.describe())
		}
	}
	if line == "" && is.inDoubt != m.inDoubt {
		is.inDoubt, warning = m.inDoubt, m.inDoubt
		line = c.doubtLine(m)
	}
	if n := c.strangeTopics(m); line == "" && m.greeted && m.alive && m.lag() == 0 && (n > 0) != (is.strange > 0) {
		is.strange, warning = n, n > 0
		line = fmt.Sprintf("Peer %s has other settings: its verdicts do not count for %d targets", m.describe(), n)
		if n == 0 {
			line = fmt.Sprintf("Peer %s has the settings of this replica", m.describe())
		}
	}
	if line == "" || !is.may(now) {
		return
	}
	m.told = is
	c.linesLeft--
	c.tellLine(line, warning)
}

func (c *core) tellLine(line string, warning bool) {
	c.tell(func() {
		if warning {
			c.listener.Warningf("%s", line)
			return
		}
		c.listener.Infof("%s", line)
	})
}

func (c *core) doubtLine(m *member) string {
	who, its := "Peer "+m.describe(), "its"
	if m.self {
		who, its = "This replica", "its own"
	}
	if !m.inDoubt {
		return who + " is no longer in doubt"
	}
	return fmt.Sprintf("%s is in doubt: %d hosts that are down by %s checks are up for all other observers. That does not count", who, m.doubtful, its)
}

// tellGoodbye tells that a member leaves.
func (c *core) tellGoodbye(m *member) {
	if m.told.joined && c.linesLeft > 0 {
		c.linesLeft--
		c.tellLine(fmt.Sprintf("Peer %s has said goodbye", m.describe()), false)
	}
}

// describe returns the name and address of a member, for people.
func (m *member) describe() string { return fmt.Sprintf("%q (%v)", m.name, m.at) }

func (m *member) isNewer() bool { return m.newer || m.protocol > protocol }

// hasOtherRule tells whether a member, which has told that, chooses another number of observers or counts sites otherwise.
func (c *core) hasOtherRule(m *member) bool {
	return m.protocol == protocol && (m.observers != c.self.observers || m.quorum != c.self.quorum)
}

// rule is what a member agrees by, for people.
func (m *meta) rule() string {
	if m.quorum {
		return fmt.Sprintf("%d observers with quorum", m.observers)
	}
	return fmt.Sprintf("%d observers", m.observers)
}

// strangeTopics returns of how many targets here it has other settings.
func (c *core) strangeTopics(m *member) (n int) {
	if m.self {
		return 0
	}
	for settings := range c.self.offers {
		if !m.offers[settings].offered {
			n += c.topicsWith[settings]
		}
	}
	return n
}

// isStrange tells whether it has none of the settings of this replica, which has some.
func (c *core) isStrange(m *member) bool {
	for settings := range c.self.offers {
		if m.offers[settings].offered {
			return false
		}
	}
	return !m.self && m.greeted && len(c.self.offers) > 0
}
