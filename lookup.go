package shaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/watch"
)

// lookup is a question of our own to the plugins below. The context of all queries that are part of it leads to it.
type lookup struct {
	keep time.Duration // for the targets

	mu      sync.Mutex // a plugin may ask this server again in a goroutine of its own
	targets []watch.Target
}

// lookUp implements watch.Ask for the names of a zone.
func (s *Shaker) lookUp(ctx context.Context, zone zonePolicy, qname string, qtype uint16, keep time.Duration) (*dns.Msg, []watch.Target, error) {
	l := &lookup{keep: keep}
	request, m, err := s.ask(context.WithValue(ctx, passKey{}, l), qname, qtype)
	if err != nil {
		return nil, nil, err
	}
	if m.Rcode == dns.RcodeSuccess {
		// What the filter makes of the answer is of no interest, but it asks for all targets that a client would need.
		v := &verdicts{zone: zone, request: request, engine: s.instance.engine}
		lookupVerdicts{v, l}.filter(m)
	}
	return m, l.found(), nil
}

// add notes a target that was asked for.
func (l *lookup) add(t watch.Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.targets = append(l.targets, t)
}

// found returns the targets. Those that come later, from a goroutine that goes on, are left out.
func (l *lookup) found() []watch.Target {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.targets[:len(l.targets):len(l.targets)]
}

// ask returns the answer of the plugins below, and the request that it is for. It is NOERROR or NXDOMAIN.
func (s *Shaker) ask(ctx context.Context, qname string, qtype uint16) (request, m *dns.Msg, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			reportPanic("while "+qname+" was looked up", reason)
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	for _, overTCP := range []bool{false, true} {
		request = new(dns.Msg)
		request.SetQuestion(qname, qtype)
		request.SetEdns0(dns.DefaultMsgSize, false)
		writer := &lookupWriter{tcp: overTCP}
		rcode, err := plugin.NextOrFailure(name, s.Next, ctx, writer, request)
		m = writer.answer
		switch {
		case m == nil && err != nil:
			return nil, nil, err
		case m == nil:
			return nil, nil, errors.New(dns.RcodeToString[rcode])
		case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
			return nil, nil, errors.New(dns.RcodeToString[m.Rcode])
		case !m.Truncated:
			return request, m, nil
		}
	}
	return nil, nil, errors.New("truncated over TCP")
}

// lookupWriter takes the answer to a query that this process sends to itself.
type lookupWriter struct {
	tcp    bool
	answer *dns.Msg
}

var _ dns.ResponseWriter = (*lookupWriter)(nil)

func (w *lookupWriter) WriteMsg(m *dns.Msg) error {
	w.answer = m
	return nil
}

func (w *lookupWriter) Write(b []byte) (int, error) {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return 0, err
	}
	w.answer = m
	return len(b), nil
}

func (w *lookupWriter) LocalAddr() net.Addr  { return w.addr(53) }
func (w *lookupWriter) RemoteAddr() net.Addr { return w.addr(0) }

func (w *lookupWriter) addr(port int) net.Addr {
	if w.tcp {
		return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	}
	return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
}

func (w *lookupWriter) Close() error        { return nil }
func (w *lookupWriter) TsigStatus() error   { return nil }
func (w *lookupWriter) TsigTimersOnly(bool) {}
func (w *lookupWriter) Hijack()             {}
