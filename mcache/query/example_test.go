package query_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/mcache/query"
)

// An API is an http.Handler for everything below /api/v1/ that Prometheus
// answers and that reads.
func ExampleAPI() {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20})
	if err != nil {
		panic(err)
	}
	defer memory.Close()
	cache, err := mcache.New(mcache.Options{Memory: memory})
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for i := range 40 {
		err := cache.AppendSamples("default",
			[]mcache.Label{{Name: "__name__", Value: "requests_total"}, {Name: "job", Value: "api"}},
			mcache.Sample{T: start.UnixMilli() + int64(i)*15_000, V: math.Float64bits(float64(30 * i))})
		if err != nil {
			panic(err)
		}
	}

	api := query.NewAPI(cache, query.Options{})
	params := url.Values{"query": {"sum by (job) (requests_total)"}, "time": {start.Add(9 * time.Minute).Format(time.RFC3339)}}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/query?"+params.Encode(), nil))
	fmt.Println(w.Code, w.Body)
	fmt.Println(api.Stats().InstantQueries, "query")

	// Output:
	// 200 {"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"api"},"value":[1795176540,"1080"]}]}}
	// 1 query
}
