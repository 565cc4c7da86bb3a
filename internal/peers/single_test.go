package peers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// A replica that is alone decides just as without peers: by the same results it comes to the same verdicts, and it asks as often.
func TestAloneAsWithoutPeers(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			const targets, results = 30, 120
			with, without := goAlone(t, seed, targets, results, true), goAlone(t, seed, targets, results, false)
			for i := range targets {
				if !slices.Equal(with[i], without[i]) || len(with[i]) < 5 {
					t.Fatalf("seed %d, target %d:\n%v, and without peers\n%v", seed, i, with[i], without[i])
				}
			}
		})
	}
}

// goAlone returns what becomes of each target by results at random, the same with each call.
func goAlone(t *testing.T, seed uint64, targets, results int, peers bool) [][]string {
	w := newTown(t, 1, 1)
	script := make([][]checker.Result, targets)
	rng := rand.New(rand.NewPCG(seed, 5))
	for i := range script {
		kinds := []checker.Result{checker.Answered, checker.Refused, checker.Timeout, checker.Unreachable, checker.Inconclusive}
		for len(script[i]) < results {
			kind := kinds[rng.IntN(len(kinds))]
			for range 1 + rng.IntN(5) {
				script[i] = append(script[i], kind)
			}
		}
	}
	asked := make([]int, targets)
	w.answers(func(_ *house, i int) checker.Result {
		if asked[i]++; asked[i] > results {
			return checker.Inconclusive
		}
		return script[i][asked[i]-1]
	})
	h := w.houses[0]
	h.start()
	h.monitor.SetFreeze(0, 0)
	if !peers {
		h.monitor.SetCouncil(nil)
	}
	all := make([]*health.Target, targets)
	for range 2 * results {
		for i := range all {
			all[i] = h.monitor.Target(target(i), quick, keep)
		}
		time.Sleep(time.Second)
	}
	became := make([][]string, targets)
	for _, c := range h.takeChanges() {
		i := slices.Index(all, c.Target)
		became[i] = append(became[i], fmt.Sprint(c.From, c.To, c.Own, c.Run, c.Result, c.Falls))
	}
	for i := range all {
		s := all[i].Status()
		became[i] = append(became[i], fmt.Sprint(s.State, s.Falls, s.Result))
	}
	h.crash()
	time.Sleep(5 * time.Second)
	return became
}
