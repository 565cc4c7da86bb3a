//go:build !linux

package checker

import (
	"fmt"
	"runtime"
)

func newSocketProber(Config, func([]Report)) (backend, error) { return nil, errNotLinux(MethodSocket) }

func newRawProber(Config, func([]Report)) (backend, error) { return nil, errNotLinux(MethodRaw) }

func errNotLinux(m Method) error {
	return fmt.Errorf("checker: method %v needs Linux, not %s; use dial", m, runtime.GOOS)
}
