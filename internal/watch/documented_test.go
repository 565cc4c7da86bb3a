package watch

import (
	"fmt"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// The numbers in the documentation are those of the code.
func TestDocumentedNumbers(t *testing.T) {
	if spread != 0.1 {
		t.Error("README calls the spread a tenth")
	}
	lab.ExpectWords(t, "../../README.md",
		fmt.Sprintf("no sooner than after %.0f seconds", leastRefresh.Seconds()),
		fmt.Sprintf("tried again after %.0f second, then after twice as long each time, up to %.0f seconds",
			firstRetry.Seconds(), lastRetry.Seconds()),
		fmt.Sprintf("it is %d names in a second, or more if not all would have had their turn within %.0f seconds",
			perSecond, allWithin.Seconds()),
		fmt.Sprintf("after %.0f seconds, a name that cannot be resolved", patience.Seconds()),
	)
	lab.ExpectWords(t, "../../docs/troubleshooting.md", fmt.Sprintf("no answer, for %v at least", overdue))
}
