package query

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"mcached/mcache"
)

func TestGzip(t *testing.T) {
	c := newCache(t)
	for i := range 200 {
		fill(t, c, "default", 15_000, ramp(241, float64(i), 0.25), "__name__", "m", "i", fmt.Sprint(i))
	}
	a := NewAPI(c, testOptions())
	ask := func(query, accept string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+form([]string{
			"query", query, "start", seconds(t0), "end", seconds(t0 + 3_600_000), "step", "15"}), nil)
		r.Header.Set("Accept-Encoding", accept)
		return send(t, a, r)
	}
	plain := ask("m", "")
	if plain.Header().Get("Content-Encoding") != "" || plain.Body.Len() < 4*flushBytes {
		t.Fatalf("plain: %v, %d bytes", plain.Header(), plain.Body.Len())
	}
	for _, accept := range []string{"gzip", "deflate, gzip;q=0.5", "br,gzip"} {
		for range 2 { // the second uses the writer of the first again
			w := ask("m", accept)
			zr, err := gzip.NewReader(w.Body)
			if err != nil || w.Header().Get("Content-Encoding") != "gzip" {
				t.Fatalf("%s: %v, %v", accept, err, w.Header())
			}
			text, err := io.ReadAll(zr)
			if err != nil || string(text) != plain.Body.String() {
				t.Errorf("%s: %v, %d bytes where plain has %d", accept, err, len(text), plain.Body.Len())
			}
		}
	}
	for _, accept := range []string{"gzip;q=0", "x-gzip", "identity"} {
		if w := ask("m", accept); w.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s: %v", accept, w.Header())
		}
	}
	if w := ask("vector(1) < 0", "gzip"); w.Header().Get("Content-Encoding") != "" || w.Header().Get("Content-Length") != fmt.Sprint(w.Body.Len()) {
		t.Errorf("small: %v", w.Header())
	}
}

// TestGzipLeavesTheMachine: who is on this machine gets answers as they are,
// unless a proxy stands between.
func TestGzipLeavesTheMachine(t *testing.T) {
	c := newCache(t)
	fill(t, c, "default", 15_000, ramp(2000, 0.5, 0.25), "__name__", "m")
	own := netip.MustParseAddrPort("192.0.2.7:9201")
	for _, x := range []struct {
		name, from, proto, header string
		always, want              bool
	}{
		{"another machine", "192.0.2.8:1000", "", "", false, true},
		{"loopback", "127.0.0.1:1000", "", "", false, false},
		{"all of loopback", "127.9.9.9:1000", "", "", false, false},
		{"IPv6", "[::1]:1000", "", "", false, false},
		{"IPv4 in IPv6", "[::ffff:127.0.0.1]:1000", "", "", false, false},
		{"this machine's own address", "192.0.2.7:1000", "", "", false, false},
		{"an option", "127.0.0.1:1000", "", "", true, true},
		{"nginx", "127.0.0.1:1000", "HTTP/1.0", "", false, true},
		{"a proxy that says so", "127.0.0.1:1000", "", "X-Forwarded-For", false, true},
		{"another", "127.0.0.1:1000", "", "Forwarded", false, true},
		{"one more", "127.0.0.1:1000", "", "Via", false, true},
		{"nobody knows", "@", "", "", false, true},
	} {
		o := testOptions()
		o.GzipLocal = x.always
		a := NewAPI(c, o)
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query?"+form([]string{"query", "m[5d]", "time", seconds(t0 + 40_000_000)}), nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.TCPAddrFromAddrPort(own)))
		r.Header.Set("Accept-Encoding", "gzip")
		r.RemoteAddr = x.from
		if x.proto != "" {
			r.Proto, r.ProtoMinor = x.proto, 0
		}
		if x.header != "" {
			r.Header.Set(x.header, "for=192.0.2.8")
		}
		w := send(t, a, r)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != x.want {
			t.Errorf("%s: compressed: %t, want %t", x.name, got, x.want)
		}
		if v := w.Header().Get("Vary"); v != "Accept-Encoding" {
			t.Errorf("%s: Vary: %q", x.name, v)
		}
	}
}

func TestCORS(t *testing.T) {
	o := testOptions()
	ask := func(a *API, method, origin string) http.Header {
		r := httptest.NewRequest(method, "/api/v1/query?query=1", nil)
		r.Header.Set("Origin", origin)
		return send(t, a, r).Result().Header
	}
	if h := ask(smallAPI(t, o), http.MethodGet, "http://a.example"); h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without the option: %v", h)
	}
	o.CORSOrigin = regexp.MustCompile(`https?://a\.example`)
	a := smallAPI(t, o)
	for _, method := range []string{http.MethodGet, http.MethodOptions} {
		if h := ask(a, method, "http://a.example"); h.Get("Access-Control-Allow-Origin") != "http://a.example" || h.Get("Vary") != "Origin" {
			t.Errorf("%s: %v", method, h)
		}
		if h := ask(a, method, "http://a.example.evil"); h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: an origin that only begins right: %v", method, h)
		}
	}
}

func TestBounds(t *testing.T) {
	o := testOptions()
	o.MaxSeries, o.MaxSamples, o.MaxQueryBytes, o.MaxResponseBytes = 2, 100, 2000, 1000
	o.MaxQueryFlag = "--the-flag"
	a := smallAPI(t, o)
	long := strings.Repeat("x", 2001)
	unknownLength := httptest.NewRequest(http.MethodPost, "/api/v1/query", io.MultiReader(strings.NewReader("query="+long)))
	unknownLength.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range []struct {
		name   string
		w      *httptest.ResponseRecorder
		status int
		body   string
	}{
		{"series", get(t, a, "query", "query", `{job=~".+"}`), 422, failure("execution", "expanding series: too many series selected: 3, at most 2 (MaxSeries): narrow the selector")},
		{"series of a lookup", get(t, a, "series", "match[]", `{job=~".+"}`), 422, failure("execution", "too many series selected: 3, at most 2 (MaxSeries): narrow the selector")},
		{"samples", get(t, a, "query", "query", `sum_over_time(requests_total[1h:1s])`), 422, failure("execution", "query processing would load too many samples into memory in query execution")},
		{"body", post(t, a, "query", "query", long), 400, failure("bad_data", "parameters in the body are too large: at most 2000 bytes (--the-flag), came 2007 bytes")},
		{"body of unknown length", send(t, a, unknownLength), 400, failure("bad_data", "parameters in the body are too large: at most 2000 bytes (--the-flag), came more")},
		{"URL", get(t, a, "query", "query", long), 400, failure("bad_data", "parameters in the URL are too large: 2007 bytes, at most 2000; send them in the body of a POST")},
		{"answer", get(t, a, "query", "query", `requests_total[9m]`), 422, failure("execution", "the answer is too large: more than 1000 bytes")},
	} {
		t.Run(c.name, func(t *testing.T) { wantBody(t, c.w, c.status, c.body) })
	}
	if w := get(t, a, "query", "query", `requests_total[3m]`); w.Code != 200 {
		t.Errorf("an answer that may be too large but is not: %d %s", w.Code, w.Body)
	}
	if n := a.Stats().Errors; n != 7 {
		t.Errorf("%d errors counted, of 7", n)
	}
}

// TestAllPods asks as Grafana does for "All" of many pods: one expression that
// lists them.
func TestAllPods(t *testing.T) {
	a := smallAPI(t, testOptions())
	var list strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&list, "service-deployment-%08x-%05d|", i*2654435761, i)
	}
	w := post(t, a, "query", "query", `count({job=~"`+list.String()+`api"})`)
	if w.Code != 200 || list.Len() < 3<<20 {
		t.Errorf("%d bytes: %d %.300s", list.Len(), w.Code, w.Body)
	}
	if w := post(t, a, "query", "query", `count({job=~"`+list.String()+list.String()+list.String()+`api"})`); w.Code != 400 || !strings.Contains(w.Body.String(), "at most 8388608 bytes (MaxQueryBytes)") {
		t.Errorf("beyond 8 MiB: %d %.300s", w.Code, w.Body)
	}
}

// TestPatternBytes: what must be compiled is bounded, however it is quoted and
// divided; lists of values are not.
func TestPatternBytes(t *testing.T) {
	p := newBoundedParser(parser.Options{})
	list := "." + strings.Repeat("a", maxPatternBytes/2)
	long, plain := list+"|"+list, strings.Repeat("a|b|", maxPatternBytes/4)+"c"
	for input, want := range map[string]string{
		`{a=~"` + long + `"}`:                         "regular expressions are too long",
		"{a=~`" + long + "`}":                         "regular expressions are too long",
		`{a=~"` + list + `"} + {a=~'` + list + `d|'}`: "regular expressions are too long",
		`{a=~"` + long + `\"`:                         "regular expressions are too long",
		`{a=~"` + plain + `"}`:                        "",
		`{a=~"` + list + `"}`:                         "",
	} {
		_, err := p.ParseExpr(input)
		if got := fmt.Sprint(err); err == nil && want != "" || err != nil && (want == "" || !strings.HasPrefix(got, want)) {
			t.Errorf("%.40s: %.200v, want %q", input, err, want)
		}
	}
	if _, err := p.ParseMetricSelectors([]string{`{a=~"` + list + `"}`, `{b=~"` + list + `b"}`}); err == nil {
		t.Error("two selectors of a request were measured each by itself")
	}
}

// TestHardQueries asks what has no easy answer. All that matters is that there
// is one, and soon.
func TestHardQueries(t *testing.T) {
	o := testOptions()
	o.Timeout = time.Minute // on however slow a machine
	a := smallAPI(t, o)
	type hard struct{ name, query string }
	queries := []hard{
		{"alternatives", `{__name__=~"` + strings.Repeat("a|", 100_000) + `b"}`},
		{"a million alternatives", `{__name__=~"` + strings.Repeat("a.|", 1_000_000) + `b"}`},
		{"sets", `{__name__=~"` + strings.Repeat("[ab]c|", 20_000) + `b"}`},
		{"repetition", `{__name__=~"(((a{30}){30}){30}){30}"}`},
		{"nested stars", `{__name__=~"(.*)*(.*)*(.*)*x"}`},
		{"invalid UTF-8", "{a=\"\xff\"}"},
		{"huge range", "rate(requests_total[290y])"},
		{"huge offset", "requests_total offset 290y"},
		{"end of time", "requests_total @ 9223372036854775"},
		{"name of the cache's own", "{\"\xff\"=\"x\"}"},
		{"zero byte", "{a=\"\x00\"}"},
	}
	for _, n := range []int{240, 3000, 20_000} { // fine, too deep, and too long
		times := fmt.Sprintf(" × %d", n)
		queries = append(queries,
			hard{"parentheses" + times, strings.Repeat("(", n) + "1" + strings.Repeat(")", n)},
			hard{"open parentheses" + times, strings.Repeat("(", n)},
			hard{"signs" + times, strings.Repeat("-", n) + "1"},
			hard{"sum" + times, "requests_total" + strings.Repeat("+1", n)},
			hard{"calls" + times, strings.Repeat("abs(", n) + "requests_total" + strings.Repeat(")", n)},
			hard{"subqueries" + times, strings.Repeat("last_over_time(", n) + "requests_total" + strings.Repeat("[1s:1s])", n)},
		)
	}
	for _, c := range queries {
		t.Run(c.name, func(t *testing.T) {
			for _, w := range []*httptest.ResponseRecorder{
				post(t, a, "query", "query", c.query),
				post(t, a, "query_range", "query", c.query, "start", "0", "end", "9e15", "step", "9e11"),
				post(t, a, "parse_query", "query", c.query),
				post(t, a, "format_query", "query", c.query),
			} {
				if w.Code == 500 || w.Code == 503 {
					t.Errorf("%d %.300s", w.Code, w.Body)
				}
			}
		})
	}
}

func TestGate(t *testing.T) {
	g := newGate(2, 3)
	ctx, cancel := context.WithCancel(context.Background())
	for range 2 {
		if err := g.enter(ctx); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error)
	for range 3 {
		go func() { ended <- g.enter(ctx) }()
	}
	waitFor(t, "three to wait", func() bool { return g.waiting.Load() == 3 })
	if err := g.enter(ctx); !errors.Is(err, errGateFull) {
		t.Errorf("the sixth: %v", err)
	}
	g.leave()
	if err := <-ended; err != nil {
		t.Errorf("the first to wait: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("others that wait: %v", err)
		}
	}
	if g.slots.taken() != 2 || g.waiting.Load() != 0 || g.rejected.Load() != 1 {
		t.Errorf("%d run, %d wait, %d were rejected", g.slots.taken(), g.waiting.Load(), g.rejected.Load())
	}
}

// TestTooManyQueries holds up the only query that may run, and sends others.
func TestTooManyQueries(t *testing.T) {
	o := testOptions()
	o.MaxConcurrency, o.MaxWaiting = 1, 1
	a := smallAPI(t, o)
	if err := a.queries.enter(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantBody(t, get(t, a, "query", "query", "1", "timeout", "20ms"), 503, failure("timeout", "query timed out in query queue"))
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error)
	go func() { waiting <- a.queries.enter(ctx) }()
	waitFor(t, "it to wait", func() bool { return a.queries.waiting.Load() > 0 })
	w := get(t, a, "query", "query", "1")
	wantBody(t, w, 503, failure("unavailable", "too many queries wait: 1 run and 1 wait, no more may"))
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	a.queries.leave()
	if w := get(t, a, "query", "query", "1"); w.Code != 200 {
		t.Error(w.Body)
	}
}

// TestFlood sends thousands of queries at once, many more than may run or wait, and
// holds up those that run until some were turned away.
func TestFlood(t *testing.T) {
	o := testOptions()
	o.MaxConcurrency, o.MaxWaiting = 2, 20
	a := smallAPI(t, o)
	begin := make(chan struct{})
	var all sync.WaitGroup
	var answered, turnedAway atomic.Int64
	queries := 10_000
	if testing.Short() {
		queries = 2_000
	}
	for range queries {
		all.Go(func() {
			<-begin
			switch w := get(t, a, "query", "query", "sum(max_over_time(requests_total[10m:1s]))"); w.Code {
			case 200:
				answered.Add(1)
			case 503:
				turnedAway.Add(1)
			default:
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	for range o.MaxConcurrency {
		if err := a.queries.enter(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	close(begin)
	waitFor(t, "one to be turned away", func() bool { return turnedAway.Load() > 0 })
	for range o.MaxConcurrency {
		a.queries.leave()
	}
	all.Wait()
	entered := answered.Load() + int64(o.MaxConcurrency) // with the two above
	if entered < 22 || turnedAway.Load() == 0 || answered.Load()+turnedAway.Load() != int64(queries) || a.Stats().Rejected != uint64(turnedAway.Load()) {
		t.Errorf("%d answered, %d turned away, of %d, %+v", answered.Load(), turnedAway.Load(), queries, a.Stats())
	}
}

// TestClientGone ends requests whose clients have gone, and lets them go while
// a query runs.
func TestClientGone(t *testing.T) {
	c := newCache(t)
	for i := range 200 {
		fill(t, c, "default", 15_000, ramp(800, 0, 1), "__name__", "m", "i", fmt.Sprint(i))
	}
	a := NewAPI(c, testOptions())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, target := range []string{"query?query=sum(requests_total)", "series?match[]=up", "labels"} {
		w := send(t, a, httptest.NewRequest(http.MethodGet, "/api/v1/"+target, nil).WithContext(ctx))
		if w.Code != statusClientClosed || !strings.Contains(w.Body.String(), `"errorType":"canceled"`) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	// This query takes minutes.
	params := form([]string{"query", "quantile_over_time(0.5, m[10m:1s])", "start", seconds(t0), "end", seconds(t0 + 11_000_000), "step", "1"})
	server := httptest.NewServer(a)
	defer server.Close()
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/api/v1/query_range?"+params, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		waitFor(t, "the query to run", func() bool { return a.Stats().Running == 1 })
		cancel()
	}()
	if _, err := http.DefaultClient.Do(r); !errors.Is(err, context.Canceled) {
		t.Fatalf("the query ended by itself: %v", err)
	}
	waitFor(t, "the query to end without its client", func() bool { return a.Stats().Running == 0 })
}

// TestConcurrent reads while series come, and checks each answer.
func TestConcurrent(t *testing.T) {
	c := newCache(t)
	for i := range 50 {
		fill(t, c, "default", 15_000, ramp(41, float64(i), 1), "__name__", "m", "i", fmt.Sprint(i))
	}
	a := NewAPI(c, testOptions())
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	writers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			err := c.AppendSamples("default", []mcache.Label{{Name: "__name__", Value: "other"}, {Name: "i", Value: fmt.Sprint(i % 5000)}}, mcache.Sample{T: t0 + int64(i), V: 1})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	want := success(`{"resultType":"vector","result":[{"metric":{},"value":[1795209300,"3225"]}]}`)
	rounds := 50
	if testing.Short() {
		rounds = 20
	}
	for range 4 {
		readers.Go(func() {
			for range rounds {
				wantBody(t, get(t, a, "query", "query", "sum(m)"), 200, want)
				get(t, a, "label/i/values")
				get(t, a, "series", "match[]", `{i=~"1.*"}`)
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
	if s := a.Stats(); s.InstantQueries != uint64(4*rounds) || s.Lookups != uint64(8*rounds) || s.Running != 0 {
		t.Errorf("%+v", s)
	}
}
