package main

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

type checker struct {
	path     string
	file     file
	used     map[string]string // addresses and published ports, and which service has each
	problems []error
}

func (c *checker) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(format, args...))
}

func (c *checker) check() {
	names := slices.Sorted(maps.Keys(c.file.Services))
	for _, name := range names {
		c.checkNetworks(name, c.file.Services[name])
	}
	for _, name := range names {
		s := c.file.Services[name]
		c.checkBuild(name, s)
		c.checkPorts(name, s)
		for _, secret := range s.Secrets {
			if c.file.Secrets[secret].File == "" {
				c.problem("%s has the secret %q, which is no file", name, secret)
			}
		}
		for _, volume := range s.Volumes {
			c.checkVolume(name, s, volume)
		}
	}
}

// there returns the path of something that a path in the file leads to, and tells whether it exists.
func (c *checker) there(path string) (string, bool) {
	path = filepath.Join(filepath.Dir(c.path), path)
	_, err := os.Stat(path)
	return path, err == nil
}

func (c *checker) checkBuild(name string, s service) {
	if s.Build == nil {
		if s.Image == "" {
			c.problem("%s has neither an image nor a way to build one", name)
		}
		return
	}
	if _, ok := c.there(filepath.Join(s.Build.Context, s.Build.Dockerfile)); !ok {
		c.problem("%s is built by %s in %s, which is not there", name, s.Build.Dockerfile, s.Build.Context)
	}
}

func (c *checker) checkNetworks(name string, s service) {
	for network, at := range s.Networks {
		config := c.file.Networks[network].IPAM.Config
		if len(config) != 1 {
			c.problem("%s is in the network %q, which has no subnet", name, network)
			continue
		}
		subnet, err := netip.ParsePrefix(config[0].Subnet)
		if err != nil {
			c.problem("the network %s: %v", network, err)
			continue
		}
		if addr, err := netip.ParseAddr(at.Address); err != nil || !subnet.Contains(addr) {
			c.problem("%s has the address %q, which is not in %v", name, at.Address, subnet)
		}
		c.claim(name, at.Address)
	}
}

// claim notes that a service has something that only one can have.
func (c *checker) claim(name, what string) {
	if other, ok := c.used[what]; ok {
		c.problem("%s and %s both have %s", other, name, what)
	}
	c.used[what] = name
}

func (c *checker) checkPorts(name string, s service) {
	for _, port := range s.Ports {
		match := published.FindStringSubmatch(port)
		if match == nil {
			c.problem("%s publishes %q, want 127.0.0.1:PORT:PORT/PROTOCOL", name, port)
			continue
		}
		c.claim(name, match[1]+"/"+match[2])
	}
}

var (
	variable = regexp.MustCompile(`\{\$(\w+)\}`)
	address  = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+(/\d+)?`)
	// published is a port that only this machine reaches.
	published = regexp.MustCompile(`^127\.0\.0\.1:(\d+):\d+/(udp|tcp)$`)
)

// checkVolume looks for a file that is mounted, and, if it is a Corefile, for what it takes from its surroundings.
func (c *checker) checkVolume(name string, s service, volume string) {
	source, _, _ := strings.Cut(volume, ":")
	path, ok := c.there(source)
	if !ok {
		c.problem("%s mounts %s, which is not there", name, source)
	}
	if !ok || filepath.Base(path) != "Corefile" {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		c.problem("%v", err)
	}
	corefile := variable.ReplaceAllStringFunc(string(text), func(v string) string {
		value, ok := s.Environment[v[2:len(v)-1]]
		if !ok {
			c.problem("%s lacks %s of its Corefile", name, v)
		}
		if at, err := netip.ParseAddr(value); err == nil && c.used[at.String()] != name {
			c.problem("%s has %s=%s, which is not its address", name, v[2:len(v)-1], value)
		}
		return value
	})
	for _, at := range address.FindAllString(corefile, -1) {
		if !strings.Contains(at, "/") && c.isOfNetwork(at) && c.used[at] == "" {
			c.problem("the Corefile of %s has %s, which no service has", name, at)
		}
	}
}

// isOfNetwork tells whether an address is in one of the networks.
func (c *checker) isOfNetwork(at string) bool {
	addr, err := netip.ParseAddr(at)
	if err != nil {
		return false
	}
	for _, network := range c.file.Networks {
		for _, config := range network.IPAM.Config {
			if subnet, err := netip.ParsePrefix(config.Subnet); err == nil && subnet.Contains(addr) {
				return true
			}
		}
	}
	return false
}
