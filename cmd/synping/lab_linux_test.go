package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A living, a refusing and a silent host, by every method and on both families.
func TestLabSynping(t *testing.T) {
	for _, method := range []string{"socket", "raw", "dial"} {
		t.Run(method, func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				living, refusing, silent := l.Host("living"), l.Host("refusing"), l.Host("silent")
				living.Listen(443)
				silent.Drop(443)
				for _, v6 := range []bool{false, true} {
					var targets []string
					for _, h := range []*lab.Host{living, refusing, silent} {
						target := h.Addr4.String() + ":443"
						if v6 {
							target = "[" + h.Addr6.String() + "]:443"
						}
						targets = append(targets, target)
					}
					var stdout, stderr bytes.Buffer
					status := run(t.Context(), append([]string{"-method", method, "-n", "2", "-i", "100ms", "-t", "200ms"}, targets...), &stdout, &stderr)
					t.Logf("synping -method %s: status %d\n%s", method, status, &stdout)
					if status != 1 || stderr.Len() > 0 {
						t.Errorf("status %d, error output %q", status, &stderr)
					}
					for i, result := range []string{" answered in ", " refused in ", " timeout: no answer within 200ms\n"} {
						if n := strings.Count(stdout.String(), targets[i]+result); n != 2 {
							t.Errorf("%s: %d lines with%q, want 2", targets[i], n, result)
						}
					}
					if want := "6 sent, 2 answered, 66.6667% loss"; !strings.Contains(stdout.String(), want) {
						t.Errorf("no %q", want)
					}
				}
			})
		})
	}
}
