package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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

// evaluate answers a query from memory, and tells of it if it was slow.
func (a *API) evaluate(r *http.Request, s slow) (answer, error) {
	s.arrived, s.expr, s.stats = a.o.Now(), r.FormValue("query"), r.FormValue("stats")
	e, err := a.compute(r, &s)
	s.read, s.err = e.read, err
	a.tell(r, s)
	if err != nil {
		return answer{}, err
	}
	query, result := e.query, e.result
	return answer{
		data: func(w *jsonWriter) {
			w.raw(`{"resultType":`)
			w.escaped(string(result.Value.Type()))
			w.raw(`,"result":`)
			w.value(result.Value)
			if s.stats != "" {
				w.raw(`,"stats":`)
				w.any(stats.NewQueryStats(query.Stats()))
			}
			w.raw(`}`)
		},
		maxBytes: maxJSONBytes(result.Value),
		notes:    result.Warnings,
		query:    s.expr,
		read:     e.read,
		close:    query.Close,
	}, nil
}

// computed is a query that was run here. It must be closed unless there was an error.
type computed struct {
	query  evaluation
	result *promql.Result
	read   *Queryable
}

// compute runs a query, with the parameters common to both kinds. Of the
// request's loan it leaves what the result takes and, for a part of a query,
// what the other parts do.
func (a *API) compute(r *http.Request, s *slow) (c computed, err error) {
	limit, err := limitParam(r)
	if err != nil {
		return c, err
	}
	ctx, cancel, err := a.withTimeout(r)
	if err != nil {
		return c, err
	}
	defer cancel()
	opts, err := a.queryOpts(r)
	if err != nil {
		return c, badData(err)
	}
	held := int64(answerBytes)
	if s.of != nil {
		held = loanOf(r.Context()).Held()
	}
	c.read = a.queryable(r)
	c.read.byLabels = s.of != nil
	c.query, c.result, err = a.execute(ctx, c.read, opts, s)
	if errors.Is(err, errUnplanned) {
		c.read = a.queryable(r)
		c.read.byLabels = s.of != nil
		c.read.unplanned = true
		c.read.loan.Keep(held)
		c.query, c.result, err = a.execute(ctx, c.read, opts, s)
	}
	s.samples += c.read.computed.Load()
	if err != nil {
		return c, err
	}
	c.read.loan.Keep(held + resultBytes(c.result.Value))
	s.samples += c.query.Stats().Samples.SamplesRead
	if truncate(c.result, limit) {
		c.result.Warnings.Add(errTruncated)
	}
	if note := statsNote(s.stats); note != nil {
		c.result.Warnings.Add(note)
	}
	a.counts.samples.Add(uint64(s.samples))
	return c, nil
}

// prepare makes the query that is to be run on q: by the engine as it is, by
// the engine with plans in it, or by a plan alone.
func (a *API) prepare(ctx context.Context, q *Queryable, opts promql.QueryOpts, s *slow) (evaluation, error) {
	in := a.limits.Load()
	unplanned := q.unplanned || s.stats != "" // statistics are of what the engine does
	switch {
	case s.step == 0:
		return in.engine.NewInstantQuery(ctx, q, opts, s.expr, s.start)
	case unplanned && s.of == nil:
		return in.engine.NewRangeQuery(ctx, q, opts, s.expr, s.start, s.end, s.step)
	}
	expr, err := a.parser.ParseExpr(s.expr)
	if err != nil {
		return nil, err
	}
	if s.of != nil {
		if expr, err = resolve(expr, s.of.start, s.of.end, s.step); err != nil {
			return nil, err
		}
	}
	if unplanned {
		return in.planned.NewRangeQuery(ctx, q, opts, a.handoff.put(expr), s.start, s.end, s.step)
	}
	lookback := opts.LookbackDelta()
	if lookback <= 0 {
		lookback = in.lookback
	}
	if c := newComputer(s.start, s.end, s.step, lookback, in.maxSamples, &a.room); c != nil {
		q.computer = c
		if p, ok := wholePlanOf(expr); ok {
			return &wholePlan{computer: c, q: q, plan: p}, nil
		}
		if f, ok := formulaOf(expr); ok {
			return &formulaRun{c: c, q: q, of: f}, nil
		}
		expr, c.plans = rewrite(expr)
	}
	return in.planned.NewRangeQuery(ctx, q, opts, a.handoff.put(expr), s.start, s.end, s.step)
}

// execute runs a query when it is its turn. The turn ends with the evaluation:
// a client that reads slowly keeps nobody waiting. The time until it began is
// added to s.waited. The query must be closed unless there is an error.
func (a *API) execute(ctx context.Context, q *Queryable, opts promql.QueryOpts, s *slow) (evaluation, *promql.Result, error) {
	query, err := a.prepare(ctx, q, opts, s)
	if err != nil {
		return nil, nil, badParam("query", err)
	}
	came := a.o.Now()
	err = a.queries.enter(ctx)
	s.waited += a.o.Now().Sub(came)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = promql.ErrQueryTimeout("query queue")
		}
		return nil, nil, err
	}
	defer a.queries.leave()
	if p, ok := query.(promql.Query); ok {
		if stmt, ok := p.Statement().(*parser.EvalStmt); ok {
			if err := q.loan.Take(ctx, literalBytes(stmt, a.o.SubqueryStep)); err != nil {
				query.Close()
				return nil, nil, err
			}
		}
	}
	result := query.Exec(ctx)
	if result.Err == nil && q.computer.exceeds(query.Stats().Samples.PeakSamples) {
		result.Err = errUnplanned
	}
	if result.Err != nil {
		query.Close()
		return nil, nil, q.computer.own(result.Err)
	}
	return query, result, nil
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
