package checker_test

import (
	"context"
	"fmt"
	"go/format"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// The Go code in README.md is code of this file and of tcpshaker_test.go, which compile.
func TestReadmeCode(t *testing.T) {
	var texts [3]string
	for i, name := range []string{"README.md", "readme_test.go", "tcpshaker_test.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
	}
	readme, source := texts[0], texts[1]+texts[2]
	unindented := func(code string) string {
		lines := strings.Split(strings.TrimSpace(code), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		return strings.Join(lines, "\n")
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(blocks) != strings.Count(readme, "```go") || len(blocks) < 4 {
		t.Errorf("%d blocks of code", len(blocks))
	}
	for _, block := range blocks {
		if !strings.Contains(unindented(source), unindented(block[1])) {
			t.Errorf("code that was not compiled:\n%s", block[1])
		}
		if formatted, err := format.Source([]byte(block[1])); err != nil || string(formatted) != block[1] {
			t.Errorf("not formatted (%v):\n%s", err, block[1])
		}
	}
}

// serve listens on a port of loopback until the end.
func serve() (addr string, end func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return l.Addr().String(), func() { l.Close() }
}

func Example() {
	addr, end := serve()
	defer end()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	c := checker.NewChecker()
	go c.CheckingLoop(ctx) // until ctx ends
	<-c.WaitReady()
	switch err := c.CheckAddr(addr, time.Second); err {
	case checker.ErrTimeout:
		fmt.Println("silent for a second")
	case nil:
		fmt.Println("answered")
	default:
		fmt.Println("refused, unreachable or not checked:", err)
	}
	// Output: answered
}

func ExampleChecker_Check() {
	addr, end := serve()
	end() // nobody listens
	target := netip.MustParseAddrPort(addr)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c := checker.NewChecker()
	go c.CheckingLoop(ctx)
	<-c.WaitReady()

	within, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	report := c.Check(within, target)
	switch report.Result {
	case checker.Answered:
		fmt.Println("answered in", report.RTT)
	case checker.Inconclusive:
		fmt.Println("says nothing about the target:", checker.Cause(report.Err))
	default: // Refused, Timeout or Unreachable
		fmt.Println("not answered:", report.Result)
	}
	// Output: not answered: refused
}

func ExampleProber() {
	addr, end := serve()
	defer end()
	if err := checkAll([]netip.AddrPort{netip.MustParseAddrPort(addr)}); err != nil {
		fmt.Println(err)
	}
}

func ExampleCheck() {
	addr, end := serve()
	defer end()
	target := netip.MustParseAddrPort(addr)
	reports := make(chan checker.Report, 1)
	prober, err := checker.NewProber(checker.Config{}, func(batch []checker.Report) { reports <- batch[0] })
	if err != nil {
		panic(err)
	}
	defer prober.Close()

	prober.Submit(checker.Check{Target: target, Timeout: 2 * time.Second, Tries: 4}) // after 0, 0.5, 1 and 1.5 s

	report := <-reports
	fmt.Println(report.Result, "after", report.Tries, "SYN")
	// Output: answered after 1 SYN
}

// The third example in README.md takes as many reports as it has targets, and ends.
func TestReadmeProber(t *testing.T) {
	var targets []netip.AddrPort
	for range 3 {
		addr, end := serve()
		defer end()
		targets = append(targets, netip.MustParseAddrPort(addr))
	}
	if err := checkAll(targets); err != nil {
		t.Error(err)
	}
}

func checkAll(targets []netip.AddrPort) error {
	reports := make(chan checker.Report, len(targets))
	prober, err := checker.NewProber(checker.Config{}, func(batch []checker.Report) {
		for _, report := range batch {
			reports <- report
		}
	})
	if err != nil {
		return err
	}
	defer prober.Close()
	for _, target := range targets {
		if err := prober.Submit(checker.Check{Target: target, Timeout: time.Second, Tag: target}); err != nil {
			return err
		}
	}
	for range targets {
		report := <-reports
		fmt.Println(report.Tag, report.Result)
	}
	return nil
}
