package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// toldAt is what a replica tells of a target, or of an address in an explanation.
type toldAt struct {
	Address   string
	Rests     bool
	Tally     string
	Observers []struct {
		Self, Votes bool
		Says        string
	}
}

// tell reads a page for programs.
func (r *replica) tell(t testing.TB, path string, to any) {
	t.Helper()
	if err := getJSON("http://"+r.page+path, to); err != nil {
		t.Fatal(err)
	}
}

// The pages of each replica tell of both, and of each target who checks it and who says so.
func TestGroupPages(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.0.33.1", "127.0.33.2", "127.0.33.3", "127.0.33.4")
	replicas, _ := startPair(t, f)
	const elsewhere = "1 of 1 observer says so; this replica does not check it"
	// A replica that has only just begun to check may not have told the other one yet.
	lab.UntilNil(t, func() error {
		resting := make(map[string]int)
		for _, r := range replicas {
			var a struct{ Targets []toldAt }
			r.tell(t, "/targets.json", &a)
			for _, target := range a.Targets {
				if target.Rests {
					resting[target.Address]++
				}
				// Where only this one may decide, nobody else is told of.
				if want := map[bool]string{true: elsewhere}[target.Rests]; target.Tally != want || len(target.Observers) == 0 {
					return fmt.Errorf("%s: %q by %+v, want %q", target.Address, target.Tally, target.Observers, want)
				}
			}
		}
		for _, addr := range f.addrs {
			if n := resting[addr.String()]; n != 1 {
				return fmt.Errorf("%v rests at %d of two replicas, want 1", addr, n)
			}
		}
		return nil
	})
	for _, r := range replicas {
		var group struct {
			Ready   bool
			Members []struct{ Address, Condition string }
		}
		r.tell(t, "/peers.json", &group)
		if len(group.Members) != 2 || !group.Ready || group.Members[0].Address != r.peers || group.Members[0].Condition != "counts" || group.Members[1].Condition != "counts" {
			t.Errorf("%s: %+v", r.peers, group)
		}
		r.expectExplained(t, elsewhere)
	}
}

// expectExplained checks that the explanation of the name tells who decides where that is another replica.
func (r *replica) expectExplained(t testing.TB, elsewhere string) {
	t.Helper()
	var explained struct {
		Blocks []struct {
			Sets []struct {
				Members []struct {
					Record, Why string
					Addresses   []struct{ Ports []toldAt }
				}
			}
		}
	}
	r.tell(t, "/explain.json?name=www.example.org", &explained)
	for _, m := range explained.Blocks[0].Sets[0].Members {
		port := m.Addresses[0].Ports[0]
		tells := strings.HasSuffix(m.Why, ": "+elsewhere)
		if checks := len(port.Observers) > 0 && port.Observers[0].Says != "" && port.Observers[0].Self; checks == tells || tells != (port.Tally == elsewhere) {
			t.Errorf("%s: %s: %q, %q by %+v", r.peers, m.Record, m.Why, port.Tally, port.Observers)
		}
	}
}
