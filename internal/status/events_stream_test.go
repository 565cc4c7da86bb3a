package status

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/internal/events"
)

// live is a server in a synctest bubble. What it leaves running fails the test when the bubble ends.
type live struct {
	*server
	listener *pipeListener
	running  *Server
}

func goLive(t *testing.T, n *server) *live {
	l := &live{n, &pipeListener{make(chan net.Conn), make(chan struct{})}, nil}
	l.running = serve(l.listener, address, n.handler.current, n.handler.tell)
	return l
}

// follower is a client of the stream.
type follower struct {
	net.Conn
	answer *http.Response
	lines  *bufio.Reader
}

// follow asks for the stream. The answer begins at once.
func (l *live) follow(t *testing.T, query string) *follower {
	t.Helper()
	f := &follower{Conn: l.listener.dial()}
	begin := time.Now()
	fmt.Fprintf(f, "GET /events.ndjson?%s HTTP/1.1\r\nHost: localhost\r\n\r\n", query)
	var err error
	if f.answer, err = http.ReadResponse(bufio.NewReader(f), nil); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 0 {
		t.Errorf("%q: the header comes after %v", query, took)
	}
	f.lines = bufio.NewReader(f.answer.Body)
	return f
}

// next returns the next line, and how long it took.
func (f *follower) next(t *testing.T) (line string, took time.Duration) {
	t.Helper()
	begin := time.Now()
	line, err := f.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("after %v and %q: %v", time.Since(begin), line, err)
	}
	return strings.TrimSuffix(line, "\n"), time.Since(begin)
}

// expect reads so many lines and checks which events they are of.
func (f *follower) expect(t *testing.T, what string, numbers ...uint64) {
	t.Helper()
	for _, number := range numbers {
		line, took := f.next(t)
		if want := fmt.Sprintf(`{"number":%d,`, number); !strings.HasPrefix(line, want) || took > gather {
			t.Errorf("%s: %q after %v, want %s", what, line, took, want)
		}
	}
}

// A client gets the old events that it wants, then each that it wants when that happens, and an empty line where there is
// none for a while.
func TestStream(t *testing.T) {
	for _, tt := range []struct {
		query      string
		old, later []uint64
	}{
		{"", nil, []uint64{8, 9, 10}},
		{"last=0", nil, []uint64{8, 9, 10}},
		{"last=2", []uint64{6, 7}, []uint64{8, 9, 10}},
		{"last=1000", []uint64{1, 2, 3, 4, 5, 6, 7}, []uint64{8, 9, 10}},
		{"since=5", []uint64{6, 7}, []uint64{8, 9, 10}},
		{"since=0", []uint64{1, 2, 3, 4, 5, 6, 7}, []uint64{8, 9, 10}},
		{"since=7", nil, []uint64{8, 9, 10}},
		{"since=9", []uint64{1, 2, 3, 4, 5, 6, 7}, []uint64{8, 9, 10}}, // of an earlier process
		{"kind=down&last=1", []uint64{4}, []uint64{9}},
		{"kind=down&last=2", []uint64{3, 4}, []uint64{9}},
		{"prefix=10.0.0.1&since=2", []uint64{3}, []uint64{8, 9}},
		{"state=down&port=80&last=5", []uint64{4}, nil},
		{"zone=example.net&last=5", []uint64{3}, []uint64{9}},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := goLive(t, someEvents(t))
			defer n.running.Close()
			f := n.follow(t, tt.query)
			defer f.Close()
			if f.answer.StatusCode != http.StatusOK || f.answer.Header.Get("Content-Type") != "application/x-ndjson" || f.answer.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%q: %s %v", tt.query, f.answer.Status, f.answer.Header)
			}
			f.expect(t, tt.query, tt.old...)
			n.happen(events.Up, "10.0.0.1:443", "", "www.example.org.")
			n.happen(events.Down, "10.0.0.1:443", "", "example.net.")
			n.subject.Events.Addf(events.Reload, "Reloaded")
			f.expect(t, tt.query, tt.later...)
			for range 5 {
				if line, took := f.next(t); line != "" || took > beatEvery || took < beatEvery-2*gather {
					t.Errorf("%q: %q after %v, want an empty line after %v", tt.query, line, took, beatEvery)
				}
			}
		})
	}
}

// The first event of a storm is sent at once, and what follows in bundles: each message costs client and server more than
// what is in it.
func TestStreamGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := goLive(t, newServer(t, ""))
		defer n.running.Close()
		f := n.follow(t, "")
		defer f.Close()
		go func() {
			for range 10 * maxBatch {
				n.subject.Events.Addf(events.Trouble, "trouble")
				time.Sleep(gather / 100)
			}
		}()
		bundles := make(map[time.Time]int)
		begin := time.Now()
		for range 10 * maxBatch {
			f.next(t)
			bundles[time.Now()]++
		}
		if first := bundles[begin]; first != 1 {
			t.Errorf("%d at once, want the first one", first)
		}
		if most := 1 + 10*maxBatch/100 + 1; len(bundles) > most {
			t.Errorf("they came at %d times, want no more than %d", len(bundles), most)
		}
	})
}

// A client that stays away for a while gets what is known still, and is told how many events it has missed. Meanwhile nobody
// waits for it.
func TestStreamMisses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := goLive(t, newServer(t, ""))
		defer n.running.Close()
		f := n.follow(t, "")
		defer f.Close()
		const storm = 5 * events.Known
		for range storm {
			n.subject.Events.Addf(events.Trouble, "%s", strings.Repeat("x", 100))
		}
		synctest.Wait() // until it is written, or waits for the client
		for range storm {
			n.subject.Events.Addf(events.Trouble, "%s", strings.Repeat("x", 100))
		}
		last, missing := uint64(0), uint64(0)
		for last < 2*storm {
			line, _ := f.next(t)
			var number, missed uint64
			if _, err := fmt.Sscanf(line, `{"missed":%d}`, &missed); err == nil {
				missing += missed
				last += missed
				continue
			}
			if _, err := fmt.Sscanf(line, `{"number":%d,`, &number); err != nil || number != last+1 {
				t.Fatalf("%q after number %d", line, last)
			}
			last = number
		}
		if missing == 0 || missing > 2*storm-events.Known {
			t.Errorf("missed %d of %d", missing, 2*storm)
		}
		missed, _ := n.follow(t, "since=17"), 0
		defer missed.Close()
		if line, _ := missed.next(t); line != fmt.Sprintf(`{"missed":%d}`, 2*storm-events.Known-17) {
			t.Errorf("who comes back late gets %q", line)
		}
	})
}

// Whoever does not read is cut off after the timeout for a write, however long the stream has gone on. Who reads is not.
func TestStreamTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := goLive(t, newServer(t, ""))
		defer n.running.Close()
		reads, stops := n.follow(t, ""), n.follow(t, "")
		defer reads.Close()
		defer stops.Close()
		beats := make(chan int)
		go func() {
			count := 0
			for line, err := reads.lines.ReadString('\n'); err == nil && line == "\n"; line, err = reads.lines.ReadString('\n') {
				count++
			}
			beats <- count
		}()
		const minutes = 30
		for range minutes * int(time.Minute/beatEvery) {
			stops.next(t)
		}
		under := func() int {
			n.running.streams.mu.Lock()
			defer n.running.streams.mu.Unlock()
			return n.running.streams.n
		}
		// The next beat cannot be written.
		time.Sleep(beatEvery + writeTimeout - time.Second)
		synctest.Wait()
		if under() != 2 {
			t.Errorf("%d streams before the timeout", under())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if under() != 1 {
			t.Errorf("%d streams after the timeout", under())
		}
		rest, _ := io.ReadAll(stops)
		if len(rest) > 0 {
			t.Errorf("it still gets %q", rest)
		}
		n.running.Close()
		if want, got := minutes*4+2, <-beats; got < want {
			t.Errorf("who reads got %d lines, want %d", got, want)
		}
	})
}

// No more than so many can follow. One who goes makes room, and others get pages all the while.
func TestStreamsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := goLive(t, newServer(t, ""))
		defer n.running.Close()
		var all []*follower
		for range maxStreams {
			all = append(all, n.follow(t, ""))
		}
		defer func() {
			for _, f := range all {
				f.Close()
			}
		}()
		late := n.follow(t, "")
		body, _ := io.ReadAll(late.answer.Body)
		want := fmt.Sprintf(`{"version":1,"error":"%d clients follow the events already, want no more at a time"}`+"\n", maxStreams)
		if late.answer.StatusCode != http.StatusServiceUnavailable || string(body) != want {
			t.Errorf("%s: %s", late.answer.Status, body)
		}
		late.Close()
		if w := n.do("GET", "/events"); w.Code != http.StatusOK {
			t.Errorf("the page: status %d", w.Code)
		}
		all[3].Close()
		synctest.Wait()
		all[3] = n.follow(t, "")
		if all[3].answer.StatusCode != http.StatusOK {
			t.Errorf("after one has gone: %s", all[3].answer.Status)
		}
		n.subject.Events.Addf(events.Trouble, "for all")
		for _, f := range all {
			f.expect(t, "all of them", 1)
		}
	})
}

// A page is made although streams wait, and streams go on although a page is being made.
func TestStreamHoldsNoLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := goLive(t, newServer(t, ""))
		defer n.running.Close()
		f := n.follow(t, "")
		defer f.Close()
		h := n.running.http.Handler.(*handler)
		h.mu.Lock()
		n.subject.Events.Addf(events.Trouble, "while a page is made")
		f.expect(t, "while a page is made", 1)
		h.mu.Unlock()
	})
}

// The end of the server is that of its streams, also of those that wait for a client, and none begins after it.
func TestStreamEndsWithServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := goLive(t, newServer(t, ""))
		idle, stuck := n.follow(t, ""), n.follow(t, "")
		defer idle.Close()
		defer stuck.Close()
		for range events.Known {
			n.subject.Events.Addf(events.Trouble, "%s", strings.Repeat("x", 1000))
		}
		n.running.Close()
		n.running.streams.mu.Lock()
		left := n.running.streams.n
		n.running.streams.mu.Unlock()
		if left != 0 || n.running.streams.begin() {
			t.Errorf("%d streams are left, or one can begin", left)
		}
		if rest, err := io.ReadAll(stuck); slices.Contains([]error{nil, io.EOF, io.ErrClosedPipe}, err) == false {
			t.Errorf("%d octets, %v", len(rest), err)
		}
	})
}
