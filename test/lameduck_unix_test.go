//go:build unix

package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/coredns/coredns/plugin/health"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Between SIGTERM and the end of health's lameduck CoreDNS answers on, and so everything goes on: checks, overrides, the
// status page and look-ups. Where health is in the Corefile, and when it is set up, does not matter.
func TestLameduck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, before, within, after, healthLast string
	}{
		{"same block", "", "HEALTH", "", ""},
		{"block before", "one.test:PORT {\nbind 127.0.0.1\nHEALTH\n}", "", "", ""},
		{"block after", "", "", "one.test:PORT {\nbind 127.0.0.1\nHEALTH\n}", ""},
		{"two blocks, the first without a lameduck", "one.test:PORT {\nbind 127.0.0.1\nhealth OTHER\n}", "HEALTH", "", ""},
		{"set up after shaker", "", "HEALTH", "", "yes"},
		{"set up after shaker, block after", "", "", "one.test:PORT {\nbind 127.0.0.1\nHEALTH\n}", "yes"},
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
			p := startProcess(t, "", fmt.Sprintf("127.0.0.1:%d", dnsPort), text, healthLast+"="+tt.healthLast)
			p.until("www.example.org.", dns.TypeA, f.addrs[:2])
			p.Signal(syscall.SIGTERM)
			lab.Until(t, "the lameduck", func() bool { return strings.Contains(p.Log.String(), "Going into lameduck mode") })

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
			p := startProcess(t, "", fmt.Sprintf("127.0.0.1:%d", dnsPort), fmt.Sprintf(`example.org:%d {
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
			p.Signal(s)
			if err := p.Wait(); err != nil {
				t.Errorf("it ended with %v\n%s", err, &p.Log)
			}
			if took := time.Since(begin); s != syscall.SIGQUIT && took < time.Second {
				t.Errorf("it ended after %v, within the lameduck", took)
			}
			for _, bad := range []string{"[ERROR]", "panic", "DATA RACE"} {
				if strings.Contains(p.Log.String(), bad) {
					t.Errorf("the log tells of %s:\n%s", bad, &p.Log)
				}
			}
		})
	}
}
