package shaker

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// pages returns the text of every page for users, by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d pages in docs (%v)", len(paths), err)
	}
	all := make(map[string]string)
	for _, path := range append(paths, "README.md", "CHANGELOG.md", "CONTRIBUTING.md") {
		all[path] = readFile(t, path)
	}
	return all
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

// Links lead somewhere, and the README leads to every page.
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
		if strings.HasPrefix(path, "docs/") && !strings.Contains(all["README.md"], "]("+path+")") {
			t.Errorf("README.md has no link to %s", path)
		}
	}
}

// What the README says on how to deploy is part of what docs/deployment.md does.
func TestPageDeployment(t *testing.T) {
	all := pages(t)
	for _, f := range readPage(t, "README.md").fences {
		if f.heading == "Deployment" && !strings.Contains(all["docs/deployment.md"], f.text) {
			t.Errorf("docs/deployment.md does not have\n%s", f.text)
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
		`CoreDNS (v\d+\.\d+\.\d+)`: `coredns/coredns (v\d+\.\d+\.\d+)`,
		`\bGo (\d+\.\d+)`:          `\ngo (\d+\.\d+)`,
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
		left[describeSettings(settings)] = true
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

// The metrics that pages name, with their labels and the values of these, are those of the README.
func TestPageMetrics(t *testing.T) {
	item := regexp.MustCompile("^`(coredns_shaker_[a-z_]+)\\{([a-z, ]*)\\}` - (.*)$")
	labels, texts := make(map[string]string), make(map[string]string)
	for _, b := range readReadme(t).bullets("Metrics") {
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

// The tests that pages name exist.
func TestPageTests(t *testing.T) {
	var sources strings.Builder
	for _, dir := range []string{".", "checker", "cmd/coredns", "health", "test"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%d tests in %s (%v)", len(files), dir, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources.Write(text)
		}
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
	packages, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	verb := regexp.MustCompile(`%[-+#.0-9]*[a-z]`)
	maker := regexp.MustCompile(`^(?:Debug|Info|Warning|Error|Sprint)f?$`)
	for _, file := range packages {
		if strings.HasSuffix(file, "_test.go") {
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
	text := strings.Join(strings.Fields(pages(t)["docs/security.md"]), " ")
	p := defaultPolicy()
	for _, want := range []string{
		fmt.Sprintf("%.0f with the defaults", p.idle.Seconds()/(0.9*p.settings.Interval.Seconds())),
		fmt.Sprintf("above %d pairs", maxPairs),
		fmt.Sprintf("no more than %d wait", maxHeld),
		fmt.Sprintf("The default of %d is for", defaultRate),
		fmt.Sprintf("once in %.0f minutes", quiet.Minutes()),
		fmt.Sprintf("%d changes of state a second", linesPerSecond),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
