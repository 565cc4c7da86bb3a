package shaker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	golog "log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of what the status page's clients can take up.
const (
	statusConnections = 64               // at a time; others wait
	statusHeader      = 16 << 10         // octets, request line included; package net/http adds 4096
	statusQueryLength = 4 << 10          // octets, as in the URL
	statusReading     = 5 * time.Second  // until the whole request is there
	statusWriting     = 30 * time.Second // until the whole answer is taken
)

// statusServer serves the status page on one address. It outlives reloads that leave the address as it is.
type statusServer struct {
	listener net.Listener
	http     *http.Server
	ended    sync.WaitGroup
}

// openStatus begins to serve. What is told is that of the instance which current returns.
//
// Unlike the listeners of CoreDNS, this one does not share its port (SO_REUSEPORT): an address that is taken has to be an
// error, also if it is that of another plugin, which would then get some of the connections.
func openStatus(address string, current func() *instance) (*statusServer, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w, want a free address of this machine", err)
	}
	log.Infof("Status page on http://%s/", listener.Addr())
	return serveStatus(listener, address, current), nil
}

func serveStatus(listener net.Listener, address string, current func() *instance) *statusServer {
	s := &statusServer{listener: listener, http: &http.Server{
		Handler:           &statusHandler{address: address, current: current},
		ReadHeaderTimeout: statusReading,
		ReadTimeout:       statusReading,
		WriteTimeout:      statusWriting,
		MaxHeaderBytes:    statusHeader,
		// What clients do wrong is no news, and they could fill the log with it.
		ErrorLog: golog.New(io.Discard, "", 0),
	}}
	// A page is a single request.
	s.http.SetKeepAlivesEnabled(false)
	s.ended.Go(func() {
		profileAs("status")
		if err := s.http.Serve(netutil.LimitListener(listener, statusConnections)); err != http.ErrServerClosed {
			log.Errorf("The status page on %s has failed: %v", address, err)
		}
	})
	return s
}

// close cuts off requests that are being answered, because it is called where nothing may wait.
func (s *statusServer) close() {
	s.http.Close()
	s.ended.Wait()
}

// statusHeaders are those of every answer. The page may load nothing, and nothing may load it; what it says is old soon.
var statusHeaders = map[string]string{
	"Cache-Control": "no-store",
	"Content-Security-Policy": "default-src 'none'; style-src " + statusStyle + "; img-src data:; " +
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
}

// statusHandler answers requests for the status page.
type statusHandler struct {
	address string // as in the Corefile
	current func() *instance

	// mu is held while an answer is made: each looks at all targets, and there is to be memory for one of them only.
	mu sync.Mutex
}

// ServeHTTP implements http.Handler.
func (h *statusHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if reason := recover(); reason != nil {
			reportPanic("on the status page", reason)
			http.Error(w, "This is a mistake in shaker, the log tells more.", http.StatusInternalServerError)
		}
	}()
	for key, value := range statusHeaders {
		w.Header().Set(key, value)
	}
	switch inst := h.current(); {
	case !h.isMeant(r):
		http.Error(w, fmt.Sprintf("The host %q is not that of this page, want %s, the address or localhost.", r.Host, h.address), http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, fmt.Sprintf("The method %q is not possible, want GET or HEAD.", r.Method), http.StatusMethodNotAllowed)
	case len(r.URL.RawQuery) > statusQueryLength:
		http.Error(w, fmt.Sprintf("The query is longer than %d octets.", statusQueryLength), http.StatusRequestURITooLong)
	case inst == nil:
		http.Error(w, "CoreDNS is about to end.", http.StatusServiceUnavailable)
	case r.URL.Path == "/":
		h.answer(w, inst, &statusHTML, r.URL.RawQuery)
	case r.URL.Path == "/targets":
		h.answer(w, inst, &statusJSON, r.URL.RawQuery)
	default:
		http.Error(w, fmt.Sprintf("There is no %q, want / or /targets.", r.URL.Path), http.StatusNotFound)
	}
}

// isMeant tells whether the client knows whom it talks to. A page from elsewhere could have its own name lead here (DNS
// rebinding), and would then be allowed to read the answer; its browser still sends that name.
func (h *statusHandler) isMeant(r *http.Request) bool {
	host := statusHost(r.Host)
	if addr, err := netip.ParseAddr(host); err == nil {
		local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		return ok && sameAddress(addr, local.AddrPort().Addr())
	}
	host = strings.TrimSuffix(host, ".")
	return strings.EqualFold(host, "localhost") || strings.EqualFold(host, strings.TrimSuffix(statusHost(h.address), "."))
}

func sameAddress(a, b netip.Addr) bool { return a.Unmap().WithZone("") == b.Unmap().WithZone("") }

// statusHost returns what is before the port. The port is the client's matter: a tunnel may have another one.
func statusHost(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostPort, "["), "]")
}

// statusFormat is a form in which targets are told of.
type statusFormat struct {
	contentType string
	parameters  []statusParameter
	// write writes what the query asks for, or what is wrong with it.
	write func(to *bytes.Buffer, header http.Header, inst *instance, q *statusQuery, problem error) error
}

var statusJSON = statusFormat{
	contentType: "application/json",
	parameters:  statusParameters,
	write: func(to *bytes.Buffer, _ http.Header, inst *instance, q *statusQuery, problem error) error {
		if problem != nil {
			return json.NewEncoder(to).Encode(statusProblem{statusVersion, problem.Error()})
		}
		v := inst.status()
		v.list(inst, q, false)
		return json.NewEncoder(to).Encode(v)
	},
}

// answer sends what is asked for. The header has nothing in it that is not to be sent with every answer.
func (h *statusHandler) answer(w http.ResponseWriter, inst *instance, format *statusFormat, rawQuery string) {
	q, problem := readStatusQuery(rawQuery, format.parameters)
	status := http.StatusOK
	if problem != nil {
		status = http.StatusBadRequest
	}
	body := h.make(w.Header(), inst, format, q, problem)
	w.Header().Set("Content-Type", format.contentType)
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	w.Write(body.Bytes()) // whether the client still listens is its own matter
}

// make returns the body of an answer. However slow the client is that gets it, others can be told already.
func (h *statusHandler) make(header http.Header, inst *instance, format *statusFormat, q *statusQuery, problem error) *bytes.Buffer {
	h.mu.Lock()
	defer h.mu.Unlock()
	body := new(bytes.Buffer)
	if err := format.write(body, header, inst, q, problem); err != nil {
		panic(err) // a buffer takes everything
	}
	return body
}
