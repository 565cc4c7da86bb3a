package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	// quiet is how long a stream of events may be silent. The server sends an empty line every 15 seconds.
	quiet = 45 * time.Second
	// maxEvent bounds an event, in octets.
	maxEvent = 1 << 20
)

// pauses are those between attempts to get a stream back, the last again and again.
var pauses = []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// event is something that has happened.
type event struct {
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Text   string    `json:"text"`
}

type eventsAnswer struct {
	Time    time.Time `json:"time"`
	Matches int       `json:"matches"`
	Events  []event   `json:"events"`
}

// events shows what has happened, the newest last, as logs do.
func (p *program) events(ctx context.Context, s *settings) error {
	c, err := p.client(s)
	if err != nil {
		return err
	}
	q := s.query()
	if s.kind != "" {
		q.Set("kind", s.kind)
	}
	if s.follow {
		f := &follower{program: p, client: c, query: q, json: s.json, quiet: quiet, pauses: pauses}
		return f.follow(ctx, s.number)
	}
	q.Set("size", strconv.Itoa(s.number))
	var a eventsAnswer
	body, err := c.ask(ctx, "events.json", q, &a)
	switch {
	case err != nil:
		return err
	case s.json:
		return p.print(string(cleanJSON(body)))
	case len(a.Events) == 0:
		return p.print("Nothing has happened that matches.\n")
	}
	var b bytes.Buffer
	for _, e := range slices.Backward(a.Events) {
		b.WriteString(p.eventLine(&e))
	}
	if more := a.Matches - len(a.Events); more > 0 {
		p.complain("%d more have happened before: -n N shows N of them", more)
	}
	return p.print(b.String())
}

// eventLine has a date in any case, because events may go on over days.
func (p *program) eventLine(e *event) string {
	kind := clean(e.Kind)
	padding := fmt.Sprintf("%*s", max(0, len("overrides")-len(kind)), "")
	return e.Time.In(p.zone).Format(time.DateTime) + "  " + p.paint(kind) + padding + "  " + clean(e.Text) + "\n"
}

// follower shows events as they happen.
type follower struct {
	*program
	client *client
	query  url.Values // that chooses events
	json   bool
	quiet  time.Duration
	pauses []time.Duration

	// seen is the newest event that is known. Its number is 0 where none is.
	seen event
}

// errShown is an error of the output, after which nothing is to be tried again.
type errShown struct{ error }

func (e errShown) Unwrap() error { return e.error }

// follow goes on until ctx ends or the output fails. That there is no server at all is an error at the beginning only.
func (f *follower) follow(ctx context.Context, old int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		f.gone(ctx, f.stdout)
		cancel(errGone)
	}()
	defer func() { cancel(nil); <-watched }()

	newest, err := f.newest(ctx, 1)
	if err != nil {
		return f.endOf(ctx, err)
	}
	if len(newest) > 0 {
		f.seen = newest[0]
	}
	err = f.stream(ctx, "last", strconv.Itoa(old), func() {})
	var refused *refusal
	if errors.As(err, &refused) {
		return f.endOf(ctx, err)
	}
	return f.endOf(ctx, f.again(ctx, err))
}

// endOf returns why it has ended: that ctx has, or else the error.
func (f *follower) endOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// again gets the stream back whenever it has ended, and says so.
func (f *follower) again(ctx context.Context, err error) error {
	attempt, told := 0, ""
	for {
		var output errShown
		if errors.As(err, &output) || ctx.Err() != nil {
			return err
		}
		if text := err.Error(); text != told {
			told = text
			f.complain("%s; trying again", text)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(f.pauses[min(attempt, len(f.pauses)-1)]):
		}
		attempt++
		var since uint64
		if since, err = f.since(ctx); err != nil {
			continue
		}
		err = f.stream(ctx, "since", strconv.FormatUint(since, 10), func() {
			attempt, told = 0, ""
			f.complain("connected to %s again", f.client)
		})
	}
}

// newest returns the newest events of any kind, the newest first.
func (f *follower) newest(ctx context.Context, size int) ([]event, error) {
	var a eventsAnswer
	_, err := f.client.ask(ctx, "events.json", url.Values{"size": {strconv.Itoa(size)}}, &a)
	return a.Events, err
}

// since returns the number of the event after which events are new. A CoreDNS that has been started anew counts from 1, and
// so does not know the event that was seen last: then all that it knows are new. They also are where so much has happened
// that the event is forgotten.
func (f *follower) since(ctx context.Context) (uint64, error) {
	known, err := f.newest(ctx, maxSize)
	if err != nil {
		return 0, err
	}
	if slices.ContainsFunc(known, func(e event) bool { return e.Number == f.seen.Number && e.Time.Equal(f.seen.Time) }) {
		return f.seen.Number, nil
	}
	return 0, nil
}

// stream shows events until the stream ends, which always is an error. connected is called once it has begun.
func (f *follower) stream(ctx context.Context, parameter, value string, connected func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(f.client.timeout, func() { cancel(context.DeadlineExceeded) })
	defer silence.Stop()
	q := url.Values{parameter: {value}}
	for name, values := range f.query {
		q[name] = values
	}
	response, err := f.client.open(ctx, "events.ndjson", q, "application/x-ndjson")
	if err != nil {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return f.client.unreachable(context.DeadlineExceeded)
		}
		return err
	}
	defer response.Body.Close()
	connected()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEvent)
	for silence.Reset(f.quiet); lines.Scan(); silence.Reset(f.quiet) {
		if err := f.show(lines.Bytes()); err != nil {
			return err
		}
	}
	err = lines.Err()
	switch {
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return fmt.Errorf("%s was silent for %v, which a living one is not", f.client, f.quiet)
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s sends an event of more than %d octets", f.client, maxEvent)
	case err == nil:
		err = io.EOF
	}
	return fmt.Errorf("%s has ended the stream (%w)", f.client, err)
}

// show writes a line of the stream.
func (f *follower) show(line []byte) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	var e struct {
		event
		Missed uint64 `json:"missed"` // stands alone, for events that were too many
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("%s sends what is not an event: %w", f.client, err)
	}
	if e.Missed > 0 {
		f.complain("%d events came faster than they could be shown, and are left out", e.Missed)
		return nil
	}
	f.seen = e.event
	text := f.eventLine(&e.event)
	if f.json {
		text = string(cleanJSON(line)) + "\n"
	}
	if err := f.print(text); err != nil {
		return errShown{err}
	}
	return nil
}
