package test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// counted returns the sum of the values of a counter's or gauge's series that have these labels.
func counted(t testing.TB, name string, labels map[string]string) (sum float64) {
	t.Helper()
	gather(t, name, func(have map[string]string, value float64) {
		for label, want := range labels {
			if have[label] != want {
				return
			}
		}
		sum += value
	})
	return sum
}

// series returns how many series a metric has.
func series(t testing.TB, name string) (n int) {
	t.Helper()
	gather(t, name, func(map[string]string, float64) { n++ })
	return n
}

// gather calls each with every series of a metric.
func gather(t testing.TB, name string, each func(labels map[string]string, value float64)) {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, series := range family.GetMetric() {
			labels := make(map[string]string)
			for _, label := range series.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			each(labels, series.GetCounter().GetValue()+series.GetGauge().GetValue())
		}
	}
}
