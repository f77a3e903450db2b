package query

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"mcached/mcache"
)

// Splitting: of a range query each step is evaluated by itself, so that some can
// be computed here and the others by the store, on the same grid.
//
//	store      ├──┼──┼──┼──┤              ├──┤           the two are joined by labels: upstream_join.go
//	memory                 ├──┼──┼──┼──┼──┤  ├──┼──┤
//	covered  ────┐        ┌───────────────┐  ┌────── ─ ─  what a step looks at must lie in one interval
//
// Of the store's steps those that it was asked before may be remembered:
// upstream_remember.go.
//
// What a step at t looks at is promql.FindMinMaxTime of the expression with
// Start = End = t, once all that depends on the query's own times is resolved.
// The bound is exact: one millisecond less gives other values.

// coverer is a Source that knows from when to when it has all that was written.
type coverer interface {
	Coverage(bucket string) []mcache.Interval
}

// completer is a Found that knows of a series, without reading it, from when on
// it is complete.
type completer interface {
	CompleteFrom(i int) int64
}

// knownComplete is that of a series that was found, as far as it is known.
func knownComplete(f Found, i int) int64 {
	if c, ok := f.(completer); ok {
		return c.CompleteFrom(i)
	}
	return math.MinInt64
}

const (
	// maxAsked bounds the ranges that the store is asked for one query.
	maxAsked = 4
	// minCoveredShare is the part of the steps below which the query goes to the
	// store as a whole: to join costs more than that part saves.
	minCoveredShare = 0.1
)

// origin is where steps come from.
type origin uint8

const (
	fromStore  origin = iota // which is asked for them
	fromRecall               // the store's, remembered
	fromMemory               // computed here
)

// span is a run of steps of one origin.
type span struct {
	from, to int // steps, to exclusive
	by       origin
}

// division is a range query that is split.
type division struct {
	grid     gridOf
	spans    []span // in order, of all steps
	text     string // what the store is asked for
	at       map[string]string
	lookback time.Duration // zero: the request's own, or the default
	metrics  []string
	windows  windows
	trusted  bool // its selectors are authoritative: there is no need to look at the seam

	emptyIsKnown bool // a selector matches nothing here, and nothing there

	recall *recall // nil if nothing of it may be remembered
}

// gridOf are the steps of a query.
type gridOf struct {
	start, step int64 // unix ms, ms
	n           int
}

func (g gridOf) time(step int) int64 { return g.start + int64(step)*g.step }

func gridOfQuery(s *slow) gridOf {
	start, step := s.start.UnixMilli(), s.step.Milliseconds()
	if step == 0 { // an instant
		return gridOf{start, 1, 1}
	}
	return gridOf{start, step, int((s.end.UnixMilli()-start)/step) + 1}
}

// window is the time that a step looks at, in unix ms, both ends included.
type window struct{ from, to int64 }

// windows tells what each step looks at.
type windows struct {
	grid  gridOf
	first window   // of step 0
	each  []window // of each step, if they do not all move alike
}

func (w *windows) of(step int) window {
	if w.each != nil {
		return w.each[step]
	}
	by := int64(step) * w.grid.step
	return window{w.first.from + by, w.first.to + by}
}

// windowsOf finds them for a resolved expression.
func windowsOf(expr parser.Expr, g gridOf, lookback time.Duration) windows {
	at := func(ms int64) window {
		t := time.UnixMilli(ms)
		from, to := promql.FindMinMaxTime(&parser.EvalStmt{Expr: expr, Start: t, End: t, LookbackDelta: lookback})
		return window{from, to}
	}
	w := windows{grid: g, first: at(g.start)}
	if !pinned(expr) {
		return w
	}
	w.each = make([]window, g.n)
	for i := range w.each {
		w.each[i] = at(g.time(i))
	}
	return w
}

// pinned reports that a selector or a subquery has a time of its own.
func pinned(expr parser.Expr) (found bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			found = found || n.Timestamp != nil
		case *parser.SubqueryExpr:
			found = found || n.Timestamp != nil
		}
		return nil
	})
	return found
}

// divide splits the steps by what is covered: those whose windows lie in one of
// the intervals, none of which reaches back beyond complete. The store's are
// recalled, as far as they are remembered. Nil means that the store is to answer all.
func divide(w *windows, intervals []mcache.Interval, complete int64, remembered *recall) []span {
	covered := func(step int) bool {
		at := w.of(step)
		if at.from < complete {
			return false
		}
		for i := range intervals {
			if x := &intervals[i]; x.From <= at.from && at.to <= x.To {
				return true
			}
		}
		return false
	}
	var spans []span
	for i := range w.grid.n {
		by := fromStore
		switch {
		case covered(i):
			by = fromMemory
		case remembered.has(i):
			by = fromRecall
		}
		spans = appendSpan(spans, span{i, i + 1, by})
	}
	spans = fewer(spans)
	steps := 0
	for _, s := range spans {
		switch {
		case s.by == fromMemory:
			steps += s.to - s.from
		case s.by == fromRecall, remembered.mayKeep(s.from), remembered.mayKeep(s.to - 1):
			return spans
		}
	}
	if steps == 0 || float64(steps) < minCoveredShare*float64(w.grid.n) {
		return nil
	}
	return spans
}

// appendSpan adds a span, to the last one if that has the same origin.
func appendSpan(spans []span, s span) []span {
	if n := len(spans); n > 0 && spans[n-1].by == s.by {
		spans[n-1].to = s.to
		return spans
	}
	return append(spans, s)
}

// fewer leaves no more than maxAsked spans to the store: it gives it the
// shortest of what lies between them.
func fewer(spans []span) []span {
	for {
		asked, last := 0, -1    // spans of the store; the last of them
		from, shortest := -1, 0 // what is given to it: what begins at from
		for i, s := range spans {
			if s.by != fromStore {
				continue
			}
			asked++
			if n := s.from - spans[max(last, 0)].to; last >= 0 && (from < 0 || n < shortest) {
				from, shortest = spans[last].to, n
			}
			last = i
		}
		if asked <= maxAsked {
			return spans
		}
		var joined []span
		for _, s := range spans {
			if from <= s.from && s.from < from+shortest {
				s.by = fromStore
			}
			joined = appendSpan(joined, s)
		}
		spans = joined
	}
}

// split plans how a range query is divided between memory and the store. Why it
// is not, if it is not, is for the log.
func (a *API) split(r *http.Request, s *slow) (d *division, why string) {
	if s.kind != "range" {
		return nil, "an instant query is one step"
	}
	u := a.upstream
	dialect := u.dialect.of(r.Context())
	text := r.FormValue("query")
	expr, err := a.parser.ParseExpr(text)
	if err != nil {
		return nil, "memory does not know the expression"
	}
	d = &division{grid: gridOfQuery(s), text: text, metrics: metricsOf(expr), lookback: dialect.lookback}
	if why := dialect.refuses(expr); why != "" {
		return nil, why
	}
	changes := contextual(expr)
	if expr, err = resolve(expr, s.start, s.end, s.step); err != nil {
		return nil, "the expression has no value"
	}
	if why := indivisible(expr); why != "" {
		return nil, why
	}
	if changes {
		d.text = expr.String()
		printed, err := a.parser.ParseExpr(d.text)
		if err != nil {
			return nil, "the resolved expression cannot be printed"
		}
		d.at = moved(expr, printed, text, d.text)
	} else {
		d.recall = a.recallOf(r, s, &dialect, d.grid)
	}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		return nil, "nothing is selected"
	}
	lookback := dialect.lookbackOf(a.limits.Load().lookback)
	if t, err := parseDuration(r.FormValue("lookback_delta")); err == nil && t > 0 {
		lookback = t
	}
	d.windows = windowsOf(expr, d.grid, lookback)
	if d.recall != nil {
		d.recall.windows = &d.windows
	}
	intervals, complete, why := a.coverageOf(r, d, selectors)
	if why != "" && d.recall == nil {
		return nil, why
	}
	if d.spans = divide(&d.windows, intervals, complete, d.recall); d.spans == nil {
		return nil, "too few steps are covered"
	}
	if len(d.spans) == 1 && d.spans[0].by == fromMemory {
		return nil, "" // all is covered, by now
	}
	d.trusted = u.trusts(selectors)
	return d, ""
}

// coverageOf is what memory covers of a query. Why memory is to compute none of
// its steps, if that is so, is for the log.
func (a *API) coverageOf(r *http.Request, d *division, selectors [][]*labels.Matcher) (_ []mcache.Interval, complete int64, why string) {
	bucket := a.bucket(r)
	if a.upstream.paused.has(bucket, d.metrics, a.o.Now()) {
		return nil, 0, "memory and store disagreed a short time ago"
	}
	intervals, ok := a.intervals(bucket)
	if !ok {
		return nil, 0, "this source does not know what it covers"
	}
	whole := window{math.MaxInt64, math.MinInt64}
	for _, step := range [...]int{0, d.grid.n - 1} {
		at := d.windows.of(step)
		whole = window{min(whole.from, at.from), max(whole.to, at.to)}
	}
	complete, empty, err := a.completeness(r.Context(), bucket, selectors, whole)
	if err != nil {
		return nil, 0, "memory cannot select"
	}
	if len(empty) > 0 {
		if !a.nothingThere(r, bucket, empty, whole) {
			return nil, 0, "a selector matches nothing here"
		}
		d.emptyIsKnown = true
	}
	return intervals, complete, ""
}

// intervals are those of what a bucket covers. A source that has no clock
// claims nothing, and denies nothing.
func (a *API) intervals(bucket string) (list []mcache.Interval, ok bool) {
	c, ok := a.sourceOf(bucket).(coverer)
	if !ok {
		return nil, false
	}
	return c.Coverage(bucket), true
}

// completeness is from when on what the selectors match is complete, as far as
// that is known without reading it, and which of them match nothing.
func (a *API) completeness(ctx context.Context, bucket string, selectors [][]*labels.Matcher, at window) (complete int64, empty [][]*labels.Matcher, err error) {
	complete = math.MinInt64
	for _, ms := range selectors {
		found, err := a.sourceOf(bucket).Select(ctx, Selection{Bucket: bucket, Matchers: ms, From: at.from, To: at.to, LabelsOnly: true})
		if err != nil {
			return 0, nil, err
		}
		n := found.Len()
		if n == 0 {
			empty = append(empty, ms)
		}
		complete = max(complete, found.Missing().Gone)
		for i := range n {
			complete = max(complete, knownComplete(found, i))
		}
	}
	return complete, empty, nil
}
