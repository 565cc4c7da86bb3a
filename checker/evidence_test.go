package checker

import (
	"errors"
	"testing"
	"time"
)

func TestEvidence(t *testing.T) {
	var (
		refusal, otherRefusal = errors.New("refused"), errors.New("refused too")
		noHost, noNet         = errors.New("no host"), errors.New("no net")
		noRoute               = errors.New("no route")
	)
	type note struct {
		r   Result
		err error
		rtt time.Duration
	}
	answer, rst, host, net := note{Answered, nil, 1}, note{Refused, refusal, 2}, note{Unreachable, noHost, 0}, note{Unreachable, noNet, 0}
	silence, local := note{Timeout, ErrTimeout, 0}, note{Inconclusive, noRoute, 0}
	for name, tt := range map[string]struct {
		notes []note
		want  note
	}{
		"nothing":                    {nil, silence},
		"silence":                    {[]note{silence, silence}, silence},
		"a SYN-ACK":                  {[]note{answer}, answer},
		"the first SYN-ACK":          {[]note{answer, {Answered, nil, 5}}, answer},
		"a SYN-ACK after a RST":      {[]note{rst, answer}, answer},
		"a SYN-ACK before a RST":     {[]note{answer, rst}, answer},
		"a SYN-ACK after all else":   {[]note{host, local, rst, answer}, answer},
		"a RST":                      {[]note{silence, rst}, rst},
		"the first RST":              {[]note{rst, {Refused, otherRefusal, 9}}, rst},
		"a RST and errors":           {[]note{host, rst, local}, rst},
		"an ICMP error":              {[]note{silence, host}, host},
		"the newest ICMP error":      {[]note{host, net, silence}, net},
		"an error of this machine's": {[]note{local, silence}, local},
		"and an ICMP error":          {[]note{local, host}, local},
		"an ICMP error before that":  {[]note{host, local}, local},
	} {
		var e evidence
		for _, n := range tt.notes {
			e.note(n.r, n.err, n.rtt)
		}
		if r, rtt, err := e.verdict(); (note{r, err, rtt}) != tt.want {
			t.Errorf("%s: %v (%v) in %d, want %v (%v) in %d", name, r, err, rtt, tt.want.r, tt.want.err, tt.want.rtt)
		}
	}
}
