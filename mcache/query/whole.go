package query

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"
)

// evaluation is what is needed of the engine's queries.
type evaluation interface {
	Exec(context.Context) *promql.Result
	Stats() *stats.Statistics
	Close()
}

// wholePlan is a range query that is one plan and nothing else. The engine
// would only copy its results, at several times the cost of finding them.
type wholePlan struct {
	computer *computer
	q        *Queryable
	plan     *plan
	found    *collector
}

// wholePlanOf returns the plan that an expression is, if it is one.
func wholePlanOf(expr parser.Expr) (*plan, bool) {
	if p, ok := planOfOperand(expr); ok {
		return p, true
	}
	return planOf(withoutParens(expr))
}

// Exec computes the result. Errors have the engine's words.
func (w *wholePlan) Exec(ctx context.Context) *promql.Result {
	found, notes, err := w.computer.carryOut(ctx, w.q, w.plan, func(err error) error {
		return fmt.Errorf("expanding series: %w", err)
	})
	if err != nil {
		return &promql.Result{Err: err}
	}
	w.found = found
	m := &computedMatrix{steps: w.computer.steps, rows: found.rows()}
	m.sort()
	return &promql.Result{Value: m, Warnings: notes}
}

// Stats counts what the engine did.
func (*wholePlan) Stats() *stats.Statistics { return nothingDone() }

func nothingDone() *stats.Statistics {
	return &stats.Statistics{Timers: stats.NewQueryTimers(), Samples: stats.NewQuerySamples(false)}
}

// Close releases the memory of the result.
func (w *wholePlan) Close() {
	if w.found != nil {
		w.found.giveBack()
	}
}
