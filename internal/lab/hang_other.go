//go:build !linux

package lab

import (
	"fmt"
	"runtime"
)

func mountHanging(string) (release func(), err error) {
	return nil, fmt.Errorf("a file system that hangs needs Linux, this is %s", runtime.GOOS)
}
