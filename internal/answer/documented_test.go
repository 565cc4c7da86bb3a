package answer

import (
	"fmt"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// The numbers in the pages are those of the code.
func TestPageNumbers(t *testing.T) {
	lab.ExpectWords(t, "../../README.md", fmt.Sprintf("more than %d pairs of an address and a port", maxPairs))
	lab.ExpectWords(t, "../../README.md", fmt.Sprintf("or %d with `prefer`, `sort` or `pick`", (&Policy{Pick: 1}).most()))
	lab.ExpectWords(t, "../../docs/security.md", fmt.Sprintf("above %d pairs", maxPairs))
}
