package shaker

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/peers"
	"github.com/coredns-shaker/shaker/internal/status"
)

// All server blocks of the process share one engine. Who uses it holds a lease: an instance, which is one reading of the
// Corefile. A reload starts the new instance before it stops the old one, so that the leases never run out and every
// verdict survives. The engine is started by the first lease, stopped by the last, and follows the settings of the
// newest.
var shared = newSharedState()

func newSharedState() *sharedState {
	s := &sharedState{events: events.New()}
	s.overrideNews = &overrideNews{events: s.events}
	return s
}

type sharedState struct {
	mu      sync.Mutex
	leases  []*instance // the newest is last
	restart *instance   // the instance that is being replaced
	failure error       // of ours, which keeps a restart from working

	// events are those of the process, and overrideNews adds to them. They outlive every engine.
	events       *events.Log
	overrideNews *overrideNews

	// What follows is there while there are leases.
	engine *engine
	// status are the status pages by their addresses; during a reload that changes the address there are two.
	status map[string]*status.Server
	// groups are those of replicas by our address in them; during a reload that changes it there are two, of which the older
	// one decides.
	groups map[netip.AddrPort]*group
	// sharing is what files of overrides have in common with those of other replicas, nil where there has been no group.
	sharing *override.Sharing
	// current is the instance whose settings are in force, nil where there is none. Metrics and the status page read it.
	current atomic.Pointer[instance]

	lookups atomic.Int64 // queries for watched names that are under way

	explaining explaining
}

// maxLookups bounds the queries for watched names that are under way. A plugin below may keep them for ever, and each
// reload begins one more for each name.
const maxLookups = 1024

// beginLookup counts a query for a watched name. Unless it returns an error, endLookup has to follow.
func (s *sharedState) beginLookup() error {
	if s.lookups.Add(1) > maxLookups {
		s.endLookup()
		return fmt.Errorf("%d look-ups are under way already", maxLookups)
	}
	return nil
}

func (s *sharedState) endLookup() { s.lookups.Add(-1) }

func (s *sharedState) lease(inst *instance) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.leases, inst) {
		return nil
	}
	if len(s.leases) == 0 {
		s.engine = startEngine(s.events)
	}
	s.leases = append(s.leases, inst)
	inst.engine = s.engine
	inst.replaces, inst.reloads = s.restart, s.restart != nil
	err := s.apply()
	if err == nil {
		err = s.openStatus(inst)
	}
	if err != nil {
		s.drop(func(other *instance) bool { return other == inst })
		return err
	}
	s.shareOverrides(inst)
	inst.start()
	return nil
}

// started begins the look-ups of an instance, unless it has ended already, and tells that it is in force. Before that a
// reload could still fail.
func (s *sharedState) started(inst *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.leases, inst) {
		return
	}
	if inst.reloads {
		s.events.Addf(events.Reload, "Reloaded: the new configuration is in force")
	} else {
		s.events.Addf(events.Start, "shaker %s has started", Version())
	}
	s.overrideNews.follow(inst)
	inst.startWatches()
}

// giveBack ends the lease of an instance, if it has one.
func (s *sharedState) giveBack(inst *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(inst)
}

// restarted ends the lease of an instance that has been replaced: its servers have stopped. At the end of the process
// caddy calls back in the same way, but nothing has been replaced then, and the servers go on.
func (s *sharedState) restarted(old *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restart == old {
		s.end(old)
	}
}

// end ends the lease of an instance. The caller holds mu.
func (s *sharedState) end(inst *instance) {
	if s.restart == inst {
		s.restart = nil
	}
	for _, successor := range s.leases {
		if successor.replaces == inst {
			successor.replaces = nil // or every instance there ever was would be kept in memory
		}
	}
	s.drop(func(other *instance) bool { return other == inst })
}

func (s *sharedState) restarting(old *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart, s.failure = old, nil
}

// noteFailure keeps an error that makes a restart fail, if one is under way: whoever is called back then is not told why.
func (s *sharedState) noteFailure(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restart != nil {
		s.failure = err
	}
}

// restartFailed takes back the lease of the instance that was to replace old. Nobody else tells us of
// its end: caddy just forgets it.
func (s *sharedState) restartFailed(old *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reason := "the log has the reason"
	if s.failure != nil {
		reason = s.failure.Error()
	}
	s.events.Addf(events.Reload, "The reload has failed, the configuration before stays in force: %s", reason)
	s.restart, s.failure = nil, nil
	s.drop(func(other *instance) bool { return other.replaces == old })
}

// drop ends leases and brings the settings of the newest that is left back into force. The caller
// holds mu.
func (s *sharedState) drop(which func(*instance) bool) {
	before := len(s.leases)
	s.leases = slices.DeleteFunc(s.leases, func(inst *instance) bool {
		dropped := which(inst)
		if dropped {
			inst.end()
		}
		return dropped
	})
	if len(s.leases) == before {
		return
	}
	s.closeStatus()
	if len(s.leases) == 0 {
		s.current.Store(nil)
		s.overrideNews.follow(nil)
		s.closeGroups()
		s.engine.stop()
		s.engine, s.sharing = nil, nil
		return
	}
	if err := s.apply(); err != nil {
		log.Errorf("Cannot go back to the settings before the reload: %v", err)
	}
	s.closeGroups()
}

// apply puts the newest lease's settings into force. The caller holds mu.
func (s *sharedState) apply() error {
	newest := s.leases[len(s.leases)-1]
	s.current.Store(newest)
	settings := &newest.settings
	method := settings.method.or(checker.MethodDefault)
	if err := s.engine.useMethod(method); err != nil {
		return fmt.Errorf("method %s: %w", method, err)
	}
	s.engine.monitor.SetLimits(settings.targets.or(defaultTargets), settings.rate.or(defaultRate))
	frozen := settings.freeze.or(defaultFreeze)
	s.engine.monitor.SetFreeze(frozen.percent, frozen.most)
	return s.useGroup(newest)
}

// openStatus serves the status page of an instance, unless that of another one has the same address. The caller holds mu.
func (s *sharedState) openStatus(inst *instance) error {
	address := inst.settings.status.value
	if !inst.settings.status.isSet() || s.status[address] != nil {
		return nil
	}
	server, err := status.Open(address, s.subject, status.Listener{Infof: log.Infof, Errorf: log.Errorf, Recovered: reportPanic})
	if err != nil {
		return fmt.Errorf("status %s: %w", address, err)
	}
	if s.status == nil {
		s.status = make(map[string]*status.Server)
	}
	s.status[address] = server
	return nil
}

// closeStatus ends the status pages that nobody with a lease wants. The caller holds mu.
func (s *sharedState) closeStatus() {
	for address, server := range s.status {
		wanted := func(inst *instance) bool { return inst.settings.status.value == address }
		if !slices.ContainsFunc(s.leases, wanted) {
			server.Close()
			delete(s.status, address)
		}
	}
}

// subject returns what the status page tells of, nil where there is nothing.
func (s *sharedState) subject() *status.Subject {
	if inst := s.current.Load(); inst != nil {
		return inst.subject()
	}
	return nil
}

// peers returns the group of replicas that decides, nil where the own checks do.
func (s *sharedState) peers() *peers.Group {
	if inst := s.current.Load(); inst != nil {
		return inst.peers.Load()
	}
	return nil
}

// peersReport returns what there is to tell of the other replicas, nil where there is no group.
func (s *sharedState) peersReport() *peers.Report {
	g := s.peers()
	if g == nil {
		return nil
	}
	r := g.Report()
	return &r
}

// monitor returns the monitor that is at work, nil where there is none.
func (s *sharedState) monitor() *health.Monitor {
	if inst := s.current.Load(); inst != nil {
		return inst.engine.monitor
	}
	return nil
}

// monitorOfEach returns the monitor if there are to be metrics of each of its targets, otherwise nil.
func (s *sharedState) monitorOfEach() *health.Monitor {
	if inst := s.current.Load(); inst != nil && inst.settings.targetMetrics {
		return inst.engine.monitor
	}
	return nil
}

// overrides returns the files of overrides in force by their paths.
func (s *sharedState) overrides() map[string]*override.File {
	if inst := s.current.Load(); inst != nil {
		return inst.settings.overrides
	}
	return nil
}
