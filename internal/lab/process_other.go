//go:build !linux

package lab

import "os/exec"

func endWithParent(*exec.Cmd) {}
