package query

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mcached/mcache"
)

// documented are servers that speak as the documents of Mimir and Thanos have it,
// before a store that answers.
var documented = map[string]struct {
	prefix string
	pages  map[string]string // below status/
	// refuses says by which status a request is refused, 0 if it is not.
	refuses func(r *http.Request) int
	want    string // Dialect
}{
	// Everything but its build information is for a tenant; it has no pages of its
	// flags and configuration below the prefix; series are asked by GET or POST,
	// values and metadata by GET.
	"Mimir": {"/prometheus", map[string]string{"buildinfo": `{"application":"Grafana Mimir","version":"2.17.1","revision":"x","branch":"HEAD","goVersion":"go1.25","features":{"ruler_config_api":"true","query_sharding":"true"}}`},
		func(r *http.Request) int {
			get := strings.HasSuffix(r.URL.Path, "/values") || strings.HasSuffix(r.URL.Path, "/metadata")
			switch {
			case r.Header.Get("X-Scope-OrgID") == "":
				return http.StatusUnauthorized
			case get && r.Method != http.MethodGet:
				return http.StatusMethodNotAllowed
			}
			return 0
		}, "mimir 2.17.1 all"},
	// One behind a gateway that does not let strangers see its flags.
	"Mimir behind a gateway": {"/prometheus", map[string]string{"buildinfo": `{"application":"Grafana Mimir","version":"3.0.0"}`, "flags": "403", "config": "401"},
		func(*http.Request) int { return 0 }, "mimir 3.0.0 all"},
	// What is downsampled answers otherwise, unless it is told not to; there is no
	// remote read.
	"Thanos": {"", map[string]string{"buildinfo": `{"version":"0.40.1","revision":"x","branch":"HEAD","goVersion":"go1.25"}`,
		"flags": `{"query.auto-downsampling":"true","query.lookback-delta":"5m","query.default-evaluation-interval":"1m","query.replica-label":"[replica]"}`},
		func(r *http.Request) int {
			switch {
			case strings.HasSuffix(r.URL.Path, "/read"):
				return http.StatusNotFound
			case strings.HasSuffix(r.URL.Path, "/query_range") && r.FormValue("max_source_resolution") != "0":
				return http.StatusTeapot
			}
			return 0
		}, "thanos 0.40.1 all"},
}

// TestUpstreamAsDocumented splits with servers that speak as documented, and has
// the answers of the store that is behind them.
func TestUpstreamAsDocumented(t *testing.T) {
	for name, c := range documented {
		t.Run(name, func(t *testing.T) {
			all := newCache(t)
			values := ramp(81, 0, 1.5)
			samples := make([]mcache.Sample, len(values))
			for i, v := range values {
				samples[i] = mcache.Sample{T: t0 - 600_000 + int64(i)*15_000, V: math.Float64bits(v)}
			}
			if err := all.AppendSamples("team", pairsToLabels([]string{"__name__", "m"}), samples...); err != nil {
				t.Fatal(err)
			}
			options := testOptions()
			options.TenancyHeader, options.DefaultBucket = "X-Scope-OrgID", "team"
			store := NewAPI(all, options)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				path, ok := strings.CutPrefix(r.URL.Path, c.prefix+"/api/v1/")
				page, status := strings.CutPrefix(path, "status/")
				switch data := c.pages[page]; {
				case !ok, status && data == "":
					http.NotFound(w, r)
				case status && len(data) == 3:
					http.Error(w, "no", map[string]int{"401": 401, "403": 403}[data])
				case status:
					answerJSON(200, success(data))(w, r)
				default:
					if code := c.refuses(r); code != 0 {
						http.Error(w, "no org id", code)
						return
					}
					r.Header.Del(hopHeader) // they know nothing of it
					r.URL.Path = "/api/v1/" + path
					store.ServeHTTP(w, r)
				}
			}))
			defer server.Close()
			u, err := url.Parse(server.URL + c.prefix)
			if err != nil {
				t.Fatal(err)
			}
			options.Upstream = patiently(UpstreamOptions{URL: u, TenancyHeader: "X-Scope-OrgID"})
			var logged bytes.Buffer
			var looks atomic.Int64
			options.Logger, options.SlowerThan = slog.New(slog.NewTextHandler(&logged, nil)), time.Nanosecond
			options.Now = func() time.Time { return time.UnixMilli(t0 + 600_000).Add(time.Duration(looks.Add(1))) }
			a := NewAPI(lateBucket(t, "team", values[40:]), options)
			if d := a.Upstream(t.Context()); fmt.Sprint(d.Kind, " ", d.Version, " ", d.Splits) != c.want {
				t.Fatalf("%+v, want %s", d, c.want)
			}
			ask := func(h http.Handler, path string, pairs ...string) *httptest.ResponseRecorder {
				r := httptest.NewRequest(http.MethodGet, "/api/v1/"+path+"?"+form(pairs), nil)
				r.Header.Set("X-Scope-OrgID", "team")
				return send(t, h, r)
			}
			for _, q := range [][]string{
				{"query_range", "query", "sum(rate(m[1m]))", "start", seconds(t0 - 300_000), "end", seconds(t0 + 600_000), "step", "15"},
				{"query_range", "query", "max_over_time(m[1m:15s])", "start", seconds(t0 - 300_000), "end", seconds(t0 + 600_000), "step", "7"},
				{"query", "query", "m[20m]", "time", seconds(t0 + 600_000)},
				{"label/__name__/values", "start", seconds(t0 - 600_000)},
				{"series", "match[]", "m", "start", seconds(t0 - 600_000)},
				{"metadata"},
			} {
				got, want := ask(a, q[0], q[1:]...), ask(store, q[0], q[1:]...)
				if got.Code != 200 || got.Body.String() != want.Body.String() {
					t.Errorf("%v: %d %s\nwant %s", q, got.Code, got.Body, want.Body)
				}
				if source := got.Header().Get(sourceHeader); source == sourceMemory || q[0] == "query_range" && source != sourceBoth {
					t.Errorf("%v is from %s", q, source)
				}
			}
			// The log has both parts of what was slow: of a query that was split, and of one that was not.
			split := regexp.MustCompile(`kind=range expr="?sum\(rate\(m\[1m\]\)\)"? .* memory=[1-9]\S* upstream=[1-9]`)
			whole := regexp.MustCompile(`kind=instant expr="?m\[20m\]"? .* memory=0s upstream=[1-9]`)
			if text := logged.String(); !split.MatchString(text) || !whole.MatchString(text) {
				t.Errorf("the log: %s", text)
			}
			// Whom the store does not know has what memory has, and a word why that is all.
			if name == "Mimir" {
				w := get(t, a, "query", "query", "count_over_time(m[20m])")
				if body := w.Body.String(); w.Code != 200 || !strings.Contains(body, `"41"`) || !strings.Contains(body, "it answers with status 401") {
					t.Errorf("nobody's query: %d %s", w.Code, body)
				}
			}
			r := httptest.NewRequest(http.MethodPost, "/api/v1/read", strings.NewReader(string(snappyOf(t, readOf(t0-600_000, "m")))))
			r.Header.Set("X-Scope-OrgID", "team")
			if w := send(t, a, r); w.Header().Get(sourceHeader) == sourceMemory || len(decodeSamples(t, w)[0][0].samples) != 81 {
				t.Errorf("a remote read: %v %v", w.Header(), decodeSamples(t, w))
			}
		})
	}
}

// TestUpstreamCertificate: a store whose certificate is wrong is none, and memory
// answers with a word why.
func TestUpstreamCertificate(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	options := testOptions()
	options.Upstream = patiently(UpstreamOptions{URL: u})
	a := NewAPI(lateCache(t), options)
	if d := a.Upstream(t.Context()); d.Kind != kindUnknown || !strings.Contains(d.Why, "certificate") {
		t.Errorf("%+v", d)
	}
	w := get(t, a, "query", "query", "count_over_time(m[1h])")
	if body := w.Body.String(); w.Code != 200 || !strings.Contains(body, `"41"`) || !strings.Contains(body, "certificate") || strings.Count(body, "the store behind did not answer") != 1 {
		t.Errorf("%d %s", w.Code, body)
	}
}
