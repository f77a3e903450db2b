package query

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// saysOfItself is a store that answers three questions.
func saysOfItself(t *testing.T, header, build, flags, config string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if header != "" {
			w.Header().Set(header, "x")
		}
		for path, data := range map[string]string{"buildinfo": build, "flags": flags, "config": config} {
			if strings.HasSuffix(r.URL.Path, "/api/v1/status/"+path) && data != "" {
				_, _ = io.WriteString(w, `{"status":"success","data":`+data+`}`)
				return
			}
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// TestDialect tells stores by what they say of themselves.
func TestDialect(t *testing.T) {
	const flags = `{"query.lookback-delta":"4m","enable-feature":""}`
	for name, c := range map[string]struct{ header, build, flags, config, want string }{
		"Prometheus 3":    {"", `{"version":"3.14.0"}`, flags, `{"yaml":"global:\n  scrape_interval: 15s\n  evaluation_interval: 20s\nrule_files: []\n"}`, "prometheus 3.14.0 all 4m0s 20s 4m0s"},
		"Prometheus 2":    {"", `{"version":"2.42.0+ds"}`, flags, `{"yaml":"global:\n  evaluation_interval: 30s\n"}`, "prometheus 2.42.0+ds without-ranges 4m0s 30s 4m0.001s"},
		"without flags":   {"", `{"version":"3.0.0"}`, "", "", "prometheus 3.0.0 all 0s 0s 0s"},
		"another feature": {"", `{"version":"3.0.0"}`, `{"enable-feature":"otlp,promql-delayed-name-removal"}`, "", "prometheus 3.0.0 none 0s 0s 0s"},
		"the interval of a group is not the global one": {"", `{"version":"3.0.0"}`, "", `{"yaml":"global:\n  scrape_interval: 15s\nscrape_configs:\n- evaluation_interval: 9s\n"}`, "prometheus 3.0.0 all 0s 0s 0s"},
		"VictoriaMetrics":     {"X-Server-Hostname", `{}`, "", "", "victoriametrics  simple 0s 0s 0s"},
		"Mimir":               {"", `{"application":"Grafana Mimir","version":"2.17.1"}`, "", "", "mimir 2.17.1 all 0s 0s 0s"},
		"an older Mimir":      {"", `{"application":"Grafana Mimir","version":"2.10.0"}`, "", "", "mimir 2.10.0 without-ranges 0s 0s 5m0.001s"},
		"Thanos":              {"", `{"version":"0.40.1"}`, `{"query.auto-downsampling":"false","query.lookback-delta":"5m","query.default-evaluation-interval":"1m"}`, "", "thanos 0.40.1 all 5m0s 1m0s 5m0s"},
		"an older Thanos":     {"", `{"version":"0.30.0"}`, `{"query.auto-downsampling":"false"}`, "", "thanos 0.30.0 without-ranges 0s 0s 5m0.001s"},
		"something else":      {"", `{"application":"Cortex","version":"1.19"}`, "", "", "unknown  none 0s 0s 0s"},
		"no version":          {"", `{}`, "", "", "unknown  none 0s 0s 0s"},
		"not Prometheus' API": {"", "", "", "", "unknown  none 0s 0s 0s"},
		"HTML":                {"", `{"version":`, "", "", "unknown  none 0s 0s 0s"},
	} {
		u, err := url.Parse(saysOfItself(t, c.header, c.build, c.flags, c.config).URL + "/prefix")
		if err != nil {
			t.Fatal(err)
		}
		d := newUpstream(*patiently(UpstreamOptions{URL: u}), time.Now, Features{}, slog.New(slog.DiscardHandler)).dialect.of(t.Context())
		if got := fmt.Sprint(d.Kind, " ", d.Version, " ", d.Splits, " ", d.Lookback, " ", d.SubqueryStep, " ", d.lookback); got != c.want || d.Splits != splitsAll && d.Why == "" {
			t.Errorf("%s: %s, want %s; %s", name, got, c.want, d.Why)
		}
	}
}

// TestClockAhead: a second has a length, and an answer takes time.
func TestClockAhead(t *testing.T) {
	asked := time.Unix(1000, 999e6)
	for date, want := range map[int64]time.Duration{1000: 0, 1003: 0, 1008: 0, 1010: 6 * time.Second, 996: 0, 995: 0, 994: -6 * time.Second, 5000: 3996 * time.Second} {
		header := http.Header{"Date": {time.Unix(date, 0).UTC().Format(http.TimeFormat)}}
		if got := clockAhead(header, asked, asked.Add(3*time.Second)); got != want {
			t.Errorf("%d is %s ahead, want %s", date, got, want)
		}
	}
	if got := clockAhead(http.Header{}, asked, asked); got != 0 {
		t.Errorf("a server without a clock is %s ahead", got)
	}
}

// TestDialectSplits holds what is split with whom.
func TestDialectSplits(t *testing.T) {
	p := newBoundedParser(new(Features).parserOptions())
	for expr, want := range map[string]string{
		"m": "all without-ranges simple", "sum by (x) (m)": "all without-ranges simple", "max(m offset 1h)": "all without-ranges simple", "(count((m)))": "all without-ranges simple",
		"m + 1": "all without-ranges", "avg(m)": "all without-ranges", "sum(abs(m))": "all without-ranges", "ceil(m)": "all without-ranges", "topk(1, m)": "all without-ranges",
		"rate(m[5m])": "all", "sum(rate(m[5m]))": "all", "max(m) + max_over_time(m[5m:])": "all", "max_over_time((m)[1h:1m])": "all",
	} {
		e, err := p.ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, splits := range []string{splitsAll, splitsPlain, splitsSimple, splitsNone} {
			d := dialect{Dialect: Dialect{Splits: splits, Why: "why"}}
			if d.refuses(e) == "" {
				got = append(got, splits)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s is split with: %s, want %s", expr, s, want)
		}
	}
}

// TestDialectIsAskedAgain after an hour, and sooner after a failure.
func TestDialectIsAskedAgain(t *testing.T) {
	now, asked, down := time.UnixMilli(t0), 0, true
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "buildinfo") {
			asked++
		}
		if down {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"version":"3.1.0"}}`)
	}))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	l := &newUpstream(*patiently(UpstreamOptions{URL: u}), func() time.Time { return now }, Features{}, slog.New(slog.DiscardHandler)).dialect
	expect := func(kind string, n int) {
		t.Helper()
		if d := l.of(t.Context()); d.Kind != kind || asked != n {
			t.Errorf("%s, asked %d times; want %s, %d", d.Kind, asked, kind, n)
		}
	}
	expect(kindUnknown, 1)
	expect(kindUnknown, 1)
	down, now = false, now.Add(AskAgainAfter)
	expect(kindPrometheus, 2)
	now = now.Add(relearnEvery - 1)
	expect(kindPrometheus, 2)
	now = now.Add(1)
	expect(kindPrometheus, 3)
	down = true
	l.forget()
	expect(kindPrometheus, 4) // it is what it was
	now = now.Add(AskAgainAfter)
	expect(kindPrometheus, 5)
}
