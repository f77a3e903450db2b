package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/value"

	"mcached/kvcache"
	"mcached/mcache"
)

// newMetricCache makes a small metric cache for a test.
func newMetricCache(t testing.TB) *mcache.Cache {
	t.Helper()
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	c, err := mcache.New(mcache.Options{Memory: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = m.Close() })
	return c
}

// everything reads all samples of a bucket, by a text form of the labels.
func everything(t testing.TB, c *mcache.Cache, bucket string) map[string][]mcache.Sample {
	t.Helper()
	all, err := mcache.NewMatcher(mcache.MatchNotEqual, "__name__", "")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := c.Select(bucket, []mcache.Matcher{all}, nil)
	if err != nil {
		t.Fatal(err)
	}
	series := map[string][]mcache.Sample{}
	var snap mcache.Snapshot
	for _, id := range ids {
		ls, ok := c.Labels(id, nil)
		if !ok || !c.Snapshot(id, math.MinInt64, math.MaxInt64, &snap) {
			t.Fatalf("series %d vanished", id)
		}
		name, rest := "", []string{}
		for _, l := range ls {
			if l.Name == "__name__" {
				name = l.Value
			} else {
				rest = append(rest, fmt.Sprintf("%s=%q", l.Name, l.Value))
			}
		}
		key := name + "{" + strings.Join(rest, ",") + "}"
		for it := snap.Iterator(); it.Next(); {
			series[key] = append(series[key], it.At())
		}
	}
	return series
}

func TestSelfScrape(t *testing.T) {
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c_total"}, []string{"l", "empty"})
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"})
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: []float64{.5, 1}})
	summary := prometheus.NewSummary(prometheus.SummaryOpts{Name: "s", Objectives: map[float64]float64{.5: .1}})
	reg.MustRegister(counter, gauge, histogram, summary)
	counter.WithLabelValues("a", "").Add(3)
	counter.WithLabelValues("b", "").Add(4)
	gauge.Set(math.Inf(-1))
	histogram.Observe(.7)
	histogram.Observe(7)
	summary.Observe(2)

	cache := newMetricCache(t)
	at := time.UnixMilli(1_700_000_000_000)
	s := &selfScraper{cache: cache, gatherer: reg, bucket: "self", job: "mcached", instance: "here:1",
		interval: time.Second, now: func() time.Time { return at }, log: promslog.NewNopLogger()}
	s.scrape(at)
	counter.DeleteLabelValues("b", "")
	at = at.Add(time.Second)
	s.scrape(at)

	got := everything(t, cache, "self")
	t0, t1 := at.Add(-time.Second).UnixMilli(), at.UnixMilli()
	f := math.Float64bits
	const id = `instance="here:1",job="mcached"`
	want := map[string][2]uint64{
		"c_total{" + id + `,l="a"}`:                         {f(3), f(3)},
		"c_total{" + id + `,l="b"}`:                         {f(4), value.StaleNaN},
		"g{" + id + "}":                                     {f(math.Inf(-1)), f(math.Inf(-1))},
		"h_bucket{" + id + `,le="0.5"}`:                     {f(0), f(0)},
		"h_bucket{" + id + `,le="1.0"}`:                     {f(1), f(1)},
		"h_bucket{" + id + `,le="+Inf"}`:                    {f(2), f(2)},
		"h_sum{" + id + "}":                                 {f(7.7), f(7.7)},
		"h_count{" + id + "}":                               {f(2), f(2)},
		"s{" + id + `,quantile="0.5"}`:                      {f(2), f(2)},
		"s_sum{" + id + "}":                                 {f(2), f(2)},
		"s_count{" + id + "}":                               {f(1), f(1)},
		"up{" + id + "}":                                    {f(1), f(1)},
		"scrape_duration_seconds{" + id + "}":               {f(0), f(0)},
		"scrape_samples_scraped{" + id + "}":                {f(11), f(10)},
		"scrape_samples_post_metric_relabeling{" + id + "}": {f(11), f(10)},
		"scrape_series_added{" + id + "}":                   {f(11), f(0)},
	}
	for key, w := range want {
		g := got[key]
		if len(g) != 2 || g[0] != (mcache.Sample{T: t0, V: w[0]}) || g[1] != (mcache.Sample{T: t1, V: w[1]}) {
			t.Errorf("%s = %v, want %x at %d and %d", key, g, w, t0, t1)
		}
		delete(got, key)
	}
	for key := range got {
		t.Errorf("stored %s, which no Prometheus would have", key)
	}
}

// TestSelfScrapeFailure: a registry that fails is a target that is down.
func TestSelfScrapeFailure(t *testing.T) {
	fail := false
	g := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		if fail {
			return nil, errors.New("broken")
		}
		name, v := "x", 1.0
		return []*dto.MetricFamily{{Name: &name, Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &v}}}}}, nil
	})
	cache := newMetricCache(t)
	s := &selfScraper{cache: cache, gatherer: g, bucket: "self", job: "j", instance: "i", now: time.Now, log: promslog.NewNopLogger()}
	s.scrape(time.UnixMilli(1000))
	fail = true
	s.scrape(time.UnixMilli(2000))
	got := everything(t, cache, "self")
	if up := got[`up{instance="i",job="j"}`]; len(up) != 2 || up[0].V != math.Float64bits(1) || up[1].V != 0 {
		t.Errorf("up = %v, want 1 and 0", up)
	}
	if x := got[`x{instance="i",job="j"}`]; len(x) != 2 || x[1].V != value.StaleNaN {
		t.Errorf("x = %v, want 1 and a stale marker", x)
	}
}
