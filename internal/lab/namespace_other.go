//go:build !linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
)

// namespace does not exist here, so Run always skips and the rest is never reached.
type namespace struct{ tid int }

func newNamespace() (*namespace, error) {
	return nil, fmt.Errorf("network namespaces need Linux, this is %s", runtime.GOOS)
}

func (*namespace) do(func()) bool        { return false }
func (*namespace) close()                {}
func (*namespace) setUp() error          { return errors.ErrUnsupported }
func (*namespace) start(*exec.Cmd) error { return errors.ErrUnsupported }
func relisten(net.Listener, int) error   { return errors.ErrUnsupported }
