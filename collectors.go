package shaker

import (
	"net/netip"
	"runtime"
	"strconv"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/least"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// newDesc describes a metric of a collector.
func newDesc(metric, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, name, metric), help, labels, nil)
}

// overridesCollector reports on the files of overrides.
type overridesCollector struct {
	files                   func() map[string]*override.File // by their paths
	rules, modified, failed *prometheus.Desc
}

func newOverridesCollector(files func() map[string]*override.File) overridesCollector {
	return overridesCollector{
		files:    files,
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
	for path, file := range c.files() {
		rules, modified, failed := file.Report()
		gauge := func(desc *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, path)
		}
		gauge(c.rules, float64(rules))
		gauge(c.modified, float64(modified.UnixNano())/1e9)
		gauge(c.failed, oneIf(failed))
	}
}

// peersCollector reports on the other replicas, where there are any.
type peersCollector struct {
	report                                            func() *peers.Report // nil where there is no group
	peers, lag, disagreeing, inDoubt, observed, ready *prometheus.Desc
	messages, octets, rejected                        *prometheus.Desc
}

func newPeersCollector(report func() *peers.Report) peersCollector {
	return peersCollector{
		report: report,
		peers: newDesc("peers", "Number of other replicas by state: lost ones are silent, the words of frozen ones and the downs of those in doubt do not count, "+
			"and all others are alive.", "state"),
		lag:         newDesc("peers_lag", "Largest number of changes that another replica has made and that are not known here yet."),
		disagreeing: newDesc("peers_disagreeing_targets", "Number of targets of which this replica says otherwise than the verdict in force."),
		inDoubt:     newDesc("peers_in_doubt", "1 while the others contradict this replica so often that what it calls down does not count, otherwise 0."),
		observed:    newDesc("peers_observed_targets", "Number of targets that this replica checks."),
		ready:       newDesc("peers_ready", "1 once the verdicts of all others that can be reached are known, before that 0."),
		messages:    newDesc("peers_messages_total", "Counter of messages between replicas.", "direction"),
		octets:      newDesc("peers_octets_total", "Counter of octets of messages between replicas.", "direction"),
		rejected:    newDesc("peers_rejected_total", "Counter of packets and connections that were not taken from others, by reason.", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (c peersCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.peers, c.lag, c.disagreeing, c.inDoubt, c.observed, c.ready, c.messages, c.octets, c.rejected} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c peersCollector) Collect(ch chan<- prometheus.Metric) {
	r := c.report()
	if r == nil {
		return
	}
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	var self peers.Member
	lag, states := uint64(0), map[string]int{"alive": 0, "lost": 0, "frozen": 0, "doubt": 0}
	for i := range r.Members {
		m := &r.Members[i]
		if m.Self {
			self = *m
			continue
		}
		states[peerState(m)]++
		if m.Alive { // what those who are gone have not told nobody will
			lag = max(lag, m.Lag)
		}
	}
	for state, n := range states {
		send(c.peers, prometheus.GaugeValue, float64(n), state)
	}
	send(c.lag, prometheus.GaugeValue, float64(lag))
	send(c.disagreeing, prometheus.GaugeValue, float64(r.Disagreeing))
	send(c.inDoubt, prometheus.GaugeValue, oneIf(self.InDoubt))
	send(c.observed, prometheus.GaugeValue, float64(self.Observed))
	send(c.ready, prometheus.GaugeValue, oneIf(r.Ready))
	n := &r.Counts
	send(c.messages, prometheus.CounterValue, float64(n.SentMessages), "sent")
	send(c.messages, prometheus.CounterValue, float64(n.ReceivedMessages), "received")
	send(c.octets, prometheus.CounterValue, float64(n.SentOctets), "sent")
	send(c.octets, prometheus.CounterValue, float64(n.ReceivedOctets), "received")
	for reason, rejected := range n.Rejected {
		send(c.rejected, prometheus.CounterValue, float64(rejected), reason)
	}
}

// peerState returns the one state that another replica is counted as.
func peerState(m *peers.Member) string {
	switch {
	case !m.Alive:
		return "lost"
	case m.Frozen:
		return "frozen"
	case m.InDoubt:
		return "doubt"
	default:
		return "alive"
	}
}

// targetsCollector reports what the monitor knows of all targets together.
type targetsCollector struct {
	monitor                 func() *health.Monitor // nil where there is none
	targets, damped, frozen *prometheus.Desc
}

func newTargetsCollector(monitor func() *health.Monitor) targetsCollector {
	return targetsCollector{
		monitor: monitor,
		targets: newDesc("targets", "Number of targets by state.", "state"),
		damped:  newDesc("damped_targets", "Number of targets that answer but are down because they flap."),
		frozen:  newDesc("frozen", "1 while verdicts are frozen, otherwise 0."),
	}
}

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
	if m := c.monitor(); m != nil {
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

// maxListed bounds the targets that have metrics of their own. A scrape of so many takes less than a second; the
// *prometheus* plugin gives it five.
const maxListed = defaultTargets

// targetCollector reports on each target. Where there are too many, it does so on those that have been in the table for
// longest: theirs are the series that are worth keeping, and nobody can push them out with addresses that he makes up.
// There are many metrics, so they have to be asked for.
type targetCollector struct {
	monitor                          func() *health.Monitor // nil where nobody has asked
	most                             int                    // targets with metrics of their own
	up, changed, roundTrip, unlisted *prometheus.Desc
}

func newTargetCollector(monitor func() *health.Monitor) targetCollector {
	desc := func(metric, help string) *prometheus.Desc {
		return newDesc(metric, help, "address", "port", "settings")
	}
	return targetCollector{
		monitor:   monitor,
		most:      maxListed,
		up:        desc("target_up", "1 while the target is up, 0 while it is down, missing while that is unknown."),
		changed:   desc("target_changed_timestamp_seconds", "When the target entered its state, as Unix time."),
		roundTrip: desc("target_round_trip_seconds", "Smoothed time from SYN to SYN-ACK, missing before the first."),
		unlisted:  newDesc("unlisted_targets", "Number of targets without metrics of their own, because others have been there for longer."),
	}
}

// Describe implements prometheus.Collector.
func (c targetCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.up
	ch <- c.changed
	ch <- c.roundTrip
	ch <- c.unlisted
}

// Collect implements prometheus.Collector.
func (c targetCollector) Collect(ch chan<- prometheus.Metric) {
	monitor := c.monitor()
	if monitor == nil {
		return
	}
	oldest, all := least.New(c.most, monitor.Len(), health.CompareAge), 0
	for t := range monitor.All() {
		oldest.Add(t)
		all = rest(all)
	}
	listed := oldest.From(0)
	words := make(map[health.Settings]string)
	for i, t := range listed {
		c.report(t, words, ch)
		rest(i)
	}
	ch <- prometheus.MustNewConstMetric(c.unlisted, prometheus.GaugeValue, float64(all-len(listed)))
}

// rest counts one more target that was looked at, and lets others have the processor every now and then. To look at so
// many takes about a millisecond. Without it they wait until the runtime notices, which takes 10.
func rest(looked int) int {
	if looked++; looked%1024 == 0 {
		runtime.Gosched()
	}
	return looked
}

// report sends the metrics of a target. words has the text of all settings that were met.
func (c targetCollector) report(t *health.Target, words map[health.Settings]string, ch chan<- prometheus.Metric) {
	settings, status := t.Settings(), t.Status()
	if words[settings] == "" {
		words[settings] = settings.String()
	}
	m := newTargetMetrics(t.Addr(), words[settings])
	ch <- m.gauge(c.changed, float64(status.Since.UnixMilli())/1e3)
	switch status.State {
	case health.Up:
		ch <- m.gauge(c.up, 1)
	case health.Down:
		ch <- m.gauge(c.up, 0)
	}
	if status.RTT > 0 {
		ch <- m.gauge(c.roundTrip, status.RTT.Seconds())
	}
}

// targetMetrics are those of a target. All that a scrape needs of them is in one piece of memory: with constant metrics
// of package prometheus it would be in forty.
type targetMetrics struct {
	values [3]string // of the labels
	pairs  [3]dto.LabelPair
	labels [3]*dto.LabelPair
	gauges [3]targetGauge
	n      int // of gauges that there are
}

// targetLabels are in the order that a registry wants them in.
var targetLabels = [3]string{"address", "port", "settings"}

func newTargetMetrics(at netip.AddrPort, settings string) *targetMetrics {
	m := &targetMetrics{values: [3]string{at.Addr().String(), strconv.Itoa(int(at.Port())), settings}}
	for i := range m.pairs {
		m.pairs[i].Name, m.pairs[i].Value = &targetLabels[i], &m.values[i]
		m.labels[i] = &m.pairs[i]
	}
	return m
}

// gauge returns one more metric.
func (m *targetMetrics) gauge(desc *prometheus.Desc, value float64) prometheus.Metric {
	g := &m.gauges[m.n]
	m.n++
	g.desc, g.labels, g.value = desc, m.labels[:], value
	g.out.Value = &g.value
	return g
}

// targetGauge implements prometheus.Metric.
type targetGauge struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
	out    dto.Gauge
}

// Desc implements prometheus.Metric.
func (g *targetGauge) Desc() *prometheus.Desc { return g.desc }

// Write implements prometheus.Metric.
func (g *targetGauge) Write(to *dto.Metric) error {
	to.Label, to.Gauge = g.labels, &g.out
	return nil
}
