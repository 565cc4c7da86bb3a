package shaker

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/override"
)

// readme is README.md, or a page of docs, taken apart.
type readme struct {
	text     string
	headings []string            // of the second level, in order
	prose    map[string][]string // lines by heading, without fenced blocks
	fences   []readmeFence
}

type readmeFence struct {
	heading  string
	language string
	line     int // of its first line
	text     string
}

func readReadme(t *testing.T) *readme {
	t.Helper()
	return readPage(t, "README.md")
}

func readPage(t *testing.T, path string) *readme {
	t.Helper()
	r := &readme{text: readFile(t, path), prose: make(map[string][]string)}
	heading, open := "", false
	for i, line := range strings.Split(r.text, "\n") {
		switch language, isFence := strings.CutPrefix(line, "```"); {
		case isFence && open:
			open = false
		case isFence:
			open = true
			r.fences = append(r.fences, readmeFence{heading, language, i + 2, ""})
		case open:
			r.fences[len(r.fences)-1].text += line + "\n"
		case strings.HasPrefix(line, "## "):
			heading = line[len("## "):]
			r.headings = append(r.headings, heading)
		default:
			r.prose[heading] = append(r.prose[heading], line)
		}
	}
	if open {
		t.Fatal("the last fenced block has no end")
	}
	return r
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// bullets returns the list items of the first level under a heading, each as one line.
func (r *readme) bullets(heading string) []string {
	var items []string
	inside := false
	for _, line := range r.prose[heading] {
		switch {
		case strings.HasPrefix(line, "* "):
			items, inside = append(items, line[len("* "):]), true
		case inside && strings.HasPrefix(line, "  "):
			items[len(items)-1] += " " + strings.TrimSpace(line)
		case line != "":
			inside = false
		}
	}
	return items
}

// paragraph returns the one that begins with these words, as one line.
func (r *readme) paragraph(t *testing.T, begin string) string {
	t.Helper()
	for p := range strings.SplitSeq(r.text, "\n\n") {
		if p = strings.ReplaceAll(p, "\n", " "); strings.HasPrefix(p, begin) {
			return p
		}
	}
	t.Fatalf("no paragraph begins with %q", begin)
	return ""
}

const mostReadmeLines = 450

// CoreDNS wants the sections of a plugin's README in this order.
func TestReadmeSections(t *testing.T) {
	r := readReadme(t)
	rest := r.headings
	for _, want := range []string{"Quick start", "Name", "Description", "Syntax", "Metrics", "Ready", "Metadata", "Examples",
		"See also", "Bugs"} {
		i := slices.Index(rest, want)
		if i < 0 {
			t.Fatalf("section %q is missing or out of order in %q", want, r.headings)
		}
		rest = rest[i+1:]
	}
	// What else there is to say has pages of its own.
	if lines := strings.Count(r.text, "\n"); lines > mostReadmeLines {
		t.Errorf("%d lines, want no more than %d", lines, mostReadmeLines)
	}
}

// The stanza in the README is what setup.go reads, no more and no less.
func TestReadmeSyntax(t *testing.T) {
	r := readReadme(t)
	var synopsis string
	for _, f := range r.fences {
		if f.heading == "Syntax" {
			synopsis += f.text
		}
	}
	want := "shaker [ZONES...] {\n"
	var names []string
	for _, p := range properties {
		want += "    " + p.name + " " + p.usage + "\n"
		names = append(names, p.name)
	}
	want += "}\n"
	if synopsis != want {
		t.Errorf("Syntax has\n%s\nwant\n%s", synopsis, want)
	}
	var explained []string
	for _, b := range readmeProperties(r) {
		explained = append(explained, b.names...)
	}
	if explained = slices.Compact(explained); !slices.Equal(explained, names) {
		t.Errorf("Syntax explains %q, want %q", explained, names)
	}
}

type readmeProperty struct {
	names []string // of the properties
	words []string // with which each of them begins a line
	text  string
}

// readmeProperties returns the list items that explain properties.
func readmeProperties(r *readme) []readmeProperty {
	lead := regexp.MustCompile("^`([a-z ]+)`(?: and `([a-z ]+)`)?")
	var all []readmeProperty
	for _, b := range r.bullets("Syntax") {
		match := lead.FindStringSubmatch(b)
		if match == nil {
			continue
		}
		p := readmeProperty{text: b}
		for _, words := range match[1:] {
			if words != "" {
				p.words = append(p.words, words)
				p.names = append(p.names, strings.Fields(words)[0])
			}
		}
		all = append(all, p)
	}
	return all
}

// The defaults and bounds in the README are those of the code.
func TestReadmeDefaultsAndBounds(t *testing.T) {
	var (
		defaults = regexp.MustCompile("Default: (?:`([^`]+)`)?")
		bounds   = regexp.MustCompile("from `([^`]+)` to `([^`]+)`")
		bounded  = regexp.MustCompile("DURATION|COUNT|PERCENT|PORT")
		corefile = func(property, value string) string {
			switch property {
			case "probe":
				property += " 192.0.2.0/24 at 10.0.0.0/24" // the port is the last value
			case "peers":
				property += " observers"
			case "weight":
				value += " 192.0.2.0/24"
			}
			return fmt.Sprintf("example.org {\n    shaker {\n        %s %s\n    }\n}\n", property, value)
		}
		usage = make(map[string]string)
	)
	for _, p := range properties {
		usage[p.name] = p.usage
	}
	bare, bareProcess := setupRead(t, "Corefile", "example.org {\n    shaker\n}\n")
	for _, p := range readmeProperties(readReadme(t)) {
		property := p.words[0]
		t.Run(property, func(t *testing.T) {
			match := defaults.FindStringSubmatch(p.text)
			if match == nil {
				t.Fatalf("no default in %q", p.text)
			}
			if value := match[1]; value != "" && (property != "method" || runtime.GOOS == "linux") {
				blocks, process := setupRead(t, "Corefile", corefile(property, value))
				if !reflect.DeepEqual(blocks, bare) {
					t.Errorf("%s %s makes the policy\n%+v, without it it is\n%+v", property, value, blocks, bare)
				}
				if got, want := readmeProcess(process), readmeProcess(bareProcess); got != want {
					t.Errorf("%s %s makes %s, without it it is %s", property, value, got, want)
				}
			}
			match = bounds.FindStringSubmatch(p.text)
			if match == nil {
				if bounded.MatchString(usage[p.names[0]]) {
					t.Errorf("no bounds in %q", p.text)
				}
				return
			}
			below, above := readmeBeyond(t, match[1], match[2])
			for _, value := range match[1:] {
				if err := setupValidate("Corefile", corefile(property, value)); err != nil {
					t.Errorf("%s should be possible: %v", value, err)
				}
			}
			for _, value := range []string{below, above} {
				if setupValidate("Corefile", corefile(property, value)) == nil {
					t.Errorf("%s should not be possible", value)
				}
			}
		})
	}
}

// readmeProcess tells which settings of the process are in force.
func readmeProcess(p processSettings) string {
	return fmt.Sprintf("method %s, %d targets, %d checks a second, metrics of targets %v, status page on %q",
		p.method.or(checker.MethodDefault), p.targets.or(defaultTargets), p.rate.or(defaultRate), p.targetMetrics, p.status.or(""))
}

// readmeBeyond returns the values next to these bounds, outside of them.
func readmeBeyond(t *testing.T, least, most string) (below, above string) {
	t.Helper()
	if n, err := strconv.Atoi(least); err == nil {
		m, err := strconv.Atoi(most)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.Itoa(n - 1), strconv.Itoa(m + 1)
	}
	low, err := time.ParseDuration(least)
	if err != nil {
		t.Fatal(err)
	}
	high, err := time.ParseDuration(most)
	if err != nil {
		t.Fatal(err)
	}
	step := time.Second // ttl has no smaller
	if low%step != 0 {
		step = time.Millisecond
	}
	return (low - step).String(), (high + step).String()
}

// metricBullets returns the list items that explain metrics. Those of replicas are on a page, since most have none.
func metricBullets(t *testing.T) []string {
	t.Helper()
	return append(readReadme(t).bullets("Metrics"), readPage(t, "docs/observing.md").bullets("Metrics of replicas")...)
}

func TestReadmeMetrics(t *testing.T) {
	r := readReadme(t)
	item := regexp.MustCompile("^`(coredns_shaker_[a-z_]+)\\{([a-z, ]*)\\}` - (.*)$")
	documented, text := make(map[string]string), make(map[string]string)
	for _, b := range metricBullets(t) {
		match := item.FindStringSubmatch(b)
		if match == nil {
			t.Fatalf("%q does not look like a metric", b)
		}
		labels := strings.Split(match[2], ", ")
		slices.Sort(labels)
		documented[match[1]], text[match[1]] = strings.Join(labels, ", "), match[3]
	}

	// What has no series is not gathered.
	countersFor(t.Context(), "readme.example.org.")
	file, err := override.Open(lab.File(t, "overrides", ""), override.Listener{})
	if err != nil {
		t.Fatal(err)
	}
	network := newNetwork(t, "10.0.0.1=answered")
	network.settle(netip.MustParseAddr("10.0.0.1"))
	inst := metricsOf(t, network)
	inst.settings.overrides = map[string]*override.File{file.Path(): file}
	inst.peers.Store(groupOpen(t, network.engine.monitor))
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	registered := make(map[string]string)
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "coredns_shaker_") {
			var labels []string
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
			slices.Sort(labels)
			registered[f.GetName()] = strings.Join(labels, ", ")
		}
	}
	if !reflect.DeepEqual(documented, registered) {
		t.Errorf("Metrics has\n%q, registered are\n%q", documented, registered)
	}
	for _, match := range regexp.MustCompile(`coredns_shaker_[a-z_]+`).FindAllString(r.text, -1) {
		if _, ok := registered[match]; !ok {
			t.Errorf("there is no metric %s", match)
		}
	}

	values := map[string][]string{
		"coredns_shaker_targets":                   {health.Unknown.String(), health.Up.String(), health.Down.String()},
		"coredns_shaker_state_changes_total":       {health.Up.String(), health.Down.String(), health.Unknown.String()},
		"coredns_shaker_inconclusive_checks_total": causes,
		"coredns_shaker_watch_lookups_total":       {"success", "failure"},
		"coredns_shaker_peers":                     {"alive", "lost", "frozen", "doubt"},
		"coredns_shaker_peers_messages_total":      {"sent", "received"},
		"coredns_shaker_peers_octets_total":        {"sent", "received"},
	}
	for reason := range inst.peers.Load().Report().Counts.Rejected {
		values["coredns_shaker_peers_rejected_total"] = append(values["coredns_shaker_peers_rejected_total"], reason)
	}
	for _, result := range checker.Results() {
		values["coredns_shaker_checks_total"] = append(values["coredns_shaker_checks_total"], result.String())
	}
	for o := range answer.Outcomes {
		values["coredns_shaker_answers_total"] = append(values["coredns_shaker_answers_total"], o.String())
	}
	for metric, want := range values {
		var got []string
		for _, match := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(text[metric], -1) {
			got = append(got, match[1])
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s is documented with %q, want %q", metric, got, want)
		}
	}
}

func TestReadmeNeverProbed(t *testing.T) {
	var got []netip.Prefix
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(readReadme(t).paragraph(t, "Never probed"), -1) {
		prefix, err := netip.ParsePrefix(match[1])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, prefix)
	}
	if !slices.Equal(got, neverProbed) {
		t.Errorf("Security lists\n%v, want\n%v", got, neverProbed)
	}
}

// The numbers in the prose are those of the code.
func TestReadmeNumbers(t *testing.T) {
	s := defaultPolicy().settings
	refusal := s.Interval + time.Duration(s.Fall-1)*s.Fast
	silence := s.Interval + time.Duration(s.Fall-1)*max(s.Fast, s.Timeout) + s.Timeout
	back := s.Interval + time.Duration(s.Rise-1)*s.Fast
	lab.ExpectWords(t, "README.md",
		fmt.Sprintf("an address that refuses is out of answers after %v, one that is silent after %v", refusal, silence),
		fmt.Sprintf("one that lives again is back after %v", back),
		fmt.Sprintf("No more than %d answers wait at the same time", maxHeld),
		"`"+(&change{target: events.Target{Endpoint: netip.MustParseAddrPort("127.0.0.2:1053")}, to: health.Up, run: s.Rise}).String()+"`",
	)
}
