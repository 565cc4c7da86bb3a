package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// browser is a tab of Chromium, spoken to by the DevTools protocol over a pipe: messages end with a NUL.
type browser struct {
	t       testing.TB
	to      *os.File
	from    *bufio.Reader
	in      *os.File
	calls   int
	session string
	events  []browserEvent // since the start
}

type browserEvent struct {
	Method string
	Params json.RawMessage
}

// startBrowser starts Chromium until the end of the test.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	program := installed(t, "chromium", "chromium")
	dir := t.TempDir()
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run", "--disable-gpu",
		"--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir="+dir, "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	lab.Start(t, cmd)
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group: Chromium is many processes
		ourIn.Close()
		ourOut.Close()
	})
	b := &browser{t: t, to: ourOut, in: ourIn, from: bufio.NewReader(ourIn)}
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// receive returns the next message.
func (b *browser) receive() (m struct {
	ID     int
	Result json.RawMessage
	Error  *struct{ Message string }
	browserEvent
}) {
	b.t.Helper()
	b.in.SetReadDeadline(time.Now().Add(2 * time.Minute))
	text, err := b.from.ReadBytes(0)
	if err != nil {
		b.t.Fatal("Chromium: ", err)
	}
	if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
		b.t.Fatal(err)
	}
	if m.Method != "" {
		b.events = append(b.events, m.browserEvent)
	}
	return m
}

func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.calls++
	text, err := json.Marshal(struct {
		ID      int            `json:"id"`
		Method  string         `json:"method"`
		Params  map[string]any `json:"params,omitempty"`
		Session string         `json:"sessionId,omitempty"`
	}{b.calls, method, params, b.session})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		m := b.receive()
		if m.ID != b.calls {
			continue
		}
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

// await waits for an event.
func (b *browser) await(method string) {
	b.t.Helper()
	for b.receive().Method != method {
	}
}

// open loads a page.
func (b *browser) open(url string, width int, dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.events = nil
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	b.await("Page.loadEventFired")
}

// evaluate returns what an expression of JavaScript is.
func (b *browser) evaluate(expression string, value any) {
	b.t.Helper()
	b.evaluateIn(0, expression, value)
}

// evaluateIn is evaluate in a certain world, 0 for that of the page itself.
func (b *browser) evaluateIn(world int, expression string, value any) {
	b.t.Helper()
	params := map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}
	if world != 0 {
		params["contextId"] = world
	}
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", params, &answer)
	if answer.ExceptionDetails != nil {
		b.t.Fatalf("%s", answer.ExceptionDetails)
	}
	if err := json.Unmarshal(answer.Result.Value, value); err != nil {
		b.t.Fatal(err)
	}
}

// picture writes what is in the window to a file, if somebody wants to have it.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("SHAKER_PICTURES")
	if dir == "" {
		return
	}
	var shot struct{ Data []byte }
	b.call("Page.captureScreenshot", nil, &shot)
	if err := os.WriteFile(filepath.Join(dir, name+".png"), shot.Data, 0o666); err != nil {
		b.t.Fatal(err)
	}
}

// shop is a fleet of hosts in good health and in all kinds of bad: thirty targets, with one name for every four addresses.
type shop struct {
	names map[string][]netip.Addr
	rules string // overrides
}

func newShop(l *lab.Lab) *shop {
	web, silent := l.Host("web"), l.Host("silent")
	web.Listen(443)
	silent.Drop(443)
	absent := web.Addr4.Next() // nobody's
	addrs := slices.Concat(web.Addrs4(11), silent.Addrs4(3), []netip.Addr{absent})
	s := &shop{
		names: make(map[string][]netip.Addr),
		rules: fmt.Sprintf("%v down\n%v up\n", addrs[2], absent),
	}
	for i, name := range []string{"www", "api", "images", "db"} {
		s.names[name+".shop.example."] = addrs[4*i : min(4*i+4, len(addrs))]
	}
	return s
}

// answer is a backend. Each of the names that somebody has made up has two addresses of its own, which are as long as any.
func (s *shop) answer(q dns.Question) (answer []dns.RR) {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 300}
	switch q.Qtype {
	case dns.TypeA:
		for _, addr := range s.names[strings.Replace(q.Name, ".other.", ".shop.", 1)] {
			answer = append(answer, &dns.A{Hdr: header, A: addr.AsSlice()})
		}
	case dns.TypeAAAA:
		for i := range byte(2) {
			addr := netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1234:1000").As16()
			addr[14], addr[15] = 0x10+i, byte(len(q.Name))
			answer = append(answer, &dns.AAAA{Hdr: header, AAAA: addr[:]})
		}
	}
	return answer
}

// serve starts a CoreDNS with so many targets at most, and asks for all names.
func (s *shop) serve(t *testing.T, limit int, page string, names ...string) *server {
	t.Helper()
	server := start(t, fmt.Sprintf(`.:0 {
		bind 127.0.0.1
		shaker shop.example {
			port 443 5432
			interval 1s
			timeout 200ms
			hold 0s
			freeze off
			overrides %s
			limit targets %d
			status %s
		}
		shaker other.example {
			port 443
			hold 0s
		}
		shaker example {
			port 65535
			hold 0s
		}
		%s
	}`, lab.File(t, "overrides", s.rules), limit, page, backend(s.answer).directive(t)))
	for name := range s.names {
		server.askTCP(name, dns.TypeA)
	}
	for _, name := range names {
		server.askTCP(name, dns.TypeAAAA)
	}
	return server
}

// madeUpNames are those that somebody might ask for.
var madeUpNames = []string{
	"<script>alert(1)</script>.example.",
	`"><img/src=x/onerror=alert(1)>.example.`,
	"javascript:alert(1).example.",
	"{{.}}.example.",
	"&lt;b&gt;.example.",
	"\u202egnp.elpmaxe.example.", // from right to left
	"\u05d0\u05d1\u05d2.example.",
	`a\.b\\\"\000\255.example.`,
	strings.Repeat(strings.Repeat("a", 60)+".", 3) + "example.",
}

// What is shown fits, needs nothing but itself, and no browser finds fault with it. With the path of a directory in
// SHAKER_PICTURES, that is how it looked.
func TestLabStatusBrowser(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		b, page := startBrowser(t), local(t)
		url := "http://" + page
		few := newShop(l)
		s := few.serve(t, 1000, page)
		lab.Until(t, "a verdict on each of thirty targets", func() bool {
			n := countsAt(t, page)
			return n.Total == 30 && n.Unknown == 0
		})
		for _, v := range []view{
			{"light", "/", 1280, false},
			{"dark", "/", 1280, true},
			{"narrow", "/", 360, false},
			{"mistake-narrow", "/?zone=" + strings.Repeat("a", 500), 360, false},
			{"nothing-narrow", "/?port=1", 360, true},
		} {
			b.look(url, v)
		}
		b.open(url+"/?refresh=1", 1280, false)
		b.await("Page.loadEventFired") // the second time, without a word from us
		b.expectOnly("refreshes", url+"/?refresh=1")
		s.stop()

		s = few.serve(t, 30+2*len(madeUpNames)-1, page, madeUpNames...) // one too few
		for _, v := range []view{
			{"attack", "/", 1280, true},
			{"attack-medium", "/", 1001, false},
			{"attack-narrow", "/", 360, false},
		} {
			b.look(url, v)
		}
		var text string
		b.evaluate(`document.body.innerText`, &text)
		for _, part := range []string{"<script>alert", "{{.}}", `&lt\;b&gt\;`} {
			if !strings.Contains(text, part) {
				t.Errorf("%s is not on the page:\n%s", part, text)
			}
		}
		s.stop()

		many := &shop{names: make(map[string][]netip.Addr)}
		for i, addrs := range slices.Collect(slices.Chunk(l.Host("fleet").Addrs4(5000), 1000)) {
			many.names[fmt.Sprintf("fleet%d.shop.example.", i)] = addrs
		}
		many.serve(t, 20_000, page)
		lab.Until(t, "10000 targets", func() bool { return countsAt(t, page).Total == 10_000 })
		b.look(url, view{"10000", "/", 1280, false})
		b.look(url, view{"10000-narrow", "/", 360, true})
	})
}

// view is a way to look at a page.
type view struct {
	name, path string
	width      int
	dark       bool
}

// look loads a page, and checks that it fits and is in the colours that were asked for.
func (b *browser) look(url string, v view) {
	b.t.Helper()
	b.open(url+v.path, v.width, v.dark)
	b.picture(v.name)
	b.expectOnly(v.name, url+v.path)
	var is struct {
		Width, Window int
		Back          string
	}
	b.evaluate(`({width: document.documentElement.scrollWidth, window: innerWidth,
		back: getComputedStyle(document.documentElement).backgroundColor})`, &is)
	if is.Width > is.Window {
		b.t.Errorf("%s: %d pixels wide, in a window of %d", v.name, is.Width, is.Window)
	}
	if light := is.Back == "rgb(255, 255, 255)"; light == v.dark {
		b.t.Errorf("%s: the background is %s", v.name, is.Back)
	}
}

// expectOnly checks that the browser has asked for this page alone, apart from what is in it, and found no fault.
func (b *browser) expectOnly(page, url string) {
	b.t.Helper()
	mistake := false
	for _, e := range b.events {
		switch e.Method {
		case "Network.responseReceived":
			var received struct{ Response struct{ Status int } }
			if err := json.Unmarshal(e.Params, &received); err != nil {
				b.t.Fatal(err)
			}
			mistake = mistake || received.Response.Status >= 400
		case "Network.requestWillBeSent":
			var sent struct{ Request struct{ URL string } }
			if err := json.Unmarshal(e.Params, &sent); err != nil {
				b.t.Fatal(err)
			}
			if sent.Request.URL != url && !strings.HasPrefix(sent.Request.URL, "data:") {
				b.t.Errorf("%s: asks for %s", page, sent.Request.URL)
			}
		case "Log.entryAdded":
			var added struct{ Entry struct{ Source, URL string } }
			if err := json.Unmarshal(e.Params, &added); err != nil {
				b.t.Fatal(err)
			}
			// Of the status of a query with a mistake, or for what is not there, the console tells.
			if !mistake || added.Entry.Source != "network" || added.Entry.URL != url {
				b.t.Errorf("%s: %s %s", page, e.Method, e.Params)
			}
		case "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening":
			b.t.Errorf("%s: %s %s", page, e.Method, e.Params)
		}
	}
}
