// Command compose checks files of docker compose without docker: their keys and types, as far as they are used here, and
// that what is in them fits together.
//
//	compose deploy/container/compose.yaml deploy/container/peers/compose.yaml
//
// A key that is not known here, one that is given twice and a value of the wrong type are errors; so is a network, secret,
// file or directory that is not there, an address that is outside of its network or given twice, a port that is published
// twice or for everybody, a variable in a Corefile that the service does not have, and an address in a Corefile that is of the
// network but of no service.
package main

import (
	"errors"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE...")
		os.Exit(2)
	}
	failed := false
	for _, path := range os.Args[1:] {
		content, err := os.ReadFile(path)
		if err == nil {
			err = check(path, content)
		}
		if err != nil {
			failed = true
			fmt.Fprintf(os.Stderr, "compose: %s: %v\n", path, err)
		}
	}
	if failed {
		os.Exit(1)
	}
	fmt.Printf("%d files fit together\n", len(os.Args)-1)
}

// file is a file of docker compose, with the keys that are used here.
type file struct {
	Services map[string]service `json:"services"`
	Networks map[string]struct {
		IPAM struct {
			Config []struct {
				Subnet string `json:"subnet"`
			} `json:"config"`
		} `json:"ipam"`
	} `json:"networks"`
	Secrets map[string]struct {
		File string `json:"file"`
	} `json:"secrets"`
	// CoreDNS is what services have in common. It counts where it is merged into them.
	CoreDNS service `json:"x-coredns"`
}

type service struct {
	Image string `json:"image"`
	Build *struct {
		Context    string `json:"context"`
		Dockerfile string `json:"dockerfile"`
	} `json:"build"`
	Environment map[string]string `json:"environment"`
	Volumes     []string          `json:"volumes"`
	Secrets     []string          `json:"secrets"`
	Ports       []string          `json:"ports"`
	Networks    map[string]struct {
		Address string `json:"ipv4_address"`
	} `json:"networks"`
	ReadOnly    bool           `json:"read_only"`
	CapDrop     []string       `json:"cap_drop"`
	SecurityOpt []string       `json:"security_opt"`
	Ulimits     map[string]int `json:"ulimits"`
	Restart     string         `json:"restart"`
}

// check returns all that is wrong with a file.
func check(path string, content []byte) error {
	c := checker{path: path, used: make(map[string]string)}
	if err := yaml.UnmarshalStrict(content, &c.file); err != nil {
		return err
	}
	c.check()
	return errors.Join(c.problems...)
}
