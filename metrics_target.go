package shaker

import (
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coredns-shaker/shaker/health"
)

// targetMetrics tells whether there are metrics of each target. Their number is that of the targets, so they have
// to be asked for.
var targetMetrics atomic.Bool

// targetCollector reports on each target.
type targetCollector struct{ up, changed, roundTrip *prometheus.Desc }

func newTargetCollector() targetCollector {
	desc := func(metric, help string) *prometheus.Desc {
		return newDesc(metric, help, "address", "port", "settings")
	}
	return targetCollector{
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
	monitor := live.Load()
	if monitor == nil || !targetMetrics.Load() {
		return
	}
	words := make(map[health.Settings]string)
	for t := range monitor.All() {
		settings := t.Settings()
		if words[settings] == "" {
			words[settings] = describeSettings(settings)
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

// describeSettings puts settings into the words of the Corefile.
func describeSettings(s health.Settings) string {
	words := fmt.Sprintf("interval %v %v timeout %v rise %d fall %d", s.Interval, s.Fast, s.Timeout, s.Rise, s.Fall)
	if s.Damping > 0 {
		words += fmt.Sprintf(" damping %v %v", s.Damping, s.DampingMax)
	}
	if s.Source.IsValid() {
		words += " source " + s.Source.String()
	}
	return words
}
