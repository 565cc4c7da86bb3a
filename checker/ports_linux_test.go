package checker

import (
	"fmt"
	"net"
	"slices"
	"testing"
)

// On a busy machine no ports side by side are free: clients leave theirs in TIME-WAIT for a minute.
func TestReservePortsScattered(t *testing.T) {
	for port := 32768; port < 61000; port += reservedPorts / 2 {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			defer l.Close()
		}
	}
	before := lowestDescriptor()
	r, err := reservePorts()
	if err != nil {
		t.Fatal(err)
	}
	for i, port := range r.ports {
		if port == 0 || slices.Contains(r.ports[:i], port) {
			t.Errorf("port %d in %d", port, r.ports)
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			t.Errorf("port %d is free for others", port)
		}
	}
	if len(r.ports) != reservedPorts {
		t.Errorf("%d ports, want %d", len(r.ports), reservedPorts)
	}
	r.close()
	if now := lowestDescriptor(); now != before {
		t.Errorf("descriptors stayed open: the next is %d, not %d", now, before)
	}
}
