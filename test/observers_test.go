package test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/coredns/coredns/plugin/debug"
	_ "github.com/coredns/coredns/plugin/dnstap"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	tap "github.com/dnstap/golang-dnstap"
	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// dnstap, log, errors and prometheus are above: they see what the client sees.

// What dnstap reports as sent to the client is what the client got; what an upstream said is reported as it was.
func TestDnstap(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	zone := lab.File(t, "db.example.org", neighbourZone)
	upstream := start(t, "example.org:0 {\nbind 127.0.0.1\nfile "+zone+"\n}\n")
	messages := newDnstapSink(t)
	s := start(t, f.neighbourCorefile("", "dnstap "+messages.path+" full\nforward . "+upstream.addr))
	answer := s.ask("www.example.org.", dns.TypeA)
	if got, want := clientView(answer), append([]string{"NOERROR"}, livingWWW[1:]...); !slices.Equal(got[:len(want)], want) {
		t.Fatalf("the client sees %q", got)
	}
	whole := upstream.ask("www.example.org.", dns.TypeA)
	for kind, want := range map[tap.Message_Type]*dns.Msg{
		tap.Message_FORWARDER_RESPONSE: whole,
		tap.Message_CLIENT_RESPONSE:    answer,
	} {
		got := messages.next(kind)
		if !slices.EqualFunc(got.Answer, want.Answer, func(a, b dns.RR) bool { return a.String() == b.String() }) {
			t.Errorf("%v has %v, want %v", kind, got.Answer, want.Answer)
		}
	}
}

// dnstapSink is the other end of the dnstap plugin.
type dnstapSink struct {
	t        *testing.T
	path     string
	received chan *tap.Message
	done     map[tap.Message_Type]*tap.Message
}

func newDnstapSink(t *testing.T) *dnstapSink {
	t.Helper()
	sink := &dnstapSink{
		t:        t,
		path:     filepath.Join(t.TempDir(), "tap"),
		received: make(chan *tap.Message, 16),
		done:     make(map[tap.Message_Type]*tap.Message),
	}
	l, err := net.Listen("unix", sink.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go sink.serve(l)
	return sink
}

// serve reads the messages of one connection.
func (sink *dnstapSink) serve(l net.Listener) {
	defer close(sink.received)
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	reader, err := tap.NewReader(c, &tap.ReaderOptions{Bidirectional: true, Timeout: patience})
	if err != nil {
		sink.t.Error(err)
		return
	}
	decoder := tap.NewDecoder(reader, 1<<16)
	for {
		var frame tap.Dnstap
		if err := decoder.Decode(&frame); err != nil {
			if !errors.Is(err, io.EOF) {
				sink.t.Error(err)
			}
			return
		}
		sink.received <- frame.Message
	}
}

// next waits for the first response of a kind, and unpacks it.
func (sink *dnstapSink) next(kind tap.Message_Type) *dns.Msg {
	sink.t.Helper()
	deadline := time.After(patience)
	for sink.done[kind] == nil {
		select {
		case m := <-sink.received:
			sink.done[m.GetType()] = m
		case <-deadline:
			sink.t.Fatalf("no %v within 10 s", kind)
		}
	}
	m := new(dns.Msg)
	if err := m.Unpack(sink.done[kind].ResponseMessage); err != nil {
		sink.t.Fatal(err)
	}
	return m
}

// log writes the status and size of the answer that is sent; errors is silent, since nothing went wrong in the chain.
func TestLogAndErrors(t *testing.T) {
	f := newNeighbourFarm(t)
	zone := lab.File(t, "db.example.org", neighbourZone)
	for _, tt := range []struct {
		properties, qname, status string
	}{
		{"", "www.example.org.", "NOERROR"},
		{"fallback nodata", "dead.example.org.", "NOERROR"},
		{"fallback servfail", "dead.example.org.", "SERVFAIL"},
	} {
		written := lab.CaptureLog(t)
		s := start(t, f.neighbourCorefile(tt.properties, `errors
			log . "asked {name} {type}: {rcode} {rsize}"
			file `+zone+" example.org\n"))
		m := s.ask(tt.qname, dns.TypeA)
		m.Compress = false
		want := fmt.Sprintf("asked %s A: %s %d\n", tt.qname, tt.status, m.Len())
		written.Expect(t, regexp.MustCompile(regexp.QuoteMeta(want))) // the line comes after the answer
		if strings.Contains(written.String(), "plugin/errors") {
			t.Errorf("%s: something for errors:\n%s", tt.qname, written)
		}
	}
}

// debug switches a line for each check on, and a reload without it off again.
func TestDebug(t *testing.T) {
	t.Cleanup(clog.D.Clear)
	f := newFarm(t, "127.0.5.1", "127.0.5.2")
	f.kill(f.addrs[1])
	corefile := f.neighbourCorefile("interval 20ms", f.hostsBlock())
	written := lab.CaptureLog(t)
	s := start(t, strings.Replace(corefile, "bind 127.0.0.1", "debug\nbind 127.0.0.1", 1))
	s.ask("www.example.org.", dns.TypeA)
	for _, want := range []string{
		fmt.Sprintf(`127\.0\.5\.1:%d: answered in [0-9.]+[mµ]?s, up`, f.port),
		fmt.Sprintf(`127\.0\.5\.2:%d: refused in [0-9.]+[mµ]?s, down`, f.port),
	} {
		written.Expect(t, regexp.MustCompile(`\[DEBUG\] plugin/shaker: Check of `+want+"\n"))
	}

	if err := s.reload(corefile); err != nil {
		t.Fatal(err)
	}
	twoChecks := func() {
		refused := func() float64 {
			return counted(t, "coredns_shaker_checks_total", map[string]string{"result": "refused"})
		}
		end := refused() + 2
		lab.Until(t, "two checks", func() bool { return refused() >= end })
	}
	twoChecks() // the line of one may have been on its way
	written = lab.CaptureLog(t)
	twoChecks()
	if strings.Contains(written.String(), "[DEBUG]") {
		t.Errorf("without debug:\n%s", written)
	}
}

// Each goroutine of shaker's has a label by which profiles tell it from others.
func TestProfile(t *testing.T) {
	f := newFarm(t, "127.0.5.3")
	s := start(t, f.neighbourCorefile("fallback nodata\nwatch www.example.org\nstatus 127.0.0.1:0\noverrides "+
		lab.File(t, "overrides", ""), f.hostsBlock()))
	s.until("www.example.org.", dns.TypeA, f.addrs)
	want := map[string]int{"guard": 1, "monitor": 1, "overrides": 1, "status": 1, "watch": 1}
	if runtime.GOOS == "linux" { // elsewhere there is none between two checks
		want["prober"] = 1
	}
	lab.UntilNil(t, func() error {
		got := labels(t)
		delete(got, "coroutine")    // these come with the queries
		if !maps.Equal(got, want) { // one that has just begun has no label yet
			return fmt.Errorf("goroutines %v, want %v", got, want)
		}
		return nil
	})
}

// log tells what metadata knows of an answer.
func TestMetadata(t *testing.T) {
	f := newNeighbourFarm(t)
	zone := lab.File(t, "db.example.org", neighbourZone)
	written := lab.CaptureLog(t)
	s := start(t, f.neighbourCorefile("fallback nodata", `metadata
		log . "{type} {name}: zone={/shaker/zone} outcome={/shaker/outcome} removed={/shaker/removed} held={/shaker/held}."
		file `+zone+" example.org\n"))
	for _, tt := range []struct {
		qname string
		qtype uint16
		want  string
	}{
		{"www.example.org.", dns.TypeA, `zone=example\.org\. outcome=filtered removed=1 held=[0-3]\.\d+s\.`},
		{"alias.example.org.", dns.TypeA, `zone=example\.org\. outcome=filtered removed=1 held=0s\.`},
		{"dead.example.org.", dns.TypeA, `zone=example\.org\. outcome=fallback removed=1 held=0s\.`},
		{"six.example.org.", dns.TypeAAAA, `zone=example\.org\. outcome=fallback removed=1 held=[0-3]\.\d+s\.`},
		{"gone.example.org.", dns.TypeA, `zone=example\.org\. outcome=fallback removed=2 held=[0-3]\.\d+s\.`},
		{"text.example.org.", dns.TypeTXT, `zone=example\.org\. outcome= removed= held=\.`},
		{"www.example.net.", dns.TypeA, `zone= outcome= removed= held=\.`},
	} {
		s.ask(tt.qname, tt.qtype)
		line := regexp.MustCompile(regexp.QuoteMeta(dns.TypeToString[tt.qtype]+" "+tt.qname+": ") + tt.want + "\n")
		written.Expect(t, line)
	}
}

// rewrite comes before the answer: it knows of the zone, and skips what it does not know.
func TestMetadataInRewrite(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	queries := make(chan *dns.Msg, 1)
	upstream := dnstest.NewServer(func(w dns.ResponseWriter, r *dns.Msg) {
		queries <- r
		m := new(dns.Msg)
		w.WriteMsg(m.SetReply(r))
	})
	t.Cleanup(upstream.Close)
	s := start(t, f.neighbourCorefile("", `metadata
		rewrite continue {
			edns0 local set 0xffee {shaker/zone}
		}
		rewrite edns0 local set 0xffef {shaker/outcome}
		forward . `+upstream.Addr))
	for qname, want := range map[string]map[uint16]string{
		"www.example.org.": {0xffee: "example.org."},
		"www.example.net.": {},
	} {
		s.ask(qname, dns.TypeA)
		got := make(map[uint16]string)
		if opt := (<-queries).IsEdns0(); opt != nil {
			for _, o := range opt.Option {
				if local, ok := o.(*dns.EDNS0_LOCAL); ok {
					got[local.Code] = string(local.Data)
				}
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: the upstream got %v, want %v", qname, got, want)
		}
	}
}

// What goes wrong below reaches errors, and the client, as without shaker.
func TestErrorsBelow(t *testing.T) {
	f := newNeighbourFarm(t)
	written := lab.CaptureLog(t)
	s := start(t, f.neighbourCorefile("", "errors\nforward . "+local(t)+" {\nmax_fails 0\n}"))
	if m := s.ask("www.example.org.", dns.TypeA); m.Rcode != dns.RcodeServerFailure || len(m.Answer) > 0 {
		t.Errorf("answer\n%v", m)
	}
	line := regexp.MustCompile(`plugin/errors: 2 www\.example\.org\. A: `)
	written.Expect(t, line)
}

// health tells of CoreDNS and not of targets. After its lameduck the last verdicts count. TestLameduck is about what
// happens meanwhile.
func TestHealth(t *testing.T) {
	f := newFarm(t, "127.0.5.6")
	f.kill(f.addrs[0])
	written := lab.CaptureLog(t)
	addr := local(t)
	s := start(t, f.neighbourCorefile("fallback servfail", "health "+addr+" {\nlameduck 100ms\n}\n"+f.hostsBlock()))
	expectDown := func() {
		t.Helper()
		if m := s.ask("www.example.org.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("answer\n%v", m)
		}
	}
	expectDown()
	r, err := http.Get("http://" + addr + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Errorf("health says %s", r.Status)
	}
	var ending sync.WaitGroup
	ending.Go(s.callBack)
	written.Expect(t, regexp.MustCompile("Going into lameduck mode"))
	expectDown()
	ending.Wait()
	expectDown()
}

// prometheus counts the status that the client sees, and names the first plugin below it as the one that answered.
func TestPrometheus(t *testing.T) {
	f := newNeighbourFarm(t)
	zone := lab.File(t, "db.example.org", neighbourZone)
	for between, answers := range map[string]string{"": "shaker", "errors\n": "errors", "log\n": "log", "errors\nlog\n": "errors", "loadbalance\n": "loadbalance"} {
		s := start(t, f.neighbourCorefile("fallback servfail", between+"prometheus 127.0.0.1:0\nfile "+zone+" example.org\n"))
		for qname, status := range map[string]string{"www.example.org.": "NOERROR", "dead.example.org.": "SERVFAIL"} {
			counts := func() float64 {
				return counted(t, "coredns_dns_responses_total", map[string]string{"plugin": answers, "rcode": status})
			}
			want := counts() + 1
			s.ask(qname, dns.TypeA)
			lab.UntilNil(t, func() error {
				if n := counts(); n != want {
					return fmt.Errorf("%q between, %s: %v answers of %s with %s, want %v", between, qname, n, answers, status, want)
				}
				return nil
			})
		}
		s.stop()
	}
}
