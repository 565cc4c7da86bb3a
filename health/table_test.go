package health

import (
	"fmt"
	"hash/maphash"
	"iter"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"unique"
)

// keyOf returns one of many keys, of both families and with two settings.
func keyOf(i int) key {
	k := key{addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), port: uint16(1 + i%3)}
	if i%2 == 1 {
		k.addr = netip.AddrFrom16([16]byte{0x20, 0x01, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
		k.settings = unique.Make(Settings{Rise: 1 + i%5})
	}
	return k
}

// newOf returns a target with a key.
func newOf(k key) *Target { return &Target{addr: k.addr, settings: k.settings, port: k.port} }

// setOf returns each with the number of times that it comes.
func setOf(all iter.Seq[*Target]) map[*Target]int {
	times := make(map[*Target]int)
	for x := range all {
		times[x]++
	}
	return times
}

// Whatever comes and goes, the table has what a map has.
func TestTable(t *testing.T) {
	for _, most := range []int{1, firstBuckets - 1, firstBuckets, firstBuckets + 1, 1000, 5000} {
		var table table
		want := make(map[key]*Target)
		for range 4 * most {
			k := keyOf(rand.IntN(most))
			switch x := want[k]; {
			case x == nil:
				x = newOf(k)
				table.put(x)
				table.bring(x)
				want[k] = x
			case rand.IntN(2) == 0:
				table.remove(x)
				delete(want, k)
			}
		}
		for i := range most {
			k := keyOf(i)
			if got := table.get(&k); got != want[k] {
				t.Fatalf("of %d: found %p for number %d, want %p", most, got, i, want[k])
			}
			if got := table.getNear(k.addr, k.port, k.settings); got != nil && got != want[k] {
				t.Fatalf("of %d: found %p for number %d near, want %p", most, got, i, want[k])
			}
		}
		times := setOf(table.all())
		for _, x := range want {
			if times[x] != 1 {
				t.Fatalf("of %d: %v comes %d times", most, x.Addr(), times[x])
			}
		}
		if len(times) != len(want) || table.size != len(want) {
			t.Errorf("of %d: %d come, and the size is %d, want %d", most, len(times), table.size, len(want))
		}
	}
}

// A target is near from when it is asked for until it leaves, unless another one at the same place is asked for.
func TestTableNear(t *testing.T) {
	var table table
	targetOf := func(k key) *Target { return &Target{addr: k.addr, settings: k.settings, port: k.port} }
	first, second := targetOf(keyOf(0)), targetOf(keyOf(1))
	for i := 1; table.nearOf(second.addr, second.port) != table.nearOf(first.addr, first.port); i++ {
		second = targetOf(keyOf(i))
	}
	table.put(first)
	table.put(second)
	steps := []struct {
		name string
		do   func()
		want *Target // who is near
	}{
		{"nobody was asked for", func() {}, nil},
		{"the first", func() { first.want(1); table.bring(first) }, first},
		{"both", func() { second.want(1); table.bring(second) }, first},
		{"the second, since the first was checked", func() { first.prolong(0); table.bring(second) }, second},
		{"the first leaves", func() { table.remove(first) }, second},
		{"the second leaves", func() { table.remove(second) }, nil},
	}
	for _, step := range steps {
		step.do()
		for _, x := range []*Target{first, second} {
			var want *Target
			if x == step.want {
				want = x
			}
			if got := table.getNear(x.addr, x.port, x.settings); got != want {
				t.Errorf("%s: %v is found as %p, want %p", step.name, x.Addr(), got, want)
			}
		}
	}
}

// The places of those that have left are taken again, and so are their buckets.
func TestTableKeepsItsRoom(t *testing.T) {
	const many = 3000
	var table table
	for range 4 {
		var all []*Target
		for i := range many {
			all = append(all, newOf(keyOf(i)))
			table.put(all[i])
		}
		for _, x := range all {
			table.remove(x)
		}
	}
	if n := table.inUse.Load(); n != many || table.taken != many || len(table.vacant) != many {
		t.Errorf("%d buckets, %d places of which %d are vacant, want %d each", n, table.taken, len(table.vacant), many)
	}
}

// However many it has, nearly all chains are short, by whatever secrets it hashes. Those are of the whole process: this test
// is not parallel, and leaves them as they were.
func TestTableChains(t *testing.T) {
	seed, keys := tableSeed, tableKeys
	defer func() { tableSeed, tableKeys = seed, keys }()
	for range 25 {
		tableSeed = maphash.MakeSeed()
		for i := range tableKeys {
			tableKeys[i] = rand.Uint64()
		}
		expectShortChains(t, 1000, 1500, 2047, 20_000)
	}
	expectShortChains(t, 100_000)
}

// expectShortChains has addresses side by side and one port, as is usual, and many more kinds.
func expectShortChains(t *testing.T, sizes ...int) {
	t.Helper()
	plainKey := func(i int) key {
		return key{addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), port: 443, settings: plain}
	}
	for _, many := range sizes {
		expectShortChainsOf(t, many, plainKey)
		expectShortChainsOf(t, many, keyOf)
	}
}

func expectShortChainsOf(t *testing.T, many int, keyOf func(int) key) {
	t.Helper()
	var table table
	for i := range many {
		table.put(newOf(keyOf(i)))
	}
	steps := 0
	for i := range table.inUse.Load() {
		length := 0
		for x := table.bucket(i).Load(); x != nil; x = x.chained.Load() {
			length++
			steps += length
		}
	}
	if mean := float64(steps) / float64(many); mean > 1.8 { // 1.5 to 1.6 are to be expected
		t.Errorf("of %d: %.2f targets are come across to find one", many, mean)
	}
}

// Who stays is always found, and comes once, while others come and go and buckets are split.
func TestTableMeanwhile(t *testing.T) {
	const stay, others, rounds = 300, 3000, 30
	var table table
	var staying []*Target
	for i := range stay {
		staying = append(staying, newOf(keyOf(i)))
		table.put(staying[i])
	}
	ended := make(chan struct{})
	var readers sync.WaitGroup
	until := func(look func() error) {
		readers.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				if err := look(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		until(func() error {
			x := staying[rand.IntN(stay)]
			if k := x.key(); table.get(&k) != x {
				return fmt.Errorf("%v is not found", x.Addr())
			}
			return nil
		})
	}
	until(func() error {
		times := setOf(table.all())
		for _, x := range staying {
			if times[x] != 1 {
				return fmt.Errorf("%v comes %d times", x.Addr(), times[x])
			}
		}
		return nil
	})
	for round := range rounds {
		var more []*Target
		for i := range others * (round + 1) / rounds {
			more = append(more, newOf(keyOf(stay+i)))
			table.put(more[i])
		}
		rand.Shuffle(len(more), func(i, j int) { more[i], more[j] = more[j], more[i] })
		for _, x := range more {
			table.remove(x)
		}
	}
	close(ended)
	readers.Wait()
}
