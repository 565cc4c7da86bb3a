package watch

import (
	"fmt"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// The numbers in the README are those of the code.
func TestReadmeNumbers(t *testing.T) {
	lab.ExpectWords(t, "../../README.md",
		fmt.Sprintf("no sooner than after %.0f seconds", leastRefresh.Seconds()),
		fmt.Sprintf("tried again after %.0f second, then after twice as long each time, up to %.0f seconds",
			firstRetry.Seconds(), lastRetry.Seconds()),
		fmt.Sprintf("after %.0f seconds, a name that cannot be resolved", patience.Seconds()),
	)
}
