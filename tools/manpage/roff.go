package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	tables "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// source is a page in Markdown.
type source struct {
	path     string // from the root of the repository
	markdown []byte
}

// render returns the page without its title line. The section Name comes first, because a manual page is found by it.
// The chapters come before the examples, each as a section, and then what the README has above its name, but for its
// title, and but for the sections that the page is to be without.
func render(readme source, without []string, chapters []source) ([]byte, error) {
	p := page{here: map[string]bool{readme.path: true}}
	for _, c := range chapters {
		p.here[c.path] = true
	}
	// No hyphens that are not in the text, neither at once nor when groff begins a paragraph, and no wide gaps.
	p.line(".nh\n.nr HY 0\n.ad l")
	p.source, p.section = readme, 2
	reference, start, examples, err := p.split(readme.parse())
	if err != nil {
		return nil, err
	}
	p.blocks(reference, 0)
	for _, c := range chapters {
		p.source, p.section = c, 1
		p.blocks(children(c.parse()), 0)
	}
	p.source, p.section = readme, 2
	for _, name := range without {
		if start, err = p.drop(start, name); err != nil {
			return nil, err
		}
	}
	p.blocks(start, 0)
	p.blocks(examples, 0)
	return []byte(p.out.String()), errors.Join(p.unknown...)
}

func (s source) parse() ast.Node {
	return goldmark.New(goldmark.WithExtensions(extension.Table)).Parser().Parse(text.NewReader(s.markdown))
}

type page struct {
	source                  // that is being rendered
	section int             // the level of its headings that begin a section
	here    map[string]bool // the sources that the page has, by path
	out     strings.Builder
	unknown []error // what cannot be rendered
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

func children(parent ast.Node) (nodes []ast.Node) {
	for node := parent.FirstChild(); node != nil; node = node.NextSibling() {
		nodes = append(nodes, node)
	}
	return nodes
}

// split returns the parts of a README: from the section Name on, above it without the title, and from the examples on.
func (p *page) split(document ast.Node) (reference, start, examples []ast.Node, err error) {
	nodes := children(document)
	name := slices.IndexFunc(nodes, func(n ast.Node) bool { return p.isSection(n, "Name") })
	if name < 0 {
		return nil, nil, nil, fmt.Errorf("%s: there is no section Name", p.path)
	}
	reference = nodes[name:]
	i := slices.IndexFunc(reference, func(n ast.Node) bool { return p.isSection(n, "Examples") })
	if i < 0 {
		return nil, nil, nil, fmt.Errorf("%s: there is no section Examples after Name", p.path)
	}
	reference, examples = reference[:i], reference[i:]
	// The title has the text up to the first section.
	start = nodes[:name]
	i = slices.IndexFunc(start, func(n ast.Node) bool { return isHeading(n, 2) })
	if i < 0 {
		i = len(start)
	}
	return reference, start[i:], examples, nil
}

// drop returns the nodes without those of a section of the second level.
func (p *page) drop(nodes []ast.Node, name string) ([]ast.Node, error) {
	i := slices.IndexFunc(nodes, func(n ast.Node) bool { return p.isSection(n, name) })
	if i < 0 {
		return nil, fmt.Errorf("%s: there is no section %s above Name", p.path, name)
	}
	end := i + 1
	for end < len(nodes) && !isHeading(nodes[end], 2) {
		end++
	}
	return slices.Concat(nodes[:i], nodes[end:]), nil
}

func isHeading(node ast.Node, level int) bool {
	h, ok := node.(*ast.Heading)
	return ok && h.Level == level
}

func (p *page) isSection(node ast.Node, name string) bool {
	return isHeading(node, 2) && p.heading(node.(*ast.Heading)) == name
}

func (p *page) heading(h *ast.Heading) string { return string(h.Lines().Value(p.markdown)) }

// blocks renders nodes that are in so many lists.
func (p *page) blocks(nodes []ast.Node, lists int) {
	for _, node := range nodes {
		switch n := node.(type) {
		case *ast.Heading:
			if n.Level <= p.section {
				p.line(".SH %s", escape(strings.ToUpper(p.heading(n))))
			} else {
				p.line(".SS %s", escape(p.heading(n)))
			}
		case *ast.Paragraph, *ast.TextBlock:
			p.begin(n, lists)
			p.line("%s", protect(p.inline(n)))
		case *ast.FencedCodeBlock:
			p.begin(n, lists)
			// A table leaves its tab stops behind.
			code := strings.ReplaceAll(string(n.Lines().Value(p.markdown)), "\t", "    ")
			p.line(".RS 4\n.EX\n%s.EE\n.RE", protect(escape(code)))
		case *ast.List:
			if n.IsOrdered() {
				p.cannot("numbered list")
			}
			if lists > 0 {
				p.line(".RS 2")
			}
			p.blocks(children(n), lists+1)
			if lists > 0 {
				p.line(".RE")
			}
		case *ast.ListItem:
			p.line(`.IP \(bu 2`)
			p.blocks(children(n), lists)
		case *tables.Table:
			p.begin(n, lists)
			p.table(n)
		default:
			p.cannot(n.Kind().String())
		}
	}
}

// begin makes the space above a block. After a heading, a bullet or a table there is some already.
func (p *page) begin(node ast.Node, lists int) {
	switch previous := node.PreviousSibling(); {
	case previous == nil || previous.Kind() == ast.KindHeading || previous.Kind() == tables.KindTable:
	case lists > 0:
		p.line(`.IP "" 2`)
	default:
		p.line(".PP")
	}
}

func (p *page) cannot(what string) {
	p.unknown = append(p.unknown, fmt.Errorf("%s: %s: there is no rule how to render it", p.path, what))
}

// inline renders what is in a paragraph or a cell.
func (p *page) inline(parent ast.Node) string {
	var s string
	for node := parent.FirstChild(); node != nil; node = node.NextSibling() {
		switch n := node.(type) {
		case *ast.Text:
			value := n.Value(p.markdown)
			if !n.IsRaw() {
				value = util.UnescapePunctuations(value)
			}
			s += escape(string(value))
			if n.SoftLineBreak() {
				s += "\n"
			}
			if n.HardLineBreak() {
				p.cannot("line break")
			}
		case *ast.CodeSpan:
			s += `\fB` + p.inline(n) + `\fP`
		case *ast.Emphasis:
			s += `\f` + string("?IB"[n.Level]) + p.inline(n) + `\fP`
		case *ast.Link:
			s += p.inline(n)
			if to := escape(p.target(string(n.Destination))); to != "" && to != p.inline(n) {
				s += ` \[la]` + strings.ReplaceAll(to, "/", `/\:`) + `\[ra]` // may be broken there
			}
		default:
			p.cannot(n.Kind().String())
		}
	}
	return s
}

// target returns where a link leads: to an address, or to a file by its path from the root of the repository. It is empty
// where the link leads to this page, because there it is text like any other.
func (p *page) target(destination string) string {
	if strings.Contains(destination, "://") {
		return destination
	}
	file, _, _ := strings.Cut(destination, "#")
	if file == "" {
		return ""
	}
	file = path.Join(path.Dir(p.path), file)
	if p.here[file] {
		return ""
	}
	return file
}

// short is how wide a column can be that does not wrap its cells.
const short = 24

// table wraps the cells of wide columns. The widest has what the others leave of the line.
func (p *page) table(table ast.Node) {
	var rows [][]string
	var widths []int
	widest := 0
	for row := table.FirstChild(); row != nil; row = row.NextSibling() {
		var cells []string
		for cell := row.FirstChild(); cell != nil; cell = cell.NextSibling() {
			s := p.inline(cell)
			if row.Kind() == tables.KindTableHeader {
				s = `\fB` + s + `\fP`
			}
			column := len(cells)
			cells = append(cells, s)
			if column == len(widths) {
				widths = append(widths, 0)
			}
			if widths[column] = max(widths[column], len(s)); widths[column] > widths[widest] {
				widest = column
			}
		}
		rows = append(rows, cells)
	}
	var formats []string
	for column, width := range widths {
		switch {
		case width <= short:
			formats = append(formats, "l")
		case column == widest:
			formats = append(formats, "lx")
		default:
			formats = append(formats, fmt.Sprintf("lw(%dn)", short))
		}
	}
	p.line(".TS\nallbox;\n%s.", strings.Join(formats, " "))
	for _, cells := range rows {
		for column := range cells {
			if widths[column] > short {
				cells[column] = "T{\n" + protect(cells[column]) + "\nT}"
			}
		}
		p.line("%s", strings.Join(cells, "\t"))
	}
	p.line(".TE\n.sp 2")
}

// escape keeps characters what they are: ASCII ones would become hyphens, quotes and accents, others depend on a locale.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '`':
			b.WriteString(`\(ga`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r > 0x7e:
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// protect keeps lines from being requests.
func protect(lines string) string {
	lines = strings.ReplaceAll("\n"+lines, "\n.", "\n\\&.")
	return lines[1:]
}
