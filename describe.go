package shaker

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/prefix"
)

// describeBlocks writes all server blocks, as lines of a Corefile.
func describeBlocks(corefile caddy.Input, inst *instance) ([]byte, error) {
	blocks, err := serverBlocks(corefile)
	if err != nil {
		return nil, err
	}
	handlers := make(map[int]*Shaker)
	for _, s := range inst.handlers {
		handlers[s.controller.ServerBlockIndex] = s
	}
	var b bytes.Buffer
	process := &inst.settings
	for i, block := range blocks {
		if i > 0 {
			b.WriteByte('\n')
		}
		lines := describeAround(block)
		if s := handlers[i]; s != nil {
			lines = append(lines, s.describe(process)...)
			process = nil
		} else {
			lines = append(lines, comment("no "+name+": answers pass as they are"))
		}
		writeBlock(&b, block.Keys, lines)
	}
	return b.Bytes(), nil
}

// serverBlocks reads the server blocks of a Corefile, with the keys that CoreDNS makes of theirs.
func serverBlocks(corefile caddy.Input) ([]caddyfile.ServerBlock, error) {
	for _, input := range []caddy.Input{corefile, caddy.DefaultInput(corefile.ServerType())} {
		blocks, err := caddyfile.Parse(input.Path(), bytes.NewReader(input.Body()), dnsserver.Directives)
		if err != nil {
			return nil, err
		}
		if len(blocks) > 0 {
			return caddy.NewTestController(corefile.ServerType(), "").Context().InspectServerBlocks(input.Path(), blocks)
		}
	}
	return nil, nil
}

// describeAround writes what decides, beside its keys, which queries get to a server block, and by which names.
func describeAround(block caddyfile.ServerBlock) (lines []string) {
	for _, directive := range []string{"bind", "view", "rewrite", "autopath"} {
		lines = append(lines, verbatim(block.Tokens[directive])...)
	}
	return lines
}

// verbatim writes what was read.
func verbatim(tokens []caddyfile.Token) (lines []string) {
	depth := 0
	for i, token := range tokens {
		isFirst := i == 0 || token.File != tokens[i-1].File || token.Line != tokens[i-1].Line+strings.Count(tokens[i-1].Text, "\n")
		if token.Text == "}" {
			depth--
		}
		if isFirst {
			lines = append(lines, strings.Repeat(indent, max(depth, 0))+quote(token.Text))
		} else {
			lines[len(lines)-1] += " " + quote(token.Text)
		}
		if token.Text == "{" {
			depth++
		}
	}
	return lines
}

func writeBlock(b *bytes.Buffer, keys, lines []string) {
	fmt.Fprintln(b, property(keys[0], keys[1:]...)+" {")
	for _, line := range lines {
		if line != "" {
			line = indent + line
		}
		fmt.Fprintln(b, line)
	}
	fmt.Fprintln(b, "}")
}

// describe writes the policies in force in the server block as lines of a Corefile. Where process is not nil, the first
// stanza has what is in force for the whole process.
func (s *Shaker) describe(process *processSettings) (lines []string) {
	for _, p := range s.policies.stanzas() {
		if len(lines) > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, printed{policy: p, process: process}.stanza()...)
		process = nil
	}
	return lines
}

// printed is a policy that is written as the stanza that makes it, with the value of each property. It is the reverse of
// stanza. What has no value is a comment.
type printed struct {
	*policy
	process *processSettings // nil where another stanza has them
}

// stanza writes all of it. Zones that are those of the server block stay with that, since not all of them could be said
// in a stanza.
func (p printed) stanza() (lines []string) {
	if len(p.zonesHere) > 0 {
		lines = append(lines, comment(p.place), property(name, p.zones...)+" {")
	} else {
		lines = append(lines, comment(p.place+", for "+strings.Join(p.zones, " ")), name+" {")
	}
	for _, known := range properties {
		for _, line := range known.print(p) {
			lines = append(lines, indent+line)
		}
	}
	return append(lines, "}")
}

const indent = "    "

// property writes a property and its values.
func property(name string, values ...string) string {
	words := append([]string{name}, values...)
	for i := range words {
		words[i] = quote(words[i])
	}
	return strings.Join(words, " ")
}

// quote writes a word so that a Corefile is read with it. Within quotes, only they themselves can be escaped.
func quote(word string) string {
	if word != "" && word[0] != '"' && !strings.ContainsFunc(word, func(r rune) bool { return r == '#' || unicode.IsSpace(r) }) {
		return word
	}
	return `"` + strings.ReplaceAll(word, `"`, `\"`) + `"`
}

// comment writes a text as one, whatever the names of files in it.
func comment(text string) string {
	return "# " + strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// none writes that a property has no value, and what that means.
func none(name, meaning string) []string { return []string{comment(name + ": " + meaning)} }

// mostColumns is where a property with many values goes on with another line of the same property.
const mostColumns = 100

// wrapped writes a property that may be given several times, with many values and the same words before those.
func wrapped(lead string, values []string) (lines []string) {
	for _, value := range values {
		last := len(lines) - 1
		if last < 0 || len(lines[last])+1+len(value) > mostColumns {
			lines = append(lines, lead)
			last++
		}
		lines[last] += " " + value
	}
	return lines
}

// span writes a duration without the zeros behind it.
func span(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func number(name string, n int) []string { return []string{property(name, strconv.Itoa(n))} }

func (p printed) port() []string {
	var values []string
	if p.anyPort {
		values = append(values, "any")
	}
	for _, port := range p.ports {
		values = append(values, strconv.Itoa(int(port)))
	}
	return []string{property("port", values...)}
}

func (p printed) interval() []string {
	return []string{property("interval", span(p.settings.Interval), span(p.settings.Fast))}
}

func (p printed) timeout() []string { return []string{property("timeout", span(p.settings.Timeout))} }

func (p printed) tries() []string { return number("tries", p.settings.Tries) }

func (p printed) rise() []string { return number("rise", p.settings.Rise) }

func (p printed) fall() []string { return number("fall", p.settings.Fall) }

func (p printed) damping() []string {
	if p.settings.Damping == 0 {
		return []string{property("damping", "off")}
	}
	return []string{property("damping", span(p.settings.Damping), span(p.settings.DampingMax))}
}

func (p printed) hold() []string { return []string{property("hold", span(p.policy.hold))} }

// prefer has a line for each tier, however long.
func (p printed) prefer() (lines []string) {
	if p.Tiers.Len() == 0 {
		return none("prefer", "all addresses are one tier")
	}
	lines = slices.Repeat([]string{"prefer"}, p.Tiers.Len())
	for cidr, tier := range p.Tiers.All() {
		lines[tier] += " " + prefix.String(cidr)
	}
	return lines
}

func (p printed) fallback() []string {
	f := &p.Fallback
	values := slices.Clone(f.Names)
	if f.Kind != answer.FallbackAddresses {
		values = append(values, f.Kind.String())
	}
	for _, addr := range f.Addresses {
		values = append(values, addr.String())
	}
	return []string{property("fallback", values...)}
}

func (p printed) panic() []string { return number("panic", p.Panic) }

func (p printed) ttl() []string {
	return []string{property("ttl", span(time.Duration(p.TTL)*time.Second))}
}

func (p printed) sort() []string {
	switch p.Sort {
	case answer.Unsorted:
		return none("sort", "the order of the answer")
	case answer.SortClient:
		return []string{property("sort", p.Sort.String(), strconv.Itoa(p.ClientBits4), strconv.Itoa(p.ClientBits6))}
	default:
		return []string{property("sort", p.Sort.String())}
	}
}

func (p printed) pick() []string {
	if p.Pick == 0 {
		return none("pick", "all")
	}
	return number("pick", p.Pick)
}

func (p printed) weight() (lines []string) {
	if p.Weights.Len() == 0 {
		return none("weight", "1 for every address")
	}
	of := make(map[int][]string)
	var weights []int
	for cidr, weight := range p.Weights.All() {
		if of[weight] == nil {
			weights = append(weights, weight)
		}
		of[weight] = append(of[weight], prefix.String(cidr))
	}
	slices.Sort(weights)
	for _, weight := range weights {
		lines = append(lines, wrapped("weight "+strconv.Itoa(weight), of[weight])...)
	}
	return lines
}

func (p printed) idle() []string { return []string{property("idle", span(p.policy.idle))} }

func (p printed) allow() []string {
	cidrs := p.permits.which(true)
	if len(cidrs) == 0 {
		return none("allow", "no exceptions from deny")
	}
	return wrapped("allow", cidrs)
}

// deny has what is never probed as well, unless it is allowed. IPv4-mapped addresses cannot be said, and need not be,
// since they are denied without exception.
func (p printed) deny() []string { return wrapped("deny", p.permits.which(false)) }

// which returns what is allowed, or denied, in the order of the addresses.
func (p *permits) which(allowed bool) (cidrs []string) {
	for cidr, allow := range p.rules.AllSorted() {
		if allow == allowed && !cidr.Addr().Is4In6() {
			cidrs = append(cidrs, prefix.String(cidr))
		}
	}
	return cidrs
}

func (p printed) probe() (lines []string) {
	for answered, to := range p.detours.rules.AllSorted() {
		lines = append(lines, fmt.Sprintf("probe %s at %v", prefix.String(answered), to))
	}
	if len(lines) == 0 {
		return none("probe", "each address itself")
	}
	return lines
}

func (p printed) overrides() []string {
	if p.policy.overrides == nil {
		return none("overrides", "none")
	}
	rules := "1 rule"
	if n := p.policy.overrides.Rules().Size(); n != 1 {
		rules = fmt.Sprintf("%d rules", n)
	}
	values := []string{p.policy.overrides.Path()}
	if p.policy.localOverrides {
		values = append(values, "local")
	}
	return []string{property("overrides", values...) + " " + comment(rules)}
}

func (p printed) watch() []string {
	if len(p.watched) == 0 {
		return none("watch", "no names")
	}
	return wrapped("watch", p.watched)
}

func (p printed) source() []string {
	var values []string
	for _, source := range []netip.Addr{p.source4, p.source6} {
		if source.IsValid() {
			values = append(values, source.String())
		}
	}
	if len(values) == 0 {
		return none("source", "what the kernel chooses")
	}
	return []string{property("source", values...)}
}

// ofProcess writes a property of the process, and where it comes from.
func ofProcess(line, place string) string {
	if place == "" {
		place = "by default"
	}
	return line + " " + comment("of the process, "+place)
}

func (p printed) method() []string {
	if p.process == nil {
		return nil
	}
	method := &p.process.method
	return []string{ofProcess(property("method", method.or(checker.MethodDefault).String()), method.place)}
}

func (p printed) freeze() []string {
	if p.process == nil {
		return nil
	}
	f := p.process.freeze.or(defaultFreeze)
	line := property("freeze", "off")
	if f.percent > 0 {
		line = property("freeze", strconv.Itoa(f.percent), span(f.most))
	}
	return []string{ofProcess(line, p.process.freeze.place)}
}

func (p printed) limit() []string {
	if p.process == nil {
		return nil
	}
	targets, rate := &p.process.targets, &p.process.rate
	return []string{
		ofProcess(property("limit", "targets", strconv.Itoa(targets.or(defaultTargets))), targets.place),
		ofProcess(property("limit", "rate", strconv.Itoa(rate.or(defaultRate))), rate.place),
	}
}

func (p printed) metrics() []string {
	switch {
	case p.process == nil:
		return nil
	case !p.process.targetMetrics:
		return none("metrics", "none of each target, by default")
	default:
		return []string{ofProcess(property("metrics", "targets"), p.process.targetMetricsPlace)}
	}
}

func (p printed) status() []string {
	switch {
	case p.process == nil:
		return nil
	case !p.process.status.isSet():
		return none("status", "none, by default")
	default:
		return []string{ofProcess(property("status", p.process.status.value), p.process.status.place)}
	}
}

func (p printed) peers() []string {
	if p.process == nil {
		return nil
	}
	s := &p.process.peers
	if !s.listen.isSet() {
		return none("peers", "none, by default")
	}
	of := func(place string, values ...string) string { return ofProcess(property("peers", values...), place) }
	lines := []string{of(s.listen.place, strings.Fields(s.listen.value.String())...), of(s.key.place, "key", s.key.value)}
	if s.site.isSet() {
		lines = append(lines, of(s.site.place, append([]string{"site"}, strings.Fields(s.site.value.String())...)...))
	} else {
		lines = append(lines, none("peers site", "none, by default")...)
	}
	lines = append(lines, of(s.observers.place, "observers", strconv.Itoa(s.observers.or(defaultObservers))))
	if s.allow.isSet() {
		return append(lines, of(s.allow.place, append([]string{"allow"}, strings.Fields(s.allow.value)...)...))
	}
	return append(lines, none("peers allow", "anybody with the key, by default")...)
}
