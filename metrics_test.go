package shaker

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/oracle"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// metricsOurs returns the families of this plugin by name. It takes what Gather returns.
func metricsOurs[F interface{ GetName() string }](families []F, err error) map[string]F {
	if err != nil {
		panic(err)
	}
	ours := make(map[string]F)
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "coredns_shaker_") {
			ours[f.GetName()] = f
		}
	}
	return ours
}

// metricsCount returns the number of observations of a histogram.
func metricsCount(t *testing.T, histogram string) uint64 {
	t.Helper()
	f := metricsOurs(prometheus.DefaultGatherer.Gather())[histogram]
	if f == nil {
		t.Fatalf("no %s", histogram)
	}
	return f.GetMetric()[0].GetHistogram().GetSampleCount()
}

// Names, types and labels are an interface to other people's dashboards.
func TestMetrics(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=answered")
	network.settle(netip.MustParseAddr("10.0.0.1"))
	metricsOf(t, network).peers.Store(groupOpen(t, network.engine.monitor))
	countersFor(t.Context(), "metrics.test.")
	want := map[string]string{
		"coredns_shaker_answers_total":                    "COUNTER outcome server view zone",
		"coredns_shaker_build_info":                       "GAUGE goversion version",
		"coredns_shaker_check_delay_seconds":              "HISTOGRAM",
		"coredns_shaker_checks_total":                     "COUNTER result",
		"coredns_shaker_held_answers_total":               "COUNTER server view zone",
		"coredns_shaker_hold_duration_seconds":            "HISTOGRAM",
		"coredns_shaker_inconclusive_checks_total":        "COUNTER cause",
		"coredns_shaker_panics_total":                     "COUNTER",
		"coredns_shaker_peers":                            "GAUGE state",
		"coredns_shaker_peers_disagreeing_targets":        "GAUGE",
		"coredns_shaker_peers_in_doubt":                   "GAUGE",
		"coredns_shaker_peers_lag":                        "GAUGE",
		"coredns_shaker_peers_messages_total":             "COUNTER direction",
		"coredns_shaker_peers_observed_targets":           "GAUGE",
		"coredns_shaker_peers_octets_total":               "COUNTER direction",
		"coredns_shaker_peers_ready":                      "GAUGE",
		"coredns_shaker_peers_rejected_total":             "COUNTER reason",
		"coredns_shaker_removed_addresses_total":          "COUNTER server view zone",
		"coredns_shaker_round_trip_duration_seconds":      "HISTOGRAM",
		"coredns_shaker_state_changes_total":              "COUNTER state",
		"coredns_shaker_targets":                          "GAUGE state",
		"coredns_shaker_tries_total":                      "COUNTER",
		"coredns_shaker_damped_targets":                   "GAUGE",
		"coredns_shaker_freezes_total":                    "COUNTER",
		"coredns_shaker_frozen":                           "GAUGE",
		"coredns_shaker_target_changed_timestamp_seconds": "GAUGE address port settings",
		"coredns_shaker_target_round_trip_seconds":        "GAUGE address port settings",
		"coredns_shaker_target_up":                        "GAUGE address port settings",
		"coredns_shaker_unfiltered_addresses_total":       "COUNTER",
		"coredns_shaker_unlisted_targets":                 "GAUGE",
		"coredns_shaker_watch_lookups_total":              "COUNTER result",
	}
	families := metricsOurs(prometheus.DefaultGatherer.Gather())
	for metric, family := range families {
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		got := strings.TrimSpace(family.GetType().String() + " " + strings.Join(labels, " "))
		if got != want[metric] {
			t.Errorf("%s: %s, want %s", metric, got, want[metric])
		}
	}
	names := make([]string, 0, len(want))
	for metric := range want {
		names = append(names, metric)
		if families[metric] == nil {
			t.Errorf("no %s", metric)
		}
	}
	problems, err := testutil.GatherAndLint(prometheus.DefaultGatherer, names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Every series that can be is there from the start, so that rates over them are right from the first event.
func TestMetricsSeriesAreThere(t *testing.T) {
	countersFor(t.Context(), "series.test.")
	families := metricsOurs(prometheus.DefaultGatherer.Gather())
	values := func(metric, label string) (values []string) {
		for _, m := range families[metric].GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && !slices.Contains(values, l.GetValue()) {
					values = append(values, l.GetValue())
				}
			}
		}
		slices.Sort(values)
		return values
	}
	for _, tt := range []struct {
		metric, label string
		want          []string
	}{
		{"coredns_shaker_answers_total", "outcome", []string{"fallback", "filtered", "reordered", "selected", "untouched"}},
		{"coredns_shaker_checks_total", "result", []string{"answered", "inconclusive", "refused", "timeout", "unreachable"}},
		{"coredns_shaker_inconclusive_checks_total", "cause", causes},
		{"coredns_shaker_state_changes_total", "state", []string{"down", "unknown", "up"}},
		{"coredns_shaker_targets", "state", []string{"down", "unknown", "up"}},
	} {
		if got := values(tt.metric, tt.label); !slices.Equal(got, tt.want) {
			t.Errorf("%s by %s: %q, want %q", tt.metric, tt.label, got, tt.want)
		}
	}
}

// Each of the other replicas is counted in one state. Without a group there is nothing.
func TestMetricsPeers(t *testing.T) {
	var report *peers.Report
	c := newPeersCollector(func() *peers.Report { return report })
	if n := testutil.CollectAndCount(c); n != 0 {
		t.Errorf("%d series without other replicas", n)
	}
	report = &peers.Report{
		Members: []peers.Member{
			{Self: true, Alive: true, InDoubt: true, Frozen: true, Observed: 77, Finished: 5},
			{Alive: true, Lag: 3, Strange: true}, {Alive: true, Lag: 9}, {Alive: true, Frozen: true, InDoubt: true}, {Alive: true, InDoubt: true},
			{Alive: true, Frozen: true}, {Lag: 400, Frozen: true}, {InDoubt: true}, {}, {},
		},
		Disagreeing: 12,
		Ready:       true,
		Counts: peers.Counts{
			SentMessages: 1, SentOctets: 20, ReceivedMessages: 300, ReceivedOctets: 4000,
			Rejected: map[string]uint64{"key": 5, "source": 0},
		},
	}
	const want = `
		coredns_shaker_peers{state="alive"} 2
		coredns_shaker_peers{state="doubt"} 1
		coredns_shaker_peers{state="frozen"} 2
		coredns_shaker_peers{state="lost"} 4
		coredns_shaker_peers_disagreeing_targets 12
		coredns_shaker_peers_in_doubt 1
		coredns_shaker_peers_lag 9
		coredns_shaker_peers_messages_total{direction="received"} 300
		coredns_shaker_peers_messages_total{direction="sent"} 1
		coredns_shaker_peers_observed_targets 77
		coredns_shaker_peers_octets_total{direction="received"} 4000
		coredns_shaker_peers_octets_total{direction="sent"} 20
		coredns_shaker_peers_ready 1
		coredns_shaker_peers_rejected_total{reason="key"} 5
		coredns_shaker_peers_rejected_total{reason="source"} 0
	`
	if got := metricsLines(t, c); got != strings.ReplaceAll(strings.TrimSpace(want), "\t", "")+"\n" {
		t.Errorf("got\n%swant%s", got, want)
	}
	report = new(peers.Report)
	if got := metricsLines(t, c); !strings.Contains(got, "coredns_shaker_peers{state=\"lost\"} 0\n") || !strings.Contains(got, "coredns_shaker_peers_ready 0\n") {
		t.Errorf("of a replica that is alone:\n%s", got)
	}
}

// metricsLines returns the series of a collector as a scrape has them, without comments.
func metricsLines(t *testing.T, c prometheus.Collector) (lines string) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	scraped := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(scraped, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(scraped.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			lines += line
		}
	}
	return lines
}

// metricsOf has the metrics, those of each target included, report on an instance until the end of the test.
func metricsOf(t testing.TB, n *network) *instance {
	inst := &instance{engine: n.engine, settings: processSettings{targetMetrics: true}}
	before := shared.current.Swap(inst)
	t.Cleanup(func() { shared.current.Store(before) })
	return inst
}

// Each target has its own series, if that is asked for.
func TestMetricsOfEachTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t, "10.0.0.1=answered 10.0.0.2=refused 2001:db8::3=answered")
		time.Sleep(1500 * time.Millisecond)
		for _, addr := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.4"} {
			network.settle(netip.MustParseAddr(addr))
		}
		key := unique.Make(health.Settings{Interval: time.Minute, Source: netip.MustParseAddr("2001:db8::1")})
		for _, port := range []uint16{25, 587} {
			network.Await(netip.AddrPortFrom(netip.MustParseAddr("2001:db8::3"), port), key)
		}
		// The same address and port with other settings is another target.
		network.Await(netip.MustParseAddrPort("10.0.0.1:443"), unique.Make(health.Settings{Fall: 7}))
		inst := metricsOf(t, network)
		const usual = `settings="interval 2s 500ms timeout 1s tries 4 rise 2 fall 3 damping 30s 5m0s"`
		const fall7 = `settings="interval 2s 500ms timeout 1s tries 4 rise 2 fall 7"`
		const minute = `settings="interval 1m0s 500ms timeout 1s tries 4 rise 2 fall 3 source 2001:db8::1"`
		const want = `# HELP coredns_shaker_target_changed_timestamp_seconds When the target entered its state, as Unix time.
# TYPE coredns_shaker_target_changed_timestamp_seconds gauge
coredns_shaker_target_changed_timestamp_seconds{address="10.0.0.1",port="443",` + usual + `} 9.466848015e+08
coredns_shaker_target_changed_timestamp_seconds{address="10.0.0.1",port="443",` + fall7 + `} 9.466848015e+08
coredns_shaker_target_changed_timestamp_seconds{address="10.0.0.2",port="443",` + usual + `} 9.466848015e+08
coredns_shaker_target_changed_timestamp_seconds{address="10.0.0.4",port="443",` + usual + `} 9.466848015e+08
coredns_shaker_target_changed_timestamp_seconds{address="2001:db8::3",port="25",` + minute + `} 9.466848015e+08
coredns_shaker_target_changed_timestamp_seconds{address="2001:db8::3",port="587",` + minute + `} 9.466848015e+08
# HELP coredns_shaker_target_round_trip_seconds Smoothed time from SYN to SYN-ACK, missing before the first.
# TYPE coredns_shaker_target_round_trip_seconds gauge
coredns_shaker_target_round_trip_seconds{address="10.0.0.1",port="443",` + usual + `} 0.001
coredns_shaker_target_round_trip_seconds{address="10.0.0.1",port="443",` + fall7 + `} 0.001
coredns_shaker_target_round_trip_seconds{address="2001:db8::3",port="25",` + minute + `} 0.001
coredns_shaker_target_round_trip_seconds{address="2001:db8::3",port="587",` + minute + `} 0.001
# HELP coredns_shaker_target_up 1 while the target is up, 0 while it is down, missing while that is unknown.
# TYPE coredns_shaker_target_up gauge
coredns_shaker_target_up{address="10.0.0.1",port="443",` + usual + `} 1
coredns_shaker_target_up{address="10.0.0.1",port="443",` + fall7 + `} 1
coredns_shaker_target_up{address="10.0.0.2",port="443",` + usual + `} 0
coredns_shaker_target_up{address="2001:db8::3",port="25",` + minute + `} 1
coredns_shaker_target_up{address="2001:db8::3",port="587",` + minute + `} 1
# HELP coredns_shaker_unlisted_targets Number of targets without metrics of their own, because others have been there for longer.
# TYPE coredns_shaker_unlisted_targets gauge
coredns_shaker_unlisted_targets 0
`
		if err := testutil.CollectAndCompare(newTargetCollector(shared.monitorOfEach), strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		inst.settings.targetMetrics = false
		if n := testutil.CollectAndCount(newTargetCollector(shared.monitorOfEach)); n != 0 {
			t.Errorf("%d series that nobody asked for", n)
		}
		inst.settings.targetMetrics = true
		shared.current.Store(nil)
		if n := testutil.CollectAndCount(newTargetCollector(shared.monitorOfEach)); n != 0 {
			t.Errorf("%d series without a monitor", n)
		}
	})
}

// Where there are too many, targets that came first have metrics, whatever their addresses.
func TestMetricsOfTooManyTargets(t *testing.T) {
	for most, want := range map[int][]string{
		1: {"10.0.0.9"},
		3: {"10.0.0.9", "10.0.0.2", "10.0.0.7"},
		4: {"10.0.0.9", "10.0.0.2", "10.0.0.7", "10.0.0.1"},
		5: {"10.0.0.9", "10.0.0.2", "10.0.0.7", "10.0.0.1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			network := newNetwork(t, "10.0.0.3=answered")
			for _, addr := range []string{"10.0.0.3", "10.0.0.9", "10.0.0.2", "10.0.0.7", "10.0.0.1"} {
				keep := time.Hour
				if addr == "10.0.0.3" {
					keep = 0 // it leaves, and one that comes later takes its place in the table
				}
				network.Monitor.Target(netip.AddrPortFrom(netip.MustParseAddr(addr), 443), unique.Make(health.Settings{}), keep)
				time.Sleep(time.Minute)
				synctest.Wait()
			}
			metricsOf(t, network)
			collector := newTargetCollector(shared.monitorOfEach)
			collector.most = most
			registry := prometheus.NewPedanticRegistry()
			registry.MustRegister(collector)
			families := metricsOurs(registry.Gather())
			var got []string
			for _, m := range families["coredns_shaker_target_changed_timestamp_seconds"].GetMetric() {
				got = append(got, m.GetLabel()[0].GetValue())
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%d: %q, want %q", most, got, want)
			}
			if left := families["coredns_shaker_unlisted_targets"].GetMetric()[0].GetGauge().GetValue(); int(left) != 4-len(got) {
				t.Errorf("%d: %v are left out, and %d are not", most, left, len(got))
			}
		})
	}
}

// When the wall clock is set, a target changed when the new time says.
func TestMetricsClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := time.Duration(0)
		o := oracle.NewWithClock(t, "10.0.0.1=answered", func() time.Time { return time.Now().Add(step) })
		network := &network{o, &engine{monitor: o.Monitor, journal: newJournal(events.New())}}
		network.settle(netip.MustParseAddr("10.0.0.1"))
		metricsOf(t, network)
		time.Sleep(10 * time.Minute)
		for _, step = range []time.Duration{0, time.Hour, -3 * time.Hour, 0} {
			want := time.Now().Add(step - 10*time.Minute)
			for _, m := range metricsOurs(prometheus.DefaultGatherer.Gather())["coredns_shaker_target_changed_timestamp_seconds"].GetMetric() {
				if got := m.GetGauge().GetValue(); got != float64(want.Unix()) {
					t.Errorf("set by %v: changed at %v, want %v", step, got, want.Unix())
				}
			}
		}
	})
}

// BenchmarkScrape is a scrape as Prometheus makes it, compressed, of the metrics that depend on the number of targets.
func BenchmarkScrape(b *testing.B) {
	for _, targets := range []int{1000, maxListed, 1_000_000} {
		m := health.New(health.Options{Targets: targets})
		b.Cleanup(m.Close)
		key := unique.Make(health.Settings{Damping: time.Minute})
		for i := range targets {
			addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			m.Target(netip.AddrPortFrom(addr, 443), key, time.Hour)
		}
		m.SetProber(allAnswer{m})
		lab.Until(b, "all targets to be up", func() bool { return m.Counts().Up == targets })
		m.SetProber(nil)
		monitor := func() *health.Monitor { return m }
		for name, collector := range map[string]prometheus.Collector{"all together": newTargetsCollector(monitor), "each": newTargetCollector(monitor)} {
			registry := prometheus.NewRegistry()
			registry.MustRegister(collector)
			handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
			request := httptest.NewRequest("GET", "/metrics", nil)
			request.Header.Set("Accept-Encoding", "gzip")
			b.Run(fmt.Sprintf("%d targets, %s", targets, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					w := httptest.NewRecorder()
					handler.ServeHTTP(w, request)
					if w.Code != http.StatusOK {
						b.Fatal(w.Code)
					}
					b.ReportMetric(float64(w.Body.Len()), "octets")
				}
			})
		}
	}
}

// allAnswer is a prober to which everybody answers at once.
type allAnswer struct{ m *health.Monitor }

// Submit implements health.Prober.
func (a allAnswer) Submit(checks ...checker.Check) error {
	reports := make([]checker.Report, len(checks))
	for i := range checks {
		reports[i] = checker.Report{Tag: checks[i].Tag, Result: checker.Answered, RTT: time.Millisecond}
	}
	a.m.Deliver(reports)
	return nil
}

func TestMetricsTargets(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=answered 10.0.0.2=answered 10.0.0.3=refused")
	metricsOf(t, network)
	for _, addr := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		network.settle(netip.MustParseAddr(addr))
	}
	got := map[string]float64{}
	for _, m := range metricsOurs(prometheus.DefaultGatherer.Gather())["coredns_shaker_targets"].GetMetric() {
		got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
	}
	if got["up"] != 2 || got["down"] != 1 || got["unknown"] != 1 {
		t.Errorf("%v", got)
	}
	shared.current.Store(nil)
	for _, m := range metricsOurs(prometheus.DefaultGatherer.Gather())["coredns_shaker_targets"].GetMetric() {
		if v := m.GetGauge().GetValue(); v != 0 {
			t.Errorf("%v targets without a monitor", v)
		}
	}
}

// The labels come from the context that CoreDNS gives to plugins.
func TestMetricsLabels(t *testing.T) {
	ctx := context.WithValue(t.Context(), dnsserver.Key{}, &dnsserver.Server{Addr: "dns://:53"})
	ctx = context.WithValue(ctx, dnsserver.ViewKey{}, "inside")
	zone := handlerZone("labels.test.")
	c := countersFor(ctx, zone)
	if countersFor(ctx, zone) != c {
		t.Error("looked up anew")
	}
	if countersFor(t.Context(), zone) == c {
		t.Error("another server and view have the same counters")
	}
	c.held.Inc()
	c.removed.Add(3)
	c.outcomes[answer.Filtered].Add(2)
	labels := prometheus.Labels{"server": "dns://:53", "zone": zone, "view": "inside"}
	if n := testutil.ToFloat64(heldAnswers.With(labels)); n != 1 {
		t.Errorf("held %v", n)
	}
	if n := testutil.ToFloat64(removedAddresses.With(labels)); n != 3 {
		t.Errorf("removed %v", n)
	}
	labels["outcome"] = "filtered"
	if n := testutil.ToFloat64(answers.With(labels)); n != 2 {
		t.Errorf("filtered %v", n)
	}
	if n := testing.AllocsPerRun(100, func() { countersFor(ctx, zone) }); n != 0 {
		t.Errorf("%v allocations for a look-up", n)
	}
}

// What was answered is counted by what became of it.
func TestMetricsOutcomes(t *testing.T) {
	const two = "a.example.org. 300 IN A 10.0.0.1\na.example.org. 300 IN A 10.0.0.2"
	tests := []struct {
		zone     string
		results  string
		answer   string
		fallback string
		want     answer.Outcome
		removed  float64
		pick     int
		held     float64
	}{
		{"untouched.test.", "10.0.0.1=answered 10.0.0.2=answered", two, "all", answer.Untouched, 0, 0, 0},
		{"filtered.test.", "10.0.0.1=refused 10.0.0.2=answered", two, "all", answer.Filtered, 1, 0, 0},
		{"selected.test.", "10.0.0.1=answered 10.0.0.2=answered", two, "all", answer.Selected, 0, 1, 0},
		{"reordered.test.", "10.0.0.1=refused 10.0.0.2=answered", two + "\na.example.org. 300" + signature, "all", answer.Reordered, 0, 0, 0},
		{"spared.test.", "10.0.0.1=refused 10.0.0.2=refused", two, "all", answer.Substituted, 0, 0, 1}, // until the other family was looked up
		{"nodata.test.", "10.0.0.1=refused 10.0.0.2=refused", two, "nodata", answer.Substituted, 2, 0, 0},
	}
	for _, tt := range tests {
		tt.zone = handlerZone(tt.zone)
		network := newNetwork(t, tt.results)
		network.settleAll()
		zone := policyFor(t, tt.fallback, 0)
		zone.name, zone.Pick = tt.zone, tt.pick
		s := network.shaker(zone, tt.answer)
		handlerAsk(t, s, "a.example.org.")
		counters := countersFor(t.Context(), tt.zone)
		for o := range answer.Outcomes {
			want := 0.0
			if o == tt.want {
				want = 1
			}
			if n := testutil.ToFloat64(counters.outcomes[o]); n != want {
				t.Errorf("%s: %v %v, want %v", tt.zone, n, o, want)
			}
		}
		if n := testutil.ToFloat64(counters.removed); n != tt.removed {
			t.Errorf("%s: removed %v, want %v", tt.zone, n, tt.removed)
		}
		if n := testutil.ToFloat64(counters.held); n != tt.held {
			t.Errorf("%s: held %v, want %v", tt.zone, n, tt.held)
		}
	}
}

// Addresses that the table has no room for are counted, and pass.
func TestMetricsUnfiltered(t *testing.T) {
	network := newNetwork(t, "")
	network.Monitor.SetLimits(1, 0)
	network.Monitor.Target(netip.MustParseAddrPort("10.9.9.9:443"), health.Key{}, time.Hour)
	s := network.shaker(policyFor(t, "all", 0), "a.example.org. 300 IN A 10.0.0.1\na.example.org. 300 IN A 10.0.0.2")
	before := unfiltered.Load()
	if m := handlerAsk(t, s, "a.example.org."); len(m.Answer) != 2 || m.Answer[0].Header().Ttl != 300 {
		t.Errorf("got\n%s", lab.RecordText(m.Answer))
	}
	if n := unfiltered.Load() - before; n != 2 {
		t.Errorf("counted %d, want 2", n)
	}
	if n := float64(unfiltered.Load()); metricsOurs(prometheus.DefaultGatherer.Gather())["coredns_shaker_unfiltered_addresses_total"].GetMetric()[0].GetCounter().GetValue() != n {
		t.Errorf("the metric is not %v", n)
	}
}
