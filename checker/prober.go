package checker

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Method is a way to check. The zero value is the best one that needs no privilege on this system.
type Method uint8

const (
	// MethodDefault is MethodSocket on Linux and MethodDial elsewhere.
	MethodDefault Method = iota
	// MethodSocket lets the kernel connect and cuts the handshake off before its last ACK. Linux only. The
	// kernel withholds that ACK for 200 ms. If the process is stopped or starved for as long, the handshake
	// completes.
	MethodSocket
	// MethodRaw sends SYNs of its own making. Linux only, with the capability CAP_NET_RAW in the user
	// namespace that the network namespace belongs to (capabilities(7)). A handshake never completes, not
	// even while the process is stopped, and a check in flight takes no descriptor. Its checks pass by the hooks
	// on connect(2) that some service meshes and load balancers in eBPF have.
	MethodRaw
	// MethodDial completes the handshake and resets the connection. It works everywhere. The application may
	// see a connection that is reset at once.
	MethodDial
)

// String returns the method's name as ParseMethod reads it.
func (m Method) String() string {
	switch m.actual() {
	case MethodSocket:
		return "socket"
	case MethodRaw:
		return "raw"
	case MethodDial:
		return "dial"
	default:
		return fmt.Sprintf("method %d", uint8(m))
	}
}

func (m Method) actual() Method {
	if m != MethodDefault {
		return m
	}
	if runtime.GOOS == "linux" || runtime.GOOS == "android" {
		return MethodSocket
	}
	return MethodDial
}

// ParseMethod reads the name of a method: "socket", "raw" or "dial".
func ParseMethod(name string) (Method, error) {
	for _, m := range []Method{MethodSocket, MethodRaw, MethodDial} {
		if name == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("checker: unknown method %q, want socket, raw or dial", name)
}

// Config is how a Prober checks. The zero value is the default.
type Config struct {
	Method Method
	// Pool is how many checks may be in flight at once. A check's further tries take places too, but no more than are
	// left over, and none is needed: without a place, a try takes that of its check's oldest try. Each holds a descriptor, so 0 stands for half of the
	// process's limit on open files, and for 16384 at most. With MethodRaw, where none does, it stands for
	// 262144.
	Pool int
	// Source has the local addresses to check from, one per family at most. Where there is none, the
	// kernel chooses. Check.Source goes before it.
	Source []netip.Addr
	// Interface is the network interface to check through, see SO_BINDTODEVICE in socket(7). Linux only.
	Interface string
	// Mark is the mark of all packets, for rules of the firewall and of routing, see SO_MARK in socket(7).
	// Linux only, with the capability CAP_NET_ADMIN, or CAP_NET_RAW from Linux 5.17 on.
	Mark uint32
	// Pace is asked before each SYN of a check but its first, if it is not nil, and returns how long that SYN has to wait:
	// a rate limiter's reservation. It must return at once. It is called from one goroutine, or from any with
	// MethodDial.
	Pace func() time.Duration

	clock func() time.Time     // nil for time.Now
	boot  func() time.Duration // nil for the system's
}

// sources is Config.Source by family.
type sources struct{ v4, v6 netip.Addr }

func (o *Config) sources() (s sources, err error) {
	for _, addr := range o.Source {
		family := &s.v6
		if addr = addr.Unmap(); addr.Is4() {
			family = &s.v4
		}
		if !addr.IsValid() || addr.Zone() != "" || family.IsValid() {
			return s, fmt.Errorf("checker: source %v: want at most one address per family, without a zone", addr)
		}
		*family = addr
	}
	return s, nil
}

// A Prober carries out checks for callers that have many of them and no goroutine to spend on each.
// All methods may be called from any goroutine.
type Prober struct {
	backend backend
	sources sources
	buffers sync.Pool // of *[]job, for Submit
}

type backend interface {
	// submit copies what it wants of jobs.
	submit(jobs []job) error
	// isBehind tells whether more checks wait than can be started within a moment, though not for places in the pool.
	isBehind() bool
	// cancel gives up the check of a waiter who is gone.
	cancel(w *waiter)
	// dismiss ends all checks of a session with ErrClosed. From then on submit refuses its checks.
	dismiss(s *session)
	// poller returns the descriptor of the epoll instance, or -1 where there is none.
	poller() int
	close()
	done() <-chan struct{}
	err() error
}

// NewProber starts a prober. It calls deliver with the reports of finished checks, one call at a time
// and from a goroutine of its own. The slice is reused after deliver returns. No answer is taken in
// while deliver runs, so it has to return within milliseconds.
func NewProber(o Config, deliver func([]Report)) (*Prober, error) {
	s, err := o.sources()
	if err != nil {
		return nil, err
	}
	var b backend
	switch o.Method.actual() {
	case MethodSocket:
		b, err = newSocketProber(o, deliver)
	case MethodRaw:
		b, err = newRawProber(o, deliver)
	case MethodDial:
		b, err = newDialProber(o, deliver)
	default:
		err = fmt.Errorf("checker: unknown method %d", o.Method)
	}
	if err != nil {
		return nil, err
	}
	return &Prober{backend: b, sources: s}, nil
}

// Submit queues checks and returns at once. Each of them is reported exactly once, unless the error
// is ErrClosed: then none is.
func (p *Prober) Submit(checks ...Check) error {
	buffer, ok := p.buffers.Get().(*[]job)
	if !ok {
		buffer = new([]job)
	}
	jobs := (*buffer)[:0]
	for _, c := range checks {
		j := p.sources.job(c)
		j.invalid = j.invalid || c.Target.Port() == 0
		jobs = append(jobs, j)
	}
	defer func() {
		clear(jobs) // what the backend wants of it is copied
		*buffer = jobs
		p.buffers.Put(buffer)
	}()
	return p.backend.submit(jobs)
}

// Behind tells whether more than 4096 checks wait for their turn although the pool has room for them. It is for who has more
// checks than can be carried out, and better sends them later: in line, the timeouts of all of them could pass.
func (p *Prober) Behind() bool { return p.backend.isBehind() }

// Close ends the prober. Checks that are not finished are reported as Inconclusive with ErrClosed.
// When Close returns, all sockets are closed, and deliver is not called any more. Closing twice does no
// harm. Close must not be called from within deliver.
func (p *Prober) Close() { p.backend.close() }

// Done is closed when the prober has ended, by Close or by a failure.
func (p *Prober) Done() <-chan struct{} { return p.backend.done() }

// Err returns the failure that ended the prober. It is nil before Done is closed, and after Close.
func (p *Prober) Err() error { return p.backend.err() }

// maxPool bounds the default pool. If as many addresses stay silent at the same time, they take about 40 MB of kernel
// memory.
const maxPool = 16384

// rawPool is the default pool of MethodRaw, where a check in flight holds memory and no descriptor.
const rawPool = 1 << 18

func poolSize(m Method, asked int) int {
	switch {
	case asked > 0:
		return asked
	case m == MethodRaw:
		return rawPool
	default:
		return max(1, min(maxPool, descriptorLimit()/2))
	}
}

// job is a Check made ready for the backends.
type job struct {
	Check
	scope   uint32 // interface index of a scoped IPv6 target
	invalid bool
	orderly bool // where the handshake is completed, close with FIN instead of RST
	waiter  *waiter
}

// job makes a check ready for a backend. It takes port 0 for a port like any other, as connect(2) does.
func (s sources) job(c Check) job {
	zone := c.Target.Addr().Zone()
	c.Target = netip.AddrPortFrom(c.Target.Addr().Unmap(), c.Target.Port())
	switch {
	case c.Source.IsValid():
		c.Source = c.Source.Unmap()
	case c.Target.Addr().Is4():
		c.Source = s.v4
	default:
		c.Source = s.v6
	}
	j := job{Check: c}
	j.invalid = !c.Target.IsValid() || c.Timeout <= 0 ||
		c.Source.IsValid() && c.Source.Is4() != c.Target.Addr().Is4()
	if zone != "" && !j.invalid {
		scope, err := zoneIndex(zone)
		j.scope, j.invalid = scope, err != nil
	}
	return j
}

func (j *job) newReport(r Result, err error) Report {
	return Report{Tag: j.Tag, Result: r, Err: err}
}

// panicError turns what recover returned into an error.
func panicError(v any) error {
	if err, ok := v.(error); ok {
		return fmt.Errorf("checker: panic: %w", err)
	}
	return fmt.Errorf("checker: panic: %s", strings.TrimSpace(fmt.Sprint(v)))
}
