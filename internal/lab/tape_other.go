//go:build !linux

package lab

import (
	"errors"
	"time"
)

type recorder struct{}

func newRecorder() (*recorder, error)         { return nil, errors.ErrUnsupported }
func (*recorder) run(func(time.Time, []byte)) {}
func (*recorder) close()                      {}

type player struct{}

func newPlayer(*Host) (*player, error) { return nil, errors.ErrUnsupported }
func (*player) send([]byte) error      { return errors.ErrUnsupported }
func (*player) close()                 {}
