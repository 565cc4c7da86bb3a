package shaker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// All server blocks of the process share one monitor and one prober. Who uses them holds a lease: an
// instance, which is one reading of the Corefile. A reload starts the new instance before it stops the
// old one, so that the leases never run out and every verdict survives. The state is started by the
// first lease, ended by the last, and follows the settings of the newest.

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

// processSettings are the properties that belong to the process rather than to a stanza.
type processSettings struct {
	method  setting[checker.Method]
	targets setting[int]
	rate    setting[int]
	freeze  setting[freeze]
	status  setting[string] // the address of the status page
	// targetMetrics is set if any stanza asks for metrics of each target.
	targetMetrics bool
	// overrides are the files that stanzas name, by their path.
	overrides map[string]*overridesFile
}

// instance is one reading of the Corefile. Its monitor is set while it holds a lease and stays set
// after that: queries that arrive later are answered from the last verdicts.
type instance struct {
	settings processSettings
	monitor  *health.Monitor
	handlers []*Shaker // of each server block, set up before the lease
	replaces *instance // whose restart brings this one into being; nil at the first start, and when it is over

	endWatches context.CancelFunc // nil before they begin
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
	c.OnStartup(func() error { return shared.lease(inst) })
	c.OnRestart(func() error { shared.restarting(inst); return nil })
	c.OnRestartFailed(func() error { shared.restartFailed(inst); return nil })
	// An error here would make a reload that worked look like one that failed.
	c.OnShutdown(func() error { shared.giveBack(inst); return nil })
	return inst
}

var shared sharedState

type sharedState struct {
	mu      sync.Mutex
	leases  []*instance // the newest is last
	restart *instance   // the instance that is being replaced

	// What follows is there while there are leases.
	monitor *health.Monitor
	journal *journal
	prober  *checker.Prober
	method  checker.Method
	closing chan struct{} // closed when they end
	// status are the status pages by their addresses; during a reload that changes the address there are two.
	status map[string]*statusServer
	// current is the instance whose settings are in force, nil where there is none. The status page reads it.
	current atomic.Pointer[instance]
}

func (s *sharedState) lease(inst *instance) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.leases, inst) {
		return nil
	}
	if len(s.leases) == 0 {
		s.start()
	}
	s.leases = append(s.leases, inst)
	inst.monitor = s.monitor
	inst.replaces = s.restart
	for _, block := range inst.handlers {
		for _, zone := range block.policies {
			zone.noted = inst.settings.status.isSet()
		}
	}
	err := s.apply()
	if err == nil {
		err = s.openStatus(inst)
	}
	if err != nil {
		s.drop(func(other *instance) bool { return other == inst })
		return err
	}
	for _, file := range inst.settings.overrides {
		file.start()
	}
	return nil
}

func (s *sharedState) giveBack(inst *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	s.restart = old
}

// restartFailed takes back the lease of the instance that was to replace old. Nobody else tells us of
// its end: caddy just forgets it.
func (s *sharedState) restartFailed(old *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart = nil
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
	switch {
	case len(s.leases) == before:
	case len(s.leases) == 0:
		s.stop()
	default:
		s.closeStatus()
		if err := s.apply(); err != nil {
			log.Errorf("Cannot go back to the settings before the reload: %v", err)
		}
	}
}

// end stops what runs for an instance alone.
func (inst *instance) end() {
	if inst.endWatches != nil {
		inst.endWatches()
	}
	for _, file := range inst.settings.overrides {
		file.stop()
	}
}

func (s *sharedState) start() {
	s.closing = make(chan struct{})
	s.journal = newJournal()
	s.monitor = health.New(health.Options{
		Observer: s.journal,
		Late:     func(d time.Duration) { checkDelay.Observe(d.Seconds()) },
		Panic:    func(reason any) { reportPanic("in the monitor", reason) },
	})
	live.Store(s.monitor)
}

func (s *sharedState) stop() {
	s.closeStatus()
	s.current.Store(nil)
	close(s.closing)
	s.monitor.SetProber(nil)
	if s.prober != nil {
		s.prober.Close()
		s.prober = nil
	}
	s.monitor.Close()
	s.journal.close()
	live.CompareAndSwap(s.monitor, nil)
	liveOverrides.Store(nil)
	s.monitor, s.journal = nil, nil
}

// apply puts the newest lease's settings into force. The caller holds mu.
func (s *sharedState) apply() error {
	newest := s.leases[len(s.leases)-1]
	s.current.Store(newest)
	settings := &newest.settings
	liveOverrides.Store(&settings.overrides)
	targetMetrics.Store(settings.targetMetrics)
	method := settings.method.or(checker.MethodDefault)
	if s.prober == nil || s.method != method {
		if err := s.replaceProber(method); err != nil {
			return fmt.Errorf("method %s: %w", method, err)
		}
	}
	s.monitor.SetLimits(settings.targets.or(defaultTargets), settings.rate.or(defaultRate))
	frozen := settings.freeze.or(defaultFreeze)
	s.monitor.SetFreeze(frozen.percent, frozen.most)
	return nil
}

// openStatus serves the status page of an instance, unless that of another one has the same address. The caller holds mu.
func (s *sharedState) openStatus(inst *instance) error {
	address := inst.settings.status.value
	if !inst.settings.status.isSet() || s.status[address] != nil {
		return nil
	}
	server, err := openStatus(address, s.current.Load)
	if err != nil {
		return fmt.Errorf("status %s: %w", address, err)
	}
	if s.status == nil {
		s.status = make(map[string]*statusServer)
	}
	s.status[address] = server
	return nil
}

// closeStatus ends the status pages that nobody with a lease wants. The caller holds mu.
func (s *sharedState) closeStatus() {
	for address, server := range s.status {
		wanted := func(inst *instance) bool { return inst.settings.status.value == address }
		if !slices.ContainsFunc(s.leases, wanted) {
			server.close()
			delete(s.status, address)
		}
	}
}

// replaceProber starts a prober and ends the one before it, whose checks the monitor sends again.
func (s *sharedState) replaceProber(method checker.Method) error {
	prober, err := checker.NewProber(checker.Options{Method: method}, s.monitor.Deliver)
	if err != nil {
		return err
	}
	old := s.prober
	s.prober, s.method = prober, method
	s.monitor.SetProber(prober)
	if old != nil {
		old.Close()
	}
	go s.guard(prober, s.closing)
	return nil
}

// guard replaces a prober that fails, no more often than once in a second.
func (s *sharedState) guard(prober *checker.Prober, closing chan struct{}) {
	profileAs("guard")
	<-prober.Done()
	err := prober.Err()
	for err != nil {
		log.Errorf("Checking has failed and begins anew in a second: %v", err)
		select {
		case <-closing:
			return
		case <-time.After(time.Second):
		}
		s.mu.Lock()
		if s.prober != prober {
			s.mu.Unlock()
			return
		}
		err = s.replaceProber(s.method)
		s.mu.Unlock()
	}
}
