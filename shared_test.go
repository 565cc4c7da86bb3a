package shaker

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// sharedTake lets a new instance take over from the one before it, in the order that caddy calls back.
func sharedTake(t *testing.T, old *instance) *instance {
	t.Helper()
	next := new(instance)
	sharedTakeBy(t, old, next)
	return next
}

// sharedTakeBy does so with the new instance.
func sharedTakeBy(t *testing.T, old, next *instance) {
	t.Helper()
	shared.restarting(old)
	if err := shared.lease(next); err != nil {
		t.Fatal(err)
	}
	shared.restarted(old)
}

// However often CoreDNS reloads, the instances that are gone are not kept in memory.
func TestSharedForgetsInstances(t *testing.T) {
	sharedForgets(t, func() *instance { return new(instance) })
}

// sharedForgets has instances take over from one another, and waits for all but the last to be collected.
func sharedForgets(t *testing.T, make func() *instance) {
	t.Helper()
	inst := make()
	if err := shared.lease(inst); err != nil {
		t.Fatal(err)
	}
	defer func() { shared.giveBack(inst) }()
	var gone []weak.Pointer[instance]
	for range 3 {
		gone = append(gone, weak.Make(inst))
		next := make()
		sharedTakeBy(t, inst, next)
		inst = next
	}
	for _, old := range gone {
		lab.Until(t, "the old instances to be collected", func() bool {
			runtime.GC()
			return old.Value() == nil
		})
	}
}

// A reload that fails leaves nothing in force of what it wanted. caddy just forgets the new instance.
func TestSharedRestartFailed(t *testing.T) {
	inst := new(instance)
	if err := shared.lease(inst); err != nil {
		t.Fatal(err)
	}
	defer shared.giveBack(inst)
	engine, method := shared.engine, shared.engine.method
	shared.restarting(inst)
	next := new(instance)
	next.settings.method.set(checker.MethodDial, "Corefile:1")
	next.settings.targetMetrics = true
	if err := shared.lease(next); err != nil {
		t.Fatal(err)
	}
	if shared.engine.method != checker.MethodDial || shared.monitorOfEach() == nil {
		t.Fatal("the settings of the new instance were never in force")
	}
	shared.restartFailed(inst)
	if len(shared.leases) != 1 || shared.leases[0] != inst || shared.engine != engine {
		t.Errorf("%d leases", len(shared.leases))
	}
	if shared.engine.method != method || shared.monitorOfEach() != nil {
		t.Errorf("method %v, metrics of targets %v", shared.engine.method, shared.monitorOfEach() != nil)
	}
}

// The coroutines of an instance end with its lease, also those of one whose reload failed.
func TestSharedEndsCoroutines(t *testing.T) {
	inst := new(instance)
	if err := shared.lease(inst); err != nil {
		t.Fatal(err)
	}
	next := sharedTake(t, inst)
	last := new(instance)
	shared.restarting(next)
	if err := shared.lease(last); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		inst *instance
		open bool
		end  func(*instance)
	}{
		{inst, false, func(*instance) {}},
		{last, true, func(*instance) { shared.restartFailed(next) }},
		{next, true, shared.giveBack},
	} {
		k := tt.inst.coroutines.take()
		if tt.open != (k != nil) {
			t.Errorf("open %v", k != nil)
		}
		if k != nil {
			k.serve(coroutinesCall(func() int { return 0 }))
		}
		tt.end(tt.inst)
		if n := tt.inst.coroutines.made.Load(); n != 0 || tt.inst.coroutines.take() != nil {
			t.Errorf("%d coroutines are left", n)
		}
	}
}

// Starts and reloads are events, with the reason for one that has failed where that is known, and each once.
func TestSharedEvents(t *testing.T) {
	first := new(instance)
	begin := eventsNewest(shared.events)
	if err := shared.lease(first); err != nil {
		t.Fatal(err)
	}
	shared.started(first)
	next := sharedTake(t, first)
	shared.started(next)
	shared.started(first) // has ended already
	shared.restarting(next)
	shared.noteFailure(errors.New("Corefile:3: no"))
	shared.restartFailed(next)
	shared.noteFailure(errors.New("of no reload"))
	shared.restarting(next)
	shared.restartFailed(next)
	shared.giveBack(next)
	want := []string{
		"start: shaker " + Version() + " has started",
		"reload: Reloaded: the new configuration is in force",
		"reload: The reload has failed, the configuration before stays in force: Corefile:3: no",
		"reload: The reload has failed, the configuration before stays in force: the log has the reason",
	}
	if got := eventsSince(shared.events, begin); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
