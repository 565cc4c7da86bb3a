package shaker

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go"
)

// way is how the plugins below are called. What it is about is the stack, see [coroutines].
type way uint8

const (
	// straight is from ServeDNS itself, whose frame is as small as can be. What they write is sent when their frames are
	// gone, so that packing and sending fit on the stack again. All of that together lets a chain without shaker that has
	// just enough room keep it.
	straight way = iota
	// sample is straight, and whether the stack grows is of interest.
	sample
	// onCoroutine is on a coroutine. What they write is sent from inside their calls.
	onCoroutine
	// traced is for a query with a trace, in which the next plugin gets a span of its own.
	traced
)

// enter returns the writer for the plugins below, nil where they are given that of the query, and the way to them.
//
//go:noinline
func (s *Shaker) enter(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (*late, way) {
	p := s.passFor(ctx, w, r)
	way := s.wayFor(ctx, p)
	waits := way <= sample && !s.writesAtOnce
	switch {
	case p != nil:
		if !waits {
			p.written.Store(atOnce)
		}
		return &p.late, way
	case waits && isOfOneMessage(r):
		return &late{ResponseWriter: w}, way
	default:
		return nil, way
	}
}

// isOfOneMessage tells whether the answer to r is a single message as a rule, other than a transfer of a zone or what is no
// query at all.
func isOfOneMessage(r *dns.Msg) bool {
	return r.Opcode == dns.OpcodeQuery && len(r.Question) == 1 && r.Question[0].Qtype != dns.TypeAXFR && r.Question[0].Qtype != dns.TypeIXFR
}

// leave sends what the plugins below have written, and returns what they have. If the stack grew in the meantime, or does
// so now, it is noted where that is of interest.
//
//go:noinline
func (s *Shaker) leave(l *late, way way, grew bool, rcode int, err error) (int, error) {
	var p *pass
	if l != nil {
		var here byte
		before := placeOf(&here)
		if failure := l.sendWritten(); err == nil {
			err = failure
		}
		grew = grew || placeOf(&here) != before
		p = l.pass
	}
	if way == sample {
		s.growthOf(p).note(grew)
	}
	return rcode, err
}

// wayFor chooses the way for a query.
func (s *Shaker) wayFor(ctx context.Context, p *pass) way {
	if s.Next == nil || opentracing.SpanFromContext(ctx) != nil {
		return traced
	}
	if s.coroutines == nil || p != nil && p.isWithin() {
		return straight
	}
	switch {
	case s.samples && rand.Uint32()%sampleOf == 0:
		return sample
	case s.growthOf(p).isUsual():
		return onCoroutine
	default:
		return straight
	}
}

// isWithin tells whether the query is part of another one, on whose stack it is.
func (p *pass) isWithin() bool { return p.outer != nil || p.lookup != nil || p.observation != nil }

// detour has the next plugin serve a query by any way but straight.
func (s *Shaker) detour(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, by way) (int, error) {
	if by == onCoroutine {
		if k := s.coroutines.take(); k != nil {
			return k.serve(call{s.Next, ctx, w, r})
		}
	}
	// It gives the next plugin a span. It also gives it a writer that tells those above who has written, but only the writer
	// that is next to them is heard.
	return plugin.NextOrFailure(name, s.Next, ctx, w, r)
}

// useCoroutines has queries answered on coroutines, unless somebody wants to see the stack of a panic: that of a coroutine
// ends where it was called. Those who want to are `debug` and `errors { stacktrace }`, of which one speaks for all server
// blocks that listen together.
func (s *Shaker) useCoroutines(c *coroutines) {
	for _, cfg := range configs(s.controller) {
		if cfg.Debug || cfg.Stacktrace {
			return
		}
	}
	s.coroutines, s.samples = c, true
}

// watchStrangers has messages sent as they are written if any plugin is not one of CoreDNS's own. Those leave a message alone
// that they have written; of others nobody knows. The servers have to be made by now.
func (s *Shaker) watchStrangers() {
	for _, cfg := range configs(s.controller) {
		s.writesAtOnce = s.writesAtOnce || slices.ContainsFunc(cfg.Handlers(), isStranger)
	}
}

// isStranger tells whether a handler is neither of CoreDNS nor of this plugin.
func isStranger(h plugin.Handler) bool {
	t := reflect.TypeOf(h)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return !strings.HasPrefix(t.PkgPath(), "github.com/coredns/coredns/plugin/") && t != reflect.TypeFor[Shaker]()
}

// growth is whether the stacks of queries have to grow below, by samples of those that are served straight.
type growth struct {
	balance atomic.Int32 // of the samples of late: those where they did less the others
}

const (
	// sampleOf is of how many queries one is a sample.
	sampleOf = 128
	// maxBalance bounds how many samples it takes to change our mind.
	maxBalance = 8
)

// growthOf returns that of queries with, or without, a pass.
func (s *Shaker) growthOf(p *pass) *growth {
	if p == nil {
		return &s.passed
	}
	return &s.filtered
}

func (g *growth) isUsual() bool { return g.balance.Load() > 0 }

// note takes in a sample. Where two come at the same time, one may be lost.
func (g *growth) note(grew bool) {
	before := g.balance.Load()
	if grew {
		g.balance.CompareAndSwap(before, min(before+1, maxBalance))
	} else {
		g.balance.CompareAndSwap(before, max(before-1, -maxBalance))
	}
}

// placeOf returns where a variable is, as a number that does not follow when the stack that it is on moves.
func placeOf(variable *byte) uintptr { return uintptr(unsafe.Pointer(variable)) }

// atOnce stands for the message that was written when there is none any more, and what is written is sent at once.
var atOnce = new(dns.Msg)

// late is the writer that the plugins below are given. The first message that they write is sent when they have returned,
// unless they do more than to write it, or there is one that may change it until then. Whether it could be sent, they do not
// learn: that is told in place of them.
type late struct {
	dns.ResponseWriter
	pass *pass // that it is in, nil where the answer is of no interest
	// written is the message that is to be sent when the plugins below have returned, nil as long as there is none, and
	// atOnce from then on.
	written atomic.Pointer[dns.Msg]
}

// WriteMsg implements dns.ResponseWriter.
func (l *late) WriteMsg(m *dns.Msg) error {
	if m != nil && l.written.CompareAndSwap(nil, m) {
		return nil
	}
	return l.sendNow(m)
}

// sendNow sends a message behind the one that was written, if there is one. It is apart because of the room it takes on the
// stack.
//
//go:noinline
func (l *late) sendNow(m *dns.Msg) error { return errors.Join(l.sendWritten(), l.send(m)) }

// sendWritten sends the message that was written, if there is one. What is written from now on is sent at once.
func (l *late) sendWritten() error {
	if m := l.written.Swap(atOnce); m != nil && m != atOnce {
		return l.send(m)
	}
	return nil
}

// send sends a message, or what becomes of it.
func (l *late) send(m *dns.Msg) error {
	if l.pass != nil {
		m = l.pass.answerFor(m)
	}
	return l.ResponseWriter.WriteMsg(m)
}

// ConnectionState implements dns.ConnectionStater, which embedding the writer would hide.
func (l *late) ConnectionState() *tls.ConnectionState {
	if stater, ok := l.ResponseWriter.(dns.ConnectionStater); ok {
		return stater.ConnectionState()
	}
	return nil
}

// Write implements dns.ResponseWriter.
func (l *late) Write(wire []byte) (int, error) {
	failure := l.sendWritten()
	n, err := l.ResponseWriter.Write(wire)
	return n, errors.Join(failure, err)
}

// Close implements dns.ResponseWriter.
func (l *late) Close() error { return errors.Join(l.sendWritten(), l.ResponseWriter.Close()) }

// TsigTimersOnly implements dns.ResponseWriter. It is about what is written after it.
func (l *late) TsigTimersOnly(b bool) {
	_ = l.sendWritten()
	l.ResponseWriter.TsigTimersOnly(b)
}

// Hijack implements dns.ResponseWriter. From now on the plugins below do with the connection what they like.
func (l *late) Hijack() {
	_ = l.sendWritten()
	l.ResponseWriter.Hijack()
}
