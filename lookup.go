package shaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/upstream"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/watch"
)

// lookup is a question of our own to the plugins below. The context of all queries that are part of it leads to it.
type lookup struct {
	ctx  context.Context // ends with the look-up
	keep time.Duration   // for the targets

	mu      sync.Mutex // a plugin may ask this server again in a goroutine of its own
	targets []watch.Target
}

// lookUp implements watch.Ask for the names of a zone.
func (s *Shaker) lookUp(ctx context.Context, zone zonePolicy, qname string, qtype uint16, keep time.Duration) (*dns.Msg, []watch.Target, error) {
	l := &lookup{ctx: ctx, keep: keep}
	r, m, err := s.ask(context.WithValue(ctx, passKey{}, l), qname, qtype)
	if err != nil {
		return nil, nil, err
	}
	if m.Rcode == dns.RcodeSuccess {
		// What the filter makes of the answer is of no interest, but it asks for all targets that a client would need.
		v := &verdicts{zone: zone, request: r, shaker: s}
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

// aside is in the context of a look-up whose answer is not to be filtered, and leads to no targets.
type aside struct{}

// resolve implements resolve.Ask. Names of other server blocks are looked up through the server.
func (s *Shaker) resolve(ctx, origin context.Context, qname string, rrtype uint16) (*dns.Msg, error) {
	ctx = context.WithValue(ctx, passKey{}, aside{})
	// A query that was not made by a client must not write to the metadata of one that was, so it gets a new context.
	for _, key := range []any{dnsserver.Key{}, dnsserver.LoopKey{}, dnsserver.ViewKey{}} {
		if value := origin.Value(key); value != nil {
			ctx = context.WithValue(ctx, key, value)
		}
	}
	var m *dns.Msg
	var err error
	if !s.isOurs(qname) {
		m, err = askServer(ctx, qname, rrtype)
	} else {
		_, m, err = s.ask(ctx, qname, rrtype)
	}
	if errors.Is(err, rcodeError(dns.RcodeRefused)) {
		return new(dns.Msg), nil // the name is none of ours, so clients that ask here learn of no addresses either
	}
	return m, err
}

// rcodeError is an answer that says nothing of the name.
type rcodeError int

func (e rcodeError) Error() string { return dns.RcodeToString[int(e)] }

// recoverLookup makes an error of a panic in a plugin below. It is to be deferred.
func recoverLookup(qname string, err *error) {
	if reason := recover(); reason != nil {
		reportPanic("while "+qname+" was looked up", reason)
		*err = fmt.Errorf("panic: %v", reason)
	}
}

// askServer returns the answer of whichever server block the name belongs to.
func askServer(ctx context.Context, qname string, qtype uint16) (m *dns.Msg, err error) {
	defer recoverLookup(qname, &err)
	r := new(dns.Msg)
	r.SetQuestion(qname, qtype)
	m, err = upstream.New().Lookup(ctx, request.Request{W: &lookupWriter{tcp: true}, Req: r}, qname, qtype)
	switch {
	case err != nil:
		return nil, err
	case m == nil:
		return nil, errors.New("no answer")
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return nil, rcodeError(m.Rcode)
	}
	return m, nil
}

// ask returns the answer of the plugins below, and the request that it is for. It is NOERROR or NXDOMAIN.
func (s *Shaker) ask(ctx context.Context, qname string, qtype uint16) (r, m *dns.Msg, err error) {
	return s.askAs(ctx, asker{}, qname, qtype)
}

// asker is who seems to ask.
type asker struct {
	client netip.Addr // as in a lookupWriter
	dnssec bool       // who wants signatures
}

// askAs is ask for somebody else.
func (s *Shaker) askAs(ctx context.Context, who asker, qname string, qtype uint16) (r, m *dns.Msg, err error) {
	defer recoverLookup(qname, &err)
	for _, overTCP := range []bool{false, true} {
		r = new(dns.Msg)
		r.SetQuestion(qname, qtype)
		r.SetEdns0(dns.DefaultMsgSize, who.dnssec)
		writer := &lookupWriter{tcp: overTCP, client: who.client}
		rcode, err := plugin.NextOrFailure(name, s.Next, ctx, writer, r)
		m = writer.answer
		switch {
		case m == nil && err != nil:
			return nil, nil, err
		case m == nil:
			return nil, nil, rcodeError(rcode)
		case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
			return nil, nil, rcodeError(m.Rcode)
		case !m.Truncated:
			return r, m, nil
		}
	}
	return nil, nil, errors.New("truncated over TCP")
}

// lookupWriter takes the answer to a query that this process sends to itself.
type lookupWriter struct {
	tcp    bool
	client netip.Addr // where the query seems to come from, 127.0.0.1 where it is not valid
	answer *dns.Msg
}

var _ dns.ResponseWriter = (*lookupWriter)(nil)

// WriteMsg implements dns.ResponseWriter. A plugin may use a message again that it has written.
func (w *lookupWriter) WriteMsg(m *dns.Msg) error {
	c := *m
	w.answer = &c
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

func (w *lookupWriter) LocalAddr() net.Addr { return w.addr(netip.AddrPortFrom(loopback, 53)) }

func (w *lookupWriter) RemoteAddr() net.Addr {
	if !w.client.IsValid() {
		return w.addr(netip.AddrPortFrom(loopback, 0))
	}
	return w.addr(netip.AddrPortFrom(w.client, 0))
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func (w *lookupWriter) addr(at netip.AddrPort) net.Addr {
	if w.tcp {
		return net.TCPAddrFromAddrPort(at)
	}
	return net.UDPAddrFromAddrPort(at)
}

func (w *lookupWriter) Close() error        { return nil }
func (w *lookupWriter) TsigStatus() error   { return nil }
func (w *lookupWriter) TsigTimersOnly(bool) {}
func (w *lookupWriter) Hijack()             {}
