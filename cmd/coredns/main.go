// Command coredns is CoreDNS with the shaker plugin in it.
//
// It takes the flags of CoreDNS and reads the same Corefile. With -check it reads the Corefile, prints the policies of
// shaker that would be in force, and ends without serving. Which plugins are linked, and which are not and why, is in
// plugins.go. The command coredns-all, beside this one, has them all.
package main

import "github.com/coredns-shaker/shaker/cmd/internal/server"

func main() { server.Run() }
