package shaker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
)

const (
	// leastRefresh is the shortest time from one look-up of a name that worked to the next.
	leastRefresh = 5 * time.Second
	// A look-up that failed is tried again after firstRetry, and after twice as long each time, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// lookupTimeout bounds the time that the plugins below get for a look-up.
	lookupTimeout = 5 * time.Second
	// patience is how long `ready` waits for a name that cannot be resolved, and for a target without verdict.
	// One name that is broken must not keep a resolver out of service.
	patience = 30 * time.Second
)

// watch is a name that is looked up when CoreDNS starts and again as its TTL runs out. So its targets have
// verdicts before the first client asks, and never go idle.
type watch struct {
	name   string
	zone   zonePolicy
	shaker *Shaker // which stands above the plugins that resolve the name

	mu      sync.Mutex
	failing time.Time        // since when the name is not resolved; zero while it is, and before the first look-up
	told    bool             // the log says so
	known   bool             // it was resolved at least once
	pending []*health.Target // of the first look-up that worked: those without a verdict, as far as is known
}

// newWatches returns the watched names of a server block.
func newWatches(s *Shaker) []*watch {
	var watches []*watch
	for _, zone := range s.policies {
		for _, name := range zone.watched {
			if s.policies.find(name).zone == zone.zone {
				watches = append(watches, &watch{name: name, zone: zone, shaker: s})
			}
		}
	}
	return watches
}

// Caddy tells when an instance has started. Before that the plugins below are not ready for queries: their
// own callbacks come after ours.
//
// On SIGUSR1, caddy forgets all hooks before it reloads; otherwise it keeps them, and panics over a second one
// of the same name. It has no way to ask.
func hookStartup() {
	defer func() { _ = recover() }()
	caddy.RegisterEventHook(name, func(event caddy.EventName, info any) error {
		if started, ok := info.(*caddy.Instance); ok && event == caddy.InstanceStartupEvent {
			started.StorageMu.RLock()
			inst, ours := started.Storage[instanceKey{}].(*instance)
			started.StorageMu.RUnlock()
			if ours {
				shared.watch(inst)
			}
		}
		return nil
	})
}

// watch starts the look-ups of an instance, unless it has ended already.
func (s *sharedState) watch(inst *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.leases, inst) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	inst.endWatches = cancel
	for _, block := range inst.handlers {
		if len(block.watches) == 0 {
			continue
		}
		blockCtx := standIn(ctx, block.controller)
		for _, w := range block.watches {
			go pprof.Do(blockCtx, pprof.Labels("shaker", "watch"), w.run)
		}
	}
}

// Ready implements ready.Readiness. It speaks for all server blocks, because the ready plugin asks only one
// of them.
func (s *Shaker) Ready() bool {
	for _, block := range s.instance.handlers {
		for _, w := range block.watches {
			if !w.ready() {
				return false
			}
		}
	}
	return true
}

// ready tells whether the name was resolved and its targets have verdicts, or nobody should wait for that any
// longer.
func (w *watch) ready() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known {
		return !w.failing.IsZero() && time.Since(w.failing) >= patience
	}
	w.pending = slices.DeleteFunc(w.pending, func(t *health.Target) bool { return !t.Holds(patience) })
	return len(w.pending) == 0
}

// run looks the name up until the context ends.
func (w *watch) run(ctx context.Context) {
	w.mu.Lock()
	w.failing = time.Now()
	w.mu.Unlock()
	for retry := firstRetry; ; {
		l := w.lookUp(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := w.refresh(l.ttl)
		if w.learn(l) {
			retry = firstRetry
		} else {
			wait, retry = retry, min(2*retry, lastRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// refresh returns the time until the next look-up.
func (w *watch) refresh(ttl uint32) time.Duration {
	return max(time.Duration(min(ttl, w.zone.ttl))*time.Second, leastRefresh)
}

// learn takes in a look-up and tells whether it worked. The log has a line when it did not for a while, and
// another when it works again.
func (w *watch) learn(l *lookup) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.err == nil {
		lookupsBy[true].Inc()
		if w.told {
			log.Infof("%s is resolved again", w.name)
		}
		if !w.known {
			w.known, w.pending = true, l.takeTargets()
		}
		w.failing, w.told = time.Time{}, false
		return true
	}
	lookupsBy[false].Inc()
	if w.failing.IsZero() {
		w.failing = time.Now()
	}
	if time.Since(w.failing) >= patience && !w.told {
		w.told = true
		log.Warningf("%s, which is watched, could not be resolved for %v: %v. Nothing waits for it any longer, "+
			"but it is tried again every %v", w.name, patience, l.err, lastRetry)
	}
	return false
}

// lookup is one look-up of a watched name. What it sends through the filter is no answer to a client: nothing
// is held or counted, but its targets are asked for and noted.
type lookup struct {
	keep time.Duration // for the targets
	ttl  uint32        // the shortest of all answers
	err  error

	mu      sync.Mutex // a plugin may ask this server again in a goroutine of its own
	targets []*health.Target
}

// lookUp asks the plugins below for the addresses of the name, or for the SRV records of a service.
func (w *watch) lookUp(ctx context.Context) *lookup {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	// A minute more than until the next look-up, in case that one fails.
	l := &lookup{keep: w.refresh(math.MaxUint32) + time.Minute, ttl: math.MaxUint32}
	useful, types := 0, w.types()
	for _, qtype := range types {
		m, err := w.ask(ctx, l, qtype)
		if err != nil {
			err = fmt.Errorf("%s: %w", dns.TypeToString[qtype], err)
			if l.err != nil {
				err = fmt.Errorf("%w, %w", l.err, err) // on one line, as the log has it
			}
			l.err = err
			continue
		}
		for _, rr := range m.Answer {
			l.ttl = min(l.ttl, rr.Header().Ttl)
			if slices.Contains(types, rr.Header().Rrtype) {
				useful++
			}
		}
	}
	if useful == 0 && l.err == nil {
		l.err = fmt.Errorf("it has no %s records", strings.Join(typeNames(types), " or "))
	}
	return l
}

// types are those to ask for.
func (w *watch) types() []uint16 {
	if isTCPService(w.name) {
		return []uint16{dns.TypeSRV}
	}
	return addressTypes[:]
}

func typeNames(types []uint16) (names []string) {
	for _, t := range types {
		names = append(names, dns.TypeToString[t])
	}
	return names
}

// ask returns the answer of the plugins below.
func (w *watch) ask(ctx context.Context, l *lookup, qtype uint16) (m *dns.Msg, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			reportPanic("while "+w.name+" was looked up", reason)
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	for _, overTCP := range []bool{false, true} {
		request := new(dns.Msg)
		request.SetQuestion(w.name, qtype)
		request.SetEdns0(dns.DefaultMsgSize, false)
		writer := &lookupWriter{tcp: overTCP}
		p := &pass{
			ResponseWriter: writer,
			Context:        ctx,
			zone:           w.zone,
			verdicts:       verdicts{policy: w.zone.policy, monitor: w.shaker.instance.monitor, request: request, lookup: l},
		}
		rcode, err := plugin.NextOrFailure(name, w.shaker.Next, p, p, request)
		m = writer.answer
		switch {
		case m == nil && err != nil:
			return nil, err
		case m == nil:
			return nil, errors.New(dns.RcodeToString[rcode])
		case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
			return nil, errors.New(dns.RcodeToString[m.Rcode])
		case !m.Truncated:
			return m, nil
		}
	}
	return nil, errors.New("truncated over TCP")
}

// note takes down a target that was asked for.
func (l *lookup) note(t *health.Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.targets = append(l.targets, t)
}

func (l *lookup) takeTargets() []*health.Target {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.targets)
}
