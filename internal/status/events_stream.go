package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coredns-shaker/shaker/internal/events"
)

const (
	// streamPath is where the events are that have not happened yet.
	streamPath = "/events.ndjson"
	// maxStreams is how many clients can follow at a time. Each takes one of maxConnections for as long as it likes.
	maxStreams = 16
	// beatEvery is how often a stream has a line, if only an empty one.
	beatEvery = 15 * time.Second
	// maxBatch bounds the events that are written at a time, and with them the memory of a stream.
	maxBatch = 32
	// gather is how long a stream rests once it has read all events. What happens meanwhile is sent together: in a storm,
	// a message for each event would take clients and server three times the CPU.
	gather = 20 * time.Millisecond
)

// streamParameters choose events as those of the other formats do, and where the stream begins.
var streamParameters = append(append([]parameter{eventParameters[0]}, parameters[:len(filters)]...),
	parameter{name: "last", read: func(q *query, value string) (err error) {
		q.last, err = number(value, 0, events.Known)
		return err
	}},
	parameter{name: "since", read: func(q *query, value string) (err error) {
		q.since, err = eventNumber(value)
		return err
	}},
)

// streams counts the answers that have no end.
type streams struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // is closed with the last one, once nobody may begin
}

// begin counts one more. Where it reports false, there are too many; otherwise end has to follow.
func (s *streams) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.n == maxStreams {
		return false
	}
	s.n++
	return true
}

func (s *streams) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n--; s.n == 0 && s.closed {
		close(s.idle)
	}
}

// close lets no more begin and waits for the end of those that there are. Their connections have to be closed.
func (s *streams) close() {
	s.mu.Lock()
	s.closed, s.idle = true, make(chan struct{})
	if s.n == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	<-s.idle
}

// stream sends events as they happen, one a line, until the client or the server goes. Nobody waits for it.
func (h *handler) stream(w http.ResponseWriter, r *http.Request, from *events.Log) {
	q, problem := readQuery(r.URL.RawQuery, streamParameters)
	if problem == nil && q.given.Has("last") && q.given.Has("since") {
		problem = errors.New("last: not possible together with since, want one of them")
	}
	switch {
	case problem != nil:
		fail(w, http.StatusBadRequest, problem)
		return
	case r.Method == http.MethodHead:
		w.Header().Set("Content-Type", streamType)
		return
	case !h.streams.begin():
		fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d clients follow the events already, want no more at a time", maxStreams))
		return
	}
	defer h.streams.end()
	w.Header().Set("Content-Type", streamType)
	w.Header().Set("X-Accel-Buffering", "no") // or nginx keeps events to itself until there are many
	s := stream{log: from, query: q, to: w, control: http.NewResponseController(w)}
	s.run(r.Context())
}

const streamType = "application/x-ndjson"

// fail sends what is wrong to a program.
func fail(w http.ResponseWriter, status int, problem error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(failure{version, problem.Error()}) // whether the client still listens is its own matter
}

// stream is one answer without an end.
type stream struct {
	log     *events.Log
	query   *query
	to      http.ResponseWriter
	control *http.ResponseController
	lines   bytes.Buffer // that are to be written
}

// missed is the line in the place of events that were forgotten before this client took them.
type missed struct {
	Missed uint64 `json:"missed"`
}

// run ends when the client takes nothing for too long, and with the context: that is when the client goes or the server
// closes.
func (s *stream) run(ctx context.Context) {
	follower := s.begin()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		next, forgotten, more := follower.Next(maxBatch)
		if forgotten > 0 {
			s.add(missed{forgotten})
		}
		for _, e := range next {
			if s.query.matchesEvent(e) {
				s.add(newEvent(s.log, e))
			}
		}
		if s.send() != nil {
			return
		}
		var rested <-chan time.Time // nil where there was nothing to read
		switch {
		case len(next) == maxBatch:
			rested = time.After(0)
		case len(next) > 0:
			rested = time.After(gather)
		}
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			s.lines.WriteByte('\n')
		case <-rested:
		case <-more:
		}
	}
}

// begin returns who follows from the first event that the client wants.
func (s *stream) begin() *events.Follower {
	if s.query.given.Has("since") {
		return s.log.Follow(s.query.since)
	}
	all := s.log.All()
	if len(all) == 0 {
		return s.log.Follow(0)
	}
	from := all[len(all)-1].Number()
	left := s.query.last
	for i := len(all) - 1; i >= 0 && left > 0; i-- {
		if s.query.matchesEvent(all[i]) {
			from = all[i].Number() - 1
			left--
		}
	}
	return s.log.Follow(from)
}

// add adds a line.
func (s *stream) add(line any) {
	if err := json.NewEncoder(&s.lines).Encode(line); err != nil {
		panic(err) // a buffer takes everything
	}
}

// send writes the lines that there are. At first that is the header too. The timeout is for each time.
func (s *stream) send() error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := s.lines.WriteTo(s.to); err != nil {
		return err
	}
	return s.control.Flush()
}
