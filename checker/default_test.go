package checker_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	tcpshaker "github.com/coredns-shaker/shaker/checker"
)

// quickStart is as one writes it with github.com/tevino/tcp-shaker; only the import differs.
func quickStart(addr string) {
	checker := tcpshaker.DefaultChecker()

	err := checker.CheckAddr(addr, 10*time.Second)
	switch err {
	case tcpshaker.ErrTimeout:
		fmt.Println("timed out")
	case nil:
		fmt.Println("succeeded")
	default:
		if e, ok := err.(*tcpshaker.ErrConnect); ok {
			fmt.Println("failed:", e)
		} else {
			fmt.Println("error:", err)
		}
	}
}

// The DefaultChecker lives as long as its process: hence one of its own.
func TestDefaultChecker(t *testing.T) {
	const variable = "SHAKER_TEST_QUICK_START"
	if addr := os.Getenv(variable); addr != "" {
		quickStart(addr)
		if first, second := tcpshaker.DefaultChecker(), tcpshaker.DefaultChecker(); first != second {
			fmt.Println("there are two")
		}
		os.Exit(0)
	}
	for _, tt := range []struct{ addr, want string }{
		{livingAddr(t), "succeeded\n"},
		{deadAddr(t), "failed: "},
		{"127.0.0.1", "error: "},
	} {
		child := exec.Command(os.Args[0], "-test.run=^TestDefaultChecker$")
		child.Env = append(os.Environ(), variable+"="+tt.addr)
		out, err := child.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), tt.want) || strings.Contains(string(out), "two") {
			t.Errorf("%s: %v, %q, want %q", tt.addr, err, out, tt.want)
		}
	}
}
