package shaker

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"

	"github.com/coredns-shaker/shaker/internal/answer"
)

// record is what the metadata of a query is read from. The metadata plugin's map may only be written to in the
// goroutine of the query, and before the answer is known: so what is put there once is functions that look here.
type record struct {
	outer *pass                // around the query, as that of a pass
	pass  atomic.Pointer[pass] // nil as long as no answer was filtered
}

// Metadata implements metadata.Provider.
func (s *Shaker) Metadata(ctx context.Context, state request.Request) context.Context {
	r := new(record)
	switch around := ctx.Value(passKey{}).(type) {
	case *pass:
		r.outer = around
	case *record: // of another server block, whose view the query is not in
		r.outer = around.outer
	case *lookup, *observation, aside: // a question of our own, within which this server asks itself
		r = nil
	}
	question := state.Req.Question
	metadata.SetValueFunc(ctx, name+"/zone", func() string {
		if len(question) != 1 {
			return ""
		}
		return s.policies.find(question[0].Name).name
	})
	if r == nil {
		return ctx
	}
	for label, value := range recordValues {
		metadata.SetValueFunc(ctx, name+label, func() string {
			if p := r.pass.Load(); p != nil {
				return value(p)
			}
			return ""
		})
	}
	return context.WithValue(ctx, passKey{}, r)
}

// recordValues are the values that are there once an answer was filtered.
var recordValues = map[string]func(*pass) string{
	"/outcome": func(p *pass) string { return answer.Outcome(p.outcome.Load()).String() },
	"/removed": func(p *pass) string { return strconv.FormatUint(uint64(p.removed.Load()), 10) },
	"/held": func(p *pass) string { // as the log plugin's duration
		return strconv.FormatFloat(time.Duration(p.held.Load()).Seconds(), 'f', -1, 64) + "s"
	},
}
