package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"testing"
)

const (
	alertRules     = "../monitoring/alerts.yml"
	alertRuleTests = "../monitoring/alerts_test.yml"
)

// dashboard is what the tests look at in that for Grafana. Its form is checked by tools/dashboard.
type dashboard struct {
	Panels     []dashboardPanel
	Templating struct {
		List []struct {
			Name       string
			Definition string
			Datasource dashboardSource
		}
	}
}

type dashboardPanel struct {
	ID          int
	Type        string
	Title       string
	Description string
	Datasource  dashboardSource
	GridPos     struct{ X, Y, W, H int }
	Targets     []dashboardQuery
}

type dashboardQuery struct {
	Datasource   dashboardSource
	Expr         string
	LegendFormat string
}

type dashboardSource struct{ Type, UID string }

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile("../monitoring/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Grafana shows what overlaps one over the other, and asks another data source where a panel does not name the one that
// was chosen.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var (
		d      = readDashboard(t)
		chosen = dashboardSource{"prometheus", "${datasource}"}
		ids    = make(map[int]string)
		taken  = make(map[[2]int]string)
	)
	for _, p := range d.Panels {
		if other, twice := ids[p.ID]; twice {
			t.Errorf("%q and %q have the same id", p.Title, other)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, twice := taken[[2]int{x, y}]; twice || x >= 24 {
					t.Fatalf("%q is over %q or beyond the edge, at %d, %d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 || p.Datasource != chosen {
			t.Errorf("%q: description %q, %d queries, data source %v", p.Title, p.Description, len(p.Targets), p.Datasource)
		}
		for _, q := range p.Targets {
			if q.Datasource != chosen {
				t.Errorf("%q: data source %v", p.Title, q.Datasource)
			}
		}
	}
	for _, v := range d.Templating.List {
		if v.Name != "datasource" && v.Datasource != chosen {
			t.Errorf("variable %q: data source %v", v.Name, v.Datasource)
		}
	}
}

// The rules are sound, and each of them has a test that sees it fire.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	promtool := installed(t, "promtool", "prometheus")
	for _, args := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", alertRules}, {"test", "rules", alertRuleTests}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
	rules, err := os.ReadFile(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(alertRuleTests)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		fires := regexp.MustCompile(`alertname: ` + match[1] + `\n\s+eval_time: \S+\n\s+exp_alerts:\n\s+- `)
		if !fires.Match(tests) {
			t.Errorf("no test of %s in which it fires", match[1])
		}
	}
}
