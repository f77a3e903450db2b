package query

import (
	"context"
	"errors"
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

// wholePlan is a query that is one plan and nothing else. The engine
// would only copy its results, at several times the cost of finding them.
type wholePlan struct {
	computer *computer
	q        *Queryable
	plan     *plan
	instant  bool // there is one step, and the result is a vector
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
	if err := overBefore(ctx); err != nil {
		return &promql.Result{Err: err}
	}
	found, notes, err := w.computer.carryOut(ctx, w.q, w.plan, func(err error) error {
		return fmt.Errorf("expanding series: %w", err)
	})
	if err != nil {
		return &promql.Result{Err: err}
	}
	w.found = found
	if w.instant {
		return &promql.Result{Value: vectorOf(w.computer.start, found.rows()), Warnings: notes}
	}
	m := &computedMatrix{steps: w.computer.steps, rows: found.rows()}
	m.sort()
	return &promql.Result{Value: m, Warnings: notes}
}

// overBefore is the engine's error if a query is over before it begins.
func overBefore(ctx context.Context) error {
	switch err := ctx.Err(); {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return promql.ErrQueryTimeout("query execution")
	default:
		return promql.ErrQueryCanceled("query execution")
	}
}

// vectorOf is the result of an instant query: in the order in which the series were
// found, as the engine has it.
func vectorOf(at int64, rows []computedRow) promql.Vector {
	v := make(promql.Vector, 0, len(rows))
	for i := range rows {
		if f := rows[i].at(0); !isNone(f) {
			v = append(v, promql.Sample{Metric: rows[i].labels, T: at, F: f})
		}
	}
	return v
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
