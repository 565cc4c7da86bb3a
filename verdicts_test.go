package shaker

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/override"
)

// verdictsFor returns what asks for verdicts under the policy that these properties make.
func verdictsFor(t *testing.T, n *network, properties string) *verdicts {
	t.Helper()
	blocks, _ := setupRead(t, "Corefile", "example.org {\n"+name+" {\n"+properties+"\n}\n}\n")
	zone := blocks[0]["example.org."]
	return &verdicts{zone: zone, request: handlerRequest("a.example.org.", 1), shaker: n.shaker(zone, "")}
}

// overridesFor returns rules for the policy of verdictsFor.
func overridesFor(t *testing.T, rules ...string) *override.File {
	t.Helper()
	file, err := override.Open(lab.File(t, "overrides", strings.Join(rules, "\n")), override.Listener{})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// When an address that is unknown has its verdict, by what is known of its ports. Those that were asked for before are older.
func TestVerdictsWithin(t *testing.T) {
	const second = time.Second
	for name, tt := range map[string]struct {
		properties string
		results    string
		overrides  string
		older      uint16 // a port that was asked for before
		age        time.Duration
		want       answer.Verdict
	}{
		"new":                    {"port 443", "", "", 0, 0, answer.Verdict{State: answer.Unknown, Within: 3 * second}},
		"fall and timeout":       {"port 443\nfall 5\ntimeout 2s", "", "", 0, 0, answer.Verdict{State: answer.Unknown, Within: 10 * second}},
		"older":                  {"port 443", "", "", 443, second, answer.Verdict{State: answer.Unknown, Within: 2 * second}},
		"down":                   {"port 443", "10.0.0.1=timeout", "", 443, 4 * second, answer.Verdict{State: answer.Down}},
		"all ports, the first":   {"port 80 443", "", "", 80, second, answer.Verdict{State: answer.Unknown, Within: 2 * second}},
		"all ports, the second":  {"port 80 443", "", "", 443, second, answer.Verdict{State: answer.Unknown, Within: 2 * second}},
		"any port":               {"port any 80 443", "", "", 80, second, answer.Verdict{State: answer.Unknown, Within: 3 * second}},
		"any port, one is down":  {"port any 80 443", "10.0.0.1=timeout", "", 80, 4 * second, answer.Verdict{State: answer.Unknown, Within: 3 * second}},
		"all ports, one is down": {"port 80 443", "10.0.0.1=timeout", "", 80, 4 * second, answer.Verdict{State: answer.Down}},
		"refused":                {"port 443", "10.0.0.1=refused", "", 443, second, answer.Verdict{State: answer.Down}},
		"up":                     {"port 443", "10.0.0.1=answered", "", 443, second, answer.Verdict{State: answer.Up, RTT: time.Millisecond}},
		"inconclusive":           {"port 443", "10.0.0.1=inconclusive", "", 443, second, answer.Verdict{State: answer.Unknown}},
		"all ports, one told":    {"port 80 443", "10.0.0.1=inconclusive", "", 80, second, answer.Verdict{State: answer.Unknown, Within: 3 * second}},
		"any port, one told":     {"port any 80 443", "10.0.0.1=inconclusive", "", 80, second, answer.Verdict{State: answer.Unknown}},
		"overridden":             {"port 443", "", "10.0.0.1 up", 0, 0, answer.Verdict{State: answer.Up}},
		"a port is overridden":   {"port 80 443", "", "10.0.0.1:80 up", 80, second, answer.Verdict{State: answer.Unknown, Within: 3 * second}},
		"a port of any is down":  {"port any 80 443", "", "10.0.0.1:80 down", 80, second, answer.Verdict{State: answer.Unknown, Within: 3 * second}},
		"not probed":             {"port 443\ndeny 10.0.0.0/8", "", "", 0, 0, answer.Verdict{}},
		"no room":                {"port 80 443\nlimit targets 1", "", "", 0, 0, answer.Verdict{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newNetwork(t, tt.results)
				v := verdictsFor(t, network, tt.properties)
				v.zone.overrides = overridesFor(t, tt.overrides)
				if strings.Contains(tt.properties, "limit targets 1") {
					network.Monitor.SetLimits(1, 0)
				}
				addr := netip.MustParseAddr("10.0.0.1")
				if strings.Contains(tt.results, "timeout") {
					network.Delay = time.Second
				}
				if tt.older > 0 {
					v.Ask(addr, tt.older)
				}
				time.Sleep(tt.age)
				synctest.Wait()
				network.Delay = time.Second // what is new has no verdict yet
				if got := v.Ask(addr, 0); got != tt.want {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
			})
		})
	}
}
