package shaker

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// pages returns the text of every page for people, by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, path := range filesOf(t, ".md") {
		all[path] = readFile(t, path)
	}
	return all
}

// filesOf returns the paths of all files of this repository whose names end so. What npm has put there, for the tests of the
// status pages, is not of it.
func filesOf(t *testing.T, suffix string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules"):
			return fs.SkipDir
		case entry.IsDir():
		case strings.HasSuffix(path, suffix):
			paths = append(paths, filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d files end in %s (%v)", len(paths), suffix, err)
	}
	return paths
}

// The files of git and of npm are not ours.
func TestFilesOf(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"README.md", ".git/a.md", ".github/b.md", "docs/c.md", "test/axe/node_modules/axe-core/d.md"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := filesOf(t, ".md"), []string{".github/b.md", "README.md", "docs/c.md"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// anchors returns the names by which GitHub lets links point at the headings of a page.
func anchors(page string) map[string]bool {
	all := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		all[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			default:
				return -1
			}
		}, heading[1])] = true
	}
	return all
}

// Links lead somewhere, and the README leads to every page. Notes on decisions have a list of their own.
func TestPageLinks(t *testing.T) {
	all := pages(t)
	link := regexp.MustCompile(`\]\(([^)]+)\)`)
	for path, text := range all {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(match[1], "https://") {
				continue
			}
			file, anchor, _ := strings.Cut(match[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", path, err)
			} else if anchor != "" && !anchors(all[target])[anchor] {
				t.Errorf("%s: %s has no heading for %q", path, target, anchor)
			}
		}
		isNote := strings.HasPrefix(path, "docs/decisions/") && path != "docs/decisions/README.md"
		if strings.HasPrefix(path, "docs/") && !isNote && !strings.Contains(all["README.md"], "]("+path+")") {
			t.Errorf("README.md has no link to %s", path)
		}
	}
}

// The changelog has told of every property.
func TestPageChangelog(t *testing.T) {
	text := pages(t)["CHANGELOG.md"]
	for _, p := range properties {
		if !strings.Contains(text, "`"+p.name+"`") {
			t.Errorf("CHANGELOG.md does not name %s", p.name)
		}
	}
}

// The versions of CoreDNS and Go that pages name are those of go.mod.
func TestPageVersions(t *testing.T) {
	required := readFile(t, "go.mod")
	for name, pattern := range map[string]string{
		`CoreDNS (v\d+\.\d+\.\d+)`:                `coredns/coredns (v\d+\.\d+\.\d+)`,
		`from v\d+\.\d+\.\d+ to (v\d+\.\d+\.\d+)`: `coredns/coredns (v\d+\.\d+\.\d+)`,
		`\bGo (\d+\.\d+)`:                         `\ngo (\d+\.\d+)`,
	} {
		want := regexp.MustCompile(pattern).FindStringSubmatch(required)[1]
		for path, text := range pages(t) {
			for _, match := range regexp.MustCompile(name).FindAllStringSubmatch(text, -1) {
				if match[1] != want {
					t.Errorf("%s: %s, want %s", path, match[0], want)
				}
			}
		}
	}
}

// What docs/intervals.md recommends is in its Corefile, and nothing else.
func TestPageIntervals(t *testing.T) {
	page := pages(t)["docs/intervals.md"]
	_, rest, _ := strings.Cut(page, "## Typical situations\n")
	rows := regexp.MustCompile("(?m)^\\|.*`(interval .*)`").FindAllStringSubmatch(rest, -1)
	corefile := regexp.MustCompile("(?s)```corefile\n(.*?)```").FindStringSubmatch(rest)
	if len(rows) == 0 || corefile == nil {
		t.Fatal("no table or no Corefile of typical situations")
	}
	blocks, _ := setupRead(t, "Corefile", strings.Replace(corefile[1], "file db.example.org\n", "", 1))
	left := make(map[string]bool)
	for _, p := range blocks[0] {
		settings := p.settings
		settings.Damping = 0 // the page is about the others
		left[settings.String()] = true
	}
	for _, row := range rows {
		if !left[row[1]] {
			t.Errorf("no stanza has %s", row[1])
		}
		delete(left, row[1])
	}
	for settings := range left {
		t.Errorf("no row has %s", settings)
	}
}

// What docs/scale.md has on paper follows from its cost of a check.
func TestPageScale(t *testing.T) {
	const (
		perCheck = 8.4e-6 // seconds of CPU
		shorter  = 0.9    // of the interval, on average
		octets   = 300    // of heap a target
	)
	number := func(cell string) float64 {
		digits, unit, _ := strings.Cut(cell, " ")
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			t.Error(err)
		}
		return n * map[string]float64{"": 1, "million": 1e6, "GB": 1e9}[unit]
	}
	_, rest, _ := strings.Cut(pages(t)["docs/scale.md"], "| cores |")
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| (.*) \| (.*) \| (.*) \| (.*) \|$`).FindAllStringSubmatch(rest, -1)
	for _, row := range rows {
		checks := number(row[1]) / perCheck
		for i, want := range []float64{checks, checks * 2 * shorter, checks * 20 * shorter, checks * 20 * shorter * octets} {
			if got := number(row[2+i]); got < 0.93*want || got > 1.07*want {
				t.Errorf("%s cores: %s, want %g", row[1], row[2+i], want)
			}
		}
	}
	if len(rows) != 3 {
		t.Errorf("%d rows, want 3", len(rows))
	}
}

// The metrics that pages name, with their labels and the values of these, are those that are explained.
func TestPageMetrics(t *testing.T) {
	item := regexp.MustCompile("^`(coredns_shaker_[a-z_]+)\\{([a-z, ]*)\\}` - (.*)$")
	labels, texts := make(map[string]string), make(map[string]string)
	for _, b := range metricBullets(t) {
		if match := item.FindStringSubmatch(b); match != nil {
			labels[match[1]], texts[match[1]] = match[2], match[3]
		}
	}
	named := regexp.MustCompile(`(coredns_shaker_[a-z_]+)(?:\{([a-z_]+)="([^"]*)"\})?`)
	for path, text := range pages(t) {
		for _, match := range named.FindAllStringSubmatch(text, -1) {
			metric := match[1]
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, ok := strings.CutSuffix(metric, suffix); ok && strings.HasSuffix(base, "_seconds") {
					metric = base
				}
			}
			switch all, ok := labels[metric]; {
			case !ok:
				t.Errorf("%s: there is no metric %s", path, match[1])
			case match[2] != "" && (!strings.Contains(all, match[2]) || !strings.Contains(texts[metric], "`"+match[3]+"`")):
				t.Errorf("%s: %s has no label %s with the value %q", path, metric, match[2], match[3])
			}
		}
	}
}

// The alerts that pages name exist.
func TestPageAlerts(t *testing.T) {
	rules, named := readFile(t, "monitoring/alerts.yml"), 0
	for path, text := range pages(t) {
		for _, match := range regexp.MustCompile(`\| (Shaker[A-Z]\w+) \|`).FindAllStringSubmatch(text, -1) {
			named++
			if !strings.Contains(rules, "- alert: "+match[1]+"\n") {
				t.Errorf("%s: there is no alert %s", path, match[1])
			}
		}
	}
	if named == 0 {
		t.Error("no page names an alert")
	}
}

// The tests that pages name exist.
func TestPageTests(t *testing.T) {
	var sources strings.Builder
	for _, file := range filesOf(t, "_test.go") {
		sources.WriteString(readFile(t, file))
	}
	for path, text := range pages(t) {
		for _, name := range regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(text, -1) {
			if !strings.Contains(sources.String(), "func "+name+"(") {
				t.Errorf("%s: there is no %s", path, name)
			}
		}
	}
}

// The lines of the log that pages show, in blocks in "log", are made by this code.
func TestPageLogLines(t *testing.T) {
	formats := logFormats(t)
	blocks := regexp.MustCompile("(?s)```log\n(.*?)```")
	prefix := regexp.MustCompile(`^\[(DEBUG|INFO|WARNING|ERROR)\] plugin/shaker: `)
	lines := 0
	for path, text := range pages(t) {
		for _, block := range blocks.FindAllStringSubmatch(text, -1) {
			for line := range strings.Lines(block[1]) {
				lines++
				line = strings.TrimSuffix(line, "\n")
				message := prefix.ReplaceAllString(line, "")
				made := false
				for _, f := range formats {
					made = made || f.MatchString(message)
				}
				if !made || message == line {
					t.Errorf("%s: nothing logs %q", path, line)
				}
			}
		}
	}
	if lines == 0 {
		t.Error("no page shows a line of the log")
	}
}

// logFormats returns expressions for all formats in the sources that have enough text to tell them apart.
func logFormats(t *testing.T) (formats []*regexp.Regexp) {
	t.Helper()
	verb := regexp.MustCompile(`%[-+#.0-9]*[a-z]`)
	maker := regexp.MustCompile(`^(?:Debug|Info|Warning|Error|Sprint)f?$`)
	for _, file := range filesOf(t, ".go") {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "cmd/") || strings.HasPrefix(file, "tools/") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || !maker.MatchString(f.Sel.Name) {
				return true
			}
			for _, arg := range call.Args {
				format := literal(arg)
				if len(verb.ReplaceAllString(format, "")) < 10 {
					continue
				}
				parts := verb.Split(format, -1)
				for i := range parts {
					parts[i] = regexp.QuoteMeta(parts[i])
				}
				formats = append(formats, regexp.MustCompile("^"+strings.Join(parts, ".*")+"$"))
			}
			return true
		})
	}
	return formats
}

// literal returns the value of a string that may be put together of several.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	default:
		return ""
	}
}

// The numbers in docs/security.md are those of the code.
func TestPageSecurityNumbers(t *testing.T) {
	p := defaultPolicy()
	lab.ExpectWords(t, "docs/security.md",
		fmt.Sprintf("%.0f with the defaults", p.idle.Seconds()/(0.9*p.settings.Interval.Seconds())),
		fmt.Sprintf("no more than %d wait", maxHeld),
		fmt.Sprintf("The default of %d is for", defaultRate),
		fmt.Sprintf("once in %.0f minutes", quiet.Minutes()),
		fmt.Sprintf("%d changes of state a second", linesPerSecond),
	)
	lab.ExpectWords(t, "docs/peers.md", fmt.Sprintf("Default: %d, from 1 to %d", defaultObservers, maxObservers))
	lab.ExpectWords(t, "docs/troubleshooting.md", fmt.Sprintf("When %d of such queries are under way", maxLookups))
	lab.ExpectWords(t, "README.md", fmt.Sprintf("more than %d in a minute are summed up", linesPerMinute))
	lab.ExpectWords(t, "docs/status.md", fmt.Sprintf("none of more than %d octets", maxNamed))
}

// The numbers in docs/checks.md and docs/intervals.md that decide about a freeze are those of the README, which package
// health checks against its own.
func TestPageFreeze(t *testing.T) {
	for _, p := range readmeProperties(readReadme(t)) {
		if p.words[0] != "freeze" {
			continue
		}
		match := regexp.MustCompile("at least (\\d+) hosts, on more than one network \\((/\\d+) or (/\\d+)\\).* Default: `(\\d+) (\\d+)m`").
			FindStringSubmatch(p.text)
		if match == nil {
			t.Fatalf("no numbers in %q", p.text)
		}
		least, net4, net6, percent, minutes := match[1], match[2], match[3], match[4], match[5]
		lab.ExpectWords(t, "docs/checks.md", "At least "+least+" hosts have fallen silent.",
			"on more than one network, which is a "+net4+" or a "+net6, "at least "+percent+" % of all hosts",
			"After "+minutes+" minutes a freeze is over", "Fewer than "+least+" hosts are never frozen",
			percent+" % and "+minutes+" minutes by default")
		lab.ExpectWords(t, "docs/intervals.md", "At least "+least+" hosts on two networks have to be silent",
			"Fewer than "+least+", or all in one "+net4+" or "+net6)
		return
	}
	t.Fatal("the README does not explain freeze")
}

// Go code that README.md and docs show is code of this file or of the examples, which compiles.
func TestPageCode(t *testing.T) {
	unindented := func(code string) string {
		lines := strings.Split(strings.TrimSpace(code), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		return strings.Join(lines, "\n")
	}
	source := unindented(readFile(t, "docs_test.go")) + unindented(readFile(t, "example_test.go"))
	blocks := 0
	for path := range pages(t) {
		if path != "README.md" && !strings.HasPrefix(path, "docs/") {
			continue // a package has its own examples
		}
		for _, f := range readPage(t, path).fences {
			if f.language != "go" {
				continue
			}
			blocks++
			if !strings.Contains(source, unindented(f.text)) {
				t.Errorf("%s:%d: code that was not compiled:\n%s", path, f.line, f.text)
			}
			if formatted, err := format.Source([]byte(f.text)); err != nil || string(formatted) != f.text {
				t.Errorf("%s:%d: not formatted (%v)", path, f.line, err)
			}
		}
	}
	if blocks == 0 {
		t.Error("no page shows Go code")
	}
}

var _ = ownMain

// ownMain is in docs/building.md.
func ownMain() {
	cache := slices.Index(dnsserver.Directives, "cache")
	dnsserver.Directives = slices.Insert(slices.Clone(dnsserver.Directives), cache, "shaker")
	coremain.Run()
}

// shippedDirectives is the order of the plugins in the CoreDNS that is linked, before any test changes it.
var shippedDirectives = slices.Clone(dnsserver.Directives)

// Where pages say that a plugin is above or below shaker, CoreDNS has it there. shaker is right before cache.
func TestPageNeighbours(t *testing.T) {
	const page = "docs/neighbours.md"
	about := regexp.MustCompile(`order of CoreDNS v(\S+),`).FindStringSubmatch(readFile(t, page))
	if about == nil {
		t.Fatalf("%s does not name the CoreDNS that it is about", page)
	}
	if about[1] != coremain.CoreVersion {
		t.Skipf("the pages are about CoreDNS %s, and this is %s", about[1], coremain.CoreVersion)
	}
	cache := slices.Index(shippedDirectives, "cache")
	order := map[string][]string{"above": shippedDirectives[:cache], "below": shippedDirectives[cache:]}
	plugin := regexp.MustCompile(`\*([a-z0-9_]+)\*`)
	named := func(text string) (names []string) {
		for _, match := range plugin.FindAllStringSubmatch(text, -1) {
			names = append(names, match[1])
		}
		return names
	}
	expect := func(path, text, side string) {
		t.Helper()
		for _, name := range named(text) {
			if !slices.Contains(order[side], name) {
				t.Errorf("%s: %s is not %s shaker", path, name, side)
			}
		}
	}

	lists := 0
	for _, item := range readPage(t, page).bullets("") {
		side, list, _ := strings.Cut(item, ": ")
		side = strings.ToLower(side)
		if got := named(list); !slices.Equal(got, order[side]) {
			t.Errorf("%s has %s shaker\n%q, want\n%q", page, side, got, order[side])
		}
		lists++
	}
	rows := regexp.MustCompile(`(?m)^\| ([^|]*) \| (above|below) \|`).FindAllStringSubmatch(readFile(t, page), -1)
	for _, row := range rows {
		expect(page, row[1], row[2])
	}
	if lists != 2 || len(rows) == 0 {
		t.Errorf("%s has %d lists and %d rows of a table", page, lists, len(rows))
	}
	aside := regexp.MustCompile(`((?:\*[a-z0-9_]+\*(?:, | and )?)+), which (?:is|are) (above|below)`)
	asides := 0
	for path, text := range pages(t) {
		for _, match := range aside.FindAllStringSubmatch(strings.Join(strings.Fields(text), " "), -1) {
			expect(path, match[1], match[2])
			asides++
		}
	}
	if asides == 0 {
		t.Error("no page says in a sentence that a plugin is above or below")
	}
}
