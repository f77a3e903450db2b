package query

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
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
	for name, value := range map[string]func(series, step int) float64{
		"short": func(i, s int) float64 { return float64(1_000_000*i) + float64(s*(i+3))/8 },
		"long":  func(i, s int) float64 { return float64(s*i%1009+1) / 300 },
	} {
		text := []byte(`{"status":"success","data":{"resultType":"matrix","result":[`)
		for i := range 100 {
			if i > 0 {
				text = append(text, ',')
			}
			text = fmt.Appendf(text, `{"metric":{"__name__":"m","i":"%d"},"values":[`, i)
			for s := range g.n {
				if s > 0 {
					text = append(text, ',')
				}
				text = append(appendTime(append(text, '['), g.time(s)), `,"`...)
				text = append(appendFloat(text, value(i, s)), `"]`...)
			}
			text = append(text, "]}"...)
		}
		text = append(text, "]}}"...)
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
