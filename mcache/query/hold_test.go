package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
)

// purse is an Admission of one sum, which remembers the most that was lent.
type purse struct {
	limit int64

	mu         sync.Mutex
	held, most int64
}

func (p *purse) open() Loan { return &purseLoan{p: p} }

func (p *purse) read() (held, most int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held, p.most
}

type purseLoan struct {
	p *purse
	n int64
}

type noRoom struct {
	asked int64
	ever  bool
}

func (e noRoom) Error() string                     { return fmt.Sprintf("no room for %d bytes", e.asked) }
func (e noRoom) RetryAfter() (time.Duration, bool) { return 7 * time.Second, e.ever }

func (l *purseLoan) Take(_ context.Context, n int64) error {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if n < 0 {
		panic(n)
	}
	if l.p.held+n > l.p.limit {
		return noRoom{n, l.n+n <= l.p.limit}
	}
	l.n += n
	l.p.held += n
	l.p.most = max(l.p.most, l.p.held)
	return nil
}

func (l *purseLoan) Keep(n int64) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.n > n {
		l.p.held -= l.n - n
		l.n = n
	}
}

func (l *purseLoan) Held() int64 {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.n
}

func (l *purseLoan) Release() { l.Keep(0) }

// What a query allocates by its steps is counted before it runs.
func TestSubqueriesAreCountedBeforeTheyRun(t *testing.T) {
	for expr, want := range map[string]int64{
		"sum_over_time(vector(1)[5d:10ms])":                                               43_200_000,
		"sum_over_time(vector(time())[1h:1s])":                                            3_600,
		"max_over_time(sum_over_time(vector(1)[1d:1m])[1d:1m])":                           2_880,
		"sum_over_time(absent(nothing)[1d:1s])":                                           86_400,
		"sum_over_time(vector(1)[1d:1s] @ 5)":                                             86_400,
		"sum_over_time((up + on() group_left scalar(up))[1h:1s])":                         3_600,
		"sum_over_time(vector(1)[1000000h:1ms]) + sum_over_time(vector(1)[1000000h:1ms])": 7_200_000_000_000,
	} {
		e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
		if err != nil {
			t.Fatal(expr, err)
		}
		at := time.Unix(1e9, 0)
		got := literalBytes(&parser.EvalStmt{Expr: e, Start: at, End: at}, time.Minute)
		if got < want*stepBytes || got > 8*want*stepBytes {
			t.Errorf("%s: %d bytes, want at least %d steps of %d", expr, got, want, stepBytes)
		}
	}
	e, err := parser.NewParser(parser.Options{}).ParseExpr("rate(up[1h]) + avg_over_time(up[5d:1s])")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1e9, 0)
	if got := literalBytes(&parser.EvalStmt{Expr: e, Start: at, End: at.Add(time.Hour), Interval: time.Second}, time.Minute); got != 0 {
		t.Errorf("what selects is counted when it does: %d bytes", got)
	}
}

func TestStepsOf(t *testing.T) {
	for _, c := range [][5]int64{{0, 100, 0, 0, 1}, {0, 100, 0, 10, 11}, {0, 100, 40, 10, 7}, {50, 0, 0, 10, 1}, {0, 5, 10, 1, 1}} {
		if got := stepsOf(c[0], c[1], c[2], c[3]); got != c[4] {
			t.Errorf("%v: %d", c, got)
		}
	}
}

// heldAPI reads 200 series of 240 samples, 15 s apart, within a purse.
func heldAPI(t *testing.T, limit int64) (*API, *purse) {
	c := newCache(t)
	for i := range 200 {
		fill(t, c, "default", 15_000, ramp(240, float64(i), 1), "__name__", "m", "i", fmt.Sprint(i))
	}
	p := &purse{limit: limit}
	o := testOptions()
	o.Admission = p.open
	return NewAPI(c, o), p
}

// Each of these would take more than there is, and is told so; afterwards
// nothing is held, and what is small is answered.
func TestQueriesAreRefusedForWantOfRoom(t *testing.T) {
	const limit = 1 << 20
	a, p := heldAPI(t, limit)
	hour := []string{"start", seconds(t0), "end", seconds(t0 + 3600_000), "step", "1"}
	for _, c := range []struct {
		path string
		args []string
	}{
		{"query", []string{"query", "sum_over_time(vector(1)[5d:10ms])"}},
		{"query", []string{"query", "sum_over_time(m[1h:1s])"}},
		{"query", []string{"query", "sum_over_time(m[30d:10ms])"}},
		{"query_range", append(hour, "query", "m")},
		{"query_range", append(hour, "query", "sin(m)*2")},
		{"query_range", append(hour, "query", "rate(m[1m])")},
		{"query_range", append(hour, "query", "sum by (i) (m)")},
		{"query_range", append(hour, "query", "sin(sum by (i) (rate(m[1m])))")},
	} {
		w := get(t, a, c.path, c.args...)
		if w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %.200s", c.args, w.Code, w.Body)
		}
		if held, most := p.read(); held != 0 || most > limit || most == 0 {
			t.Errorf("%s: %d bytes are held, %d were", c.args, held, most)
		}
	}
	everything := &prompb.ReadRequest{}
	for range 20 {
		everything.Queries = append(everything.Queries, &prompb.Query{EndTimestampMs: t0 + 3600_000, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "m"}}})
	}
	if w := readRequest(t, a, everything); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("remote read: %d %.200s", w.Code, w.Body)
	}
	// Chunks go out as they are read.
	everything.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS}
	if w := readRequest(t, a, everything); w.Code != http.StatusOK || w.Body.Len() < 1<<20 {
		t.Errorf("streamed remote read: %d %.200s", w.Code, w.Body)
	}
	for _, c := range [][]string{{"query", "query", "m"}, {"query", "query", "sum(rate(m[5m]))"}, {"labels"}, {"label/i/values"}, {"series", "match[]", "m"},
		// A month at one-second steps, of which there is an hour of two series.
		{"query", "query", `sum_over_time(m{i=~"1|2"}[30d:1s])`}} {
		if w := get(t, a, c[0], c[1:]...); w.Code != http.StatusOK {
			t.Errorf("%s: %d %.200s", c, w.Code, w.Body)
		}
	}
	if held, _ := p.read(); held != 0 {
		t.Errorf("%d bytes are still held", held)
	}
}

// A request that finds no room now is rejected with a time to retry.
func TestQueriesAreToldWhenToComeAgain(t *testing.T) {
	a, p := heldAPI(t, 1<<20)
	other := p.open()
	if err := other.Take(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"query", "labels"} {
		if w := get(t, a, path, "query", "m"); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "7" {
			t.Errorf("%s: %d, Retry-After %q, %s", path, w.Code, w.Header().Get("Retry-After"), w.Body)
		}
	}
	other.Release()
	if w := get(t, a, "query", "query", "m"); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// stuck is a client that does not take its answer until it is told to.
type stuck struct {
	*httptest.ResponseRecorder
	begun, go_ chan struct{}
	once       sync.Once
}

func (s *stuck) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.begun); <-s.go_ })
	return s.ResponseRecorder.Write(b)
}

// An answer that waits for its reader keeps what it holds, and no more.
func TestUnreadAnswersKeepTheirLoan(t *testing.T) {
	a, p := heldAPI(t, 1<<30)
	for _, target := range []string{
		"query_range?query=m&start=" + seconds(t0) + "&end=" + seconds(t0+3600_000) + "&step=10",
		"query_range?query=sin(m)&start=" + seconds(t0) + "&end=" + seconds(t0+3600_000) + "&step=10",
	} {
		w := &stuck{ResponseRecorder: httptest.NewRecorder(), begun: make(chan struct{}), go_: make(chan struct{})}
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/"+target, nil))
		}()
		<-w.begun
		const points = 200 * 361
		if held, _ := p.read(); held < 8*points || held > 2*pointBytes*points {
			t.Errorf("%s: %d bytes are held for %d points", target, held, points)
		}
		close(w.go_)
		<-done
		if held, _ := p.read(); held != 0 || w.Code != http.StatusOK {
			t.Errorf("%s: %d bytes are still held, %d", target, held, w.Code)
		}
	}
}

func TestReadQueriesAreBounded(t *testing.T) {
	a, _ := heldAPI(t, 1<<30)
	r := &prompb.ReadRequest{}
	for range 101 {
		r.Queries = append(r.Queries, &prompb.Query{})
	}
	wantBody(t, readRequest(t, a, r), 400, "too many queries in one remote read: 101, at most 100 (MaxReadQueries): ask in several\n")
}

func TestRefusalsAreErrorsOfTheAPI(t *testing.T) {
	for later, want := range map[bool]errorType{true: errorUnavailable, false: errorExec} {
		if e := asAPIError(fmt.Errorf("expanding series: %w", noRoom{1, later})); e.typ != want || !errors.As(e, new(refusal)) {
			t.Errorf("%v: %v", later, e)
		}
	}
}
