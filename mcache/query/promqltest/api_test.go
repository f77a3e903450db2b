package promqltest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/grafana/regexp"

	"mcached/mcache/query"
)

// Time of the data that both servers hold: an hour and a half, every 15 s.
const (
	dataStart = int64(1795208700000)
	dataStep  = int64(15_000)
	dataSteps = 360
	dataEnd   = dataStart + (dataSteps-1)*dataStep
)

// pair is a server of Prometheus and one of ours, with the same data.
type pair struct {
	theirs, ours http.Handler
}

func newPair(t *testing.T) pair { return newStores(t).pair(settings{}) }

// settings are what both servers are told.
type settings struct {
	maxSamples int // 0: the default
	features   query.Features
}

// stores are the storage of a pair.
type stores struct {
	theirs *teststorage.TestStorage
	ours   *cacheStorage
}

func newStores(t *testing.T) stores {
	theirs := teststorage.New(t)
	t.Cleanup(func() { theirs.Close() })
	ours := newCacheStorage(t, 1)
	t.Cleanup(func() { ours.Close() })
	a, b := theirs.AppenderV2(t.Context()), ours.AppenderV2(t.Context())
	write := func(ls labels.Labels, ts int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
		for _, app := range []storage.AppenderV2{a, b} {
			if _, err := app.Append(0, ls, 0, ts, v, h, fh, storage.AppendV2Options{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeData(t, func(ls labels.Labels, ts int64, v float64) { write(ls, ts, v, nil, nil) })
	writeHistograms(write)
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	return stores{theirs, ours}
}

func (s stores) pair(o settings) pair {
	return pair{theirs: prometheusAPI(s.theirs, s.theirs, o), ours: s.api(o)}
}

// api is our half of a pair, which takes much less time to make.
func (s stores) api(o settings) http.Handler {
	now := func() time.Time { return time.UnixMilli(dataEnd) }
	return query.NewAPI(s.ours.cache, query.Options{DefaultBucket: bucket, Now: now, MaxSamples: o.maxSamples, Features: o.features})
}

// prometheusAPI is the server of Prometheus, as its own flags make it by default
// and by --enable-feature.
func prometheusAPI(s storage.SampleAndChunkQueryable, exemplars storage.ExemplarQueryable, o settings) http.Handler {
	p := parser.NewParser(parser.Options{
		ExperimentalDurationExpr:     true,
		EnableExperimentalFunctions:  o.features.ExperimentalFunctions,
		EnableExtendedRangeSelectors: o.features.ExtendedRangeSelectors,
		EnableBinopFillModifiers:     o.features.BinopFillModifiers,
	})
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples:               cmp.Or(o.maxSamples, 50_000_000),
		EnableDelayedNameRemoval: o.features.DelayedNameRemoval,
		EnableTypeAndUnitLabels:  o.features.TypeAndUnitLabels,
		UseStartTimestamps:       o.features.UseStartTimestamps,
		Timeout:                  2 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       true,
		Parser:                   p,
	})
	api := v1.NewAPI(engine, s, nil, nil, exemplars,
		func(context.Context) v1.ScrapePoolsRetriever { return nil },
		func(context.Context) v1.TargetRetriever { return nil },
		func(context.Context) v1.AlertmanagerRetriever { return nil },
		func() config.Config { return config.Config{} }, map[string]string{}, v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		nil, "", false, false, 0, slog.New(slog.DiscardHandler),
		func(context.Context) v1.RulesRetriever { return nil },
		50_000_000, 10, 1<<20, false, regexp.MustCompile("^(?:.*)$"), nil, &v1.PrometheusVersion{},
		nil, nil, prometheus.NewRegistry(), nil, nil, false, nil, false, false, false, false,
		5*time.Minute, false, false, nil, nil, v1.OpenAPIOptions{}, p)
	router := route.New()
	api.Register(router.WithPrefix("/api/v1"))
	return router
}

// writeData writes counters that reset, gauges, histograms of the classic kind,
// series that end, gaps, samples off the grid, and numbers that are none.
func writeData(t *testing.T, write func(ls labels.Labels, ts int64, v float64)) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	series := func(value func(i int) (float64, bool), jitter int64, pairs ...string) {
		ls := labels.FromStrings(pairs...)
		for i := range dataSteps {
			if v, ok := value(i); ok {
				write(ls, dataStart+int64(i)*dataStep+rnd.Int64N(jitter+1), v)
			}
		}
	}
	for _, job := range []string{"api", "db"} {
		for instance := range 3 {
			ids := []string{"job", job, "instance", fmt.Sprintf("host-%d:9100", instance)}
			series(func(i int) (float64, bool) { return float64(min(1, i%97)), true }, 0, append(ids, "__name__", "up")...)
			total := 0.0
			for _, code := range []string{"200", "404", "500"} {
				series(func(i int) (float64, bool) {
					if rnd.IntN(150) == 0 {
						total = 0
					}
					total += float64(rnd.IntN(40))
					return total, rnd.IntN(30) > 0
				}, 3, append(ids, "__name__", "http_requests_total", "code", code)...)
			}
			series(func(i int) (float64, bool) { return math.Round(rnd.NormFloat64()*1e5) / 1e3, true }, 0, append(ids, "__name__", "temperature_celsius")...)
			series(func(i int) (float64, bool) { return rnd.Float64(), i < 100+40*instance || i > 250 }, 900, append(ids, "__name__", "load_ratio", "mode", "a<b>\"c\"\n")...)
			buckets := make([]float64, 5)
			for b, le := range []string{"0.05", "0.1", "0.5", "1", "+Inf"} {
				series(func(i int) (float64, bool) { buckets[b] += float64((b + 1) * (1 + instance)); return buckets[b], true },
					0, append(ids, "__name__", "latency_seconds_bucket", "le", le)...)
			}
		}
	}
	series(func(i int) (float64, bool) {
		switch i % 6 {
		case 0:
			return math.NaN(), true
		case 1:
			return math.Inf(1), true
		case 2:
			return math.Inf(-1), true
		case 3:
			return math.Copysign(0, -1), true
		case 4:
			return 1e-9, true
		}
		return 1e22, true
	}, 0, "__name__", "odd", "kind", "numbers")
	series(func(i int) (float64, bool) {
		if i%50 == 40 {
			return math.Float64frombits(value.StaleNaN), true
		}
		return float64(i), i%50 < 40
	}, 0, "__name__", "comes_and_goes", "job", "api")
	series(func(i int) (float64, bool) { return 1, true }, 0, "__name__", "version_info", "job", "api", "version", "1.2.3")
	series(func(i int) (float64, bool) { return 2, i%2 == 0 }, 0, "__name__", "version_info", "job", "db", "version", "0.9")
	series(func(i int) (float64, bool) { return float64(i), true }, 0, "__name__", "name.with dots", "läbel", "wärt")
}

// writeHistograms writes native histograms: of whole numbers, with resets and
// changing buckets; of floats; gauges; with buckets of their own; and a series
// that has samples of both kinds.
func writeHistograms(write func(ls labels.Labels, ts int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram)) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for instance := range 4 {
		ls := labels.FromStrings("__name__", "request_seconds", "instance", fmt.Sprintf("host-%d:9100", instance), "kind", fmt.Sprint(instance%2))
		gauge := labels.FromStrings("__name__", "queue_gauge", "instance", fmt.Sprintf("host-%d:9100", instance))
		custom := labels.FromStrings("__name__", "custom_seconds", "instance", fmt.Sprintf("host-%d:9100", instance))
		mixed := labels.FromStrings("__name__", "mixed", "instance", fmt.Sprintf("host-%d:9100", instance))
		var buckets [12]int64
		for i := range dataSteps {
			ts := dataStart + int64(i)*dataStep
			if rnd.IntN(60) == 0 {
				buckets = [12]int64{}
			}
			for b := range min(4+i/40, len(buckets)) {
				buckets[b] += rnd.Int64N(5)
			}
			h := &histogram.Histogram{Schema: 1, ZeroThreshold: 1e-6, ZeroCount: uint64(buckets[0]), Sum: rnd.Float64() * 100,
				PositiveSpans: []histogram.Span{{Offset: -3, Length: 8}}, NegativeSpans: []histogram.Span{{Offset: 1, Length: 3}}}
			h.Count = h.ZeroCount
			last := int64(0)
			for b, n := range buckets[1:] {
				h.Count += uint64(n)
				if b == 8 {
					last = 0
				}
				if b < 8 {
					h.PositiveBuckets = append(h.PositiveBuckets, n-last)
				} else {
					h.NegativeBuckets = append(h.NegativeBuckets, n-last)
				}
				last = n
			}
			if instance < 3 {
				write(ls, ts, 0, h, nil)
			} else {
				write(ls, ts, 0, nil, h.ToFloat(nil))
			}
			g := h.Copy()
			g.CounterResetHint = histogram.GaugeType
			write(gauge, ts, 0, g, nil)
			write(custom, ts, 0, &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: uint64(3 * i), Sum: float64(i), CustomValues: []float64{0.1, 1, 10},
				PositiveSpans: []histogram.Span{{Offset: 0, Length: 3}}, PositiveBuckets: []int64{int64(i), 0, 0}}, nil)
			if i%20 < 10 {
				write(mixed, ts, float64(i), nil, nil)
			} else {
				write(mixed, ts, 0, h, nil)
			}
		}
	}
}

// expressions lists what both are asked.
func expressions() []string {
	list := []string{
		`1`, `-1e-7`, `1e21`, `NaN`, `Inf`, `"text <&>"`, `time()`, `vector(1)`, `scalar(vector(2))`, `pi()`, `1 / 0`, `2 ^ 0.5`, `7 % -4`,
		`up`, `up{job="api"}`, `up{job!="api"}`, `up{job=~"a.*|db"}`, `up{job!~"a.*"}`, `{__name__=~"up|odd"}`, `{job="api",instance=~"host-[01].*",code!="200"}`,
		`{"name.with dots"}`, `{"name.with dots","läbel"="wärt"}`, `odd`, `-odd`, `comes_and_goes`, `version_info{version=""}`, `nothing_at_all`,
		`http_requests_total offset 10m`, `http_requests_total offset -10m`, fmt.Sprintf(`http_requests_total @ %d`, dataEnd/1000-1000), `http_requests_total @ start()`, `up @ end() offset 1h`,
		`up == 1`, `up == bool 0`, `temperature_celsius > 0`, `temperature_celsius >= bool 10`, `0 < temperature_celsius < 50`,
		`http_requests_total{code="500"} / ignoring(code) http_requests_total{code="200"}`,
		`http_requests_total / on(job, instance) group_left up`, `up * on(job) group_left(version) version_info`, `up * on(instance) group_right temperature_celsius{job="api"}`,
		`sum by (job, code) (rate(http_requests_total[5m])) / on(job) group_left sum by (job) (rate(http_requests_total[5m]))`,
		`up and on(job) version_info`, `up or temperature_celsius`, `up unless on(instance) load_ratio{job="db"}`, `up{job="api"} or on(instance) up`,
		`load_ratio and temperature_celsius`, `comes_and_goes or vector(-1)`, `sum(up) + sum(up offset 5m)`, `up - up`, `temperature_celsius atan2 load_ratio`,
		`topk(3, temperature_celsius)`, `bottomk(2, temperature_celsius) by (job)`, `quantile(0.9, temperature_celsius)`, `quantile(2, load_ratio)`, `count_values("v", up)`, `count_values by (job) ("v", comes_and_goes)`,
		`absent(up)`, `absent(nothing{a="b"})`, `absent_over_time(comes_and_goes[1m])`, `absent_over_time(nothing[5m])`,
		`sort(temperature_celsius)`, `sort_desc(temperature_celsius)`,
		`histogram_quantile(0.9, rate(latency_seconds_bucket[5m]))`, `histogram_quantile(0.5, sum by (le) (rate(latency_seconds_bucket[10m])))`, `histogram_quantile(0.99, sum by (job, le) (latency_seconds_bucket))`, `histogram_quantile(2, latency_seconds_bucket)`, `histogram_quantile(0.9, up)`, `histogram_fraction(0, 0.3, rate(latency_seconds_bucket[5m]))`,
		`label_replace(up, "host", "$1", "instance", "(.*):.*")`, `label_replace(up, "x", "", "y", "")`, `label_join(up, "both", "/", "job", "instance")`, `label_replace(up, "job", "", "job", ".*")`,
		`max_over_time(rate(http_requests_total[2m])[10m:1m])`, `avg_over_time(sum(up)[10m:30s])`, `rate(http_requests_total[5m:20s])`, `sum_over_time(up[10m:] offset 5m)`, `deriv(temperature_celsius[10m:1m] @ end())`, `quantile_over_time(0.5, load_ratio[5m:7s])`,
		`quantile_over_time(0.3, temperature_celsius[5m])`, `predict_linear(temperature_celsius[10m], 600)`, `double_exponential_smoothing(temperature_celsius[10m], 0.5, 0.5)`, `round(temperature_celsius, 0.5)`, `clamp(temperature_celsius, -10, 10)`, `clamp_min(odd, 0)`, `clamp_max(odd, 1)`,
		`day_of_month()`, `hour(vector(0))`, `minute(up)`, `month()`, `year()`, `days_in_month()`, `day_of_week()`, `day_of_year()`, `timestamp(up)`, `timestamp(load_ratio)`, `timestamp(up offset 1m)`, `scalar(up)`, `scalar(sum(up))`, `vector(scalar(sum(up)))`,
		`changes(comes_and_goes[10m])`, `resets(http_requests_total[30m])`, `rate(up[5m])`, `increase(temperature_celsius[5m])`, `rate(http_requests_total[10s])`, `irate(http_requests_total[20s])`, `delta(odd[5m])`, `sum(odd)`, `avg(odd)`, `max(odd)`, `min(odd)`, `stddev(odd)`, `sum_over_time(odd[5m])`, `avg_over_time(odd[5m])`,
		`group(up) by (job)`, `group without (instance) (up)`, `sum without (code, instance) (http_requests_total)`, `avg(temperature_celsius) by (nothing)`, `sum(sum by (job) (up))`, `count(count by (__name__) ({job=~".+"}))`, `sum by (__name__) ({job="db"})`,
		`last_over_time({job="api"}[1m])`, `rate({__name__=~"http.*|up"}[5m])`, `(up)`, `-(up)`, `+up`, `- - up`, `up # a comment`, "up\n+\nup", `sum(up) > 100`, `{__name__="up", job="api"} * 2`, `up % 2`, `2 ^ up`, `up ^ 2 ^ 2`,
		// What is wrong.
		`up[5m]`, `up[`, `sum`, `rate(up)`, `foo(up)`, `up{job=}`, `up{job="a`, `up offset`, `{}`, `{job=~".*"}`, `up + "a"`, `up and 1`, `sum(up, 1)`, `label_replace(up, "a", "b", "c", "(")`, `topk(up, up)`, `http_requests_total / up`, `up * on(job) up`, `count_values("", up)`, `vector("a")`, `up == bool`, `1 == 1`, `up{a="b",}`, `up @ "x"`, `histogram_quantile("a", up)`, `🙂`, `up{é="1"}`, `rate(up[5m])[5m]`, `up[5m:1m]`, `quantile_over_time(NaN, up[1m])`, `up{job=~"("}`,
	}
	for _, s := range []string{"request_seconds", "queue_gauge", "custom_seconds", "mixed", `{__name__=~"request_seconds|temperature_celsius",instance="host-1:9100"}`} {
		list = append(list, s, s+" offset 7m", fmt.Sprintf("sum(%s)", s), fmt.Sprintf("avg by (kind) (%s)", s), fmt.Sprintf("count(%s)", s), fmt.Sprintf("max(%s)", s),
			fmt.Sprintf("rate(%s[5m])", s), fmt.Sprintf("increase(%s[3m])", s), fmt.Sprintf("sum(rate(%s[5m]))", s), fmt.Sprintf("sum by (kind) (increase(%s[2m] offset 1m))", s),
			fmt.Sprintf("delta(%s[5m])", s), fmt.Sprintf("irate(%s[5m])", s), fmt.Sprintf("resets(%s[30m])", s), fmt.Sprintf("changes(%s[10m])", s),
			fmt.Sprintf("sum_over_time(%s[5m])", s), fmt.Sprintf("avg_over_time(%s[5m])", s), fmt.Sprintf("last_over_time(%s[5m])", s), fmt.Sprintf("count_over_time(%s[5m])", s), fmt.Sprintf("max_over_time(%s[5m])", s),
			fmt.Sprintf("histogram_quantile(0.9, %s)", s), fmt.Sprintf("histogram_quantile(0.9, sum(rate(%s[5m])))", s), fmt.Sprintf("histogram_count(%s)", s), fmt.Sprintf("histogram_sum(rate(%s[5m]))", s),
			fmt.Sprintf("histogram_avg(rate(%s[5m]))", s), fmt.Sprintf("histogram_fraction(0, 1, %s)", s), fmt.Sprintf("histogram_stddev(%s)", s), fmt.Sprintf("%s * 2", s), fmt.Sprintf("-%s", s), fmt.Sprintf("%s / 3", s), fmt.Sprintf("%s + %s", s, s), fmt.Sprintf("%s - %s offset 1m", s, s),
			fmt.Sprintf("abs(%s)", s), fmt.Sprintf("topk(1, %s)", s), fmt.Sprintf("%s == %s", s, s), fmt.Sprintf("%s > 1", s), fmt.Sprintf("rate(%s[10m:1m])", s), fmt.Sprintf("%s[2m]", s), fmt.Sprintf("timestamp(%s)", s))
	}
	for _, f := range []string{"rate", "irate", "increase", "delta", "idelta", "deriv", "avg_over_time", "min_over_time", "max_over_time", "sum_over_time", "count_over_time", "last_over_time", "present_over_time", "stddev_over_time", "stdvar_over_time", "resets", "changes"} {
		for _, s := range []string{"http_requests_total", "temperature_celsius{job=\"db\"}", "load_ratio", "comes_and_goes"} {
			list = append(list, fmt.Sprintf("%s(%s[3m])", f, s))
		}
		list = append(list, fmt.Sprintf("sum by (job) (%s(http_requests_total[4m] offset 1m))", f))
	}
	for _, op := range []string{"sum", "avg", "min", "max", "count", "stddev", "stdvar", "group"} {
		for _, s := range []string{"http_requests_total", "temperature_celsius", "load_ratio", "rate(http_requests_total[5m])"} {
			list = append(list, fmt.Sprintf("%s(%s)", op, s), fmt.Sprintf("%s by (job) (%s)", op, s), fmt.Sprintf("%s without (instance) (%s)", op, s))
		}
	}
	for _, f := range []string{"abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "round", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "deg", "rad"} {
		list = append(list, f+"(temperature_celsius)", f+"(odd)")
	}
	return list
}

// response is an answer, taken apart so far that order may be ignored.
type response struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
}

type queryData struct {
	ResultType string            `json:"resultType"`
	Result     []json.RawMessage `json:"result"`
}

// normal returns the bytes of an answer with everything in an order of its own
// that neither server promises.
func normal(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var r response
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		return fmt.Sprintf("%d %s", w.Code, w.Body)
	}
	slices.Sort(r.Warnings)
	slices.Sort(r.Infos)
	data := string(r.Data)
	var d queryData
	if json.Unmarshal(r.Data, &d) == nil && d.ResultType == "vector" {
		slices.SortFunc(d.Result, func(a, b json.RawMessage) int { return cmp.Compare(string(a), string(b)) })
		data = d.ResultType
		for _, e := range d.Result {
			data += "\n" + string(e)
		}
	}
	return fmt.Sprintf("%d %s %s %s\n%s\nwarnings %q\ninfos %q", w.Code, r.Status, r.ErrorType, r.Error, data, r.Warnings, r.Infos)
}

func (p pair) compare(t *testing.T, path string, params url.Values) (status int) {
	t.Helper()
	var got [2]string
	for i, h := range []http.Handler{p.theirs, p.ours} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/"+path+"?"+params.Encode(), nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got[i] = normal(t, w)
		status = w.Code
	}
	if got[0] != got[1] {
		at := 0
		for at < min(len(got[0]), len(got[1])) && got[0][at] == got[1][at] {
			at++
		}
		from := max(0, at-150)
		t.Errorf("%s %v\nPrometheus: …%.500s\nours:       …%.500s", path, params, got[0][from:], got[1][from:])
	}
	return status
}

// TestAPIIsPrometheus asks both servers the same and compares their answers
// byte for byte.
func TestAPIIsPrometheus(t *testing.T) {
	p := newPair(t)
	list := expressions()
	if len(list) < 200 {
		t.Fatalf("only %d expressions", len(list))
	}
	second := func(ms int64) string { return fmt.Sprintf("%d.%03d", ms/1000, ms%1000) }
	statuses := map[int]int{}
	for _, e := range list {
		for _, at := range []int64{dataEnd, dataStart + 1_234_567, dataEnd + 200_000, dataStart - 1} {
			statuses[p.compare(t, "query", url.Values{"query": {e}, "time": {second(at)}})]++
		}
		statuses[p.compare(t, "query_range", url.Values{"query": {e}, "start": {second(dataStart - 60_000)}, "end": {second(dataEnd + 400_000)}, "step": {"61.5"}})]++
		statuses[p.compare(t, "query_range", url.Values{"query": {e}, "start": {second(dataStart + 600_000)}, "end": {second(dataStart + 1_200_000)}, "step": {"15s"}})]++
		if strings.Contains(e, "@") || strings.Contains(e, "[") {
			p.compare(t, "query", url.Values{"query": {e}, "time": {second(dataEnd)}, "lookback_delta": {"20s"}})
		}
		p.compare(t, "format_query", url.Values{"query": {e}})
		p.compare(t, "parse_query", url.Values{"query": {e}})
	}
	t.Logf("%d expressions; answers by status: %v", len(list), statuses)
	if statuses[200] < 1000 || statuses[400] < 50 || statuses[422] < 10 {
		t.Errorf("answers by status: %v: the expressions do not show what they should", statuses)
	}
}

// TestLookupsArePrometheus does the same for all other requests.
func TestLookupsArePrometheus(t *testing.T) {
	p := newPair(t)
	in := fmt.Sprint(dataStart/1000 + 600)
	for _, c := range []struct {
		path   string
		params url.Values
	}{
		{"labels", nil},
		{"labels", url.Values{"match[]": {"up", `{version=~".+"}`}}},
		{"labels", url.Values{"match[]": {"nothing"}}},
		{"labels", url.Values{"match[]": {`{job=~".*"}`}}},
		{"labels", url.Values{"match[]": {`{`}}},
		{"labels", url.Values{"limit": {"3"}}},
		{"labels", url.Values{"limit": {"x"}}},
		{"labels", url.Values{"start": {"x"}}},
		// Prometheus goes by blocks and chunks and we by samples: of a minute in
		// which every series has one both say the same.
		{"labels", url.Values{"start": {in}, "end": {fmt.Sprint(dataStart/1000 + 660)}}},
		{"label/mode/values", url.Values{"start": {in}, "end": {fmt.Sprint(dataStart/1000 + 660)}}},
		{"label/job/values", nil},
		{"label/mode/values", nil},
		{"label/__name__/values", url.Values{"match[]": {`{job="db"}`}}},
		{"label/__name__/values", url.Values{"match[]": {`{job="db"}`, `{kind="numbers"}`}, "limit": {"4"}}},
		{"label/nothing/values", nil},
		{"label/U__l_e4_bel/values", nil},
		{"label/job/values", url.Values{"end": {"never"}}},
		{"series", nil},
		{"series", url.Values{"match[]": {`{`}}},
		{"series", url.Values{"match[]": {`{job=~".*"}`}}},
		{"series", url.Values{"match[]": {"nothing"}}},
		{"series", url.Values{"match[]": {`up{instance="host-0:9100",job="db"}`}, "start": {in}, "end": {in}}},
		{"series", url.Values{"match[]": {"version_info", `{job="db",version!=""}`}}},
		{"series", url.Values{"match[]": {"up", "up"}, "limit": {"-1"}}},
		{"series", url.Values{"match[]": {"up", "up", "odd"}}},
		{"query", url.Values{"query": {"1"}, "time": {"2026-11-20T19:45:16.5Z"}}},
		{"query", url.Values{"query": {"1"}, "time": {"2026-11-20"}}},
		{"query", url.Values{"query": {"1"}, "time": {"1e3"}}},
		{"query", url.Values{"query": {"1"}, "timeout": {"-"}}},
		{"query", url.Values{"query": {"1"}, "lookback_delta": {"-"}}},
		{"query", url.Values{"query": {"1"}, "limit": {"-1"}}},
		{"query", url.Values{"query": {"sum(up)"}, "timeout": {"0"}}},
		{"query", url.Values{"query": {"up"}, "timeout": {"0"}}},
		{"query", url.Values{"query": {"topk(1, rate(up[5m]))"}, "timeout": {"0"}}},
		{"query_range", url.Values{"query": {"sum(up)"}, "start": {in}, "end": {in}, "step": {"1"}, "timeout": {"0"}}},
		{"query_range", url.Values{"query": {"up / up"}, "start": {in}, "end": {in}, "step": {"1"}, "timeout": {"0"}}},
		{"query_range", url.Values{"query": {"up"}}},
		{"query_range", url.Values{"query": {"up"}, "start": {"1"}, "end": {"0"}, "step": {"1"}}},
		{"query_range", url.Values{"query": {"up"}, "start": {"0"}, "end": {"0"}, "step": {"0"}}},
		{"query_range", url.Values{"query": {"up"}, "start": {"0"}, "end": {"0"}, "step": {"1e100"}}},
		{"query_range", url.Values{"query": {"up"}, "start": {"0"}, "end": {"11001"}, "step": {"1"}}},
		{"query_range", url.Values{"query": {"vector(1)"}, "start": {"0"}, "end": {"11000"}, "step": {"1"}}},
		{"query_range", url.Values{"query": {"sort(up)"}, "start": {in}, "end": {in}, "step": {"1d"}, "limit": {"2"}}},
		{"query_exemplars", url.Values{"query": {"up"}}},
		{"query_exemplars", url.Values{"query": {"1"}}},
		{"query_exemplars", url.Values{"query": {"up"}, "start": {"1"}, "end": {"0"}}},
		{"query_exemplars", url.Values{"query": {"("}}},
	} {
		p.compare(t, c.path, c.params)
	}
}
