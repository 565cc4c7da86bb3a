package checker

import (
	"errors"
	"os"
	"slices"
	"testing"
)

func TestCause(t *testing.T) {
	tests := map[string]error{
		"closed":        ErrClosed,
		"invalid":       ErrTarget,
		"busy":          ErrBusy,
		"paused":        ErrPaused,
		"firewall":      os.NewSyscallError("connect", deniedErrnos[0]),
		"no_route":      os.NewSyscallError("connect", networkErrnos[0]),
		"no_descriptor": os.NewSyscallError("socket", descriptorErrnos[0]),
		"no_buffer":     os.NewSyscallError("connect", bufferErrnos[0]),
		"no_address":    os.NewSyscallError("bind", addressErrnos[0]),
		"other":         errors.New("something else"),
	}
	for want, err := range tests {
		if got := Cause(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
		if !slices.Contains(Causes(), want) {
			t.Errorf("Causes lacks %q", want)
		}
	}
	if len(Causes()) != len(tests) {
		t.Errorf("Causes has %d, want %d", len(Causes()), len(tests))
	}
}

func TestResultNames(t *testing.T) {
	want := []string{"inconclusive", "answered", "refused", "timeout", "unreachable"}
	for i, r := range Results() {
		if r.String() != want[i] {
			t.Errorf("result %d is %q, want %q", i, r, want[i])
		}
	}
}
