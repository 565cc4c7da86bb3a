//go:build !linux

package lab

import (
	"errors"
	"time"
)

type tap struct{}

func newTap(bool) (*tap, error)                 { return nil, errors.ErrUnsupported }
func (*tap) wait(func())                        {}
func (*tap) read(func(time.Time, []byte)) error { return errors.ErrUnsupported }
func (*tap) check() error                       { return errors.ErrUnsupported }
func (*tap) close()                             {}
