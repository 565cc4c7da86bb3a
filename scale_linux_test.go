package shaker

import (
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unique"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/status"
)

var scaleFor = flag.Duration("scale", 0,
	"how long each case of BenchmarkScale takes, and 100 000 and 1 000 000 targets besides the small case; 1m is what docs/scale.md has")

// scale is a table of targets that are all checked for a while.
type scale struct {
	targets  int
	interval time.Duration
	watched  onlookers
}

// onlookers are who looks meanwhile: at the first status page every 10 s, and at the metrics every 15 s.
type onlookers int

const (
	nobody onlookers = iota
	page             // the page, and the metrics of all targets together
	series           // and the metrics of each target
)

func (s scale) String() string {
	watched := [...]string{nobody: "", page: ", watched", series: ", with metrics of targets"}[s.watched]
	return fmt.Sprintf("%d targets each %v%s", s.targets, s.interval, watched)
}

// BenchmarkScale has the whole engine check living targets with method raw, on one core, and tells how late the checks
// were and what they took. The targets are addresses of loopback, so the same core also makes all answers. An operation
// is one run. It takes root:
//
//	go test -run '^$' -bench Scale -benchtime 1x -scale 1m .
func BenchmarkScale(b *testing.B) {
	small := scale{targets: 10_000, interval: 2 * time.Second}
	cases := []scale{small}
	if *scaleFor > 0 {
		for _, s := range []scale{{targets: 100_000, interval: 2 * time.Second}, {targets: 1_000_000, interval: 20 * time.Second}} {
			for _, s.watched = range []onlookers{nobody, page, series} {
				cases = append(cases, s)
			}
		}
	}
	for _, s := range cases {
		b.Run(s.String(), func(b *testing.B) {
			lab.Bench(b, func(b *testing.B, _ *lab.Lab) {
				useOneCore(b)
				for range b.N {
					s.run(b, max(*scaleFor, time.Second))
				}
			})
		})
	}
}

// useOneCore keeps all threads of this process, and those to come, on one core.
func useOneCore(b *testing.B) {
	b.Helper()
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		b.Fatal(err)
	}
	last := 0
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			last = cpu
		}
	}
	one.Set(last)
	runtime.GOMAXPROCS(1)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		b.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err == nil {
			err = unix.SchedSetaffinity(id, &one)
		}
		if err != nil && err != unix.ESRCH {
			b.Fatal(err)
		}
	}
}

// run measures one run of so long, once all targets have their places in the schedule.
func (s scale) run(b *testing.B, long time.Duration) {
	m := newScaleMonitor(b, s)
	time.Sleep(s.interval)
	looks := map[string]*quantiles{}
	ended := make(chan struct{})
	var watchers sync.WaitGroup
	if s.watched != nobody {
		looks["page"], looks["scrape"] = newQuantiles(), newQuantiles()
		watchers.Go(func() { s.look(b, m.Monitor, looks, ended) })
	}
	failed := failedChecks()
	m.late.on.Store(true)
	begun, cpu := time.Now(), processTime(b)
	time.Sleep(long)
	took, used := time.Since(begun), processTime(b)-cpu
	m.late.on.Store(false)
	b.StopTimer()
	close(ended)
	watchers.Wait()
	b.ReportMetric(float64(lab.HeapInUse()-m.heap)/float64(s.targets), "B/target")
	if c := m.Counts(); c.Up != s.targets || failedChecks() > failed {
		b.Errorf("%+v and %v failed checks, want all to be up, and no check to fail", c, failedChecks()-failed)
	}
	m.end()
	b.ReportMetric(float64(m.late.n)/took.Seconds(), "checks/s")
	b.ReportMetric(100*used.Seconds()/took.Seconds(), "%core")
	b.ReportMetric(m.late.at(0.5), "ms-late-p50")
	b.ReportMetric(m.late.at(0.99), "ms-late-p99")
	b.ReportMetric(m.late.at(1), "ms-late-max")
	b.ReportMetric(m.handOver.at(0.99), "ms-handover-p99")
	for name, q := range looks {
		b.ReportMetric(q.at(1), "ms-"+name+"-max")
	}
}

// scaleMonitor is a monitor as the engine has it, with its journal, metrics and prober. It measures itself besides.
type scaleMonitor struct {
	*health.Monitor
	prober         *checker.Prober
	journal        *journal
	heap           int // in use before
	late, handOver *quantiles

	// sample is a target whose check is under way, nil if none is, and submitted is when that was handed to the prober.
	sample    atomic.Pointer[health.Target]
	submitted time.Time
}

// rate returns the bound of checks per second. They need nine tenths of their intervals on average, and some more room to
// catch up.
func (s scale) rate() int { return int(1.25 * float64(s.targets) / (0.9 * s.interval.Seconds())) }

// newScaleMonitor returns one with all targets up.
func newScaleMonitor(b *testing.B, s scale) *scaleMonitor {
	b.Helper()
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	m := &scaleMonitor{late: newQuantiles(), handOver: newQuantiles(), journal: newJournal(events.New())}
	m.late.on.Store(false)
	m.heap = lab.HeapInUse()
	m.Monitor = health.New(health.Options{Targets: s.targets, Rate: s.rate(), Listener: m.journal, Late: func(d time.Duration) {
		checkDelay.Observe(d.Seconds())
		m.late.add(d)
	}})
	m.SetFreeze(defaultFreeze.percent, defaultFreeze.most)
	key, port := unique.Make(health.Settings{Interval: s.interval}), listener.Addr().(*net.TCPAddr).AddrPort().Port()
	for i := range s.targets {
		addr := netip.AddrFrom4([4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)})
		m.Target(netip.AddrPortFrom(addr, port), key, 24*time.Hour).AddName(fmt.Sprintf("t%d.example.org.", i))
	}
	if m.prober, err = checker.NewProber(checker.Config{Method: checker.MethodRaw}, m.deliver); err != nil {
		b.Fatal(err)
	}
	m.SetProber(m)
	lab.Until(b, "all targets to be up", func() bool { return m.Counts().Up == s.targets })
	return m
}

func (m *scaleMonitor) end() {
	m.SetProber(nil)
	m.prober.Close()
	m.Close()
	m.journal.close()
}

// Submit implements health.Prober. It looks at the last check of a batch, the one that waits longest for its turn.
func (m *scaleMonitor) Submit(checks ...checker.Check) error {
	if m.late.on.Load() && m.sample.Load() == nil {
		m.submitted = time.Now()
		m.sample.Store(checks[len(checks)-1].Tag.(*health.Target))
	}
	return m.prober.Submit(checks...)
}

// deliver passes reports on. What a check took besides its round trip went into handing it over, there and back.
func (m *scaleMonitor) deliver(reports []checker.Report) {
	if sample := m.sample.Load(); sample != nil {
		for i := range reports {
			if reports[i].Tag == any(sample) {
				m.handOver.add(time.Since(m.submitted) - reports[i].RTT)
				m.sample.Store(nil)
				break
			}
		}
	}
	m.Deliver(reports)
}

// failedChecks returns how many checks had another result than an answer, and how many targets went down, in this process.
func failedChecks() (n float64) {
	for r, counter := range checksBy {
		if r != checker.Answered {
			n += testutil.ToFloat64(counter)
		}
	}
	return n + testutil.ToFloat64(changesTo[health.Down])
}

func processTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quantiles counts durations in steps of 0.1 ms, up to 20 s. One goroutine may add to it, while it is on.
type quantiles struct {
	on    atomic.Bool
	n     int
	steps [200_000]uint32
}

func newQuantiles() *quantiles {
	q := new(quantiles)
	q.on.Store(true)
	return q
}

const quantileStep = 100 * time.Microsecond

func (q *quantiles) add(d time.Duration) {
	if q.on.Load() {
		q.n++
		q.steps[min(int(max(d, 0)/quantileStep), len(q.steps)-1)]++
	}
}

// at returns the upper end of the step in which the quantile is, in milliseconds.
func (q *quantiles) at(part float64) float64 {
	need := int(math.Ceil(part * float64(q.n)))
	for i, n := range q.steps {
		if need -= int(n); need <= 0 {
			return float64(i+1) / float64(time.Millisecond/quantileStep)
		}
	}
	return math.Inf(1)
}

// look looks at the first status page and at the metrics again and again. Both come over HTTP, as CoreDNS serves them.
func (s scale) look(b *testing.B, m *health.Monitor, took map[string]*quantiles, ended <-chan struct{}) {
	registry := prometheus.NewRegistry()
	monitor := func() *health.Monitor { return m }
	registry.MustRegister(newTargetsCollector(monitor))
	if s.watched == series {
		registry.MustRegister(newTargetCollector(monitor))
	}
	metrics := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer metrics.Close()
	const address = "127.0.0.1:8053"
	server, err := status.Open(address, func() *status.Subject { return &status.Subject{Monitor: m, Limit: m.Len() + 1} },
		status.Listener{Infof: func(string, ...any) {}, Errorf: b.Errorf, Recovered: func(where string, reason any) { b.Error(where, reason) }})
	if err != nil {
		b.Error(err)
		return
	}
	defer server.Close()
	var looking sync.WaitGroup
	every := func(pause time.Duration, name, url string) {
		looking.Go(func() {
			for {
				begun := time.Now()
				if err := fetch(url); err != nil {
					b.Error(err)
				}
				took[name].add(time.Since(begun))
				select {
				case <-ended:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	every(10*time.Second, "page", "http://"+address+"/")
	every(15*time.Second, "scrape", metrics.URL)
	looking.Wait()
}

func fetch(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err = io.Copy(io.Discard, response.Body); err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return err
}
