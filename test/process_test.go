package test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// process is a CoreDNS that is a process of its own. So it can get signals, and another can take its place.
type process struct {
	server
	*lab.Process
}

// startProcess starts CoreDNS with a Corefile, and returns when it serves at the address. The program is that of the test
// where binary is empty.
func startProcess(t testing.TB, binary, address, text string, environment ...string) *process {
	t.Helper()
	return startProcessIn(t, "", binary, address, text, environment...)
}

// startProcessIn does so in a directory, in that of the test where it is empty.
func startProcessIn(t testing.TB, dir, binary, address, text string, environment ...string) *process {
	t.Helper()
	if binary == "" {
		var err error
		if binary, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary, "-conf", lab.File(t, "Corefile", text))
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), asCoreDNS+"=1"), environment...)
	p := &process{server{t: t, addr: address, tcp: address}, lab.Start(t, cmd)}
	untilServing(p.Process, address)
	return p
}

// untilServing waits until a CoreDNS answers at the address.
func untilServing(p *lab.Process, address string) {
	p.UntilNil(func() error {
		// A query that has no question and that no plugin gets to see.
		_, _, err := new(dns.Client).Exchange(&dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id()}}, address)
		return err
	})
}
