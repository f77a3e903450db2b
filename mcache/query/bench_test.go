package query

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"mcached/mcache"
)

// The benchmarks read 1,000 series of 240 samples, an hour at 15 s, with some
// 200 bytes of labels each: 40 % counters, 40 % gauges of two decimals, 20 %
// constants.
const (
	benchSeries = 1000
	benchPoints = 240
	benchStep   = int64(15_000)
	benchEnd    = t0 + (benchPoints-1)*benchStep
)

func benchCache(tb testing.TB) *mcache.Cache {
	c := newCache(tb)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range benchSeries {
		samples := make([]mcache.Sample, benchPoints)
		v, class := float64(rnd.IntN(1e6)), i%5
		for j := range samples {
			switch {
			case class < 2:
				v += float64(rnd.IntN(500))
			case class < 4:
				v = math.Round(rnd.Float64()*1e5) / 100
			}
			samples[j] = mcache.Sample{T: t0 + int64(j)*benchStep, V: math.Float64bits(v)}
		}
		err := c.AppendSamples("default", pairsToLabels([]string{
			"__name__", "http_server_requests_total",
			"cluster", "production-eu-west-1",
			"group", fmt.Sprintf("group-%02d", i%20),
			"instance", fmt.Sprintf("10.0.%d.%d:9100", i/250, i%250),
			"job", "kubernetes-service-endpoints",
			"namespace", "default-namespace-of-things",
			"pod", fmt.Sprintf("service-deployment-%08x-%05d", uint32(i)*2654435761, i),
			"ten", fmt.Sprintf("%03d", i/10),
			"hundred", fmt.Sprintf("%02d", i/100),
		}), samples...)
		if err != nil {
			tb.Fatal(err)
		}
	}
	return c
}

// cpu measures what the process has spent since, per iteration, the collector
// included. On a machine with other work that is the figure to trust.
func cpu(b *testing.B) (report func()) {
	b.Helper()
	spent := func() int64 {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return r.Utime.Nano() + r.Stime.Nano()
	}
	start := spent()
	return func() { b.ReportMetric(float64(spent()-start)/float64(b.N), "cpu-ns/op") }
}

// discard is a client that reads fast and keeps nothing.
type discard struct {
	header http.Header
	status int
	bytes  int
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(status int) {
	d.status = status
}

func (d *discard) Write(b []byte) (int, error) {
	d.bytes += len(b)
	return len(b), nil
}
func (d *discard) Flush() {}

var benchQueries = []struct{ name, path, query string }{
	{"scalar", "query", "1+1"},
	{"raw/series=1", "query_range", `http_server_requests_total{pod="service-deployment-00000000-00000"}`},
	{"raw/series=100", "query_range", `http_server_requests_total{hundred="03"}`},
	{"sum by/series=1000", "query_range", `sum by (group) (http_server_requests_total)`},
	{"rate/series=100", "query_range", `rate(http_server_requests_total{hundred="03"}[5m])`},
	{"sum rate/series=1000", "query_range", `sum(rate(http_server_requests_total[5m]))`},
	{"avg by avg_over_time/series=1000", "query_range", `avg by (group) (avg_over_time(http_server_requests_total[5m]))`},
	{"sum avg_over_time/series=1000", "query_range", `sum(avg_over_time(http_server_requests_total[5m]))`},
	{"instant sum/series=1000", "query", `sum(http_server_requests_total)`},
	{"instant/series=1000", "query", `http_server_requests_total`},
}

func benchTarget(path, query string) string {
	params := []string{"query", query, "start", seconds(t0), "end", seconds(benchEnd), "step", "15", "time", seconds(benchEnd)}
	return "/api/v1/" + path + "?" + form(params)
}

func benchOptions() Options {
	return Options{Now: func() time.Time { return time.UnixMilli(benchEnd) }}
}

// BenchmarkQuery is the handler's time, without HTTP.
func BenchmarkQuery(b *testing.B) {
	a := NewAPI(benchCache(b), benchOptions())
	for _, q := range benchQueries {
		b.Run(q.name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, benchTarget(q.path, q.query), nil)
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			report := cpu(b)
			for b.Loop() {
				clear(w.header)
				w.bytes, w.status = 0, 0
				a.ServeHTTP(w, r.Clone(context.Background()))
			}
			report()
			if w.status != 0 && w.status != 200 || w.bytes < 50 {
				b.Fatalf("status %d, %d bytes", w.status, w.bytes)
			}
			b.ReportMetric(float64(w.bytes), "B/answer")
		})
	}
}

// BenchmarkWindows computes functions of the windows of one series, a day of 15 s: some
// 20 samples in each of 5,760 windows. Numbers are whole, have two decimals, or are of
// all magnitudes.
func BenchmarkWindows(b *testing.B) {
	const n = 5760
	rnd := rand.New(rand.NewPCG(1, 2))
	kinds := []struct {
		name string
		next func(v float64) float64
	}{
		{"whole", func(v float64) float64 { return v + float64(rnd.IntN(500)) }},
		{"decimals", func(float64) float64 { return math.Round(rnd.Float64()*1e5) / 100 }},
		{"wide", func(float64) float64 { return math.Ldexp(rnd.NormFloat64(), rnd.IntN(120)) }},
	}
	for _, name := range []string{"sum_over_time", "avg_over_time", "max_over_time", "count_over_time"} {
		for _, kind := range kinds {
			b.Run(name+"/"+kind.name, func(b *testing.B) {
				p := &plan{rangeMs: 300_000, fold: folds[name], selector: &parser.VectorSelector{}}
				w := (&worker{}).reuse(steps{start: t0, interval: benchStep, n: n}, p)
				v := 0.0
				for i := range int64(n) {
					v = kind.next(v)
					w.times, w.values = append(w.times, t0+i*benchStep), append(w.values, v)
				}
				row := make([]float64, n)
				b.ReportAllocs()
				report := cpu(b)
				for b.Loop() {
					if w.compute(row) != n {
						b.Fatal("a window has no result")
					}
				}
				report()
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/window")
			})
		}
	}
}

// BenchmarkAggregates adds the rows of 16 series, a day of 15 s, to one group. Two in five are whole
// numbers.
func BenchmarkAggregates(b *testing.B) {
	const n = 5760
	rnd := rand.New(rand.NewPCG(1, 2))
	rows := make([][]float64, 16)
	for i := range rows {
		rows[i] = make([]float64, n)
		for k := range rows[i] {
			rows[i][k] = math.Round(rnd.Float64() * 1e5)
			if i%5 > 1 {
				rows[i][k] /= 100
			}
		}
	}
	for _, op := range []parser.ItemType{parser.SUM, parser.AVG, parser.MAX, parser.COUNT} {
		b.Run(op.String(), func(b *testing.B) {
			b.ReportAllocs()
			report := cpu(b)
			for b.Loop() {
				c := newCollector(steps{n: n}, aggregate{op: op}, len(rows))
				for _, row := range rows {
					c.add(labels.EmptyLabels(), row)
				}
				c.rows()
			}
			report()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n/float64(len(rows)), "ns/value")
		})
	}
}

// BenchmarkHTTP is what a client on the same machine waits for.
func BenchmarkHTTP(b *testing.B) {
	server := httptest.NewServer(NewAPI(benchCache(b), benchOptions()))
	defer server.Close()
	for _, gzip := range []bool{false, true} {
		client := &http.Client{Transport: &http.Transport{DisableCompression: !gzip}}
		for _, q := range benchQueries {
			b.Run(fmt.Sprintf("gzip=%t/%s", gzip, q.name), func(b *testing.B) {
				url := server.URL + benchTarget(q.path, q.query)
				report := cpu(b)
				for b.Loop() {
					response, err := client.Get(url)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, response.Body); err != nil {
						b.Fatal(err)
					}
					response.Body.Close()
				}
				report()
			})
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	a := NewAPI(benchCache(b), benchOptions())
	for _, q := range []struct{ name, target string }{
		{"series=100", "series?" + form([]string{"match[]", `http_server_requests_total{hundred="03"}`, "start", seconds(t0), "end", seconds(benchEnd)})},
		{"series=100, by expression", "series?" + form([]string{"match[]", `http_server_requests_total{instance=~"10.0.0.[0-9][0-9]?:9100"}`, "start", seconds(t0), "end", seconds(benchEnd)})},
		{"names", "labels?"},
		{"values=1000", "label/pod/values?"},
		{"values of 100", "label/pod/values?" + form([]string{"match[]", `http_server_requests_total{hundred="03"}`})},
	} {
		b.Run(q.name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/api/v1/"+q.target, nil)
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			report := cpu(b)
			for b.Loop() {
				clear(w.header)
				a.ServeHTTP(w, r.Clone(context.Background()))
			}
			report()
		})
	}
}

func BenchmarkRemoteRead(b *testing.B) {
	a := NewAPI(benchCache(b), benchOptions())
	for _, form := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES, prompb.ReadRequest_STREAMED_XOR_CHUNKS} {
		b.Run(fmt.Sprintf("%s/series=100", form), func(b *testing.B) {
			raw, err := (&prompb.ReadRequest{
				AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{form},
				Queries: []*prompb.Query{{StartTimestampMs: t0, EndTimestampMs: benchEnd, Matchers: []*prompb.LabelMatcher{
					{Name: "__name__", Value: "http_server_requests_total"}, {Name: "hundred", Value: "03"}}}},
			}).Marshal()
			if err != nil {
				b.Fatal(err)
			}
			body := snappy.Encode(nil, raw)
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			report := cpu(b)
			for b.Loop() {
				clear(w.header)
				w.bytes = 0
				r := httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(body))
				a.ServeHTTP(w, r)
			}
			report()
			b.ReportMetric(float64(w.bytes), "B/answer")
		})
	}
}

// BenchmarkSelect is finding series and reading their samples, without an engine.
func BenchmarkSelect(b *testing.B) {
	c := benchCache(b)
	q := NewQueryable(FromCache(c, NewLabelCache(16<<20)), "default", QueryableOptions{})
	querier, _ := q.Querier(t0, benchEnd)
	all := labels.MustNewMatcher(labels.MatchEqual, "__name__", "http_server_requests_total")
	b.Run("series=1000", func(b *testing.B) {
		b.ReportAllocs()
		report := cpu(b)
		for b.Loop() {
			querier.Select(b.Context(), false, nil, all)
		}
		report()
	})
	b.Run("series=1000/points=240000", func(b *testing.B) {
		b.ReportAllocs()
		report := cpu(b)
		for b.Loop() {
			var it chunkenc.Iterator
			n := 0
			for set := querier.Select(b.Context(), false, nil, all); set.Next(); {
				it = set.At().Iterator(it)
				for it.Next() != chunkenc.ValNone {
					n++
				}
			}
			if n != benchSeries*benchPoints {
				b.Fatal(n)
			}
		}
		report()
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries/benchPoints, "ns/point")
	})
}
