package checker

import (
	"context"
	"runtime/pprof"
)

// profiled has the label by which profiles tell the goroutines of probers from others. Each takes it as it begins:
// it would have that of whoever started it.
var profiled = pprof.WithLabels(context.Background(), pprof.Labels("shaker", "prober"))
