package main

import (
	"fmt"
	"time"

	"github.com/coredns-shaker/shaker/internal/override"
)

// editor changes files of overrides. It does so safely, whoever else writes them.
type editor struct {
	// add adds a rule.
	add func(path string, r rule, now time.Time) (edited, error)
	// takeBack leaves to its checks what a rule would be about. Where replicas share the file, inForce are the rules of all.
	takeBack func(path string, what, reason string, now time.Time, inForce []rule) (edited, error)
}

// edited is what was done to a file.
type edited struct {
	rules []rule   // that were added, a line each; none where that is not needed
	notes []string // what else there is to know, a sentence each
}

// editedBy takes over what was done.
func editedBy(e override.Edit) edited {
	done := edited{notes: e.Notes}
	for _, r := range e.Rules {
		done.rules = append(done.rules, rule{What: r.What, Says: r.Says.String(), Until: r.Until, Reason: r.Reason})
	}
	return done
}

// files is the editor that CoreDNS agrees with.
var files = editor{
	add: func(path string, r rule, now time.Time) (edited, error) {
		line, err := r.parsed()
		if err != nil {
			return edited{}, err
		}
		e, err := override.Add(path, line, now)
		done := editedBy(e)
		for _, c := range e.Changes {
			if c.Exceptions != "" {
				done.notes = append(done.notes, c.String())
			}
		}
		return done, err
	},
	takeBack: func(path, what, reason string, now time.Time, inForce []rule) (edited, error) {
		var all []override.Rule
		for _, r := range inForce {
			if line, err := r.parsed(); err == nil { // the server may be newer
				all = append(all, line)
			}
		}
		e, err := override.TakeBack(path, what, reason, now, all...)
		return editedBy(e), err
	},
}

// parsed returns the rule as those have it who write files.
func (r rule) parsed() (override.Rule, error) {
	line := override.Rule{What: r.What, Says: override.Auto, Until: r.Until, Reason: r.Reason}
	for line.Says.String() != r.Says {
		if line.Says++; line.Says > override.Down {
			return line, fmt.Errorf("%q is not possible, want up, down or auto", r.Says)
		}
	}
	return line, nil
}
