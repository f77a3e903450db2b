package query

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
)

// A formula is an expression of which all is computed here: plans, numbers, and
// what operators and aggregations make of them. The engine works step by step:
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

// formulaRun is one evaluation of a formula: a range query without the engine.
type formulaRun struct {
	c     *computer
	q     *Queryable
	of    formula
	ctx   context.Context // of Exec
	notes annotations.Annotations
	held  int          // values of all rows that there were
	found []*collector // of plans
}

// Exec computes the result. Errors have the engine's words.
func (f *formulaRun) Exec(ctx context.Context) *promql.Result {
	f.ctx = ctx
	rows, err := f.of.rows(f)
	if err != nil {
		return &promql.Result{Err: err}
	}
	f.c.held = f.held
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

// formulaOf returns the formula that an expression is, if it is one.
func formulaOf(expr parser.Expr) (formula, bool) {
	b := formulaBuilder{leaves: map[string]*planned{}}
	f := b.build(expr)
	return f, f != nil
}

// formulaBuilder makes a formula, in which equal plans are one.
type formulaBuilder struct{ leaves map[string]*planned }

// build returns nil for what is no formula.
func (b *formulaBuilder) build(expr parser.Expr) formula {
	expr = withoutParens(expr)
	if p, ok := wholePlanOf(expr); ok {
		key := expr.String()
		if p.remarked() {
			key += fmt.Sprint(p.position) // which the remark tells
		}
		leaf := b.leaves[key]
		if leaf == nil {
			leaf = &planned{plan: p}
			b.leaves[key] = leaf
		}
		leaf.uses++
		return leaf
	}
	switch n := expr.(type) {
	case *parser.UnaryExpr:
		of := b.build(n.Expr)
		if of == nil || n.Op != parser.SUB {
			return of
		}
		return &negated{of}
	case *parser.AggregateExpr:
		switch n.Op {
		case parser.SUM, parser.AVG, parser.MIN, parser.MAX, parser.COUNT, parser.GROUP:
			if of := b.build(n.Expr); of != nil {
				return &aggregated{of: of, aggregate: aggregateOf(n)}
			}
		case parser.QUANTILE:
			return b.quantileOf(n)
		}
	case *parser.BinaryExpr:
		return b.binary(n)
	}
	return nil
}

// remarked reports that there may be a remark on a plan: see noteName.
func (p *plan) remarked() bool {
	return p.ofCounters() && !slices.ContainsFunc(p.selector.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && countersName(m.Value)
	})
}

func (b *formulaBuilder) binary(n *parser.BinaryExpr) formula {
	op := operations[n.Op]
	if number, ok := numberOf(n.RHS); ok && op != nil {
		if of := b.build(n.LHS); of != nil {
			return &scaled{of: of, op: op, number: number, kind: resultOf(n), left: true}
		}
		return nil
	}
	if number, ok := numberOf(n.LHS); ok && op != nil {
		if of := b.build(n.RHS); of != nil {
			return &scaled{of: of, op: op, number: number, kind: resultOf(n)}
		}
		return nil
	}
	m := n.VectorMatching
	if m == nil || m.FillValues.LHS != nil || m.FillValues.RHS != nil {
		return nil
	}
	setOperation := n.Op == parser.LAND || n.Op == parser.LOR || n.Op == parser.LUNLESS
	if op == nil && !setOperation {
		return nil
	}
	lhs := b.build(n.LHS)
	if lhs == nil {
		return nil
	}
	rhs := b.build(n.RHS)
	switch {
	case rhs == nil:
		return nil
	case setOperation:
		return &combined{lhs: lhs, rhs: rhs, op: n.Op, matching: m}
	default:
		return &matched{lhs: lhs, rhs: rhs, op: op, kind: resultOf(n), matching: m}
	}
}

// numberOf is the value of an expression of numbers alone.
func numberOf(expr parser.Expr) (float64, bool) {
	switch n := withoutParens(expr).(type) {
	case *parser.NumberLiteral:
		return n.Val, true
	case *parser.UnaryExpr:
		f, ok := numberOf(n.Expr)
		if n.Op == parser.SUB {
			f = -f
		}
		return f, ok
	case *parser.BinaryExpr:
		op := operations[n.Op]
		if op == nil || n.Op.IsComparisonOperator() {
			return 0, false
		}
		l, ok1 := numberOf(n.LHS)
		r, ok2 := numberOf(n.RHS)
		if !ok1 || !ok2 {
			return 0, false
		}
		f, _ := op(l, r)
		return f, true
	}
	return 0, false
}

// operation is an operator between two floats. It reports whether the result is kept.
type operation func(l, r float64) (float64, bool)

var operations = map[parser.ItemType]operation{
	parser.ADD:   func(l, r float64) (float64, bool) { return l + r, true },
	parser.SUB:   func(l, r float64) (float64, bool) { return l - r, true },
	parser.MUL:   func(l, r float64) (float64, bool) { return l * r, true },
	parser.DIV:   func(l, r float64) (float64, bool) { return l / r, true },
	parser.POW:   func(l, r float64) (float64, bool) { return math.Pow(l, r), true },
	parser.MOD:   func(l, r float64) (float64, bool) { return math.Mod(l, r), true },
	parser.ATAN2: func(l, r float64) (float64, bool) { return math.Atan2(l, r), true },
	parser.EQLC:  func(l, r float64) (float64, bool) { return l, l == r },
	parser.NEQ:   func(l, r float64) (float64, bool) { return l, l != r },
	parser.GTR:   func(l, r float64) (float64, bool) { return l, l > r },
	parser.LSS:   func(l, r float64) (float64, bool) { return l, l < r },
	parser.GTE:   func(l, r float64) (float64, bool) { return l, l >= r },
	parser.LTE:   func(l, r float64) (float64, bool) { return l, l <= r },
}

// resultKind says what the results of an operator are.
type resultKind uint8

const (
	computes resultKind = iota // arithmetic: values that the metric's name does not fit any more
	filters                    // a comparison: the values for which it holds
	tells                      // a comparison with bool: 0 and 1
)

func resultOf(n *parser.BinaryExpr) resultKind {
	switch {
	case n.ReturnBool:
		return tells
	case n.Op.IsComparisonOperator():
		return filters
	default:
		return computes
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

// negated is a formula with a minus before it.
type negated struct{ of formula }

func (n *negated) rows(f *formulaRun) ([]computedRow, error) {
	rows, err := n.of.rows(f)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].labels = nameless(rows[i].labels)
		for k, v := range rows[i].values {
			if !isNone(v) {
				rows[i].values[k] = -v
			}
		}
	}
	return f.distinct(rows)
}

// nameless are labels as they are when the values are not the metric's any more.
func nameless(ls labels.Labels) labels.Labels { return ls.DropReserved(schema.IsMetadataLabel) }

// scaled is an operator between a formula and a number, on its right or left.
type scaled struct {
	of     formula
	op     operation
	number float64
	kind   resultKind
	left   bool // the formula is on the left
}

func (s *scaled) rows(f *formulaRun) ([]computedRow, error) {
	rows, err := s.of.rows(f)
	if err != nil {
		return nil, err
	}
	f.count(len(rows))
	for i := range rows {
		if s.kind != filters {
			rows[i].labels = nameless(rows[i].labels)
		}
		values := rows[i].values
		for k, v := range values {
			if isNone(v) {
				continue
			}
			l, r := v, s.number
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

// matched is an operator between two formulas, by their labels.
type matched struct {
	lhs, rhs formula
	op       operation
	kind     resultKind
	matching *parser.VectorMatching
}

func (j *matched) rows(f *formulaRun) ([]computedRow, error) {
	lhs, rhs, err := f.both(j.lhs, j.rhs)
	if err != nil {
		return nil, err
	}
	if len(lhs) == 0 || len(rhs) == 0 {
		return nil, nil
	}
	swapped := j.matching.Card == parser.CardOneToMany
	if swapped {
		lhs, rhs = rhs, lhs
	}
	s := newSignatures(j.matching)
	partners := make(map[string]*computedRow, len(rhs))
	for i := range rhs {
		key := s.of(rhs[i].labels)
		if partners[string(key)] != nil {
			return nil, errUnplanned
		}
		partners[string(key)] = &rhs[i]
	}
	var met map[*computedRow]bool // partners, where each may have one
	if j.matching.Card == parser.CardOneToOne {
		met = make(map[*computedRow]bool, len(rhs))
	}
	out := lhs[:0]
	for _, row := range lhs {
		partner := partners[string(s.of(row.labels))]
		if partner == nil {
			continue
		}
		if met != nil {
			if met[partner] {
				return nil, errUnplanned
			}
			met[partner] = true
		}
		j.calculate(row.values, partner.values, swapped)
		row.labels = s.result(row.labels, partner.labels, j.kind)
		out = append(out, row)
	}
	if met != nil {
		return f.keep(out), nil // signatures tell the results apart
	}
	if j.kind == filters && len(labelSets(out)) < len(out) {
		return nil, errUnplanned // an error also where the comparison does not hold
	}
	return f.distinct(out)
}

// labelSets are the hashes of the labels of rows.
func labelSets(rows []computedRow) map[uint64]struct{} {
	all := make(map[uint64]struct{}, len(rows))
	for i := range rows {
		all[rows[i].labels.Hash()] = struct{}{}
	}
	return all
}

// calculate computes each step of row.
func (j *matched) calculate(row, partner []float64, swapped bool) {
	for k, l := range row {
		r := partner[k]
		if isNone(l) || isNone(r) {
			row[k] = none
			continue
		}
		if swapped {
			l, r = r, l
		}
		result, keep := j.op(l, r)
		switch {
		case j.kind == tells:
			result = truth(keep)
		case !keep:
			result = none
		}
		row[k] = result
	}
}

// combined is and, or or unless between two formulas.
type combined struct {
	lhs, rhs formula
	op       parser.ItemType
	matching *parser.VectorMatching
}

func (c *combined) rows(f *formulaRun) ([]computedRow, error) {
	lhs, rhs, err := f.both(c.lhs, c.rhs)
	if err != nil {
		return nil, err
	}
	s := newSignatures(c.matching)
	if err := f.take(max(len(lhs), len(rhs))); err != nil {
		return nil, err
	}
	if c.op == parser.LOR {
		there := s.presence(lhs, f.c.n)
		for _, row := range rhs {
			mask(row.values, there[string(s.of(row.labels))], false)
		}
		return f.distinct(append(lhs, rhs...))
	}
	there := s.presence(rhs, f.c.n)
	for _, row := range lhs {
		mask(row.values, there[string(s.of(row.labels))], c.op == parser.LAND)
	}
	return f.keep(lhs), nil
}

// mask leaves of a row the steps at which there is something, or nothing.
func mask(row []float64, there []bool, something bool) {
	for k := range row {
		if (there != nil && there[k]) != something {
			row[k] = none
		}
	}
}

// signatures find out which series are partners, and what labels results have.
type signatures struct {
	*parser.VectorMatching
	names   []string // sorted
	buf     []byte
	builder *labels.Builder
}

func newSignatures(m *parser.VectorMatching) *signatures {
	names := slices.Clone(m.MatchingLabels)
	if !m.On {
		names = append(names, model.MetricNameLabel)
	}
	slices.Sort(names)
	return &signatures{VectorMatching: m, names: names, builder: labels.NewBuilder(labels.EmptyLabels())}
}

// of is the signature of a series, until the next is asked for.
func (s *signatures) of(ls labels.Labels) []byte {
	if s.On {
		s.buf = ls.BytesWithLabels(s.buf, s.names...)
	} else {
		s.buf = ls.BytesWithoutLabels(s.buf, s.names...)
	}
	return s.buf
}

// presence says of each signature at which steps there is a series of it.
func (s *signatures) presence(rows []computedRow, n int) map[string][]bool {
	all := make(map[string][]bool, len(rows))
	for _, row := range rows {
		key := s.of(row.labels)
		there := all[string(key)]
		if there == nil {
			there = make([]bool, n)
			all[string(key)] = there
		}
		for k, v := range row.values {
			there[k] = there[k] || !isNone(v)
		}
	}
	return all
}

// result are the labels of what was computed of two partners, of which the
// second is the one that may have several.
func (s *signatures) result(many, one labels.Labels, kind resultKind) labels.Labels {
	s.builder.Reset(many)
	if kind != filters {
		schema.Metadata{}.SetToLabels(s.builder)
	}
	if s.Card == parser.CardOneToOne {
		if s.On {
			s.builder.Keep(s.MatchingLabels...)
		} else {
			s.builder.Del(s.MatchingLabels...)
		}
	}
	for _, name := range s.Include {
		s.builder.Set(name, one.Get(name)) // without a value it goes
	}
	return s.builder.Labels()
}

// aggregated is an aggregation of a formula.
type aggregated struct {
	of formula
	aggregate
}

func (a *aggregated) rows(f *formulaRun) ([]computedRow, error) {
	rows, err := a.of.rows(f)
	if err != nil {
		return nil, err
	}
	rows = f.keep(rows)
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
