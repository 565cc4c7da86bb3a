//go:build !linux

package checker

import "errors"

func (e egress) apply(int) error { return nil }

// verify returns an error if anything is asked for that only Linux has.
func (e egress) verify() error {
	if e == (egress{}) {
		return nil
	}
	return errors.New("checker: Interface and Mark are for Linux only")
}
