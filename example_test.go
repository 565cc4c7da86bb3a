package shaker_test

import (
	"log"
	"os"

	"github.com/coredns/caddy"

	"github.com/coredns-shaker/shaker"
)

// This is in docs/check.md.
func ExampleCheck() {
	corefile, err := caddy.LoadCaddyfile("dns")
	if err == nil {
		err = shaker.Check(os.Stdout, corefile)
	}
	if err != nil {
		log.Fatal(err)
	}
}
