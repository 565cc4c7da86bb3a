package main

// Every plugin of the CoreDNS in go.mod: core/plugin is what CoreDNS's own main imports, and follows its plugin.cfg. With
// v1.15.0 that makes 1446 packages and 119 MB; cmd/coredns/plugins.go tells what the most of it is.
import (
	_ "github.com/coredns-shaker/shaker"
	_ "github.com/coredns/coredns/core/plugin"
)
