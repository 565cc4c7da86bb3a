package members

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// rejoin is how often places are resolved again, and joined where no member is. A split of the network heals by nothing
	// else. As long as there is no other member it is tried after a second first, and then after twice as long each time.
	rejoin      = 15 * time.Second
	firstRejoin = time.Second
	// resolveWithin is how long a name may take.
	resolveWithin = 5 * time.Second
	// atATime is how many places are resolved, and addresses joined, at the same time.
	atATime = 8
	// lostFor is how long the address of a member that is gone is tried again, and lostAtATime how many of them each time:
	// most do not answer, after restarts that have changed addresses.
	lostFor     = time.Hour
	lostAtATime = 2 * atATime
	// maxAddresses bounds the addresses that a name may have.
	maxAddresses = maxMembers
)

// Joined is what came of joining a place.
type Joined struct {
	Place string
	Err   error // of the last time, nil where it worked or a member is there by now
}

// joiner joins places, and the addresses of members that are gone.
type joiner struct {
	members *Members
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	join    func(netip.AddrPort) error
	every   time.Duration // rejoin

	mu      sync.Mutex
	places  []string
	results map[string]error             // of the places that were tried
	failed  map[string]int               // how often in a row
	gone    map[netip.AddrPort]time.Time // where members were, and since when they are not
	alone   bool                         // all places are this replica itself

	changed chan struct{}
	end     context.CancelFunc
	ended   sync.WaitGroup
}

func newJoiner(m *Members, places []string) *joiner {
	j := &joiner{
		members: m, every: rejoin, places: places, alone: len(places) == 0,
		results: make(map[string]error), failed: make(map[string]int), gone: make(map[netip.AddrPort]time.Time),
		changed: make(chan struct{}, 1),
	}
	j.resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
	j.join = func(at netip.AddrPort) error {
		_, err := m.list.Join([]string{at.String()})
		// It is a list of errors, with line breaks.
		if all, ok := err.(interface{ WrappedErrors() []error }); ok && len(all.WrappedErrors()) > 0 {
			return all.WrappedErrors()[0]
		}
		return err
	}
	return j
}

func (j *joiner) start() {
	ctx, cancel := context.WithCancel(context.Background())
	j.end = cancel
	j.ended.Go(func() { pprof.Do(ctx, pprof.Labels("shaker", "peers"), j.follow) })
}

func (j *joiner) stop() {
	j.end()
	j.ended.Wait()
}

// set has other places joined from now on.
func (j *joiner) set(places []string) {
	j.mu.Lock()
	j.places, j.alone = places, len(places) == 0
	j.mu.Unlock()
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

// lost notes where a member was, and found where one is.
func (j *joiner) lost(at netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.gone) < maxMembers {
		j.gone[at] = time.Now()
	}
}

func (j *joiner) found(at netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.gone, at)
}

func (j *joiner) report() []Joined {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Joined
	for _, place := range j.places {
		err := j.results[place]
		if at, isName := netip.ParseAddrPort(place); isName == nil && j.members.transport.members.isAt(netip.AddrPortFrom(at.Addr().Unmap(), at.Port())) {
			err = nil // it has joined us meanwhile
		}
		all = append(all, Joined{place, err})
	}
	return all
}

func (j *joiner) isSettled() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.alone || j.members.transport.members.count() > 0
}

func (j *joiner) follow(ctx context.Context) {
	pause := firstRejoin
	for {
		j.round(ctx)
		if j.members.transport.members.count() > 0 {
			pause = j.every
		}
		select {
		case <-ctx.Done():
			return
		case <-j.changed:
			pause = firstRejoin
		case <-time.After(pause):
			pause = min(2*pause, j.every)
		}
	}
}

// round resolves all places, and joins all addresses where no member is. Where members were comes last.
func (j *joiner) round(ctx context.Context) {
	j.mu.Lock()
	places := slices.Clone(j.places)
	j.mu.Unlock()
	var mu sync.Mutex
	found := make(map[string][]netip.AddrPort)
	failed := make(map[string]error)
	each(places, func(place string) {
		at, err := j.addresses(ctx, place)
		mu.Lock()
		defer mu.Unlock()
		found[place], failed[place] = at, err
	})
	joined := j.joinAll(ctx, slices.Concat(slices.Collect(maps.Values(found))...))
	if ctx.Err() == nil {
		j.judge(places, found, failed, joined)
		j.joinAll(ctx, j.someLost())
	}
}

// someLost returns some of the addresses where members were.
func (j *joiner) someLost() []netip.AddrPort {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.DeleteFunc(j.gone, func(_ netip.AddrPort, since time.Time) bool { return time.Since(since) > lostFor })
	all := slices.Collect(maps.Keys(j.gone))
	rand.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
	return all[:min(len(all), lostAtATime)]
}

// joinAll joins addresses, but for the own one, and returns what came of each.
func (j *joiner) joinAll(ctx context.Context, addresses []netip.AddrPort) map[netip.AddrPort]error {
	all := make(map[netip.AddrPort]error)
	for _, at := range addresses {
		if at != j.members.transport.self {
			all[at] = nil
		}
	}
	var mu sync.Mutex
	each(slices.Collect(maps.Keys(all)), func(at netip.AddrPort) {
		err := j.joinOne(ctx, at)
		mu.Lock()
		defer mu.Unlock()
		all[at] = err
	})
	return all
}

// each calls f with all elements, a few at a time, and waits.
func each[T any](all []T, f func(T)) {
	var running sync.WaitGroup
	room := make(chan struct{}, atATime)
	for _, one := range all {
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			f(one)
		})
	}
	running.Wait()
}

// addresses resolves a place.
func (j *joiner) addresses(ctx context.Context, place string) ([]netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(place)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%q is no port, want 1 to 65535", portText)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr.Unmap(), uint16(port))}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	addrs, err := j.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	for _, addr := range addrs[:min(len(addrs), maxAddresses)] {
		all = append(all, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
	}
	return all, nil
}

// joinOne joins an address, unless a member is there.
func (j *joiner) joinOne(ctx context.Context, at netip.AddrPort) error {
	if ctx.Err() != nil || j.members.transport.members.isAt(at) {
		return nil
	}
	return j.join(at)
}

// oneOf tells the first of several errors, and how many there are.
func oneOf(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return fmt.Errorf("none of %d addresses, the first because of: %w", len(errs), errs[0])
}

// judge notes what came of each place, and tells what is new about that. A place has worked if one of its addresses has.
func (j *joiner) judge(places []string, found map[string][]netip.AddrPort, failed map[string]error, joined map[netip.AddrPort]error) {
	alone := true
	results := make(map[string]error)
	for _, place := range places {
		err := failed[place]
		if err != nil {
			alone = false
		}
		var errs []error
		for _, at := range found[place] {
			if at == j.members.transport.self {
				continue
			}
			alone = false
			errs = append(errs, joined[at])
		}
		if len(errs) > 0 && !slices.Contains(errs, nil) {
			err = oneOf(errs)
		}
		results[place] = err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.alone = alone
	j.results = results
	before := j.failed
	j.failed = make(map[string]int)
	for place, err := range results {
		if err != nil {
			j.failed[place] = before[place] + 1
		}
		j.tellOf(place, err, before[place])
	}
}

// tellFrom is from which time in a row on it is told that a place cannot be joined: at a start names may not be there yet, such
// as those that this server itself resolves.
const tellFrom = 2

// tellOf tells what is new about a place. The caller holds mu.
func (j *joiner) tellOf(place string, err error, failed int) {
	switch {
	case err != nil && failed+1 == tellFrom:
		j.members.tell.Warningf("Peers: %s cannot be joined, which is tried again every %v: %v", place, rejoin, err)
	case err == nil && failed >= tellFrom:
		j.members.tell.Infof("Peers: %s can be joined by now", place)
	}
}
