package shaker

import (
	"encoding/xml"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const comparePage = "docs/compare.md"

// tableUnder returns the rows of the only table under a heading of the second level, the head first and without the
// line below it.
func tableUnder(t *testing.T, page, heading string) (rows [][]string) {
	t.Helper()
	for _, line := range readPage(t, page).prose[heading] {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 2 {
		t.Fatalf("%s has no table under %q", page, heading)
	}
	for _, row := range rows {
		if len(row) != len(rows[0]) {
			t.Errorf("%s: %q has %d cells, want %d", page, row, len(row), len(rows[0]))
		}
	}
	return rows
}

// testNames returns the names of all tests of this repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, file := range filesOf(t, "_test.go") {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

// Each "yes" of shaker has tests, which exist, and nothing else has.
func TestCompareTests(t *testing.T) {
	proofs := make(map[string]string)
	for _, row := range tableUnder(t, comparePage, "Tests")[1:] {
		proofs[row[0]] = row[1]
	}
	names := testNames(t)
	for _, row := range tableUnder(t, comparePage, "In detail")[1:] {
		what, own := row[0], row[1]
		tests, ok := proofs[what]
		delete(proofs, what)
		if isYes := strings.HasPrefix(own, "yes"); isYes != ok {
			t.Errorf("%s: shaker has %q, and tests are named: %v", what, own, ok)
		}
		if !ok {
			continue
		}
		for test := range strings.SplitSeq(tests, ", ") {
			if !names[test] {
				t.Errorf("%s: there is no %q", what, test)
			}
		}
	}
	for what := range proofs {
		t.Errorf("Tests has %q, which is not in the table above", what)
	}
}

// Each word about another has a page that says so, of that software or of the distribution, and each page is there for
// a word.
func TestComparePages(t *testing.T) {
	used := make(map[string]bool)
	for _, b := range readPage(t, comparePage).bullets("Pages") {
		key, _, _ := strings.Cut(b, ":")
		used[key] = false
	}
	cell := regexp.MustCompile(`^.+ \(([A-Z]\d+(?:, [A-Z]\d+)*)\)$`)
	rows := tableUnder(t, comparePage, "In detail")
	letters := map[string]string{"PowerDNS Lua": "PD", "gdnsd": "GD", "CoreDNS-GSLB": "CD", "SmartDNS": "SD", "dnsdist": "XD"}
	for _, row := range rows[1:] {
		for i, text := range row[2:] {
			if text == "not documented" {
				continue
			}
			other := rows[0][2+i]
			match := cell.FindStringSubmatch(text)
			if match == nil {
				t.Errorf("%s: what %s has to do with it, %q, names no page", row[0], other, text)
				continue
			}
			for key := range strings.SplitSeq(match[1], ", ") {
				if _, ok := used[key]; !ok || !strings.Contains(letters[other], key[:1]) {
					t.Errorf("%s: %s is no page about %s", row[0], key, other)
				}
				used[key] = true
			}
		}
	}
	for key, isUsed := range used {
		if !isUsed {
			t.Errorf("nothing is said after %s", key)
		}
	}
}

// The README has some of the rows, with the same words.
func TestCompareReadme(t *testing.T) {
	const most = 12
	pages := regexp.MustCompile(` \([A-Z]\d+(, [A-Z]\d+)*\)$`)
	var want [][]string
	for _, row := range tableUnder(t, comparePage, "In detail") {
		for i, text := range row {
			if row[i] = pages.ReplaceAllString(text, ""); text == "not documented" {
				row[i] = "–"
			}
		}
		want = append(want, row)
	}
	got := tableUnder(t, "README.md", "Compared with others")
	if len(got)-1 > most {
		t.Errorf("README.md compares by %d rows, want %d at most", len(got)-1, most)
	}
	for _, row := range got {
		if !slices.ContainsFunc(want, func(w []string) bool { return slices.Equal(w, row) }) {
			t.Errorf("README.md has %q, and %s does not", row, comparePage)
		}
	}
	if !slices.Equal(got[0], want[0]) {
		t.Errorf("README.md compares %q, want %q", got[0], want[0])
	}
}

// The picture is one file that runs nothing, needs no other, and has colours for dark pages. Who cannot see it has a text.
func TestPicture(t *testing.T) {
	const picture = "docs/picture.svg"
	text := readFile(t, picture)
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if !slices.Contains([]string{"svg", "title", "style", "rect", "path", "text"}, e.Name.Local) {
			t.Errorf("%s has an element %q", picture, e.Name.Local)
		}
		for _, a := range e.Attr {
			if a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on") {
				t.Errorf("%s: %s has %s=%q", picture, e.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
	for _, word := range []string{"url(", "@import", "@font-face"} {
		if strings.Contains(text, word) {
			t.Errorf("%s has %q", picture, word)
		}
	}
	if !strings.Contains(text, "@media (prefers-color-scheme: dark)") {
		t.Errorf("%s has no colours for dark pages", picture)
	}
	match := regexp.MustCompile(`!\[([^]]+)\]\(` + regexp.QuoteMeta(picture) + `\)`).FindStringSubmatch(readFile(t, "README.md"))
	if match == nil || len(strings.Fields(match[1])) < 20 {
		t.Errorf("README.md does not tell what %s shows: %q", picture, match)
	}
}
