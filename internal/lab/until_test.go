package lab

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// failing is a test that notes how it ends.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, f := time.Now(), &failing{TB: t}
		Until(f, "a second", func() bool { return time.Since(began) >= time.Second })
		if took := time.Since(began); took != time.Second || f.said != "" {
			t.Errorf("took %v, said %q", took, f.said)
		}
		func() {
			defer func() { recover() }()
			UntilNil(f, func() error { return errors.New("never") })
		}()
		if took := time.Since(began); took <= patience || !strings.HasSuffix(f.said, "in vain for: never") {
			t.Errorf("took %v, said %q", took, f.said)
		}
	})
}
