package query

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"mcached/kvcache"
	"mcached/mcache"
)

// BenchmarkCovered is a panel of the last hour, of 100 series, without a store
// behind and with one that is not asked.
func BenchmarkCovered(b *testing.B) {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer memory.Close()
	now := t0
	c, err := mcache.New(mcache.Options{Memory: memory, Now: func() int64 { return now }})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for i := range 100 {
		fill(b, c, "default", 15_000, ramp(300, float64(i), 1), "__name__", "m_total", "i", fmt.Sprint(i))
	}
	now = t0 + 299*15_000
	for _, behind := range []bool{false, true} {
		o := testOptions()
		o.Now = func() time.Time { return time.UnixMilli(now) }
		if behind {
			o.Upstream = &UpstreamOptions{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}}
		}
		a := NewAPI(c, o)
		target := "/api/v1/query_range?" + form([]string{"query", "sum by (i) (rate(m_total[5m]))", "start", seconds(now - 3_600_000), "end", seconds(now), "step", "15"})
		b.Run(fmt.Sprintf("behind=%v", behind), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
				if w.Code != 200 {
					b.Fatal(w.Body)
				}
			}
		})
	}
}

// BenchmarkMatrixReader reads an answer of some megabytes: what joining adds. It
// does so by runs, and point by point, which is what it was before there were any.
func BenchmarkMatrixReader(b *testing.B) {
	g := gridOf{t0, 15_000, 1440}
	for name, value := range longValues {
		text := longAnswer(100, g, value)
		for _, runs := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/runs=%v", name, runs), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					m := newMatrixReader(bytes.NewReader(text), g, span{from: 0, to: g.n})
					if !runs {
						m.expected.list = make([]separator, g.n) // none
					}
					for {
						if _, err := m.next(); err != nil {
							break
						}
					}
					if !m.done {
						b.Fatal("it was not read to its end")
					}
				}
			})
		}
	}
}

// longAnswer is a store's answer of counters, or of rates, to any query on a grid.
func longAnswer(series int, g gridOf, value func(series, step int) float64) []byte {
	text := []byte(`{"status":"success","data":{"resultType":"matrix","result":[`)
	for i := range series {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, `{"metric":{"__name__":"m","i":"%04d"},"values":[`, i)
		for s := range g.n {
			if s > 0 {
				text = append(text, ',')
			}
			text = append(appendTime(append(text, '['), g.time(s)), `,"`...)
			text = append(appendFloat(text, value(i, s)), `"]`...)
		}
		text = append(text, "]}"...)
	}
	return append(text, "]}}"...)
}

var longValues = map[string]func(series, step int) float64{
	"short": func(i, s int) float64 { return float64(1_000_000*i) + float64(s*(i+3))/8 },
	"long":  func(i, s int) float64 { return float64(s*i%1009+1) / 300 },
}

// BenchmarkRemembered is a long answer whose second look is all remembered, and
// the recording of it, which is not on the way of a client.
func BenchmarkRemembered(b *testing.B) {
	g := gridOf{t0 - 5000*60_000, 60_000, 4000}
	for name, value := range longValues {
		text := longAnswer(50, g, value)
		f := &fakeStore{version: "3.14.0"}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/query_range") {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write(text)
				return
			}
			f.ServeHTTP(w, r)
		}))
		defer server.Close()
		u, err := url.Parse(server.URL)
		if err != nil {
			b.Fatal(err)
		}
		o, m := testOptions(), &answerMap{}
		o.Now = func() time.Time { return time.UnixMilli(t0) }
		o.Upstream = &UpstreamOptions{URL: u, Memory: m, Settled: 5 * time.Minute}
		a := NewAPI(lateCache(b), o)
		target := "/api/v1/query_range?" + form([]string{"query", "m", "start", seconds(g.start), "end", seconds(g.time(g.n - 1)), "step", "60"})
		ask := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			w.Body.Grow(len(text) + 1000)
			a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
			if w.Code != 200 || w.Body.Len() != len(text) {
				b.Fatal(w.Code, w.Body.Len(), len(text))
			}
			return w
		}
		points := float64(50 * g.n)
		b.Run(name+"/recorded", func(b *testing.B) {
			b.ReportAllocs()
			c := &recall{u: a.upstream, grid: g, windows: &windows{grid: g, first: window{g.start, g.start}}, settled: math.MaxInt64, memory: m}
			for b.Loop() {
				rec := c.record(span{from: 0, to: g.n})
				r := newMatrixReader(bytes.NewReader(text), g, span{from: 0, to: g.n})
				for {
					s, err := r.next()
					if err != nil {
						break
					}
					one := parcel{text: s.floats, series: []parcelSeries{{s.labels, len(s.floats), 0}}}
					if !rec.encoder.add(&one) {
						b.Fatal("not encoded")
					}
				}
				rec.abandon()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/points, "ns/point")
		})
		first := ask()
		waitFor(b, "recordings", func() bool { return a.Stats().UpstreamRecording == 0 })
		b.Run(name+"/recalled", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				w := countingWriter{header: http.Header{}}
				if a.ServeHTTP(&w, httptest.NewRequest(http.MethodGet, target, nil)); w.n != len(text) {
					b.Fatal(w.n, len(text))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/points, "ns/point")
			size := 0
			for _, v := range m.values {
				size += len(v)
			}
			b.ReportMetric(float64(size)/points, "B/point")
		})
		if got := ask(); !bytes.Equal(got.Body.Bytes(), first.Body.Bytes()) || a.Stats().UpstreamAnswered != 1 {
			b.Fatal("the second answer is another one, or was asked for")
		}
	}
}

// countingWriter counts what is written to it, and keeps nothing: to keep an answer of
// megabytes takes as long as to write it.
type countingWriter struct {
	header http.Header
	n      int
}

func (w *countingWriter) Header() http.Header { return w.header }
func (w *countingWriter) WriteHeader(int)     {}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.n += len(b)
	return len(b), nil
}
