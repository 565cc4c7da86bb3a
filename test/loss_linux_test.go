package test

import (
	"flag"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var lossTime = flag.Duration("loss", 2*time.Minute, "the time whose worth of checks TestLabLoss sends, at ten times the pace")

// thousand are the properties and the zone that have each of these addresses checked.
func thousand(addrs []netip.Addr) (properties, zone string) {
	const perName = 20
	var watched, records strings.Builder
	for i, addr := range addrs {
		if i%perName == 0 {
			fmt.Fprintf(&watched, "\nwatch n%d.example.org", i/perName)
		}
		fmt.Fprintf(&records, "n%d 60 IN A %v\n", i/perName, addr)
	}
	return watched.String(), records.String()
}

// A thousand living targets behind a line that loses packets in both directions. As many go down as docs/intervals.md
// computes: hundreds if a check is a single SYN, none with the defaults.
func TestLabLoss(t *testing.T) {
	const targets, faster = 1000, 10
	tests := []struct {
		tries, percent int
	}{
		{1, 5}, // the control: it has to find false downs
		{4, 2},
		{4, 5},
		{4, 10},
		{4, 20},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d tries, %d %%", tt.tries, tt.percent), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := l.Host("web")
				web.Listen(443)
				properties, zone := thousand(web.Addrs4(targets))
				// The defaults, at ten times the pace.
				p := launchProcess(t, fmt.Sprintf("interval 200ms 50ms\ntimeout 100ms\ntries %d\nrise 2\nfall 3\ndamping off%s",
					tt.tries, properties), zone)
				p.UntilNil(func() error {
					if n := p.counted("coredns_shaker_targets", `state="up"`); n < targets {
						return fmt.Errorf("%v of %d targets are up", n, targets)
					}
					return nil
				})
				count := func() (checks, unheld, tries, downs float64) {
					return p.counted("coredns_shaker_checks_total"), p.counted("coredns_shaker_checks_total", `result="inconclusive"`),
						p.counted("coredns_shaker_tries_total"), p.counted("coredns_shaker_state_changes_total", `state="down"`)
				}
				web.Lose(tt.percent)
				web.FilterOut(fmt.Sprintf("meta l4proto tcp numgen random mod 100 < %d drop", tt.percent))
				checks, unheld, tries, downs := count()
				time.Sleep(*lossTime / faster)
				checksNow, unheldNow, triesNow, downsNow := count()
				checks, unheld, tries, downs = checksNow-checks, unheldNow-unheld, triesNow-tries, downsNow-downs

				lost := 1 - math.Pow(1-float64(tt.percent)/100, 2)
				want := checks * math.Pow(lost, float64(3*tt.tries))
				t.Logf("%.0f checks, %.0f tries: %.3f tries a check; %.0f downs, the formula says %.4g", checks, tries, tries/checks, downs, want)
				if checks < targets*lossTime.Seconds()/4 {
					t.Errorf("only %.0f checks", checks)
				}
				// Both directions lose something, as it should be. On a machine that has no time for its checks, nobody can tell.
				if unheld > checks/100 {
					t.Logf("%.0f checks were inconclusive", unheld)
				} else if more := tries/checks - 1; tt.tries > 1 && (more < lost*0.7 || more > lost*1.6) {
					t.Errorf("%.3f further tries a check, with a loss of %.3f", more, lost)
				}
				if want > 50 && downs < want/2 || downs > want+5*math.Sqrt(want)+2 {
					t.Errorf("%.0f targets went down, want about %.3g", downs, want)
				}
			})
		})
	}
}
