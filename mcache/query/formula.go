package query

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
)

// A formula is an expression of which all is computed here: plans, scalars, and
// what operators, functions of a number, aggregations and quantiles of histograms
// make of them. The engine works step by step:
// at each it collects the points of all operands, looks up their partners, and
// finds the series of each result by its labels. A formula works row by row:
// partners and labels are found once, and the steps are a loop over floats.
//
// # The same results
//
// Operations on floats are the engine's. What it decides anew at each step is
// decided here once where that is the same: as long as among the rows of one
// signature (the labels that partners share) there is one on each side. Where
// there are more, which is an error at the steps at which they meet, and where
// series of the same labels meet in a result, the formula gives up with
// errUnplanned and the engine has the query, and the last word. So it does of
// what might exceed the bound on samples: a formula counts the rows of all of
// its parts, which is more than the engine ever holds.
//
// The engine adds the results of operators in an order that its maps make up; a
// formula adds them in the order of its series.
type formula interface {
	// rows computes the results: rows of all steps, the caller's to change. A
	// row may be none as a whole.
	rows(f *formulaRun) ([]computedRow, error)
}

// formulaRun is one evaluation of a formula: a query without the engine.
type formulaRun struct {
	c       *computer
	q       *Queryable
	of      formula
	instant bool            // there is one step, and the result is a vector
	ctx     context.Context // of Exec
	notes   annotations.Annotations
	held    int          // values of all rows that there were
	found   []*collector // of plans
}

// Exec computes the result. Errors have the engine's words.
func (f *formulaRun) Exec(ctx context.Context) *promql.Result {
	if err := overBefore(ctx); err != nil {
		return &promql.Result{Err: err}
	}
	f.ctx = ctx
	rows, err := f.of.rows(f)
	if err != nil {
		return &promql.Result{Err: err}
	}
	f.c.held = f.held
	if f.instant {
		return &promql.Result{Value: vectorOf(f.c.start, f.keep(rows)), Warnings: f.notes}
	}
	m := &computedMatrix{steps: f.c.steps, rows: f.keep(rows)}
	m.sort()
	return &promql.Result{Value: m, Warnings: f.notes}
}

// Stats counts what the engine did.
func (*formulaRun) Stats() *stats.Statistics { return nothingDone() }

// Close releases the memory of the result.
func (f *formulaRun) Close() {
	for _, c := range f.found {
		c.giveBack()
	}
}

// planned is a plan in a formula.
type planned struct {
	plan *plan
	uses int // in the formula
	kept []computedRow
}

func (p *planned) rows(f *formulaRun) ([]computedRow, error) {
	rows := p.kept
	if rows == nil {
		var err error
		if rows, err = p.carryOut(f); err != nil {
			return nil, err
		}
	}
	if p.uses--; p.uses == 0 || p.kept == nil {
		return rows, nil
	}
	if err := f.take(len(rows)); err != nil {
		return nil, err
	}
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].values = slices.Clone(rows[i].values)
	}
	return rows, nil
}

// carryOut carries out the plan, and keeps the rows if they are wanted again.
func (p *planned) carryOut(f *formulaRun) ([]computedRow, error) {
	f.c.held = 0
	found, notes, err := f.c.carryOut(f.ctx, f.q, p.plan, func(err error) error {
		return fmt.Errorf("expanding series: %w", err)
	})
	if err != nil {
		return nil, err
	}
	f.found = append(f.found, found)
	f.held += f.c.held
	f.notes.Merge(notes)
	rows := found.rows()
	for i := range rows {
		r := &rows[i]
		if len(r.values) == f.c.n {
			continue
		}
		if err := f.take(1); err != nil {
			return nil, err
		}
		whole := found.fresh(none)
		copy(whole[r.first:], r.values)
		r.first, r.values = 0, whole
	}
	if p.uses > 1 {
		p.kept = rows
	}
	return rows, nil
}

// nameless are labels as they are when the values are not the metric's any more.
func nameless(ls labels.Labels) labels.Labels { return ls.DropReserved(schema.IsMetadataLabel) }

// scaled is an operator between a formula and a scalar, on its right or left.
type scaled struct {
	of   formula
	op   operation
	with scalar
	kind resultKind
	left bool // the formula is on the left
}

func (s *scaled) rows(f *formulaRun) ([]computedRow, error) {
	rows, err := s.of.rows(f)
	if err != nil {
		return nil, err
	}
	f.count(len(rows))
	number, numbers := s.with.value, s.with.over(f.c.steps)
	for i := range rows {
		if s.kind != filters {
			rows[i].labels = nameless(rows[i].labels)
		}
		values := rows[i].values
		for k, v := range values {
			if isNone(v) {
				continue
			}
			if numbers != nil {
				number = numbers[k]
			}
			l, r := v, number
			if !s.left {
				l, r = r, l
			}
			result, keep := s.op(l, r)
			switch {
			case s.kind == tells:
				values[k] = truth(keep)
			case !keep:
				values[k] = none
			case s.kind == computes:
				values[k] = result
			}
		}
	}
	if s.kind == filters {
		return f.keep(rows), nil
	}
	return f.distinct(rows)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// aggregated is an aggregation of a formula, which may be remembered.
type aggregated struct {
	of formula
	aggregate
	expr    parser.Expr
	ordered bool // see plan
}

func (a *aggregated) rows(f *formulaRun) ([]computedRow, error) {
	source, plans := f.q.results.of(f.q, f.c), plansOf(a.of)
	if source == nil || len(plans) == 0 || remarked(a.of) {
		return a.compute(f)
	}
	f.c.held = 0
	rows, notes, err := f.q.results.carryOut(f.ctx, f.q, f.c, source, &work{
		expr: a.expr, plans: plans, ordered: a.ordered || a.byOrder() && !steady(a.of),
		// By a formula of its own: plans that others use as well have rows of all steps.
		compute: func(ctx context.Context, c *computer, q *Queryable) ([]computedRow, annotations.Annotations, error) {
			of, _ := formulaOf(a.expr)
			part := formulaRun{c: c, q: q, ctx: ctx}
			defer part.Close()
			rows, err := of.rows(&part)
			c.held = part.held
			return rows, part.notes, err
		},
	})
	f.held += f.c.held
	f.notes.Merge(notes)
	return rows, err
}

// compute aggregates the rows of all steps.
func (a *aggregated) compute(f *formulaRun) ([]computedRow, error) {
	rows, err := f.some(a.of)
	if err != nil {
		return nil, err
	}
	out := newCollector(f.c.steps, a.aggregate, len(rows))
	for _, row := range rows {
		out.add(row.labels, row.values)
		if err := out.lend(f.ctx, f.q.loan); err != nil {
			return nil, err
		}
	}
	f.count(len(out.groups))
	return out.rows(), nil
}

// byOrder reports that a result may depend on the order of what is aggregated: by
// rounding, or by which zero or number that is none comes first.
func (a *aggregate) byOrder() bool { return a.op != parser.COUNT && a.op != parser.GROUP }

// steady reports that the rows of a formula stand in the same order, whatever the range: that in
// which a select finds series.
func steady(f formula) bool {
	switch f := f.(type) {
	case *planned:
		return f.plan.op == 0 && named(f.plan.selector)
	case *scaled:
		return steady(f.of)
	case *applied:
		return steady(f.of)
	case *matched:
		if f.matching.Card == parser.CardOneToMany {
			return steady(f.rhs)
		}
		return steady(f.lhs)
	case *combined:
		return f.op != parser.LOR && steady(f.lhs)
	}
	return false
}

// plansOf are the plans that a formula is made of.
func plansOf(f formula) (plans []*plan) {
	if p, ok := f.(*planned); ok {
		return []*plan{p.plan}
	}
	for _, part := range partsOf(f) {
		plans = append(plans, plansOf(part)...)
	}
	return plans
}

// remarked reports that there may be a remark on a formula, which goes with what is
// remembered of it.
func remarked(f formula) bool {
	switch f := f.(type) {
	case *planned:
		return f.plan.remarked()
	case *bucketed:
		return true
	}
	return slices.ContainsFunc(partsOf(f), remarked)
}

// partsOf are the formulas that one is directly made of.
func partsOf(f formula) []formula {
	switch f := f.(type) {
	case *planned, *everywhere:
		return nil
	case *scaled:
		return []formula{f.of}
	case *applied:
		return []formula{f.of}
	case *aggregated:
		return []formula{f.of}
	case *quantiled:
		return []formula{f.of}
	case *bucketed:
		return []formula{f.of}
	case *ranked:
		return []formula{f.of}
	case *matched:
		return []formula{f.lhs, f.rhs}
	case *combined:
		return []formula{f.lhs, f.rhs}
	}
	panic("query: a formula that is made of nothing known")
}

// both computes two formulas, the left one first.
func (f *formulaRun) both(lhs, rhs formula) (l, r []computedRow, err error) {
	if l, err = lhs.rows(f); err != nil {
		return nil, nil, err
	}
	if r, err = rhs.rows(f); err != nil {
		return nil, nil, err
	}
	f.count(len(l) + len(r))
	return l, r, engineError(f.ctx.Err())
}

// count counts what the engine would hold more for an operator that has so many
// rows, at most: results, numbers at each step, and what it looks at in one.
func (f *formulaRun) count(rows int) { f.held += (f.c.n + 2) * (rows + 2) }

// take takes from the loan what rows need.
func (f *formulaRun) take(rows int) error {
	if f.q.loan == nil {
		return nil
	}
	return f.q.loan.Take(f.ctx, product(int64(rows), 8*int64(f.c.n)))
}

// some are the rows of a formula that have results.
func (f *formulaRun) some(of formula) ([]computedRow, error) {
	rows, err := of.rows(f)
	return f.keep(rows), err
}

// keep leaves out rows without results.
func (f *formulaRun) keep(rows []computedRow) []computedRow {
	return slices.DeleteFunc(rows, func(r computedRow) bool {
		return !slices.ContainsFunc(r.values, func(v float64) bool { return !isNone(v) })
	})
}

// distinct makes rows of the same labels one, which it is where they have
// results at different steps.
func (f *formulaRun) distinct(rows []computedRow) ([]computedRow, error) {
	rows = f.keep(rows)
	seen := make(map[uint64]int, len(rows))
	out := rows[:0]
	for _, row := range rows {
		hash := row.labels.Hash()
		at, ok := seen[hash]
		if !ok {
			seen[hash] = len(out)
			out = append(out, row)
			continue
		}
		for k, v := range row.values {
			switch into := out[at].values; {
			case isNone(v):
			case isNone(into[k]):
				into[k] = v
			default:
				return nil, errUnplanned
			}
		}
	}
	return out, nil
}
