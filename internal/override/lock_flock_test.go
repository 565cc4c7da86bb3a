//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package override

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever has the lock keeps others waiting, for a while.
func TestAddWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := writeFile(t, "overrides", "192.0.2.1 down\n")
		holder, err := openLocked(path)
		if err != nil {
			t.Fatal(err)
		}
		rule := Rule{What: "192.0.2.7", Says: Down}
		began := time.Now()
		err = addOne(path, rule, noon)
		if want := "lock " + path + ": somebody else has had it for 5s, want the program ended that does (see lsof)"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if took := time.Since(began); took != lockPatience {
			t.Errorf("that took %v, want %v", took, lockPatience)
		}
		if got := readWhole(t, path); got != "192.0.2.1 down\n" {
			t.Errorf("the file has %q", got)
		}
		// The one who has it puts another file of the same size in the place of this one.
		result := make(chan error)
		go func() { result <- addOne(path, rule, noon) }()
		time.Sleep(time.Second)
		if err := os.WriteFile(path+".new", []byte("192.0.2.2 down\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		holder.Close()
		if err := <-result; err != nil {
			t.Error(err)
		}
		if got, want := readWhole(t, path), "192.0.2.2 down\n192.0.2.7 down\n"; got != want {
			t.Errorf("the file has %q, want %q", got, want)
		}
		if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(names) != 1 {
			t.Errorf("left over: %q", names)
		}
	})
}
