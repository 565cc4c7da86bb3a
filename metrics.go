package shaker

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/puzpuzpuz/xsync/v4"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
)

var (
	answers = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "answers_total",
		Help: "Counter of answers with addresses in the zones of shaker, by what became of them.",
	}, []string{"server", "zone", "view", "outcome"})
	heldAnswers = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "held_answers_total",
		Help: "Counter of answers that waited for a first verdict.",
	}, []string{"server", "zone", "view"})
	holdDuration = promauto.NewHistogram(prometheus.HistogramOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name:                        "hold_duration_seconds",
		Help:                        "Histogram of how long answers waited for first verdicts.",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	})
	removedAddresses = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "removed_addresses_total",
		Help: "Counter of addresses that were taken out of answers because they, or too many others, are down.",
	}, []string{"server", "zone", "view"})
	checks = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "checks_total",
		Help: "Counter of finished checks by result.",
	}, []string{"result"})
	tries = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "tries_total",
		Help: "Counter of SYNs of finished checks. A check repeats its SYN while nothing comes back.",
	})
	inconclusive = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "inconclusive_checks_total",
		Help: "Counter of checks that said nothing about their target, by what on this machine was in the way.",
	}, []string{"cause"})
	roundTrip = promauto.NewHistogram(prometheus.HistogramOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name:                        "round_trip_duration_seconds",
		Help:                        "Histogram of the time from SYN to SYN-ACK.",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	})
	checkDelay = promauto.NewHistogram(prometheus.HistogramOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name:                        "check_delay_seconds",
		Help:                        "Histogram of how long after it was due a check was sent.",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	})
	stateChanges = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "state_changes_total",
		Help: "Counter of targets that entered a state.",
	}, []string{"state"})
	freezes = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "freezes_total",
		Help: "Counter of times that verdicts were frozen because nearly all hosts fell silent together.",
	})
	panics = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "panics_total",
		Help: "Counter of panics that were recovered from.",
	})
	watchLookups = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "watch_lookups_total",
		Help: "Counter of look-ups of watched names by result.",
	}, []string{"result"})
	_ = promauto.NewCounterFunc(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "unfiltered_addresses_total",
		Help: "Counter of addresses that passed unchecked because the table of targets was full.",
	}, func() float64 { return float64(unfiltered.Load()) })
	_ = promauto.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name:        "build_info",
		Help:        "A metric with a constant value of 1, labelled with the version of shaker and the Go it was built with.",
		ConstLabels: prometheus.Labels{"version": Version(), "goversion": runtime.Version()},
	}, func() float64 { return 1 })
)

// unfiltered is a plain number: under attack it is counted for every address of every answer.
var unfiltered atomic.Uint64

func init() {
	prometheus.MustRegister(newTargetsCollector(shared.monitor), newTargetCollector(shared.monitorOfEach), newOverridesCollector(shared.overrides),
		newPeersCollector(shared.peersReport))
	for _, r := range checker.Results() {
		checksBy[r] = checks.WithLabelValues(r.String())
	}
	for _, s := range []health.State{health.Unknown, health.Up, health.Down} {
		changesTo[s] = stateChanges.WithLabelValues(s.String())
	}
	for _, cause := range causes {
		inconclusive.WithLabelValues(cause)
	}
}

// causes are those that the monitor tells of. Checks whose prober was closed it sends again, and tells
// nobody.
var causes = slices.DeleteFunc(checker.Causes(), func(c string) bool { return c == checker.Cause(checker.ErrClosed) })

// The counters of what the monitor reports, looked up once; every series is there from the start.
var (
	checksBy  = make(map[checker.Result]prometheus.Counter)
	changesTo = make(map[health.State]prometheus.Counter)
	lookupsBy = map[bool]prometheus.Counter{ // whether they worked
		true:  watchLookups.WithLabelValues("success"),
		false: watchLookups.WithLabelValues("failure"),
	}
)

// countLookup counts a look-up of a watched name.
func countLookup(worked bool) { lookupsBy[worked].Inc() }

// answerCounters are the counters of one server, zone and view. They are looked up once, because a
// look-up by label values would cost as much as the filter.
type answerCounters struct {
	labels   answerLabels
	outcomes [answer.Outcomes]prometheus.Counter
	held     prometheus.Counter
	removed  prometheus.Counter
}

type answerLabels struct {
	server, view string
	zone         string
}

var countersByLabels = xsync.NewMap[answerLabels, *answerCounters]()

func countersFor(ctx context.Context, zone string) *answerCounters {
	return labelsFor(ctx, zone).counters()
}

func labelsFor(ctx context.Context, zone string) answerLabels {
	return answerLabels{server: metrics.WithServer(ctx), view: metrics.WithView(ctx), zone: zone}
}

// firstCounters are the counters that a stanza needed first. Where it has one zone, and is reached by one address, it needs
// no others. They are found without the map, which would be a tenth of what shaker does.
type firstCounters struct {
	found atomic.Pointer[answerCounters]
}

func (f *firstCounters) countersFor(ctx context.Context, zone string) *answerCounters {
	labels := labelsFor(ctx, zone)
	first := f.found.Load()
	if first != nil && first.labels == labels {
		return first
	}
	c := labels.counters()
	if first == nil {
		f.found.Store(c)
	}
	return c
}

func (labels answerLabels) counters() *answerCounters {
	if c, ok := countersByLabels.Load(labels); ok {
		return c
	}
	c := &answerCounters{
		labels:  labels,
		held:    heldAnswers.WithLabelValues(labels.server, labels.zone, labels.view),
		removed: removedAddresses.WithLabelValues(labels.server, labels.zone, labels.view),
	}
	for o := range answer.Outcomes {
		c.outcomes[o] = answers.WithLabelValues(labels.server, labels.zone, labels.view, o.String())
	}
	countersByLabels.Store(labels, c)
	return c
}
