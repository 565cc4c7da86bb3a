package test

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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

// launchProcess runs CoreDNS until the end of the test. It answers from a zone file, example.org, and serves everything
// that tells of its state. It may not be ready yet when it is returned.
func launchProcess(t testing.TB, properties, zone string) *process {
	t.Helper()
	p := startProcess(t, *otherCoreDNS, processDNS, fmt.Sprintf(`example.org:1053 {
		bind 127.0.0.1
		shaker {
			%s
			status %s
		}
		file %s
		ready %s
		prometheus %s
	}`, properties, processPage, lab.File(t, "db.example.org", "@ IN SOA ns hostmaster 1 2 3 4 5\n"+zone), processReady, processMetrics))
	t.Cleanup(func() {
		p.Signal(syscall.SIGTERM)
		if err := p.Wait(); err != nil {
			t.Errorf("CoreDNS: %v", err)
		}
	})
	return p
}

// counted sums up the series of a metric that have these labels, each as in state="down".
func (p *process) counted(name string, labels ...string) float64 {
	p.t.Helper()
	return countedAt(p.t, processMetrics, name, labels...)
}

// countedAt is counted for the metrics that are served at an address.
func countedAt(t testing.TB, address, name string, labels ...string) (sum float64) {
	t.Helper()
	answer, err := statusClient.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", answer.Status, err)
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
			t.Fatalf("%q: %v", line, err)
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
			p.Signal(syscall.SIGSTOP)
			time.Sleep(stopped)
			p.Signal(syscall.SIGCONT)
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
