// Package status serves the status pages: one for people, and the same as JSON for programs.
package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	golog "log"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/override"
)

// Bounds of what the status page's clients can take up.
const (
	maxConnections = 64               // at a time; others wait
	maxHeader      = 16 << 10         // octets, request line included; package net/http adds 4096
	maxQuery       = 4 << 10          // octets, as in the URL
	readTimeout    = 5 * time.Second  // until the whole request is there
	writeTimeout   = 30 * time.Second // until the whole answer is taken
)

// Server serves the status page on one address. It outlives reloads that leave the address as it is.
type Server struct {
	listener net.Listener
	http     *http.Server
	end      context.CancelFunc // of the requests
	streams  *streams
	ended    sync.WaitGroup
}

// Subject is what the pages tell of.
type Subject struct {
	Monitor *health.Monitor
	// Limit is how many targets the monitor's table has room for.
	Limit int
	// Rules are the overrides in force.
	Rules []Rules
	// Shaker is its version.
	Shaker string
	// Events are those of the process.
	Events *events.Log
	// Peers are the replicas that decide together with this one, nil where it decides alone. It is no nil pointer then.
	Peers Peers
	// Explain tells how a name is answered. It may take as long as ctx lasts. The error is a [Refusal] where there is no
	// answer. What it returns belongs to the caller.
	Explain func(ctx context.Context, q Question) (*Explanation, error)
}

// Rules is a file of overrides, and the targets that it is about: those of a family with these settings.
type Rules struct {
	File     *override.File
	Settings health.Key
	IsIPv4   bool
}

// Listener is told what happens. None of its functions may be nil.
type Listener struct {
	Infof, Errorf func(format string, args ...any)
	// Recovered is told of a panic, which cost an answer. It is called where the panic is recovered, so the stack can
	// still be read.
	Recovered func(where string, reason any)
}

// Open begins to serve on an address, which is a host and a port. What is told of is what current returns at the time,
// nil when there is nothing any more.
//
// Unlike the listeners of CoreDNS, this one does not share its port (SO_REUSEPORT): an address that is taken has to be an
// error, also if it is that of another plugin, which would then get some of the connections.
func Open(address string, current func() *Subject, tell Listener) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w, want a free address of this machine", err)
	}
	tell.Infof("Status page on http://%s/", listener.Addr())
	return serve(listener, address, current, tell), nil
}

func serve(listener net.Listener, address string, current func() *Subject, tell Listener) *Server {
	h := &handler{address: address, current: current, tell: tell}
	ctx, end := context.WithCancel(context.Background())
	s := &Server{listener: listener, end: end, streams: &h.streams, http: &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    maxHeader,
		// What clients do wrong is no news, and they could fill the log with it.
		ErrorLog: golog.New(io.Discard, "", 0),
	}}
	// A page is a single request.
	s.http.SetKeepAlivesEnabled(false)
	s.ended.Go(func() {
		// Connections are served by goroutines that inherit the label.
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("shaker", "status")))
		if err := s.http.Serve(netutil.LimitListener(listener, maxConnections)); err != http.ErrServerClosed {
			tell.Errorf("The status page on %s has failed: %v", address, err)
		}
	})
	return s
}

// Close cuts off requests that are being answered, because it is called where nothing may wait.
func (s *Server) Close() {
	s.end()
	s.http.Close()
	s.ended.Wait()
	s.streams.close()
}

// headers are those of every answer. The page may load nothing, and nothing may load it; what it says is old soon.
var headers = map[string]string{
	"Cache-Control": "no-store",
	"Content-Security-Policy": "default-src 'none'; style-src " + styleHash + "; img-src data:; " +
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
}

// handler answers requests for the status page.
type handler struct {
	address string // as in the Corefile
	current func() *Subject
	tell    Listener

	// mu is held while an answer is made: each looks at all targets, and there is to be memory for one of them only.
	mu sync.Mutex

	streams streams
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if reason := recover(); reason != nil {
			h.tell.Recovered("on the status page", reason)
			http.Error(w, "This is a mistake in shaker, the log tells more.", http.StatusInternalServerError)
		}
	}()
	for key, value := range headers {
		w.Header().Set(key, value)
	}
	switch subject := h.current(); {
	case !h.isMeant(r):
		http.Error(w, fmt.Sprintf("The host %q is not that of this page, want %s, the address or localhost.", r.Host, h.address), http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, fmt.Sprintf("The method %q is not possible, want GET or HEAD.", r.Method), http.StatusMethodNotAllowed)
	case len(r.URL.RawQuery) > maxQuery:
		http.Error(w, fmt.Sprintf("The query is longer than %d octets.", maxQuery), http.StatusRequestURITooLong)
	case subject == nil:
		http.Error(w, "CoreDNS is about to end.", http.StatusServiceUnavailable)
	case r.URL.Path == streamPath:
		h.stream(w, r, subject.Events)
	case formats[r.URL.Path] != nil:
		h.answer(w, r, subject, formats[r.URL.Path])
	default:
		http.Error(w, fmt.Sprintf("There is no %q, want one of %s.", r.URL.Path, strings.Join(paths, ", ")), http.StatusNotFound)
	}
}

// isMeant tells whether the client knows whom it talks to. A page from elsewhere could have its own name lead here (DNS
// rebinding), and would then be allowed to read the answer; its browser still sends that name.
func (h *handler) isMeant(r *http.Request) bool {
	host := hostOf(r.Host)
	if addr, err := netip.ParseAddr(host); err == nil {
		local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		return ok && sameAddress(addr, local.AddrPort().Addr())
	}
	host = strings.TrimSuffix(host, ".")
	return strings.EqualFold(host, "localhost") || strings.EqualFold(host, strings.TrimSuffix(hostOf(h.address), "."))
}

func sameAddress(a, b netip.Addr) bool { return a.Unmap().WithZone("") == b.Unmap().WithZone("") }

// hostOf returns what is before the port. The port is the client's matter: a tunnel may have another one.
func hostOf(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostPort, "["), "]")
}

// formats are what clients can ask for, by path.
var formats = map[string]*format{
	"/":             &targetsPage,
	"/target":       &targetPage,
	"/targets":      &targetsJSON,
	"/targets.json": &targetsJSON,
	"/explain":      &explainPage,
	"/explain.json": &explainJSON,

	"/events":      &eventsPage,
	"/events.json": &eventsJSON,

	"/overrides":      &overridesPage,
	"/overrides.json": &overridesJSON,

	peersPath:     &peersPage,
	"/peers.json": &peersJSON,
}

var paths = slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(formats)), streamPath)))

// format is something to tell, in a form for people or for programs.
type format struct {
	contentType string
	parameters  []parameter
	// ask asks others for what the query wants to know, where that takes its time, and notes it in the query. It is nil where
	// all is there. It may be called while pages are made.
	ask func(ctx context.Context, subject *Subject, q *query) error
	// write writes what the query asks for, or what is wrong with it.
	write func(to *bytes.Buffer, header http.Header, subject *Subject, q *query, problem error) error
}

// parametersOf returns those that there are.
func (f *format) parametersOf(subject *Subject) []parameter {
	if subject.Peers != nil {
		return f.parameters
	}
	return slices.DeleteFunc(slices.Clone(f.parameters), func(p parameter) bool { return p.peers })
}

// Refusal is why what somebody asks for is not told, although he asks in the right way.
type Refusal struct {
	Status     int           // of HTTP
	RetryAfter time.Duration // 0 where that is not known
	Reason     string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason }

// answer sends what is asked for. The header has nothing in it that is not to be sent with every answer.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, subject *Subject, format *format) {
	q, problem := readQuery(r.URL.RawQuery, format.parametersOf(subject))
	if problem == nil && format.ask != nil {
		problem = format.ask(r.Context(), subject, q)
	}
	status := statusOf(w.Header(), problem)
	body := h.make(w.Header(), subject, format, q, problem)
	w.Header().Set("Content-Type", format.contentType)
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	w.Write(body.Bytes()) // whether the client still listens is its own matter
}

// statusOf returns the status of an answer, and tells in its header when to ask again.
func statusOf(header http.Header, problem error) int {
	refusal, refused := errors.AsType[*Refusal](problem)
	switch {
	case problem == nil:
		return http.StatusOK
	case !refused:
		return http.StatusBadRequest
	}
	if refusal.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(refusal.RetryAfter.Seconds()))))
	}
	return refusal.Status
}

// make returns the body of an answer. However slow the client is that gets it, others can be told already.
func (h *handler) make(header http.Header, subject *Subject, format *format, q *query, problem error) *bytes.Buffer {
	h.mu.Lock()
	defer h.mu.Unlock()
	body := new(bytes.Buffer)
	if err := format.write(body, header, subject, q, problem); err != nil {
		panic(err) // a buffer takes everything
	}
	return body
}
