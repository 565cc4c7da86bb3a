package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	// defaultServer is where the examples of shaker have the status server.
	defaultServer = "http://127.0.0.1:8053"
	defaultPort   = "8053"
	// maxAnswer bounds an answer, in octets. The largest are a thousand targets with long names, and what
	// explains a message of 64 KiB.
	maxAnswer = 16 << 20
	// maxHeader bounds its header.
	maxHeader = 64 << 10
	// maxProblem bounds what is shown of an answer that is a mistake, in characters.
	maxProblem = 500
)

// client asks a status server.
type client struct {
	base    *url.URL
	http    *http.Client
	timeout time.Duration // until an answer is there
}

func (p *program) client(s *settings) (*client, error) {
	where, from := s.server, "-server"
	if where == "" {
		where, from = p.env("SHAKER_SERVER"), "SHAKER_SERVER"
	}
	base, err := parseServer(cmp.Or(where, defaultServer))
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", from, err), s.command}
	}
	return &client{base: base, timeout: s.timeout, http: &http.Client{
		// What is elsewhere is not asked: nobody chose it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment, // which is none for loopback addresses
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
		},
	}}, nil
}

// parseServer reads the address of a status server: a URL, or a host, with or without a port.
func parseServer(text string) (*url.URL, error) {
	const want = "want a URL such as http://127.0.0.1:8053, or HOST:PORT"
	full := text
	if !strings.Contains(text, "://") {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Is6() {
			full = "[" + text + "]"
		}
		full = "http://" + full
	}
	u, err := url.Parse(full)
	switch {
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "unix:"):
		return nil, fmt.Errorf("%q is a socket in the file system, %s", text, want)
	case err != nil, u.Hostname() == "", u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("%q is not the address of a server, %s", text, want)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q is not possible, want http or https: %s", u.Scheme+"://", want)
	}
	if full != text && u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), defaultPort)
	}
	return u, nil
}

// String returns where the server is, without a password.
func (c *client) String() string { return c.base.Redacted() }

// refusal is an answer that says why there is none.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// get asks for something, and returns the answer. The error says what was wrong and what would be right.
func (c *client) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	response, err := c.open(ctx, path, query, "application/json")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, c.unreachable(err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s: the answer has more than %d octets, want fewer targets at a time", c, maxAnswer)
	}
	return body, nil
}

// open begins to receive what is asked for. Whoever calls it closes the body.
func (c *client) open(ctx context.Context, path string, query url.Values, contentType string) (*http.Response, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "shaker")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	got, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case response.StatusCode != http.StatusOK:
		err = c.refused(response, path)
	case got != contentType:
		err = fmt.Errorf("what answers at %s is not the status server of shaker: it sends %q, want %s; -server and SHAKER_SERVER say where that is", c,
			bounded(got, maxProblem), contentType)
	default:
		return response, nil
	}
	response.Body.Close()
	return nil, err
}

// unreachable tells of a server that did not answer.
func (c *client) unreachable(err error) error {
	var op *net.OpError
	var wrapped *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s has not answered within %v; -timeout gives it longer", c, c.timeout)
	case errors.As(err, &op):
		err = op.Err
	case errors.As(err, &wrapped):
		err = wrapped.Err
	}
	return fmt.Errorf("cannot reach %s: %w; want the address in the property status of the Corefile, by -server or SHAKER_SERVER", c, err)
}

// refused tells of an answer that is none.
func (c *client) refused(response *http.Response, path string) error {
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		return fmt.Errorf("%s leads on to %q, want the address of the status server itself", c, bounded(response.Header.Get("Location"), maxProblem))
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10)) // what there is of it
	var said struct {
		Error string `json:"error"`
	}
	text := strings.TrimSpace(string(body))
	isOurs := json.Unmarshal(body, &said) == nil && said.Error != ""
	if isOurs {
		text = said.Error
	}
	text = clean(bounded(text, maxProblem)) // on a single line
	switch after := response.Header.Get("Retry-After"); {
	case response.StatusCode == http.StatusNotFound && !isOurs:
		text = fmt.Sprintf("%s has no %s, want the status server of a shaker that is not older than this client: %s", c, path, text)
	case response.StatusCode == http.StatusTooManyRequests && after != "":
		text = fmt.Sprintf("%s says %q, want a pause of %s seconds", c, text, bounded(after, 20))
	case !isOurs:
		text = fmt.Sprintf("%s answers with status %d: %s", c, response.StatusCode, text)
	}
	return &refusal{response.StatusCode, text}
}

// protocol is the version of the JSON that this client knows.
const protocol = 1

// ask gets an answer and takes it apart. It also returns it as it came.
func (c *client) ask(ctx context.Context, path string, query url.Values, to any) ([]byte, error) {
	body, err := c.get(ctx, path, query)
	if err != nil {
		return nil, err
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(body, &head); err == nil && head.Version != protocol {
		return nil, fmt.Errorf("%s speaks version %d of its JSON, want %d: take the client that belongs to it", c, head.Version, protocol)
	}
	if err := json.Unmarshal(body, to); err != nil {
		return nil, fmt.Errorf("%s: the answer to %s is not what it should be: %w", c, path, err)
	}
	return body, nil
}
