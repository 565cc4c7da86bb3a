package members

import (
	"fmt"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What docs/peers.md says of the network is so.
func TestDocumented(t *testing.T) {
	lab.ExpectWords(t, "../../docs/peers.md",
		fmt.Sprintf("is a key of %d characters or more, and there are up to %d", leastKey, maxKeys),
		fmt.Sprintf("| %d, of which half are kept free for members; %d from one address |", maxConnections, maxPerAddress),
		fmt.Sprintf("Packets have up to %d octets", maxPacket),
		fmt.Sprintf("every **JOIN** again every %.0f seconds", rejoin.Seconds()),
	)
}
