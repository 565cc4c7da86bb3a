package test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// axeEnv names a file of axe-core, a program that looks for what keeps people from using a page. Without it, the file is
// looked for where `npm ci` puts it.
const axeEnv = "SHAKER_AXE"

// axeProgram returns axe-core.
func axeProgram(t *testing.T) string {
	t.Helper()
	path := os.Getenv(axeEnv)
	if path == "" {
		path = filepath.Join("axe", "node_modules", "axe-core", "axe.min.js")
	}
	program, err := os.ReadFile(path)
	if err != nil {
		lab.Skip(t, fmt.Errorf("%w; fetch it: npm ci --ignore-scripts --prefix test/axe", err))
	}
	return string(program)
}

// shownPages are pages with all that may be on them. Those of the list at the top of each page are found by themselves.
var shownPages = []string{
	"/?state=down",
	"/?size=4&page=2",
	"/?port=1",
	"/?zone=" + strings.Repeat("a", 500),
	"/target?address=ALIVE&port=443&settings=SETTINGS",
	"/target?address=SILENT&port=443",
	"/target?address=SILENT&port=5432",
	"/target?address=ALIVE&port=443", // several to choose from
	"/target?address=192.0.2.1&port=1",
	"/target",
	"/events?kind=down",
	"/events?kind=nonsense",
	"/explain?name=www.shop.example",
	"/explain?name=db.shop.example",
	"/explain?name=nowhere.example.net",
}

// inspected is a server with the pages that are to be looked at, and a browser to do it.
type inspected struct {
	*browser
	name  string
	url   string
	pages []string
}

// inspect starts a server with targets in all states.
func inspect(t *testing.T, l *lab.Lab) *inspected {
	page := local(t)
	p := &inspected{browser: startBrowser(t), name: "page", url: "http://" + page}
	few := newShop(l)
	unknown := madeUpNames[:2] // there is no way to their addresses
	s := few.serve(t, 1000, page, unknown...)
	s.askTCP("www.other.example.", dns.TypeA) // the same targets, checked in another way
	alive, silent := few.names["www.shop.example."][0], few.names["images.shop.example."][3]
	lab.Until(t, "a verdict on each other target", func() bool { return countsAt(t, page).Unknown == 2*len(unknown) })
	same := statusOf(t, page, "port=443&prefix="+alive.String()).Targets
	if len(same) != 2 {
		t.Fatalf("%v is %d targets, want 2", alive, len(same))
	}
	p.followRooms()
	for _, path := range shownPages {
		name, _, _ := strings.Cut(path, "?")
		if name == "/target" || slices.Contains(p.pages, name) {
			path = strings.NewReplacer("ALIVE", alive.String(), "SILENT", silent.String(), "SETTINGS", url.QueryEscape(same[0].Settings)).Replace(path)
			p.pages = append(p.pages, path)
		}
	}
	return p
}

// followRooms finds the pages that the top of each page leads to, from the first one on.
func (p *inspected) followRooms() {
	p.pages = []string{"/"}
	for i := 0; i < len(p.pages); i++ {
		p.open(p.url+p.pages[i], 1280, false)
		var links []string
		p.evaluate(`[...document.querySelectorAll(".rooms a")].map(a => new URL(a.href).pathname)`, &links)
		if len(links) == 0 {
			p.t.Errorf("%s leads nowhere", p.pages[i])
		}
		for _, link := range links {
			if !slices.Contains(p.pages, link) {
				p.pages = append(p.pages, link)
			}
		}
	}
}

// axeFault is one of the rules of axe-core that a page breaks, or may break.
type axeFault struct {
	ID, Help string
	Nodes    []struct{ HTML, Summary string }
}

func (f axeFault) String() string {
	text := f.ID + ": " + f.Help
	for _, n := range f.Nodes[:min(3, len(f.Nodes))] {
		text += fmt.Sprintf("\n\t%.300s\n\t%s", n.HTML, strings.ReplaceAll(n.Summary, "\n", "\n\t"))
	}
	return text
}

// findFaults runs axe-core on the page that is open. It runs in a world of its own, which sees the page and is not bound
// by the page's policy: that forbids all scripts, and goes on to do so.
func (b *browser) findFaults(axe string) (broken, unclear []axeFault) {
	b.t.Helper()
	var tree struct {
		FrameTree struct{ Frame struct{ ID string } }
	}
	b.call("Page.getFrameTree", nil, &tree)
	var world struct{ ExecutionContextID int }
	b.call("Page.createIsolatedWorld", map[string]any{"frameId": tree.FrameTree.Frame.ID, "worldName": "axe"}, &world)
	var ignored bool
	b.evaluateIn(world.ExecutionContextID, axe+"; true", &ignored)
	var found struct{ Broken, Unclear []axeFault }
	b.evaluateIn(world.ExecutionContextID, `(async () => {
		const found = await axe.run(document, {resultTypes: ["violations", "incomplete"]});
		const short = all => all.map(f => ({id: f.id, help: f.help,
			nodes: f.nodes.map(n => ({html: n.html, summary: n.failureSummary}))}));
		return {broken: short(found.violations), unclear: short(found.incomplete)};
	})()`, &found)
	return found.Broken, slices.DeleteFunc(found.Unclear, isKnown)
}

// isKnown tells whether a fault that axe-core is not sure of is none. It does not know what is behind letters in a drawing:
// nothing is, and TestPageContrast of package status has their contrast.
func isKnown(f axeFault) bool {
	for _, n := range f.Nodes {
		if f.ID != "color-contrast" || !strings.HasPrefix(n.HTML, "<text ") {
			return false
		}
	}
	return true
}

// Each page fits, and asks for nothing else. No page has anything that is known to keep people from using it, as far as a program can tell, however it is shown.
func TestLabPagesAreAccessible(t *testing.T) {
	axe := axeProgram(t)
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		p := inspect(t, l)
		p.expectAccessible(axe)
		inspectPeers(t, p.browser).expectAccessible(axe)
	})
}

// expectAccessible looks at each page in all ways.
func (p *inspected) expectAccessible(axe string) {
	for i, path := range p.pages {
		for _, width := range []int{1280, 1001, 360} {
			for _, dark := range []bool{false, true} {
				name := fmt.Sprintf("%s %.60s, %d pixels, dark %v", p.name, path, width, dark)
				p.look(p.url, view{fmt.Sprintf("%s%d-%d-%s", p.name, i, width, map[bool]string{false: "light", true: "dark"}[dark]), path, width, dark})
				broken, unclear := p.findFaults(axe)
				for _, f := range broken {
					p.t.Errorf("%s: %v", name, f)
				}
				for _, f := range unclear {
					p.t.Errorf("%s: unclear: %v", name, f)
				}
			}
		}
	}
}
