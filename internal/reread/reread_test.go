package reread

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRead(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	if err := errors.Join(os.WriteFile(whole, []byte("twelve chars"), 0o600), os.Chmod(whole, 0o640)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("whole", link); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		most       int
		content    string
		err        string // what is in it
	}{
		{"as large as may be", whole, 12, "twelve chars", ""},
		{"by a link", link, 12, "twelve chars", ""},
		{"too large", whole, 11, "", "whole is larger than 11 octets"},
		{"missing", filepath.Join(dir, "other"), 12, "", "other"},
		{"directory", dir, 12, "", "is not a regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.path == link && runtime.GOOS == "windows" {
				t.Skip("links take a privilege on Windows; run it elsewhere")
			}
			r := Read(tt.path, tt.most)
			switch {
			case tt.err == "" && r.Err != nil:
				t.Fatal(r.Err)
			case tt.err != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), tt.err)):
				t.Errorf("the error is %v, want one with %q", r.Err, tt.err)
			case r.Content != tt.content:
				t.Errorf("read %q, want %q", r.Content, tt.content)
			case tt.err == "" && runtime.GOOS != "windows" && r.Mode != 0o640:
				t.Errorf("the mode is %v, want -rw-r-----", r.Mode)
			case tt.err == "" && r.Modified.IsZero():
				t.Error("it does not say when the file was changed")
			}
		})
	}
}

func TestSame(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b Reading
		want bool
	}{
		{"written anew", Reading{Content: "a", Modified: time.Unix(1, 0)}, Reading{Content: "a", Modified: time.Unix(2, 0)}, true},
		{"changed", Reading{Content: "a"}, Reading{Content: "b"}, false},
		{"one error", Reading{Err: errors.New("x")}, Reading{Err: errors.New("x")}, true},
		{"another error", Reading{Err: errors.New("x")}, Reading{Err: errors.New("y")}, false},
		{"empty, and not to be read", Reading{}, Reading{Err: errors.New("x")}, false},
	} {
		if got := tt.a.Same(tt.b); got != tt.want {
			t.Errorf("%s: the same: %t, want %t", tt.name, got, tt.want)
		}
	}
}

// While a look hangs there is no other, and what it found is there when it ends.
func TestLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks, release := 0, make(chan struct{})
		l := Looks{Path: "somewhere", Read: func(string) Reading {
			looks++
			<-release
			return Reading{Content: "late"}
		}}
		begin := time.Now()
		for _, tt := range []struct {
			after time.Duration
			hangs bool
		}{{0, false}, {Hangs - 1, false}, {Hangs, true}, {time.Hour, true}} {
			if got := l.Begin(begin.Add(tt.after)); got != tt.hangs {
				t.Errorf("after %v it hangs: %t, want %t", tt.after, got, tt.hangs)
			}
			synctest.Wait()
		}
		if looks != 1 {
			t.Errorf("there were %d looks, want 1", looks)
		}
		close(release)
		if r := <-l.Under(); r.Content != "late" || r.Err != nil {
			t.Errorf("it found %+v, want %q", r, "late")
		}
		l.End()
		if l.Begin(begin.Add(time.Hour)) {
			t.Error("the next look hangs at once")
		}
		<-l.Under()
		if looks != 2 {
			t.Errorf("there were %d looks, want 2", looks)
		}
	})
}

func TestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		l := Looks{Path: "somewhere", Read: func(string) Reading {
			<-release
			return Reading{}
		}}
		begin := time.Now()
		r := l.First()
		if waited := time.Since(begin); r.Err == nil || r.Err.Error() != l.Hanging().Error() || waited != Hangs {
			t.Errorf("after %v the error is %v, want %v after %v", waited, r.Err, l.Hanging(), Hangs)
		}
		close(release)
		if r := l.First(); r.Err != nil {
			t.Error(r.Err)
		}
	})
}

// A panic costs one look, which says so.
func TestPanic(t *testing.T) {
	var told []string
	l := Looks{
		Path: "somewhere",
		Read: func(string) Reading { panic("a fault") },
		Recovered: func(where string, reason any) {
			told = append(told, where+": "+reason.(string))
		},
	}
	if r := l.First(); r.Err == nil || !strings.Contains(r.Err.Error(), "somewhere could not be read because of a fault in shaker") {
		t.Errorf("the error is %v", r.Err)
	}
	if len(told) != 1 || told[0] != "while somewhere was read: a fault" {
		t.Errorf("told %q", told)
	}
}
