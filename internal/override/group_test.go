package override

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a file in memory.
type memory struct {
	mu      sync.Mutex
	content string
	written time.Time
}

func (m *memory) read(string) reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return reading{Content: m.content, Modified: m.written}
}

func (m *memory) write(content string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.content, m.written = content, time.Now()
}

// Two minutes of two replicas that read their files as they do in life, and of which one reloads and restarts.
func TestShareLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var a, b memory
		a.write("")
		b.write("")
		logA, logB := new(record), new(record)
		sharing := func(host string, log *record) *Sharing {
			return NewSharing(host, "192.0.2.53:7946", SharingListener{Warningf: log.listener().Errorf})
		}
		shareA, shareB := sharing("ns1", logA), sharing("ns2", logB)
		start := func(m *memory, s *Sharing, log *record) *File {
			f, err := open("overrides", log.listener(), m.read, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			f.Share(s, "overrides")
			f.Start()
			return f
		}
		deliver := func(from, to *Sharing) {
			from.Publish(func(key string, value []byte) { go to.Take(key, slices.Clone(value)) })
		}
		deliver(shareA, shareB)
		deliver(shareB, shareA)
		fileA, fileB := start(&a, shareA, logA), start(&b, shareB, logB)
		defer func() { fileA.Stop(); fileB.Stop() }()
		var next *File
		for _, step := range []struct {
			name string
			do   func()
			a, b []string // lines of the log, without "Override: "
		}{
			{"a drain", func() { a.write("192.0.2.7 down until 2000-01-01T00:01:30Z # kernel update\n") },
				[]string{"192.0.2.7 is down until 2000-01-01T00:01:30Z, was auto (kernel update), by ns1 since 2000-01-01T00:00:10Z", "Overrides in force from overrides: 1"},
				[]string{"192.0.2.7 is down until 2000-01-01T00:01:30Z, was auto (kernel update), by ns1 since 2000-01-01T00:00:10Z", "Overrides in force from overrides: 1"}},
			{"another one, elsewhere", func() { b.write("192.0.2.8 down\n") },
				[]string{"192.0.2.8 is down, was auto, by ns2 since 2000-01-01T00:00:20Z", "Overrides in force from overrides: 2"},
				[]string{"192.0.2.8 is down, was auto, by ns2 since 2000-01-01T00:00:20Z", "Overrides in force from overrides: 2"}},
			{"a reload", func() {
				next = start(&b, shareB, logB)
				time.Sleep(time.Second)
				fileB.Stop()
				fileB = next
			}, nil, nil},
			{"a reload that fails, with a change meanwhile", func() {
				next = start(&b, shareB, logB)
				b.write("192.0.2.8 down\n192.0.2.9 up\n")
				time.Sleep(100 * time.Millisecond)
				next.Stop()
			}, []string{"192.0.2.9 is up, was auto, by ns2 since 2000-01-01T00:00:40Z", "Overrides in force from overrides: 3"},
				[]string{"192.0.2.9 is up, was auto, by ns2 since 2000-01-01T00:00:40Z", "Overrides in force from overrides: 3"}},
			{"a file that is gone for a moment", func() {
				a.write("nonsense\n")
				time.Sleep(2 * time.Second)
				a.write("192.0.2.7 down until 2000-01-01T00:01:30Z # kernel update\n")
			}, []string{"Overrides stay as they were: overrides: line 1: ", "Overrides in force from overrides: 3"}, nil},
			{"it is left to its checks elsewhere", func() { b.write("192.0.2.8 auto\n192.0.2.9 up\n") },
				[]string{"192.0.2.8 is auto, was down, by ns2 since 2000-01-01T00:01:00Z", "Overrides in force from overrides: 3"},
				[]string{"192.0.2.8 is auto, was down, by ns2 since 2000-01-01T00:01:00Z", "Overrides in force from overrides: 3"}},
			{"a restart", func() {
				fileA.Stop()
				shareA = sharing("ns1", logA)
				deliver(shareB, shareA) // it is told everything
				deliver(shareA, shareB)
				synctest.Wait()
				fileA = start(&a, shareA, logA)
			}, nil, nil},
			{"nothing", func() {}, nil, nil},
			{"the end of the drain", func() {},
				[]string{"192.0.2.7 is auto, was down: it ended at 2000-01-01T00:01:30Z (kernel update)"},
				[]string{"192.0.2.7 is auto, was down: it ended at 2000-01-01T00:01:30Z (kernel update)"}},
			{"lines are removed", func() { a.write(""); b.write("192.0.2.9 up\n") },
				[]string{"Overrides in force from overrides: 1"}, []string{"Overrides in force from overrides: 1"}},
			{"nothing", func() {}, nil, nil},
		} {
			time.Sleep(time.Until(began.Add(time.Since(began).Truncate(10*time.Second) + 10*time.Second)))
			step.do()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			for i, r := range []struct {
				log  *record
				want []string
			}{{logA, step.a}, {logB, step.b}} {
				got := r.log.take()
				if !slices.EqualFunc(got, r.want, func(got, want string) bool { return strings.HasPrefix(strings.TrimPrefix(got, "Override: "), want) }) {
					t.Errorf("%s: replica %d logged\n%s\nwant\n%s", step.name, i+1, strings.Join(got, "\n"), strings.Join(r.want, "\n"))
				}
			}
			if got, want := fmt.Sprint(fileA.Rules().Sorted()), fmt.Sprint(fileB.Rules().Sorted()); got != want {
				t.Errorf("%s: %s and %s", step.name, got, want)
			}
		}
		if took := time.Since(began); took < 110*time.Second {
			t.Errorf("it took only %v", took)
		}
	})
}

// Without others that share it, a file is what it was, and one that is kept to itself too.
func TestShareAlone(t *testing.T) {
	const text = "192.0.2.7 down\n192.0.2.0/24 up # all\n192.0.2.7 auto\n192.0.2.8 auto\n192.0.2.0/24 down until 2026-11-26T16:00:00Z\n"
	now := func() time.Time { return time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC) }
	for _, shared := range []bool{false, true} {
		m := &memory{content: text, written: now().Add(-time.Hour)}
		f, err := open("overrides", new(record).listener(), m.read, now)
		if err != nil {
			t.Fatal(err)
		}
		if shared {
			f.Share(newSharing("ns1", "", SharingListener{}, now), "overrides")
		}
		f.join()
		want, err := Parse(text, now())
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Rules(); !got.equal(want) {
			t.Errorf("%v, want %v", got.Sorted(), want.Sorted())
		}
		for _, r := range f.Rules().Sorted() {
			if (r.From == "ns1") != shared || r.Since.IsZero() == shared || f.IsShared() != shared {
				t.Errorf("shared %v: %+v", shared, r)
			}
		}
		f.leave()
	}
}
