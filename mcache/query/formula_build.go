package query

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// What becomes a formula: an expression is taken apart until every part of it is a
// plan or a scalar. One part that is neither leaves all of it to the engine.

// formulaOf returns the formula that an expression is, if it is one.
func formulaOf(expr parser.Expr) (formula, bool) {
	b := formulaBuilder{leaves: map[string]*planned{}}
	f := b.build(expr)
	return f, f != nil
}

// formulaBuilder makes a formula, in which equal plans are one.
type formulaBuilder struct {
	leaves  map[string]*planned
	ordered bool // see plan
}

// operand builds what something is made of that goes by the order of series.
func (b *formulaBuilder) operand(expr parser.Expr) formula {
	was := b.ordered
	defer func() { b.ordered = was }()
	b.ordered = true
	return b.build(expr)
}

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
		leaf.plan.ordered = leaf.plan.ordered || b.ordered
		return leaf
	}
	switch n := expr.(type) {
	case *parser.UnaryExpr:
		of := b.build(n.Expr)
		if of == nil || n.Op != parser.SUB {
			return of
		}
		return &applied{of, negative}
	case *parser.AggregateExpr:
		switch n.Op {
		case parser.SUM, parser.AVG, parser.MIN, parser.MAX, parser.COUNT, parser.GROUP:
			if of := b.operand(n.Expr); of != nil {
				return &aggregated{of: of, aggregate: aggregateOf(n), expr: n, ordered: b.ordered}
			}
		case parser.QUANTILE:
			return b.quantileOf(n)
		case parser.TOPK, parser.BOTTOMK:
			return b.rankedOf(n)
		}
	case *parser.BinaryExpr:
		return b.binary(n)
	case *parser.Call:
		return b.call(n)
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
	if with, ok := scalarOf(n.RHS); ok && op != nil {
		if of := b.build(n.LHS); of != nil {
			return &scaled{of: of, op: op, with: with, kind: resultOf(n), left: true}
		}
		return nil
	}
	if with, ok := scalarOf(n.LHS); ok && op != nil {
		if of := b.build(n.RHS); of != nil {
			return &scaled{of: of, op: op, with: with, kind: resultOf(n)}
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
