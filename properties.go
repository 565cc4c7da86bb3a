package shaker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/prefix"
)

// properties are what a stanza may say, in the order of the manual.
var properties = []struct {
	name  string
	usage string // of its arguments
	many  bool   // may be given several times
	parse func(*stanza, []string) error
	print func(printed) []string // what is in force, so that reading it again leads to the same, see describe.go
}{
	{"port", "[any] PORT...", false, (*stanza).port, printed.port},
	{"interval", "DURATION [FAST]", false, (*stanza).interval, printed.interval},
	{"timeout", "DURATION", false, (*stanza).timeout, printed.timeout},
	{"tries", "COUNT", false, (*stanza).tries, printed.tries},
	{"rise", "COUNT", false, (*stanza).rise, printed.rise},
	{"fall", "COUNT", false, (*stanza).fall, printed.fall},
	{"damping", "off | DURATION [MAX]", false, (*stanza).damping, printed.damping},
	{"hold", "DURATION", false, (*stanza).hold, printed.hold},
	{"prefer", "CIDR...", true, (*stanza).prefer, printed.prefer},
	{"fallback", "[NAME...] [all | nodata | servfail | ADDRESS...]", false, (*stanza).fallback, printed.fallback},
	{"panic", "PERCENT", false, (*stanza).panic, printed.panic},
	{"ttl", "DURATION", false, (*stanza).ttl, printed.ttl},
	{"sort", "rtt | client [BITS4 BITS6]", false, (*stanza).sort, printed.sort},
	{"pick", "COUNT", false, (*stanza).pick, printed.pick},
	{"weight", "COUNT CIDR...", true, (*stanza).weight, printed.weight},
	{"idle", "DURATION", false, (*stanza).idle, printed.idle},
	{"allow", "CIDR...", true, (*stanza).allow, printed.allow},
	{"deny", "CIDR...", true, (*stanza).deny, printed.deny},
	{"probe", "CIDR at CIDR [PORT]", true, (*stanza).probe, printed.probe},
	{"overrides", "FILE [local]", false, (*stanza).overrides, printed.overrides},
	{"watch", "NAME...", true, (*stanza).watch, printed.watch},
	{"source", "ADDRESS...", false, (*stanza).source, printed.source},
	{"method", "socket | raw | dial", false, (*stanza).method, printed.method},
	{"freeze", "off | PERCENT [MAX]", false, (*stanza).freeze, printed.freeze},
	{"limit", "targets COUNT | rate COUNT", true, (*stanza).limit, printed.limit},
	{"metrics", "targets", false, (*stanza).metrics, printed.metrics},
	{"status", "ADDRESS", false, (*stanza).status, printed.status},
	{"peers", "ADDRESS:PORT [JOIN...] | key FILE | site NAME [quorum] | observers COUNT | allow CIDR...", true, (*stanza).peers, printed.peers},
}

// property reads one property. Errors name it, its value and what would be right.
func (s *stanza) property(property string, args []string) error {
	for _, known := range properties {
		if known.name != property {
			continue
		}
		if line, twice := s.seen[property]; twice && !known.many {
			return s.Errf("%s is given twice, on line %d already", property, line)
		}
		s.seen[property] = s.Line()
		if len(args) == 0 {
			return s.Errf("%s has no value, want %s %s", property, property, known.usage)
		}
		if err := known.parse(s, args); err != nil {
			return s.Errf("%s: %v", property, err)
		}
		return nil
	}
	names := make([]string, len(properties))
	for i, known := range properties {
		names[i] = known.name
	}
	return s.Errf("unknown property %q, want one of %s", property, strings.Join(names, ", "))
}

func (s *stanza) port(args []string) error {
	if args[0] == "any" {
		s.policy.anyPort = true
		args = args[1:]
		if len(args) == 0 {
			return fmt.Errorf("any stands alone, want at least one port behind it")
		}
	}
	s.policy.ports = nil
	for _, arg := range args {
		port, err := parsePort(arg)
		if err != nil {
			return err
		}
		if slices.Contains(s.policy.ports, port) {
			return fmt.Errorf("%q is given twice", arg)
		}
		s.policy.ports = append(s.policy.ports, port)
	}
	return nil
}

func (s *stanza) interval(args []string) error {
	const least, most = 20 * time.Millisecond, 24 * time.Hour
	if len(args) > 2 {
		return fmt.Errorf("%q is one value too many, want DURATION [FAST]", args[2])
	}
	interval, err := parseDuration(args[0], least, most)
	if err != nil {
		return err
	}
	s.policy.settings.Interval = interval
	s.policy.settings.Fast = min(s.policy.settings.Fast, interval)
	if len(args) == 2 {
		s.policy.settings.Fast, err = parseDuration(args[1], least, interval)
	}
	return err
}

func (s *stanza) timeout(args []string) (err error) {
	s.policy.settings.Timeout, err = duration(args, time.Millisecond, time.Minute)
	return err
}

func (s *stanza) tries(args []string) (err error) {
	s.policy.settings.Tries, err = count(args, 1, checker.MaxTries)
	return err
}

func (s *stanza) rise(args []string) (err error) {
	s.policy.settings.Rise, err = count(args, 1, 1000)
	return err
}

func (s *stanza) fall(args []string) (err error) {
	s.policy.settings.Fall, err = count(args, 1, 1000)
	return err
}

func (s *stanza) damping(args []string) error {
	const least, most = time.Second, 24 * time.Hour
	p := &s.policy.settings
	p.Damping, p.DampingMax = 0, 0
	if args[0] == "off" {
		return single(args)
	}
	if len(args) > 2 {
		return fmt.Errorf("%q is one value too many, want DURATION [MAX]", args[2])
	}
	damping, err := parseDuration(args[0], least, most)
	if err != nil {
		return fmt.Errorf("%w, or off", err)
	}
	p.Damping, p.DampingMax = damping, min(10*damping, most)
	if len(args) == 2 {
		p.DampingMax, err = parseDuration(args[1], damping, most)
	}
	return err
}

// hold ends below the five seconds after which stub resolvers ask again.
func (s *stanza) hold(args []string) (err error) {
	s.policy.hold, err = duration(args, 0, 4*time.Second)
	return err
}

// prefer takes one tier.
func (s *stanza) prefer(args []string) error {
	tier := make([]netip.Prefix, len(args))
	for i, arg := range args {
		var err error
		if tier[i], err = prefix.Parse(arg); err != nil {
			return err
		}
	}
	if twice, ok := s.policy.Tiers.Add(tier); !ok {
		return fmt.Errorf("%q is given twice", prefix.String(twice))
	}
	return nil
}

// fallback takes names first, then what is left when none of them lives.
func (s *stanza) fallback(args []string) error {
	f := &s.policy.Fallback
	for len(args) > 0 {
		qname, err := parseStandby(args[0])
		if err != nil {
			break
		}
		if slices.Contains(f.Names, qname) {
			return fmt.Errorf("%q is given twice", args[0])
		}
		f.Names, args = append(f.Names, qname), args[1:]
	}
	if len(args) == 0 {
		return nil
	}
	for _, kind := range []answer.FallbackKind{answer.FallbackAll, answer.FallbackNoData, answer.FallbackServFail} {
		if args[0] == kind.String() {
			f.Kind = kind
			return single(args)
		}
	}
	f.Kind = answer.FallbackAddresses
	for _, arg := range args {
		addr, err := parseAddress(arg)
		if _, noName := parseStandby(arg); err != nil && noName == nil {
			return fmt.Errorf("%q stands behind an address, want names first", arg)
		}
		if err != nil {
			return fmt.Errorf("%q is neither a domain name with a dot nor an IP address, want names, and then all, nodata, "+
				"servfail or nothing but addresses", arg)
		}
		if slices.Contains(f.Addresses, addr) {
			return fmt.Errorf("%q is given twice", arg)
		}
		f.Addresses = append(f.Addresses, addr)
	}
	return nil
}

// parseStandby reads a name that answers may fall back to. It has a dot, so that no keyword with a mistake passes for one.
func parseStandby(arg string) (qname string, err error) {
	qname = plugin.Name(arg).Normalize()
	_, valid := dns.IsDomainName(arg)
	if !valid || !strings.Contains(arg, ".") || arg == "." || strings.ContainsAny(arg, ":/*") || isNumeric(arg) {
		return "", errors.New("is not a domain name with a dot")
	}
	return qname, checkSpelling(qname)
}

func (s *stanza) panic(args []string) (err error) {
	s.policy.Panic, err = percent(args, 0)
	return err
}

// ttl also takes a plain number of seconds, as TTLs are written everywhere else in a Corefile.
func (s *stanza) ttl(args []string) error {
	if len(args) == 1 {
		if _, err := strconv.Atoi(args[0]); err == nil {
			args = []string{args[0] + "s"}
		}
	}
	ttl, err := duration(args, 0, 7*24*time.Hour)
	if err != nil {
		return err
	}
	if ttl%time.Second != 0 {
		return fmt.Errorf("%q is not a whole number of seconds", args[0])
	}
	s.policy.TTL = uint32(ttl / time.Second)
	return nil
}

func (s *stanza) sort(args []string) (err error) {
	p := s.policy
	switch args[0] {
	case answer.SortRTT.String():
		p.Sort = answer.SortRTT
		return single(args)
	case answer.SortClient.String():
		p.Sort = answer.SortClient
	default:
		return fmt.Errorf("%q is not an order, want rtt or client", args[0])
	}
	switch len(args) {
	case 1:
		return nil
	case 3:
		if p.ClientBits4, err = count(args[1:2], 1, 32); err == nil {
			p.ClientBits6, err = count(args[2:], 1, 128)
		}
		return err
	default:
		return fmt.Errorf("%q is incomplete or too long, want client, or client BITS4 BITS6", strings.Join(args, " "))
	}
}

func (s *stanza) pick(args []string) (err error) {
	s.policy.Pick, err = count(args, 1, 1000)
	return err
}

func (s *stanza) weight(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%q has no CIDR behind it, want COUNT and at least one", args[0])
	}
	weight, err := count(args[:1], 1, 1000)
	if err != nil {
		return fmt.Errorf("%w; what shall get nothing is for prefer or overrides", err)
	}
	for _, arg := range args[1:] {
		p, err := prefix.Parse(arg)
		if err != nil {
			return err
		}
		if !s.policy.Weights.Set(p, weight) {
			return fmt.Errorf("%q is given twice", arg)
		}
	}
	return nil
}

func (s *stanza) idle(args []string) (err error) {
	s.policy.idle, err = duration(args, time.Second, 30*24*time.Hour)
	return err
}

func (s *stanza) allow(args []string) error { return s.prefixes(args, true) }

func (s *stanza) deny(args []string) error { return s.prefixes(args, false) }

func (s *stanza) prefixes(args []string, allow bool) error {
	for _, arg := range args {
		p, err := prefix.Parse(arg)
		if err != nil {
			return err
		}
		if !s.policy.permits.add(p, allow) {
			return fmt.Errorf("%q is both allowed and denied", arg)
		}
	}
	return nil
}

func (s *stanza) probe(args []string) error {
	answered, to, err := parseDetour(args)
	if err != nil {
		return err
	}
	if !s.policy.detours.add(answered, to) {
		return fmt.Errorf("%q is given twice", args[0])
	}
	return nil
}

// overrides takes a file. Stanzas that name the same one share it.
func (s *stanza) overrides(args []string) error {
	name, local := args[0], len(args) == 2 && args[1] == "local"
	if len(args) > 2 || len(args) == 2 && !local {
		return fmt.Errorf("%q is not possible, want FILE, or FILE local", strings.Join(args, " "))
	}
	path := s.file(name)
	if s.process.overrides[path] == nil {
		file, err := shared.overrideNews.open(path)
		if err != nil {
			return err
		}
		if s.process.overrides == nil {
			s.process.overrides = make(map[string]*override.File)
			s.process.overrideUses = make(map[string]*namedOverrides)
		}
		s.process.overrides[path] = file
		s.process.overrideUses[path] = &namedOverrides{name: name}
	}
	s.policy.overrides, s.policy.localOverrides = s.process.overrides[path], local
	return s.process.overrideUses[path].set(overrideUse{path, local}, place(s.Controller))
}

// file returns the path of a file. A relative one starts at the root of the server block.
func (s *stanza) file(path string) string {
	if root := dnsserver.GetConfig(s.Controller).Root; !filepath.IsAbs(path) && root != "" {
		return filepath.Join(root, path)
	}
	return path
}

func (s *stanza) watch(args []string) error {
	for _, arg := range args {
		qname := plugin.Name(arg).Normalize()
		_, valid := dns.IsDomainName(arg)
		_, err := netip.ParseAddr(arg)
		if !valid || err == nil || strings.ContainsAny(arg, ":/*") {
			return fmt.Errorf("%q is not possible, want a domain name without wildcard or port", arg)
		}
		if err := checkSpelling(qname); err != nil {
			return fmt.Errorf("%q %w", arg, err)
		}
		inZone := func(zone string) bool { return plugin.Name(zone).Matches(qname) }
		if !slices.ContainsFunc(s.policy.zones, inZone) {
			return fmt.Errorf("%q is in none of the stanza's zones, %s", arg, strings.Join(s.policy.zones, ", "))
		}
		if slices.Contains(s.policy.watched, qname) {
			return fmt.Errorf("%q is given twice", arg)
		}
		s.policy.watched = append(s.policy.watched, qname)
	}
	return nil
}

func (s *stanza) source(args []string) error {
	for _, arg := range args {
		addr, err := parseAddress(arg)
		if err != nil {
			return err
		}
		if addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return fmt.Errorf("%q is no address of a machine, want one of this machine", arg)
		}
		source, family := &s.policy.source6, "IPv6"
		if addr.Is4() {
			source, family = &s.policy.source4, "IPv4"
		}
		if source.IsValid() {
			return fmt.Errorf("%q is a second %s address, want one per family", arg, family)
		}
		*source = addr
	}
	return nil
}

func (s *stanza) method(args []string) error {
	if err := single(args); err != nil {
		return err
	}
	method, err := checker.ParseMethod(args[0])
	if err != nil {
		return fmt.Errorf("%q is not a method, want socket, raw or dial", args[0])
	}
	return s.process.method.set(method, place(s.Controller))
}

func (s *stanza) freeze(args []string) error {
	f, err := parseFreeze(args)
	if err != nil {
		return err
	}
	return s.process.freeze.set(f, place(s.Controller))
}

func parseFreeze(args []string) (f freeze, err error) {
	if len(args) > 2 {
		return f, fmt.Errorf("%q is one value too many, want PERCENT [MAX]", args[2])
	}
	if args[0] == "off" {
		return f, single(args)
	}
	f.most = defaultFreeze.most
	// With half of them or less, a site of two that dies would be taken for a fault on this side.
	if f.percent, err = percent(args[:1], 51); err != nil {
		return f, fmt.Errorf("%w, or off", err)
	}
	if len(args) == 2 {
		f.most, err = parseDuration(args[1], 10*time.Second, 24*time.Hour)
	}
	return f, err
}

func (s *stanza) limit(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%q is incomplete or too long, want targets COUNT or rate COUNT", strings.Join(args, " "))
	}
	setting := &s.process.targets
	switch args[0] {
	case "targets":
	case "rate":
		setting = &s.process.rate
	default:
		return fmt.Errorf("%q cannot be limited, want targets COUNT or rate COUNT", args[0])
	}
	n, err := count(args[1:], 1, 10_000_000)
	if err == nil {
		err = setting.set(n, place(s.Controller))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}

func (s *stanza) metrics(args []string) error {
	if args[0] != "targets" {
		return fmt.Errorf("%q is not possible, want targets", args[0])
	}
	if !s.process.targetMetrics {
		s.process.targetMetrics, s.process.targetMetricsPlace = true, place(s.Controller)
	}
	return single(args)
}

func (s *stanza) status(args []string) error {
	if err := single(args); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(args[0])
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" {
		return fmt.Errorf("%q is not possible, want the host to listen on and a port, such as 127.0.0.1:8053", args[0])
	}
	return s.process.status.set(args[0], place(s.Controller))
}

func single(args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%q is one value too many, want a single one", args[1])
	}
	return nil
}

func count(args []string, least, most int) (int, error) {
	if err := single(args); err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is not possible, want a number from %d to %d", args[0], least, most)
	}
	return n, nil
}

// percent reads a whole number of per cent, with the sign or without.
func percent(args []string, least int) (int, error) {
	if len(args) == 1 {
		args = []string{strings.TrimSuffix(args[0], "%")}
	}
	return count(args, least, 100)
}

func duration(args []string, least, most time.Duration) (time.Duration, error) {
	if err := single(args); err != nil {
		return 0, err
	}
	return parseDuration(args[0], least, most)
}

func parseDuration(arg string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(arg)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration, want one such as 500ms or 2s", arg)
	}
	if d < least || d > most {
		return 0, fmt.Errorf("%q is not possible, want a duration from %v to %v", arg, least, most)
	}
	return d, nil
}

func parsePort(arg string) (uint16, error) {
	port, err := strconv.ParseUint(arg, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is not a port, want a number from 1 to 65535", arg)
	}
	return uint16(port), nil
}

// parseAddress reads an address that can be in a DNS record.
func parseAddress(arg string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(arg)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", arg)
	}
	return addr.Unmap(), nil
}
