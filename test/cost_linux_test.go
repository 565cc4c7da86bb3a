package test

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/coredns/coredns/plugin/pprof"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var profiles = flag.String("profiles", "", "a directory for CPU profiles of the servers that BenchmarkServers loads")

// costChain is plugins around shaker.
type costChain struct {
	name       string
	directives string // with FILE, UPSTREAM, METRICS and KEY in place of what only a run knows
	options    func(*dns.Msg)
	want       uint16 // records in the answer
}

var costChains = []costChain{
	{"file", "file FILE", plain, costAddresses},
	{"cache file", "cache\nfile FILE", plain, costAddresses},
	{"errors prometheus cache file", "errors\nprometheus METRICS\ncache\nfile FILE", plain, costAddresses},
	{
		"errors log prometheus loadbalance cache forward",
		"errors\nlog . {\nclass error\n}\nprometheus METRICS\nloadbalance\ncache\nforward . UPSTREAM", plain, costAddresses,
	},
	{"dnssec file", "dnssec {\nkey file KEY\n}\nfile FILE", withSignatures, costAddresses + 1},
	{"multisocket cache forward", "multisocket 2\ncache\nforward . UPSTREAM", plain, costAddresses},
	{"cache file, a type of no concern", "cache\nfile FILE", withTXT, 1},
}

func plain(*dns.Msg) {}

func withSignatures(q *dns.Msg) { q.SetEdns0(1232, true) }

func withTXT(q *dns.Msg) { q.Question[0].Qtype = dns.TypeTXT }

// costTTLs are those of the records that are asked for: one that stays, and one that shaker lowers.
var costTTLs = []int{30, 300}

// BenchmarkServers is the CPU time that a server with shaker takes for each query, in relation to one without, where all
// four addresses of the name are up. The servers are processes on one core, loaded at the same time from another, so that
// what else the machine does gets in the way of both. Each iteration is a few rounds; what is told is their median.
// "control" has shaker in neither server: what it differs from 1 is the noise.
//
//	go test ./test -run '^$' -bench Servers -benchtime 20x
//
// What the time is spent on, a profile of each server tells:
//
//	go test ./test -run '^$' -bench 'Servers/cache_file/ttl=30' -benchtime 20x -profiles /tmp
//	go tool pprof -top -cum -focus newstack '/tmp/cache file, ttl 30, with.pprof'
//
// is how much of it goes into stacks that grow.
func BenchmarkServers(b *testing.B) {
	server, client := twoCores(b)
	f := newCostFarm(b)
	b.Run("control", func(b *testing.B) { f.compare(b, costChains[0], costTTLs[0], server, client, false) })
	for _, chain := range costChains {
		for _, ttl := range costTTLs {
			b.Run(fmt.Sprintf("%s/ttl=%d", chain.name, ttl), func(b *testing.B) { f.compare(b, chain, ttl, server, client, true) })
		}
	}
}

// twoCores returns the cores for the servers and for their clients.
func twoCores(b *testing.B) (server, client int) {
	b.Helper()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		b.Skip(err)
	}
	if all.Count() < 2 {
		b.Skip("servers and clients need a core each, and there is one for both")
	}
	var cores []int
	for core := 0; len(cores) < 2; core++ {
		if all.IsSet(core) {
			cores = append(cores, core)
		}
	}
	return cores[0], cores[1]
}

// pin has all threads of a process run on these cores only.
func pin(pid int, cores unix.CPUSet) error {
	for {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		changed := false
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			var have unix.CPUSet
			err = unix.SchedGetaffinity(tid, &have)
			if err == nil && have != cores {
				changed = true
				err = unix.SchedSetaffinity(tid, &cores)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		// A thread that another one has started in the meantime runs where that did.
		if !changed {
			return nil
		}
	}
}

// costFarm is what both servers have in common.
type costFarm struct {
	*farm
	zone string // path of the zone file
	key  *zoneKey
}

const (
	costAddresses = 4
	costDead      = "127.0.14.5" // nobody listens there
)

func newCostFarm(b *testing.B) *costFarm {
	b.Helper()
	f := &costFarm{farm: newFarm(b, "127.0.14.1", "127.0.14.2", "127.0.14.3", "127.0.14.4"), key: newZoneKey(b)}
	var zone strings.Builder
	zone.WriteString("@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n")
	fmt.Fprintf(&zone, "proof 30 IN A %s\nproof 30 IN A %s\n", f.addrs[0], costDead)
	for _, ttl := range costTTLs {
		for _, addr := range f.addrs {
			fmt.Fprintf(&zone, "t%d %d IN A %s\n", ttl, ttl, addr)
		}
		fmt.Fprintf(&zone, "t%d %d IN TXT text\n", ttl, ttl)
	}
	f.zone = lab.File(b, "db.example.org", zone.String())
	return f
}

// compare reports the ratio of two servers with one chain.
func (f *costFarm) compare(b *testing.B, chain costChain, ttl, serverCore, clientCore int, shaken bool) {
	b.Helper()
	pinSelf(b, clientCore)
	without, with := f.start(b, chain, false, serverCore), f.start(b, chain, shaken, serverCore)
	query := costQuery(b, ttl, chain.options)
	without.connect(query, chain.want)
	with.connect(query, chain.want)
	round(b, without, with, time.Second/2) // caches fill, and verdicts come in
	saved := saveProfiles(b, without, with, fmt.Sprintf("%s, ttl %d", chain.name, ttl))
	var ratios, costs []float64
	b.ResetTimer()
	for b.Loop() {
		for range 5 {
			w, o := round(b, with, without, 200*time.Millisecond)
			ratios, costs = append(ratios, w/o), append(costs, o)
		}
	}
	b.StopTimer()
	saved()
	b.ReportMetric(0, "ns/op") // they are those of rounds
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(costs)/1e3, "µs/query-without")
}

// median sorts the numbers.
func median(numbers []float64) float64 {
	slices.Sort(numbers)
	return numbers[len(numbers)/2]
}

// pinSelf has this process run on one core until the end of the benchmark.
func pinSelf(b *testing.B, core int) {
	b.Helper()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		b.Skip(err)
	}
	only.Set(core)
	if err := pin(os.Getpid(), only); err != nil {
		b.Skipf("this process cannot be pinned to a core: %v", err)
	}
	b.Cleanup(func() {
		if err := pin(os.Getpid(), before); err != nil {
			b.Error(err)
		}
	})
}

// costServer is a server under load.
type costServer struct {
	*process
	pprof string // address
	loads []*stream
}

// start starts a server on one core.
func (f *costFarm) start(b *testing.B, chain costChain, shaken bool, core int) *costServer {
	b.Helper()
	directives := strings.NewReplacer("FILE", f.zone, "METRICS", local(b), "KEY", f.key.base).Replace(chain.directives)
	if strings.Contains(directives, "UPSTREAM") {
		upstream := start(b, "example.org:0 {\nbind 127.0.0.1\nfile "+f.zone+"\n}\n")
		directives = strings.ReplaceAll(directives, "UPSTREAM", upstream.addr)
	}
	if shaken {
		directives += fmt.Sprintf("\nshaker {\nport %d\nallow 127.0.0.0/8\n}", f.port)
	}
	s := &costServer{pprof: local(b)}
	if *profiles != "" {
		directives += "\npprof " + s.pprof
	}
	address := local(b)
	_, port, _ := net.SplitHostPort(address)
	s.process = startProcess(b, "", address, fmt.Sprintf("example.org:%s {\nbind 127.0.0.1\n%s\n}\n", port, directives), "GOMAXPROCS=1")
	var only unix.CPUSet
	only.Set(core)
	if err := pin(s.PID(), only); err != nil {
		b.Skipf("a server cannot be pinned to a core: %v", err)
	}
	if shaken {
		// Addresses are checked, and some are up.
		s.until("proof.example.org.", dns.TypeA, f.addrs[:1])
	}
	return s
}

// clients is how many ask a server at the same time, each in so many queries at once.
const (
	clients = 8
	window  = 4
)

// stream is a client that always has some queries on their way.
type stream struct {
	conn     net.Conn
	query    []byte
	want     uint16 // records in the answer
	answered int
	err      error
}

// costQuery returns a query on the wire.
func costQuery(b *testing.B, ttl int, options func(*dns.Msg)) []byte {
	b.Helper()
	q := new(dns.Msg)
	q.SetQuestion(fmt.Sprintf("t%d.example.org.", ttl), dns.TypeA)
	options(q)
	wire, err := q.Pack()
	if err != nil {
		b.Fatal(err)
	}
	return wire
}

// connect opens the sockets for the load.
func (s *costServer) connect(query []byte, want uint16) {
	s.server.t.Helper()
	for range clients {
		conn, err := net.Dial("udp", s.addr)
		if err != nil {
			s.server.t.Fatal(err)
		}
		s.server.t.Cleanup(func() { conn.Close() })
		s.loads = append(s.loads, &stream{conn: conn, query: slices.Clone(query), want: want})
	}
}

// round loads both servers for a while, and returns how many nanoseconds of CPU time each took for an answer.
func round(b *testing.B, x, y *costServer, long time.Duration) (costX, costY float64) {
	b.Helper()
	usedX, usedY := x.cpu(), y.cpu()
	until := time.Now().Add(long)
	var wg sync.WaitGroup
	for _, l := range slices.Concat(x.loads, y.loads) {
		wg.Go(func() { l.run(until) })
	}
	wg.Wait()
	return float64(x.cpu()-usedX) / x.answered(), float64(y.cpu()-usedY) / y.answered()
}

// answered returns how many queries were answered in the round that is over.
func (s *costServer) answered() float64 {
	s.server.t.Helper()
	n := 0
	for _, l := range s.loads {
		if l.err != nil {
			s.server.t.Fatal(l.err)
		}
		n += l.answered
	}
	if n == 0 {
		s.server.t.Fatal("nothing was answered")
	}
	return float64(n)
}

// cpu returns the CPU time that the process has used. Its clock has a number that is made of the process's own
// (clock_getcpuclockid(3); include/linux/posix-timers.h, CPUCLOCK_SCHED).
func (s *costServer) cpu() time.Duration {
	s.server.t.Helper()
	const sched = 2
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^s.PID()<<3|sched), &used); err != nil {
		s.server.t.Fatal(err)
	}
	return time.Duration(used.Nano())
}

// run asks until the time is over, and all that was asked is answered.
func (l *stream) run(until time.Time) {
	l.answered, l.err = 0, l.conn.SetDeadline(until.Add(patience))
	for id := range window {
		l.ask(uint16(id))
	}
	var answer [1500]byte
	for open := window; open > 0 && l.err == nil; {
		n, err := l.conn.Read(answer[:])
		switch {
		case err != nil:
			l.err = err
		case n < 12 || answer[3]&0xf != dns.RcodeSuccess || binary.BigEndian.Uint16(answer[6:]) != l.want:
			l.err = fmt.Errorf("answered with % x", answer[:n])
		case time.Now().Before(until):
			l.answered++
			l.ask(binary.BigEndian.Uint16(answer[:]))
		default:
			l.answered++
			open--
		}
	}
}

func (l *stream) ask(id uint16) {
	binary.BigEndian.PutUint16(l.query, id)
	if _, err := l.conn.Write(l.query); err != nil && l.err == nil {
		l.err = err
	}
}

// saveProfiles begins to profile both servers, if that is wanted. The returned function waits for the end.
func saveProfiles(b *testing.B, without, with *costServer, name string) (saved func()) {
	b.Helper()
	if *profiles == "" {
		return func() {}
	}
	var wg sync.WaitGroup
	for suffix, s := range map[string]*costServer{"without": without, "with": with} {
		wg.Go(func() {
			if err := s.profile(filepath.Join(*profiles, name+", "+suffix+".pprof")); err != nil {
				b.Error(err)
			}
		})
	}
	return wg.Wait
}

// profileSeconds is how long a profile takes. A shorter benchmark waits for it.
const profileSeconds = 10

// profile writes a CPU profile of the server.
func (s *costServer) profile(path string) error {
	answer, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.pprof, profileSeconds))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
