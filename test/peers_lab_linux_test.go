package test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var fullLab = flag.Bool("full", false, "have the labs of several replicas take the times that the design gives, not short ones")

// lasting returns how long something lasts: briefly, but with -full as long as the design says.
func lasting(briefly, full time.Duration) time.Duration {
	if *fullLab {
		return full
	}
	return briefly
}

// Where each replica serves, on a host of its own.
const (
	groupDNS     = 1053
	groupPage    = 8053
	groupReady   = 8181
	groupMetrics = 9153
	groupPeers   = 7946
)

// group is the replicas of a service, each a CoreDNS on a host of its own, and the racks that they check. All hosts are
// linked to the machine of the test, which is the switch between them. So the test can look at each replica and ask it,
// whatever it blocks.
type group struct {
	t *testing.T
	l *lab.Lab
	plan
	pulse    pulse
	racks    []*lab.Host
	replicas []*node
	names    []string
	members  map[string][]netip.Addr // by name
	addrs    []netip.Addr            // of all racks

	mu     sync.Mutex
	dead   map[netip.Addr]bool // what is expected to be down
	blocks map[string][]string // rules of the switch, by what they are for
}

// plan is what a group is made of.
type plan struct {
	replicas int
	racks    int // 4 where it is 0
	perRack  int // addresses of each family, 25 where it is 0
	alone    bool
	six      bool // they speak to each other over IPv6, see overFamilies
	// properties are of all replicas, beside those for peers. Without some they are of quick checks.
	properties string
	// more are lines for one replica only.
	more func(i int) string
	// asked tells that names are not watched, and so are checked when somebody asks only.
	asked bool
}

// What the checks of a group are without other properties, and how long they take at most to notice, by docs/intervals.md.
const (
	groupChecks    = "interval 500ms 100ms\ntimeout 200ms"
	refusalNoticed = 700 * time.Millisecond
	silenceNoticed = 1100 * time.Millisecond
)

// newGroup makes the hosts, and starts nothing.
func newGroup(t *testing.T, l *lab.Lab, p plan) *group {
	t.Helper()
	if p.racks == 0 {
		p.racks = 4
	}
	if p.perRack == 0 {
		p.perRack = 25
	}
	if p.properties == "" {
		p.properties = groupChecks
	}
	g := &group{
		t: t, l: l, plan: p,
		members: make(map[string][]netip.Addr),
		dead:    make(map[netip.Addr]bool),
		blocks:  make(map[string][]string),
	}
	l.Sysctl("net.ipv4.ip_forward", "1")
	l.Sysctl("net.ipv6.conf.all.forwarding", "1")
	const perName = 5 // of each family
	for r := range p.racks {
		h := l.Host(fmt.Sprintf("rack%d", r+1))
		h.Listen(443)
		g.racks = append(g.racks, h)
		four, six := h.Addrs4(p.perRack), h.Addrs6(p.perRack)
		g.addrs = append(append(g.addrs, four...), six...)
		for i := range p.perRack {
			// Each name has addresses in all racks.
			name := fmt.Sprintf("www%d.example.org.", (i+r*p.perRack)%max(1, p.racks*p.perRack/perName))
			g.members[name] = append(g.members[name], four[i], six[i])
		}
	}
	g.names = slices.Sorted(maps.Keys(g.members))
	for i := range p.replicas {
		r := &node{g: g, i: i, name: fmt.Sprintf("r%d", i+1), host: l.Host(fmt.Sprintf("r%d", i+1)), dir: t.TempDir()}
		r.writeKeys(groupKey)
		g.replicas = append(g.replicas, r)
	}
	g.countSYNs()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { g.pulse.run(stop); close(stopped) }()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		for _, r := range g.replicas {
			r.kill()
		}
	})
	return g
}

// zone is what all replicas serve.
func (g *group) zone() string {
	var b strings.Builder
	b.WriteString("@ IN SOA ns hostmaster 1 2 3 4 5\n")
	for _, name := range g.names {
		for _, addr := range g.members[name] {
			rrtype := "A"
			if addr.Is6() {
				rrtype = "AAAA"
			}
			fmt.Fprintf(&b, "%s 60 IN %s %v\n", name, rrtype, addr)
		}
	}
	return b.String()
}

// startAll starts all replicas at the same time, and returns when all are ready, and have been asked for all names.
func (g *group) startAll() {
	g.t.Helper()
	for _, r := range g.replicas {
		r.launch()
	}
	for _, r := range g.replicas {
		r.awaitServing()
		r.awaitReady()
		r.wrongAnswers()
	}
}

// running are the replicas that are there, and not stopped.
func (g *group) running() (all []*node) {
	for _, r := range g.replicas {
		if r.p != nil && !r.paused {
			all = append(all, r)
		}
	}
	return all
}

// block has the switch drop, or do something else with, what the rules of nft(8) match. They are in force until unblock is
// called with the same name.
func (g *group) block(name string, rules ...string) {
	g.t.Helper()
	g.mu.Lock()
	g.blocks[name] = rules
	lines := g.switchLines()
	g.mu.Unlock()
	g.l.NFT(lines...)
}

func (g *group) unblock(name string) {
	g.t.Helper()
	g.mu.Lock()
	delete(g.blocks, name)
	lines := g.switchLines()
	g.mu.Unlock()
	g.l.NFT(lines...)
}

// switchLines are all rules of the switch. What goes from or to the test itself is not forwarded, and so not in them.
func (g *group) switchLines() []string {
	lines := []string{
		"add table inet switch", "delete table inet switch",
		"table inet switch {", "chain forward {", "type filter hook forward priority 10;",
	}
	for _, name := range slices.Sorted(maps.Keys(g.blocks)) {
		lines = append(lines, g.blocks[name]...)
	}
	return append(lines, "}", "}")
}

// cut are the rules that cut the uplink of a host.
func cut(host *lab.Host) []string {
	return []string{fmt.Sprintf("iifname %q drop", host.Name), fmt.Sprintf("oifname %q drop", host.Name)}
}

// between are rules that drop what goes from some to others.
func between(from, to []*lab.Host) []string {
	return []string{fmt.Sprintf("iifname %s oifname %s drop", interfaces(from), interfaces(to))}
}

func interfaces(hosts []*lab.Host) string {
	var names []string
	for _, h := range hosts {
		names = append(names, fmt.Sprintf("%q", h.Name))
	}
	return "{ " + strings.Join(names, ", ") + " }"
}

// split are the rules that let some replicas and the others hear nothing of each other.
func (g *group) split(n int) []string {
	var one, other []*lab.Host
	for _, r := range g.replicas {
		if r.i < n {
			one = append(one, r.host)
		} else {
			other = append(other, r.host)
		}
	}
	return append(between(one, other), between(other, one)...)
}

// silence lets targets hear nothing, and refuse has them refuse. Both are expected to be down from now on.
func (g *group) silence(addrs ...netip.Addr) {
	g.t.Helper()
	g.die(addrs)
	g.block("silent "+addrs[0].String(), forAddresses(addrs, "drop")...)
}

func (g *group) refuse(addrs ...netip.Addr) {
	g.t.Helper()
	g.die(addrs)
	g.block("refuse "+addrs[0].String(), forAddresses(addrs, "reject with tcp reset")...)
}

// revive ends what silence or refuse has done to the same addresses.
func (g *group) revive(addrs ...netip.Addr) {
	g.t.Helper()
	g.unblock("silent " + addrs[0].String())
	g.unblock("refuse " + addrs[0].String())
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, addr := range addrs {
		delete(g.dead, addr)
	}
}

func (g *group) die(addrs []netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, addr := range addrs {
		g.dead[addr] = true
	}
}

func (g *group) isDead(addr netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead[addr]
}

func forAddresses(addrs []netip.Addr, verdict string) (rules []string) {
	var four, six []string
	for _, addr := range addrs {
		if addr.Is4() {
			four = append(four, addr.String())
		} else {
			six = append(six, addr.String())
		}
	}
	if len(four) > 0 {
		rules = append(rules, "ip daddr { "+strings.Join(four, ", ")+" } tcp dport 443 "+verdict)
	}
	if len(six) > 0 {
		rules = append(rules, "ip6 daddr { "+strings.Join(six, ", ")+" } tcp dport 443 "+verdict)
	}
	return rules
}

// pick returns n addresses of each family of a rack, after the first skip of each.
func (g *group) pick(rack, skip, n int) []netip.Addr {
	h := g.racks[rack]
	return append(slices.Clone(h.Addrs4(skip + n)[skip:]), h.Addrs6(skip + n)[skip:]...)
}

// countSYNs makes a counter for each replica of the SYNs that it sends to racks.
func (g *group) countSYNs() {
	lines := []string{"table inet syns {"}
	for _, r := range g.replicas {
		lines = append(lines, "counter "+r.name+" {", "}")
	}
	lines = append(lines, "chain forward {", "type filter hook forward priority 0;")
	for _, r := range g.replicas {
		lines = append(lines, fmt.Sprintf("iifname %q tcp dport 443 tcp flags & (syn|ack|rst) == syn counter name %q", r.name, r.name))
	}
	g.l.NFT(append(lines, "}", "}")...)
}

// syns returns how many SYNs all replicas together have sent to racks.
func (g *group) syns() int {
	g.t.Helper()
	_, packets := g.countedBySwitch("syns")
	return packets
}

// countedBySwitch sums up the counters of a table of the switch.
func (g *group) countedBySwitch(table string) (octets, packets int) {
	g.t.Helper()
	text, err := exec.Command("nft", "-j", "list", "counters", "table", "inet", table).Output()
	if err != nil {
		g.t.Fatal(err)
	}
	var list struct {
		NFTables []struct{ Counter *struct{ Packets, Bytes int } }
	}
	if err := json.Unmarshal(text, &list); err != nil {
		g.t.Fatal(err)
	}
	for _, entry := range list.NFTables {
		if entry.Counter != nil {
			octets, packets = octets+entry.Counter.Bytes, packets+entry.Counter.Packets
		}
	}
	return octets, packets
}

// untilRight waits until every replica that runs has the verdicts that it should have, and returns how long that took.
func (g *group) untilRight() time.Duration {
	g.t.Helper()
	began := time.Now()
	lab.UntilNil(g.t, func() error {
		for _, r := range g.running() {
			if err := r.wrong(); err != nil {
				return err
			}
		}
		return nil
	})
	return time.Since(began)
}

// untilKnown waits until every replica that runs hears of all others that run, and of no more.
func (g *group) untilKnown() time.Duration {
	g.t.Helper()
	began := time.Now()
	lab.UntilNil(g.t, func() error {
		want := len(g.running())
		for _, r := range g.running() {
			if alive := r.peers().alive(); alive != want {
				return fmt.Errorf("%s hears of %d members, want %d", r.name, alive, want)
			}
		}
		return nil
	})
	return time.Since(began)
}

// untilShared waits until each target is checked by so many replicas, and returns how long that took.
func (g *group) untilShared(observers int) time.Duration {
	g.t.Helper()
	began := time.Now()
	lab.UntilNil(g.t, func() error {
		var each []int
		sum := 0
		for _, r := range g.running() {
			n := int(r.counted("coredns_shaker_peers_observed_targets"))
			each = append(each, n)
			sum += n
		}
		if want := observers * len(g.addrs); sum != want {
			return fmt.Errorf("the replicas check %v targets, %d in all, want %d", each, sum, want)
		}
		return nil
	})
	return time.Since(began)
}

// untilWell waits until all members know each other, share the work, and have the right verdicts.
func (g *group) untilWell() {
	g.t.Helper()
	if !g.alone {
		g.untilKnown()
		g.untilShared(min(3, len(g.running())))
	}
	g.untilRight()
}

// node is a CoreDNS of a group.
type node struct {
	g    *group
	i    int
	name string
	host *lab.Host
	dir  string

	alone  bool     // it has no peers
	p      *process // nil while it does not run
	paused bool
	follow *follower
}

func (r *node) at(port uint16) string { return netip.AddrPortFrom(r.host.Addr4, port).String() }

// peerAddress is where it listens for the others.
func (r *node) peerAddress() netip.AddrPort {
	if r.g.six {
		return netip.AddrPortFrom(r.host.Addr6, groupPeers)
	}
	return netip.AddrPortFrom(r.host.Addr4, groupPeers)
}

// groupKey is the key of all replicas at first.
const groupKey = "the key of the lab, of any length"

// writeKeys has the replica use these keys, the first of which encrypts. The file is replaced whole, as people should do it.
func (r *node) writeKeys(keys ...string) {
	r.g.t.Helper()
	fresh := lab.FileIn(r.g.t, r.dir, "key.new", strings.Join(keys, "\n")+"\n")
	if err := os.Rename(fresh, filepath.Join(r.dir, "key")); err != nil {
		r.g.t.Fatal(err)
	}
}

// corefile is what it is started with. All have all in their lists.
func (r *node) corefile() string {
	g := r.g
	properties := g.properties
	if !g.alone && !r.alone {
		properties += fmt.Sprintf("\npeers %v", r.peerAddress())
		for _, other := range g.replicas {
			properties += fmt.Sprintf(" %v", other.peerAddress())
		}
		properties += "\npeers key " + filepath.Join(r.dir, "key")
	}
	if !g.asked {
		for names := range slices.Chunk(g.names, 50) {
			properties += "\nwatch " + strings.Join(names, " ")
		}
	}
	if g.more != nil {
		properties += "\n" + g.more(r.i)
	}
	return fmt.Sprintf("example.org:%d {\nbind %v\nshaker {\n%s\nstatus %s\n}\nfile %s\nready %s\nprometheus %s\n}\n", groupDNS,
		r.host.Addr4, properties, r.at(groupPage), lab.FileIn(g.t, r.dir, "db.example.org", g.zone()), r.at(groupReady), r.at(groupMetrics))
}

// launch starts it, and waits for nothing.
func (r *node) launch() {
	r.g.t.Helper()
	r.launchWith(r.corefile())
}

func (r *node) launchWith(corefile string) {
	r.g.t.Helper()
	binary, err := os.Executable()
	if *otherCoreDNS != "" {
		binary, err = *otherCoreDNS, nil
	}
	if err != nil {
		r.g.t.Fatal(err)
	}
	cmd := exec.Command(binary, "-conf", lab.FileIn(r.g.t, r.dir, "Corefile", corefile))
	cmd.Env = append(os.Environ(), asCoreDNS+"=1")
	r.p = &process{server{t: r.g.t, addr: r.at(groupDNS), tcp: r.at(groupDNS)}, r.host.Start(cmd)}
	r.paused = false
}

// awaitServing waits until it answers, and begins to follow its events.
func (r *node) awaitServing() {
	r.g.t.Helper()
	untilServing(r.p.Process, r.at(groupDNS))
	r.follow = follow(r.g.t, r.at(groupPage))
}

// awaitReady waits until ready says so.
func (r *node) awaitReady() {
	r.g.t.Helper()
	began, told := time.Now(), false
	r.p.UntilNil(func() error {
		if !told && !r.g.alone && !r.alone && time.Since(began) > 2*time.Second {
			told = true
			r.g.t.Logf("%s is not ready after 2s: %+v", r.name, *r.peers())
		}
		if ok, body := isReady(r.g.t, r.at(groupReady)); !ok {
			time.Sleep(10 * time.Millisecond) // each time is a line in its log
			return fmt.Errorf("%s is not ready: %s", r.name, body)
		}
		return nil
	})
}

func (r *node) start() {
	r.g.t.Helper()
	r.launch()
	r.awaitServing()
}

// startMeasured starts it, and returns how long it took until it served, and until it was ready.
func (r *node) startMeasured() (served, ready time.Duration) {
	r.g.t.Helper()
	began := time.Now()
	r.start()
	served = time.Since(began)
	r.awaitReady()
	return served, time.Since(began)
}

// stop ends it as systemd does.
func (r *node) stop() {
	r.g.t.Helper()
	if r.p == nil {
		return
	}
	r.p.Signal(syscall.SIGTERM)
	if err := r.p.Wait(); err != nil {
		r.g.t.Errorf("%s: %v", r.name, err)
	}
	r.gone()
}

func (r *node) kill() {
	r.g.t.Helper()
	if r.p == nil {
		return
	}
	r.p.Signal(syscall.SIGKILL)
	_ = r.p.Wait() // it died by that signal
	r.gone()
}

func (r *node) gone() {
	r.p = nil
	if r.follow != nil {
		r.follow.end()
	}
}

func (r *node) pause() {
	r.p.Signal(syscall.SIGSTOP)
	r.paused = true
}

func (r *node) goOn() {
	r.p.Signal(syscall.SIGCONT)
	r.paused = false
}

// targets returns what the replica has in its table.
func (r *node) targets() map[netip.Addr]statusTarget {
	r.g.t.Helper()
	all := make(map[netip.Addr]statusTarget)
	for page := 1; ; page++ {
		v := statusOf(r.g.t, r.at(groupPage), fmt.Sprintf("size=1000&page=%d", page))
		if v == nil {
			r.g.t.Fatalf("%s serves no status page", r.name)
		}
		for _, target := range v.Targets {
			all[target.Address] = target
		}
		if len(v.Targets) < 1000 {
			return all
		}
	}
}

// wrong returns what is wrong with its verdicts.
func (r *node) wrong() error {
	r.g.t.Helper()
	targets := r.targets()
	var wrong []string
	for _, addr := range r.g.addrs {
		want := "up"
		if r.g.isDead(addr) {
			want = "down"
		}
		if got := targets[addr].State; got != want {
			wrong = append(wrong, fmt.Sprintf("%v is %q", addr, got))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s has %d wrong verdicts: %s", r.name, len(wrong), strings.Join(wrong[:min(5, len(wrong))], ", "))
	}
	return nil
}

// wrongAnswers asks for every name, and returns how many living addresses the answers lack, and how many dead ones are in them.
func (r *node) wrongAnswers() (lacking, dead int) {
	r.g.t.Helper()
	for _, name := range r.g.names {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			l, d := r.g.compare(name, qtype, addresses(r.p.ask(name, qtype, withLongAnswer)))
			lacking, dead = lacking+l, dead+d
		}
	}
	return lacking, dead
}

// compare counts what an answer lacks, and what it should not have.
func (g *group) compare(name string, qtype uint16, answer []netip.Addr) (lacking, dead int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, addr := range g.members[name] {
		if addr.Is6() != (qtype == dns.TypeAAAA) {
			continue
		}
		switch has := slices.Contains(answer, addr); {
		case !has && !g.dead[addr]:
			lacking++
		case has && g.dead[addr]:
			dead++
		}
	}
	return lacking, dead
}

// isFrozen tells whether its verdicts are frozen.
func (r *node) isFrozen() bool {
	r.g.t.Helper()
	return !statusOf(r.g.t, r.at(groupPage), "size=1").Frozen.IsZero()
}

// counted sums up the series of a metric of the replica that have these labels.
func (r *node) counted(name string, labels ...string) float64 {
	r.g.t.Helper()
	return countedAt(r.g.t, r.at(groupMetrics), name, labels...)
}

// peersView is what /peers.json tells, as far as tests look at it.
type peersView struct {
	Error         string
	Self          string
	Ready, Quorum bool
	Disagreeing   int
	Members       []memberView
	Join          []struct{ Place, Error string }
	Counts        struct {
		SentMessages     uint64 `json:"sent_messages"`
		SentOctets       uint64 `json:"sent_octets"`
		ReceivedMessages uint64 `json:"received_messages"`
		ReceivedOctets   uint64 `json:"received_octets"`
		Rejected         map[string]uint64
	}
}

type memberView struct {
	Name, Host, Address, Site, Shaker                  string
	Self, Alive, Frozen, Stuck, Strange, Newer, Quorum bool
	InDoubt                                            bool    `json:"in_doubt"`
	HeardSeconds                                       float64 `json:"heard_seconds"`
	Lag, Observed, Finished                            uint64
}

// peers returns what the replica tells of its peers.
func (r *node) peers() *peersView {
	r.g.t.Helper()
	v := new(peersView)
	if err := getJSON("http://"+r.at(groupPage)+"/peers.json", v); err != nil {
		r.g.t.Fatalf("%s: %v", r.name, err)
	}
	return v
}

// alive returns how many members are alive, the replica itself included.
func (v *peersView) alive() (n int) {
	for _, m := range v.Members {
		if m.Alive {
			n++
		}
	}
	return n
}

// getJSON reads what an address serves.
func getJSON(url string, into any) error {
	answer, err := statusClient.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %v, %.200q", url, answer.Status, err, text)
	}
	return json.Unmarshal(text, into)
}

// descriptors counts the open files of the process.
func (r *node) descriptors() int {
	r.g.t.Helper()
	files, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(r.p.PID()), "fd"))
	if err != nil {
		r.g.t.Fatal(err)
	}
	return len(files)
}

// happening is an event of a replica.
type happening struct {
	Time    time.Time
	Kind    string
	Text    string
	Address netip.Addr
}

// follower reads the events of a replica as they happen.
type follower struct {
	body  io.Closer
	ended sync.WaitGroup

	mu  sync.Mutex // guards got
	got []happening
}

// follow begins with the events that a page remembers.
func follow(t testing.TB, page string) *follower {
	t.Helper()
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + page + "/events.ndjson?last=1000")
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("events of %s: %v", page, err)
	}
	f := &follower{body: answer.Body}
	f.ended.Go(func() {
		lines := bufio.NewScanner(answer.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e happening
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.Kind != "" {
				f.mu.Lock()
				f.got = append(f.got, e)
				f.mu.Unlock()
			}
		}
	})
	t.Cleanup(f.end)
	return f
}

func (f *follower) end() {
	f.body.Close()
	f.ended.Wait()
}

// since returns the events of a kind after a time, of all kinds where it is empty.
func (f *follower) since(began time.Time, kind string) (found []happening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.got {
		if !e.Time.Before(began.Truncate(time.Millisecond)) && (kind == "" || e.Kind == kind) {
			found = append(found, e)
		}
	}
	return found
}

// removals are the events since a time by which living targets went down at a replica, by replica.
func (g *group) removals(began time.Time) map[string]int {
	all := make(map[string]int)
	for _, r := range g.replicas {
		if r.follow == nil {
			continue
		}
		for _, e := range r.follow.since(began, "down") {
			if !g.isDead(e.Address) {
				all[r.name]++
			}
		}
	}
	return all
}

// guard asks all replicas that run, all the time, for one name after the other.
type guard struct {
	g     *group
	stop  chan struct{}
	ended sync.WaitGroup

	mu              sync.Mutex // guards what follows
	queries         int
	lacking, silent map[string]int // by replica
}

// newGuard begins to ask, each replica every so often. What does not answer in a second is counted as silent.
func (g *group) newGuard(every time.Duration, replicas ...*node) *guard {
	w := &guard{g: g, stop: make(chan struct{}), lacking: make(map[string]int), silent: make(map[string]int)}
	for _, r := range replicas {
		w.ended.Go(func() { w.watch(r.name, r.at(groupDNS), every) })
	}
	return w
}

func (w *guard) watch(name, address string, every time.Duration) {
	client := dns.Client{Timeout: time.Second}
	for i := 0; ; i++ {
		select {
		case <-w.stop:
			return
		case <-time.After(every):
		}
		qname, qtype := w.g.names[i/2%len(w.g.names)], []uint16{dns.TypeA, dns.TypeAAAA}[i%2]
		q := new(dns.Msg).SetQuestion(qname, qtype)
		q.SetEdns0(4096, false)
		m, _, err := client.Exchange(q, address)
		w.mu.Lock()
		w.queries++
		if err != nil {
			w.silent[name]++
		} else if lacking, _ := w.g.compare(qname, qtype, addresses(m)); lacking > 0 {
			w.lacking[name] += lacking
		}
		w.mu.Unlock()
	}
}

// end stops asking, and returns how many living addresses answers lacked, by replica.
func (w *guard) end() (queries int, lacking map[string]int) {
	close(w.stop)
	w.ended.Wait()
	return w.queries, w.lacking
}

// spread is how long it took until replicas knew that a target is down: the last of them, since it died, and the last since
// the first.
type spread struct{ took, apart []time.Duration }

// untilDown waits until all replicas that run have an event that each of the targets is down, since a time.
func (g *group) untilDown(began time.Time, addrs []netip.Addr) (s spread) {
	g.t.Helper()
	lab.UntilNil(g.t, func() error {
		s = spread{}
		for _, addr := range addrs {
			var first, last time.Time
			for _, r := range g.running() {
				downs := r.follow.since(began, "down")
				i := slices.IndexFunc(downs, func(e happening) bool { return e.Address == addr })
				if i < 0 {
					return fmt.Errorf("%v is not down for %s", addr, r.name)
				}
				at := downs[i].Time
				if first.IsZero() || at.Before(first) {
					first = at
				}
				if at.After(last) {
					last = at
				}
			}
			s.took, s.apart = append(s.took, last.Sub(began)), append(s.apart, last.Sub(first))
		}
		return nil
	})
	slices.Sort(s.took)
	slices.Sort(s.apart)
	return s
}

func (s spread) String() string {
	middle := len(s.took) / 2
	return fmt.Sprintf("%d targets: known to all after %v in the middle, %v at most; %v apart in the middle, %v at most", len(s.took),
		s.took[middle].Round(time.Millisecond), s.took[len(s.took)-1].Round(time.Millisecond), s.apart[middle], s.apart[len(s.apart)-1])
}
