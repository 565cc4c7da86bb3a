package shaker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group: Chromium is many processes
		cmd.Wait()
		ourIn.Close()
		ourOut.Close()
		if t.Failed() {
			t.Logf("Chromium said:\n%s", said.String())
		}
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
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer)
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

// serveAgain serves answers that were given before, in a bubble that is no more.
func serveAgain(t *testing.T, answers map[string]*httptest.ResponseRecorder) (url string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := answers[r.URL.RequestURI()]
		if answer == nil {
			http.NotFound(w, r)
			return
		}
		for key, values := range answer.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// What is shown fits, needs nothing but itself, and no browser finds fault with it. With the path of a directory in
// SHAKER_PICTURES, that is how it looked.
func TestLabStatusBrowser(t *testing.T) {
	lab.Run(t, func(t *testing.T, _ *lab.Lab) {
		answers := make(map[string]*httptest.ResponseRecorder)
		for path, targets := range map[string]int{"/few": 30, "/many": 10_000} {
			synctest.Test(t, func(t *testing.T) { answers[path] = newStatusFleet(t, targets).do("GET", "/") })
		}
		synctest.Test(t, func(t *testing.T) {
			n := newStatusFleet(t, 30)
			n.inst.settings.targets.set(30, "Corefile:1")
			for i, name := range statusAttacks {
				n.target(fmt.Sprintf("[2001:db8:1234:5678:9abc:def0:1234:%x]:65535", i+1)).AddName(name)
			}
			answers["/attack"] = n.do("GET", "/")
			answers["/mistake"] = n.do("GET", "/?zone="+strings.Repeat("a", 500))
			answers["/mistake"].Code = http.StatusOK // or the console would tell of it
			answers["/nothing"] = n.do("GET", "/?port=1")
			answers["/refreshes"] = n.do("GET", "/?refresh=1")
		})
		url := serveAgain(t, answers)
		b := startBrowser(t)
		for _, page := range []struct {
			name, path string
			width      int
			dark       bool
		}{
			{"light", "/few", 1280, false},
			{"dark", "/few", 1280, true},
			{"narrow", "/few", 360, false},
			{"10000", "/many", 1280, false},
			{"10000-narrow", "/many", 360, true},
			{"attack", "/attack", 1280, true},
			{"attack-medium", "/attack", 1001, false},
			{"attack-narrow", "/attack", 360, false},
			{"mistake-narrow", "/mistake", 360, false},
			{"nothing-narrow", "/nothing", 360, true},
		} {
			b.open(url+page.path, page.width, page.dark)
			b.picture(page.name)
			b.expectOnly(page.name, url+page.path)
			var is struct {
				Width, Window int
				Back          string
			}
			b.evaluate(`({width: document.documentElement.scrollWidth, window: innerWidth,
				back: getComputedStyle(document.documentElement).backgroundColor})`, &is)
			if is.Width > is.Window {
				t.Errorf("%s: %d pixels wide, in a window of %d", page.name, is.Width, is.Window)
			}
			if light := is.Back == "rgb(255, 255, 255)"; light == page.dark {
				t.Errorf("%s: the background is %s", page.name, is.Back)
			}
		}
		b.open(url+"/refreshes", 1280, false)
		b.await("Page.loadEventFired") // the second time, without a word from us
		b.expectOnly("refreshes", url+"/refreshes")
	})
}

// expectOnly checks that the browser has asked for this page alone, apart from what is in it, and found no fault.
func (b *browser) expectOnly(page, url string) {
	b.t.Helper()
	for _, e := range b.events {
		switch e.Method {
		case "Network.requestWillBeSent":
			var sent struct{ Request struct{ URL string } }
			if err := json.Unmarshal(e.Params, &sent); err != nil {
				b.t.Fatal(err)
			}
			if sent.Request.URL != url && !strings.HasPrefix(sent.Request.URL, "data:") {
				b.t.Errorf("%s: asks for %s", page, sent.Request.URL)
			}
		case "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening":
			b.t.Errorf("%s: %s %s", page, e.Method, e.Params)
		}
	}
}
