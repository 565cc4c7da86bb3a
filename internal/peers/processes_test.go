package peers

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// child is the variable that has a test process be one replica more. It has the key file and whom to join.
const child = "SHAKER_TEST_REPLICA"

// TestReplica is a replica in a process of its own, for TestMeasuredProcesses. Each line of its input is a number of the first
// replica's ledger, and is answered by a line when that is known here: octets sent, and nanoseconds of CPU used.
func TestReplica(t *testing.T) {
	var key, join string
	if n, _ := fmt.Sscan(os.Getenv(child), &key, &join); n != 2 {
		t.Skip("it is part of TestMeasuredProcesses")
	}
	r := openReal(t, Config{KeyFile: key, Join: []string{join}}, nil)
	var number uint64
	var name string
	for {
		if _, err := fmt.Fscanln(os.Stdin, &name, &number); err != nil {
			return
		}
		for !r.knows(name, number) {
			time.Sleep(50 * time.Microsecond)
		}
		fmt.Println("knows", r.members.Counts().SentOctets, usedCPU().Nanoseconds())
	}
}

// process is a replica in a process of its own.
type process struct {
	input  io.WriteCloser
	output *bufio.Reader
}

func startProcess(t *testing.T, key, join string) *process {
	c := exec.Command(os.Args[0], "-test.run=^TestReplica$")
	c.Env = append(os.Environ(), child+"="+key+" "+join)
	input, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		c.Wait()
	})
	return &process{input, bufio.NewReader(output)}
}

// tellOf has all processes wait until they know a number, and returns what all have sent and used together.
func tellOf(t *testing.T, all []*process, name string, number uint64) (octets uint64, cpu time.Duration) {
	for _, p := range all {
		fmt.Fprintln(p.input, name, number)
	}
	for _, p := range all {
		var o uint64
		var c time.Duration
		if _, err := fmt.Fscanf(p.output, "knows %d %d\n", &o, &c); err != nil {
			t.Fatal(err)
		}
		octets, cpu = octets+o, cpu+c
	}
	return octets, cpu
}

// The same as TestMeasured, with each replica in a process of its own.
func TestMeasuredProcesses(t *testing.T) {
	if !*measured {
		t.Skip("want -measured")
	}
	for _, n := range []int{3, 10, 30} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { measureProcesses(t, n) })
	}
}

func measureProcesses(t *testing.T, n int) {
	all := openAll(t, 1, nil)
	first, name := all[0], all[0].core.name
	var others []*process
	for range n - 1 {
		others = append(others, startProcess(t, first.config.KeyFile, first.at()))
	}
	waitFor(t, 30*time.Second, "finding each other", func() bool { return first.alive() == n-1 })
	spread := func(flips int, word health.Word) time.Duration {
		began := time.Now()
		tellOf(t, others, name, first.flip(0, flips, word))
		return time.Since(began)
	}
	var ones []time.Duration
	for i := range 100 {
		ones = append(ones, spread(1, health.SaysDown-health.Word(i%2)))
		time.Sleep(20 * time.Millisecond)
	}
	slices.Sort(ones)
	t.Logf("one flip: p50 %v, p99 %v; 1 000: %v; 10 000: %v", ones[50], ones[99], spread(1000, health.SaysDown), spread(10000, health.SaysDown))
	time.Sleep(time.Second)
	octets, cpu := tellOf(t, others, name, 1)
	const idle = 10 * time.Second
	time.Sleep(idle)
	octets2, cpu2 := tellOf(t, others, name, 1)
	per := float64(len(others)) * idle.Seconds()
	t.Logf("idle: %.0f octets a second and %.2f thousandths of a core for each", float64(octets2-octets)/per, 1000*(cpu2-cpu).Seconds()/per)
	_, cpu = tellOf(t, others, name, 1)
	took := spread(100000, health.SaysDown)
	_, cpu2 = tellOf(t, others, name, 1)
	t.Logf("100 000 flips: %v, %v of CPU for each of the others", took, (cpu2-cpu)/time.Duration(len(others)))
	number := first.flip(0, 0, health.SaysDown)
	time.Sleep(2 * time.Second)
	began := time.Now()
	late := startProcess(t, first.config.KeyFile, first.at())
	_, cpu = tellOf(t, []*process{late}, name, number)
	t.Logf("a joiner knows 100 000 after %v from its exec, %v of CPU", time.Since(began), cpu)
}
