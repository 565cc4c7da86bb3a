package shaker

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/override"
)

// maxOverrideEvents bounds how many changed rules of a file are events of their own. The rest are a number, so that one file
// does not take the place of all other events.
const maxOverrideEvents = 100

// overrideNews adds an event for what changes about the rules in force. During a reload two instances read the same files,
// and what changes in between is seen by one of them, by both, or only by the new one when it opens them. So it goes by what
// is in force, and compares that with what was told before.
type overrideNews struct {
	events *events.Log

	mu   sync.Mutex // may be taken while a file has its own
	of   *instance  // whose rules are in force, nil where there are none
	told map[string]toldOverrides
}

// toldOverrides is what was told of a file.
type toldOverrides struct {
	rules   *override.Rules
	problem string // why it is not in force, as in the log; empty where it is
	changed bool   // by somebody, since the last event that it is in force
	more    int    // changed rules without an event of their own
}

// follow tells what is different with an instance that has started, or with none. The rules of the first one are no change.
func (n *overrideNews) follow(inst *instance) {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := n.of == nil
	n.of = inst
	if inst == nil {
		n.told = nil
		return
	}
	if n.told == nil {
		n.told = make(map[string]toldOverrides)
	}
	for _, path := range slices.Sorted(maps.Keys(n.told)) {
		if inst.settings.overrides[path] == nil {
			n.compare(path, new(override.Rules))
			delete(n.told, path)
			n.events.Addf(events.Overrides, "No overrides come from %s any more: the configuration does not name it", path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(inst.settings.overrides)) {
		rules := inst.settings.overrides[path].Rules()
		if _, known := n.told[path]; !known {
			t := toldOverrides{rules: new(override.Rules), changed: true}
			if first {
				t.rules = rules
			}
			n.told[path] = t
		}
		n.tellInForce(path, rules)
	}
}

// changed tells what is different now in a file.
func (n *overrideNews) changed(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if rules := n.rules(path); rules != nil {
		n.compare(path, rules)
	}
}

// inForce tells that a file is in force, if there was a change or a problem. Until the instance takes over, that of another
// one says nothing of the rules in force: these may be those before the problem still.
func (n *overrideNews) inForce(file *override.File) {
	n.mu.Lock()
	defer n.mu.Unlock()
	path := file.Path()
	if rules := n.rules(path); rules != nil && n.of.settings.overrides[path] == file {
		n.tellInForce(path, rules)
	}
}

// rejected tells why a file is not in force. The line is that in the log.
func (n *overrideNews) rejected(path, line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t, known := n.told[path]; known && t.problem != line {
		t.problem = line
		n.told[path] = t
		n.events.Addf(events.Overrides, "%s", line)
	}
}

// rules returns those in force from a file that was told of, otherwise nil. The caller holds mu.
func (n *overrideNews) rules(path string) *override.Rules {
	if _, known := n.told[path]; !known {
		return nil
	}
	return n.of.settings.overrides[path].Rules()
}

// compare adds an event for each rule that is different from what was told. Where somebody has changed the file, the event
// follows that it is in force; where rules have only ended by themselves, none does. The caller holds mu.
func (n *overrideNews) compare(path string, rules *override.Rules) {
	t := n.told[path]
	if t.rules == rules {
		return
	}
	changes, more := rules.Difference(t.rules, time.Now(), maxOverrideEvents)
	for _, change := range changes {
		n.events.Addf(events.Override, "Override: %s", change)
	}
	t.rules = rules
	switch edited := slices.ContainsFunc(changes, func(c override.Change) bool { return !c.Ended }); {
	case edited || t.changed:
		t.changed, t.more = true, t.more+more
	case more > 0:
		n.events.Addf(events.Override, "And %d more overrides changed because rules end by themselves", more)
	}
	n.told[path] = t
}

// tellInForce adds the event of a file. The caller holds mu.
func (n *overrideNews) tellInForce(path string, rules *override.Rules) {
	n.compare(path, rules)
	t := n.told[path]
	if !t.changed && t.problem == "" {
		return
	}
	rest := ""
	if t.more > 0 {
		rest = fmt.Sprintf(", %d more changed", t.more)
	}
	n.events.Addf(events.Overrides, "Overrides in force from %s: %d%s", path, rules.Size(), rest)
	n.told[path] = toldOverrides{rules: rules}
}

// open opens a file of overrides, and has what happens to it told by the log and by events.
func (n *overrideNews) open(path string) (file *override.File, err error) {
	file, err = override.Open(path, override.Listener{
		Infof:     log.Infof,
		Errorf:    log.Errorf,
		Recovered: reportPanic,
		Changed:   func(string, override.Change) { n.changed(path) },
		InForce:   func(string) { n.inForce(file) },
		Rejected:  func(line string) { n.rejected(path, line) },
	})
	return file, err
}
