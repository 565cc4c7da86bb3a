package members

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/internal/reread"
)

const (
	keyA = "a key for tests, A"
	keyB = "a key for tests, B"
)

func TestParseKeys(t *testing.T) {
	for _, tt := range []struct {
		content string
		keys    string // with | in between
		want    string // begins the error
	}{
		{keyA, keyA, ""},
		{keyA + "\n", keyA, ""},
		{"# made in May\n\n  " + keyA + "\t \r\n# the old one\n" + keyB + "\n", keyA + "|" + keyB, ""},
		{keyA + "\n" + keyA + "\n", keyA, ""},
		{"0123456789abcdef", "0123456789abcdef", ""},
		{"ключ из кириллицы", "ключ из кириллицы", ""},
		{"", "", "FILE has no key, want one on the first line, such as a line that"},
		{"# nothing\n", "", "FILE has no key, want one"},
		{keyA + "\n0123456789abcde\n", "", "FILE: line 2 is a key of 15 characters, want 16 or more, such as a line that \"openssl rand -base64 32\" writes"},
		{"éééééééééééé", "", "FILE: line 1 is a key of 12 characters"},
		{"\xff\xfe" + keyA, "", "FILE is not UTF-8, want lines of text"},
		{"\ufeff" + keyA, "", "FILE: line 1 has characters that cannot be seen"},
		{"0123456789\x00abcdef", "", "FILE: line 1 has characters that cannot be seen"},
		{strings.Repeat("0123456789abcdef%\n", 1) + numbered(8), "", "FILE has more than 8 keys, want those removed"},
	} {
		k, err := parseKeys("FILE", tt.content)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%q: %v", tt.content, err)
		case tt.want == "":
			if got := strings.Join(k.lines, "|"); got != tt.keys {
				t.Errorf("%q: keys %q, want %q", tt.content, got, tt.keys)
			}
		case err == nil || !strings.HasPrefix(err.Error(), tt.want):
			t.Errorf("%q: error %v, want %s", tt.content, err, tt.want)
		}
	}
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(string(rune('a'+i)), 16) + "\n")
	}
	return b.String()
}

func ring(t testing.TB, lines ...string) *keyring {
	t.Helper()
	k, err := parseKeys("keys", strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A key is all of its line, and not only what fits into so many octets at its beginning.
func TestKeysDifferInAnyPlace(t *testing.T) {
	long := strings.Repeat("0123456789", 20)
	me := receiverOf("me")
	packet := sealPacket(nil, ring(t, long+"a"), me, newNumbering(), forUser, []byte("hello"))
	for _, other := range []string{long + "b", long, long + "a.", long[1:] + "a"} {
		if _, _, why := openPacket(nil, ring(t, other), me, new(copies), packet); why != key {
			t.Errorf("%q opens what %q has sealed", other, long+"a")
		}
	}
	if _, plain, why := openPacket(nil, ring(t, keyA, "  "+long+"a  "), me, new(copies), packet); why != taken || string(plain) != "hello" {
		t.Errorf("opened %q, %v", plain, why)
	}
}

// told collects what a listener is told.
type told struct {
	mu    sync.Mutex
	lines []string
}

func (l *told) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *told) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// drain returns all lines, and forgets them.
func (l *told) drain() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Join(l.lines, "\n")
	l.lines = nil
	return all
}

func TestKeyFileFollowsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reading := reread.Reading{Content: keyA}
		var mu sync.Mutex
		set := func(r reread.Reading) {
			mu.Lock()
			defer mu.Unlock()
			reading = r
		}
		f, err := openKeyFile("keys", func(string) reread.Reading {
			mu.Lock()
			defer mu.Unlock()
			return reading
		})
		if err != nil {
			t.Fatal(err)
		}
		var lines told
		var force string
		f.start(lines.listener(), func(k *keyring) { force = strings.Join(k.lines, "|") })
		defer f.stop()
		for _, tt := range []struct {
			reading reread.Reading
			after   time.Duration
			force   string
			told    string
		}{
			{reread.Reading{Content: keyA}, 5 * time.Second, keyA, ""},
			{reread.Reading{Content: keyA + "\n" + keyB}, 1100 * time.Millisecond, keyA, ""},
			{reread.Reading{Content: keyA + "\n" + keyB}, time.Second, keyA + "|" + keyB, "Peers: keys in force from keys: 2, the same one encrypts"},
			{reread.Reading{Content: ""}, 1100 * time.Millisecond, keyA + "|" + keyB, ""}, // somebody writes it anew
			{reread.Reading{Content: keyB + "\n" + keyA}, 2 * time.Second, keyB + "|" + keyA, "Peers: keys in force from keys: 2, another one encrypts now"},
			{reread.Reading{Content: "short"}, 3 * time.Second, keyB + "|" + keyA, "Warning: Peers: the keys stay as they were: keys: line 1 is a key of 5 characters, want 16 or more, " + makeKey},
			{reread.Reading{Content: "short"}, time.Minute, keyB + "|" + keyA, ""},
			{reread.Reading{Err: errors.New("gone")}, 3 * time.Second, keyB + "|" + keyA, "Warning: Peers: the keys stay as they were: gone"},
			{reread.Reading{Content: keyB}, 3 * time.Second, keyB, "Peers: keys in force from keys: 1, the same one encrypts"},
		} {
			set(tt.reading)
			time.Sleep(tt.after)
			synctest.Wait()
			if force != tt.force {
				t.Errorf("%q: in force %q, want %q", tt.reading.Content, force, tt.force)
			}
			if got := lines.drain(); got != tt.told {
				t.Errorf("%q: told %q, want %q", tt.reading.Content, got, tt.told)
			}
		}
	})
}

// A file system that hangs holds up nobody for longer than five seconds, and leaves one goroutine behind.
func TestKeyFileHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		reads := 0
		_, err := openKeyFile("keys", func(string) reread.Reading { <-hang; return reread.Reading{} })
		if err == nil || !strings.HasPrefix(err.Error(), "keys has not been read within 5s, so its file system hangs, want a file with a key") {
			t.Errorf("open: %v", err)
		}
		f, err := openKeyFile("keys", func(string) reread.Reading {
			if reads++; reads > 1 {
				<-hang
			}
			return reread.Reading{Content: keyA}
		})
		if err != nil {
			t.Fatal(err)
		}
		var lines told
		f.start(lines.listener(), func(*keyring) {})
		time.Sleep(time.Minute)
		synctest.Wait()
		f.stop()
		if got, want := lines.drain(), "Warning: Peers: the keys stay as they were: keys has not been read within 5s, so its file system hangs"; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
		if reads != 2 {
			t.Errorf("%d looks, want 2", reads)
		}
	})
}

func TestReadKeys(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		write("good", keyA): "",
		write("large", strings.Repeat("#", maxKeyFile+1)): "is larger than 65536 octets",
		dir:                          "is not a regular file",
		filepath.Join(dir, "nobody"): "no such file",
	} {
		r := readKeys(path)
		if (r.Err == nil) != (want == "") || r.Err != nil && !strings.Contains(r.Err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, r.Err, want)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add(keyA + "\n# old\n" + keyB)
	f.Add("\ufeff\xff\x00")
	f.Fuzz(func(t *testing.T, content string) {
		k, err := parseKeys("keys", content)
		if err != nil {
			return
		}
		if len(k.lines) < 1 || len(k.lines) > maxKeys || len(k.secrets) != len(k.lines) {
			t.Fatalf("%d keys of %d lines", len(k.secrets), len(k.lines))
		}
		packet := sealPacket(nil, k, receiverOf("me"), newNumbering(), forUser, []byte("hello"))
		if _, plain, why := openPacket(nil, ring(t, strings.Join(k.lines, "\n")), receiverOf("me"), new(copies), packet); why != taken || string(plain) != "hello" {
			t.Fatalf("opened %q, %v", plain, why)
		}
	})
}
