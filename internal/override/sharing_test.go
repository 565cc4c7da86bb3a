package override

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// replica is one with a file.
type replica struct {
	*world
	name    string
	number  int
	s       *Sharing
	f       *File
	log     *record
	content string
	written time.Time
	notes   map[string][]byte            // that it has told
	owes    map[*replica]map[string]bool // whom it has not told what yet
	isDown  bool
	removed []string // lines, since it is down
}

// world is replicas that tell each other notes, and a clock.
type world struct {
	testing.TB
	now      time.Time
	replicas []*replica
	apart    func(a, b *replica) bool // whether they cannot reach each other
	loses    func() bool              // whether the next note is lost for now
	sent     int
}

func newWorld(t testing.TB, contents ...string) *world {
	w := &world{TB: t, now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), apart: func(_, _ *replica) bool { return false },
		loses: func() bool { return false }}
	for i, content := range contents {
		w.replicas = append(w.replicas, &replica{world: w, name: string(rune('a' + i)), number: i, content: content, written: w.now, isDown: true})
	}
	for _, r := range w.replicas {
		r.start()
	}
	w.settle()
	return w
}

// start has the replica know nothing but its file, and all others owe it everything.
func (r *replica) start() {
	r.Helper()
	r.isDown, r.removed = false, nil
	clock := func() time.Time { return r.now }
	r.log, r.notes, r.owes = new(record), make(map[string][]byte), make(map[*replica]map[string]bool)
	r.s = newSharing(r.name, "", SharingListener{Warningf: r.log.listener().Errorf}, clock)
	var err error
	if r.f, err = open("/etc/overrides", r.log.listener(), r.reading, clock); err != nil {
		r.Fatal(err)
	}
	r.f.Share(r.s, "overrides")
	r.f.join()
	r.s.Publish(func(key string, value []byte) {
		if r.notes[key] = slices.Clone(value); value == nil {
			delete(r.notes, key)
		}
		for _, other := range r.replicas {
			r.owe(other, key)
		}
	})
	for _, other := range r.replicas {
		for key := range other.notes {
			if other != r {
				other.owe(r, key)
			}
		}
	}
	r.f.take(r.reading(""))
}

func (r *replica) reading(string) reading { return reading{Content: r.content, Modified: r.written} }

func (r *replica) owe(other *replica, key string) {
	if r.owes[other] == nil {
		r.owes[other] = make(map[string]bool)
	}
	r.owes[other][key] = true
}

// stop ends the replica. Nobody is told anything any more.
func (r *replica) stop() {
	r.isDown, r.notes, r.owes, r.removed = true, nil, nil, nil
	for _, other := range r.replicas {
		delete(other.owes, r)
	}
}

// write changes the file, and has it read if the replica is there.
func (r *replica) write(content string) {
	r.content, r.written = content, r.now
	if !r.isDown {
		r.f.take(r.reading(""))
		r.f.take(r.reading(""))
	}
}

// pass has time pass, in steps of a second in which replicas tell each other what they can.
func (w *world) pass(seconds int) {
	for range seconds {
		w.now = w.now.Add(time.Second)
		for _, r := range w.replicas {
			if r.isDown {
				continue
			}
			for _, other := range r.replicas {
				keys := r.owes[other]
				for _, key := range slices.Sorted(maps.Keys(keys)) {
					if other != r && (other.isDown || w.apart(r, other) || w.loses()) {
						continue
					}
					delete(keys, key)
					if value := r.notes[key]; other != r && value != nil {
						w.sent++
						other.s.Take(key, value)
					}
				}
			}
			r.f.turnSafely()
		}
	}
}

// settle has all be told everything.
func (w *world) settle() { w.pass(8) }

// inForce returns the rules in force as lines, with who said them where that is asked for.
func (r *replica) inForce(from bool) string {
	var lines []string
	for _, rule := range r.f.Rules().Sorted() {
		line := rule.String()
		if from {
			line += fmt.Sprintf(" by %s at %d", rule.From, rule.Since.Sub(time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC))/time.Second)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// agree returns what is in force at all replicas that are there.
func (w *world) agree(what string) string {
	w.Helper()
	var all []string
	for _, r := range w.replicas {
		if !r.isDown {
			all = append(all, r.inForce(true))
		}
	}
	if slices.Min(all) != slices.Max(all) {
		w.Errorf("%s: replicas differ:\n%s", what, strings.Join(all, "\n"))
	}
	for _, r := range w.replicas {
		if !r.isDown {
			return r.inForce(false)
		}
	}
	return ""
}

// Which line of which replica holds, in the words of docs/overrides.md.
func TestSharing(t *testing.T) {
	const down, auto = "192.0.2.7 down\n", "192.0.2.7 auto\n"
	type step struct {
		do   func(w *world, a, b, c *replica)
		want string // at all that are there, once they have told each other
	}
	writes := func(n int, content string) func(w *world, a, b, c *replica) {
		return func(w *world, a, b, c *replica) { w.replicas[n].write(content) }
	}
	apart := func(is bool) func(w *world, a, b, c *replica) { // a from the others
		return func(w *world, a, b, c *replica) {
			w.apart = func(x, y *replica) bool { return is && (x == a) != (y == a) }
		}
	}
	stops := func(n int) func(w *world, a, b, c *replica) {
		return func(w *world, a, b, c *replica) { w.replicas[n].stop() }
	}
	starts := func(n int) func(w *world, a, b, c *replica) {
		return func(w *world, a, b, c *replica) { w.replicas[n].start() }
	}
	const isDown, isAuto = "192.0.2.7 down", "192.0.2.7 auto"
	for _, tt := range []struct {
		name    string
		a, b, c string
		steps   []step
	}{
		{"a line on one holds on all, and an auto on any other ends it", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, auto), isAuto}, {writes(2, "192.0.2.7 up\n"), "192.0.2.7 up"}}},
		{"the same line once more is newer", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, auto), isAuto}, {writes(0, down+down), isDown}, {writes(1, auto+auto), isAuto}}},
		{"other lines of the file do not make it newer", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, auto), isAuto}, {writes(0, down+"192.0.2.8 up\n"), isAuto + "; 192.0.2.8 up"},
			{writes(0, "# a comment\n192.0.2.9 up\n"+down), isAuto + "; 192.0.2.9 up"}}},
		{"nor does a restart", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, auto), isAuto}, {stops(0), isAuto}, {writes(0, down+"# edited meanwhile\n"), isAuto}, {starts(0), isAuto}}},
		{"nor one while the others are out of reach", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, auto), isAuto}, {stops(0), isAuto}, {func(w *world, a, b, c *replica) {
				apart(true)(w, a, b, c)
				a.write(down + "192.0.2.8 up\n")
				a.start()
				w.pass(60)
				apart(false)(w, a, b, c)
			}, isAuto + "; 192.0.2.8 up"}}},
		{"what the others do not know is as old as the file", "", auto, "", []step{
			{stops(0), isAuto}, {writes(0, down), isAuto}, {starts(0), isDown}}},
		{"also where it is the same line once more", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, auto), isAuto}, {stops(0), isAuto}, {writes(0, down+down), isAuto}, {starts(0), isDown}}},
		{"removing a line takes it back everywhere", "", "", "", []step{
			{writes(0, down+"192.0.2.8 up\n"), isDown + "; 192.0.2.8 up"}, {writes(0, "192.0.2.8 up\n"), "192.0.2.8 up"}, {writes(0, ""), ""}}},
		{"and what older lines say holds again", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, "192.0.2.7 up\n"), "192.0.2.7 up"}, {writes(1, ""), isDown}}},
		{"removing the older one of two does nothing", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, "192.0.2.7 up\n"), "192.0.2.7 up"}, {writes(0, ""), "192.0.2.7 up"}, {writes(1, ""), ""}}},
		{"removing what another replica has said again since does nothing", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, auto), isAuto}, {writes(2, down), isDown}, {writes(0, ""), isDown}, {writes(2, ""), isAuto}}},
		{"a replica that is gone has taken back nothing", "", "", "", []step{
			{writes(0, down), isDown}, {stops(0), isDown}, {stops(1), isDown}, {starts(1), isDown}, {writes(1, auto), isAuto}}},
		{"until it is back without the line", "", "", "", []step{
			{writes(0, down), isDown}, {stops(0), isDown}, {writes(0, ""), isDown}, {starts(0), ""}}},
		{"a line outlives the replica where it was written, and who starts later knows it", "", "", "", []step{
			{stops(2), ""}, {writes(0, down), isDown}, {stops(0), isDown}, {starts(2), isDown}, {stops(1), isDown}, {starts(0), isDown}, {writes(0, ""), ""}}},
		{"the last of the same lines is removed", "", "", "", []step{
			{writes(0, down+auto+down), isDown}, {writes(0, down+auto), isAuto}, {writes(0, down), isDown}}},
		{"a file is shortened, as the client does", "", "", "", []step{
			{writes(0, down), isDown}, {writes(1, auto), isAuto}, {writes(0, down+down), isDown}, {writes(0, down), isDown},
			{stops(0), isDown}, {starts(0), isDown}, {writes(0, ""), isAuto}}},
		{"a line is inserted above another one", "", "", "", []step{
			{writes(0, down), isDown}, {writes(0, auto+down), isDown}, {writes(0, auto), isAuto}}},
		{"the file is sorted", "", "", "", []step{
			{writes(0, "192.0.2.9 up\n"), "192.0.2.9 up"}, {writes(1, "192.0.2.7 up\n"), "192.0.2.7 up; 192.0.2.9 up"},
			{writes(0, down+"192.0.2.9 up\n"), isDown + "; 192.0.2.9 up"}}},
		{"an auto is an exception from what is older and wider", "192.0.2.0/24 down\n", "", "", []step{
			{writes(1, auto), "192.0.2.0/24 down; " + isAuto}, {writes(2, "192.0.2.0/24 down\n"), "192.0.2.0/24 down"}}},
		{"it stays one where what is wider is inserted above it", auto, "", "", []step{
			{writes(0, "192.0.2.0/24 down\n"+auto), "192.0.2.0/24 down; " + isAuto}}},
		{"an auto that is inserted above what is wider is none", "192.0.2.0/24 down\n", "", "", []step{
			{writes(0, auto+"192.0.2.0/24 down\n"), "192.0.2.0/24 down"}}},
		{"a rule ends everywhere, and what is older holds again", "192.0.2.7 up\n", "", "", []step{
			{writes(1, "192.0.2.7 down until 2026-11-26T12:01:00Z\n"), "192.0.2.7 down until 2026-11-26T12:01:00Z"},
			{func(w *world, a, b, c *replica) { w.pass(60) }, "192.0.2.7 up"}}},
		{"a mistake takes back nothing", "", "", "", []step{
			{writes(0, down), isDown}, {writes(0, "nonsense\n"), isDown}, {writes(1, auto), isAuto}, {writes(0, down), isAuto}}},
		{"the sides of a split decide for themselves, and the newest line counts when it heals", "", "", "", []step{
			{func(w *world, a, b, c *replica) {
				apart(true)(w, a, b, c)
				a.write(down)
				w.settle()
				b.write(auto)
				w.settle()
				if a.inForce(false) != isDown || b.inForce(false) != isAuto || c.inForce(false) != isAuto {
					w.Errorf("in the split: %s, %s", a.inForce(false), b.inForce(false))
				}
				apart(false)(w, a, b, c)
			}, isAuto}}},
	} {
		w := newWorld(t, tt.a, tt.b, tt.c)
		for i, step := range tt.steps {
			w.pass(3)
			step.do(w, w.replicas[0], w.replicas[1], w.replicas[2])
			w.settle()
			if got := w.agree(fmt.Sprintf("%s: step %d", tt.name, i+1)); got != step.want {
				t.Errorf("%s: step %d: %q, want %q", tt.name, i+1, got, step.want)
			}
		}
	}
}

// A ConfigMap reaches each replica at a moment of its own, and replicas come and go. Each change takes effect with the first one,
// and for good. Nobody tells the same again and again.
func TestSharingConfigMap(t *testing.T) {
	const lines = 20
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "192.0.2.%d down # rack 3\n", i)
	}
	w := newWorld(t, "", "", "", "", "")
	rollOut := func(content string, rules int) {
		t.Helper()
		for i, r := range w.replicas {
			r.write(content)
			w.pass(7 + 5*i)
			for _, r := range w.replicas {
				if n, _, _ := r.f.Report(); n != rules {
					w.dump()
					t.Fatalf("%s has %d rules after %d replicas have the file, want %d", r.name, n, i+1, rules)
				}
			}
		}
	}
	for range 3 {
		sent := w.sent
		rollOut(text.String(), lines)
		// Each replica says each line, and each that changes what is known of it is passed on once.
		if n := w.sent - sent; n > lines*5*5*4 {
			t.Errorf("%d notes for %d lines", n, lines)
		}
		sent = w.sent
		w.pass(600)
		if w.sent != sent {
			t.Errorf("%d notes of nothing", w.sent-sent)
		}
		// All are replaced by others, one by one, which have the file from when they started.
		for _, r := range w.replicas {
			r.stop()
			w.pass(3)
			r.name += "'"
			r.written = w.now
			r.start()
			w.pass(7)
		}
		w.agree("after a restart of all")
		rollOut("", 0)
		rollOut(text.String(), lines)
		rollOut(strings.Replace(text.String(), "192.0.2.7 down", "192.0.2.7 up", 1), lines)
		rollOut("", 0)
	}
}

// An edit, a restart, a split, lost notes: whatever happens, in the end all replicas have in force what one file would say with
// the lines in the order in which they were written. In a quarter of the histories the lines of several replicas are the same, so that
// it depends on what each knew which of them is taken back; then they still agree.
func TestSharingModel(t *testing.T) {
	histories := 400
	if testing.Short() {
		histories = 50
	}
	for seed := range histories {
		random := rand.New(rand.NewPCG(uint64(seed), 77))
		w := newWorld(t, make([]string, 2+seed%4)...)
		naive := naive{same: seed/4%4 == 3}
		for range 40 {
			w.pass(1 + random.IntN(3))
			r := w.replicas[random.IntN(len(w.replicas))]
			switch n := random.IntN(10); {
			case n < 5:
				r.write(naive.edit(random, r))
			case n == 5:
				side := random.IntN(1 << len(w.replicas))
				w.apart = func(a, b *replica) bool { return side>>a.number&1 != side>>b.number&1 }
			case n == 6:
				w.apart = func(_, _ *replica) bool { return false }
			case n == 7:
				lost := random.Float64()
				w.loses = func() bool { return random.Float64() < lost }
			case !r.isDown:
				// Nobody can know what it has told nobody.
				apart, loses := w.apart, w.loses
				w.apart, w.loses = func(_, _ *replica) bool { return false }, func() bool { return false }
				w.settle()
				w.apart, w.loses = apart, loses
				if slices.ContainsFunc(w.replicas, func(other *replica) bool { return other != r && !other.isDown }) {
					r.stop()
				}
			default:
				r.start()
				naive.touch(r)
				w.pass(1)
			}
		}
		w.apart, w.loses = func(_, _ *replica) bool { return false }, func() bool { return false }
		for _, r := range w.replicas {
			if r.isDown {
				r.start()
			}
		}
		w.settle()
		w.settle()
		got := w.agree(fmt.Sprint("history ", seed))
		if want := naive.inForce(t, w.now); got != want && !naive.same {
			t.Fatalf("history %d: %s\nwant %s", seed, got, want)
		}
	}
}

// naive has all lines of all files in the order of their writing.
type naive struct {
	lines []naiveLine
	same  bool // of several replicas
}

type naiveLine struct {
	replica int
	text    string
	said    time.Time
	pending bool // its replica is down, and will find it in the file
}

// edit adds a line to the file of a replica, or removes one, and returns what is in the file then. The lines of two replicas are
// never the same, unless that is asked for. What nobody could tell apart is left out: which of two lines that are the same and side by side is gone, and whether
// a line was gone for a while when its replica was.
func (n *naive) edit(random *rand.Rand, r *replica) string {
	defer n.touch(r)
	lines := slices.Collect(strings.Lines(r.content))
	if random.IntN(3) == 0 && len(lines) > 0 {
		gone := lines[random.IntN(len(lines))]
		at := len(lines) - 1
		for lines[at] != gone {
			at--
		}
		if at > 0 && at+1 < len(lines) && lines[at-1] == lines[at+1] {
			return r.content
		}
		i := len(n.lines) - 1
		for n.lines[i].replica != r.number || n.lines[i].text != gone {
			i--
		}
		n.lines = slices.Delete(n.lines, i, i+1)
		if r.isDown {
			r.removed = append(r.removed, gone)
		}
		return strings.Join(slices.Delete(lines, at, at+1), "")
	}
	what := []string{"192.0.2.7", "192.0.2.7:443", "192.0.2.0/24", "192.0.2.0/28", "192.0.2.8"}[random.IntN(5)]
	says := []string{"down", "auto", "up"}[random.IntN(3)]
	who := r.number
	if n.same {
		who = 0
	}
	line := naiveLine{r.number, fmt.Sprintf("%s %s # %d\n", what, says, who), r.now, r.isDown}
	if slices.Contains(r.removed, line.text) || strings.HasSuffix(r.content, line.text) {
		return r.content
	}
	n.lines = append(n.lines, line)
	return r.content + line.text
}

// touch has what was written while the replica was down be as old as its file, which is all that it can know.
func (n *naive) touch(r *replica) {
	for i := range n.lines {
		if l := &n.lines[i]; l.replica == r.number && l.pending {
			if l.pending = r.isDown; l.pending {
				l.said = r.now
			}
		}
	}
}

func (n naive) inForce(t *testing.T, now time.Time) string {
	content := ""
	slices.SortStableFunc(n.lines, func(a, b naiveLine) int { return a.said.Compare(b.said) })
	for _, line := range n.lines {
		content += line.text
	}
	rules, err := Parse(content, now)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, rule := range rules.Sorted() {
		all = append(all, rule.String())
	}
	return strings.Join(all, "; ")
}

// dump logs all that each replica knows, for a test that has failed.
func (w *world) dump() {
	w.Helper()
	for _, r := range w.replicas {
		for about, t := range r.f.group.topics {
			for _, c := range t.claims {
				if c.sharedLine != nil {
					w.Log(r.name, about, c.id, c.said, c.seen, c.gone, c.sharedLine, r.f.group.origin, r.f.group.isYoung, r.f.group.own)
				} else {
					w.Log(r.name, about, c.id, c.said, c.seen, c.gone)
				}
			}
		}
	}
}

// However wrong a clock is, what is said in knowledge of another line is newer than that.
func TestSharingClocks(t *testing.T) {
	for _, ahead := range []time.Duration{2 * time.Minute, maxAhead - time.Minute, -maxAhead + time.Minute} {
		w := newWorld(t, "", "")
		a, b := w.replicas[0], w.replicas[1]
		a.s.now = func() time.Time { return w.now.Add(ahead) }
		for i := range 3 {
			for _, step := range []struct {
				r    *replica
				says string
			}{{a, "down"}, {b, "auto"}, {b, "up"}, {a, "auto"}} {
				step.r.write(fmt.Sprintf("%s192.0.2.7 %s\n", step.r.content, step.says))
				w.settle()
				if got := w.agree("a clock"); got != "192.0.2.7 "+step.says {
					t.Errorf("%v ahead, time %d: %q after %s by %s", ahead, i+1, got, step.says, step.r.name)
				}
			}
		}
	}
	// Beyond that nothing is taken, and it is told once.
	w := newWorld(t, "", "")
	a, b := w.replicas[0], w.replicas[1]
	a.s.now = func() time.Time { return w.now.Add(maxAhead + time.Hour) }
	a.write("192.0.2.7 down\n192.0.2.8 down\n")
	w.settle()
	b.write("192.0.2.7 up\n")
	w.settle()
	if got := b.inForce(false); got != "192.0.2.7 up" {
		t.Errorf("%q is in force", got)
	}
	if logged := strings.Join(b.log.take(), "\n"); strings.Count(logged, "more than 24h0m0s ahead, and is not taken over") != 1 {
		t.Errorf("logged %s", logged)
	}
	// Once it is set right, what it has said counts, and what was said in knowledge of it does.
	a.s.now = b.s.now
	w.settle()
	w.settle()
	if got := w.agree("a clock that was set back"); got != "192.0.2.7 down; 192.0.2.8 down" {
		t.Errorf("a clock that was set back: %q", got)
	}
	b.write(b.content + "192.0.2.7 auto\n")
	w.settle()
	if got := w.agree("after that"); got != "192.0.2.7 auto; 192.0.2.8 down" {
		t.Errorf("after that: %q", got)
	}
	w.now = w.now.Add(2 * time.Hour)
	w.settle()
	if got := w.agree("later"); got != "192.0.2.7 auto; 192.0.2.8 down" {
		t.Errorf("later: %q", got)
	}
	// A machine whose clock is late has everything once that is set right.
	b.stop()
	b.write("")
	b.start()
	b.s.now = func() time.Time { return w.now.Add(-2 * maxAhead) }
	w.settle()
	if got := b.inForce(false); got != "" {
		t.Errorf("with a clock that is late: %q", got)
	}
	b.s.now = a.s.now
	w.settle()
	if got := w.agree("a clock that was late"); got != "192.0.2.7 down; 192.0.2.8 down" || len(b.s.early) != 0 || b.s.earlies != 0 {
		t.Errorf("a clock that was late: %q, %d notes of %d octets are kept", got, len(b.s.early), b.s.earlies)
	}
}

// Notes that cannot be used do nothing, and are told once in an hour.
func TestSharingIgnores(t *testing.T) {
	w := newWorld(t, "192.0.2.7 down\n")
	a := w.replicas[0]
	a.log.take()
	key := encodeKey(sumOf("overrides"), subject{prefix: single(netip.MustParseAddr("192.0.2.7"))})
	for range 2 {
		for range 1000 {
			a.s.Take(key, []byte{2, 1})
			a.s.Take(key, []byte{1, 1})
			a.s.Take("x", nil)
			a.s.Take(key, nil)
		}
		want := []string{"Overrides of a replica with another version of shaker are not taken over", "Overrides of another replica cannot be read: "}
		if logged := a.log.take(); !slices.EqualFunc(logged, want, strings.HasPrefix) {
			t.Errorf("logged %q", logged)
		}
		w.pass(int(complainEvery / time.Second))
	}
	if got := a.inForce(false); got != "192.0.2.7 down" {
		t.Errorf("%q is in force", got)
	}
}

// Beyond what is shared, rules hold where they are written. Room is made by what no longer matters.
func TestSharingBounds(t *testing.T) {
	manyDown := func(first, n int) string {
		var b strings.Builder
		for i := range n {
			i += first
			fmt.Fprintf(&b, "10.%d.%d.%d down\n", i>>16, i>>8&255, i&255)
		}
		return b.String()
	}
	size := func(r *replica) int { n, _, _ := r.f.Report(); return n }
	const most = 320
	w := newWorld(t, "", "")
	a, b := w.replicas[0], w.replicas[1]
	a.s.most, b.s.most = most, most
	a.write(manyDown(0, most+100))
	w.settle()
	if size(a) != most+100 || size(b) != most {
		t.Errorf("%d and %d rules", size(a), size(b))
	}
	if logged := strings.Join(a.log.take(), "\n"); strings.Count(logged, "not shared") != 1 {
		t.Errorf("logged %s", logged)
	}
	b.write("192.0.2.7 down\n")
	w.settle()
	if size(a) != most+100 || size(b) != most+1 {
		t.Errorf("%d and %d rules", size(a), size(b))
	}
	// Half of them are taken back, which makes room for others.
	a.write(manyDown(0, most/2))
	w.settle()
	b.write("192.0.2.7 down\n192.0.2.8 down\n")
	w.pass(20)
	if size(a) != most/2+2 || size(b) != most/2+2 {
		t.Errorf("%d and %d rules", size(a), size(b))
	}
	for _, r := range w.replicas {
		if r.s.count > most || r.s.size > maxSharedSize || len(r.notes) > most {
			t.Errorf("%d topics of %d octets, %d notes", r.s.count, r.s.size, len(r.notes))
		}
	}
	// What was taken back is forgotten in the end, by all.
	a.write("")
	b.write("")
	w.settle()
	w.now = w.now.Add(forgetAfter + 2*time.Hour)
	w.settle()
	for _, r := range w.replicas {
		if r.s.count != 0 || r.s.size != 0 || len(r.notes) != 0 {
			t.Errorf("%d topics of %d octets, %d notes are left", r.s.count, r.s.size, len(r.notes))
		}
	}
}

// Where there is no room for more, what is drained can be taken back everywhere, and what is beyond that holds where it is written,
// also of what others tell of. It is shared once there is room.
func TestSharingFull(t *testing.T) {
	var drained strings.Builder
	for i := range 50 {
		fmt.Fprintf(&drained, "192.0.2.%d down\n", i)
	}
	w := newWorld(t, "", "")
	a, b := w.replicas[0], w.replicas[1]
	says := func(r *replica, addr string) string {
		rule, _ := r.f.Rules().Find(netip.MustParseAddr(addr), 80)
		return rule.Says.String()
	}
	a.write(drained.String())
	w.settle()
	a.s.room, b.s.room = a.s.size, b.s.size
	b.write("192.0.2.200 down\n192.0.2.7 auto\n")
	w.settle()
	if says(a, "192.0.2.7") != "auto" || says(b, "192.0.2.7") != "auto" || says(a, "192.0.2.200") != "auto" || says(b, "192.0.2.200") != "down" {
		t.Errorf("%s\nand %s", a.inForce(true), b.inForce(true))
	}
	a.s.room, b.s.room = 0, 0
	b.write("192.0.2.200 down\n192.0.2.7 auto\n192.0.2.8 auto\n")
	w.settle()
	if says(a, "192.0.2.8") != "down" || says(b, "192.0.2.8") != "auto" || says(b, "192.0.2.200") != "down" {
		t.Errorf("%s\nand %s", a.inForce(true), b.inForce(true))
	}
	a.s.room, b.s.room = maxSharedSize, maxSharedSize
	b.write("# again\n" + b.content)
	w.settle()
	w.agree("with room again")
	if says(a, "192.0.2.8") != "auto" || says(a, "192.0.2.200") != "down" {
		t.Errorf("with room again: %s", a.inForce(true))
	}
}

// Notes about any number of other files take up no room where there is none.
func TestSharingOtherFiles(t *testing.T) {
	w := newWorld(t, "")
	a := w.replicas[0]
	a.s.most = 10
	told := claims{{said: momentOf(w.now), seen: true, sharedLine: &sharedLine{Rule: Rule{Says: Down, Since: w.now}}}}
	for i := range 1000 {
		a.s.Take(encodeKey(sumOf(fmt.Sprint(i)), subject{prefix: single(netip.MustParseAddr("192.0.2.7"))}), told.encode())
	}
	if files := len(a.s.files); files != 11 {
		t.Errorf("%d files are known, want one here and 10 of others", files)
	}
}

// What comes from others within a while is few changes to tell.
func TestSharingFlood(t *testing.T) {
	w := newWorld(t, "", "")
	a, b := w.replicas[0], w.replicas[1]
	a.write("192.0.2.7 down\n192.0.2.8 down\n192.0.2.9 down\n")
	b.log.take()
	w.now = w.now.Add(time.Minute)
	follow := func() string {
		b.f.glance()
		return fmt.Sprint(len(b.f.Rules().Sorted()), " rules, ", len(b.log.take()), " lines")
	}
	keys := slices.Sorted(maps.Keys(a.notes))
	for i, want := range []string{"1 rules, 2 lines", "1 rules, 0 lines", "1 rules, 0 lines"} {
		b.s.Take(keys[i], a.notes[keys[i]])
		if got := follow(); got != want {
			t.Errorf("note %d: %s, want %s", i+1, got, want)
		}
	}
	w.now = w.now.Add(followEvery)
	if got, want := follow(), "3 rules, 3 lines"; got != want {
		t.Errorf("then: %s, want %s", got, want)
	}
}

// Files that have the same lines in another order, from before they were shared, come to one view, and then are silent.
func TestSharingOrders(t *testing.T) {
	w := newWorld(t, "192.0.2.7 up\n192.0.2.7 auto\n", "192.0.2.7 auto\n192.0.2.7 up\n", "")
	w.pass(60)
	w.agree("two orders")
	sent := w.sent
	w.pass(600)
	if w.sent != sent {
		t.Errorf("%d notes of nothing", w.sent-sent)
	}
}

// Who edits a line, or says the same in other words, does not have others see it gone meanwhile.
func TestSharingEdit(t *testing.T) {
	w := newWorld(t, "192.0.2.7 down # kernel\n")
	a, told := w.replicas[0], 0
	a.s.Publish(func(string, []byte) { told++ })
	a.write("192.0.2.7 down # kernel update\n")
	if told != 2 {
		t.Errorf("%d notes, want one of what there was and one of the edit", told)
	}
}

// Any number of lines for the same address fits into one note, and what matters of them stays.
func TestSharingManyLines(t *testing.T) {
	w := newWorld(t, "", "")
	a, b := w.replicas[0], w.replicas[1]
	a.write("192.0.2.7 up # for ever\n")
	w.settle()
	for i := range 100 {
		b.write(fmt.Sprintf("%s192.0.2.7 down until 2026-11-26T%02d:%02d:00Z # %s %d\n", b.content, 13+i/60, i%60, strings.Repeat("ü", 150), i))
		w.settle()
		if got := w.agree("many lines"); !strings.HasPrefix(got, "192.0.2.7 down until ") || !strings.HasSuffix(got, fmt.Sprint("ü ", i)) {
			t.Fatalf("line %d: %q", i, got)
		}
	}
	w.now = time.Date(2026, 11, 26, 15, 0, 0, 0, time.UTC)
	w.settle()
	if got := w.agree("in the end"); got != "192.0.2.7 up  # for ever" {
		t.Errorf("in the end: %q", got)
	}
}

// The numbers in docs/overrides.md are those of the code.
func TestDocumentedSharing(t *testing.T) {
	lab.ExpectWords(t, "../../docs/overrides.md",
		fmt.Sprintf("remembered for %d days", forgetAfter/(24*time.Hour)),
		fmt.Sprintf("Up to %d addresses, ports and prefixes", maxShared),
		fmt.Sprintf("up to %d MiB", maxSharedSize>>20),
		fmt.Sprintf("%d octets are shared", maxSharedText),
		fmt.Sprintf("more than %s ahead", map[time.Duration]string{24 * time.Hour: "a day"}[maxAhead]),
	)
}
