package shaker

import (
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"sync"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// Check reads a Corefile, and the files that it names, as CoreDNS does at its start, and writes the policies in force to
// w: by server block and stanza, with the value of every property, in the syntax of a Corefile. Nothing listens, nothing
// is sent, and no plugin is started; docs/check.md tells what the setup functions of some plugins do all the same. An
// error is the one that the start would end with, and then nothing is written. Doubts go to CoreDNS's log.
//
// It is for a process that does nothing else, such as one that ends after it. While it is at work, nothing else in the
// process may start or reload a CoreDNS: that would be cut off as well.
func Check(w io.Writer, corefile caddy.Input) error {
	underCheck.mu.Lock()
	defer underCheck.mu.Unlock()
	started, err := underCheck.cutOff(corefile)
	endSetups(started)
	if err != nil {
		return err
	}
	inst, _ := started.Storage[instanceKey{}].(*instance)
	if inst == nil {
		inst = new(instance) // no server block has a stanza
	}
	if err := inst.check(); err != nil {
		return plugin.Error(name, err)
	}
	defer inst.closeResolvers()
	description, err := describeBlocks(corefile, inst)
	if err != nil {
		return err
	}
	_, err = w.Write(description)
	return err
}

// underCheck is what checks have registered with caddy, which forgets nothing.
var underCheck checkState

type checkState struct {
	mu     sync.Mutex // held by the check that is at work
	isOn   bool
	hooked map[string]bool // directives after which hook is called
}

// errChecked ends a start.
var errChecked = errors.New("the Corefile is to be checked only")

// cutOff starts CoreDNS up to the point where all server blocks are set up and have their chains of plugins. What comes
// next, the callbacks of plugins and listening, does not happen. The instance has never run.
func (s *checkState) cutOff(corefile caddy.Input) (*caddy.Instance, error) {
	if len(dnsserver.Directives) == 0 {
		return nil, errors.New("no plugins are in the list of CoreDNS's directives")
	}
	last := dnsserver.Directives[len(dnsserver.Directives)-1]
	if !s.hooked[last] {
		caddy.RegisterParsingCallback(corefile.ServerType(), last, s.hook)
		if s.hooked == nil {
			s.hooked = make(map[string]bool)
		}
		s.hooked[last] = true
	}
	// A server switches the debug log on or off for the whole process.
	defer setDebug(clog.D.Value())
	s.isOn = true
	defer func() { s.isOn = false }()
	started, err := caddy.Start(corefile)
	if errors.Is(err, errChecked) {
		return started, nil
	}
	return started, err
}

// hook is called when all server blocks have been set up, at each start and reload.
func (s *checkState) hook(ctx caddy.Context) error {
	if !s.isOn {
		return nil
	}
	if _, err := ctx.MakeServers(); err != nil {
		return err
	}
	return errChecked
}

func setDebug(on bool) {
	if on {
		clog.D.Set()
	} else {
		clog.D.Clear()
	}
}

// startedBySetup are the plugins whose setup functions start what only their shutdown ends: goroutines, and with tls an
// open file. Others are left alone, since they have not been started: file, for one, would wait for a goroutine that is
// not there.
var startedBySetup = []string{"clouddns", "etcd", "grpc", "hosts", "route53", "tls"}

// endSetups ends what setup functions have started.
func endSetups(inst *caddy.Instance) {
	if inst == nil {
		return
	}
	for _, shutdown := range inst.OnShutdown {
		function := runtime.FuncForPC(reflect.ValueOf(shutdown).Pointer()).Name()
		for _, plugin := range startedBySetup {
			if strings.HasPrefix(function, "github.com/coredns/coredns/plugin/"+plugin+".") {
				_ = shutdown() // that it cannot be ended says nothing of the Corefile
			}
		}
	}
}
