package shaker

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"

	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// metadataOf returns what is known of a query before and after it was answered, as the plugins above see it.
func metadataOf(t *testing.T, s *Shaker, r *dns.Msg) (before, after map[string]string) {
	t.Helper()
	w := new(handlerWriter)
	collector := metadata.Metadata{Zones: []string{"."}, Providers: []metadata.Provider{s}}
	ctx := collector.Collect(t.Context(), request.Request{W: w, Req: r})
	values := func() map[string]string {
		values := make(map[string]string)
		for label, value := range metadata.ValueFuncs(ctx) {
			values[label] = value()
		}
		return values
	}
	before = values()
	if _, err := s.ServeDNS(ctx, w, r); err != nil {
		t.Fatal(err)
	}
	return before, values()
}

func TestMetadata(t *testing.T) {
	const signed = handlerTwo + "\na.example.org. 10" + signature
	tests := []struct {
		name     string
		results  string
		fallback string
		answer   string
		qname    string
		qtype    uint16
		zone     string
		want     string // outcome, removed, held
	}{
		{"untouched", "10.0.0.1=answered 10.0.0.2=answered", "all", handlerTwo, "a.example.org.", dns.TypeA, "example.org.", "untouched 0 0s"},
		{"filtered", "10.0.0.1=answered 10.0.0.2=refused", "all", handlerTwo, "A.Example.org.", dns.TypeA, "example.org.", "filtered 1 0s"},
		{"reordered", "10.0.0.1=refused 10.0.0.2=answered", "all", signed, "a.example.org.", dns.TypeA, "example.org.", "reordered 0 0s"},
		{"fallback", "10.0.0.1=refused 10.0.0.2=refused", "nodata", handlerTwo, "a.example.org.", dns.TypeA, "example.org.", "fallback 2 0s"},
		{"held", "10.0.0.1=refused", "all", handlerTwo, "a.example.org.", dns.TypeA, "example.org.", "filtered 1 0.1s"},
		{"no address", "", "all", "a.example.org. 10 IN CNAME b.example.org.", "a.example.org.", dns.TypeA, "example.org.", "  "},
		{"another type", "", "all", handlerTwo, "a.example.org.", dns.TypeTXT, "example.org.", "  "},
		{"another zone", "", "all", handlerTwo, "a.example.net.", dns.TypeA, "", "  "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newNetwork(t, tt.results)
				s := network.shaker(policyFor(t, tt.fallback, 0), tt.answer)
				network.settleAll()
				before, after := metadataOf(t, s, handlerRequest(tt.qname, tt.qtype))
				want := map[string]string{"shaker/zone": tt.zone, "shaker/outcome": "", "shaker/removed": "", "shaker/held": ""}
				if !maps.Equal(before, want) {
					t.Errorf("before: %q, want %q", before, want)
				}
				got := after["shaker/outcome"] + " " + after["shaker/removed"] + " " + after["shaker/held"]
				if got != tt.want || after["shaker/zone"] != tt.zone || len(after) != len(want) {
					t.Errorf("after: %q, want %q in %q", after, tt.want, tt.zone)
				}
			})
		})
	}
}

// What a query within the query did is told of both. The inner one runs in another goroutine here, as it does in
// a prefetch of cache.
func TestMetadataNestedPass(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=refused")
	network.settleAll()
	zone := policyFor(t, "nodata", 0)
	zone.name = handlerZone("nested.test.")
	var s *Shaker
	s = network.above(zone, plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		if r.Question[0].Name == "a.example.org." {
			return handlerAnswers(handlerTwo).ServeDNS(ctx, w, r)
		}
		done := make(chan error)
		go func() {
			inner := handlerRequest("a.example.org.", dns.TypeA)
			innerCtx := s.Metadata(metadata.ContextWithMetadata(ctx), request.Request{W: w, Req: inner})
			_, err := s.ServeDNS(innerCtx, new(handlerWriter), inner)
			if got := metadata.ValueFunc(innerCtx, "shaker/removed")(); got != "2" {
				t.Errorf("the query within: %q removed", got)
			}
			done <- err
		}()
		if err := <-done; err != nil {
			return dns.RcodeServerFailure, err
		}
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = lab.Records(t, "w.example.org. 10 IN CNAME a.example.org.")
		return dns.RcodeSuccess, w.WriteMsg(m)
	}))
	_, after := metadataOf(t, s, handlerRequest("w.example.org.", dns.TypeA))
	if after["shaker/removed"] != "2" || after["shaker/outcome"] != "fallback" {
		t.Errorf("%q", after)
	}
	if n := testutil.ToFloat64(countersFor(t.Context(), zone.name).outcomes[answer.Substituted]); n != 1 {
		t.Errorf("counted %v answers, want 1", n)
	}
}

// The block of a view that a query is not in has collected metadata as well.
func TestMetadataOfAnotherView(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=answered 10.0.0.2=answered")
	network.settleAll()
	other := network.shaker(policyFor(t, "all", 0), handlerTwo)
	s := network.shaker(policyFor(t, "all", 0), handlerTwo)
	w, r := new(handlerWriter), handlerRequest("a.example.org.", dns.TypeA)
	collector := metadata.Metadata{Zones: []string{"."}, Providers: []metadata.Provider{other}}
	ctx := collector.Collect(t.Context(), request.Request{W: w, Req: r})
	collector.Providers = []metadata.Provider{s}
	ctx = collector.Collect(ctx, request.Request{W: w, Req: r})
	if _, err := s.ServeDNS(ctx, w, r); err != nil {
		t.Fatal(err)
	}
	if got := metadata.ValueFunc(ctx, "shaker/outcome")(); got != "untouched" {
		t.Errorf("outcome %q", got)
	}
}

// A question of our own within which this server asks itself has no metadata, and stays one of our own.
func TestMetadataOfLookups(t *testing.T) {
	for _, own := range []any{new(lookup), new(observation), aside{}} {
		ctx := context.WithValue(metadata.ContextWithMetadata(t.Context()), passKey{}, own)
		s := newNetwork(t, "").above(policyFor(t, "all", 0), nil)
		state := request.Request{W: new(handlerWriter), Req: handlerRequest("a.example.org.", dns.TypeA)}
		if got := s.Metadata(ctx, state).Value(passKey{}); got != own {
			t.Errorf("%T became %T", own, got)
		}
	}
}
