package promqltest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"mcached/mcache"
	"mcached/mcache/query"
)

// covered is a source that says of some intervals that it has all of them.
type covered struct {
	query.Source
	list []mcache.Interval
}

func (c *covered) Coverage(string) []mcache.Interval { return c.list }

func (c *covered) CoveredFrom(_ string, from, to int64) (int64, bool) {
	for _, x := range c.list {
		if x.From <= from && to <= x.To {
			return 0, false
		}
	}
	return c.list[len(c.list)-1].From, true
}

func (c *covered) missing(m query.Missing, s query.Selection) query.Missing {
	if from, ok := c.CoveredFrom(s.Bucket, s.From, s.To); ok {
		m.Uncovered = from
	}
	return m
}

func (c *covered) LabelNames(ctx context.Context, s query.Selection, limit int) (query.Texts, error) {
	t, err := c.Source.LabelNames(ctx, s, limit)
	t.Missing = c.missing(t.Missing, s)
	return t, err
}

func (c *covered) LabelValues(ctx context.Context, name string, s query.Selection, limit int) (query.Texts, error) {
	t, err := c.Source.LabelValues(ctx, name, s, limit)
	t.Missing = c.missing(t.Missing, s)
	return t, err
}

func (c *covered) Select(ctx context.Context, s query.Selection) (query.Found, error) {
	f, err := c.Source.Select(ctx, s)
	if err != nil {
		return nil, err
	}
	return coveredFound{f, c.missing(f.Missing(), s)}, nil
}

type coveredFound struct {
	query.Found
	missing query.Missing
}

func (f coveredFound) Missing() query.Missing { return f.missing }

// write is a sample of a series.
type write struct {
	ls labels.Labels
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// behind is ours before Prometheus' own server, which has all of the data; ours
// has that of some intervals.
type behind struct {
	pair
	source   *covered
	sources  map[string]int
	asked    atomic.Int64 // requests of the store
	varying  int          // queries that the store answers one way or another
	bytes    func() uint64
	memory   *cacheStorage
	storeURL string
}

// allWrites are those of the tests' data, in the order of labels: the store's
// index then hands series over in that order as memory does.
func allWrites(t *testing.T) (list []write) {
	writeData(t, func(ls labels.Labels, ts int64, v float64) { list = append(list, write{ls, ts, v, nil, nil}) })
	writeHistograms(func(ls labels.Labels, ts int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
		list = append(list, write{ls, ts, v, h, fh})
	})
	slices.SortStableFunc(list, func(a, b write) int { return labels.Compare(a.ls, b.ls) })
	return list
}

func appendAll(t *testing.T, to storage.AppenderV2, list []write, in func(write) bool) {
	t.Helper()
	for _, w := range list {
		if !in(w) {
			continue
		}
		if _, err := to.Append(0, w.ls, 0, w.t, w.v, w.h, w.fh, storage.AppendV2Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := to.(appender); ok {
		return
	}
	if err := to.Commit(); err != nil {
		t.Fatal(err)
	}
}

func newBehind(t *testing.T, shards int, intervals []mcache.Interval, o query.UpstreamOptions, in func(write) bool) *behind {
	t.Helper()
	theirs := teststorage.New(t)
	list := allWrites(t)
	appendAll(t, theirs.AppenderV2(t.Context()), list, func(write) bool { return true })
	ours := newCacheStorage(t, shards)
	t.Cleanup(func() { ours.Close() })
	appendAll(t, ours.AppenderV2(t.Context()), list, func(w write) bool {
		return in(w) && slices.ContainsFunc(intervals, func(x mcache.Interval) bool { return x.From <= w.t && w.t <= x.To })
	})
	b := &behind{source: &covered{query.FromCache(ours.cache, nil), intervals}, sources: map[string]int{}, storeURL: startPrometheus(t, theirs)}
	u, err := url.Parse(b.storeURL)
	if err != nil {
		t.Fatal(err)
	}
	o.URL = u
	o.Client = &http.Client{Transport: countingTransport{&b.asked}}
	api := query.NewAPIOf(b.source, query.Options{DefaultBucket: bucket, Now: func() time.Time { return time.UnixMilli(dataEnd) }, Upstream: &o})
	b.bytes = func() uint64 { return api.Stats().UpstreamBytes }
	b.memory = ours
	b.theirs = prometheusAPI(theirs, theirs, settings{})
	b.ours = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(w, r)
		b.sources[w.(*httptest.ResponseRecorder).Header().Get("X-Mcached-Source")]++
	})
	return b
}

type countingTransport struct{ n *atomic.Int64 }

func (c countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.Contains(r.URL.Path, "/status/") && !strings.HasSuffix(r.URL.Path, "/series") {
		c.n.Add(1)
	}
	return http.DefaultTransport.RoundTrip(r)
}

func all(write) bool { return true }

func ms(t int64) string { return fmt.Sprintf("%d.%03d", t/1000, t%1000) }

// odd boundaries: one of the hours of memory begins between two samples, and
// there is a hole of some minutes.
var intervals = []mcache.Interval{
	{From: dataStart + 1_234_567, To: dataStart + 2_400_001},
	{From: dataStart + 2_700_000, To: mcache.MaxTime},
}

// TestSplitIsPrometheus asks both what straddles the boundaries.
func TestSplitIsPrometheus(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, all)
	for _, e := range expressions() {
		b.same(t, url.Values{"query": {e}, "start": {ms(dataStart - 60_000)}, "end": {ms(dataEnd + 400_000)}, "step": {"61.5"}})
		b.same(t, url.Values{"query": {e}, "start": {ms(dataStart + 1_000_001)}, "end": {ms(dataStart + 2_999_999)}, "step": {"47.001"}})
	}
	if b.sources["both"] < 800 || b.sources["memory"] < 20 || b.sources["upstream"] < 50 {
		t.Errorf("answers by source: %v", b.sources)
	}
}

// TestSplitRandomIsPrometheus does so with random expressions and times.
// MCACHED_RANDOM is how many, and MCACHED_SEED where they begin.
func TestSplitRandomIsPrometheus(t *testing.T) {
	n, seed := fromEnvironment(t, "MCACHED_RANDOM", 2000), fromEnvironment(t, "MCACHED_SEED", 1)
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, all)
	g := generator{rand.New(rand.NewPCG(uint64(seed), 1))}
	for i := range n {
		step := []int64{1_000, 7_001, 15_000, 30_000, 61_500, 299_999}[g.IntN(6)] + g.Int64N(3)
		start := dataStart - 600_000 + g.Int64N(3_000_000)
		end := start + step*(2+g.Int64N(150))
		e := g.vector(3)
		params := url.Values{"query": {e}, "start": {ms(start)}, "end": {ms(end)}, "step": {fmt.Sprintf("%dms", step)}}
		b.same(t, params)
		if t.Failed() {
			t.Fatalf("expression %d of MCACHED_SEED=%d", i, seed)
		}
	}
	t.Logf("answers by source: %v; Prometheus itself has several for %d", b.sources, b.varying)
	if b.sources["both"] < n/5 {
		t.Errorf("answers by source: %v", b.sources)
	}
}

func send(h http.Handler, params url.Values) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+params.Encode(), nil))
	return w
}

// same compares answers to a range query. Of many expressions Prometheus itself
// has several answers: the order of the series in the result of an operator is
// that of a map. So it is asked again where ours is another one.
func (b *behind) same(t *testing.T, params url.Values) {
	t.Helper()
	w, got := send(b.theirs, params), send(b.ours, params)
	theirs, ours := normal(t, w), normal(t, got)
	if theirs == ours || w.Code == http.StatusUnprocessableEntity && got.Code == w.Code {
		return // which series an error names depends on their order
	}
	for range 50 {
		if again := normal(t, send(b.theirs, params)); again != theirs {
			b.varying++
			return
		}
	}
	at := 0
	for at < min(len(theirs), len(ours)) && theirs[at] == ours[at] {
		at++
	}
	from := max(0, at-150)
	t.Errorf("%v\nPrometheus: …%.500s\nours:       …%.500s", params, theirs[from:], ours[from:])
}

func fromEnvironment(t *testing.T, name string, byDefault int) int {
	text := os.Getenv(name)
	if text == "" {
		return byDefault
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSplitTies has a memory of several shards, which select in another order
// than that of labels: ties of topk, and last digits of sums, are the store's
// where an answer is joined.
func TestSplitTies(t *testing.T) {
	b := newBehind(t, 16, intervals, query.UpstreamOptions{}, all)
	for _, e := range []string{`topk(2, up)`, `bottomk(3, version_info * 0)`, `topk by (job) (1, latency_seconds_bucket > bool 0)`, `sum(temperature_celsius)`, `avg(load_ratio)`, `stddev(temperature_celsius)`, `sum(rate(http_requests_total[3m]))`, `stdvar by (job) (load_ratio)`, `avg(rate(temperature_celsius[5m]))`} {
		b.same(t, url.Values{"query": {e}, "start": {ms(dataStart)}, "end": {ms(dataEnd)}, "step": {"30"}})
	}
	if b.sources["both"] < 8 {
		t.Errorf("answers by source: %v", b.sources)
	}
}

// generator makes random expressions.
type generator struct{ *rand.Rand }

func (g generator) one(list ...string) string { return list[g.IntN(len(list))] }

func (g generator) duration() string {
	return g.one("15s", "31s", "1m", "2m30s", "5m", "7m", "10m", "20m", "59999ms", "1h")
}

// modifiers of a selector or a subquery.
func (g generator) modifiers() (s string) {
	if g.IntN(4) == 0 {
		s += " offset " + g.one("", "-") + g.duration()
	}
	switch g.IntN(14) {
	case 0:
		s += " @ " + ms(dataStart+g.Int64N(5_400_000))
	case 1:
		s += " @ " + g.one("start()", "end()")
	}
	return s
}

func (g generator) selector() string {
	return g.one("up", "http_requests_total", "temperature_celsius", "load_ratio", "comes_and_goes", "latency_seconds_bucket", "request_seconds", "queue_gauge", "mixed", "odd", "version_info") +
		g.one("", "", "", `{job="api"}`, `{job!="db"}`, `{instance=~"host-[01].*"}`, `{kind="1"}`)
}

// matrix is a range, or a subquery.
func (g generator) matrix(depth int) string {
	if depth > 0 && g.IntN(4) == 0 {
		return "(" + g.vector(depth-1) + ")[" + g.duration() + ":" + g.one("", "15s", "1m", "7s", "90s") + "]" + g.modifiers()
	}
	if g.IntN(12) == 0 {
		return g.selector() + "[" + g.one("step() + 1m", "range() / 7", "max_of(step(), 2m)") + "]" + g.modifiers()
	}
	return g.selector() + "[" + g.duration() + "]" + g.modifiers()
}

func (g generator) vector(depth int) string {
	if depth == 0 {
		return g.selector() + g.modifiers()
	}
	switch g.IntN(9) {
	case 0:
		return g.selector() + g.modifiers()
	case 1, 2:
		return g.one("rate", "increase", "irate", "delta", "deriv", "avg_over_time", "min_over_time", "max_over_time", "sum_over_time", "count_over_time", "last_over_time", "present_over_time", "stddev_over_time", "changes", "resets", "absent_over_time") +
			"(" + g.matrix(depth) + ")"
	case 3, 4:
		by := g.one("", " by (job)", " by (instance)", " without (instance)", " by (le, job)")
		if g.IntN(3) == 0 {
			return g.one("topk", "bottomk", "quantile") + by + "(" + g.one("1", "2", "0.5") + ", " + g.vector(depth-1) + ")"
		}
		return g.one("sum", "avg", "min", "max", "count", "group", "stddev", "sum") + by + "(" + g.vector(depth-1) + ")"
	case 5:
		return g.one("abs", "ceil", "-", "timestamp", "round", "absent", "sort", "sgn", "histogram_sum", "histogram_count") + "(" + g.vector(depth-1) + ")"
	case 6:
		return "(" + g.vector(depth-1) + ") " + g.one("+", "-", "*", "/", ">", "<= bool", "and", "or", "unless", "==") + g.one("", "", " on(instance)", " on(job, instance)", " ignoring(code, le)") + " (" + g.vector(depth-1) + ")"
	case 7:
		return "histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[" + g.duration() + "]" + g.modifiers() + ")))"
	default:
		return "label_replace(" + g.vector(depth-1) + `, "host", "$1", "instance", "(.*):.*")`
	}
}

// TestSplitEachMillisecondIsPrometheus asks for steps of one millisecond round
// every boundary, of intervals that begin and end at a sample, and before and
// behind one.
func TestSplitEachMillisecondIsPrometheus(t *testing.T) {
	at := dataStart + 120*dataStep
	for _, by := range []int64{-1, 0, 1} {
		list := []mcache.Interval{{From: dataStart + 40*dataStep + by, To: at + by}, {From: at + 30*dataStep - by, To: mcache.MaxTime}}
		b := newBehind(t, 1, list, query.UpstreamOptions{}, all)
		for _, x := range []struct {
			expr         string
			back, beyond int64 // how far a step looks
		}{
			{"temperature_celsius", 299_999, 0}, {"count_over_time(temperature_celsius[5m])", 299_999, 0}, {"sum(rate(http_requests_total[2m]))", 119_999, 0},
			{"temperature_celsius offset 1m", 359_999, -60_000}, {"sum_over_time(load_ratio[1m] offset -2m)", 59_999 - 120_000, 120_000}, {"avg_over_time(up[10m:1m])", 899_999, 0},
			{"count_over_time(request_seconds[1m])", 59_999, 0}, {"increase(temperature_celsius[3m]) + count_over_time(up[15s])", 179_999, 0}, {"comes_and_goes", 299_999, 0},
		} {
			for _, edge := range []int64{list[0].From + x.back, list[0].To - x.beyond, list[1].From + x.back} {
				b.compare(t, "query_range", url.Values{"query": {x.expr}, "start": {ms(edge - 4)}, "end": {ms(edge + 4)}, "step": {"1ms"}})
			}
		}
		if b.sources["both"] != 27 {
			t.Errorf("answers by source, when boundaries are %d ms from a sample: %v", by, b.sources)
		}
	}
}
