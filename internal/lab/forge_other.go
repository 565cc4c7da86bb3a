//go:build !linux

package lab

import "errors"

type wire struct{}

func newWire(*Host) (*wire, error)  { return nil, errors.ErrUnsupported }
func (*wire) listen(_ func(Packet)) {}
func (*wire) send([]byte) error     { return errors.ErrUnsupported }
func (*wire) close()                {}
