package lab

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// endsBy is how long what is left behind may take to end by itself. What memberlist has under way when it is shut down ends
// within the time of a probe: up to nine seconds where others did not answer.
const endsBy = 15 * time.Second

// Main runs the tests of a package and ends the process: TestMain has nothing else to do. Where no test failed, a goroutine
// that is left behind, and does not end by itself, is a failure.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	var leak error
	for deadline := time.Now().Add(endsBy); code == 0; {
		if leak = goleak.Find(options...); leak == nil || time.Now().After(deadline) {
			break
		}
	}
	if leak != nil {
		fmt.Fprintf(os.Stderr, "left behind by the tests: %v\n", leak)
		code = 1
	}
	os.Exit(code)
}
