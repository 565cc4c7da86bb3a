package shaker

import (
	"strconv"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/override"
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

// targetCollector reports on each target. The number of its metrics is that of the targets, so they have to be asked for.
type targetCollector struct {
	monitor                func() *health.Monitor // nil where nobody has asked
	up, changed, roundTrip *prometheus.Desc
}

func newTargetCollector(monitor func() *health.Monitor) targetCollector {
	desc := func(metric, help string) *prometheus.Desc {
		return newDesc(metric, help, "address", "port", "settings")
	}
	return targetCollector{
		monitor:   monitor,
		up:        desc("target_up", "1 while the target is up, 0 while it is down, missing while that is unknown."),
		changed:   desc("target_changed_timestamp_seconds", "When the target entered its state, as Unix time."),
		roundTrip: desc("target_round_trip_seconds", "Smoothed time from SYN to SYN-ACK, missing before the first."),
	}
}

// Describe implements prometheus.Collector.
func (c targetCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.up
	ch <- c.changed
	ch <- c.roundTrip
}

// Collect implements prometheus.Collector.
func (c targetCollector) Collect(ch chan<- prometheus.Metric) {
	monitor := c.monitor()
	if monitor == nil {
		return
	}
	words := make(map[health.Settings]string)
	for t := range monitor.All() {
		settings := t.Settings()
		if words[settings] == "" {
			words[settings] = settings.String()
		}
		addr := t.Addr()
		address, port := addr.Addr().String(), strconv.Itoa(int(addr.Port()))
		gauge := func(desc *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, address, port, words[settings])
		}
		status := t.Status()
		gauge(c.changed, float64(status.Since.UnixMilli())/1e3)
		switch status.State {
		case health.Up:
			gauge(c.up, 1)
		case health.Down:
			gauge(c.up, 0)
		}
		if status.RTT > 0 {
			gauge(c.roundTrip, status.RTT.Seconds())
		}
	}
}
