//go:build !linux

package lab

import (
	"errors"
	"sync/atomic"
)

type delayLine struct{ wait atomic.Int64 }

func newDelayLine(*Host) (*delayLine, error) { return nil, errors.ErrUnsupported }
func (*delayLine) close()                    {}
