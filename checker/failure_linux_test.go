package checker

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestClassify(t *testing.T) {
	self := netip.MustParseAddr("192.0.2.1")
	router := netip.MustParseAddr("192.0.2.254")
	icmp := func(kind, code uint8, errno unix.Errno, from netip.Addr) icmpError {
		return icmpError{origin: unix.SO_EE_ORIGIN_ICMP, kind: kind, code: code, errno: errno, offender: from}
	}
	icmp6 := func(kind, code uint8, errno unix.Errno, from netip.Addr) icmpError {
		return icmpError{origin: unix.SO_EE_ORIGIN_ICMP6, kind: kind, code: code, errno: errno, offender: from}
	}
	tests := []struct {
		name  string
		errno unix.Errno
		icmp  icmpError
		want  Result
		err   error
	}{
		{"RST", unix.ECONNREFUSED, icmpError{}, Refused, unix.ECONNREFUSED},
		{"RST after SYN-ACK", unix.ECONNRESET, icmpError{}, Answered, nil},
		{"RST after SYN-ACK and FIN", unix.EPIPE, icmpError{}, Answered, nil},
		{"RST after SYN-ACK and ICMP", unix.ECONNRESET, icmp(3, 1, unix.EHOSTUNREACH, router), Answered, nil},
		{"RST after SYN-ACK and own firewall", unix.ECONNRESET, icmp(3, 13, unix.EHOSTUNREACH, self), Answered, nil},
		{"somebody has closed our socket", unix.ECONNABORTED, icmpError{}, Inconclusive, unix.ECONNABORTED},
		{"shut down on our side", unix.ESHUTDOWN, icmpError{}, Inconclusive, unix.ESHUTDOWN},
		{"not connected", unix.ENOTCONN, icmpError{}, Inconclusive, unix.ENOTCONN},
		{"the kernel gave up", unix.ETIMEDOUT, icmpError{}, Timeout, ErrTimeout},
		{"ICMP from a router", unix.EHOSTUNREACH, icmp(3, 1, unix.EHOSTUNREACH, router), Unreachable, unix.EHOSTUNREACH},
		{"port unreachable from elsewhere is no RST", unix.ECONNREFUSED, icmp(3, 3, unix.ECONNREFUSED, router), Unreachable, unix.ECONNREFUSED},
		{"time exceeded", 0, icmp(11, 0, unix.EHOSTUNREACH, router), Unreachable, unix.EHOSTUNREACH},
		{"own firewall", unix.ECONNREFUSED, icmp(3, 3, unix.ECONNREFUSED, self), Inconclusive, ErrFiltered},
		{"own firewall, prohibited", unix.EHOSTUNREACH, icmp(3, 13, unix.EHOSTUNREACH, self), Inconclusive, ErrFiltered},
		{"own firewall, ICMPv6", unix.EACCES, icmp6(1, 1, unix.EACCES, self), Inconclusive, ErrFiltered},
		{"no answer to ARP", unix.EHOSTUNREACH, icmp(3, 1, unix.EHOSTUNREACH, self), Unreachable, unix.EHOSTUNREACH},
		{"no answer to neighbour discovery", unix.EHOSTUNREACH, icmp6(1, 3, unix.EHOSTUNREACH, self), Unreachable, unix.EHOSTUNREACH},
		{"local origin", unix.EMSGSIZE, icmpError{origin: unix.SO_EE_ORIGIN_LOCAL, errno: unix.EMSGSIZE}, Inconclusive, unix.EMSGSIZE},
		{"out of memory", unix.ENOMEM, icmpError{}, Inconclusive, unix.ENOMEM},
		{"an event without an error", 0, icmpError{}, Inconclusive, unix.EIO},
	}
	for _, tt := range tests {
		if got, err := classify(tt.errno, tt.icmp, self); got != tt.want || err != tt.err {
			t.Errorf("%s: %v (%v), want %v (%v)", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func extendedError(errno unix.Errno, origin, kind, code uint8, offender []byte) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b, uint32(errno))
	b[4], b[5], b[6] = origin, kind, code
	return append(b, offender...)
}

func TestParseExtendedError(t *testing.T) {
	family := func(f uint16, rest ...byte) []byte { return append(binary.NativeEndian.AppendUint16(nil, f), rest...) }
	v4 := family(unix.AF_INET, append([]byte{0, 0, 192, 0, 2, 7}, make([]byte, 8)...)...)
	addr6 := netip.MustParseAddr("2001:db8::7").As16()
	v6 := family(unix.AF_INET6, append(append(make([]byte, 6), addr6[:]...), make([]byte, 4)...)...)
	for name, tt := range map[string]struct {
		data []byte
		want icmpError
	}{
		"empty":     {nil, icmpError{}},
		"too short": {extendedError(unix.EPERM, 1, 0, 0, nil)[:15], icmpError{}},
		"no sender": {extendedError(unix.EPERM, 1, 0, 0, nil), icmpError{origin: 1, errno: unix.EPERM}},
		"IPv4": {extendedError(unix.EHOSTUNREACH, 2, 3, 1, v4),
			icmpError{origin: 2, kind: 3, code: 1, errno: unix.EHOSTUNREACH, offender: netip.MustParseAddr("192.0.2.7")}},
		"IPv6": {extendedError(unix.EACCES, 3, 1, 1, v6),
			icmpError{origin: 3, kind: 1, code: 1, errno: unix.EACCES, offender: netip.MustParseAddr("2001:db8::7")}},
		"cut sender": {extendedError(unix.EACCES, 3, 1, 1, v6[:20]), icmpError{origin: 3, kind: 1, code: 1, errno: unix.EACCES}},
	} {
		if got := parseExtendedError(tt.data); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func FuzzParseExtendedError(f *testing.F) {
	f.Add(extendedError(unix.EACCES, 3, 1, 1, make([]byte, 28)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := parseExtendedError(b); len(b) < 16 && got != (icmpError{}) {
			t.Errorf("%d bytes are %+v", len(b), got)
		}
	})
}
