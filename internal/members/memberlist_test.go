package members

import (
	"strings"
	"testing"
	"time"
)

func TestMemberlistLog(t *testing.T) {
	for line, want := range map[string]string{
		"[DEBUG] memberlist: Stream connection from=127.0.0.1:1":                                                                     "",
		"[INFO] memberlist: Suspect a has failed, no acks received":                                                                  "",
		"[WARN] memberlist: Was able to connect to a-1 over TCP but UDP probes failed, network may be misconfigured":                 "Peers: a-1 answers by TCP, but not by UDP, want packets to the same port let through both ways",
		"[WARN] memberlist: Refuting a suspect message (from: b-2)":                                                                  "Peers: b-2 could not reach this replica, want this machine to be less busy, or the network between them mended",
		"[WARN] memberlist: ignoring alive message for 'c-3': 192.0.2.1 is not among those that may speak to this replica":           "Peers: a replica is not taken as a member: 'c-3': 192.0.2.1 is not among those that may speak to this replica",
		"[WARN] memberlist: ignoring alive message for 'c-3': this replica has its address now":                                      "",
		"[ERR] memberlist: Push/Pull with a failed: dial tcp":                                                                        "",
		"[ERR] memberlist: Failed to send UDP ping: x":                                                                               "",
		"[WARN] memberlist: Got ping for unexpected node 'x'":                                                                        "",
		"[ERR] memberlist: something\x1b[2J\nelse\xff":                                                                               "Peers: memberlist: something?[2J?else\ufffd",
		"[ERR] memberlist: Conflicting address for a-1. Mine: 127.0.0.1:1 Theirs: 127.0.0.1:2 Old state: 0":                          "Peers: two replicas have the name a-1, want another one for each",
		"[WARN] memberlist: handler queue full, dropping message (" + strings.Repeat("x", 1000):                                      "Peers: memberlist: handler queue full, dropping message (" + strings.Repeat("x", maxLine-len("handler queue full, dropping message (")),
		"[WARN] memberlist: Refuting an alive message for 'a' (127.0.0.1:1) meta:([1] VS [2]), vsn:([1 5 2 0 0 0] VS [1 5 2 0 0 0])": "",
	} {
		var lines told
		l := &memberlistLog{warnf: lines.listener().Warningf, now: time.Now}
		if n, err := l.Write([]byte(line + "\n")); n != len(line)+1 || err != nil {
			t.Errorf("%q: %d, %v", line, n, err)
		}
		if got := strings.TrimPrefix(lines.drain(), "Warning: "); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestMemberlistLogIsBounded(t *testing.T) {
	var lines told
	now := time.Now()
	l := &memberlistLog{warnf: lines.listener().Warningf, now: func() time.Time { return now }}
	for range 1000 {
		l.Write([]byte("[ERR] memberlist: again\n"))
		now = now.Add(20 * time.Millisecond)
	}
	want := "Warning: Peers: memberlist: again\nWarning: Peers: memberlist: again (and 499 lines like that before)"
	if got := lines.drain(); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}
