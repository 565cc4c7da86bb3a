package main

import (
	"strings"
	"testing"
)

// The exit status tells whether the replica that was asked can be relied upon.
func TestPeers(t *testing.T) {
	level := strings.Replace(peersBody, `"lag":12`, `"lag":0`, 1)
	for _, tt := range []struct{ name, body, problem string }{
		{"all is well", level, ""}, // another one may be silent, or frozen
		{"lag", peersBody, "12 changes of dns2 (192.0.2.2:7946) are not known here yet"},
		{"lag of one", strings.Replace(level, `"lag":0`, `"lag":1`, 2), "1 change of dns1 (192.0.2.1:7946) is not known here yet\n1 change of dns2 (192.0.2.2:7946) is not known here yet"},
		{"not ready", strings.Replace(level, `"ready":true`, `"ready":false`, 1), "this replica is not ready: what the others say is still on its way"},
		{"alone", strings.Replace(level, `1.5,"alive":true`, `5,"alive":false`, 1), "this replica hears of no other, and decides alone"},
		{"frozen", strings.Replace(level, `"alive":true`, `"alive":true,"frozen":true`, 1), "the verdicts of this replica are frozen: it may be cut off"},
		{"in doubt", strings.Replace(level, `"alive":true`, `"alive":true,"in_doubt":true`, 1), "this replica is in doubt: others say up to most of what it says is down"},
		{"stuck", strings.Replace(level, `"alive":true`, `"alive":true,"stuck":true`, 1), "the checks of this replica do not end"},
	} {
		server := answers{"/peers.json": tt.body}.serve(t)
		wantStatus, wantErrors := exitDone, ""
		if tt.problem != "" {
			wantStatus, wantErrors = exitFailed, "shaker: "+tt.problem+"\n"
		}
		for args, want := range map[string]string{"peers": "REPLICA ", "peers -json": tt.body} {
			status, stdout, stderr := output(append(strings.Fields(args), "-server", server)...)
			if status != wantStatus || !strings.HasPrefix(stdout, want) || stderr != wantErrors {
				t.Errorf("%s, %s: status %d, want %d, %q, want %q, and\n%s", tt.name, args, status, wantStatus, stderr, wantErrors, stdout)
			}
		}
	}
	server := answers{"/peers.json": peersBody}.serve(t)
	if _, stdout, _ := output("peers", "-server", server); stdout != peersText {
		t.Errorf("got\n%s\nwant\n%s", stdout, peersText)
	}
}
