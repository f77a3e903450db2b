package query

import (
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

// t0 is where the tests' time begins: a whole number of minutes.
const t0 = int64(1795208700000)

func newCache(t testing.TB) *mcache.Cache {
	t.Helper()
	return newCacheOf(t, mcache.Options{})
}

// newCacheOf has a memory of its own.
func newCacheOf(t testing.TB, o mcache.Options) *mcache.Cache {
	t.Helper()
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 256 << 20, ReserveBytes: 512 << 20})
	if err != nil {
		t.Fatal(err)
	}
	o.Memory = memory
	c, err := mcache.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		memory.Close()
	})
	return c
}

// fill appends one series, whose labels are pairs of names and values, with
// samples step ms apart from t0 on.
func fill(t testing.TB, c *mcache.Cache, bucket string, step int64, values []float64, pairs ...string) {
	t.Helper()
	samples := make([]mcache.Sample, 0, len(values))
	for i, v := range values {
		if math.Float64bits(v) == absent {
			continue
		}
		samples = append(samples, mcache.Sample{T: t0 + int64(i)*step, V: math.Float64bits(v)})
	}
	if err := c.AppendSamples(bucket, pairsToLabels(pairs), samples...); err != nil {
		t.Fatal(err)
	}
}

// absent marks a value of fill that is left out.
const absent = 0x7ff8dead00000000

func pairsToLabels(pairs []string) []mcache.Label {
	var ls []mcache.Label
	for i := 0; i < len(pairs); i += 2 {
		ls = append(ls, mcache.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return ls
}

// ramp is n values from first on, by steps of by.
func ramp(n int, first, by float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = first + float64(i)*by
	}
	return out
}

// testOptions has a clock that stands ten minutes after t0.
func testOptions() Options {
	return Options{Now: func() time.Time { return time.UnixMilli(t0 + 600_000) }, Timeout: patience}
}

// patience is how long queries and stores may take where a test is not about that:
// machines that run tests are slow or busy.
const patience = 10 * time.Minute

// patiently gives a store that time, unless the test gives it another one.
func patiently(o UpstreamOptions) *UpstreamOptions {
	setDefault(&o.Timeout, patience)
	return &o
}

// waitFor looks again and again until ok, for minutes.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

// seconds is a time in the form clients send.
func seconds(ms int64) string { return fmt.Sprintf("%d.%03d", ms/1000, ms%1000) }

// get sends a GET, path with its parameters in pairs.
func get(t testing.TB, h http.Handler, path string, pairs ...string) *httptest.ResponseRecorder {
	t.Helper()
	return send(t, h, httptest.NewRequest(http.MethodGet, "/api/v1/"+path+"?"+form(pairs), nil))
}

// post sends the same as a form.
func post(t testing.TB, h http.Handler, path string, pairs ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/api/v1/"+path, strings.NewReader(form(pairs)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return send(t, h, r)
}

func form(pairs []string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

func send(t testing.TB, h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// wantBody checks status and body.
func wantBody(t testing.TB, w *httptest.ResponseRecorder, status int, body string) {
	t.Helper()
	if w.Code != status || w.Body.String() != body {
		t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, status, body)
	}
}

// success is a whole answer around its data.
func success(data string) string { return `{"status":"success","data":` + data + `}` }

func failure(kind, text string) string {
	return `{"status":"error","errorType":"` + kind + `","error":"` + text + `"}`
}
