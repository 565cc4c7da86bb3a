package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// press presses a key and lets go of it.
func (b *browser) press(key string) {
	b.t.Helper()
	code := map[string]int{"Tab": 9, "Enter": 13}[key]
	params := map[string]any{"type": "rawKeyDown", "key": key, "code": key, "windowsVirtualKeyCode": code}
	if key == "Enter" { // which is a character as well
		params["type"], params["text"] = "keyDown", "\r"
	}
	b.call("Input.dispatchKeyEvent", params, nil)
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code}, nil)
}

// place is something on a page that can be used, and how it looks while it has the keyboard.
type place struct {
	Index                    int // in the order of the document, -1 for none
	Name                     string
	Left, Top, Right, Bottom float64
	Outline                  string  // its style
	Width                    float64 // of the outline
	Seen                     bool    // all of it is in the window, and nothing covers it
}

// usable are all that can be used, in the order of the document.
const usable = `[...document.querySelectorAll("a[href], input:not([type=hidden]), select, textarea, button, summary")].filter(e => e.checkVisibility())`

// focus returns what has the keyboard.
func (b *browser) focus() (p place) {
	b.t.Helper()
	b.evaluate(`(() => {
		const e = document.activeElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
		const line = e.getClientRects()[0] ?? box; // a link may be broken into several
		const top = document.elementFromPoint(line.left + line.width / 2, line.top + line.height / 2);
		return {
			index: `+usable+`.indexOf(e), name: e.outerHTML.slice(0, 100),
			left: box.left + scrollX, top: box.top + scrollY, right: box.right + scrollX, bottom: box.bottom + scrollY,
			outline: style.outlineStyle, width: parseFloat(style.outlineWidth),
			seen: box.top > -1 && box.bottom < innerHeight + 1 && box.left > -1 && box.right < innerWidth + 1 && e.contains(top),
		};
	})()`, &p)
	return p
}

// comesBefore tells whether a place is read before another: it is above it and no further to the right.
func (p place) comesBefore(other place) bool {
	return p.Bottom <= other.Top && p.Left < other.Right
}

// tabThrough goes through the page that is open with the tab key, and checks that it comes by all that can be used, in the
// order in which one reads, and that one sees where one is.
func (b *browser) tabThrough(page string) {
	b.t.Helper()
	var n int
	b.evaluate(usable+`.length`, &n)
	if n < 4 {
		b.t.Errorf("%s: only %d things can be used", page, n)
	}
	var before place
	for i := range n {
		b.press("Tab")
		p := b.focus()
		switch {
		case p.Index != i:
			b.t.Fatalf("%s: after %d times Tab, it is at %d, %s", page, i+1, p.Index, p.Name)
		case p.Outline == "none" || p.Width < 2:
			b.t.Errorf("%s: nobody sees that %s has the keyboard: outline %s, %v pixels", page, p.Name, p.Outline, p.Width)
		case !p.Seen:
			b.t.Errorf("%s: %s has the keyboard and is not to be seen", page, p.Name)
		case i > 1 && p.comesBefore(before): // the first one leads to the content, and shows only while it has the keyboard
			b.t.Errorf("%s: %s comes after %s, and is above it", page, p.Name, before.Name)
		}
		before = p
	}
	b.press("Tab")
	if p := b.focus(); p.Index > 0 { // it leaves the page, or begins anew
		b.t.Errorf("%s: after the last, it is at %d, %s", page, p.Index, p.Name)
	}
}

// still is the page without being loaded again.
func still(path string) string {
	if strings.Contains(path, "?") {
		return path + "&refresh=0"
	}
	return path + "?refresh=0"
}

// Each page can be used without a mouse.
func TestLabPagesByKeyboard(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		p := inspect(t, l)
		p.call("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}, nil)
		p.expectUsable()
		inspectPeers(t, p.browser).expectUsable()
		p.open(p.url+"/?refresh=0", 1280, false)
		var begun bool
		p.evaluate(`document.getElementById("port").focus(), true`, &begun)
		p.call("Input.insertText", map[string]any{"text": "5432"}, nil)
		p.press("Enter")
		p.await("Page.loadEventFired")
		p.expectAddress("the form", "/?state=&port=5432&prefix=&zone=&refresh=0")
	})
}

// expectUsable uses each page with the keyboard.
func (p *inspected) expectUsable() {
	for _, path := range p.pages {
		for _, width := range []int{1280, 360} {
			p.open(p.url+still(path), width, false)
			p.tabThrough(fmt.Sprintf("%s %.60s, %d pixels", p.name, path, width))
		}
		p.open(p.url+still(path), 1280, false)
		p.skipToContent(path)
		p.followByKeyboard(path)
	}
}

// skipToContent uses the first link of a page: what comes after it is in the content, if there is anything there.
func (p *inspected) skipToContent(path string) {
	p.t.Helper()
	p.press("Tab")
	p.press("Enter")
	p.press("Tab")
	var is struct{ Hash, Within bool }
	p.evaluate(`({hash: location.hash == "#main", within: document.activeElement.closest("main") != null || !document.querySelector("main a, main summary")})`, &is)
	if !is.Hash || !is.Within {
		p.t.Errorf("%.60s: the first link does not lead to the content: %+v", path, is)
	}
}

// followByKeyboard follows the last link of a page.
func (p *inspected) followByKeyboard(path string) {
	p.t.Helper()
	var to string
	p.evaluate(`(() => {const last = [...document.links].at(-1); last.focus(); return last.href})()`, &to)
	p.press("Enter")
	p.await("Page.loadEventFired")
	p.expectAddress(path, strings.TrimPrefix(to, p.url))
}

// expectAddress checks which page is open.
func (p *inspected) expectAddress(from, want string) {
	p.t.Helper()
	var got string
	p.evaluate(`location.href`, &got)
	if got = strings.TrimPrefix(got, p.url); got != want {
		p.t.Errorf("%.60s led to %s, want %s", from, got, want)
	}
}
