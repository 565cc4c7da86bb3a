package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// printer writes a run's results. Nothing is sure to be out before flush, which returns the first error there was.
type printer interface {
	printNames(targets []*target)
	printCheck(c *check)
	printSummary(targets []*target, total *tally, elapsed time.Duration)
	flush() error
}

func newPrinter(s settings, w io.Writer) printer {
	b := buffer{bufio.NewWriter(w)}
	if s.json {
		return &jsonPrinter{buffer: b, encoder: json.NewEncoder(b), method: s.method.String()}
	}
	return &textPrinter{buffer: b, timeout: s.timeout}
}

type buffer struct{ *bufio.Writer }

func (b buffer) flush() error {
	if err := b.Flush(); err != nil {
		return fmt.Errorf("cannot write results: %w", err)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// reason is err without what the line says already.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return strings.TrimPrefix(err.Error(), "checker: ")
}

// textPrinter writes for people.
type textPrinter struct {
	buffer
	timeout time.Duration
}

func (p *textPrinter) printNames(targets []*target) {
	for _, t := range targets {
		switch {
		case t.addrs == 1:
			fmt.Fprintf(p, "%s is %s\n", t.name, t.addr)
		case t.addrs > 1:
			fmt.Fprintf(p, "%s is %s, the first of %d addresses\n", t.name, t.addr, t.addrs)
		}
	}
}

func (p *textPrinter) printCheck(c *check) {
	fmt.Fprintf(p, "%s %s", c.target.addr, c.Result)
	switch c.Result {
	case checker.Answered, checker.Refused:
		fmt.Fprintf(p, " in %.3f ms\n", milliseconds(c.RTT))
	case checker.Timeout:
		fmt.Fprintf(p, ": no answer within %s\n", p.timeout)
	default:
		fmt.Fprintf(p, ": %s\n", reason(c.Err))
	}
}

func (p *textPrinter) printSummary(targets []*target, total *tally, elapsed time.Duration) {
	for _, t := range targets {
		p.printTally(t.title(), &t.tally, elapsed)
	}
	if len(targets) > 1 {
		p.printTally(fmt.Sprintf("all %d targets", len(targets)), total, elapsed)
	}
}

func (p *textPrinter) printTally(title string, t *tally, elapsed time.Duration) {
	// Six digits, as ping has them: one check lost of 100000 must not look like none.
	fmt.Fprintf(p, "\n--- %s ---\n%d sent, %d answered, %.6g%% loss, time %d ms\n",
		title, t.sent, t.answered(), t.loss(), elapsed.Milliseconds())
	if t.rtt.n > 0 {
		fmt.Fprintf(p, "rtt min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms\n", milliseconds(t.rtt.min),
			milliseconds(t.rtt.avg()), milliseconds(t.rtt.max), milliseconds(t.rtt.mdev()))
	}
	fmt.Fprint(p, "results:")
	for i, r := range resultOrder {
		if i > 0 {
			fmt.Fprint(p, ",")
		}
		fmt.Fprintf(p, " %d %s", t.counts[r], r)
	}
	fmt.Fprintln(p)
}

// resultOrder has every result, the best news first.
var resultOrder = append(checker.Results()[1:], checker.Inconclusive)

// jsonPrinter writes for programs: one object a line.
type jsonPrinter struct {
	buffer
	encoder *json.Encoder
	method  string
}

// about is what the lines of one target have in common.
type about struct {
	Type    string `json:"type"`    // "check" or "summary"
	Target  string `json:"target"`  // as on the command line
	Address string `json:"address"` // address:port
	Method  string `json:"method"`
}

type checkLine struct {
	about
	Seq    int       `json:"seq"`  // round, from 1
	Time   time.Time `json:"time"` // of the SYN, UTC
	Result string    `json:"result"`
	RTT    *float64  `json:"rtt_ms,omitempty"` // answered and refused
	Error  string    `json:"error,omitempty"`  // all but answered
	Cause  string    `json:"cause,omitempty"`  // inconclusive: as checker.Cause names it
}

type summaryLine struct {
	about
	Sent     int            `json:"sent"`
	Answered int            `json:"answered"`
	Loss     float64        `json:"loss_percent"`
	Elapsed  float64        `json:"time_ms"` // of the run
	Results  map[string]int `json:"results"` // every result, those with 0 too
	// Of the answered checks; missing where there is none.
	Min  *float64 `json:"rtt_min_ms,omitempty"`
	Avg  *float64 `json:"rtt_avg_ms,omitempty"`
	Max  *float64 `json:"rtt_max_ms,omitempty"`
	Mdev *float64 `json:"rtt_mdev_ms,omitempty"`
}

func (p *jsonPrinter) about(kind string, t *target) about {
	return about{Type: kind, Target: t.name, Address: t.addr.String(), Method: p.method}
}

func (p *jsonPrinter) printNames([]*target) {}

func (p *jsonPrinter) printCheck(c *check) {
	line := checkLine{about: p.about("check", c.target), Seq: c.seq, Time: c.sent.UTC(), Result: c.Result.String()}
	switch c.Result {
	case checker.Answered, checker.Refused:
		line.RTT = new(milliseconds(c.RTT))
	case checker.Inconclusive:
		line.Cause = checker.Cause(c.Err)
	}
	if c.Err != nil {
		line.Error = reason(c.Err)
	}
	p.encoder.Encode(line)
}

func (p *jsonPrinter) printSummary(targets []*target, _ *tally, elapsed time.Duration) {
	for _, t := range targets {
		line := summaryLine{
			about:    p.about("summary", t),
			Sent:     t.sent,
			Answered: t.answered(),
			Loss:     t.loss(),
			Elapsed:  milliseconds(elapsed),
			Results:  make(map[string]int),
		}
		for _, r := range checker.Results() {
			line.Results[r.String()] = t.counts[r]
		}
		if t.rtt.n > 0 {
			line.Min, line.Avg = new(milliseconds(t.rtt.min)), new(milliseconds(t.rtt.avg()))
			line.Max, line.Mdev = new(milliseconds(t.rtt.max)), new(milliseconds(t.rtt.mdev()))
		}
		p.encoder.Encode(line)
	}
}
