package query

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// answerMap is memory for answers.
type answerMap struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *answerMap) Get(dst, key []byte) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[string(key)]
	return append(dst, v...), ok
}

func (m *answerMap) Put(key, value []byte, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	m.values[string(key)] = slices.Clone(value)
	return nil
}

func (m *answerMap) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values = nil
}

func (m *answerMap) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.values)
}

// fakeStore answers range queries as Prometheus 3 does, with one series m of
// lateCache's values, which go back forever.
type fakeStore struct {
	version  string
	warnings string // of its answers, JSON
	infos    string
	add      float64 // to its values, by header of the tenant
	down     atomic.Bool
	refuses  string    // how it refuses queries; "": it does not
	cut      bool      // answers break off
	names    []string  // of the series, in the order in which they come; nil: m
	found    string    // what it says of series; "": it does not know of any such question
	date     time.Time // by its clock; zero: it does not say

	mu    sync.Mutex
	asked [][2]int64 // first and last step of each request
}

func (f *fakeStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if w.Header()["Date"] = nil; !f.date.IsZero() {
		w.Header().Set("Date", f.date.UTC().Format(http.TimeFormat))
	}
	if err := r.ParseForm(); err != nil {
		panic(err)
	}
	switch {
	case f.down.Load():
		w.WriteHeader(503)
	case strings.HasSuffix(r.URL.Path, "/status/buildinfo"):
		answerJSON(200, success(`{"version":"`+f.version+`"}`))(w, r)
	case strings.HasSuffix(r.URL.Path, "/status/flags"):
		answerJSON(200, success(`{"query.lookback-delta":"5m"}`))(w, r)
	case f.found != "" && strings.HasSuffix(r.URL.Path, "/series"):
		answerJSON(200, success(f.found))(w, r)
	case f.refuses != "" && strings.HasSuffix(r.URL.Path, "/query_range"):
		answerJSON(422, f.refuses)(w, r)
	case strings.HasSuffix(r.URL.Path, "/query_range"):
		start, end := millis(r.Form.Get("start")), millis(r.Form.Get("end"))
		step, err := parseDuration(r.Form.Get("step"))
		if err != nil {
			panic(err)
		}
		f.mu.Lock()
		f.asked = append(f.asked, [2]int64{start, end})
		f.mu.Unlock()
		answerJSON(200, f.matrix(start, end, step.Milliseconds(), len(r.Header.Get("X-Scope-OrgID"))))(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (f *fakeStore) matrix(start, end, step int64, tenant int) string {
	var b strings.Builder
	b.WriteString(`{"status":"success","data":{"resultType":"matrix","result":[`)
	names := f.names
	if names == nil {
		names = []string{"m"}
	}
	for i, name := range names {
		if i > 0 {
			b.WriteString(`]},`)
		}
		b.WriteString(`{"metric":{"__name__":"` + name + `"},"values":[`)
		for t := start; t <= end; t += step {
			if t > start {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `[%s,"%s"]`, appendTime(nil, t), appendFloat(nil, float64(floorDiv(t-t0, 15_000))+f.add+float64(tenant)))
		}
	}
	if f.cut {
		return b.String()
	}
	if len(names) > 0 {
		b.WriteString(`]}`)
	}
	b.WriteString(`]}`)
	if f.warnings != "" {
		b.WriteString(`,"warnings":` + f.warnings)
	}
	if f.infos != "" {
		b.WriteString(`,"infos":` + f.infos)
	}
	b.WriteString(`}`)
	return b.String()
}

func millis(s string) int64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err)
	}
	return int64(math.Round(f * 1000))
}

// requests are those since the last call.
func (f *fakeStore) requests() (list [][2]int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, f.asked = f.asked, nil
	slices.SortFunc(list, func(a, b [2]int64) int { return slices.Compare(a[:], b[:]) })
	return list
}

// remembering is an API before a fakeStore, which covers the time from t0 on and
// whose clock stands ten minutes later. Settled is what is five minutes old.
func remembering(t *testing.T) (a *API, f *fakeStore, m *answerMap) {
	t.Helper()
	f, m = &fakeStore{version: "3.14.0"}, &answerMap{}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.TenancyHeader = "X-Scope-OrgID"
	o.Upstream = patiently(UpstreamOptions{URL: u, Memory: m, Settled: 5 * time.Minute, TenancyHeader: "X-Scope-OrgID"})
	return NewAPI(lateCache(t), o), f, m
}

// recorded waits until what was answered so far is remembered.
func recorded(t *testing.T, a *API) {
	t.Helper()
	waitFor(t, "recordings", func() bool { return a.Stats().UpstreamRecording == 0 })
}

// panel asks for m from some seconds after t0 to others.
func panel(t *testing.T, a *API, from, to int64, pairs ...string) *httptest.ResponseRecorder {
	t.Helper()
	defer recorded(t, a)
	return panelNow(t, a, from, to, pairs...)
}

// panelNow does not wait until what was answered is remembered.
func panelNow(t *testing.T, a *API, from, to int64, pairs ...string) *httptest.ResponseRecorder {
	t.Helper()
	return get(t, a, "query_range", append(pairs, "query", "m", "start", seconds(t0+1000*from), "end", seconds(t0+1000*to), "step", "15")...)
}

// wantPanel is the store's answer to that, from whomever it comes.
func wantPanel(t *testing.T, f *fakeStore, w *httptest.ResponseRecorder, from, to int64, source string) {
	t.Helper()
	if want := f.matrix(t0+1000*from, t0+1000*to, 15_000, 0); w.Code != 200 || w.Body.String() != want || w.Header().Get(sourceHeader) != source {
		t.Errorf("from %d to %d: %d from %s: %.300s\nwant %.300s", from, to, w.Code, w.Header().Get(sourceHeader), w.Body, want)
	}
}

// TestStranger: before a store of another tenant memory's part is the answer, and says
// so each time, be the query split or not. A store that has something of it is right, and
// so is any that is asked anyway.
func TestStranger(t *testing.T) {
	for _, found := range []string{`[]`, `[{"__name__":"m","of":"this tenant"}]`} {
		a, f, m := remembering(t)
		f.names, f.found = []string{}, found
		wanted := func(what string, w *httptest.ResponseRecorder, ours bool) {
			t.Helper()
			body, source := w.Body.String(), sourceUpstream
			if ours {
				source = sourceMemory
			}
			if w.Code != 200 || strings.Contains(body, `"result":[]`) == ours || strings.Contains(body, errStranger.Error()) != ours || w.Header().Get(sourceHeader) != source {
				t.Errorf("it has %s, %s: %d %v %.300s", found, what, w.Code, w.Header(), body)
			}
		}
		whole := []string{"query", `sum_over_time({__name__=~"m|n"}[10s])`, "start", seconds(t0 - 900_000), "end", seconds(t0 + 600_000), "step", "15"}
		for range 2 {
			wanted("split", panel(t, a, -900, 600), found == `[]`)
			wanted("whole", get(t, a, "query_range", whole...), found == `[]`)
			wanted("asked anyway", get(t, a, "query_range", append(whole, whenParam, string(WhenAlways))...), false)
		}
		if s := a.Stats(); s.UpstreamDisagreed == 0 || found == `[]` && m.len() > 0 {
			t.Errorf("%d extents, %+v", m.len(), s)
		}
	}
}

// TestRememberedIsNotAsked: a second look at a week, moved by some steps, asks
// for what is new, and that is nothing where memory covers it.
func TestRememberedIsNotAsked(t *testing.T) {
	a, f, m := remembering(t)
	wantPanel(t, f, panel(t, a, -30_000, 600), -30_000, 600, sourceBoth)
	if got := fmt.Sprint(f.requests()); got != fmt.Sprint([][2]int64{{t0 - 30_000_000, t0 + 285_000}, {t0 + 300_000, t0 + 300_000}}) {
		t.Errorf("first look: %s", got) // and the seam
	}
	if n := m.len(); n < 2000/extentSteps || n > 2000/extentSteps+3 {
		t.Errorf("%d extents of 2,020 steps", n)
	}
	for _, by := range []int64{0, 15, 600, 7 * 15} {
		wantPanel(t, f, panel(t, a, -30_000+by, 600), -30_000+by, 600, sourceBoth)
	}
	// Without anything to be computed, and written otherwise.
	wantPanel(t, f, panel(t, a, -21_000, -10_500, "query", "m # as before"), -21_000, -10_500, sourceUpstream)
	// The seam is one step behind what may be remembered: it alone is asked for.
	if got := f.requests(); len(got) != 4 || got[0] != [2]int64{t0 + 300_000, t0 + 300_000} {
		t.Errorf("later: %v", got)
	}
	// Further back: what is new.
	wantPanel(t, f, panel(t, a, -33_000, -10_005), -33_000, -10_005, sourceUpstream)
	if got := fmt.Sprint(f.requests()); got != fmt.Sprint([][2]int64{{t0 - 33_000_000, t0 - 30_015_000}}) {
		t.Errorf("further back: %s", got)
	}
	// And that now, too.
	wantPanel(t, f, panel(t, a, -33_000, 0), -33_000, 0, sourceUpstream)
	if got := f.requests(); len(got) != 0 {
		t.Errorf("all of it: %v", got)
	}
	s := a.Stats()
	if s.UpstreamRecalled < 8000 || s.UpstreamKept < 2200 || s.UpstreamStepsAsked > 2300 || s.UpstreamStepsHere != 5*21 {
		t.Errorf("%+v", s)
	}
	m.Clear()
	wantPanel(t, f, panel(t, a, -30_000, 0), -30_000, 0, sourceUpstream)
	if got := f.requests(); len(got) != 1 {
		t.Errorf("forgotten: %v", got)
	}
}

// TestRememberedAreWholeAnswers: what is kept, and what is not.
func TestRememberedAreWholeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		set    func(*fakeStore)
		pairs  []string
		header string
		kept   bool
	}{
		"as it is":                     {kept: true},
		"an info":                      {set: func(f *fakeStore) { f.infos = `["PromQL info: about it (1:1)"]` }, kept: true},
		"a parameter of the store's":   {pairs: []string{"dedup", "false"}, kept: true},
		"a warning":                    {set: func(f *fakeStore) { f.warnings = `["a shard is down"]` }},
		"half":                         {set: func(f *fakeStore) { f.cut = true }},
		"a store that is not known":    {set: func(f *fakeStore) { f.version = "" }},
		"limit":                        {pairs: []string{"limit", "5"}},
		"statistics":                   {pairs: []string{"stats", "all"}},
		"asked always":                 {pairs: []string{"upstream", "always"}},
		"depends on the range":         {pairs: []string{"query", "m @ end()"}},
		"is more than its steps":       {pairs: []string{"query", "limitk(1, m)"}},
		"no-store":                     {header: "no-cache, no-store"},
		"looks at what is not settled": {pairs: []string{"query", "m offset -3h"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, f, m := remembering(t)
			if c.set != nil {
				c.set(f)
			}
			r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+form(append(c.pairs, "query", "m", "start", seconds(t0-9_000_000), "end", seconds(t0-30_000), "step", "15")), nil)
			if c.header != "" {
				r.Header.Set("Cache-Control", c.header)
			}
			first := send(t, a, r)
			recorded(t, a)
			if first.Code != 200 || m.len() > 0 != c.kept {
				t.Fatalf("%d extents are kept: %d %.300s", m.len(), first.Code, first.Body)
			}
			if again := send(t, a, r); c.kept && (again.Body.String() != first.Body.String() || len(f.requests()) != 1) {
				t.Errorf("again: %.300s\nfirst %.300s", again.Body, first.Body)
			}
		})
	}
}

// TestSeriesTwice: a short answer that has a series twice is handed on before
// anything of it is written.
func TestSeriesTwice(t *testing.T) {
	a, f, _ := remembering(t)
	f.names = []string{"m", "m"}
	for range 2 {
		wantPanel(t, f, panel(t, a, -30_000, 0), -30_000, 0, sourceUpstream)
	}
}

// TestDisorderIsLearnt: a store whose series do not come in the order of their
// labels costs one answer, if that shows late: from then on it is not joined unread.
func TestDisorderIsLearnt(t *testing.T) {
	a, f, _ := remembering(t)
	for i := range 200 {
		f.names = append(f.names, fmt.Sprintf("m%03d", i))
	}
	f.names = append(f.names, "a")
	s := httptest.NewServer(a)
	defer s.Close()
	ask := func() int {
		pairs := []string{"query", `{__name__=~".+"}`, "start", seconds(t0 - 9_000_000), "end", seconds(t0 - 30_000), "step", "15"}
		r, err := http.Get(s.URL + "/api/v1/query_range?" + form(pairs))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var got struct {
			Data struct {
				Result []struct{ Metric map[string]string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			return 0
		}
		return len(got.Data.Result)
	}
	if ask() == 201 {
		t.Error("the first answer is whole: what is to be learnt does not show late")
	}
	if n := ask(); n != 201 {
		t.Errorf("%d series, want 201", n)
	}
}

// TestRememberedApart: whatever an answer depends on, answers are not mixed up.
func TestRememberedApart(t *testing.T) {
	a, f, m := remembering(t)
	for i, c := range []struct {
		tenant string
		pairs  []string
	}{
		{"", nil}, {"team", nil}, {"other", nil},
		{"", []string{"step", "15001ms"}}, {"", []string{"start", seconds(t0 - 8_999_999)}}, {"", []string{"query", "m*1"}}, {"", []string{"query", "m* 10"}},
		{"", []string{"lookback_delta", "16s"}}, {"", []string{"dedup", "1"}}, {"", []string{"dedup", "1", "dedup", "0"}},
	} {
		for again := range 2 {
			v := url.Values{"query": {"m"}, "start": {seconds(t0 - 9_000_000)}, "end": {seconds(t0 - 30_000)}, "step": {"15"}}
			for p := 0; p < len(c.pairs); p += 2 {
				if v.Has(c.pairs[p]) && c.pairs[p] == "dedup" {
					v.Add(c.pairs[p], c.pairs[p+1])
				} else {
					v.Set(c.pairs[p], c.pairs[p+1])
				}
			}
			r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+v.Encode(), nil)
			if c.tenant != "" {
				r.Header.Set("X-Scope-OrgID", c.tenant)
			}
			w := send(t, a, r)
			recorded(t, a)
			n := len(f.requests())
			if w.Code != 200 || n != 1-again || c.tenant != "" && !strings.Contains(w.Body.String(), fmt.Sprintf(`"values":[[1795199700,"%d"]`, -600+len(c.tenant))) {
				t.Errorf("%d, time %d: the store was asked %d times: %.200s", i, again, n, w.Body)
			}
		}
	}
	// What is configured otherwise, or is another store, begins anew.
	o := *a.upstream.opts()
	o.Memory = nil // it keeps its own
	a.SetUpstream(o)
	if m.len() != 0 {
		t.Error("a reload forgets nothing")
	}
	panel(t, a, -9_000, -30)
	f.version = "3.15.0"
	a.upstream.dialect.forget()
	f.requests()
	if panel(t, a, -9_000, -30); len(f.requests()) != 1 {
		t.Error("what another version said is remembered")
	}
}

// TestRememberedIsSettledByTheStoresClock: where this clock is ahead, steps that the store
// may still be sent something for look as if they were old. They are not kept, and with
// them nothing of that answer; what is old by either clock is.
func TestRememberedIsSettledByTheStoresClock(t *testing.T) {
	const settled = 5 * time.Minute
	for behind, want := range map[time.Duration]int{0: 0, maxClocksApart: 0, 20 * time.Minute: 1, 24 * time.Hour: 1, -24 * time.Hour: 0} {
		a, f, _ := remembering(t)
		f.date = a.o.Now().Add(-behind)
		for again := range 2 {
			panel(t, a, -9_000, -300)
			if n, want := len(f.requests()), max(1-again, want); n != want {
				t.Errorf("a clock %v behind, time %d: the store was asked %d times, want %d", behind, again, n, want)
			}
		}
		old := -9_000_000 - max(behind, 0).Milliseconds() - settled.Milliseconds() - 600_000
		for again := range 2 {
			panel(t, a, old/1000-9000, old/1000)
			if n := len(f.requests()); n != 1-again {
				t.Errorf("a clock %v behind, time %d: the store was asked %d times for what is old", behind, again, n)
			}
		}
	}
}

// TestRememberedWithoutStore: what is remembered is there when the store is not,
// and what is missing is said.
func TestRememberedWithoutStore(t *testing.T) {
	a, f, m := remembering(t)
	panel(t, a, -30_000, 0)
	f.down.Store(true)
	wantPanel(t, f, panel(t, a, -29_010, -30), -29_010, -30, sourceUpstream)
	w := panel(t, a, -31_005, 600)
	body := w.Body.String()
	for _, want := range []string{
		`"values":[[` + seconds(t0 - 30_000_000)[:10] + `,`, `[1795209300,"40"]`, "the store behind did not answer, this is what is in memory: it answers with status 503",
		"steps from 2026-11-20T12:28:15Z to 2026-11-20T12:44:45Z are missing", "steps from 2026-11-20T21:05:15Z to 2026-11-20T21:09:45Z are missing",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("there is no %s in %.200s … %.600s", want, body, body[max(0, len(body)-600):])
		}
	}
	if w.Code != 200 || w.Header().Get(sourceHeader) != sourceBoth {
		t.Errorf("%d from %s", w.Code, w.Header().Get(sourceHeader))
	}
	f.down.Store(false)
	a.upstream.breaker.answered()
	if n := m.len(); n == 0 {
		t.Error("nothing is kept")
	}
	wantPanel(t, f, panel(t, a, -31_005, 600), -31_005, 600, sourceBoth)
}

// TestSplitRefused: what the store says of a query that is split is the answer, but not
// what is no word of such a store.
func TestSplitRefused(t *testing.T) {
	a, f, _ := remembering(t)
	f.refuses = failure("execution", "no")
	wantBody(t, panel(t, a, -30_000, 600), 422, f.refuses)
	f.refuses = "<h1>No</h1>"
	const says = "its answer is not JSON as Prometheus writes it"
	if w := panel(t, a, -30_000, 600); w.Code != 200 || !strings.Contains(w.Body.String(), says) || w.Header().Get(sourceHeader) != sourceMemory {
		t.Errorf("%d %v %.500s", w.Code, w.Header(), w.Body)
	}
	f.refuses = ""
	wantPanel(t, f, panel(t, a, -30_000, 600), -30_000, 600, sourceBoth)
	f.refuses = "<h1>No</h1>"
	if w := panel(t, a, -60_000, 600); w.Code != 200 || !strings.Contains(w.Body.String(), says) || w.Header().Get(sourceHeader) != sourceBoth {
		t.Errorf("what is remembered: %d %v %.500s", w.Code, w.Header(), w.Body)
	}
}

// TestRememberedSeam: memory is compared with what the store said before.
func TestRememberedSeam(t *testing.T) {
	a, f, _ := remembering(t)
	// Of the steps up to five minutes after t0 all are settled ten minutes later.
	later := time.UnixMilli(t0 + 900_000)
	a.o.Now, a.upstream.dialect.now = func() time.Time { return later }, func() time.Time { return later }
	wantPanel(t, f, panel(t, a, -30_000, 600), -30_000, 600, sourceBoth)
	f.requests()
	wantPanel(t, f, panel(t, a, -30_000, 570), -30_000, 570, sourceBoth)
	asked := f.requests()
	if len(asked) != 1 || asked[0][0] != asked[0][1] {
		t.Fatalf("the seam was not looked at: %v", asked)
	}
	// What the store said of the seam is known once its steps were asked for.
	a.upstream.paused.add("default", []string{"m"}, later)
	panel(t, a, -30_000, 600)
	a.upstream.paused.until = nil
	f.requests()
	wantPanel(t, f, panel(t, a, -30_000, 600), -30_000, 600, sourceBoth)
	if asked := f.requests(); len(asked) != 0 {
		t.Errorf("the store was asked for the seam: %v", asked)
	}
	if s := a.Stats(); s.UpstreamDisagreed != 0 {
		t.Errorf("%+v", s)
	}
	// It had said something else.
	f.add = 0.5
	a.upstream.opts().Memory.Clear()
	a.upstream.paused.add("default", []string{"m"}, later)
	panel(t, a, -30_000, 600)
	a.upstream.paused.until = nil
	f.requests()
	wantPanel(t, f, panel(t, a, -30_000, 600), -30_000, 600, sourceUpstream)
	if s := a.Stats(); s.UpstreamDisagreed != 1 {
		t.Errorf("%+v", s)
	}
}

// TestRememberedLarge: an answer that is too long is not kept, and handed on as it
// is the next time.
func TestRememberedLarge(t *testing.T) {
	a, f, m := remembering(t)
	var points, b strings.Builder
	for step := range maxPoints {
		fmt.Fprintf(&points, `,[%d,"1"]`, 1795000000+15*step)
	}
	a.upstream.maxText = 2*points.Len() - 3
	for i := range 2 {
		fmt.Fprintf(&b, `,{"metric":{"__name__":"m","i":"%03d"},"values":[%s]}`, i, points.String()[1:])
	}
	body := `{"status":"success","data":{"resultType":"matrix","result":[` + b.String()[1:] + `]}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/query_range") {
			w.Header().Set("Content-Type", "application/json")
			w.Header()["Date"] = nil
			_, _ = io.WriteString(w, body)
			return
		}
		f.ServeHTTP(w, r)
	}))
	defer server.Close()
	o := *a.upstream.opts()
	o.URL, _ = url.Parse(server.URL)
	a.SetUpstream(o)
	for i := range 2 {
		w := get(t, a, "query_range", "query", "m", "start", "1795000000", "end", fmt.Sprint(1795000000+15*(maxPoints-1)), "step", "15")
		recorded(t, a)
		if w.Body.Len() != len(body) || m.len() != 0 || w.Header().Get(sourceHeader) != sourceUpstream {
			t.Errorf("time %d: %d bytes of %d, %d extents", i, w.Body.Len(), len(body), m.len())
		}
	}
	if n := a.upstream.large.len(a.o.Now()); n != 1 {
		t.Errorf("%d are known to be large", n)
	}
}

// TestExtents unites extents at random, beside maps.
func TestExtents(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 9))
	names := []labels.Labels{labels.FromStrings("a", "1"), labels.FromStrings("a", "1", "b", "x"), labels.FromStrings("a", "2"), labels.EmptyLabels()}
	slices.SortFunc(names, labels.Compare)
	united := 0
	for range 1000 {
		known, model := (*extent)(nil), map[string]string{}
		lo, hi := 0, 0
		for range 1 + rnd.IntN(4) {
			from := rnd.IntN(extentSteps)
			to := from + 1 + rnd.IntN(extentSteps-from)
			x, mine := randomExtent(rnd, names, from, to), map[string]string{}
			readExtent(t, x, mine)
			reread, err := openExtent(x.appendBlob(nil), nil)
			if err != nil || reread.lo != from || reread.hi != to || fmt.Sprint(reread.infos) != fmt.Sprint(x.infos) {
				t.Fatalf("%v: %+v", err, reread)
			}
			if known != nil {
				both, err := unite(known, reread)
				if err != nil {
					t.Fatal(err)
				}
				if (both == nil) != (to < lo || hi < from) {
					t.Fatalf("%d to %d and %d to %d", lo, hi, from, to)
				}
				if both == nil {
					continue
				}
				united++
				maps.DeleteFunc(model, func(k, _ string) bool {
					step, _ := strconv.Atoi(k[:3])
					return from <= step && step < to
				})
				reread, lo, hi = both, min(lo, from), max(hi, to)
			} else {
				lo, hi = from, to
			}
			maps.Copy(model, mine)
			known = reread
			got := map[string]string{}
			readExtent(t, known, got)
			if known.lo != lo || known.hi != hi || !maps.Equal(got, model) {
				t.Fatalf("%d to %d, want %d to %d:\n%v\n%v", known.lo, known.hi, lo, hi, got, model)
			}
		}
	}
	if united < 300 {
		t.Errorf("%d were united", united)
	}
}

// randomExtent has points at some of its steps, of one kind at a step.
func randomExtent(rnd *rand.Rand, names []labels.Labels, from, to int) *extent {
	x := &extent{lo: from, hi: to, infos: []string{"an info", "another"}[:rnd.IntN(3)]}
	var w extentWriter
	for _, ls := range names {
		if rnd.IntN(3) == 0 {
			continue
		}
		next := randomNumerals(rnd)
		s, texts, units, density := extentSeries{labels: ls}, rnd.IntN(4) == 0, rnd.IntN(2) == 0, 1+rnd.IntN(4)
		for step := from; step < to; step++ {
			v := []float64{math.NaN(), math.Inf(1), 0, rnd.Float64(), float64(rnd.IntN(5))}[rnd.IntN(5)]
			switch {
			case rnd.IntN(density) > 0:
			case rnd.IntN(5) == 0:
				s.histograms = append(s.histograms, stepText{step, []byte(`{"count":"1"}`)})
			case texts:
				s.texts = append(s.texts, stepText{step, fmt.Appendf(nil, `"%s"`, appendFloat(nil, v))})
			case units:
				s.add(step, next())
			default:
				s.steps, s.values = append(s.steps, step), append(s.values, v)
			}
		}
		w.add(&s)
	}
	x.body = w.body
	return x
}

// readExtent reads the points of an extent, by step and series.
func readExtent(t *testing.T, x *extent, into map[string]string) {
	t.Helper()
	r := newExtentReader(x)
	last := -1
	var before labels.Labels
	for n := 0; ; n++ {
		more, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
		if n > 0 && labels.Compare(before, r.at.labels) >= 0 {
			t.Fatalf("%s is behind %s", r.at.labels, before)
		}
		before, last = r.at.labels, -1
		for _, p := range r.at.asTexts() {
			if p.step <= last {
				t.Fatalf("step %d is behind %d", p.step, last)
			}
			last = p.step
			into[fmt.Sprintf("%03d%s", p.step, r.at.labels)] = string(p.text)
		}
		for _, p := range r.at.histograms {
			into[fmt.Sprintf("%03d%s", p.step, r.at.labels)] = string(p.text)
		}
	}
}

// FuzzExtent: whatever the bytes are, reading and writing them ends.
func FuzzExtent(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 1))
	f.Add(randomExtent(rnd, []labels.Labels{labels.FromStrings("a", "b")}, 3, 77).appendBlob(nil), false)
	f.Add([]byte{0, 0}, true)
	f.Add([]byte("\x01\x010\x010\x01"), true) // a chunk without a head
	f.Add([]byte{1, 1}, true)                 // a text that is as long as what is left with its length
	for range 20 {
		f.Add(randomExtent(rnd, []labels.Labels{labels.FromStrings("a", "b"), labels.FromStrings("c", "d")}, rnd.IntN(60), 77).body, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, asBody bool) {
		x, err := openExtent(b, nil)
		if asBody {
			x, err = &extent{hi: 1, body: b}, nil // what no checksum vouches for
		}
		if err != nil {
			return
		}
		r := newExtentReader(x)
		for range 1000 {
			if more, err := r.next(); !more || err != nil {
				break
			}
		}
		p := &recalled{span: span{to: extentSteps / 2}, extent: x, base: 9, start: t0, step: 15_000, reader: newExtentReader(x), before: separators{grid: gridOf{t0, 15_000, extentSteps}}}
		for range 1000 {
			if more, err := p.next(); !more || err != nil || !p.write(&jsonWriter{flush: func([]byte) error { return nil }}, floatPoints) {
				return
			}
		}
	})
}
