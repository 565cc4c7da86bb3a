package checker

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestNoPath(t *testing.T) {
	call := os.NewSyscallError
	tests := map[string]struct {
		err  error
		want bool
	}{
		"nothing":               {nil, false},
		"no route":              {call("connect", networkErrnos[0]), true},
		"unreachable route":     {call("connect", hostErrnos[0]), true},
		"no route, wrapped":     {fmt.Errorf("check: %w", call("connect", networkErrnos[0])), true},
		"no route, bare":        {networkErrnos[0], true},
		"rejected":              {ErrFiltered, true},
		"rejected, raw":         {call("sendmmsg", syscall.EPERM), true},
		"black hole":            {call("connect", syscall.EINVAL), true},
		"black hole, raw":       {call("sendmmsg", syscall.EINVAL), true},
		"wrong option":          {call("setsockopt", syscall.EINVAL), false},
		"prohibited route":      {call("connect", syscall.EACCES), false},
		"prohibited route, raw": {call("sendmmsg", syscall.EACCES), false},
		"no permission":         {call("connect", deniedErrnos[0]), false},
		"no permission, socket": {call("socket", deniedErrnos[0]), false},
		"no permission, bare":   {deniedErrnos[0], false},
		"no descriptor":         {call("socket", descriptorErrnos[0]), false},
		"no port":               {call("connect", addressErrnos[0]), false},
		"no memory":             {call("sendmmsg", bufferErrnos[0]), false},
		"busy":                  {ErrBusy, false},
		"overflow":              {ErrOverflow, false},
		"closed":                {ErrClosed, false},
		"invalid":               {ErrTarget, false},
		"other":                 {errors.New("else"), false},
	}
	for name, tt := range tests {
		if got := NoPath(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
