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
		Help: "Counter of addresses that were taken out of answers.",
	}, []string{"server", "zone", "view"})
	checks = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: name,
		Name: "checks_total",
		Help: "Counter of finished checks by result.",
	}, []string{"result"})
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
		Help: "Counter of times that verdicts were frozen because nearly all targets fell silent together.",
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

// newDesc describes a metric of a collector.
func newDesc(metric, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, name, metric), help, labels, nil)
}

// unfiltered is a plain number: under attack it is counted for every address of every answer.
var unfiltered atomic.Uint64

// live is the monitor whose targets are counted, nil while there is none.
var live atomic.Pointer[health.Monitor]

// liveOverrides are the files of overrides in force, nil while there are none.
var liveOverrides atomic.Pointer[map[string]*overridesFile]

// overridesCollector reports on the files of overrides.
type overridesCollector struct{ rules, modified, failed *prometheus.Desc }

func newOverridesCollector() overridesCollector {
	return overridesCollector{
		rules:    newDesc("overrides_rules", "Number of overrides in force.", "file"),
		modified: newDesc("overrides_modified_timestamp_seconds", "When the overrides in force were written, as Unix time.", "file"),
		failed: newDesc("overrides_failed", "1 while the file cannot be used and the overrides in force are older, otherwise 0.",
			"file"),
	}
}

// Describe implements prometheus.Collector.
func (c overridesCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.rules
	ch <- c.modified
	ch <- c.failed
}

// Collect implements prometheus.Collector.
func (c overridesCollector) Collect(ch chan<- prometheus.Metric) {
	files := liveOverrides.Load()
	if files == nil {
		return
	}
	for path, file := range *files {
		rules, modified, failed := file.report()
		gauge := func(desc *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, path)
		}
		gauge(c.rules, float64(rules))
		gauge(c.modified, float64(modified.UnixNano())/1e9)
		gauge(c.failed, oneIf(failed))
	}
}

// targetsCollector reports what the monitor knows of all targets together.
type targetsCollector struct{ targets, damped, frozen *prometheus.Desc }

func newTargetsCollector() targetsCollector {
	return targetsCollector{
		targets: newDesc("targets", "Number of targets by state.", "state"),
		damped:  newDesc("damped_targets", "Number of targets that answer but are down because they flap."),
		frozen:  newDesc("frozen", "1 while verdicts are frozen, otherwise 0."),
	}
}

func init() {
	prometheus.MustRegister(newTargetsCollector(), newOverridesCollector(), newTargetCollector())
	for _, r := range checker.Results() {
		checksBy[r] = checks.WithLabelValues(r.String())
	}
	for _, s := range []health.State{health.Up, health.Down} {
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

// Describe implements prometheus.Collector.
func (c targetsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.targets
	ch <- c.damped
	ch <- c.frozen
}

// Collect implements prometheus.Collector.
func (c targetsCollector) Collect(ch chan<- prometheus.Metric) {
	var n health.Counts
	frozen := false
	if m := live.Load(); m != nil {
		n = m.Counts()
		_, frozen = m.Frozen()
	}
	for state, number := range map[health.State]int{health.Unknown: n.Unknown, health.Up: n.Up, health.Down: n.Down} {
		ch <- prometheus.MustNewConstMetric(c.targets, prometheus.GaugeValue, float64(number), state.String())
	}
	ch <- prometheus.MustNewConstMetric(c.damped, prometheus.GaugeValue, float64(n.Damped))
	ch <- prometheus.MustNewConstMetric(c.frozen, prometheus.GaugeValue, oneIf(frozen))
}

// oneIf is how a metric tells whether something is so.
func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// outcome is what became of an answer. A later one outweighs an earlier one.
type outcome uint8

const (
	untouched   outcome = iota // every address stayed, in its place
	reordered                  // addresses that are down are last, since a signature covers the RRset
	filtered                   // addresses are missing
	substituted                // the fallback applied to an RRset
	outcomes                   // number of outcomes
)

func (o outcome) String() string {
	switch o {
	case reordered:
		return "reordered"
	case filtered:
		return "filtered"
	case substituted:
		return "fallback"
	default:
		return "untouched"
	}
}

// answerCounters are the counters of one server, zone and view. They are looked up once, because a
// look-up by label values would cost as much as the filter.
type answerCounters struct {
	outcomes [outcomes]prometheus.Counter
	held     prometheus.Counter
	removed  prometheus.Counter
}

type answerLabels struct {
	server, view string
	zone         string
}

var countersByLabels = xsync.NewMap[answerLabels, *answerCounters]()

func countersFor(ctx context.Context, zone string) *answerCounters {
	labels := answerLabels{server: metrics.WithServer(ctx), view: metrics.WithView(ctx), zone: zone}
	if c, ok := countersByLabels.Load(labels); ok {
		return c
	}
	c := &answerCounters{
		held:    heldAnswers.WithLabelValues(labels.server, zone, labels.view),
		removed: removedAddresses.WithLabelValues(labels.server, zone, labels.view),
	}
	for o := range outcomes {
		c.outcomes[o] = answers.WithLabelValues(labels.server, zone, labels.view, o.String())
	}
	countersByLabels.Store(labels, c)
	return c
}
