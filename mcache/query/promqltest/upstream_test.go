package promqltest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/mcache/query"
)

// TestUpstreamIsPrometheus puts ours, with the second half of the data, before
// Prometheus' own server with all of it: answers are that server's, whichever
// of the two they come from.
func TestUpstreamIsPrometheus(t *testing.T) {
	theirs := teststorage.New(t)
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	now := dataStart + dataSteps/2*dataStep
	half := now
	cache, err := mcache.New(mcache.Options{Memory: memory, Shards: 1, Now: func() int64 { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close(); memory.Close() })
	ours := &cacheStorage{cache: cache}
	a, b := theirs.AppenderV2(t.Context()), ours.AppenderV2(t.Context())
	writeData(t, func(ls labels.Labels, ts int64, v float64) {
		if _, err := a.Append(0, ls, 0, ts, v, nil, nil, storage.AppendV2Options{}); err != nil {
			t.Fatal(err)
		}
		if ts >= half {
			if _, err := b.Append(0, ls, 0, ts, v, nil, nil, storage.AppendV2Options{}); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	now = dataEnd
	u, err := url.Parse(startPrometheus(t, theirs))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]int{}
	api := query.NewAPI(cache, query.Options{DefaultBucket: bucket, Now: func() time.Time { return time.UnixMilli(dataEnd) }, Upstream: &query.UpstreamOptions{URL: u}})
	p := pair{
		theirs: prometheusAPI(theirs, theirs, settings{}),
		ours: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			api.ServeHTTP(w, r)
			sources[w.(*httptest.ResponseRecorder).Header().Get("X-Mcached-Source")]++
		}),
	}
	for _, e := range []string{
		`up`, `sum by (job) (rate(http_requests_total[5m]))`, `temperature_celsius offset 10m`, `temperature_celsius @ start()`, `max_over_time(load_ratio[20m])`, `avg_over_time(sum(up)[10m:30s])`,
		`histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[5m])))`, `absent(nothing)`, `sum(up) + sum(nothing)`, `topk(2, temperature_celsius)`, `up[`, `mad_over_time(up[5m])`, `rate(http_requests_total[2m + 3m])`,
	} {
		for _, from := range []int64{dataStart, half - 1, half, half + 299_999, half + 300_000, half + 1_500_000, dataEnd - 60_000} {
			p.compare(t, "query_range", url.Values{"query": {e}, "start": {fmt.Sprintf("%d.%03d", from/1000, from%1000)}, "end": {fmt.Sprint(dataEnd / 1000)}, "step": {"61.5"}})
			p.compare(t, "query", url.Values{"query": {e}, "time": {fmt.Sprintf("%d.%03d", from/1000, from%1000)}})
		}
	}
	if sources["memory"] < 30 || sources["upstream"] < 60 {
		t.Errorf("answers by source: %v", sources)
	}
}
