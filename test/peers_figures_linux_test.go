package test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What docs/peers.md says of bytes, CPU and times is measured here, with -full. It takes some ten minutes and most of a machine.
func TestLabPeersFigures(t *testing.T) {
	if !*fullLab {
		t.Skip("measures for docs/peers.md; run it with -full")
	}
	for _, replicas := range []int{3, 10, 30} {
		for _, loss := range []int{0, 5} {
			t.Run(fmt.Sprintf("%d replicas, %d %% lost", replicas, loss), func(t *testing.T) {
				lab.Run(t, func(t *testing.T, l *lab.Lab) { measureFlips(t, l, replicas, loss) })
			})
		}
	}
	t.Run("joiner", func(t *testing.T) { lab.Run(t, measureJoiner) })
}

// loseBetweenReplicas has the switch lose packets that replicas send to each other.
func (g *group) loseBetweenReplicas(percent int) {
	g.t.Helper()
	lose := fmt.Sprintf(" numgen random mod 100 < %d drop", percent)
	g.block("loss", "meta l4proto udp th dport 7946"+lose, "tcp dport 7946"+lose, "tcp sport 7946"+lose)
}

func measureFlips(t *testing.T, l *lab.Lab, replicas, loss int) {
	g := newGroup(t, l, plan{replicas: replicas, perRack: 1250, properties: "interval 9s 1s\ntimeout 800ms\nfall 1\ndamping off", asked: true})
	if loss > 0 {
		g.loseBetweenReplicas(loss)
	}
	g.startAll()
	g.untilWell()
	g.measureIdle(t, 20*time.Second)
	for _, n := range []int{1, 100, 1250} {
		// Both families, in each of the four racks.
		targets := g.pick(0, 0, n)
		if n == 1 {
			targets = targets[:1]
		} else {
			for rack := 1; rack < len(g.racks); rack++ {
				targets = append(targets, g.pick(rack, 0, n)...)
			}
		}
		began := time.Now()
		g.refuse(targets...)
		g.untilRight()
		apart := g.apart(began)
		t.Logf("%d flips: from the first replica to the last p50 %v, p99 %v, at most %v", len(targets), apart[len(apart)/2], apart[len(apart)*99/100], apart[len(apart)-1])
		g.revive(targets...)
		g.untilRight()
	}
}

// measureIdle tells what replicas send to each other while nothing happens, and the CPU time that they take beside their checks.
func (g *group) measureIdle(t *testing.T, d time.Duration) {
	t.Helper()
	g.l.NFT("add table inet octets", "delete table inet octets", "table inet octets {", "counter octets {", "}",
		"chain forward {", "type filter hook forward priority 0;", "meta l4proto { tcp, udp } th dport 7946 counter name octets", "meta l4proto { tcp, udp } th sport 7946 th dport != 7946 counter name octets", "}", "}")
	cpu := g.cpu()
	checks := g.checks()
	time.Sleep(d)
	octets, packets := g.countedBySwitch("octets")
	n := float64(len(g.replicas)) * d.Seconds()
	t.Logf("idle: a replica sends %.0f octets in %.1f packets a second, with IP headers; it takes %.2f thousandths of a CPU for all, with %.0f checks a second",
		float64(octets)/n, float64(packets)/n, 1000*(g.cpu()-cpu).Seconds()/n, (g.checks()-checks)/n)
}

func (g *group) checks() (sum float64) {
	for _, r := range g.replicas {
		sum += r.counted("coredns_shaker_checks_total")
	}
	return sum
}

// cpu is how long all replicas have computed.
func (g *group) cpu() (sum time.Duration) {
	g.t.Helper()
	for _, r := range g.running() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.p.PID()))
		if err != nil {
			g.t.Fatal(err)
		}
		// proc_pid_stat(5): what follows the name in parentheses begins with the third field; 14 and 15 are utime and stime.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				g.t.Fatal(err)
			}
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum
}

// measureJoiner tells how long it takes until a new replica knows 100 000 verdicts.
func measureJoiner(t *testing.T, l *lab.Lab) {
	g := newGroup(t, l, plan{replicas: 4, perRack: 12_500, properties: "interval 60s 5s\nlimit targets 200000", asked: true})
	for _, r := range g.replicas[:3] {
		r.start()
		r.awaitReady()
		r.wrongAnswers()
	}
	g.untilWell()
	for range 3 {
		r := g.replicas[3]
		octets := g.replicas[0].peers().Counts.SentOctets
		served, ready := r.startMeasured()
		received := r.peers().Counts.ReceivedOctets
		lacking, dead := r.wrongAnswers()
		t.Logf("a joiner serves after %v and is ready after %v; it has received %d octets by then (one of the others sent %d); its first answers lack %d and have %d dead addresses",
			served.Round(time.Millisecond), ready.Round(time.Millisecond), received, g.replicas[0].peers().Counts.SentOctets-octets, lacking, dead)
		r.stop()
		g.untilKnown()
	}
}
