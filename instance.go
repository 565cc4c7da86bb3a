package shaker

import (
	"context"
	"fmt"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/peers"
	"github.com/coredns-shaker/shaker/internal/status"
	"github.com/coredns-shaker/shaker/internal/watch"
)

// instance is one reading of the Corefile.
type instance struct {
	settings processSettings
	handlers []*Shaker // of each server block, set up before the lease
	// engine is set by the lease and stays when that ends: queries that arrive later are answered from the last verdicts.
	engine   *engine
	replaces *instance // whose restart brings this one into being; nil at the first start, and when it is over
	reloads  bool      // it takes the place of another one, also when that is over
	// peers is the group of replicas that this one is in, nil without, and before the lease.
	peers atomic.Pointer[peers.Group]
	// sharing is what its files of overrides have in common with other replicas, likewise.
	sharing sharingOf
	// coroutines are those of all handlers, nil before the lease. When that ends, queries do without.
	coroutines *coroutines

	started    atomic.Bool        // the plugins of all server blocks are ready for queries
	watched    watch.Group        // the names of all server blocks
	endWatches context.CancelFunc // nil before they begin
	watches    sync.WaitGroup
}

// processSettings are the properties that belong to the process rather than to a stanza.
type processSettings struct {
	method  setting[checker.Method]
	targets setting[int]
	rate    setting[int]
	freeze  setting[freeze]
	status  setting[string] // the address of the status page
	peers   peerSettings
	// targetMetrics is set if any stanza asks for metrics of each target.
	targetMetrics      bool
	targetMetricsPlace string // of the first that does
	// overrides are the files that stanzas name, by their path.
	overrides map[string]*override.File
	// overrideUses are how they are used, by their path.
	overrideUses map[string]*namedOverrides
}

// Settings of the process where no stanza says otherwise.
const (
	defaultTargets = 65536
	defaultRate    = 100_000 // SYN per second
)

var defaultFreeze = freeze{percent: 90, most: 5 * time.Minute}

// freeze is when verdicts freeze, and for how long at most, see [health.Monitor.SetFreeze].
type freeze struct {
	percent int // 0 is never
	most    time.Duration
}

func (f freeze) String() string {
	if f.percent == 0 {
		return "off"
	}
	return fmt.Sprintf("%d %v", f.percent, f.most)
}

// setting is a property of the process, and the stanza that gave it.
type setting[T comparable] struct {
	value T
	place string // empty while nobody has set it
}

// set notes a value. Another value than before is an error.
func (s *setting[T]) set(value T, place string) error {
	if s.place != "" && s.value != value {
		return fmt.Errorf("%v differs from %v at %s, but the whole process can have only one", value, s.value, s.place)
	}
	if s.place == "" {
		s.value, s.place = value, place
	}
	return nil
}

func (s *setting[T]) isSet() bool { return s.place != "" }

func (s *setting[T]) or(otherwise T) T {
	if s.place == "" {
		return otherwise
	}
	return s.value
}

type instanceKey struct{}

// instanceOf returns the instance that c belongs to, and registers its callbacks the first time.
func instanceOf(c *caddy.Controller) *instance {
	if inst, ok := c.Get(instanceKey{}).(*instance); ok {
		return inst
	}
	inst := new(instance)
	c.Set(instanceKey{}, inst)
	hookStartup()
	c.OnStartup(func() error {
		if err := inst.check(); err != nil {
			err = plugin.Error(name, err)
			shared.noteFailure(err)
			return err
		}
		// Callbacks are called in the order of their registration. By now those of all plugins are registered, also that
		// of health, which sleeps in it for as long as CoreDNS shall answer on (lameduck). So ours is the last.
		c.OnFinalShutdown(func() error { shared.giveBack(inst); return nil })
		err := shared.lease(inst)
		shared.noteFailure(err)
		return err
	})
	c.OnRestart(func() error { shared.restarting(inst); return nil })
	c.OnRestartFailed(func() error { shared.restartFailed(inst); return nil })
	// An error here would make a reload that worked look like one that failed.
	c.OnShutdown(func() error { shared.restarted(inst); return nil })
	return inst
}

// hookStartup has the watches of an instance begin when it has started. Before that the plugins below are not ready for
// queries: their own callbacks come after ours.
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
				shared.started(inst)
			}
		}
		return nil
	})
}

// check looks for what shows only when all plugins of all server blocks are set up: mistakes, and who signs.
func (inst *instance) check() error {
	if err := inst.settings.peers.check(); err != nil {
		return err
	}
	for _, block := range inst.handlers {
		if err := block.checkReach(); err != nil {
			return err
		}
		block.warnOfShuffling()
		block.findNeighbours()
		others := block.neighbours()
		for _, other := range others {
			block.elsewhere = append(block.elsewhere, other.Zone)
		}
		block.findStandbys(others)
		block.warnOfLostStandbys()
		block.findDNSSEC()
	}
	if err := inst.checkStandbys(); err != nil {
		return err
	}
	for _, block := range inst.handlers {
		block.watchNames()
	}
	inst.watchStandbys()
	return nil
}

// warnOfShuffling tells of stanzas with sort below a plugin that undoes it.
func (s *Shaker) warnOfShuffling() {
	if dnsserver.GetConfig(s.controller).Handler("loadbalance") == nil {
		return
	}
	for _, p := range s.policies.stanzas() {
		if p.Sort != answer.Unsorted {
			log.Warningf("%s: sort is of no use, since loadbalance shuffles the addresses again; leave one of them out", p.place)
		}
	}
}

// start begins what runs for an instance alone, except for its watches.
func (inst *instance) start() {
	if inst.replaces != nil {
		inst.watched.TakeOver(&inst.replaces.watched)
	}
	inst.coroutines = newCoroutines()
	for _, block := range inst.handlers {
		block.useCoroutines(inst.coroutines)
		block.watchStrangers()
		block.findLoneZone()
		for _, zone := range block.policies {
			zone.named = inst.settings.status.isSet()
		}
	}
	for _, file := range inst.settings.overrides {
		file.Start()
	}
}

// startWatches begins the look-ups of names that are watched.
func (inst *instance) startWatches() {
	inst.started.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	inst.endWatches = cancel
	for _, block := range inst.handlers {
		if len(block.watches) == 0 {
			continue
		}
		blockCtx := block.standIn(ctx, block.keys[0])
		for _, w := range block.watches {
			inst.watches.Go(func() { pprof.Do(blockCtx, pprof.Labels("shaker", "watch"), w.Run) })
		}
	}
}

// end stops what runs for an instance alone.
func (inst *instance) end() {
	if inst.endWatches != nil {
		inst.endWatches()
		inst.watches.Wait()
	}
	inst.coroutines.close()
	inst.closeResolvers()
	for _, file := range inst.settings.overrides {
		file.Stop()
	}
}

func (inst *instance) closeResolvers() {
	for _, block := range inst.handlers {
		block.resolver.Close()
	}
}

// subject returns what there is to tell of on the status page.
func (inst *instance) subject() *status.Subject {
	s := &status.Subject{
		Monitor: inst.engine.monitor,
		Limit:   inst.settings.targets.or(defaultTargets),
		Shaker:  Version(),
		Events:  shared.events,
		Explain: inst.explain,
	}
	if g := inst.peers.Load(); g != nil {
		s.Peers = g
	}
	known := make(map[status.Rules]bool)
	for _, block := range inst.handlers {
		for _, zone := range block.policies {
			if zone.overrides == nil {
				continue
			}
			for _, r := range []status.Rules{{File: zone.overrides, Settings: zone.key4, IsIPv4: true}, {File: zone.overrides, Settings: zone.key6}} {
				if !known[r] {
					known[r] = true
					s.Rules = append(s.Rules, r)
				}
			}
		}
	}
	return s
}
