package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// TestSlowLog has a clock on which every look takes 100 ms, and reads what is
// told of queries that took longer than they may.
func TestSlowLog(t *testing.T) {
	var out bytes.Buffer
	var ms atomic.Int64
	o := testOptions()
	o.Now = func() time.Time { return time.UnixMilli(t0 + ms.Add(100)) }
	o.Logger = slog.New(slog.NewJSONHandler(&out, nil))
	o.SlowerThan = 250 * time.Millisecond
	o.TenancyHeader = "X-Scope-OrgID"
	a := smallAPI(t, o)
	line := func() map[string]any {
		t.Helper()
		var v map[string]any
		if err := json.Unmarshal(out.Bytes(), &v); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
		out.Reset()
		return v
	}
	want := func(v map[string]any, pairs ...any) {
		t.Helper()
		for i := 0; i < len(pairs); i += 2 {
			if fmt.Sprint(v[pairs[i].(string)]) != fmt.Sprint(pairs[i+1]) {
				t.Errorf("%v is %v, want %v", pairs[i], v[pairs[i].(string)], pairs[i+1])
			}
		}
	}
	// Of four looks at the clock the first and the last are 300 ms apart.
	r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+form([]string{"query", "rate(requests_total[5m])",
		"start", seconds(t0), "end", seconds(t0 + 600_000), "step", "60"}), nil)
	r.Header.Set("X-Scope-OrgID", "default")
	r.Header.Set("Authorization", "Basic c2VjcmV0")
	if w := send(t, a, r); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	if strings.Contains(out.String(), "c2VjcmV0") {
		t.Error("a secret is in the log")
	}
	v := line()
	want(v, "level", "WARN", "msg", "Slow query.", "kind", "range", "expr", "rate(requests_total[5m])", "start", time.UnixMilli(t0).UTC().Format(time.RFC3339Nano),
		"range", float64(10*time.Minute), "step", float64(time.Minute), "took", float64(300*time.Millisecond), "waited", float64(100*time.Millisecond), "series", 2, "bucket", "default", "err", nil)
	if n, _ := v["samples"].(float64); n < 20 {
		t.Errorf("%v samples", v["samples"])
	}

	long := "sum(" + strings.Repeat("é", 3000) + ")"
	get(t, a, "query", "query", `label_replace(gone, "a", "`+strings.Repeat("é", 3000)+`", "", "")`)
	v = line()
	want(v, "kind", "instant", "step", nil, "range", nil)
	if s := v["expr"].(string); len(s) > maxSlowExprBytes+40 || !strings.HasSuffix(s, " bytes more)") || strings.Contains(s, "\ufffd") {
		t.Errorf("of %d bytes %d are logged: %s", len(long), len(s), s)
	}

	get(t, a, "query", "query", `requests_total + on (nothing) requests_total`)
	if v := line(); !strings.Contains(fmt.Sprint(v["err"]), "found duplicate series") {
		t.Errorf("%v", v)
	}

	request := &prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: t0, EndTimestampMs: t0 + 5000,
		Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "gone"}, {Type: prompb.LabelMatcher_NRE, Name: "x", Value: `a"`}}}}}
	readRequest(t, a, request)
	if out.Len() > 0 {
		t.Errorf("a remote read of 200 ms is told of: %s", &out)
	}
	a.SetLimits(Options{SlowerThan: 200 * time.Millisecond})
	readRequest(t, a, request)
	want(line(), "kind", "read", "expr", `{__name__="gone",x!~"a\""}`, "range", float64(5*time.Second), "series", 1, "samples", 1)

	// No more than ten a second; the others are counted, and told of later.
	a.o.Now = func() time.Time { return time.UnixMilli(t0 + 10_000 + ms.Load()%2*900) }
	a.SetLimits(Options{SlowerThan: 0})
	get(t, a, "query", "query", "up")
	if out.Len() > 0 {
		t.Errorf("the log is off: %s", &out)
	}
	counted := a.Stats().Slow
	for range 30 {
		a.tell(r, slow{kind: "instant", arrived: time.UnixMilli(t0), start: time.UnixMilli(t0)})
	}
	if a.Stats().Slow != counted {
		t.Error("the log is off, and counts")
	}
	a.SetLimits(Options{SlowerThan: time.Second})
	for range 30 {
		a.tell(r, slow{kind: "instant", arrived: time.UnixMilli(t0), start: time.UnixMilli(t0)})
	}
	if n := strings.Count(out.String(), "\n"); n != maxSlowLines || a.Stats().Slow != counted+30 {
		t.Errorf("%d lines, %d counted", n, a.Stats().Slow-counted)
	}
	out.Reset()
	a.o.Now = func() time.Time { return time.UnixMilli(t0 + 20_000) }
	a.tell(r, slow{kind: "instant", arrived: time.UnixMilli(t0), start: time.UnixMilli(t0)})
	want(line(), "unlogged", 20)
}
