package checker

import (
	"bytes"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ephemeral knows which ports the kernel may choose when it connects a socket (ip_local_port_range in ip-sysctl.rst), in
// the network namespace of the thread that calls begin. That range may change at any time, and to read it takes as long
// as to ask for the ports of a few sockets. So it is read once a turn of the loop, if more answers share that.
type ephemeral struct {
	begun   bool
	file    int // -1 if there is none
	known   portRange
	turn    time.Time
	answers int // of that turn so far
}

// fewAnswers are not worth a reading.
const fewAnswers = 4

// portRange is the ports from one to another, both included.
type portRange struct{ from, to uint16 }

var allPorts = portRange{0, 1<<16 - 1}

func (r portRange) has(port uint16) bool { return r.from <= port && port <= r.to }

// union returns the smallest range that has all ports of both.
func (r portRange) union(other portRange) portRange {
	return portRange{min(r.from, other.from), max(r.to, other.to)}
}

// begin reads the range for the first time. That has to be before any socket connects.
func (e *ephemeral) begin() {
	if !e.begun {
		e.begun = true
		e.open()
		e.known = e.read()
	}
}

func (e *ephemeral) open() {
	var err error
	e.file, err = unix.Open("/proc/sys/net/ipv4/ip_local_port_range", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		e.file = -1
	}
}

// close gives the descriptor back, and tells whether there was one. From then on any port may be chosen.
func (e *ephemeral) close() bool {
	if !e.begun || e.file < 0 {
		return false
	}
	unix.Close(e.file)
	e.file = -1
	return true
}

// mayHaveChosen tells whether the kernel may have chosen that port for a socket whose answer this turn of the loop takes
// in. It goes by all ranges that were ever read, the newest of them in this very turn. Only a range that comes and goes
// between two readings would be missed.
func (e *ephemeral) mayHaveChosen(port uint16, turn time.Time) bool {
	if turn != e.turn {
		e.turn, e.answers = turn, 0
	}
	e.answers++
	if e.answers == fewAnswers+1 {
		e.known = e.known.union(e.read())
	}
	return e.answers <= fewAnswers || e.known.has(port)
}

// read returns the present range. Where the kernel does not tell, any port may be chosen.
func (e *ephemeral) read() portRange {
	if e.file < 0 {
		return allPorts
	}
	var buffer [32]byte
	n, err := unix.Pread(e.file, buffer[:], 0)
	if err != nil {
		return allPorts
	}
	return parsePortRange(buffer[:n])
}

// parsePortRange reads two ports in decimal, with a tab between them. Anything else stands for all ports.
func parsePortRange(text []byte) portRange {
	from, to, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\t"))
	low, lowErr := strconv.ParseUint(string(from), 10, 16)
	high, highErr := strconv.ParseUint(string(to), 10, 16)
	if lowErr != nil || highErr != nil || low > high {
		return allPorts
	}
	return portRange{uint16(low), uint16(high)}
}
