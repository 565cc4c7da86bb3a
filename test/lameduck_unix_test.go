//go:build unix

package test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/health"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What TestServerProcess is told by its environment.
const (
	processCorefile = "SHAKER_TEST_COREFILE" // a path; empty where it is no process of its own
	processHealth   = "SHAKER_TEST_HEALTH"   // "last" sets health up after shaker
)

// TestServerProcess is a CoreDNS that gets signals, as its main function runs it. It is for other tests, which start it
// in a process of its own.
func TestServerProcess(t *testing.T) {
	path := os.Getenv(processCorefile)
	if path == "" {
		t.Skip("this is what other tests run")
	}
	if os.Getenv(processHealth) == "last" {
		others := slices.DeleteFunc(slices.Clone(dnsserver.Directives), func(d string) bool { return d == "health" })
		dnsserver.Directives = append(others, "health")
	}
	caddy.RegisterCaddyfileLoader("test", caddy.LoaderFunc(func(string) (caddy.Input, error) {
		text, err := os.ReadFile(path)
		return corefile(string(text)), err
	}))
	caddy.TrapSignals()
	input, err := caddy.LoadCaddyfile("dns")
	if err != nil {
		t.Fatal(err)
	}
	inst, err := caddy.Start(input)
	if err != nil {
		t.Fatal(err)
	}
	inst.Wait()
	select {} // a signal ends the process
}

// child is a CoreDNS in a process of its own, which ends with the test at the latest.
type child struct {
	server
	command *exec.Cmd
	log     lab.Log
	ended   chan error // has the result
}

// startChild returns when the CoreDNS on this address serves.
func startChild(t *testing.T, address, text string, environment ...string) *child {
	t.Helper()
	p := &child{server: server{t: t, addr: address, tcp: address}, ended: make(chan error, 1)}
	p.command = exec.Command(os.Args[0], "-test.run=^TestServerProcess$", "-test.count=1")
	// Caddy reads what it starts from without a lock when a signal comes, of which the race detector would tell.
	p.command.Env = append(os.Environ(), "GORACE=report_bugs=0", processCorefile+"="+lab.File(t, "Corefile", text))
	p.command.Env = append(p.command.Env, environment...)
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.command.Stderr = p.command.Stdout
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			io.WriteString(&p.log, line)
			if err != nil {
				break
			}
		}
		p.ended <- p.command.Wait()
	}()
	t.Cleanup(func() {
		p.command.Process.Kill()
		p.untilEnded()
	})
	lab.UntilNil(t, func() error {
		select {
		case err := <-p.ended:
			p.ended <- err
			t.Fatalf("it has ended: %v\n%s", err, &p.log)
		default:
		}
		q := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id()}}
		_, _, err := (&dns.Client{Timeout: patience, Net: "tcp"}).Exchange(q, address)
		return err
	})
	return p
}

func (p *child) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// untilEnded waits for the end and returns what came of it.
func (p *child) untilEnded() error {
	err := <-p.ended
	p.ended <- err // for those who ask again
	return err
}

// Between SIGTERM and the end of health's lameduck CoreDNS answers on, and so everything goes on: checks, overrides, the
// status page and look-ups. Where health is in the Corefile, and when it is set up, does not matter.
func TestLameduck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, before, within, after, order string
	}{
		{"same block", "", "HEALTH", "", ""},
		{"block before", "one.test:PORT {\nbind 127.0.0.1\nHEALTH\n}", "", "", ""},
		{"block after", "", "", "one.test:PORT {\nbind 127.0.0.1\nHEALTH\n}", ""},
		{"two blocks, the first without a lameduck", "one.test:PORT {\nbind 127.0.0.1\nhealth OTHER\n}", "HEALTH", "", ""},
		{"set up after shaker", "", "HEALTH", "", "last"},
		{"set up after shaker, block after", "", "", "one.test:PORT {\nbind 127.0.0.1\nHEALTH\n}", "last"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFarm(t, "127.0.17.1", "127.0.17.2", "127.0.17.3")
			f.kill(f.addrs[2])
			b := newWatchQueries(t, "127.0.17.1", "127.0.17.2", "127.0.17.3")
			close(b.wait)
			upstream := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\n%s\n}", b.directive(t)))
			dnsPort, page, dir := port(t), local(t), t.TempDir()
			path := lab.FileIn(t, dir, "overrides", "")
			// Nobody waits for the end of a lameduck of ten minutes, so the test has all the time that it needs.
			text := strings.NewReplacer("HEALTH", "health "+local(t)+" {\nlameduck 10m\n}", "OTHER", local(t), "PORT", fmt.Sprint(dnsPort)).Replace(
				fmt.Sprintf(`%s
				example.org:PORT {
					bind 127.0.0.1
					%s
					shaker {
						port %d
						allow 127.0.0.0/8
						interval 100ms
						overrides %s
						status %s
						watch watched.example.org
					}
					forward . %s
				}
				%s`, tt.before, tt.within, f.port, path, page, upstream.addr, tt.after))
			p := startChild(t, fmt.Sprintf("127.0.0.1:%d", dnsPort), text, processHealth+"="+tt.order)
			p.until("www.example.org.", dns.TypeA, f.addrs[:2])
			p.signal(syscall.SIGTERM)
			lab.Until(t, "the lameduck", func() bool { return strings.Contains(p.log.String(), "Going into lameduck mode") })

			f.kill(f.addrs[1])
			p.until("www.example.org.", dns.TypeA, f.addrs[:1])
			f.start(f.addrs[1])
			p.until("www.example.org.", dns.TypeA, f.addrs[:2])
			lab.FileIn(t, dir, "overrides", "127.0.17.1 down\n")
			p.until("www.example.org.", dns.TypeA, f.addrs[1:2])
			if v := statusOf(t, page, ""); v == nil || v.Counts != (statusCounts{Total: 3, Down: 1, Up: 2}) {
				t.Errorf("the status page tells %+v", v)
			}
			asked := b.count("watched.example.org.")
			lab.Until(t, "another look-up", func() bool { return b.count("watched.example.org.") > asked })
		})
	}
}

// However CoreDNS is asked to end, it does, and has nothing to complain about.
func TestEndsBySignal(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			f := newFarm(t, "127.0.17.8", "127.0.17.9")
			dnsPort, page := port(t), local(t)
			p := startChild(t, fmt.Sprintf("127.0.0.1:%d", dnsPort), fmt.Sprintf(`example.org:%d {
				bind 127.0.0.1
				health %s {
					lameduck 1s
				}
				shaker {
					port %d
					allow 127.0.0.0/8
					overrides %s
					status %s
					watch www.example.org
				}
				%s
			}`, dnsPort, local(t), f.port, lab.File(t, "overrides", ""), page, f.hostsBlock()))
			p.until("www.example.org.", dns.TypeA, f.addrs)
			begin := time.Now()
			p.signal(s)
			if err := p.untilEnded(); err != nil {
				t.Errorf("it ended with %v\n%s", err, &p.log)
			}
			if took := time.Since(begin); s != syscall.SIGQUIT && took < time.Second {
				t.Errorf("it ended after %v, within the lameduck", took)
			}
			for _, bad := range []string{"[ERROR]", "panic", "DATA RACE"} {
				if strings.Contains(p.log.String(), bad) {
					t.Errorf("the log tells of %s:\n%s", bad, &p.log)
				}
			}
		})
	}
}
