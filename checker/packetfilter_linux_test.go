package checker

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
)

// naiveWanted tells whether the loop wants a packet, as the kernel shows it to the filter.
func naiveWanted(b []byte, v6 bool, ports []uint16) bool {
	if !v6 {
		if len(b) < 1 {
			return false
		}
		header := int(b[0]&15) * 4
		if header > len(b) {
			return false
		}
		b = b[header:]
	}
	if len(b) < 14 {
		return false
	}
	port := uint16(b[2])<<8 | uint16(b[3])
	flags := b[13]
	return slices.Contains(ports, port) && (flags&flagRST != 0 || flags&flagSYN != 0 && flags&flagACK != 0)
}

// The program says what the predicate says, of packets whole and cut.
func TestReplyFilterAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	passed := 0
	for _, v6 := range []bool{false, true} {
		for _, first := range []uint16{0, 0x8000, 50001, 0xfff0} {
			var ports []uint16
			for range reservedPorts {
				ports = append(ports, first+uint16(r.IntN(16)))
			}
			raw, err := replyFilter(v6, ports)
			if err != nil {
				t.Fatal(err)
			}
			program, decoded := bpf.Disassemble(raw)
			if !decoded {
				t.Fatal("the program does not disassemble")
			}
			vm, err := bpf.NewVM(program)
			if err != nil {
				t.Fatal(err)
			}
			for range 50_000 {
				port := first + uint16(r.IntN(20)) - 2
				b := segmentOf(443, port, r.Uint32(), r.Uint32(), uint8(r.Uint32()), 4*r.IntN(11))
				if !v6 {
					b = packet4([4]byte{192, 0, 2, 7}, 4*r.IntN(11), b)
				}
				if r.IntN(4) == 0 {
					b = b[:r.IntN(len(b)+1)]
				}
				if len(b) == 0 {
					continue // the VM refuses it; the kernel never shows it
				}
				n, err := vm.Run(b)
				if err != nil {
					t.Fatal(err)
				}
				if want := naiveWanted(b, v6, ports); (n > 0) != want {
					t.Fatalf("IPv6 %v, ports %d: %x passes: %v, want %v", v6, ports, b, n > 0, want)
				}
				if n > 0 {
					passed++
				}
			}
		}
	}
	if passed < 10_000 {
		t.Errorf("only %d packets passed: they prove little", passed)
	}
}
