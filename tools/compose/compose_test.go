package main

import (
	"os"
	"strings"
	"testing"
)

// Each mistake is made in a copy of our file for several replicas, and has to be found.
func TestMistakesAreFound(t *testing.T) {
	const path = "../../deploy/container/peers/compose.yaml"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ours := string(content)
	for _, tt := range []struct{ name, old, new, want string }{
		{"none", "", "", ""},
		{"unknown key", "read_only:", "readonly:", `unknown field "readonly"`},
		{"key given twice", "  read_only: true", "  read_only: true\n  read_only: false", `key "read_only" already set`},
		{"wrong type", "nofile: 65536", "nofile: many", "cannot unmarshal string"},
		{"secret", "secrets: [peers.key]", "secrets: [key]", `coredns1 has the secret "key", which is no file`},
		{"network", "    networks:\n      farm:\n        ipv4_address: 192.168.253.11", "    networks:\n      barn:\n        ipv4_address: 192.168.253.11",
			`web1 is in the network "barn", which has no subnet`},
		{"address elsewhere", "ipv4_address: 192.168.253.12", "ipv4_address: 192.168.254.12", `web2 has the address "192.168.254.12", which is not in 192.168.253.0/24`},
		{"address twice", "ipv4_address: 192.168.253.12", "ipv4_address: 192.168.253.11", "web1 and web2 both have 192.168.253.11"},
		{"port twice", "127.0.0.1:1052:53/udp", "127.0.0.1:1051:53/udp", "coredns1 and coredns2 both have 1051/udp"},
		{"port for everybody", "127.0.0.1:1052:53/udp", "1052:53/udp", `coredns2 publishes "1052:53/udp"`},
		{"file", "./Corefile:", "./Korefile:", "coredns1 mounts ./Korefile, which is not there"},
		{"context", "context: ../../..", "context: ../..", "which is not there"},
		{"variable", "PEERS_ADDRESS: 192.168.253.51", "PEER_ADDRESS: 192.168.253.51", "coredns1 lacks {$PEERS_ADDRESS} of its Corefile"},
		{"address of another", "PEERS_ADDRESS: 192.168.253.51", "PEERS_ADDRESS: 192.168.253.52", "coredns1 has PEERS_ADDRESS=192.168.253.52, which is not its address"},
		{"address of nobody", "ipv4_address: 192.168.253.12", "ipv4_address: 192.168.253.13", "the Corefile of coredns1 has 192.168.253.12, which no service has"},
		{"nothing to run", "  web1:\n    image: nginx:stable\n", "  web1:\n", "web1 has neither an image nor a way to build one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := ours
			if tt.old != "" {
				if text = strings.Replace(ours, tt.old, tt.new, 1); text == ours {
					t.Fatalf("the file has no %q", tt.old)
				}
			}
			got := ""
			if err := check(path, []byte(text)); err != nil {
				got = err.Error()
			}
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}
