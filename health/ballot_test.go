package health

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// The votes of all seats against a list of what was cast, through slots of every length, while hosts come and go.
func TestBallotAgainstNaive(t *testing.T) {
	random := rand.New(rand.NewPCG(21, 22))
	b := newBallot()
	var targets [80]Target
	for i := range targets { // 20 networks with 2 hosts of 2 ports each
		targets[i].addr = netip.AddrFrom4([4]byte{192, 0, byte(i / 4), byte(i / 2 % 2)})
	}
	type says struct{ heard, known, asked, unsteady int64 }
	hosts := map[netip.Addr]*says{}
	ports := map[netip.Addr]int{}
	now := int64(0)
	for range 30000 {
		if random.IntN(4) == 0 {
			now += random.Int64N(1 << (20 + random.IntN(15)))
		}
		b.advance(now)
		target := &targets[random.IntN(len(targets))]
		addr := target.addr
		if random.IntN(20) == 0 {
			if target.seat != nil {
				ports[addr]--
			}
			b.leave(target)
			if ports[addr] == 0 {
				delete(hosts, addr)
			}
			continue
		}
		v := []vote{heard, silent, mute, heard | unsteady}[random.IntN(4)]
		if target.seat == nil {
			ports[addr]++
		}
		at := b.now
		if random.IntN(2) == 0 {
			at = max(1, at-random.Int64N(20))
		}
		b.cast(target, v, at)
		h := hosts[addr]
		if h == nil {
			h = new(says)
			hosts[addr] = h
		}
		for _, s := range []struct {
			vote
			slot *int64
		}{{1 << stampHeard, &h.heard}, {1 << stampKnown, &h.known}, {1 << stampAsked, &h.asked}, {unsteady, &h.unsteady}} {
			if v&s.vote != 0 {
				*s.slot = max(*s.slot, at)
			}
		}
		from := b.now - random.Int64N(voteSlots+10)
		var want count
		for _, h := range hosts {
			first := max(from, b.now-voteSlots+1, 1)
			switch {
			case h.heard >= first:
				want.heard++
				if h.unsteady >= first {
					want.unsteady++
				}
			case h.known >= first:
				want.silent++
			case h.asked >= first:
				want.mute++
			}
		}
		if got := b.since(from); got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
	}
}

// A network has a seat for each of its hosts as long as there are seats, whatever their ports. Then they share.
func TestSeats(t *testing.T) {
	for _, format := range []string{"192.0.2.%d", "2001:db8::%x"} {
		b := newBallot()
		targets := map[netip.AddrPort]*Target{}
		seats := func(first, last int) int {
			distinct := map[*seat]bool{}
			for _, a := range addrPorts(format, first, last, 3) {
				if targets[a] == nil {
					targets[a] = &Target{addr: a.Addr(), port: a.Port()}
					b.enter(targets[a])
				}
				distinct[targets[a].seat] = true
			}
			return len(distinct)
		}
		for hosts := 1; hosts <= 200; hosts++ {
			if got, want := seats(1, hosts), min(hosts, networkSeats); got != want {
				t.Fatalf(format+": %d hosts have %d seats, want %d", hosts, hosts, got, want)
			}
		}
		for hosts := 1; hosts <= 200; hosts++ {
			if got := seats(hosts, hosts); got != 1 {
				t.Errorf(format+" has %d seats", hosts, got)
			}
		}
		for _, target := range targets {
			b.leave(target)
			b.leave(target) // does nothing
		}
		if len(b.networks) != 0 {
			t.Errorf("%d networks of nobody", len(b.networks))
		}
	}
}

// However many networks there are, the memory for their votes is bounded, and all of them vote.
func TestCrowds(t *testing.T) {
	b := newBallot()
	b.advance(0)
	var targets []*Target
	for i := range 20 * maxNetworks {
		target := &Target{addr: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})}
		targets = append(targets, target)
		b.cast(target, heard, b.now)
	}
	places := len(b.networks)
	for _, crowd := range b.crowds {
		if crowd != nil {
			places++
		}
	}
	if places != maxNetworks+maxCrowds {
		t.Errorf("%d places for networks, want %d", places, maxNetworks+maxCrowds)
	}
	if got, want := b.since(0), (count{heard: maxNetworks + maxCrowds*networkSeats}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, target := range targets {
		b.leave(target)
	}
	if got := b.since(0); got != (count{}) || len(b.networks) != 0 {
		t.Errorf("%+v on %d networks when all have left", got, len(b.networks))
	}
}
