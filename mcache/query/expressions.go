package query

import (
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// keptExpressions remembers what expressions that need no engine have been parsed to:
// those of a dashboard come again and again, and parsing one takes as long as finding
// its series. They are shared by requests, and are not changed by any: a plan and a
// formula are made of one anew each time. The engine changes what it evaluates, so what
// it gets is parsed for it.
type keptExpressions struct {
	generations[string, parser.Expr]
}

const (
	// keptExpressionBytes is what a generation may have: some hundred expressions.
	keptExpressionBytes = 2 << 20
	// A longer expression is not kept, nor is one of which a pattern swells.
	maxKeptExpression = 2 << 10
	bytesOfNode       = 256 // a selector has bytesOfSelector
)

func newKeptExpressions() *keptExpressions {
	return &keptExpressions{generations[string, parser.Expr]{maxBytes: keptExpressionBytes, size: func(text string, expr parser.Expr) int {
		return len(text) + bytesOfExpr(expr)
	}}}
}

// keep keeps an expression, which nobody may change any more; its text must be no view of
// a buffer.
func (k *keptExpressions) keep(text string, expr parser.Expr) {
	if len(text) <= maxKeptExpression && !swelling(expr) {
		k.put(text, expr)
	}
}

func bytesOfExpr(node parser.Node) int {
	n := bytesOfNode
	if s, ok := node.(*parser.VectorSelector); ok {
		n = bytesOfSelector
		for _, m := range s.LabelMatchers {
			n += bytesOfPatternByte * len(m.GetRegexString())
		}
	}
	for child := range parser.ChildrenIter(node) {
		n += bytesOfExpr(child)
	}
	return n
}

// swelling reports that a pattern in node swells.
func swelling(node parser.Node) bool {
	if s, ok := node.(*parser.VectorSelector); ok && slices.ContainsFunc(s.LabelMatchers, swells) {
		return true
	}
	for child := range parser.ChildrenIter(node) {
		if swelling(child) {
			return true
		}
	}
	return false
}
