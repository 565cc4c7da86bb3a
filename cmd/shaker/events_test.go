package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// log is a server of events, which are numbered from 1 in each of its lives.
type log struct {
	t *testing.T

	mu     sync.Mutex // protects what follows
	life   int
	events []string // of this life
	more   chan struct{}
	asked  []string // the queries of streams
}

func newLog(t *testing.T) (*log, string) {
	l := &log{t: t, more: make(chan struct{})}
	server := httptest.NewServer(l)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return l, server.URL
}

// add has something happen.
func (l *log) add(texts ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range texts {
		n := len(l.events) + 1
		l.events = append(l.events, fmt.Sprintf(`{"number":%d,"time":"2026-11-26T12:%02d:%02d.000Z","kind":"up","text":%q}`, n, l.life, n, text))
	}
	close(l.more)
	l.more = make(chan struct{})
}

// restart ends all streams, and forgets unless it is only a pause.
func (l *log) restart(forget bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life++
	if forget {
		l.events = nil
	}
	close(l.more)
	l.more = make(chan struct{})
}

func (l *log) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.URL.Path == "/events.json" {
		size, _ := strconv.Atoi(r.FormValue("size"))
		var newest []string
		for i := len(l.events) - 1; i >= 0 && len(newest) < size; i-- {
			newest = append(newest, l.events[i])
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"version":1,"time":"2026-11-26T12:00:00Z","matches":1,"events":[%s]}`, strings.Join(newest, ","))
		return
	}
	l.asked = append(l.asked, r.URL.RawQuery)
	sent := len(l.events)
	if last := r.FormValue("last"); last != "" {
		n, _ := strconv.Atoi(last)
		sent = max(0, sent-n)
	} else {
		sent, _ = strconv.Atoi(r.FormValue("since"))
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	for life := l.life; life == l.life; {
		for ; sent < len(l.events); sent++ {
			fmt.Fprintln(w, l.events[sent])
		}
		fmt.Fprintln(w)
		http.NewResponseController(w).Flush()
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-r.Context().Done():
		}
		l.mu.Lock()
		if r.Context().Err() != nil {
			return
		}
	}
}

// until waits until something is so.
func until(t *testing.T, what string, isSo func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !isSo(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// Whatever becomes of the connection, each event is shown once, in order.
func TestFollow(t *testing.T) {
	l, server := newLog(t)
	l.add("one", "two", "three")
	p, stdout, stderr := newProgram()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() { ended <- p.run(ctx, []string{"events", "-f", "-n", "2", "-server", server, "-port", "443"}) }()
	until(t, "two old events", func() bool { return strings.Contains(stdout.String(), "three") })
	l.add("four")
	until(t, "a new one", func() bool { return strings.Contains(stdout.String(), "four") })
	l.restart(false)
	l.add("five")
	until(t, "one after a pause", func() bool { return strings.Contains(stdout.String(), "five") })
	l.restart(true)
	l.add("six", "seven", "eight", "nine", "ten", "eleven")
	until(t, "those of another life", func() bool { return strings.Contains(stdout.String(), "eleven") })
	cancel()
	if status := <-ended; status != exitFailed { // a test's end, which people do not see
		t.Errorf("status %d", status)
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(stdout.String()), "\n") {
		got = append(got, line[strings.LastIndex(line, " ")+1:])
	}
	if want := "two three four five six seven eight nine ten eleven"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if n := strings.Count(stderr.String(), "has ended the stream (EOF); trying again\nshaker: connected to "+server+" again\n"); n != 2 {
		t.Errorf("said\n%s", stderr)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if want := "last=2&port=443 port=443&since=4 port=443&since=0"; strings.Join(l.asked, " ") != want {
		t.Errorf("asked %q, want %q", l.asked, want)
	}
}

// streaming is a server whose only stream is what the function writes.
func streaming(t *testing.T, write func(w http.ResponseWriter, r *http.Request)) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events.json" {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, empty)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		write(w, r)
		http.NewResponseController(w).Flush()
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.URL
}

// What is wrong with a stream is told, once, and it is tried again.
func TestFollowTrouble(t *testing.T) {
	wait := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, tt := range []struct {
		name  string
		write func(http.ResponseWriter, *http.Request)
		want  string
	}{
		{"silence", func(w http.ResponseWriter, r *http.Request) { http.NewResponseController(w).Flush(); wait(w, r) }, "was silent for 100ms, which a living one is not; trying again"},
		{"no event", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "x") }, "sends what is not an event: invalid character 'x'"},
		{"a flood", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, strings.Repeat("x", maxEvent+1)) }, "sends an event of more than 1048576 octets"},
		{"missed", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"missed":7}`) }, "7 events came faster than they could be shown, and are left out"},
	} {
		p, _, stderr := newProgram()
		c, err := p.client(&settings{server: streaming(t, tt.write), timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		f := &follower{program: p, client: c, quiet: 100 * time.Millisecond, pauses: []time.Duration{time.Millisecond}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.follow(ctx, 0) }()
		until(t, tt.name, func() bool { return strings.Contains(stderr.String(), tt.want) })
		cancel()
		<-ended
	}
}

// A server that has no events is an error at once.
func TestFollowNobody(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	status, _, stderr := output("events", "-f", "-server", server.URL)
	if status != exitFailed || !strings.Contains(stderr, "cannot reach") {
		t.Errorf("status %d, %s", status, stderr)
	}
	other := streaming(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"version":1,"error":"kind: no such one"}`)
	})
	if status, _, stderr = output("events", "-f", "-server", other); status != exitFailed || stderr != "shaker: kind: no such one\n" {
		t.Errorf("status %d, %s", status, stderr)
	}
}

// When nobody reads any more, there is nothing to wait for.
func TestFollowReaderGone(t *testing.T) {
	l, server := newLog(t)
	l.add("one")
	p, stdout, _ := newProgram()
	p.gone = func(context.Context, io.Writer) {
		until(t, "the first event", func() bool { return strings.Contains(stdout.String(), "one") })
	}
	if status := p.run(t.Context(), []string{"events", "-f", "-json", "-server", server}); status != exitPipe || strings.Count(stdout.String(), "\n") != 1 {
		t.Errorf("status %d\n%s", status, stdout)
	}
	p.gone = func(ctx context.Context, _ io.Writer) { <-ctx.Done() }
	p.stdout = failing{}
	if status := p.run(t.Context(), []string{"events", "-f", "-server", server}); status != exitFailed {
		t.Errorf("status %d", status)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }
