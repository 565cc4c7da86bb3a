package shaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// stackWriter notes in which order it is called. It fails to send the messages that it is told to.
type stackWriter struct {
	test.ResponseWriter
	events []string
	fails  error
}

func (w *stackWriter) note(format string, args ...any) {
	w.events = append(w.events, fmt.Sprintf(format, args...))
}

func (w *stackWriter) WriteMsg(m *dns.Msg) error {
	if m == nil {
		w.note("nil")
	} else {
		w.note("message of %d", len(m.Answer))
	}
	return w.fails
}

func (w *stackWriter) Write(b []byte) (int, error) { w.note("%s", b); return len(b), nil }
func (w *stackWriter) Close() error                { w.note("close"); return nil }
func (w *stackWriter) TsigTimersOnly(bool)         { w.note("timers") }
func (w *stackWriter) Hijack()                     { w.note("hijack") }

// stackZone is a handler above a plugin, for one address that is down and one that is up. It serves by the way.
func stackZone(t *testing.T, by way, next func(dns.ResponseWriter) (int, error)) *Shaker {
	t.Helper()
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=answered")
	network.settleAll()
	s := network.above(policyFor(t, "all", 0), answering(func(w dns.ResponseWriter, _ *dns.Msg) (int, error) { return next(w) }))
	if by == onCoroutine {
		s.coroutines = newCoroutines()
		t.Cleanup(s.coroutines.close)
		s.filtered.balance.Store(maxBalance)
		s.passed.balance.Store(maxBalance)
	}
	return s
}

// What the plugins below write is sent as they wrote it, whatever else they do, and when they have returned at the latest.
// Where it cannot be sent, whoever is above learns of it, in place of those who wrote it on the straight way.
func TestStackOrder(t *testing.T) {
	broken, theirs := errors.New("broken"), errors.New("theirs")
	two := func() *dns.Msg {
		return &dns.Msg{Question: handlerRequest("a.example.org.", dns.TypeA).Question, Answer: lab.Records(t, handlerTwo)}
	}
	// A message of two becomes one of one.
	tests := []struct {
		name     string
		next     func(w *stackWriter, below dns.ResponseWriter) error
		fails    error
		straight string // events
		inside   string // the same where all is sent at once; empty if it is no other
		err      error
	}{
		{
			name: "one message",
			next: func(w *stackWriter, below dns.ResponseWriter) error {
				defer w.note("end")
				return below.WriteMsg(two())
			},
			straight: "end, message of 1", inside: "message of 1, end",
		}, {
			name: "one message, not sent, by one who tells",
			next: func(w *stackWriter, below dns.ResponseWriter) error {
				defer w.note("end")
				return below.WriteMsg(two())
			},
			fails: broken, straight: "end, message of 1", inside: "message of 1, end", err: broken,
		}, {
			name: "one message, not sent, after an error of their own",
			next: func(w *stackWriter, below dns.ResponseWriter) error {
				defer w.note("end")
				below.WriteMsg(two())
				return theirs
			},
			fails: broken, straight: "end, message of 1", inside: "message of 1, end", err: theirs,
		}, {
			name: "two messages",
			next: func(w *stackWriter, below dns.ResponseWriter) error {
				defer w.note("end")
				return errors.Join(below.WriteMsg(two()), below.WriteMsg(new(dns.Msg)), below.WriteMsg(two()))
			},
			straight: "message of 1, message of 0, message of 1, end",
		}, {
			name: "two messages, not sent",
			next: func(_ *stackWriter, below dns.ResponseWriter) error {
				return errors.Join(below.WriteMsg(two()), below.WriteMsg(two()))
			},
			fails: broken, straight: "message of 1, message of 1", err: broken,
		}, {
			name: "a message and bytes",
			next: func(w *stackWriter, below dns.ResponseWriter) error {
				defer w.note("end")
				err := below.WriteMsg(two())
				n, failure := below.Write([]byte("bytes"))
				if n != 5 {
					t.Errorf("wrote %d", n)
				}
				return errors.Join(err, failure)
			},
			straight: "message of 1, bytes, end",
		}, {
			name: "a message, and the rest by themselves",
			next: func(w *stackWriter, below dns.ResponseWriter) error {
				defer w.note("end")
				err := below.WriteMsg(two())
				below.TsigTimersOnly(true)
				below.Hijack()
				return errors.Join(err, below.WriteMsg(two()), below.Close())
			},
			straight: "message of 1, timers, hijack, message of 1, close, end",
		}, {
			name: "a message to a connection that is taken over",
			next: func(_ *stackWriter, below dns.ResponseWriter) error {
				defer below.Hijack()
				return below.WriteMsg(two())
			},
			straight: "message of 1, hijack",
		}, {
			name: "a message to a connection that is closed",
			next: func(_ *stackWriter, below dns.ResponseWriter) error {
				return errors.Join(below.WriteMsg(two()), below.Close())
			},
			straight: "message of 1, close",
		}, {
			name:     "no message",
			next:     func(w *stackWriter, below dns.ResponseWriter) error { defer w.note("end"); return below.WriteMsg(nil) },
			straight: "nil, end",
		}, {
			name:     "nothing",
			next:     func(w *stackWriter, _ dns.ResponseWriter) error { w.note("end"); return theirs },
			straight: "end", err: theirs,
		},
	}
	for _, tt := range tests {
		for by, want := range map[way]string{straight: tt.straight, onCoroutine: tt.inside} {
			if want == "" {
				want = tt.straight
			}
			for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT} {
				if qtype == dns.TypeTXT {
					want = strings.ReplaceAll(want, "message of 1", "message of 2") // it is of no concern
				}
				w := &stackWriter{fails: tt.fails}
				s := stackZone(t, by, func(below dns.ResponseWriter) (int, error) { return dns.RcodeSuccess, tt.next(w, below) })
				rcode, err := s.ServeDNS(t.Context(), w, handlerRequest("a.example.org.", qtype))
				if rcode != dns.RcodeSuccess || !errors.Is(err, tt.err) {
					t.Errorf("%s, way %d, %s: %s, %v", tt.name, by, dns.TypeToString[qtype], dns.RcodeToString[rcode], err)
				}
				if got := strings.Join(w.events, ", "); got != want {
					t.Errorf("%s, way %d, %s: %s; want %s", tt.name, by, dns.TypeToString[qtype], got, want)
				}
			}
		}
	}
}

// A transfer of a zone, and what is no query, is sent as it is written: nothing of it waits for more.
func TestStackTransfer(t *testing.T) {
	tests := []struct {
		qtype  uint16
		opcode int
		want   bool // it is sent late
	}{
		{dns.TypeTXT, dns.OpcodeQuery, true},
		{dns.TypeAXFR, dns.OpcodeQuery, false},
		{dns.TypeIXFR, dns.OpcodeQuery, false},
		{dns.TypeSOA, dns.OpcodeNotify, false},
		{dns.TypeA, dns.OpcodeUpdate, false},
	}
	for _, tt := range tests {
		w := new(stackWriter)
		s := stackZone(t, straight, func(below dns.ResponseWriter) (int, error) {
			defer w.note("end")
			return dns.RcodeSuccess, below.WriteMsg(new(dns.Msg))
		})
		r := handlerRequest("example.org.", tt.qtype)
		r.Opcode = tt.opcode
		if _, err := s.ServeDNS(t.Context(), w, r); err != nil {
			t.Error(err)
		}
		if got := w.events[0] == "end"; got != tt.want {
			t.Errorf("%s, %s: %q", dns.OpcodeToString[tt.opcode], dns.TypeToString[tt.qtype], w.events)
		}
	}
}

// A plugin below may go on in another goroutine, as a prefetch of cache does, and write when the query is over, or while it
// is about to be.
func TestStackWritesLater(t *testing.T) {
	for _, by := range []way{straight, onCoroutine} {
		var later sync.WaitGroup
		begin := make(chan struct{})
		s := stackZone(t, by, func(w dns.ResponseWriter) (int, error) {
			later.Go(func() {
				<-begin
				if err := w.WriteMsg(&dns.Msg{Answer: lab.Records(t, handlerTwo)}); err != nil {
					t.Error(err)
				}
			})
			return dns.RcodeSuccess, nil
		})
		w := new(stackWriter)
		if _, err := s.ServeDNS(t.Context(), w, handlerRequest("a.example.org.", dns.TypeA)); err != nil || w.events != nil {
			t.Errorf("way %d: %v, %q", by, err, w.events)
		}
		close(begin)
		later.Wait()
		if want := []string{"message of 1"}; !slices.Equal(w.events, want) {
			t.Errorf("way %d: %q, want %q", by, w.events, want)
		}
	}
	for range 100 {
		var later sync.WaitGroup
		s := stackZone(t, straight, func(w dns.ResponseWriter) (int, error) {
			later.Go(func() { w.WriteMsg(&dns.Msg{Answer: lab.Records(t, handlerTwo)}) })
			return dns.RcodeSuccess, nil
		})
		w := new(stackWriter)
		s.ServeDNS(t.Context(), w, handlerRequest("a.example.org.", dns.TypeA))
		later.Wait()
		if want := []string{"message of 1"}; !slices.Equal(w.events, want) {
			t.Fatalf("%q, want %q", w.events, want)
		}
	}
}

// A panic below gets to the server as it is, which answers then; nothing else is sent.
func TestStackPanic(t *testing.T) {
	for by, want := range map[way][]string{straight: nil, onCoroutine: {"message of 1"}} {
		reason := errors.New("reason")
		s := stackZone(t, by, func(w dns.ResponseWriter) (int, error) {
			w.WriteMsg(&dns.Msg{Answer: lab.Records(t, handlerTwo)})
			panic(reason)
		})
		for range 3 {
			w := new(stackWriter)
			func() {
				defer func() {
					if got := recover(); got != reason {
						t.Errorf("way %d: recovered %v", by, got)
					}
				}()
				s.ServeDNS(t.Context(), w, handlerRequest("a.example.org.", dns.TypeA))
			}()
			if !slices.Equal(w.events, want) {
				t.Errorf("way %d: %q, want %q", by, w.events, want)
			}
		}
		if s.coroutines != nil {
			if n := s.coroutines.made.Load(); n != 0 {
				t.Errorf("%d coroutines are left of those that panicked", n)
			}
		}
	}
}

// A query with a trace has a span for the next plugin in it, as between all others.
func TestStackTraces(t *testing.T) {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT} {
		tracer := mocktracer.New()
		query := tracer.StartSpan("shaker").(*mocktracer.MockSpan)
		var within opentracing.Span
		network := newNetwork(t, "")
		s := network.above(policyFor(t, "all", 0), plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			within = opentracing.SpanFromContext(ctx)
			return dns.RcodeSuccess, w.WriteMsg(new(dns.Msg).SetReply(r))
		}))
		w := new(stackWriter)
		_, err := s.ServeDNS(opentracing.ContextWithSpan(t.Context(), query), w, handlerRequest("a.example.org.", qtype))
		if err != nil || len(w.events) != 1 {
			t.Errorf("%v, %q", err, w.events)
		}
		spans := tracer.FinishedSpans()
		if len(spans) != 1 || spans[0] != within || spans[0].OperationName != "handlerfunc" || spans[0].ParentID != query.SpanContext.SpanID {
			t.Errorf("%s: spans %v", dns.TypeToString[qtype], spans)
		}
	}
}

// Whoever has nobody below says so.
func TestStackWithoutNext(t *testing.T) {
	s := newNetwork(t, "").above(policyFor(t, "all", 0), nil)
	for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT} {
		if rcode, err := s.ServeDNS(t.Context(), new(stackWriter), handlerRequest("a.example.org.", qtype)); rcode != dns.RcodeServerFailure || err == nil {
			t.Errorf("%s, %v", dns.RcodeToString[rcode], err)
		}
	}
}

// deepen uses more of the stack than one that has just begun has.
//
//go:noinline
func deepen(levels int) (sum int) {
	var frame [256]byte
	if levels > 0 {
		sum = deepen(levels - 1)
	}
	for i := range frame {
		frame[i] = byte(sum + i)
	}
	return sum + int(frame[levels%len(frame)])
}

// What the plugins below need of the stack is learned, and what has been learned is forgotten again.
func TestStackLearns(t *testing.T) {
	levels := 0
	s := stackZone(t, straight, func(w dns.ResponseWriter) (int, error) { deepen(levels); return dns.RcodeSuccess, nil })
	s.coroutines, s.samples = newCoroutines(), true
	t.Cleanup(s.coroutines.close)
	w := new(stackWriter)
	for _, levels = range []int{0, 100, 0, 100} {
		for qtype, g := range map[uint16]*growth{dns.TypeA: &s.filtered, dns.TypeTXT: &s.passed} {
			for n := 0; g.isUsual() != (levels > 0); n++ {
				if n == 1000*sampleOf {
					t.Fatalf("%d levels, %s: nothing learned", levels, dns.TypeToString[qtype])
				}
				var query sync.WaitGroup
				query.Go(func() { s.ServeDNS(t.Context(), w, handlerRequest("a.example.org.", qtype)) })
				query.Wait()
			}
		}
	}
}

// Nothing is learned of a query that is part of a question of our own, nor is a coroutine taken for it.
func TestStackWithin(t *testing.T) {
	s := stackZone(t, straight, func(w dns.ResponseWriter) (int, error) { return dns.RcodeSuccess, nil })
	s.coroutines, s.samples = newCoroutines(), true
	t.Cleanup(s.coroutines.close)
	s.filtered.balance.Store(maxBalance)
	for _, around := range []any{new(pass), new(lookup), new(observation)} {
		ctx := context.WithValue(t.Context(), passKey{}, around)
		for range 10 * sampleOf {
			p := s.passFor(ctx, new(stackWriter), handlerRequest("a.example.org.", dns.TypeA))
			if way := s.wayFor(ctx, p); way != straight {
				t.Fatalf("within a %T the way is %d", around, way)
			}
		}
	}
}

func TestGrowth(t *testing.T) {
	tests := []struct {
		samples string // + where the stack grew
		want    bool
	}{
		{"", false},
		{"+", true},
		{"-", false},
		{"+-", false},
		{"-+", false},
		{"+++--", true},
		{strings.Repeat("-", 100) + strings.Repeat("+", maxBalance), false},
		{strings.Repeat("-", 100) + strings.Repeat("+", maxBalance+1), true},
		{strings.Repeat("+", 100) + strings.Repeat("-", maxBalance-1), true},
		{strings.Repeat("+", 100) + strings.Repeat("-", maxBalance), false},
	}
	for _, tt := range tests {
		var g growth
		for _, sample := range tt.samples {
			g.note(sample == '+')
		}
		if got := g.isUsual(); got != tt.want {
			t.Errorf("%q: %v", tt.samples, got)
		}
	}
}
