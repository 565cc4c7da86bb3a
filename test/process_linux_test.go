package test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var otherCoreDNS = flag.String("coredns", "", "the path of a CoreDNS to play the incidents with, in place of this one")

// Where a process serves. Each has a network namespace to itself.
const (
	processDNS     = "127.0.0.1:1053"
	processPage    = "127.0.0.1:8053"
	processReady   = "127.0.0.1:8181"
	processMetrics = "127.0.0.1:9153"
)

// process is a CoreDNS that is a process of its own. So it can be stopped, and another can take its place.
type process struct {
	t     testing.TB
	pid   int
	log   lab.Log
	ended chan struct{}
}

// launchProcess runs CoreDNS until the end of the test. It answers from a zone file, example.org, and serves everything
// that tells of its state. It may not be ready yet when it is returned.
func launchProcess(t testing.TB, properties, zone string) *process {
	t.Helper()
	conf := lab.File(t, "Corefile", fmt.Sprintf(`example.org:1053 {
		bind 127.0.0.1
		shaker {
			%s
			status %s
		}
		file %s
		ready %s
		prometheus %s
	}`, properties, processPage, lab.File(t, "db.example.org", "@ IN SOA ns hostmaster 1 2 3 4 5\n"+zone), processReady, processMetrics))
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if *otherCoreDNS != "" {
		binary = *otherCoreDNS
	}
	p := &process{t: t, ended: make(chan struct{})}
	cmd := exec.Command(binary, "-conf", conf)
	cmd.Env = append(os.Environ(), asCoreDNS+"=1")
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The process dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG), so that has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if err = cmd.Wait(); err != nil {
			t.Errorf("CoreDNS: %v\n%s", err, p.log.String())
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		<-p.ended
	})
	lab.Until(t, "CoreDNS to answer", func() bool {
		select {
		case <-p.ended:
			t.Fatal("CoreDNS has ended")
		default:
		}
		// A query that has no question and that no plugin gets to see.
		m, _, err := new(dns.Client).Exchange(new(dns.Msg), processDNS)
		return err == nil && m.Rcode == dns.RcodeFormatError
	})
	return p
}

// signal sends a signal to the process. One that has ended gets none.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	select {
	case <-p.ended:
	default:
		if err := syscall.Kill(p.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			p.t.Error(err)
		}
	}
}

// ask sends one query and returns the answer.
func (p *process) ask(qname string, qtype uint16) *dns.Msg {
	p.t.Helper()
	return (&server{t: p.t, addr: processDNS}).ask(qname, qtype, func(m *dns.Msg) { m.SetEdns0(4096, false) })
}

// counted sums up the series of a metric that have these labels, each as in state="down".
func (p *process) counted(name string, labels ...string) (sum float64) {
	p.t.Helper()
	answer, err := statusClient.Get("http://" + processMetrics + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %v", answer.Status, err)
	}
lines:
	for line := range strings.Lines(string(text)) {
		series, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		family, have, _ := strings.Cut(series, "{")
		if family != name {
			continue
		}
		for _, want := range labels {
			if !strings.Contains(have, want) {
				continue lines
			}
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil {
			p.t.Fatalf("%q: %v", line, err)
		}
		sum += n
	}
	return sum
}

// starve stops the process for a while, and lets it go on for another, again and again until the returned function is
// called.
func (p *process) starve(stopped, running time.Duration) (feed func()) {
	enough, fed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(fed)
		for {
			p.signal(syscall.SIGSTOP)
			time.Sleep(stopped)
			p.signal(syscall.SIGCONT)
			select {
			case <-enough:
				return
			case <-time.After(running):
			}
		}
	}()
	return func() {
		close(enough)
		<-fed
	}
}
