package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Reading through: instant and range queries that memory cannot answer as a
// whole are asked of the store behind, a server of Prometheus' API. Its answer is
// handed on as it came, its refusal of a query included. A query goes there if
//
//   - the time that it looks at has a part that this process does not cover,
//   - something that it read was evicted or reclaimed,
//   - one of its selectors matches nothing here: recording rules, and what
//     write_relabel_configs drop, are only there,
//   - or this parser does not know it, and the store's might.
//
// When the store is down, slow, or says what no such server says, the answer is
// what memory has, with the warning that tells what is missing and one more. A
// store that fails again and again is left alone for a while. A query that was
// sent here by another daemon goes no further: if memory cannot answer it, that
// is status 508.
//
// Queries are not divided yet: what memory has of an answer that the store gives
// is not used, and series, labels, metadata, exemplars and remote reads are those
// of memory.

// UpstreamOptions say what is behind; the zero value of a field means its default.
type UpstreamOptions struct {
	// URL is where its API begins, without /api/v1. It must be absolute.
	URL *url.URL
	// Client sends the requests. It must not follow redirects. Default: one that has no proxy.
	Client *http.Client
	// Timeout bounds the time from a request to the head of its answer, and then
	// between two parts of the answer. Default: 30 seconds.
	Timeout time.Duration
	// MaxConcurrency bounds the requests at a time; others wait, for no longer
	// than Timeout. Default: 10.
	MaxConcurrency int
	// MaxBodyBytes bounds an answer as it comes. Default: 1 GiB.
	MaxBodyBytes int64
	// Always asks the store for everything. Default: only for what memory lacks.
	Always bool
	// TenancyHeader is handed on. Default: none.
	TenancyHeader string
}

const (
	// hopHeader is on requests from one daemon to what it takes for a store.
	hopHeader = "X-Mcached-Hop"
	// sourceHeader says where an answer is from, where that can be two places.
	sourceHeader = "X-Mcached-Source"

	sourceMemory   = "memory"
	sourceUpstream = "upstream"
)

// upstream asks the store.
type upstream struct {
	o       UpstreamOptions
	slots   chan struct{}
	breaker breaker

	answered, refused, failed, skipped atomic.Uint64
}

func newUpstream(o UpstreamOptions) *upstream {
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.MaxConcurrency, 10)
	setDefault(&o.MaxBodyBytes, 1<<30)
	if o.Client == nil {
		o.Client = &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: o.MaxConcurrency},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &upstream{o: o, slots: make(chan struct{}, o.MaxConcurrency)}
}

// readThrough answers a query from memory if that has all of it, else from the store.
func (a *API) readThrough(r *http.Request, s slow) (answer, error) {
	if a.upstream.o.Always || a.uncovered(r, &s) {
		got, failure := a.askUpstream(r)
		if failure == nil {
			return got, nil
		}
		here, err := a.evaluate(r, s)
		return fallBack(here, err, failure)
	}
	here, err := a.evaluate(r, s)
	if here.source = sourceMemory; !lacks(here, err) {
		return here, err
	}
	got, failure := a.askUpstream(r)
	if failure != nil {
		return fallBack(here, err, failure)
	}
	if here.close != nil {
		here.close()
	}
	return got, nil
}

// fallBack is the answer of memory where the store's was wanted. Only for a
// query that must go no further there is none.
func fallBack(here answer, err, failure error) (answer, error) {
	if loop := new(apiError); errors.As(failure, &loop) {
		if here.close != nil {
			here.close()
		}
		return answer{}, loop
	}
	if err == nil {
		here.source = sourceMemory
		here.notes.Add(fmt.Errorf("the store behind did not answer, this is what is in memory: %w", failure))
	}
	return here, err
}

// lacks reports that the store may know more than an answer from memory.
func lacks(here answer, err error) bool {
	if err != nil {
		parse := parser.ParseErrors{}
		return errors.As(err, &parse)
	}
	_, incomplete := here.read.CompleteFrom()
	return incomplete || here.read.empty.Load()
}

// uncovered reports that a query looks at a time of which this process knows
// that it does not have all: then there is no use in evaluating it here first.
func (a *API) uncovered(r *http.Request, s *slow) bool {
	bucket := a.bucket(r)
	source, ok := a.sourceOf(bucket).(interface {
		CoveredFrom(bucket string, from, to int64) (complete int64, ok bool)
	})
	if !ok {
		return false
	}
	expr, err := a.parser.ParseExpr(r.FormValue("query"))
	if err != nil || len(parser.ExtractSelectors(expr)) == 0 {
		return false
	}
	expr, err = promql.PreprocessExpr(expr, s.start, s.end, s.step)
	if err != nil {
		return false
	}
	lookback := a.o.LookbackDelta
	if d, err := parseDuration(r.FormValue("lookback_delta")); err == nil && d > 0 {
		lookback = d
	}
	from, to := promql.FindMinMaxTime(&parser.EvalStmt{Expr: expr, Start: s.start, End: s.end, Interval: s.step, LookbackDelta: lookback})
	_, missing := source.CoveredFrom(bucket, from, to)
	return missing
}

// errLoop is the answer to a query that came from another daemon.
var errLoop = &apiError{errorType{"unavailable", http.StatusLoopDetected},
	errors.New("this query came from another mcached and memory lacks it: queries are passed on once only")}

// askUpstream sends the query of a request to the store. An error says why there
// is no answer; one that is an *apiError must be the answer.
func (a *API) askUpstream(r *http.Request) (answer, error) {
	u := a.upstream
	if r.Header.Get(hopHeader) != "" {
		return answer{}, errLoop
	}
	if !u.breaker.allows(a.o.Now()) {
		u.skipped.Add(1)
		return answer{}, errors.New("it failed several times and is not retried yet")
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	late := time.AfterFunc(u.o.Timeout, func() { cancel(fmt.Errorf("no answer within %s", u.o.Timeout)) })
	select {
	case u.slots <- struct{}{}:
	case <-ctx.Done():
		cancel(nil)
		u.breaker.forget()
		u.failed.Add(1)
		return answer{}, fmt.Errorf("%d requests to it are under way: %w", u.o.MaxConcurrency, context.Cause(ctx))
	}
	end := func() { late.Stop(); cancel(nil); <-u.slots }
	res, err := u.send(ctx, r)
	if err == nil {
		if err = checkAnswer(res); err != nil {
			res.Body.Close()
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		end()
		if u.failed.Add(1); r.Context().Err() == nil {
			u.breaker.failed(a.o.Now())
		} else {
			u.breaker.forget() // the client went away, which says nothing of the store
		}
		a.o.Logger.Debug("The store behind did not answer.", "err", err)
		return answer{}, err
	}
	u.breaker.answered()
	if res.StatusCode == http.StatusOK {
		u.answered.Add(1)
	} else {
		u.refused.Add(1)
	}
	return answer{
		source: sourceUpstream,
		handOn: func(w http.ResponseWriter) { u.handOn(w, res, late) },
		close:  func() { res.Body.Close(); end() },
	}, nil
}

// send repeats the request as it came, in the body of a POST.
func (u *upstream) send(ctx context.Context, r *http.Request) (*http.Response, error) {
	to := u.o.URL.JoinPath(r.URL.Path)
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(r.Form.Encode()))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	q.Header.Set(hopHeader, "1")
	q.Header.Set("Accept-Encoding", "identity")
	if acceptsGzip(r) {
		q.Header.Set("Accept-Encoding", "gzip")
	}
	if h := u.o.TenancyHeader; h != "" && r.Header.Get(h) != "" {
		q.Header.Set(h, r.Header.Get(h))
	}
	res, err := u.o.Client.Do(q)
	if failed := new(url.Error); errors.As(err, &failed) {
		err = failed.Err // the rest is the URL, which clients need not know
	}
	return res, err
}

// checkAnswer tells answers of Prometheus' API from those of proxies, login
// pages, and servers that are in trouble.
func checkAnswer(res *http.Response) error {
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch code := res.StatusCode; {
	case code >= 300 && code < 400:
		return fmt.Errorf("it redirects (%d) to %.100q", code, res.Header.Get("Location"))
	case code != http.StatusOK && code != http.StatusBadRequest && code != http.StatusUnprocessableEntity:
		return fmt.Errorf("it answers with status %d", code)
	case err != nil || kind != "application/json":
		return fmt.Errorf("it answers %.100q, not JSON", res.Header.Get("Content-Type"))
	}
	return nil
}

// handOn sends the store's answer to the client. If it breaks off, so does ours.
func (u *upstream) handOn(w http.ResponseWriter, res *http.Response, late *time.Timer) {
	for _, h := range [...]string{"Content-Type", "Content-Encoding", "Content-Length"} {
		if v := res.Header.Get(h); v != "" {
			w.Header().Set(h, v)
		}
	}
	w.WriteHeader(res.StatusCode)
	control := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for left := u.o.MaxBodyBytes; ; {
		late.Reset(u.o.Timeout)
		n, err := res.Body.Read(buf)
		if left -= int64(n); left < 0 {
			panic(http.ErrAbortHandler)
		}
		_ = control.SetWriteDeadline(time.Now().Add(u.o.Timeout)) // not every writer has deadlines
		if _, e := w.Write(buf[:n]); e != nil {
			return // the client has gone
		}
		if err == io.EOF {
			_ = finish(w)
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// breaker leaves a server alone that has failed several times running: for a
// second, and then twice as long each time, until one request has succeeded.
type breaker struct {
	mu       sync.Mutex
	failures int
	until    time.Time // while it is open
	trying   bool      // one request looks whether it is better
}

const (
	breakerFailures = 3
	breakerMin      = time.Second
	breakerMax      = 30 * time.Second
)

// allows reports whether a request may be sent; answered, failed or forget must
// be called with what became of it.
func (b *breaker) allows(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakerFailures {
		return true
	}
	if b.trying || now.Before(b.until) {
		return false
	}
	b.trying = true
	return true
}

func (b *breaker) answered() {
	b.mu.Lock()
	b.failures, b.trying = 0, false
	b.mu.Unlock()
}

func (b *breaker) failed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	b.failures++
	if more := b.failures - breakerFailures; more >= 0 {
		wait := float64(breakerMin) * math.Pow(2, float64(min(more, 10)))
		b.until = now.Add(min(time.Duration(wait), breakerMax))
	}
}

// forget is for a request that says nothing of the server.
func (b *breaker) forget() {
	b.mu.Lock()
	b.trying = false
	b.mu.Unlock()
}
