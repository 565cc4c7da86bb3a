//go:build !linux

package checker

import "errors"

func (e egress) apply(int) error { return nil }

// try refuses what is Linux's own.
func (e egress) try() error {
	if e == (egress{}) {
		return nil
	}
	return errors.New("checker: Interface and Mark are for Linux only")
}
