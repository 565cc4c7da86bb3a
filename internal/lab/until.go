package lab

import (
	"errors"
	"testing"
	"time"
)

// Until waits until a condition is met, and ends the test if it never is.
func Until(t testing.TB, what string, met func() bool) {
	t.Helper()
	waiting := errors.New(what)
	UntilNil(t, func() error {
		if met() {
			return nil
		}
		return waiting
	})
}

// UntilNil waits until try has nothing to complain about any more, and ends the test with its last complaint if it never
// does. Between two tries it sleeps for a millisecond, in the bubble's time in a bubble of testing/synctest.
func UntilNil(t testing.TB, try func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain for: %v", patience, err)
		}
	}
}
