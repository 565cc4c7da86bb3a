package checker

import (
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// snapLength is how much of a packet is wanted: an IPv4 header with all options, and TCP's without.
const snapLength = 60 + tcpHeader

// replyFilter returns a program that passes the SYN-ACKs and RSTs to these ports and nothing else, so that
// the rest of this machine's TCP traffic does not wake the loop. What it sees begins with the IP header on
// an IPv4 socket (raw(7)) and with the TCP header on an IPv6 one (RFC 3542, section 3).
func replyFilter(v6 bool, ports []uint16) ([]bpf.RawInstruction, error) {
	var begin bpf.Instruction = bpf.LoadMemShift{Off: 0} // X = length of the IP header
	if v6 {
		begin = bpf.LoadConstant{Dst: bpf.RegX, Val: 0}
	}
	program := []bpf.Instruction{begin, bpf.LoadIndirect{Off: 2, Size: 2}} // destination port
	for i, port := range ports {
		toFlags := uint8(len(ports) - i) // the other comparisons, and the return
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: toFlags})
	}
	program = append(program,
		bpf.RetConstant{Val: 0},
		bpf.LoadIndirect{Off: 13, Size: 1}, // flags
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: flagRST, SkipTrue: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flagSYN | flagACK},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: flagSYN | flagACK, SkipTrue: 1},
		bpf.RetConstant{Val: snapLength},
		bpf.RetConstant{Val: 0},
	)
	return bpf.Assemble(program)
}

func attachFilter(fd int, program []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	f := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &f))
}
