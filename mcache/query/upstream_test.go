package query

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mcached/kvcache"
	"mcached/mcache"
)

// lateCache has m from t0 on, where it was made: what was before is not covered.
// Its clock stands ten minutes later.
func lateCache(t testing.TB) *mcache.Cache { return lateBucket(t, "default", ramp(41, 0, 1)) }

// lateBucket is the same of another bucket and values, of which the last is of
// that time.
func lateBucket(t testing.TB, bucket string, values []float64) *mcache.Cache {
	t.Helper()
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20, ReserveBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	now := t0
	c, err := mcache.New(mcache.Options{Memory: memory, Now: func() int64 { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); memory.Close() })
	fill(t, c, bucket, 15_000, values, "__name__", "m")
	now = t0 + 600_000
	return c
}

// storeBehind is an API before a store, which answers as handler does.
func storeBehind(t *testing.T, o UpstreamOptions, handler http.HandlerFunc) (a *API, asked *atomic.Int64, clock *atomic.Int64) {
	t.Helper()
	asked, clock = new(atomic.Int64), new(atomic.Int64)
	clock.Store(t0 + 600_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/api/v1/status/") { // it does not say what it is
			http.NotFound(w, r)
			return
		}
		body, err := io.ReadAll(r.Body) // else the server does not see a client go
		if err != nil {
			t.Error(err)
		}
		if strings.HasSuffix(r.URL.Path, "/series") && bytes.Contains(body, []byte(url.QueryEscape("{"))) { // whether it has any of a selector
			answerJSON(200, success(`[{"__name__":"job:recorded"}]`))(w, r)
			return
		}
		asked.Add(1)
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL + "/prefix/")
	if err != nil {
		t.Fatal(err)
	}
	o.URL = u
	options := testOptions()
	options.TenancyHeader, options.Upstream = "X-Scope-OrgID", patiently(o)
	options.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	return NewAPI(lateCache(t), options), asked, clock
}

const storesAnswer = `{"status":"success","data":{"resultType":"vector","result":["the store's"]}}`

func answerJSON(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// TestUpstreamIsAsked: for what memory lacks, and for nothing else.
func TestUpstreamIsAsked(t *testing.T) {
	var form url.Values
	var header http.Header
	var path string
	a, asked, _ := storeBehind(t, UpstreamOptions{TenancyHeader: "X-Scope-OrgID"}, func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		form, header, path = r.Form, r.Header, r.URL.Path
		answerJSON(200, storesAnswer)(w, r)
	})
	end := seconds(t0 + 600_000)
	for _, c := range []struct {
		name   string
		path   string
		params []string
		store  bool
	}{
		{"covered", "query", []string{"query", "m", "time", end}, false},
		{"as far back as it goes", "query", []string{"query", "sum_over_time(m[10m1ms])", "time", end}, false},
		{"one ms more", "query", []string{"query", "sum_over_time(m[10m2ms])", "time", end}, true},
		{"offset", "query", []string{"query", "m offset 10m", "time", end}, true},
		{"at", "query", []string{"query", fmt.Sprintf("m @ %s", seconds(t0-1000)), "time", end}, true},
		{"at the start of the range", "query_range", []string{"query", "m @ start()", "start", seconds(t0 + 60_000), "end", end, "step", "15"}, true},
		{"subquery", "query", []string{"query", "max_over_time(m[6m:1m])", "time", end}, true},
		{"range", "query_range", []string{"query", "sum(m)", "start", seconds(t0 + 300_000), "end", end, "step", "15"}, false},
		{"range with a lookback of its own", "query_range", []string{"query", "sum(m)", "start", seconds(t0 + 60_000), "end", end, "step", "15", "lookback_delta", "20s"}, false},
		{"the same without", "query_range", []string{"query", "sum(m)", "start", seconds(t0 + 60_000), "end", end, "step", "15"}, true},
		{"a selector that is not here", "query", []string{"query", "sum(m) + sum(job:recorded)", "time", end}, true},
		{"no selector", "query", []string{"query", "1 + 1", "time", "0"}, false},
		{"a function of another dialect", "query", []string{"query", "median_over_time(m[1m])", "time", end}, true},
		{"labels of what is covered", "labels", []string{"start", seconds(t0 + 1000), "end", end}, false},
	} {
		before := asked.Load()
		w := post(t, a, c.path, append([]string{"limit", "7"}, c.params...)...)
		source := w.Header().Get(sourceHeader)
		if got := asked.Load() - before; got != map[bool]int64{true: 1}[c.store] || w.Code != 200 {
			t.Errorf("%s: the store was asked %d times: %d %s", c.name, got, w.Code, w.Body)
		}
		switch {
		case c.store:
			if w.Body.String() != storesAnswer || source != sourceUpstream || form.Get("query") != c.params[1] || form.Get("limit") != "7" || path != "/prefix/api/v1/"+c.path || header.Get(hopHeader) == "" {
				t.Errorf("%s: %s %q %s %v", c.name, w.Body, source, path, form)
			}
		case source != sourceMemory:
			t.Errorf("%s: source %q", c.name, source)
		}
	}
	if s := a.Stats(); s.UpstreamAnswered != uint64(asked.Load())+1 || s.UpstreamFailed+s.UpstreamRefused+s.UpstreamSkipped != 0 {
		t.Errorf("%+v", s)
	}
	// Tenants.
	r := httptest.NewRequest(http.MethodGet, "/api/v1/query?query=m", nil)
	r.Header.Set("X-Scope-OrgID", "team")
	if w := send(t, a, r); w.Body.String() != storesAnswer || header.Get("X-Scope-OrgID") != "team" {
		t.Errorf("a tenant: %s, %v", w.Body, header)
	}
	// What another daemon sent goes no further.
	before := asked.Load()
	for query, want := range map[string]int{"m": 200, "m[1h]": http.StatusLoopDetected} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query?query="+query, nil)
		r.Header.Set(hopHeader, "1")
		if w := send(t, a, r); w.Code != want || asked.Load() != before {
			t.Errorf("%s from another daemon: %d %s", query, w.Code, w.Body)
		}
	}
}

// TestUpstreamRefuses: what the store says of the query is the answer.
func TestUpstreamRefuses(t *testing.T) {
	for _, status := range []int{400, 422} {
		body := failure("bad_data", "the store does not like it")
		a, _, _ := storeBehind(t, UpstreamOptions{}, answerJSON(status, body))
		wantBody(t, get(t, a, "query", "query", "m[1h]"), status, body)
		if s := a.Stats(); s.UpstreamRefused != 1 || s.UpstreamFailed != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestUpstreamFails: whatever the store does, what memory has is the answer,
// and says that it is not all.
func TestUpstreamFails(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	for name, c := range map[string]struct {
		store http.HandlerFunc
		says  string
	}{
		"HTML": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<h1>It works!</h1>")
		}, `it answers \"text/html\", not JSON`},
		"redirect":     {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, `it redirects (302) to \"/login\"`},
		"500":          {answerJSON(500, "{}"), "it answers with status 500"},
		"503":          {answerJSON(503, "{}"), "it answers with status 503"},
		"unauthorized": {answerJSON(401, "{}"), "it answers with status 401"},
		"loop":         {answerJSON(508, "{}"), "it answers with status 508"},
		"no answer":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "it closes the connection without an answer"},
		"slow": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, "no answer within 50ms"},
		"stalls": {func(w http.ResponseWriter, r *http.Request) {
			answerJSON(200, `{"status":"success",`)(w, r)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, "its answer breaks off: no answer within 50ms"},
		"drips": {func(w http.ResponseWriter, r *http.Request) {
			answerJSON(200, `{"status":"success",`)(w, r)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Millisecond)
			}
		}, "its answer breaks off: no answer within 50ms"},
		"too large": {answerJSON(200, `{"status":"success",`+strings.Repeat(" ", readAhead-20)), "its answer breaks off: its answer is longer than"},
		"broken": {func(w http.ResponseWriter, r *http.Request) {
			answerJSON(200, `{"status":"success",`)(w, r)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "its answer breaks off: unexpected EOF"},
		"HTML that is said to be JSON":   {answerJSON(200, "<h1>It works!</h1>"), "its answer is not JSON as Prometheus writes it"},
		"empty":                          {answerJSON(200, ""), "its answer is not JSON as Prometheus writes it"},
		"null":                           {answerJSON(200, "null"), "its answer is not JSON as Prometheus writes it"},
		"half":                           {answerJSON(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{}`), "its answer is not JSON as Prometheus writes it"},
		"more":                           {answerJSON(200, `{"status":"success","data":{"resultType":"vector","result":[]}}more`), "its answer is not JSON as Prometheus writes it"},
		"a refusal that is none":         {answerJSON(400, "<h1>No</h1>"), "its answer is not JSON as Prometheus writes it"},
		"an error that is said to be OK": {answerJSON(200, failure("internal", "boom")), "it answers with status 200 and an error: boom"},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answerJSON(200, "whatever")(w, r)
		}, `it answers in the encoding \"gzip\", which it was not asked for`},
	} {
		t.Run(name, func(t *testing.T) {
			// On a slow machine the store may not even be asked in the time: then it is given more.
			for limit := 50 * time.Millisecond; !failsAs(t, c.store, c.says, limit); limit *= 4 {
				if limit > 10*time.Second {
					t.Fatal("it does not begin to answer, or is asked more or less often than it should be")
				}
			}
		})
	}
}

// failsAs has a store that fails be asked, and what is said of it be what it says, in which
// a time limit of 50ms, if it has one, is limit. It reports false if in that time the
// store did not begin the answer that was to break off, or was not asked.
func failsAs(t *testing.T, store http.HandlerFunc, says string, limit time.Duration) bool {
	t.Helper()
	o := UpstreamOptions{MaxBodyBytes: readAhead - 1}
	if strings.Contains(says, "within 50ms") {
		o.Timeout, says = limit, strings.ReplaceAll(says, "50ms", limit.String())
	}
	const kept = "the store behind did not answer, this is what is in memory: "
	a, asked, clock := storeBehind(t, o, store)
	for range breakerFailures {
		w := get(t, a, "query", "query", "count_over_time(m[1h])")
		body := w.Body.String()
		if strings.Contains(body, kept+"no answer within") && strings.HasPrefix(says, "its answer breaks off: no answer within") {
			return false
		}
		if w.Code != 200 || !strings.Contains(body, `"value":[1795209300,"41"]`) || !strings.Contains(body, kept+says) ||
			!strings.Contains(body, "until then this server was down") || w.Header().Get(sourceHeader) != sourceMemory || w.Header().Get(completeFromHeader) == "" {
			t.Fatalf("%d %v %s", w.Code, w.Header(), body)
		}
	}
	before := asked.Load()
	askedSince := func(n int64) bool { return asked.Load() == before+n }
	if strings.Contains(says, "508") { // a loop, which is no failure of the store
		if w := get(t, a, "query", "query", "m[1h]"); asked.Load() != before+1 {
			t.Errorf("the breaker took a loop for a failure: %s", w.Body)
		}
		if s := a.Stats(); s.UpstreamRefused != breakerFailures+1 || s.UpstreamFailed != 0 {
			t.Errorf("a loop is no failure: %+v", s)
		}
		return true
	}
	w := get(t, a, "query", "query", "m[1h]")
	if o.Timeout > 0 && !askedSince(0) {
		return false // by a request that had been given up
	}
	if !strings.Contains(w.Body.String(), "it failed several times") || !askedSince(0) {
		t.Errorf("the breaker: %s", w.Body)
	}
	if w := get(t, a, "query", "query", "m"); strings.Contains(w.Body.String(), "warnings") {
		t.Errorf("what memory has: %s", w.Body)
	}
	clock.Add(breakerMin.Milliseconds())
	get(t, a, "query", "query", "m[1h]")
	if o.Timeout > 0 && !askedSince(1) {
		return false
	}
	if !askedSince(1) {
		t.Errorf("after a second the store was asked %d times", asked.Load()-before)
	}
	if s := a.Stats(); s.UpstreamFailed != breakerFailures+1 || s.UpstreamSkipped != 1 {
		t.Errorf("%+v", s)
	}
	return true
}

// TestUpstreamBreaksOff: the beginning of a long answer does not pass for a whole one.
func TestUpstreamBreaksOff(t *testing.T) {
	long := `{"status":"success",` + strings.Repeat(" ", readAhead)
	for name, store := range map[string]http.HandlerFunc{
		"too large": answerJSON(200, long+strings.Repeat(" ", 1000)),
		"broken": func(w http.ResponseWriter, r *http.Request) {
			answerJSON(200, long)(w, r)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		a, _, _ := storeBehind(t, UpstreamOptions{MaxBodyBytes: readAhead + 500}, store)
		func() {
			defer func() {
				if recover() != http.ErrAbortHandler {
					t.Errorf("%s: it did not break off", name)
				}
			}()
			get(t, a, "query", "query", "m[1h]")
		}()
	}
}

// TestUpstreamCompressed: what clients are handed on compressed is looked at, too.
func TestUpstreamCompressed(t *testing.T) {
	whole := `{"status":"success","data":{"resultType":"matrix","result":[]}}`
	zipped := func(s string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, s)
		_ = z.Close()
		return b.Bytes()
	}
	long := zipped(whole[:len(whole)-2] + strings.Repeat(" ", 2*readAhead) + "}}")
	for name, c := range map[string]struct {
		body  []byte
		sound bool
	}{
		"whole": {zipped(whole), true}, "half": {zipped(whole[:30]), false}, "none": {zipped(""), false}, "long": {long, true}, "HTML": {zipped("<h1>"), false},
		"long HTML": {zipped("<h1>" + strings.Repeat(" ", 2*readAhead)), false}, "not": {[]byte(whole), false}, "short": {zipped(whole)[:30], false},
	} {
		a, _, _ := storeBehind(t, UpstreamOptions{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answerJSON(200, string(c.body))(w, r)
		})
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query?query=m[1h]", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if handedOn := bytes.Equal(w.Body.Bytes(), c.body) && w.Header().Get(sourceHeader) == sourceUpstream; w.Code != 200 || handedOn != c.sound {
			t.Errorf("%s: %d, handed on: %v, %v", name, w.Code, handedOn, w.Header())
		}
	}
}

// TestUpstreamKeepsConnections: an answer that was joined, be it long or short, leaves
// its connection for the next query.
func TestUpstreamKeepsConnections(t *testing.T) {
	f, c := &fakeStore{version: "3.14.0"}, lateCache(t)
	for i := range 1000 {
		f.names = append(f.names, fmt.Sprintf("m%03d", i))
		fill(t, c, "default", 15_000, ramp(41, 0, 1), "__name__", f.names[i])
	}
	server, early := httptest.NewServer(f), atomic.Int64{}
	defer server.Close()
	o := testOptions()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	o.Upstream = patiently(UpstreamOptions{URL: u, Client: &http.Client{Transport: endWatcher{&early}}})
	a := NewAPI(c, o)
	for _, steps := range []int64{10, 120} {
		for range 5 {
			from, to := t0-15_000*steps, t0+600_000
			w := get(t, a, "query_range", "query", `{__name__=~"m..."}`, "start", seconds(from), "end", seconds(to), "step", "15")
			if w.Code != 200 || w.Header().Get(sourceHeader) != sourceBoth {
				t.Fatalf("%d steps: %d %v %.300s", steps, w.Code, w.Header(), w.Body)
			}
			if n := w.Body.Len() * int(steps+20) / int(steps+40); n > readAhead != (steps > 100) {
				t.Fatalf("%d steps: the store's part has %d bytes", steps, n)
			}
		}
	}
	if n := early.Load(); n > 0 {
		t.Errorf("%d answers were not read to their end", n)
	}
}

// endWatcher counts the bodies that are closed before their end was read. Of each
// the end comes by itself, behind the last bytes.
type endWatcher struct{ early *atomic.Int64 }

func (w endWatcher) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && strings.HasSuffix(r.URL.Path, "/query_range") {
		res.Body = &watchedBody{ReadCloser: res.Body, early: w.early}
	}
	return res, err
}

type watchedBody struct {
	io.ReadCloser
	early *atomic.Int64
	ended bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && err == io.EOF {
		return n, nil
	}
	b.ended = b.ended || err == io.EOF
	return n, err
}

func (b *watchedBody) Close() error {
	if !b.ended {
		b.early.Add(1)
	}
	return b.ReadCloser.Close()
}

// TestUpstreamConcurrency holds up as many requests as may be sent.
func TestUpstreamConcurrency(t *testing.T) {
	arrived, hang := make(chan struct{}), make(chan struct{})
	a, _, _ := storeBehind(t, UpstreamOptions{MaxConcurrency: 1}, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-hang
		answerJSON(200, storesAnswer)(w, r)
	})
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- get(t, a, "query", "query", "m[1h]") }()
	<-arrived
	later := *a.upstream.opts()
	later.Timeout = 20 * time.Millisecond
	a.SetUpstream(later)
	if w := get(t, a, "query", "query", "m[1h]"); w.Code != 200 || !strings.Contains(w.Body.String(), "1 requests to it are under way") {
		t.Errorf("the second: %d %s", w.Code, w.Body)
	}
	close(hang)
	if w := <-first; w.Body.String() != storesAnswer {
		t.Errorf("the first: %d %s", w.Code, w.Body)
	}
	if n := a.upstream.slots.taken(); n != 0 {
		t.Errorf("%d are under way in the end", n)
	}
}

func TestBreaker(t *testing.T) {
	var b breaker
	now := time.UnixMilli(t0)
	for i := range breakerFailures {
		if !b.allows(now) {
			t.Fatalf("not allowed after %d failures", i)
		}
		b.failed(now)
	}
	for wait := breakerMin; wait <= breakerMax; wait *= 2 {
		if b.allows(now.Add(wait - 1)) {
			t.Fatalf("allowed before %s", wait)
		}
		now = now.Add(wait)
		if !b.allows(now) || b.allows(now) {
			t.Fatalf("after %s one may try, and no other", wait)
		}
		b.failed(now)
	}
	now = now.Add(breakerMax)
	if !b.allows(now) {
		t.Fatal("it never tries for longer than that")
	}
	b.forget()
	if !b.allows(now) {
		t.Fatal("a client that went away was taken for a failure")
	}
	b.answered()
	for range 2 {
		if !b.allows(now) {
			t.Error("closed after an answer")
		}
	}
}

// TestUpstreamNothing: of what matches nothing here the store is asked for one
// series; if it has none either, it is left alone for some seconds.
func TestUpstreamNothing(t *testing.T) {
	have, probes, queries := "[]", 0, 0
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/series"):
			if err := r.ParseForm(); err != nil || r.Form.Get("match[]") != `{code="500",__name__="errors"}` || r.Form.Get("limit") != "1" {
				t.Errorf("%v %v", err, r.Form)
			}
			probes++
			answerJSON(200, success(have))(w, r)
		case strings.HasSuffix(r.URL.Path, "/query"):
			queries++
			answerJSON(200, storesAnswer)(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	defer store.Close()
	u, err := url.Parse(store.URL)
	if err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(t0 + 600_000)
	o := testOptions()
	o.Now, o.Upstream = func() time.Time { return now }, patiently(UpstreamOptions{URL: u})
	a := NewAPI(lateCache(t), o)
	ask := func(wantSource string, wantProbes, wantQueries int) {
		t.Helper()
		w := get(t, a, "query", "query", `sum(m) + (sum(errors{code="500"}) or vector(0))`, "time", seconds(t0+600_000))
		if got := w.Header().Get(sourceHeader); got != wantSource || probes != wantProbes || queries != wantQueries || w.Code != 200 {
			t.Errorf("from %s after %d probes and %d queries, want %s, %d, %d: %s", got, probes, queries, wantSource, wantProbes, wantQueries, w.Body)
		}
	}
	ask(sourceMemory, 1, 0)
	ask(sourceMemory, 1, 0)
	now = now.Add(rememberNothing)
	have = `[{"__name__":"errors"}]`
	ask(sourceUpstream, 2, 1)
	ask(sourceUpstream, 2, 2)
}

// TestUpstreamDropLabels: series here are read without what senders add.
func TestUpstreamDropLabels(t *testing.T) {
	c := newCache(t)
	fill(t, c, "default", 15_000, ramp(41, 0, 1), "__name__", "m", "cluster", "eu", "i", "1")
	fill(t, c, "default", 15_000, ramp(41, 5, 1), "__name__", "m", "cluster", "eu", "i", "2")
	o := testOptions()
	o.Upstream = patiently(UpstreamOptions{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, DropLabels: []string{"cluster", "replica"}, When: WhenNever})
	a := NewAPI(c, o)
	at := []string{"start", seconds(t0), "end", seconds(t0 + 600_000)}
	for _, x := range []struct {
		path   string
		params []string
		want   string
	}{
		{"query", []string{"query", "m"}, `"result":[{"metric":{"__name__":"m","i":"1"},"value":[1795209300,"40"]},{"metric":{"__name__":"m","i":"2"},"value":[1795209300,"45"]}]`},
		{"query", []string{"query", `count by (cluster) (m{cluster=""})`}, `"result":[{"metric":{},"value":[1795209300,"2"]}]`},
		{"query", []string{"query", `m{cluster="eu"}`}, `"result":[]`},
		{"query_range", []string{"query", `sum(rate(m{cluster!="us"}[1m]))`, "step", "600"}, `[1795209300,"0.133333333333333`},
		{"labels", nil, `"data":["__name__","i"]`}, {"labels", []string{"limit", "1"}, `"data":["__name__"]`},
		{"label/cluster/values", nil, `"data":[]`}, {"label/i/values", []string{"match[]", `m{replica=""}`}, `"data":["1","2"]`}, {"label/i/values", []string{"match[]", `m{cluster="eu"}`}, `"data":[]`},
		{"series", []string{"match[]", "m"}, `"data":[{"__name__":"m","i":"1"},{"__name__":"m","i":"2"}]`},
	} {
		if w := get(t, a, x.path, append(x.params, at...)...); !strings.Contains(w.Body.String(), x.want) || w.Code != 200 {
			t.Errorf("%s %v: %d %s", x.path, x.params, w.Code, w.Body)
		}
	}
}

// TestUpstreamComesAndGoes kills the store again and again under queries of what
// both have a part of: no answer is an error, and each is whole or says that it is not.
func TestUpstreamComesAndGoes(t *testing.T) {
	var up atomic.Bool
	half := func(w http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			panic(http.ErrAbortHandler)
		}
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		from, err := parseTime(r.Form.Get("start"))
		if err != nil {
			t.Error(err)
		}
		to, err := parseTime(r.Form.Get("end"))
		if err != nil {
			t.Error(err)
		}
		var points []string
		for at := from.UnixMilli(); at <= to.UnixMilli(); at += 30_000 {
			points = append(points, fmt.Sprintf(`[%s,"%d"]`, seconds(at), (at-t0)/15_000))
		}
		_, _ = io.WriteString(w, success(`{"resultType":"matrix","result":[{"metric":{"__name__":"m"},"values":[`+strings.Join(points, ",")+`]}]}`))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "buildinfo"):
			_, _ = io.WriteString(w, success(`{"version":"3.1.0"}`))
		case strings.Contains(r.URL.Path, "/status/"):
			http.NotFound(w, r)
		default:
			half(w, r)
		}
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var clock atomic.Int64
	clock.Store(t0 + 600_000)
	o := testOptions()
	o.Now, o.Upstream = func() time.Time { return time.UnixMilli(clock.Load()) }, patiently(UpstreamOptions{URL: u})
	a := NewAPI(lateCache(t), o)
	whole, warned := 0, 0
	for round := range 10 {
		up.Store(round%2 == 0)
		clock.Add(breakerMax.Milliseconds())
		for range 20 {
			w := get(t, a, "query_range", "query", "m", "start", seconds(t0-300_000), "end", seconds(t0+600_000), "step", "30")
			body := w.Body.String()
			switch says := strings.Contains(body, "the store behind did not answer"); {
			case w.Code != 200 || !strings.HasSuffix(body, "}"):
				t.Fatalf("%d %s", w.Code, body)
			case w.Header().Get(sourceHeader) == sourceBoth && !says && strings.Count(body, "],[") == 30:
				whole++
			case w.Header().Get(sourceHeader) == sourceMemory && says && strings.Contains(body, "may be missing"):
				warned++
			default:
				t.Fatalf("neither whole nor warned: %v %s", w.Header(), body)
			}
		}
	}
	if whole != 100 || warned != 100 {
		t.Errorf("%d answers were whole, %d warned", whole, warned)
	}
}

// TestCoverageIsShown by status/tsdb, to who asks for it.
func TestCoverageIsShown(t *testing.T) {
	a := NewAPI(lateCache(t), testOptions())
	if w := get(t, a, "status/tsdb", "coverage", "true"); !strings.Contains(w.Body.String(), `"coverage":[{"from":"2026-11-20T21:05:00Z"}]`) {
		t.Error(w.Body)
	}
	if w := get(t, a, "status/tsdb"); strings.Contains(w.Body.String(), "coverage") {
		t.Error(w.Body)
	}
}

// TestUpstreamVictoriaMetrics: it is sent its own parameters, and its series are
// sorted, which do not come in order.
func TestUpstreamVictoriaMetrics(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Server-Hostname", "vm")
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "buildinfo") {
			_, _ = io.WriteString(w, success(`{}`))
			return
		}
		if err := r.ParseForm(); err != nil || r.Form.Get("nocache") != "1" {
			t.Errorf("%v %v", err, r.Form)
		}
		if r.Form.Get("query") == "ceil(m)" {
			_, _ = io.WriteString(w, storesAnswer)
			return
		}
		if r.Form.Get("step") != "30.001" || !strings.HasSuffix(r.Form.Get("start"), "00.000") && r.Form.Get("start") != r.Form.Get("end") {
			t.Errorf("%v", r.Form)
		}
		if r.Form.Get("start") == r.Form.Get("end") { // the seam
			_, _ = fmt.Fprintf(w, `{"status":"success","isPartial":false,"data":{"resultType":"matrix","result":[{"metric":{"__name__":"m"},"values":[[%s,"20"]]}]},"stats":{"seriesFetched": "2"}}`, r.Form.Get("start"))
			return
		}
		_, _ = io.WriteString(w, `{"status":"success","isPartial":false,"data":{"resultType":"matrix","result":[{"metric":{"__name__":"z"},"values":[[`+r.Form.Get("start")+`,"1"]]},{"metric":{"__name__":"a"},"values":[[`+r.Form.Get("start")+`,"2"]]}]}}`)
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.Upstream = patiently(UpstreamOptions{URL: u})
	a := NewAPI(lateCache(t), o)
	params := []string{"start", seconds(t0), "end", seconds(t0 + 600_000), "step", "30001ms"}
	w := get(t, a, "query_range", append([]string{"query", "m"}, params...)...)
	names := strings.Split(w.Body.String(), `"metric":{"__name__":`)
	if w.Header().Get(sourceHeader) != sourceBoth || len(names) != 4 || names[1][:3] != `"a"` || names[2][:3] != `"m"` || names[3][:3] != `"z"` {
		t.Errorf("%s: %s", w.Header().Get(sourceHeader), w.Body)
	}
	if w := get(t, a, "query_range", append([]string{"query", "ceil(m)"}, params...)...); w.Header().Get(sourceHeader) != sourceUpstream {
		t.Errorf("ceil: %s from %s", w.Body, w.Header().Get(sourceHeader))
	}
}
