package query

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// What a request holds on the heap is taken from a loan, which is one of a sum
// for all clients: an estimate before it is worked on, more as it grows, what
// is left of it until the client has taken the answer.
//
//	request     answerBytes, and bufferBytes and perhaps gzipBytes for its answer
//	parameters  formFactor bytes for each byte of a form
//	select      seriesBytes for each series, and stepBytes for each step that the
//	            engine is going to evaluate of it: before a subquery runs, it has
//	            what its steps take
//	literals    stepBytes for each step of whatever selects nothing, see literalBytes
//	plan        rows as they are kept
//	read        a message as it grows, twice while it is compressed
//
// After the evaluation the loan is as large as the result.

// Loan is what one request has in hand. Its errors may have a method
// RetryAfter() (after time.Duration, ok bool), which says when to retry;
// not ok that it would always be refused.
type Loan interface {
	// Take takes n bytes more. It may wait a little, and not beyond ctx.
	Take(ctx context.Context, n int64) error
	// Keep gives back what is held beyond n bytes.
	Keep(n int64)
	// Held is what is held.
	Held() int64
	// Release gives everything back.
	Release()
}

const (
	// answerBytes are taken for each request: what net/http has, and parameters.
	// Many may wait for their turn. The buffer for the answer is taken with it.
	answerBytes = 24 << 10
	// gzipBytes is what a compressor holds.
	gzipBytes = 512 << 10
	// seriesBytes is what a selected series takes beside its points: its place
	// in the set and in the engine's, and labels.
	seriesBytes = 400
	// pointBytes is promql.FPoint.
	pointBytes = 16
	// stepBytes is what a step of a series takes in the engine: a point of the
	// operand, and one of what becomes of it.
	stepBytes = 2 * pointBytes
	// formFactor is how much of a form is held at a time: raw, unescaped,
	// and in a map.
	formFactor = 3
	// largeBytes is an estimate that is worth a look at what the cache spans:
	// of a month at one-second steps there may be an hour.
	largeBytes = 64 << 20
)

// unbounded is the Loan where there is no admission.
type unbounded struct{}

func (unbounded) Take(context.Context, int64) error { return nil }
func (unbounded) Keep(int64)                        {}
func (unbounded) Held() int64                       { return 0 }
func (unbounded) Release()                          {}

type loanKey struct{}

// loanOf is the loan of the request whose context it is.
func loanOf(ctx context.Context) Loan {
	if l, ok := ctx.Value(loanKey{}).(Loan); ok {
		return l
	}
	return unbounded{}
}

// refusal is an error of a Loan.
type refusal interface {
	error
	RetryAfter() (after time.Duration, ok bool)
}

// setRetryAfter tells a client when to retry.
func setRetryAfter(h http.Header, e *apiError) {
	if e.typ != errorUnavailable {
		return
	}
	seconds := 1
	if r := refusal(nil); errors.As(e.err, &r) {
		after, _ := r.RetryAfter()
		seconds = max(seconds, int(math.Ceil(after.Seconds())))
	}
	h.Set("Retry-After", strconv.Itoa(seconds))
}

// lentBody takes from the loan what is read of a form.
type lentBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b lentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		if e := loanOf(b.ctx).Take(b.ctx, formFactor*int64(n)); e != nil {
			return n, e
		}
	}
	return n, err
}

// stepsOf is how many steps the engine evaluates of what is selected from start
// to end, both in ms, of which window are only looked back over.
func stepsOf(start, end, window, step int64) int64 {
	if step <= 0 {
		return 1
	}
	return max(end-start-window, 0)/step + 1
}

// maxEstimate is beyond any memory, and far from overflowing.
const maxEstimate = math.MaxInt64 / 4

// product multiplies what is not negative, as far as that goes.
func product(a, b int64) int64 {
	if a != 0 && b > maxEstimate/a {
		return maxEstimate
	}
	return a * b
}

// takeSeries takes from the loan what n series are going to need that are
// selected from start to end, and evaluated at steps, or at none if step is 0.
func (q *Queryable) takeSeries(ctx context.Context, n int, start, end, window, step int64) error {
	if q.loan == nil {
		return nil
	}
	perSeries := int64(seriesBytes)
	if step > 0 {
		perSeries += product(stepBytes, stepsOf(start, end, window, step))
	}
	want := product(perSeries, int64(n))
	if want > largeBytes && step > 0 {
		e := q.source.ChunkStats(q.bucket)
		if start, end = max(start, e.MinTime-window), min(end, e.MaxTime+max(window, defaultWindowMs)); start > end {
			start = end
		}
		want = min(want, product(seriesBytes+product(stepBytes, stepsOf(start, end, window, step)), int64(n)))
	}
	return q.loan.Take(ctx, want)
}

// textBytes is what one of a list of values takes before it is known: there are
// at most as many as series.
const textBytes = 64

// takeTexts takes from the loan what a list of names or values may need. settle
// gives back what it did not, and notes what may be missing from the list.
func (qr *querier) takeTexts(ctx context.Context) (settle func(Texts) []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q, held := qr.q, int64(0)
	if q.loan != nil {
		held = q.loan.Held()
		if err := q.loan.Take(ctx, textBytes*int64(q.source.SeriesOf(q.bucket))); err != nil {
			return nil, err
		}
	}
	return func(t Texts) []string {
		q.note(qr.mint, t.Missing)
		q.warn(t.Notes)
		if q.loan != nil {
			for _, text := range t.List {
				held += int64(len(text)) + 16
			}
			q.loan.Keep(held)
		}
		return t.List
	}, nil
}

// defaultWindowMs is longer than the engine looks back, or than anybody has it do.
const defaultWindowMs = int64(time.Hour / time.Millisecond)

// literalBytes is what the engine takes for the nodes of a statement that have
// values whatever is selected: vector(1)[5d:10ms] has 43 million points without
// any series.
func literalBytes(s *parser.EvalStmt, subqueryStep time.Duration) int64 {
	at := grid{steps: 1, subquery: max(subqueryStep.Milliseconds(), 1)}
	if s.Interval > 0 {
		at.spanMs = s.End.Sub(s.Start).Milliseconds()
		at.steps = at.spanMs/max(s.Interval.Milliseconds(), 1) + 1
	}
	bytes, _ := at.bytes(s.Expr)
	return bytes
}

// grid is the steps at which a node is evaluated.
type grid struct {
	steps, spanMs int64
	subquery      int64 // ms, the step of subqueries that give none
}

// bytes is what a node and those below it take, and whether they select series.
func (g grid) bytes(n parser.Node) (bytes int64, selects bool) {
	switch e := n.(type) {
	case *parser.VectorSelector:
		return 0, true
	case *parser.StepInvariantExpr:
		g.steps, g.spanMs = 1, 0
	case *parser.SubqueryExpr:
		if e.Timestamp != nil || e.StartOrEnd != 0 {
			g.spanMs = 0
		}
		step := e.Step.Milliseconds()
		if step <= 0 {
			step = g.subquery
		}
		g.spanMs += e.Range.Milliseconds()
		g.steps = g.spanMs/step + 1
	}
	for c := range parser.ChildrenIter(n) {
		more, s := g.bytes(c)
		bytes, selects = min(bytes+more, maxEstimate), selects || s
	}
	if !selects || hasAllSteps(n) {
		bytes = min(bytes+product(stepBytes, g.steps), maxEstimate)
	}
	return bytes, selects
}

// hasAllSteps says whether a node has a value at each step even if nothing is selected.
func hasAllSteps(n parser.Node) bool {
	if c, ok := n.(*parser.Call); ok {
		switch c.Func.Name {
		case "absent", "absent_over_time", "vector":
			return true
		}
	}
	e, ok := n.(parser.Expr)
	return ok && e.Type() == parser.ValueTypeScalar
}

// resultBytes is what a result holds until it has been taken.
func resultBytes(v parser.Value) int64 {
	n := int64(0)
	switch v := v.(type) {
	case promql.Matrix:
		for i := range v {
			n += seriesBytes + pointBytes*int64(cap(v[i].Floats))
			for _, p := range v[i].Histograms {
				n += maxHistogramBytes(p.H)
			}
		}
	case promql.Vector:
		n = int64(len(v)) * seriesBytes
		for i := range v {
			if v[i].H != nil {
				n += maxHistogramBytes(v[i].H)
			}
		}
	case *computedMatrix:
		for i := range v.rows {
			n += seriesBytes + 8*int64(len(v.rows[i].values))
		}
	}
	return n
}
