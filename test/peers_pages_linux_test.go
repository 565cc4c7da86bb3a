package test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/oracle"
	"github.com/coredns-shaker/shaker/internal/peers"
	"github.com/coredns-shaker/shaker/internal/status"
)

// toldPeers are replicas that are only told of, so that they are in all conditions at once.
type toldPeers struct {
	report peers.Report
	said   []peers.Said
}

func (p *toldPeers) Report() peers.Report             { return p.report }
func (p *toldPeers) Said(*health.Target) []peers.Said { return p.said }

// newToldPeers returns a group that the pages have the most to tell of.
func newToldPeers() *toldPeers {
	p := &toldPeers{report: peers.Report{
		Observers: 3, Disagreeing: 12,
		Join: []peers.Joined{{Place: "192.0.2.2:7946"}, {Place: "dns9.example.org:7946", Err: errors.New("lookup dns9.example.org: no such host")}},
		Counts: peers.Counts{SentMessages: 1234567, SentOctets: 123456789, ReceivedMessages: 7654321, ReceivedOctets: 987654321,
			Rejected: map[string]uint64{"source": 20000, "key": 3, "format": 1, "flood": 1 << 40}},
	}}
	words := []health.Word{health.NoWord, health.SaysDown, health.SaysUp, health.Checking, health.Unable, health.SaysDown, health.SaysUp, health.SaysUp}
	for i, change := range []func(*peers.Member){
		func(m *peers.Member) { m.Self, m.InDoubt, m.Heard = true, true, 0 },
		func(m *peers.Member) {},
		func(m *peers.Member) { m.Frozen, m.Lag = true, 123456 },
		func(m *peers.Member) { m.Stuck = true },
		func(m *peers.Member) { m.Strange, m.Quorum = true, true },
		func(m *peers.Member) { m.Newer, m.Shaker = true, "v2.0.0-rc1+with.a.long.name.of.a.build" },
		func(m *peers.Member) { m.Alive, m.Heard = false, 3*time.Minute },
		func(m *peers.Member) { m.Site = "west" },
		func(m *peers.Member) {
			m.Host, m.Site = `<img/src=x/onerror=alert(1)>`, strings.Repeat("w", 63)
			m.Name = strings.Repeat("n", 63) + "." + strings.Repeat("a", 60) + "-0123456789abcdef"
			m.Address = netip.MustParseAddrPort("[2001:db8:1234:5678:9abc:def0:1234:5678]:65535")
		},
	} {
		host := "dns" + string(rune('1'+i))
		m := peers.Member{
			Name: host + "-0123456789abcdef", Host: host, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), 7946),
			Site: "east", Shaker: "v1.2.3", Since: 100 * time.Hour, Heard: 700 * time.Millisecond, Alive: true, Observed: 65536, Finished: 1 << 40,
		}
		change(&m)
		p.report.Members = append(p.report.Members, m)
		p.said = append(p.said, peers.Said{Member: m.Name, Host: m.Host, Site: m.Site, Self: m.Self, Observer: i < 4,
			Opinion: health.Opinion{Word: words[i%len(words)], InForce: health.State(i % 3), Age: time.Duration(i) * time.Hour, Result: checker.Result(i % 5), RTT: time.Duration(i) * time.Millisecond}})
	}
	return p
}

// peersPages are those of shownPages that have more where there are peers.
var peersPages = []string{
	"/?disagreeing=1",
	"/?port=443",
	"/peers?refresh=x",
	"/target?address=10.0.0.1&port=443",
	"/target?address=10.0.0.2&port=443",
	"/events?kind=peer",
	"/events?kind=disagreement",
}

// inspectPeers has the pages of a replica looked at, with a browser that is there already.
func inspectPeers(t *testing.T, b *browser) *inspected {
	o := oracle.New(t, "10.0.0.1=answered 10.0.0.2=refused")
	settings := unique.Make(health.Settings{Interval: 2 * time.Second, Fast: 500 * time.Millisecond, Timeout: time.Second, Tries: 4, Rise: 2, Fall: 3})
	for addr := range o.Results {
		o.Await(netip.AddrPortFrom(addr, 443), settings)
	}
	log := events.New()
	log.Addf(events.Peer, "dns2 at 192.0.2.2:7946 has joined")
	log.Addf(events.Disagreement, "This replica disagrees about 10.0.0.2:443")
	subject := &status.Subject{Monitor: o.Monitor, Limit: 1000, Shaker: "v1.2.3", Events: log, Peers: newToldPeers()}
	address := local(t)
	told := func(string, ...any) {}
	s, err := status.Open(address, func() *status.Subject { return subject },
		status.Listener{Infof: told, Errorf: t.Errorf, Recovered: func(where string, reason any) { t.Error(where, reason) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := &inspected{browser: b, name: "peers", url: "http://" + address}
	p.followRooms()
	p.pages = append(p.pages, peersPages...)
	return p
}
