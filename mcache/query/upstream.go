package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Reading through: instant and range queries that memory cannot answer as a
// whole are asked of the store behind, a server of Prometheus' API. Its answer is
// passed on unchanged, be it an error. A query goes there if
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
// A range query of which memory has some steps is split: see upstream_split.go.
//
// Series, labels, metadata and exemplars are those of both: see
// upstream_lookup.go. Remote reads are handed on whole: see upstream_read.go; to a
// store that has none they are queries: see upstream_raw.go.

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
	// MaxBodyBytes bounds an answer, as received. Default: 1 GiB.
	MaxBodyBytes int64
	// When says when the store is asked. Default: WhenMissing. A request says
	// otherwise by its parameter "upstream".
	When When
	// Authoritative are selectors of what memory has whenever the store has it:
	// a query of nothing else is split unseen, and if memory has nothing, there is
	// nothing. Default: none.
	Authoritative [][]*labels.Matcher
	// DropLabels are labels that series here have and there have not: those that
	// senders add. Answers have them neither. Default: none.
	DropLabels []string
	// TenancyHeader is handed on. Default: none.
	TenancyHeader string
	// Memory is for what the store answered. Default: nothing is remembered.
	Memory Remembers
	// MemoryBytes is how much Memory may hold, now: an answer that takes more than
	// a quarter of it is not remembered, nor one that takes more than 64 MiB.
	// Default: any amount.
	MemoryBytes func() int64
	// Settled is how old what a step looks at must be for the store's answer to
	// be remembered: until then out-of-order samples may come. Default: nothing is.
	Settled time.Duration
	// Audit is the share, from 0 to 1, of the queries answered from memory that the
	// store is asked as well, to be compared. Default: none.
	Audit float64
}

// When says when the store is asked.
type When string

const (
	WhenMissing When = "missing" // for what memory lacks
	WhenNever   When = "never"
	WhenAlways  When = "always" // for everything
)

// whenParam is the parameter of a request that says when the store is asked for
// it, so that a person can compare.
const whenParam = "upstream"

const (
	// hopHeader is on requests from one daemon to what it takes for a store.
	hopHeader = "X-Mcached-Hop"
	// sourceHeader says where an answer is from, where that can be two places.
	sourceHeader = "X-Mcached-Source"

	sourceMemory   = "memory"
	sourceUpstream = "upstream"
	sourceBoth     = "both"
)

// upstream asks the store.
type upstream struct {
	log     *slog.Logger
	now     atomic.Pointer[UpstreamOptions] // in force
	slots   *slots                          // of requests
	breaker breaker
	dialect learner
	paused  paused

	strangers paused // metrics of which the store has nothing, as was said

	nothings nothings
	large    paused // keys of answers that are too large to be remembered
	maxText  int    // of those that are not

	generation atomic.Uint64 // of what is remembered
	auditor    auditor
	recorder   recorder
	parcels    parcels
	extents    sync.Pool // of *extent, whose series nobody reads

	answered, refused, failed, skipped atomic.Uint64 // requests
	bytes, nanoseconds                 atomic.Uint64 // of answers; until their heads
	stepsHere, stepsAsked              atomic.Uint64 // of range queries
	split, disagreed                   atomic.Uint64
	stepsRecalled, kept                atomic.Uint64

	auditsAgreed, auditsDiffered, auditsFailed, auditsSkipped atomic.Uint64
}

func newUpstream(o UpstreamOptions, now func() time.Time, f Features, log *slog.Logger) *upstream {
	o = o.withDefaults()
	u := &upstream{log: log, slots: newSlots(o.MaxConcurrency), auditor: newAuditor(), maxText: maxRememberedText}
	u.now.Store(&o)
	u.recorder.init(runtime.GOMAXPROCS(0))
	u.dialect = learner{u: u, now: now, features: f}
	return u
}

func (o UpstreamOptions) withDefaults() UpstreamOptions {
	setDefault(&o.When, WhenMissing)
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.MaxConcurrency, 10)
	setDefault(&o.MaxBodyBytes, 1<<30)
	if o.Client == nil {
		o.Client = &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: o.MaxConcurrency},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return o
}

// Stop ends what is done beside requests, audits of answers and the recording of
// the store's, waits for it, and has none begun again. Nothing else of the API is
// affected. It must come before UpstreamOptions.Memory goes.
func (a *API) Stop() {
	if a.upstream == nil {
		return
	}
	a.upstream.auditor.end()
	a.upstream.recorder.end()
}

// opts are those in force.
func (u *upstream) opts() *UpstreamOptions { return u.now.Load() }

// SetUpstream replaces the options of the store behind, all but Memory and
// MemoryBytes, for requests that come from now on, and forgets what it answered,
// where it disagreed, that it failed and, if it is another, what it is. There must
// be a store.
func (a *API) SetUpstream(o UpstreamOptions) {
	u := a.upstream
	before := u.opts()
	o = o.withDefaults()
	o.Memory, o.MemoryBytes = before.Memory, before.MemoryBytes
	u.now.Store(&o)
	u.slots.set(o.MaxConcurrency)
	u.forgetAnswers()
	// Behind the generation, by which the learner knows what is of the store before.
	if o.URL.String() == before.URL.String() {
		u.dialect.forget()
	} else {
		u.dialect.renew()
	}
	u.breaker.renew()
	u.paused.forget()
	u.strangers.forget()
	u.nothings.forget()
}

// sayAway and sayBack log that the store does not answer, and that it does again: once each.
func (u *upstream) sayAway(err error) {
	u.log.Warn("The store behind does not answer: what memory lacks is missing from answers until it does.", "url", u.opts().URL.Redacted(), "err", err)
}

func (u *upstream) sayBack() {
	u.log.Info("The store behind answers again.", "url", u.opts().URL.Redacted())
}

// forgetAnswers has nothing that the store said used any more.
func (u *upstream) forgetAnswers() {
	u.generation.Add(1)
	if m := u.opts().Memory; m != nil {
		m.Clear()
	}
}

// Upstream asks the store behind what it is, if that is not known, and says so. One that
// did not answer is asked again when AskAgainAfter has passed.
func (a *API) Upstream(ctx context.Context) Dialect {
	d := a.upstream.dialect.of(ctx)
	return d.Dialect
}

// AskUpstream asks a server what it is.
func AskUpstream(ctx context.Context, o UpstreamOptions, f Features) Dialect {
	d := newUpstream(o, time.Now, f, slog.New(slog.DiscardHandler)).dialect.of(ctx)
	return d.Dialect
}

// when says when the store is asked for what a request wants.
func (u *upstream) when(asked string) (When, error) {
	switch w := When(asked); w {
	case "":
		return u.opts().When, nil
	case WhenMissing, WhenNever, WhenAlways:
		return w, nil
	default:
		return "", badParam(whenParam, fmt.Errorf("%.30q is none of missing, never and always", w))
	}
}

// readThrough answers a query from memory if that has all of it, else from the
// store, or from both.
func (a *API) readThrough(r *http.Request, s slow) (answer, error) {
	when, err := a.upstream.when(r.FormValue(whenParam))
	if err != nil {
		return answer{}, err
	}
	s.arrived, s.expr, s.stats = a.o.Now(), r.FormValue("query"), r.FormValue("stats")
	switch {
	case when == WhenNever:
		here, err := a.evaluate(r, s)
		here.source = sourceMemory
		return here, err
	case when == WhenAlways:
		return a.fromStore(r, s, true)
	case a.uncovered(r, &s):
		return a.fromBoth(r, s)
	}
	here, err := a.evaluate(r, s)
	if here.source = sourceMemory; !lacks(here, err) || onlyEmpty(here, err) && a.emptyEverywhere(r, &s) {
		a.upstream.stepsHere.Add(uint64(gridOfQuery(&s).n))
		if err == nil {
			a.consider(r, &s)
		}
		return here, err
	}
	if here.close != nil {
		here.close()
	}
	return a.fromBoth(r, s)
}

// fromStore is the store's answer as a whole, or what memory has. If it is not wanted
// anyway, that of a stranger is not taken.
func (a *API) fromStore(r *http.Request, s slow, anyway bool) (answer, error) {
	v, res, failure := a.askWhole(r)
	if failure != nil {
		here, err := a.evaluate(r, s)
		return fallBack(here, err, failure)
	}
	got := a.handOn(res, v.end)
	if res.empty && !anyway {
		if here, ok := v.instead(s); ok {
			got.close()
			return here, nil
		}
	}
	a.upstream.stepsAsked.Add(uint64(gridOfQuery(&s).n))
	s.parts = &partTimes{store: a.o.Now().Sub(s.arrived)}
	a.tell(r, s)
	return got, nil
}

// fromBoth splits a query, if it can be.
func (a *API) fromBoth(r *http.Request, s slow) (answer, error) {
	d, why := a.split(r, &s)
	if d == nil {
		a.o.Logger.Debug("A query goes to the store behind as a whole.", "why", why)
		return a.fromStore(r, s, false)
	}
	got, err := a.join(r, &s, d)
	if err == nil {
		return got, nil
	}
	if whole := new(wholeError); errors.As(err, &whole) {
		a.o.Logger.Debug("A query goes to the store behind as a whole.", "why", err)
		return a.fromStore(r, s, false)
	}
	here, e := a.evaluate(r, s)
	return fallBack(here, e, err)
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
		here.notes.Add(noStore(failure))
	}
	return here, err
}

// noStore is the warning that goes with what memory has.
func noStore(failure error) error {
	return fmt.Errorf("the store behind did not answer, this is what is in memory: %w", failure)
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
	_, at, ok := a.looksAt(r, s)
	return ok && a.lacksTime(a.bucket(r), at.from, at.to)
}

// onlyEmpty reports that all there is to lack is that a selector matches nothing.
func onlyEmpty(here answer, err error) bool {
	if err != nil {
		return false
	}
	_, incomplete := here.read.CompleteFrom()
	return !incomplete
}

// looksAt is what a query selects, and of what time; not ok if it is nothing.
func (a *API) looksAt(r *http.Request, s *slow) (selectors [][]*labels.Matcher, at window, ok bool) {
	expr, err := a.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return nil, at, false
	}
	if selectors = parser.ExtractSelectors(expr); len(selectors) == 0 {
		return nil, at, false
	}
	expr, err = promql.PreprocessExpr(expr, s.start, s.end, s.step)
	if err != nil {
		return nil, at, false
	}
	known := a.upstream.dialect.peek()
	lookback := known.lookbackOf(a.limits.Load().lookback)
	if d, err := parseDuration(r.FormValue("lookback_delta")); err == nil && d > 0 {
		lookback = d
	}
	at.from, at.to = promql.FindMinMaxTime(&parser.EvalStmt{Expr: expr, Start: s.start, End: s.end, Interval: s.step, LookbackDelta: lookback})
	return selectors, at, true
}
