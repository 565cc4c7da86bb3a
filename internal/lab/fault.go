package lab

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Kind is how a packet is rejected: nft's words after "reject with", see nft(8).
type Kind string

// What a rejecting host or router sends. The comments give type and code, and the errno that a
// connecting TCP socket on Linux gets for it.
const (
	Reset Kind = "tcp reset" // RST: ECONNREFUSED

	// IPv4 only (RFC 792, RFC 1812 section 5.2.7.1).
	NetUnreachable  Kind = "icmp type net-unreachable"  // 3/0: ENETUNREACH
	HostUnreachable Kind = "icmp type host-unreachable" // 3/1: EHOSTUNREACH
	ProtUnreachable Kind = "icmp type prot-unreachable" // 3/2: ENOPROTOOPT
	PortUnreachable Kind = "icmp type port-unreachable" // 3/3: ECONNREFUSED
	NetProhibited   Kind = "icmp type net-prohibited"   // 3/9: ENETUNREACH
	HostProhibited  Kind = "icmp type host-prohibited"  // 3/10: EHOSTUNREACH
	AdminProhibited Kind = "icmp type admin-prohibited" // 3/13: EHOSTUNREACH

	// IPv6 only (RFC 4443 section 3.1).
	NoRoute6         Kind = "icmpv6 type no-route"         // 1/0: ENETUNREACH
	AdminProhibited6 Kind = "icmpv6 type admin-prohibited" // 1/1: EACCES
	AddrUnreachable6 Kind = "icmpv6 type addr-unreachable" // 1/3: EHOSTUNREACH
	PortUnreachable6 Kind = "icmpv6 type port-unreachable" // 1/4: ECONNREFUSED
	PolicyFail6      Kind = "icmpv6 type policy-fail"      // 1/5: EACCES
	RejectRoute6     Kind = "icmpv6 type reject-route"     // 1/6: EACCES
)

// FilterIn adds an nft rule for packets that come to the host or are forwarded by it, such as
// "ip daddr 10.1.0.7 tcp dport 80 drop". The first rule that decides about a packet wins.
func (h *Host) FilterIn(rule string) {
	h.t.Helper()
	h.rule(rule, "input", "forward")
}

// FilterOut adds an nft rule for packets that the host itself sends; on the prober's machine it is a
// local firewall. If that rejects by ICMPv6, a connecting socket notices only when it sends its SYN again,
// after a second; on IPv4 at once. What it drops looks like a packet lost on the way.
func (h *Host) FilterOut(rule string) {
	h.t.Helper()
	h.rule(rule, "output")
}

// Drop swallows what comes for the ports, or all of TCP and UDP if none is given.
func (h *Host) Drop(ports ...uint16) {
	h.t.Helper()
	h.FilterIn(match("tcp, udp", ports) + " drop")
}

// Reject answers what comes for the ports, or all of TCP if none is given, with the error. A kind that
// is made for one family leaves the other alone.
func (h *Host) Reject(kind Kind, ports ...uint16) {
	h.t.Helper()
	h.FilterIn(match("tcp", ports) + " reject with " + string(kind))
}

// Expire makes the packets for the ports, or all of TCP and UDP if none is given, run out of hops when
// the host, a router, forwards them: it answers with time exceeded (11/0 and 3/0: EHOSTUNREACH).
func (h *Host) Expire(ports ...uint16) {
	h.t.Helper()
	h.detach()
	h.rule(match("tcp, udp", ports)+" ip ttl set 1", "prerouting")
	h.rule(match("tcp, udp", ports)+" ip6 hoplimit set 1", "prerouting")
}

// Lose drops each TCP and UDP packet that comes to the host, or is forwarded by it, with that probability.
// For what the host itself sends there is FilterOut("numgen random mod 100 < 30 drop").
func (h *Host) Lose(percent int) {
	h.t.Helper()
	h.FilterIn(fmt.Sprintf("%s numgen random mod 100 < %d drop", match("tcp, udp", nil), percent))
}

// Down cuts the host's power: it hears nothing any more, not even ARP. The interface that leads to it
// stays up, as it would with a switch in between.
func (h *Host) Down() {
	h.t.Helper()
	h.NFT(
		"table netdev down {",
		"chain in {",
		"type filter hook ingress device "+uplink+" priority 0; policy drop;",
		"}",
		"}",
	)
}

// Up undoes Down.
func (h *Host) Up() {
	h.t.Helper()
	// A table is added first because one that does not exist cannot be deleted.
	h.NFT("add table netdev down", "delete table netdev down")
}

// Unroute takes the routes to the host from its parent. The prober's machine then fails with ENETUNREACH;
// a router answers with net unreachable.
func (h *Host) Unroute() {
	h.t.Helper()
	h.parent.detach()
	h.parent.IP(h.routes("del")...)
}

// Route undoes Unroute.
func (h *Host) Route() {
	h.t.Helper()
	h.parent.IP(h.routes("replace")...)
}

// Delay holds back all that the host itself sends for d, so that a round trip takes d longer.
func (h *Host) Delay(d time.Duration) {
	h.t.Helper()
	h.line().wait.Store(int64(d))
	h.divert("", "")
}

// line returns the host's delay line, made at the first call.
func (h *Host) line() *delayLine {
	h.t.Helper()
	if h.delay == nil {
		line, err := newDelayLine(h)
		if err != nil {
			h.t.Fatalf("lab: %s: delay: %v", h.Name, err)
		}
		h.t.Cleanup(line.close)
		h.delay = line
	}
	return h.delay
}

// detach makes the host's ICMP errors arrive after the system call that caused them, as over any real
// network. A link of the lab delivers within the call that sends: an error would find the connecting
// socket locked, be noted as a soft error, and over IPv6 be reported only when the SYN is sent again
// (tcp_v6_err in net/ipv6/tcp_ipv6.c).
func (h *Host) detach() {
	h.t.Helper()
	if h.parent != nil {
		h.line()
		h.divert("ipproto 1", "ipproto 58")
	}
}

// divert sends what the host itself sends, and matches, over its delay line.
func (h *Host) divert(match4, match6 string) {
	h.t.Helper()
	if h.diverted[match4] {
		return
	}
	h.diverted[match4] = true
	// iif lo stands for what the host itself sends, see ip-rule(8).
	h.IP("rule add pref 100 iif lo lookup 100 " + match4)
	h.IP6("rule add pref 100 iif lo lookup 100 " + match6)
}

// Clear ends every fault of the host.
func (h *Host) Clear() {
	h.t.Helper()
	h.NFT("add table inet lab", "delete table inet lab")
	if h.parent != nil {
		h.Up()
		h.Route()
	}
	if h.delay != nil {
		h.delay.wait.Store(0)
	}
}

// rule adds the rule to the chains, which are named after their hooks.
func (h *Host) rule(rule string, chains ...string) {
	h.t.Helper()
	if strings.Contains(rule, "reject with icmp") {
		h.detach()
	}
	// Adding a table or chain that exists changes nothing.
	lines := []string{
		"table inet lab {",
		"chain prerouting {", "type filter hook prerouting priority mangle;", "}",
		"chain input {", "type filter hook input priority filter;", "}",
		"chain forward {", "type filter hook forward priority filter;", "}",
		"chain output {", "type filter hook output priority filter;", "}",
		"}",
	}
	for _, chain := range chains {
		lines = append(lines, "add rule inet lab "+chain+" "+rule)
	}
	h.NFT(lines...)
}

// match returns the nft expression for the ports of the protocols, or all ports if there are none. ICMP
// is never matched, because IPv6 finds no neighbours without it.
func match(protocols string, ports []uint16) string {
	expr := "meta l4proto { " + protocols + " }"
	if len(ports) > 0 {
		expr += " th dport { " + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ports)), ", "), "[]") + " }"
	}
	return expr
}

// routes returns the ip commands that apply the verb to every route that the parent has to the host.
func (h *Host) routes(verb string) []string {
	lines := []string{
		fmt.Sprintf("route %s %v dev %s", verb, h.link4, h.Name),
		fmt.Sprintf("route %s %v dev %s", verb, h.link6, h.Name),
	}
	for _, p := range h.beyond {
		lines = append(lines, h.routeVia(verb, p))
	}
	return lines
}

func (h *Host) routeVia(verb string, p netip.Prefix) string {
	if p.Addr().Is4() {
		return fmt.Sprintf("route %s %v via %v", verb, p, h.Addr4)
	}
	return fmt.Sprintf("route %s %v via %v", verb, p, h.Addr6)
}
