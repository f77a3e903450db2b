package query

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"mcached/kvcache"
	"mcached/mcache"
)

// TestMissing takes memory away from under the oldest samples. All ways of
// reading must tell, and only where something that was asked for is missing.
func TestMissing(t *testing.T) {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20, RegionBytes: 64 << 10, ReserveBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	c, err := mcache.New(mcache.Options{Memory: memory, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const series, points, step = 20, 5000, 15_000
	rnd := rand.New(rand.NewPCG(1, 2))
	for from := 0; from < points; from += 500 {
		for i := range series {
			samples := make([]mcache.Sample, 500)
			for j := range samples {
				samples[j] = mcache.Sample{T: t0 + int64(from+j)*step, V: rnd.Uint64() >> 2}
			}
			if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "m", "i", fmt.Sprint(i)}), samples...); err != nil {
				t.Fatal(err)
			}
		}
	}
	const end = t0 + (points-1)*step
	o := testOptions()
	o.Now = func() time.Time { return time.UnixMilli(end) }
	a := NewAPI(c, o)
	ask := func() *httptest.ResponseRecorder {
		return get(t, a, "query", "query", fmt.Sprintf("count_over_time(m[%dms])", points*step))
	}
	if w := ask(); strings.Contains(w.Body.String(), "warnings") || w.Header().Get(completeFromHeader) != "" {
		t.Fatalf("nothing is missing yet: %v %s", w.Header(), w.Body)
	}
	used := memory.Used()
	memory.SetBudget(used * 2 / 3)
	ids, err := c.Select("default", nil, nil)
	if err != nil || len(ids) != series {
		t.Fatalf("%d series are left: %v", len(ids), err)
	}
	latest := int64(0)
	for _, id := range ids {
		var s mcache.Snapshot
		if !c.Snapshot(id, t0, end, &s) {
			t.Fatal("a series has gone")
		}
		latest = max(latest, s.CompleteFrom())
	}
	if latest <= t0+step || latest >= end-1000*step {
		t.Fatalf("complete from %d, which is not between %d and %d: nothing is missing, or all", latest, t0, end)
	}
	text := time.UnixMilli(latest).UTC().Format(time.RFC3339Nano)
	warning := `"warnings":["samples before ` + text + ` may be missing: they were evicted, or the memory they were in was given back"]`
	for name, w := range map[string]*httptest.ResponseRecorder{
		"instant": ask(),
		"range":   get(t, a, "query_range", "query", "sum(m) / sum(m offset 1m)", "start", seconds(t0), "end", seconds(end), "step", "1000"),
		"series":  get(t, a, "series", "match[]", "m", "start", seconds(t0), "end", seconds(end)),
		"labels":  get(t, a, "labels", "start", seconds(t0), "end", seconds(t0+1000)),
		"values":  get(t, a, "label/i/values", "start", seconds(t0), "end", seconds(t0+1000)),
	} {
		if strings.Count(w.Body.String(), warning) != 1 || w.Header().Get(completeFromHeader) != text {
			t.Errorf("%s: no %s: %v %.300s", name, warning, w.Header(), w.Body)
		}
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"the newest":      get(t, a, "query", "query", "m"),
		"all that is":     get(t, a, "query", "query", fmt.Sprintf("count_over_time(m[%dms])", end-latest)),
		"no other metric": get(t, a, "query", "query", "n[1d]"),
	} {
		if strings.Contains(w.Body.String(), "warnings") || w.Header().Get(completeFromHeader) != "" {
			t.Errorf("%s: %v %.300s", name, w.Header(), w.Body)
		}
	}
	request := &prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: t0, EndTimestampMs: end, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "m"}}}}}
	if w := readRequest(t, a, request); w.Header().Get(completeFromHeader) != text {
		t.Errorf("samples: %v", w.Header())
	}
	request.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS}
	w := readRequest(t, a, request).Result()
	if w.Trailer.Get(completeFromHeader) != text || w.StatusCode != http.StatusOK {
		t.Errorf("stream: %v", w.Trailer)
	}
	if n := a.Stats().Incomplete; n != 7 {
		t.Errorf("%d incomplete answers counted, of 7", n)
	}
}

// TestMissingWhole evicts series that nothing is left of. What could have seen
// them says so, what could not does not, and one that begins anew does not hide it.
func TestMissingWhole(t *testing.T) {
	c := newCache(t)
	const old, end = t0 + 60_000, t0 + 3_600_000
	for i := range 50 {
		fill(t, c, "default", 1000, ramp(61, 0, 1), "__name__", "m", "i", fmt.Sprint(i))
	}
	c.Age("default")
	c.Age("default")
	for i := range 61 {
		if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "n"}), mcache.Sample{T: end - 60_000 + int64(i)*1000}); err != nil {
			t.Fatal(err)
		}
	}
	o := testOptions()
	o.Now = func() time.Time { return time.UnixMilli(end) }
	a := NewAPI(c, o)
	if w := get(t, a, "query", "query", "count_over_time(m[1h])"); strings.Contains(w.Body.String(), "warnings") {
		t.Fatalf("nothing is missing yet: %s", w.Body)
	}
	c.SetMaxBytes(c.Stats().AllocatedBytes / 2)
	if n := c.Stats().Evictions; n < 10 || n > 49 {
		t.Fatalf("%d of 50 series were evicted", n)
	}
	if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "m", "i", "0"}), mcache.Sample{T: end}); err != nil {
		t.Fatal(err)
	}
	text := time.UnixMilli(old + 1).UTC().Format(time.RFC3339Nano)
	warning := `"warnings":["samples before ` + text + ` may be missing: they were evicted, or the memory they were in was given back"]`
	for _, query := range []string{"count_over_time(m[1h])", `m{i="0"}[1h]`, "m offset 59m", `{__name__=~"m|x"}[1h]`, `{i!=""}[1h]`} {
		w := get(t, a, "query", "query", query)
		if strings.Count(w.Body.String(), warning) != 1 || w.Header().Get(completeFromHeader) != text {
			t.Errorf("%s: no %s: %v %.300s", query, warning, w.Header(), w.Body)
		}
	}
	if w := get(t, a, "query_range", "query", "sum(rate(m[5m]))", "start", seconds(old), "end", seconds(end), "step", "60"); w.Header().Get(completeFromHeader) != text {
		t.Errorf("a plan: %v %.300s", w.Header(), w.Body)
	}
	for _, query := range []string{"m", "count_over_time(m[58m])", "time()"} {
		if w := get(t, a, "query", "query", query); strings.Contains(w.Body.String(), "warnings") || w.Header().Get(completeFromHeader) != "" {
			t.Errorf("%s: %v %.300s", query, w.Header(), w.Body)
		}
	}
	for _, w := range []*httptest.ResponseRecorder{get(t, a, "series", "match[]", "m"), get(t, a, "labels"), get(t, a, "label/i/values", "match[]", "m")} {
		if strings.Contains(w.Body.String(), "warnings") {
			t.Errorf("of all times: %.300s", w.Body)
		}
	}
	if n := a.Stats().Incomplete; n != 6 {
		t.Errorf("%d incomplete answers counted, of 6", n)
	}
}

// TestTSDBStatus asks for what Prometheus does not tell.
func TestTSDBStatus(t *testing.T) {
	a := smallAPI(t, testOptions())
	if w := get(t, a, "status/tsdb", "limit", "1", "bytes", "true"); !strings.Contains(w.Body.String(), `"memoryInBytesByMetricName":[{"name":"requests_total","value":`) {
		t.Errorf("%s", w.Body)
	}
}

// TestUncovered: what came before the first write, or between a snapshot and
// the first write after a crash, is not known, and all ways of reading say so;
// once, and only where the time that was asked for has a part in it.
func TestUncovered(t *testing.T) {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20, RegionBytes: 64 << 10, ReserveBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() }) // after the caches in it
	now := int64(t0)
	open := func() *mcache.Cache {
		c, err := mcache.New(mcache.Options{Memory: memory, Shards: 1, Now: func() int64 { return now }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := open()
	write := func(until int64) {
		for ; now < until; now += 15_000 {
			for i := range 3 {
				ls := pairsToLabels([]string{"__name__", "m", "i", fmt.Sprint(i)})
				var b mcache.Batch
				b.Reset("default")
				b.Series(c.Fingerprint(ls))
				b.Sample(now, 1)
				_, err := c.Append(&b)
				if len(b.Missing()) > 0 {
					_, err = c.AppendNew(&b, 0, ls)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			c.Maintain()
		}
	}
	const hour = 3_600_000
	answers := uint64(0)
	check := func(a *API, from, want int64) {
		t.Helper()
		text, warning := "", "warnings"
		if want != 0 {
			text = time.UnixMilli(want).UTC().Format(time.RFC3339Nano)
			warning = `"warnings":["samples before ` + text + ` may be missing: until then this server was down, or had not been written to"]`
		}
		ms := now - from
		for name, w := range map[string]*httptest.ResponseRecorder{
			"instant": get(t, a, "query", "query", fmt.Sprintf("sum(count_over_time(m[%dms])) + sum(count_over_time(m[%dms]))", ms, ms)),
			"range":   get(t, a, "query_range", "query", "sum(m) / count(m)", "start", seconds(from+1), "end", seconds(now), "step", "1000"),
			"plan":    get(t, a, "query_range", "query", "sum(rate(m[1m]))", "start", seconds(from+60_000), "end", seconds(now), "step", "60"),
			"series":  get(t, a, "series", "match[]", "m", "start", seconds(from+1), "end", seconds(now)),
			"labels":  get(t, a, "labels", "start", seconds(from+1), "end", seconds(now)),
			"values":  get(t, a, "label/i/values", "match[]", "m", "start", seconds(from+1), "end", seconds(now)),
			"none":    get(t, a, "query", "query", fmt.Sprintf("count_over_time(nothing[%dms])", ms)),
		} {
			if name == "range" && from+1 < want && from+1+5*60_000 >= want {
				continue // by its lookback
			}
			n := 0
			if want != 0 {
				n = 1
				answers++
			}
			if strings.Count(w.Body.String(), warning) != n || w.Header().Get(completeFromHeader) != text {
				t.Errorf("%s: no %s: %v %.300s", name, warning, w.Header(), w.Body)
			}
		}
		request := &prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: from, EndTimestampMs: now, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "m"}}}}}
		if w := readRequest(t, a, request); w.Header().Get(completeFromHeader) != text {
			t.Errorf("remote read: %v", w.Header())
		}
		if want != 0 {
			answers++
		}
		if st := a.Stats(); st.Uncovered != answers || st.Incomplete != 0 {
			t.Errorf("%d answers counted of %d, %d as incomplete", st.Uncovered, answers, st.Incomplete)
		}
	}
	api := func() *API {
		answers = 0
		o := testOptions()
		o.Now = func() time.Time { return time.UnixMilli(now) }
		return NewAPI(c, o)
	}
	a := api()
	now += hour
	begin := now
	write(now + hour)
	check(a, begin-hour/2, begin)
	check(a, begin+10*60_000, 0)
	// Who names no times asks for what there is since the first write.
	lookups := func(want int64) {
		t.Helper()
		text := ""
		if want != 0 {
			text = time.UnixMilli(want).UTC().Format(time.RFC3339Nano)
		}
		for name, w := range map[string]*httptest.ResponseRecorder{
			"series":            get(t, a, "series", "match[]", "m"),
			"series of several": get(t, a, "series", "match[]", "m", "match[]", "n"),
			"labels":            get(t, a, "labels"),
			"labels of some":    get(t, a, "labels", "match[]", "m", "limit", "1"),
			"values":            get(t, a, "label/i/values"),
			"values of some":    get(t, a, "label/i/values", "match[]", "m", "match[]", "n"),
		} {
			if got := w.Header().Get(completeFromHeader); got != text || strings.Contains(w.Body.String(), "may be missing: until then") != (want != 0) {
				t.Errorf("%s without times: complete from %q, want %q: %.300s", name, got, text, w.Body)
			}
			if want != 0 {
				answers++
			}
		}
	}
	lookups(0)
	if w := get(t, a, "query", "query", "time()"); strings.Contains(w.Body.String(), "warnings") {
		t.Errorf("of no time: %.300s", w.Body)
	}

	var file bytes.Buffer
	if _, err := c.Save(&file, now, nil); err != nil {
		t.Fatal(err)
	}
	saved := now
	write(now + hour/2) // all of it is lost
	c = open()
	if _, err := c.Load(&file, mcache.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	a = api()
	check(a, saved-10*60_000, now) // nothing has come since
	lookups(now)
	crashed := now
	now += 20_000
	first := now
	write(now + hour)
	check(a, crashed-10*60_000, first)
	check(a, begin+20*60_000, first)
	check(a, first+10*60_000, 0)
	lookups(first)
	now = saved - 5*60_000 // of what was before the snapshot nothing is missing
	check(a, begin+10*60_000, 0)
}
