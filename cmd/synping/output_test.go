package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

func TestCheckLines(t *testing.T) {
	dialed := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	tests := []struct {
		report     checker.Report
		text, json string
	}{
		{checker.Report{Result: checker.Answered, RTT: 321456 * time.Nanosecond},
			"192.0.2.7:443 answered in 0.321 ms", `"result":"answered","rtt_ms":0.321456}`},
		{checker.Report{Result: checker.Refused, RTT: 2 * time.Millisecond, Err: os.ErrInvalid},
			"192.0.2.7:443 refused in 2.000 ms", `"result":"refused","rtt_ms":2,"error":"invalid argument"}`},
		{checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout},
			"192.0.2.7:443 timeout: no answer within 1.5s", `"result":"timeout","error":"I/O timeout"}`},
		{checker.Report{Result: checker.Unreachable, Err: dialed},
			"192.0.2.7:443 unreachable: " + dialed.Err.Error(), `"result":"unreachable","error":"` + dialed.Err.Error() + `"}`},
		{checker.Report{Result: checker.Inconclusive, Err: checker.ErrBusy},
			"192.0.2.7:443 inconclusive: no free place in the pool in time",
			`"result":"inconclusive","error":"no free place in the pool in time","cause":"busy"}`},
	}
	for _, test := range tests {
		c := &check{
			target: &target{name: "www.example:https", addr: netip.MustParseAddrPort("192.0.2.7:443"), addrs: 1},
			seq:    3,
			sent:   time.Date(2026, 1, 2, 4, 4, 5, 678_000_000, time.FixedZone("", 3600)),
			Report: test.report,
		}
		s := settings{timeout: 1500 * time.Millisecond, method: checker.MethodDial}
		for _, format := range []struct {
			json bool
			want string
		}{
			{false, test.text},
			{true, `{"type":"check","target":"www.example:https","address":"192.0.2.7:443","method":"dial","seq":3,` +
				`"time":"2026-01-02T03:04:05.678Z",` + test.json},
		} {
			var b strings.Builder
			s.json = format.json
			p := newPrinter(s, &b)
			p.printCheck(c)
			if err := p.flush(); err != nil || b.String() != format.want+"\n" {
				t.Errorf("%s, %v, want\n%s", &b, err, format.want)
			}
		}
	}
}

func TestBegin(t *testing.T) {
	targets := []*target{
		{name: "192.0.2.7:443", addr: netip.MustParseAddrPort("192.0.2.7:443")},
		{name: "one.example:80", addr: netip.MustParseAddrPort("192.0.2.1:80"), addrs: 1},
		{name: "both.example:80", addr: netip.MustParseAddrPort("[2001:db8::1]:80"), addrs: 3},
	}
	var b strings.Builder
	p := newPrinter(settings{}, &b)
	p.printNames(targets)
	want := "one.example:80 is 192.0.2.1:80\nboth.example:80 is [2001:db8::1]:80, the first of 3 addresses\n"
	if err := p.flush(); err != nil || b.String() != want {
		t.Errorf("%q, %v, want %q", &b, err, want)
	}
}

func TestSummary(t *testing.T) {
	mixed := &target{name: "a.example:443", addr: netip.MustParseAddrPort("192.0.2.7:443"), addrs: 2}
	var total tally
	for _, r := range []checker.Report{
		{Result: checker.Answered, RTT: time.Millisecond},
		{Result: checker.Answered, RTT: 3 * time.Millisecond},
		{Result: checker.Timeout},
	} {
		mixed.add(r)
		total.add(r)
	}
	silent := &target{name: "192.0.2.8:443", addr: netip.MustParseAddrPort("192.0.2.8:443")}
	var b strings.Builder
	p := newPrinter(settings{}, &b)
	p.printSummary([]*target{mixed, silent}, &total, 2500*time.Millisecond)
	want := `
--- a.example:443 (192.0.2.7:443) ---
3 sent, 2 answered, 33.3333% loss, time 2500 ms
rtt min/avg/max/mdev = 1.000/2.000/3.000/1.000 ms
results: 2 answered, 0 refused, 1 timeout, 0 unreachable, 0 inconclusive

--- 192.0.2.8:443 ---
0 sent, 0 answered, 0% loss, time 2500 ms
results: 0 answered, 0 refused, 0 timeout, 0 unreachable, 0 inconclusive

--- all 2 targets ---
3 sent, 2 answered, 33.3333% loss, time 2500 ms
rtt min/avg/max/mdev = 1.000/2.000/3.000/1.000 ms
results: 2 answered, 0 refused, 1 timeout, 0 unreachable, 0 inconclusive
`
	if err := p.flush(); err != nil || b.String() != want {
		t.Errorf("%s, %v, want\n%s", &b, err, want)
	}

	b.Reset()
	p = newPrinter(settings{json: true}, &b)
	p.printSummary([]*target{mixed}, &total, 2500*time.Millisecond)
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	var line summaryLine
	if err := json.Unmarshal([]byte(b.String()), &line); err != nil {
		t.Fatal(err)
	}
	if line.Sent != 3 || line.Answered != 2 || line.Elapsed != 2500 || line.Results["timeout"] != 1 ||
		*line.Min != 1 || *line.Avg != 2 || *line.Max != 3 || *line.Mdev != 1 {
		t.Errorf("%s", &b)
	}
}
