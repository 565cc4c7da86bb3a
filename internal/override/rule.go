package override

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coredns-shaker/shaker/internal/prefix"
)

// Decision is what somebody has decided about an address. The zero value leaves it to the checks.
type Decision uint8

const (
	// Auto leaves the address to its checks.
	Auto Decision = iota
	// Up keeps it in answers.
	Up
	// Down keeps it out of them.
	Down
)

// String returns the decision as files have it.
func (d Decision) String() string {
	switch d {
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return "auto"
	}
}

// Rule is what a line of a file says. The zero value says nothing.
type Rule struct {
	// What is the address, the address and port or the CIDR that it is about, as 192.0.2.7, [2001:db8::7]:443 or
	// 192.0.2.0/24.
	What string
	Says Decision
	// Until is when the rule ends by itself, in UTC. The zero value is never.
	Until time.Time
	// Reason is the comment on the line, with what could do harm where it is shown written as Go does in strings: \x00 or
	// \u202e. It has up to 200 characters, and ends in ... where the comment has more.
	Reason string
	// From is the host of the replica whose file has the line, and Since when it was first seen there. They are zero where
	// rules are not shared.
	From  string
	Since time.Time
}

// String returns the rule as a line of a file, without the end of the line.
func (r Rule) String() string {
	line := r.What + " " + r.says()
	if r.Reason != "" {
		line += "  # " + r.Reason
	}
	return line
}

// says returns the decision and its end.
func (r Rule) says() string {
	if r.Until.IsZero() {
		return r.Says.String()
	}
	return r.Says.String() + " until " + timeString(r.Until)
}

// timeString writes a time as files have it.
func timeString(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// endedAt tells whether the rule has run out. At the very moment it has.
func (r Rule) endedAt(now time.Time) bool { return !r.Until.IsZero() && !now.Before(r.Until) }

// never is the end of rules that do not end.
var never = time.Unix(1<<40, 0)

// end returns when the rule ends.
func (r *Rule) end() time.Time {
	if r.Until.IsZero() {
		return never
	}
	return r.Until
}

// subject is what a rule is about.
type subject struct {
	prefix netip.Prefix // masked; not of IPv4-mapped addresses
	port   uint16       // of the one address in the prefix; 0 for all ports
}

// single returns the prefix that holds nothing but an address.
func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// String returns the subject as files have it.
func (s subject) String() string {
	if s.port != 0 {
		return s.endpoint().String()
	}
	return prefix.String(s.prefix)
}

// endpoint returns the address and port of a subject that has a port.
func (s subject) endpoint() netip.AddrPort { return netip.AddrPortFrom(s.prefix.Addr(), s.port) }

// compare orders subjects by address. What is wider comes first.
func (s subject) compare(other subject) int {
	if order := s.prefix.Compare(other.prefix); order != 0 {
		return order
	}
	return int(s.port) - int(other.port)
}

// holds tells whether all of the other subject is in this one. Each holds itself.
func (s subject) holds(other subject) bool {
	if s.port != 0 {
		return s == other
	}
	return s.prefix.Bits() <= other.prefix.Bits() && s.prefix.Contains(other.prefix.Addr())
}

// parseSubject reads an address, one with a port, or a CIDR.
func parseSubject(text string) (subject, error) {
	if len(text) > maxQuoted {
		return subject{}, fmt.Errorf("%s is too long for a CIDR, an address or one with a port", quote(text))
	}
	if endpoint, err := netip.ParseAddrPort(text); err == nil && endpoint.Addr().Zone() == "" && endpoint.Port() != 0 {
		return subject{single(endpoint.Addr().Unmap()), endpoint.Port()}, nil
	}
	p, err := prefix.Parse(text)
	if err != nil {
		return subject{}, fmt.Errorf("%w; with a port it is 192.0.2.7:443 or [2001:db8::7]:443", err)
	}
	return subject{prefix: p}, nil
}

// parseLine reads a line of a file, with or without its end. The rule is nil where the line has none, and does not have What,
// which would take a while to write for all.
func parseLine(line string) (*subject, *Rule, error) {
	// Where files are joined, each begins with a mark.
	text, comment, _ := strings.Cut(strings.TrimPrefix(line, "\ufeff"), "#")
	fields := strings.Fields(text)
	switch {
	case len(fields) == 0:
		return nil, nil, nil
	case strings.Contains(fields[0], "\x00"):
		return nil, nil, fmt.Errorf("%s holds NUL, which UTF-16 does, want UTF-8", quote(fields[0]))
	case len(fields) == 1, len(fields) > 2 && fields[2] != "until":
		return nil, nil, fmt.Errorf("%s is not possible, want ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or CIDR, and then up, down or auto, "+
			"and then nothing or until and a time; a reason comes after #", quote(strings.Join(fields, " ")))
	}
	r := new(Rule)
	for r.Says.String() != fields[1] {
		if r.Says++; r.Says > Down {
			return nil, nil, fmt.Errorf("%s is not possible, want up, down or auto", quote(fields[1]))
		}
	}
	about, err := parseSubject(fields[0])
	if err != nil {
		return nil, nil, err
	}
	if len(fields) > 2 {
		if r.Until, err = parseTime(fields[3:]); err != nil {
			return nil, nil, fmt.Errorf("until: %w", err)
		}
	}
	r.Reason = harmless(comment)
	return &about, r, nil
}

// timeExample tells how times are written.
const timeExample = "2026-11-26T16:00:00Z for UTC, or 2026-11-26T17:00:00+01:00 (RFC 3339)"

// dateTime is the date-time of RFC 3339, section 5.6. There may be other numbers in it than dates and times have.
var dateTime = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// parseTime reads what is behind until: an RFC 3339 date-time, which is not a leap second.
func parseTime(fields []string) (time.Time, error) {
	if len(fields) == 0 {
		return time.Time{}, errors.New("the time is missing, want one such as " + timeExample)
	}
	text := fields[0]
	switch {
	case dateTime.MatchString(text + "Z"):
		return time.Time{}, fmt.Errorf("%s has no time zone, want one such as %s", quote(text), timeExample)
	case !dateTime.MatchString(text):
		return time.Time{}, fmt.Errorf("%s is not possible, want a time such as %s", quote(strings.Join(fields, " ")), timeExample)
	case len(fields) > 1:
		return time.Time{}, fmt.Errorf("%s is not possible behind the time, want nothing, or # and a reason", quote(strings.Join(fields[1:], " ")))
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	t = t.UTC()
	if err != nil || t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%s does not exist, want a time such as %s", quote(text), timeExample)
	}
	return t, nil
}

// maxReason bounds a reason, in characters.
const maxReason = 200

// harmless makes a reason of a comment. It does not change what is a reason already.
func harmless(comment string) string {
	var b strings.Builder
	count := 0
	for comment = strings.TrimSpace(comment); comment != ""; {
		r, size := utf8.DecodeRuneInString(comment)
		piece := comment[:size]
		switch {
		case unicode.IsSpace(r):
			piece = " "
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, comment[0])
		case !unicode.IsPrint(r):
			piece = strings.Trim(strconv.QuoteRune(r), "'")
		}
		b.WriteString(piece)
		comment = comment[size:]
		if count += utf8.RuneCountInString(piece); count > maxReason {
			return string([]rune(b.String())[:maxReason-3]) + "..."
		}
	}
	return b.String()
}

// maxQuoted bounds how much of a file an error quotes, in characters. Nothing that is right is longer.
const maxQuoted = 80

func quote(text string) string {
	quoted := fmt.Sprintf("%.*q", maxQuoted, text)
	if utf8.RuneCountInString(text) > maxQuoted {
		quoted += "..."
	}
	return quoted
}
