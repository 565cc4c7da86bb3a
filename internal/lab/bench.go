package lab

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// Bench runs the benchmark f in a network namespace of its own, as Run does with a test. It finds its own
// number of iterations there; what it measured becomes a metric of b. The lab is made anew, and f called, for
// each number that is tried. The time for that is not measured if f calls b.ResetTimer.
func Bench(b *testing.B, f func(b *testing.B, l *Lab)) {
	b.Helper()
	switch inside := os.Getenv(insideEnv); inside {
	case b.Name():
		f(b, newLab(b))
	case "":
		rebench(b)
	default:
		b.Fatalf("lab: Bench of %s cannot be nested in, or stand beside, the Run of %s", b.Name(), inside)
	}
}

// rebench runs the benchmark once more in a process whose network namespace is new.
func rebench(b *testing.B) {
	b.Helper()
	ns, err := prepare()
	if err != nil {
		Skip(b, err)
	}
	defer ns.close()
	binary, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(binary, benchArguments(b)...)
	cmd.Env = append(os.Environ(), insideEnv+"="+b.Name())
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = patience
	if err = ns.start(cmd); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		b.Fatalf("lab: the benchmark failed in its namespace: %v\n%s", err, out.String())
	}
	metrics, err := parseBench(out.String(), b.Name())
	if err != nil {
		b.Fatalf("lab: %v\n%s", err, out.String())
	}
	for unit, value := range metrics {
		b.ReportMetric(value, unit)
	}
}

// benchArguments returns the flags of the second process.
func benchArguments(b *testing.B) []string {
	args := []string{"-test.run=^$", "-test.bench=" + pattern(b.Name()), "-test.count=1", "-test.paniconexit0"}
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") || f.Name == "test.benchtime" || f.Name == "test.benchmem" {
			args = append(args, fmt.Sprintf("-%s=%v", f.Name, f.Value))
		}
	})
	return args
}

// parseBench finds the line of the benchmark in the output of a test binary, and returns its metrics by unit.
func parseBench(out, name string) (map[string]float64, error) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		// The name has the number of processors behind it, and the number of iterations follows.
		if len(fields) < 4 || strings.TrimRight(strings.TrimPrefix(fields[0], name), "-0123456789") != "" {
			continue
		}
		metrics := make(map[string]float64)
		for rest := fields[2:]; len(rest) >= 2; rest = rest[2:] {
			value, err := strconv.ParseFloat(rest[0], 64)
			if err != nil {
				return nil, fmt.Errorf("a metric that is no number: %w", err)
			}
			metrics[rest[1]] = value
		}
		return metrics, nil
	}
	return nil, errors.New("the benchmark did not run in its namespace: is its name the same each time, and Bench always reached?")
}
