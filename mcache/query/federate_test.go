package query

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestFederate: what Prometheus' handler has no test for (see promqltest for
// the rest): compression, tenants, bounds, and nobody who has the time.
func TestFederate(t *testing.T) {
	o := testOptions()
	o.TenancyHeader, o.MaxSeries, o.MaxConcurrency, o.MaxWaiting = "X-Scope-OrgID", 2, 1, 1
	a := smallAPI(t, o)
	ask := func(query string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/federate?"+query, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return send(t, a, r)
	}
	plain := ask("match[]=requests_total")
	if plain.Code != 200 || !strings.HasPrefix(plain.Body.String(), "# TYPE requests_total untyped\nrequests_total{") || plain.Header().Get("Content-Length") != "" {
		t.Errorf("%d %v %s", plain.Code, plain.Header(), plain.Body)
	}
	zipped := ask("match[]=requests_total", "Accept-Encoding", "gzip")
	zr, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(zr); err != nil || string(text) != plain.Body.String() {
		t.Errorf("gzip: %v, %s", err, text)
	}
	if w := ask("match[]=requests_total", "X-Scope-OrgID", "nobody"); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("another tenant: %d %s", w.Code, w.Body)
	}
	if w := ask(`match[]={job=~".%2B"}`); w.Code != 422 || w.Body.String() != "too many series selected: 3, at most 2 (MaxSeries): narrow the selector\n" {
		t.Errorf("too many: %d %s", w.Code, w.Body)
	}
	if w := ask("match[]={"); w.Code != 400 || !strings.Contains(w.Body.String(), "parse error") {
		t.Errorf("no selector: %d %s", w.Code, w.Body)
	}
	if err := a.lookups.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer a.lookups.leave()
	if w := ask("match[]=up&timeout=1ms"); w.Code != 503 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("no turn: %d %v %s", w.Code, w.Header(), w.Body)
	}
	o.Now = func() time.Time { return time.UnixMilli(t0 + 86_400_000) }
	if w := send(t, smallAPI(t, o), httptest.NewRequest(http.MethodGet, "/federate?match[]=requests_total", nil)); w.Body.Len() != 0 {
		t.Errorf("a day later: %s", w.Body)
	}
}
