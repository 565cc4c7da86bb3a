package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// The replicas of each Corefile that we show for several find each other, and every one of them is ready.
func TestShownReplicas(t *testing.T) {
	for name, tt := range map[string]struct {
		corefile string
		sites    []string // of each replica, in the environment
	}{
		"two machines": {fenceWith(t, "corefile", "peers allow 192.0.2.53"), []string{"", ""}},
		"three sites":  {fenceWith(t, "corefile", "peers site"), []string{"ams", "fra", "nyc"}},
		"Kubernetes":   {manifestCorefile(t), []string{"", "", ""}},
		"containers":   {readFile(t, "deploy/container/peers/Corefile"), []string{"", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startReplicas(t, tt.corefile, tt.sites)
			for i, r := range g {
				r.UntilNil(func() error {
					v := new(peersView)
					if err := getJSON("http://"+r.page+"/peers.json", v); err != nil {
						return err
					}
					return expectMembers(v, i, tt.sites, strings.Contains(tt.corefile, " quorum"))
				})
			}
		})
	}
}

// shownReplica is one of several processes with the same Corefile.
type shownReplica struct {
	*lab.Process
	page string // where its status page is
}

// replicaAddress is that of replica i.
func replicaAddress(i int) string { return fmt.Sprintf("127.0.0.%d", i+1) }

// startReplicas starts a process for each site, with an address of its own on loopback for all that it listens on.
func startReplicas(t *testing.T, corefile string, sites []string) (all []shownReplica) {
	t.Helper()
	dns, peers, page := port(t), port(t), port(t)
	var join []string
	for i := range sites {
		join = append(join, replicaAddress(i))
	}
	for i, site := range sites {
		text := amongPeers(corefile, replicaAddress(i), peers, join...)
		text = strings.ReplaceAll(onLoopback(text, replicaAddress(i)+":9", dns), "bind 127.0.0.1\n", "bind "+replicaAddress(i)+"\n")
		text = regexp.MustCompile(`(?m)^ *status .*\n`).ReplaceAllString(text, "")
		text = regexp.MustCompile(`(?m)^( *)peers key .*`).ReplaceAllString(text, fmt.Sprintf("$0\n${1}status %s:%d", replicaAddress(i), page))
		all = append(all, startReplica(t, i, text, dns, shownReplica{page: fmt.Sprintf("%s:%d", replicaAddress(i), page)}, "PEERS_SITE="+site))
	}
	return all
}

// startReplica starts CoreDNS in a directory of its own, with the files that a Corefile names, and returns when it serves.
func startReplica(t *testing.T, i int, corefile string, port int, r shownReplica, environment ...string) shownReplica {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lab.FileIn(t, dir, "peers.key", "a key for tests, which is long enough\n")
	lab.FileIn(t, dir, "overrides.example", "")
	lab.FileIn(t, dir, "db.example.org", "@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n")
	cmd := exec.Command(binary, "-conf", filepath.Base(lab.FileIn(t, dir, "Corefile", corefile)), "-dns.port", fmt.Sprint(port))
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), asCoreDNS+"=1"), environment...)
	r.Process = lab.Start(t, cmd)
	untilServing(r.Process, fmt.Sprintf("%s:%d", replicaAddress(i), port))
	return r
}

// expectMembers tells what is not yet as it should be: replica i sees all, of which it is one.
func expectMembers(v *peersView, i int, sites []string, quorum bool) error {
	seen := make(map[string]bool)
	for _, m := range v.Members {
		address, _, _ := strings.Cut(m.Address, ":")
		for j, site := range sites {
			if address == replicaAddress(j) && m.Site == site && m.Alive && !m.Strange && !m.Newer && m.Self == (i == j) {
				seen[address] = true
			}
		}
	}
	if len(seen) != len(sites) || len(v.Members) != len(sites) || !v.Ready || v.Quorum != quorum {
		return fmt.Errorf("%s sees %+v, want %d members that are alive, at %q", replicaAddress(i), *v, len(sites), sites)
	}
	return nil
}
