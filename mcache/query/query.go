package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
)

// query answers an instant query.
func (a *API) query(r *http.Request) (answer, error) {
	a.counts.instant.Add(1)
	at, err := timeParam(r, "time", a.o.Now())
	if err != nil {
		return answer{}, err
	}
	return a.answerQuery(r, slow{kind: "instant", start: at, end: at})
}

// queryRange answers a range query.
func (a *API) queryRange(r *http.Request) (answer, error) {
	a.counts.ranges.Add(1)
	start, err := parseTime(r.FormValue("start"))
	if err != nil {
		return answer{}, badParam("start", err)
	}
	end, err := parseTime(r.FormValue("end"))
	if err != nil {
		return answer{}, badParam("end", err)
	}
	if end.Before(start) {
		return answer{}, badParam("end", errors.New("end timestamp must not be before start time"))
	}
	step, err := parseDuration(r.FormValue("step"))
	if err != nil {
		return answer{}, badParam("step", err)
	}
	if step <= 0 {
		return answer{}, badParam("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if step < time.Millisecond { // Prometheus divides by zero
		return answer{}, badParam("step", fmt.Errorf("a step of less than a millisecond is not accepted, got %s", step))
	}
	if end.Sub(start)/step > maxPoints {
		return answer{}, badData(errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	return a.answerQuery(r, slow{kind: "range", start: start, end: end, step: step})
}

// computed is a query that was run here, which must be closed.
type computed struct {
	query   evaluation
	result  *promql.Result
	read    *Queryable
	samples int64  // that were read
	stats   string // that were asked for
}

// some reports that there is a series in the result.
func (c *computed) some() bool {
	switch v := c.result.Value.(type) {
	case promql.Vector:
		return len(v) > 0
	case promql.Matrix:
		return len(v) > 0
	}
	return false
}

// evaluate answers a query, or a part of one, from memory, and tells of a whole
// one if it was slow. Of the request's loan it leaves what the result takes and,
// for a part, what the other parts do.
func (a *API) evaluate(r *http.Request, s slow) (got answer, err error) {
	c := &computed{}
	if s.of == nil {
		s.arrived, s.expr, s.stats = a.o.Now(), r.FormValue("query"), r.FormValue("stats")
		defer func() {
			s.read, s.samples, s.err = c.read, c.samples, err
			a.tell(r, s)
		}()
	}
	limit, err := limitParam(r)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel, err := a.withTimeout(r)
	if err != nil {
		return answer{}, err
	}
	defer cancel()
	opts, err := a.queryOpts(r)
	if err != nil {
		return answer{}, badData(err)
	}
	held := int64(answerBytes)
	if s.of != nil {
		held = loanOf(r.Context()).Held()
	}
	c.read, c.stats = a.queryable(r), s.stats
	c.read.byLabels, c.read.results = s.of != nil, a.resultsFor(r)
	if c.query, err = a.prepare(ctx, c.read, opts, &s); err != nil {
		return answer{}, badParam("query", err)
	}
	// The turn ends with the evaluation: a client that reads slowly keeps nobody waiting.
	if err = a.awaitTurn(ctx, &s); err != nil {
		return answer{}, err
	}
	defer a.queries.leave()
	for {
		if err = c.takeLiterals(ctx, a.o.SubqueryStep); err == nil {
			c.result = c.query.Exec(ctx)
			err = c.judge()
		}
		if err == nil {
			break
		}
		c.query.Close()
		if !errors.Is(err, errUnplanned) || c.read.unplanned {
			return answer{}, err
		}
		c.read = a.queryable(r)
		c.read.byLabels, c.read.unplanned = s.of != nil, true
		c.read.loan.Keep(held)
		if c.query, err = a.prepare(ctx, c.read, opts, &s); err != nil {
			return answer{}, badParam("query", err)
		}
	}
	c.read.loan.Keep(held + resultBytes(c.result.Value))
	c.samples += c.query.Stats().Samples.SamplesRead
	a.counts.samples.Add(uint64(c.samples))
	if truncate(c.result, limit) {
		c.result.Warnings.Add(errTruncated)
	}
	if note := statsNote(s.stats); note != nil {
		c.result.Warnings.Add(note)
	}
	return answer{
		data: c.write, maxBytes: maxJSONBytes(c.result.Value),
		notes: c.result.Warnings, query: s.expr, read: c.read, ran: c, close: c.query.Close,
	}, nil
}

// awaitTurn waits until a query may run; the caller must leave a.queries then.
// The time is added to s.waited.
func (a *API) awaitTurn(ctx context.Context, s *slow) error {
	came := a.o.Now()
	err := a.queries.enter(ctx)
	s.waited += a.o.Now().Sub(came)
	if errors.Is(err, context.DeadlineExceeded) {
		return promql.ErrQueryTimeout("query queue")
	}
	return err
}

// takeLiterals takes from the loan what the engine takes for literals.
func (c *computed) takeLiterals(ctx context.Context, subqueryStep time.Duration) error {
	if q, ok := c.query.(promql.Query); ok {
		if stmt, ok := q.Statement().(*parser.EvalStmt); ok {
			return c.read.loan.Take(ctx, literalBytes(stmt, subqueryStep))
		}
	}
	return nil
}

// judge counts what was read and returns the error of the result, errUnplanned
// if plans held too much for it to count.
func (c *computed) judge() error {
	q := c.read
	c.samples = q.computed.Load()
	if c.result.Err == nil && q.computer.exceeds(c.query.Stats().Samples.PeakSamples) {
		return errUnplanned
	}
	return q.computer.own(c.result.Err)
}

// write writes the result as the data of an answer.
func (c *computed) write(w *jsonWriter) {
	w.raw(`{"resultType":`)
	w.escaped(string(c.result.Value.Type()))
	w.raw(`,"result":`)
	switch v := c.result.Value.(type) {
	case promql.Matrix:
		w.matrix(v)
	case promql.Vector:
		w.vector(v)
	case *computedMatrix:
		w.computed(v)
	default: // a scalar or a string
		w.any(v)
	}
	if c.stats != "" {
		w.raw(`,"stats":`)
		w.any(stats.NewQueryStats(c.query.Stats()))
	}
	w.raw(`}`)
}

// prepare makes the query that is to be run on q: by the engine as it is, by
// the engine with plans in it, or by a plan alone.
func (a *API) prepare(ctx context.Context, q *Queryable, opts promql.QueryOpts, s *slow) (evaluation, error) {
	in, instant := a.limits.Load(), s.step == 0
	unplanned := q.unplanned || s.stats != "" // statistics are of what the engine does
	// Members tell of groups in another order than the engine's, which is what an
	// answer to an instant query has.
	_, far := q.source.(distributor)
	switch {
	case instant && (unplanned || far || s.of != nil):
		return in.engine.NewInstantQuery(ctx, q, opts, s.expr, s.start)
	case unplanned && s.of == nil:
		return in.engine.NewRangeQuery(ctx, q, opts, s.expr, s.start, s.end, s.step)
	}
	var c *computer
	if !unplanned {
		lookback, step := opts.LookbackDelta(), s.step
		if lookback <= 0 {
			lookback = in.lookback
		}
		if instant {
			step = time.Millisecond // as the engine has it, for one step
		}
		c = newComputer(s.start, s.end, step, lookback, in.maxSamples, &a.room)
		q.computer = c
	}
	whole := c != nil && s.of == nil
	if whole {
		if expr, ok := a.parser.expressions.get(s.expr); ok {
			return c.withoutEngine(q, expr, instant), nil
		}
	}
	text := strings.Clone(s.expr) // matchers are views of it
	expr, err := a.parser.ParseExpr(text)
	if err != nil {
		return nil, err
	}
	if s.of != nil {
		if expr, err = resolve(expr, s.of.start, s.of.end, s.step); err != nil {
			return nil, err
		}
	}
	if c != nil {
		if e := c.withoutEngine(q, expr, instant); e != nil {
			if whole {
				a.parser.expressions.keep(text, expr)
			}
			return e, nil
		}
		expr, c.plans = rewrite(expr)
	}
	if instant {
		return in.planned.NewInstantQuery(ctx, q, opts, a.handoff.put(expr), s.start)
	}
	return in.planned.NewRangeQuery(ctx, q, opts, a.handoff.put(expr), s.start, s.end, s.step)
}

// withoutEngine is the evaluation on q of an expression that needs no engine, or nil. It
// changes nothing of the expression.
func (c *computer) withoutEngine(q *Queryable, expr parser.Expr, instant bool) evaluation {
	if p, ok := wholePlanOf(expr); ok {
		return &wholePlan{computer: c, q: q, plan: p, instant: instant}
	}
	if f, ok := formulaOf(expr); ok {
		return &formulaRun{c: c, q: q, of: f, instant: instant}
	}
	return nil
}

func (a *API) queryOpts(r *http.Request) (promql.QueryOpts, error) {
	var lookback time.Duration
	if a.upstream != nil {
		lookback = a.upstream.dialect.peek().lookback
	}
	if s := r.FormValue("lookback_delta"); s != "" {
		var err error
		if lookback, err = parseDuration(s); err != nil {
			return nil, fmt.Errorf("error parsing lookback delta duration: %w", err)
		}
	}
	return promql.NewPrometheusQueryOpts(r.FormValue("stats") == "all", lookback), nil
}

// statsNote is Prometheus' warning for a value of stats it will not always accept.
func statsNote(s string) error {
	switch s {
	case "", "true", "all":
		return nil
	default:
		return fmt.Errorf("value %q for parameter \"stats\" is deprecated and will be rejected in the next major release, use %q or %q", s, "true", "all")
	}
}

func truncate(result *promql.Result, limit int) bool {
	if limit <= 0 {
		return false
	}
	switch v := result.Value.(type) {
	case promql.Matrix:
		if len(v) > limit {
			result.Value = v[:limit]
			return true
		}
	case promql.Vector:
		if len(v) > limit {
			result.Value = v[:limit]
			return true
		}
	case *computedMatrix:
		if len(v.rows) > limit {
			v.rows = v.rows[:limit]
			return true
		}
	}
	return false
}

// What a point takes at most: a time of 21 characters and a value of 24, with
// brackets, quotes and commas; a series beside its labels; and a byte of a label.
const (
	maxPointBytes     = 52
	maxSeriesBytes    = 64
	maxLabelByteBytes = 6
)

// maxHistogramBytes is an upper bound of what a histogram takes as JSON: three
// numbers a bucket, the zero bucket included, and two more.
func maxHistogramBytes(h *histogram.FloatHistogram) int64 {
	const maxBucketBytes, restBytes = 96, 160
	return restBytes + maxBucketBytes*int64(1+len(h.PositiveBuckets)+len(h.NegativeBuckets))
}

// maxJSONBytes is an upper bound of what a value takes as JSON.
func maxJSONBytes(v parser.Value) int64 {
	n := int64(0)
	series := func(ls labels.Labels, points int) {
		n += maxSeriesBytes + maxLabelByteBytes*int64(ls.ByteSize()) + maxPointBytes*int64(points)
	}
	switch v := v.(type) {
	case promql.Matrix:
		for i := range v {
			series(v[i].Metric, len(v[i].Floats))
			for _, p := range v[i].Histograms {
				n += maxHistogramBytes(p.H)
			}
		}
	case promql.Vector:
		for i := range v {
			series(v[i].Metric, 1)
			if v[i].H != nil {
				n += maxHistogramBytes(v[i].H)
			}
		}
	case *computedMatrix:
		for i := range v.rows {
			series(v.rows[i].labels, len(v.rows[i].values))
		}
	case promql.String:
		n = maxLabelByteBytes * int64(len(v.V))
	}
	return n
}

// formatQuery answers with the query, laid out.
func (a *API) formatQuery(r *http.Request) (answer, error) {
	expr, err := a.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return answer{}, badParam("query", err)
	}
	return answer{data: func(w *jsonWriter) { w.escaped(expr.Pretty(0)) }}, nil
}

// parseQuery answers with the query's syntax tree.
func (a *API) parseQuery(r *http.Request) (answer, error) {
	expr, err := a.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return answer{}, badParam("query", err)
	}
	return answer{data: func(w *jsonWriter) { w.any(translate(expr)) }}, nil
}

// queryExemplars answers with the exemplars of the series a query selects.
func (a *API) queryExemplars(r *http.Request) (answer, error) {
	start, end, err := timeRange(r)
	if err != nil {
		return answer{}, err
	}
	if end < start {
		return answer{}, badData(errors.New("end timestamp must not be before start timestamp"))
	}
	expr, err := a.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return answer{}, badData(err)
	}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		return answer{}, nil
	}
	found, err := a.exemplarsOf(r.Context(), a.bucket(r), start, end, selectors)
	if err != nil {
		return answer{}, err
	}
	result := answer{notes: annotations.Annotations{}}
	if found, err = a.joinExemplars(r, start, end, found, &result); err != nil {
		return answer{}, err
	}
	result.data = func(w *jsonWriter) { w.exemplars(found) }
	return result, nil
}
