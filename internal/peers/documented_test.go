package peers

import (
	"fmt"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What docs/peers.md says of members and of what is kept of them is so.
func TestDocumented(t *testing.T) {
	lab.ExpectWords(t, "../../docs/peers.md",
		fmt.Sprintf("heard of within the last %.0f seconds", silentAfter.Seconds()),
		fmt.Sprintf("| members of a group | %d |", maxMembers),
		fmt.Sprintf("all together | %d, %d |", maxWords, maxSubjects),
		fmt.Sprintf("the verdicts of the others, %.0f s at most", readyWithin.Seconds()),
	)
}
