package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
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

// TestE2EDashboardAndAlerts: the dashboard, the alerts and the status page ask
// for metrics that exist, and promtool takes the alerts.
func TestE2EDashboardAndAlerts(t *testing.T) {
	promtool := realServer(t, "promtool", "prometheus")
	t.Parallel()
	names := metricNames(t, startServer(t, "--self-scrape.interval=1s"))

	b, err := os.ReadFile("../deploy/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", "mcached", "$instance", ".*")
	checked := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			checkExpression(t, "dashboard, "+p.Title, variables.Replace(target.Expr), names)
			checked++
		}
	}
	if checked < 20 {
		t.Errorf("only %d expressions in the dashboard", checked)
	}

	if out, err := exec.Command(promtool, "check", "rules", "../deploy/alerts.yml").CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if b, err = os.ReadFile("../deploy/alerts.yml"); err != nil {
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

	if b, err = os.ReadFile("../page/status.js"); err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`\bmcached_[a-z_]+`).FindAllString(string(b), -1)
	if len(asked) < 15 {
		t.Errorf("the status page asks for %d metrics only", len(asked))
	}
	for _, name := range asked {
		if prefix := strings.HasSuffix(name, "_"); !names[name] && !(prefix && hasPrefix(names, name)) {
			t.Errorf("the status page asks for %q, which no daemon has", name)
		}
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
