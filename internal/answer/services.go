package answer

import (
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Which names and records are those of services, and at which TCP ports these are to be found.

// otherProtocols are what the second label of a service's name may say instead of _tcp (RFC 2782; RFC 8552). Labels that
// are not among them say something else: Consul has tags there.
var otherProtocols = []string{"_udp", "_sctp", "_dccp", "_udplite", "_quic"}

// isTCP tells whether the service of an SRV record with this owner is to be found by TCP. It is unless the name says
// something else, since not all names that have SRV records name a protocol.
func isTCP(owner string) bool {
	off, end := dns.NextLabel(owner, 0)
	if end {
		return true
	}
	label, _, _ := strings.Cut(owner[off:], ".")
	if label == "" || label[0] != '_' {
		return true
	}
	return !slices.ContainsFunc(otherProtocols, func(p string) bool { return strings.EqualFold(p, label) })
}

// Types returns the types to ask for to find out where a name leads: that of SRV records if the name is of a service by
// TCP (RFC 2782), else those of addresses.
func Types(name string) []uint16 {
	const label = "_tcp."
	off, end := dns.NextLabel(name, 0)
	if !end && len(name) >= off+len(label) && strings.EqualFold(name[off:off+len(label)], label) {
		return []uint16{dns.TypeSRV}
	}
	return addressTypes[:]
}

// AddressTypes returns the types of records that are addresses.
func AddressTypes() []uint16 { return addressTypes[:] }

// isChecked tells whether the addresses behind an SRV record can be checked.
func isChecked(rr *dns.SRV) bool { return isReachable(rr) && isTCP(rr.Hdr.Name) }

// isReachable tells whether an SRV record says where to find its service.
func isReachable(rr *dns.SRV) bool {
	return rr.Hdr.Class == dns.ClassINET && rr.Hdr.Rrtype == dns.TypeSRV && rr.Port != 0 && rr.Target != "."
}

func isService(rrtype uint16) bool { return rrtype == dns.TypeHTTPS || rrtype == dns.TypeSVCB }

// targetOf returns the name whose addresses an HTTPS or SVCB record in ServiceMode leads to (RFC 9460, section 2.5.2).
func targetOf(rr *dns.SVCB) string {
	if rr.Target == "." {
		return rr.Hdr.Name
	}
	return rr.Target
}

// Ports where the protocols of a service are without another port in the record or the name.
const (
	httpsPort = 443 // RFC 9110, section 4.2.2
	httpPort  = 80  // RFC 9110, section 4.2.1
	dotPort   = 853 // RFC 7858, section 3.1
)

// portsOf returns the TCP ports at which an HTTPS or SVCB record has its service: that of its `port` parameter, or else
// that of the name, or of the protocols (RFC 9460, sections 7.2 and 9.1; RFC 9461, section 4.2). A second port is another
// way to the same service. Without a port, there is no TCP, or nobody can tell. Of a record in AliasMode only those of the
// name that it leads to can (section 2.4.2).
func portsOf(rr *dns.SVCB, qname string) (port, other uint16) {
	if rr.Priority == 0 {
		return 0, 0
	}
	given, protocols := uint16(0), protocols{}
	for _, param := range rr.Value {
		switch param := param.(type) {
		case *dns.SVCBPort:
			if param.Port == 0 {
				return 0, 0
			}
			given = param.Port
		case *dns.SVCBAlpn:
			protocols.read(param.Alpn)
		case *dns.SVCBNoDefaultAlpn:
			protocols.noDefault = true
		}
	}
	scheme, own := schemeOf(rr, qname)
	https := strings.EqualFold(scheme, "_https") || strings.EqualFold(scheme, "_wss")
	switch {
	case !protocols.overTCP(https):
		return 0, 0
	case given != 0:
		return given, 0
	case https:
		if own == 0 {
			own = httpsPort
		}
		return own, 0
	case strings.EqualFold(scheme, "_http"), strings.EqualFold(scheme, "_ws"):
		if own == 0 {
			own = httpPort
		}
		return own, 0
	case scheme != "" && !strings.EqualFold(scheme, "_dns"):
		return own, 0
	case protocols.dot && protocols.http:
		return dotPort, httpsPort
	case protocols.dot:
		return dotPort, 0
	case protocols.http:
		return httpsPort, 0
	default:
		return 0, 0
	}
}

// protocols are what an `alpn` parameter says.
type protocols struct {
	any       bool // there are some
	tcp       bool // some of them by TCP
	dot, http bool // those whose ports are known
	noDefault bool // that of the scheme is not spoken, see `no-default-alpn`
}

func (p *protocols) read(alpn []string) {
	for _, id := range alpn {
		p.any = true
		switch id {
		case "h3", "doq": // by QUIC
			continue
		case "dot":
			p.dot = true
		case "h2", "http/1.1":
			p.http = true
		}
		if !strings.HasPrefix(id, "h3-") { // drafts of it
			p.tcp = true
		}
	}
}

// overTCP tells whether the service is to be found by TCP. HTTPS is, by HTTP/1.1, unless the record says that this default
// does not hold (RFC 9460, section 7.1.2); of others without `alpn` that is assumed.
func (p *protocols) overTCP(https bool) bool {
	return p.tcp || !p.any || https && !p.noDefault
}

// schemeOf returns the label that says how the service of a record is spoken to, and the port before it, from the owner or
// else from the name that was asked for: _8443._https has both (RFC 9460, sections 2.3 and 9.1). They are empty and 0 where
// the names do not say.
func schemeOf(rr *dns.SVCB, qname string) (scheme string, port uint16) {
	if rr.Hdr.Rrtype == dns.TypeHTTPS {
		scheme = "_https"
	}
	for _, name := range [...]string{rr.Hdr.Name, qname} {
		label, n := prefixOf(name)
		if scheme == "" {
			scheme = label
		}
		if port == 0 && strings.EqualFold(label, scheme) {
			port = n
		}
	}
	return scheme, port
}

// prefixOf returns the scheme and the port with which a name begins.
func prefixOf(name string) (scheme string, port uint16) {
	if !strings.HasPrefix(name, "_") {
		return "", 0
	}
	label, rest, _ := strings.Cut(name, ".")
	n, err := strconv.ParseUint(label[1:], 10, 16)
	if err != nil {
		return label, 0
	}
	if label, _, _ = strings.Cut(rest, "."); strings.HasPrefix(label, "_") {
		return label, uint16(n)
	}
	return "", 0
}
