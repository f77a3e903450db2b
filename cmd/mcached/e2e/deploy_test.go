package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v2"
)

// metricNames are what a Prometheus that scrapes a daemon has: the table's, the
// runtime's and those of the scrape.
func metricNames(t testing.TB, s *server) map[string]bool {
	t.Helper()
	var answer struct{ Data []string }
	eventually(t, "the daemon has stored its metrics", func() error {
		// It is stored last of a scrape.
		if up, err := s.instant("scrape_series_added"); err != nil || len(up) == 0 {
			return fmt.Errorf("no scrape is complete, %v", err)
		}
		return s.get("/api/v1/label/__name__/values", &answer)
	})
	names := map[string]bool{}
	for _, n := range answer.Data {
		names[n] = true
	}
	for name := range documented(t) { // those of an automatic size are not there when it is fixed
		names[name] = true
	}
	return names
}

// checkExpression parses PromQL and says which of its metrics nobody has.
func checkExpression(t testing.TB, where, expr string, names map[string]bool) {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %q: %v", where, expr, err)
		return
	}
	selectors := 0
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		selectors++
		name := v.Name
		for _, m := range v.LabelMatchers {
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
				name = m.Value
			}
		}
		if !names[name] {
			t.Errorf("%s: %q asks for %q, which no daemon has", where, expr, name)
		}
		return nil
	})
	if selectors == 0 {
		t.Errorf("%s: %q asks for no metric", where, expr)
	}
}

// checkDashboard holds a dashboard's expressions, at least so many, to the metrics there are.
func checkDashboard(t *testing.T, file string, names map[string]bool, least int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title, Type, Description string
			Targets                  []struct{ Expr string }
		}
		Annotations struct {
			List []struct{ Name, Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", "mcached", "$instance", ".*")
	checked := 0
	for _, a := range dashboard.Annotations.List {
		checkExpression(t, file+", annotation "+a.Name, variables.Replace(a.Expr), names)
	}
	for _, p := range dashboard.Panels {
		if p.Description == "" && p.Type != "row" {
			t.Errorf("%s, %s: there is no description", file, p.Title)
		}
		for _, target := range p.Targets {
			checkExpression(t, file+", "+p.Title, variables.Replace(target.Expr), names)
			checked++
		}
	}
	if checked < least {
		t.Errorf("only %d expressions in %s", checked, file)
	}
}

// TestE2EDashboardAndAlerts: the dashboards, the alerts and the status page ask
// for metrics that exist, and promtool takes the alerts.
func TestE2EDashboardAndAlerts(t *testing.T) {
	promtool := realServer(t, "promtool", "prometheus")
	t.Parallel()
	names := metricNames(t, startServer(t, "--self-scrape.interval=1s"))

	checkDashboard(t, "grafana-dashboard.json", names, 20)
	checkDashboard(t, "grafana-fleet.json", names, 20)

	if out, err := exec.Command(promtool, "check", "rules", "../deploy/alerts.yml").CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	b, err := os.ReadFile("../deploy/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			checkExpression(t, r.Alert, r.Expr, names)
		}
	}

	var asked []string
	for _, file := range []string{"status.js", "tables.js"} {
		if b, err = os.ReadFile("../page/src/" + file); err != nil {
			t.Fatal(err)
		}
		asked = append(asked, regexp.MustCompile(`\bmcached_[a-z_]+`).FindAllString(string(b), -1)...)
	}
	if len(asked) < 60 {
		t.Errorf("the status page asks for %d metrics only", len(asked))
	}
	for _, name := range asked {
		if name == "mcached_upstream_" { // of a daemon that has one
			continue
		}
		if prefix := strings.HasSuffix(name, "_"); !names[name] && !(prefix && hasPrefix(names, name)) {
			t.Errorf("the status page asks for %q, which no daemon has", name)
		}
	}
}

// TestE2EAlertsFire has promtool run the cases of the alerts: each fires in one,
// and none on a healthy day. Each has a section of the runbook.
func TestE2EAlertsFire(t *testing.T) {
	promtool := realServer(t, "promtool", "prometheus")
	t.Parallel()
	c := exec.Command(promtool, "test", "rules", "alerts_test.yml")
	c.Dir = "../deploy"
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	read := func(file string) string {
		b, err := os.ReadFile("../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	alerts := regexp.MustCompile(`(?m)^  - alert: (\w+)$`).FindAllStringSubmatch(read("alerts.yml"), -1)
	if len(alerts) < 20 {
		t.Fatalf("only %d alerts", len(alerts))
	}
	cases, runbook := read("alerts_test.yml"), read("RUNBOOK.md")
	for _, a := range alerts {
		fires := regexp.MustCompile(`exp_samples: \[.*alertname="` + a[1] + `"`)
		if !fires.MatchString(cases) {
			t.Errorf("no case has %s fire", a[1])
		}
		if !strings.Contains(runbook, "\n## "+a[1]+"\n") {
			t.Errorf("the runbook has no section %s", a[1])
		}
		if !strings.Contains(read("alerts.yml"), "runbook: RUNBOOK.md#"+strings.ToLower(a[1])+"\n") {
			t.Errorf("%s does not lead to the runbook", a[1])
		}
	}
	if sections := strings.Count(runbook, "\n## "); sections != len(alerts) {
		t.Errorf("the runbook has %d sections for %d alerts", sections, len(alerts))
	}
}

// hasPrefix says whether one of the names begins so, as patterns do.
func hasPrefix(names map[string]bool, prefix string) bool {
	for n := range names {
		if strings.HasPrefix(n, prefix) {
			return true
		}
	}
	return false
}
