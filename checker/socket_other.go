//go:build !linux

package checker

import (
	"fmt"
	"runtime"
)

func newSocketProber(int, func([]Report)) (backend, error) {
	return nil, fmt.Errorf("checker: method socket needs Linux, not %s; use dial", runtime.GOOS)
}
