package checker

import (
	"context"
	"runtime/pprof"
)

// profileLabels has the label by which profiles tell the goroutines of probers from others. Each takes it as it begins:
// it would have that of whoever started it.
var profileLabels = pprof.WithLabels(context.Background(), pprof.Labels("shaker", "prober"))
