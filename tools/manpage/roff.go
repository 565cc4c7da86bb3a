package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	tables "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// render returns the page without its title line. The section Name comes first, because a manual page is found by it;
// what the README has above it, but for its title, comes before the examples.
func render(markdown []byte) ([]byte, error) {
	document := goldmark.New(goldmark.WithExtensions(extension.Table)).Parser().Parse(text.NewReader(markdown))
	p := page{markdown: markdown}
	if err := p.reorder(document); err != nil {
		return nil, err
	}
	// No hyphens that are not in the text, neither at once nor when groff begins a paragraph, and no wide gaps.
	p.line(".nh\n.nr HY 0\n.ad l")
	p.blocks(document, 0)
	return []byte(p.out.String()), errors.Join(p.unknown...)
}

type page struct {
	markdown []byte
	out      strings.Builder
	unknown  []error // what cannot be rendered
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

// reorder moves the sections of the document.
func (p *page) reorder(document ast.Node) error {
	var before []ast.Node
	node := document.FirstChild()
	for ; !p.isSection(node, "Name"); node = node.NextSibling() {
		if node == nil {
			return errors.New("there is no section Name")
		}
		before = append(before, node)
	}
	for ; !p.isSection(node, "Examples"); node = node.NextSibling() {
		if node == nil {
			return errors.New("there is no section Examples after Name")
		}
	}
	title := true
	for _, b := range before {
		if h, ok := b.(*ast.Heading); ok {
			title = h.Level == 1
		}
		if title {
			document.RemoveChild(document, b)
		} else {
			document.InsertBefore(document, node, b)
		}
	}
	return nil
}

func (p *page) isSection(node ast.Node, name string) bool {
	h, ok := node.(*ast.Heading)
	return ok && h.Level == 2 && p.heading(h) == name
}

func (p *page) heading(h *ast.Heading) string { return string(h.Lines().Value(p.markdown)) }

// blocks renders the children of a node that is in so many lists.
func (p *page) blocks(parent ast.Node, lists int) {
	for node := parent.FirstChild(); node != nil; node = node.NextSibling() {
		switch n := node.(type) {
		case *ast.Heading:
			if n.Level == 2 {
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
			p.blocks(n, lists+1)
			if lists > 0 {
				p.line(".RE")
			}
		case *ast.ListItem:
			p.line(`.IP \(bu 2`)
			p.blocks(n, lists)
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
	p.unknown = append(p.unknown, fmt.Errorf("%s: there is no rule how to render it", what))
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
			// A link within the page is text like any other.
			if to := escape(string(n.Destination)); to != p.inline(n) && !strings.HasPrefix(to, "#") {
				s += ` \[la]` + strings.ReplaceAll(to, "/", `/\:`) + `\[ra]` // may be broken there
			}
		default:
			p.cannot(n.Kind().String())
		}
	}
	return s
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
