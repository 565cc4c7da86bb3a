package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// prometheusServer is a Prometheus that scrapes a CoreDNS until the end of the test.
type prometheusServer struct {
	t      *testing.T
	url    string
	client http.Client
}

// startPrometheus starts it on a port of its own, with the alert rules, and with intervals short enough for a test.
func startPrometheus(t *testing.T, scraped string) *prometheusServer {
	t.Helper()
	program := installed(t, "prometheus", "prometheus")
	rules, err := filepath.Abs(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := lab.FileIn(t, dir, "prometheus.yml", fmt.Sprintf(`
global:
  scrape_interval: 250ms
  evaluation_interval: 250ms
rule_files: [%q]
scrape_configs:
  - job_name: coredns
    static_configs:
      - targets: [%q]
`, rules, scraped))
	process := lab.Start(t, exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0"))
	p := &prometheusServer{t: t, client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}}
	listening := regexp.MustCompile(`msg="Listening on" address=(\S+)\s`)
	process.UntilNil(func() error {
		match := listening.FindStringSubmatch(process.Log.String())
		if match == nil {
			return errors.New("Prometheus to listen")
		}
		p.url = "http://" + match[1]
		return nil
	})
	return p
}

// get asks for data of the API. What is wrong with a query is in the error.
func (p *prometheusServer) get(path string, params url.Values, data any) error {
	answer, err := p.client.Get(p.url + "/api/v1/" + path + "?" + params.Encode())
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var body struct {
		Error string
		Data  json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		return fmt.Errorf("%s: %w", answer.Status, err) // as long as it is not ready
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, body.Error)
	}
	return json.Unmarshal(body.Data, data)
}

// sample is one in the result of a query.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

// query returns an error unless the query has a result with a number in it.
func (p *prometheusServer) query(expr string) ([]sample, error) {
	var data struct{ Result []sample }
	if err := p.get("query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, err
	}
	for _, s := range data.Result {
		text, _ := s.Value[1].(string)
		if n, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
			return data.Result, nil
		}
	}
	return nil, fmt.Errorf("no number in %v", data.Result)
}

// eventually tries all that fails again, with a query to CoreDNS in between, until nothing does.
func (p *prometheusServer) eventually(ask func(), tries map[string]func() error) {
	p.t.Helper()
	lab.UntilNil(p.t, func() error {
		ask()
		var failed []error
		for what, try := range tries {
			if err := try(); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", what, err))
			} else {
				delete(tries, what)
			}
		}
		return errors.Join(failed...)
	})
}

// Every query of the dashboard, and every metric that an alert is about, has data in a real Prometheus that scrapes a
// real CoreDNS. The alerts can be evaluated.
func TestMonitoring(t *testing.T) {
	installed(t, "prometheus", "prometheus")
	f := newFarm(t, "127.0.8.1", "127.0.8.2", "127.0.8.3")
	f.kill(f.addrs[2])
	fresh := netip.MustParseAddr("127.8.0.0")
	answers := backend(func(q dns.Question) (rrs []dns.RR) {
		addrs := f.addrs
		if q.Name == "new.example.org." {
			fresh = fresh.Next()
			addrs = []netip.Addr{f.addrs[0], fresh} // so that each answer is held for a moment
		}
		for _, addr := range addrs {
			if q.Qtype == dns.TypeA {
				header := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}
				rrs = append(rrs, &dns.A{Hdr: header, A: addr.AsSlice()})
			}
		}
		return rrs
	})
	metrics := local(t)
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		view inside {
			expr true
		}
		prometheus %s
		shaker {
			port %d
			allow 127.0.0.0/8
			interval 100ms
			hold 3s
			idle 1s
			overrides %s
			watch www.example.org
			metrics targets
			peers %s
			peers key %s
		}
		%s
	}`, metrics, f.port, lab.File(t, "overrides", "192.0.2.7 down\n"), local(t), lab.File(t, "key", "Xq2v0LJY8Wc9QeTz4nBf\n"), answers.directive(t)))
	p := startPrometheus(t, metrics)
	tries := make(map[string]func() error)
	for _, panel := range readDashboard(t).Panels {
		for _, q := range panel.Targets {
			tries["panel "+panel.Title+": "+q.Expr] = func() error { return p.tryPanelQuery(q) }
		}
	}
	for _, v := range readDashboard(t).Templating.List {
		if v.Definition != "" {
			tries["variable "+v.Name+": "+v.Definition] = func() error { return p.tryVariable(v.Definition) }
		}
	}
	rules, err := os.ReadFile(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	for _, metric := range regexp.MustCompile(`coredns_\w+`).FindAllString(string(rules), -1) {
		tries["in alerts: "+metric] = func() error { _, err := p.query("count(" + metric + ")"); return err }
	}
	count := strings.Count(string(rules), "- alert: ")
	tries["alerts"] = func() error { return p.tryAlerts(count) }
	p.eventually(func() {
		for _, qname := range []string{"www.example.org.", "new.example.org."} {
			s.ask(qname, dns.TypeA)
		}
	}, tries)
}

// interpolate puts values in the place of a dashboard's variables, as Grafana does where all are chosen.
func interpolate(expr string) string {
	expr = strings.ReplaceAll(expr, "$__rate_interval", "10s")
	return regexp.MustCompile(`\$(job|instance|server|zone|view)\b`).ReplaceAllString(expr, ".*")
}

func (p *prometheusServer) tryPanelQuery(q dashboardQuery) error {
	result, err := p.query(interpolate(q.Expr))
	if err != nil {
		return err
	}
	for _, match := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(q.LegendFormat, -1) {
		if result[0].Metric[match[1]] == "" {
			return fmt.Errorf("the result has no label %s for the legend: %v", match[1], result[0].Metric)
		}
	}
	return nil
}

// tryVariable looks for values of a variable, which is defined as label_values(SERIES, LABEL).
func (p *prometheusServer) tryVariable(definition string) error {
	match := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(definition)
	if match == nil {
		return fmt.Errorf("%q is not understood", definition)
	}
	var values []string
	if err := p.get("label/"+match[2]+"/values", url.Values{"match[]": {interpolate(match[1])}}, &values); err != nil {
		return err
	}
	if len(values) == 0 {
		return fmt.Errorf("no values")
	}
	return nil
}

// tryAlerts looks whether all alerts have been evaluated without an error.
func (p *prometheusServer) tryAlerts(count int) error {
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.get("rules", nil, &data); err != nil {
		return err
	}
	healthy := 0
	for _, group := range data.Groups {
		for _, rule := range group.Rules {
			if rule.Health != "ok" {
				return fmt.Errorf("%s is %s: %s", rule.Name, rule.Health, rule.LastError)
			}
			healthy++
		}
	}
	if healthy != count {
		return fmt.Errorf("%d alerts, want %d", healthy, count)
	}
	return nil
}
