// Command coredns-all is CoreDNS with all of its plugins and the shaker plugin in it: for those whom the command coredns
// lacks one, such as kubernetes in the DNS of a cluster. It takes the same flags.
//
// It is a module of its own, so that whoever uses shaker as a library, or builds the command coredns, is spared what
// these plugins require.
package main

import "github.com/coredns-shaker/shaker/cmd/internal/server"

func main() { server.Run() }
