package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const outline = "# plugin\n\nThe title.\n\n## Start\n\nSoon.\n\n## Name\n\n*plugin* - text.\n\n## Examples\n\nMany.\n"

// renderText renders a README that is alone.
func renderText(markdown string) ([]byte, error) {
	return render(source{"README.md", []byte(markdown)}, nil, nil)
}

// Chapters come before what the README has above its name. Links between what is in the page are text, others say where
// they lead from the root of the repository.
func TestChapters(t *testing.T) {
	readme := strings.Replace(outline, "Soon.", "[One](docs/one.md#e), [three](docs/three.md#f).", 1)
	got, err := render(source{"README.md", []byte(readme)}, nil, []source{
		{"docs/one.md", []byte("# One\n\nA\n\n## Deep\n\n[R](../README.md#start), [2](two.md#g), [3](three.md), [4](../four)\n")},
		{"docs/two.md", []byte("# Two\n\nB\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := ".nh\n.nr HY 0\n.ad l\n.SH NAME\n\\fIplugin\\fP \\- text.\n" +
		".SH ONE\nA\n.SS Deep\nR, 2, 3 \\[la]docs/\\:three.md\\[ra], 4 \\[la]four\\[ra]\n.SH TWO\nB\n" +
		".SH START\nOne, three \\[la]docs/\\:three.md\\[ra].\n.SH EXAMPLES\nMany.\n"
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	_, err = render(source{"README.md", []byte(outline)}, nil, []source{{"docs/one.md", []byte("# One\n\n1. a\n")}})
	if err == nil || !strings.Contains(err.Error(), "docs/one.md: numbered list") {
		t.Errorf("got %v, want an error with the page and what is wrong with it", err)
	}
}

func TestRender(t *testing.T) {
	const head = ".nh\n.nr HY 0\n.ad l\n.SH NAME\n"
	for _, tt := range []struct{ name, text, want string }{
		{"paragraphs", "One\n'two'.\n\n.Three", "One\n\\(aqtwo\\(aq.\n.PP\n\\&.Three\n"},
		{"fonts", "*a* **b** `c-d`", "\\fIa\\fP \\fBb\\fP \\fBc\\-d\\fP\n"},
		{"characters", "a\\\\b\\*`c\\*`^~ 2 × 3", "a\\eb*\\fBc\\e*\\fP\\(ha\\(ti 2 \\[u00D7] 3\n"},
		{"code", "A\n```sh\n.ci/run\t`x`\n\n```", "A\n.PP\n.RS 4\n.EX\n\\&.ci/run    \\(gax\\(ga\n\n.EE\n.RE\n"},
		{"headings", "A\n\n### b\n\nC\n\n## d's", "A\n.SS b\nC\n.SH D\\(aqS\n"},
		{"list", "* a\n* b\n\n  c\n* d", ".IP \\(bu 2\na\n.IP \\(bu 2\nb\n.IP \"\" 2\nc\n.IP \\(bu 2\nd\n"},
		{"list in a list", "* a\n  * b\n\n  c\n\nd", ".IP \\(bu 2\na\n.RS 2\n.IP \\(bu 2\nb\n.RE\n.IP \"\" 2\nc\n.PP\nd\n"},
		{"links", "[a](#b), [c](c), [d](https://e), [f](./g.md#h)", "a, c, d \\[la]https:/\\:/\\:e\\[ra], f \\[la]g.md\\[ra]\n"},
		{"narrow table", "|a|b|\n|-|-|\n|c|d|\n\nE", ".TS\nallbox;\nl l.\n\\fBa\\fP\t\\fBb\\fP\nc\td\n.TE\n.sp 2\nE\n"},
		{"wide table", "|a|b|\n|-|-|\n|" + strings.Repeat("c", 30) + "|" + strings.Repeat("d", 40) + "|",
			".TS\nallbox;\nlw(24n) lx.\nT{\n\\fBa\\fP\nT}\tT{\n\\fBb\\fP\nT}\nT{\n" + strings.Repeat("c", 30) + "\nT}\tT{\n" +
				strings.Repeat("d", 40) + "\nT}\n.TE\n.sp 2\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := renderText(strings.Replace(outline, "*plugin* - text.", tt.text, 1))
			if err != nil {
				t.Fatal(err)
			}
			want := head + tt.want + ".SH START\nSoon.\n.SH EXAMPLES\nMany.\n"
			if string(got) != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Of what is above the name, the page is without the sections that are named, with all that is in them. A picture may be
// above the first section, which the page does not have.
func TestWithout(t *testing.T) {
	const above = "![A](a.svg)\n\n## Start\n\nSoon.\n\n## Choose\n\n![B](b.svg)\n\n### Deep\n\nText.\n\n## Last\n\nLater.\n"
	readme := source{"README.md", []byte(strings.Replace(outline, "## Start\n\nSoon.\n", above, 1))}
	got, err := render(readme, []string{"Choose"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := ".nh\n.nr HY 0\n.ad l\n.SH NAME\n\\fIplugin\\fP \\- text.\n.SH START\nSoon.\n.SH LAST\nLater.\n.SH EXAMPLES\nMany.\n"
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, name := range []string{"Other", "Deep", "Examples"} {
		if _, err := render(readme, []string{name}, nil); err == nil || !strings.Contains(err.Error(), "no section "+name) {
			t.Errorf("without %s: got %v, want an error that names it", name, err)
		}
	}
}

// Nothing is left out without a word.
func TestWhatCannotBeRendered(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"picture", "Soon.", "![a](b.png)", "Image"},
		{"HTML", "Soon.", "<p>a</p>", "HTMLBlock"},
		{"numbered list", "Soon.", "1. a", "numbered list"},
		{"line break", "Soon.", "a  \nb", "line break"},
		{"quotation", "Soon.", "> a", "Blockquote"},
		{"no name", "## Name", "## Names", "no section Name"},
		{"no examples", "## Examples", "## Example", "no section Examples"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := renderText(strings.Replace(outline, tt.old, tt.new, 1)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// A page is as old as its text.
func TestDate(t *testing.T) {
	root, page := t.TempDir(), filepath.Join(t.TempDir(), "coredns-plugin.7")
	const readme, more = "README.md", "more.md"
	first, second := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC), time.Date(2002, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, tt := range []struct {
		name, text, chapter string
		today               time.Time
		want                string
	}{
		{"new", outline, "# More\n", first, "2001-02-03"},
		{"same text", outline, "# More\n", second, "2001-02-03"},
		{"other chapter", outline, "# More\n\nText.\n", second, "2002-03-04"},
		{"same text again", outline, "# More\n\nText.\n", first, "2002-03-04"},
		{"other text", outline + "More.\n", "# More\n\nText.\n", first, "2001-02-03"},
	} {
		for path, text := range map[string]string{readme: tt.text, more: tt.chapter} {
			if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := (manual{readme, nil, []string{more}, "Some Thing", "Its Manual"}).generate(root, page, tt.today); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(got), ".\\\" Made of README.md and docs by tools/manpage.\n.TH coredns-plugin 7 "+tt.want+" Some Thing \"Its Manual\"\n") {
			t.Errorf("%s: got\n%s\nwant the date %s", tt.name, got, tt.want)
		}
	}
	if err := (manual{readme: readme, chapters: []string{"none.md"}}).generate(root, page, second); err == nil {
		t.Error("no error without a chapter")
	}
}
