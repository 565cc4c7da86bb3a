package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
)

// machines are the architectures for which there are images, and what the header of a program for each says.
var machines = map[string]elf.Machine{
	"amd64": elf.EM_X86_64,
	"arm64": elf.EM_AARCH64,
}

// checkProgram tells whether a program is the right one, and runs where there is nothing else.
func checkProgram(content []byte, architecture, main string) error {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("it is no program for Linux, want one that was built with GOOS=linux GOARCH=%s: %w", architecture, err)
	}
	if want := machines[architecture]; file.Machine != want {
		return fmt.Errorf("it is for %v, want %v: build it with GOARCH=%s", file.Machine, want, architecture)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it needs a dynamic linker, which the image does not have: build it with CGO_ENABLED=0")
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("want a program of %s: %w", main, err)
	}
	if info.Path != main {
		return fmt.Errorf("it is %s, want %s", info.Path, main)
	}
	for _, s := range info.Settings {
		if s.Key == "GOOS" && s.Value != "linux" {
			return fmt.Errorf("it is for %s, want linux: build it with GOOS=linux", s.Value)
		}
	}
	return nil
}
