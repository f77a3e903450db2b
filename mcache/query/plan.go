package query

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
)

// A plan is a part of an expression that is computed here and not by the
// engine: the rate of a counter, or another function of a
// window, or an aggregation of that or of plain series. The engine looks at all
// samples of a window again at each step and keeps all series until it aggregates;
// a plan decodes a series once, slides over it, and adds it to its group.
//
// In the expression that the engine gets, a selector takes the place of that
// part, and Select answers it with what was computed. Results are those of the
// engine to the last bit: the same operations on floats in the same order. An
// expression that is a plan, or a selector, as a whole does not need the engine
// at all: see wholePlan; nor do operators between such: see formula.
type plan struct {
	matcher  *labels.Matcher // the only one of the selector in its place
	selector *parser.VectorSelector
	rangeMs  int64 // of the window; 0: the latest sample counts
	perSec   bool  // rate, not increase or delta
	gauge    bool  // delta: what is less than before is no reset
	fold     *fold // another function of the window; nil: one of the above
	aggregate
	position posrange.PositionRange // of the argument of a function of a window
	expr     parser.Expr            // an aggregation: what is remembered is of it
	ordered  bool                   // in which order groups stand is more than how an answer is sorted
}

// offsetMs is by how much the samples are older than the steps.
func (p *plan) offsetMs() int64 { return p.selector.OriginalOffset.Milliseconds() }

// ofCounters reports that a plan is one of rates, which counters have.
func (p *plan) ofCounters() bool { return p.rangeMs > 0 && p.fold == nil && !p.gauge }

// aggregate is what becomes of the series of a plan.
type aggregate struct {
	op       parser.ItemType // 0: they stay as they are
	without  bool
	grouping []string // sorted
}

func aggregateOf(n *parser.AggregateExpr) aggregate {
	return aggregate{op: n.Op, without: n.Without, grouping: slices.Sorted(slices.Values(n.Grouping))}
}

// planLabel is the name that a plan's matcher has. Nothing depends on it: a
// plan knows its matcher by its address.
const planLabel = "plan"

// rewrite replaces all that can be planned in an expression, which it changes.
func rewrite(expr parser.Expr) (parser.Expr, []*plan) {
	var r rewriter
	return r.rewrite(expr), r.plans
}

type rewriter struct {
	plans   []*plan
	ordered bool // what is rewritten is an operand of something that goes by the order of series
}

// operand rewrites an operand of something that goes by the order of series.
func (r *rewriter) operand(expr parser.Expr) parser.Expr {
	was := r.ordered
	defer func() { r.ordered = was }()
	r.ordered = true
	return r.rewrite(expr)
}

func (r *rewriter) rewrite(expr parser.Expr) parser.Expr {
	if p, ok := planOf(expr); ok {
		p.matcher = labels.MustNewMatcher(labels.MatchEqual, planLabel, strconv.Itoa(len(r.plans)))
		p.ordered = r.ordered
		r.plans = append(r.plans, p)
		return &parser.VectorSelector{LabelMatchers: []*labels.Matcher{p.matcher}, PosRange: expr.PositionRange()}
	}
	switch n := expr.(type) {
	case *parser.AggregateExpr:
		n.Expr = r.operand(n.Expr)
	case *parser.BinaryExpr:
		n.LHS, n.RHS = r.operand(n.LHS), r.operand(n.RHS)
	case *parser.ParenExpr:
		n.Expr = r.rewrite(n.Expr)
	case *parser.UnaryExpr:
		n.Expr = r.rewrite(n.Expr)
	case *parser.Call:
		switch n.Func.Name {
		case "absent", "absent_over_time", "info", "timestamp", "start_timestamp":
			return expr // these do something else when their argument is a selector
		}
		for i := range n.Args {
			n.Args[i] = r.rewrite(n.Args[i])
		}
	}
	// Subqueries have steps of their own.
	return expr
}

// planOf returns the plan of an expression, if it is one that can be planned.
func planOf(expr parser.Expr) (*plan, bool) {
	switch n := expr.(type) {
	case *parser.Call:
		return planOfCall(n)
	case *parser.AggregateExpr:
		switch n.Op {
		case parser.SUM, parser.AVG, parser.MIN, parser.MAX, parser.COUNT, parser.GROUP:
		default:
			return nil, false
		}
		p, ok := planOfOperand(n.Expr)
		if !ok {
			return nil, false
		}
		p.aggregate, p.expr = aggregateOf(n), n
		return p, true
	}
	return nil, false
}

func planOfOperand(expr parser.Expr) (*plan, bool) {
	switch n := withoutParens(expr).(type) {
	case *parser.VectorSelector:
		return &plan{selector: n}, plain(n)
	case *parser.Call:
		return planOfCall(n)
	}
	return nil, false
}

func withoutParens(expr parser.Expr) parser.Expr {
	for {
		paren, ok := expr.(*parser.ParenExpr)
		if !ok {
			return expr
		}
		expr = paren.Expr
	}
}

func planOfCall(n *parser.Call) (*plan, bool) {
	of := folds[n.Func.Name]
	switch n.Func.Name {
	case "rate", "increase", "delta":
	default:
		if of == nil {
			return nil, false
		}
	}
	m, ok := n.Args[0].(*parser.MatrixSelector)
	if !ok || m.RangeExpr != nil || m.Range <= 0 {
		return nil, false
	}
	selector, ok := m.VectorSelector.(*parser.VectorSelector)
	if !ok || !plain(selector) || !named(selector) {
		return nil, false
	}
	return &plan{
		selector: selector,
		rangeMs:  m.Range.Milliseconds(),
		perSec:   n.Func.Name == "rate",
		gauge:    n.Func.Name == "delta",
		fold:     of,
		position: m.PositionRange(),
	}, true
}

// plain reports that a selector moves with the steps of the query.
func plain(n *parser.VectorSelector) bool {
	return n.Timestamp == nil && n.StartOrEnd == 0 && n.OriginalOffsetExpr == nil && !n.Anchored && !n.Smoothed
}

// named reports that a selector takes series of one name. Others may be alike
// but for their names, which rates lose: the engine knows what to say to that.
func named(n *parser.VectorSelector) bool {
	return slices.ContainsFunc(n.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != ""
	})
}

// handoff is a parser for an engine whose expressions have been parsed before.
// What the engine takes for the text is the key of an expression.
type handoff struct {
	parser.Parser
	mu    sync.Mutex
	last  uint64
	exprs map[string]parser.Expr // until the engine asks, which is at once
}

func (h *handoff) put(expr parser.Expr) (key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.exprs == nil {
		h.exprs = map[string]parser.Expr{}
	}
	h.last++
	key = strconv.FormatUint(h.last, 10)
	h.exprs[key] = expr
	return key
}

// ParseExpr takes out the expression that was put under a key.
func (h *handoff) ParseExpr(key string) (parser.Expr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	expr, ok := h.exprs[key]
	if !ok {
		return nil, fmt.Errorf("no expression of the key %q", key)
	}
	delete(h.exprs, key)
	return expr, nil
}
