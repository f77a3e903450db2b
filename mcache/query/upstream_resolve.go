package query

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// What an expression says of the query that it is in, as @ start() and durations
// made of range(), must mean the whole query also where a part of its steps is
// evaluated: it is resolved to numbers first.

// resolve makes numbers of what depends on the times of a query. It changes
// expr; positions in it stay those of the text.
func resolve(expr parser.Expr, start, end time.Time, step time.Duration) (parser.Expr, error) {
	expr, err := promql.PreprocessExpr(expr, start, end, step)
	if err != nil {
		return nil, err
	}
	expr = variable(expr)
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			n.StartOrEnd, n.OriginalOffsetExpr = 0, nil
		case *parser.MatrixSelector:
			n.RangeExpr = nil
		case *parser.SubqueryExpr:
			n.StartOrEnd, n.OriginalOffsetExpr, n.RangeExpr, n.StepExpr = 0, nil, nil, nil
		}
		return nil
	})
	return expr, nil
}

// variable takes out what the engine puts around parts that are the same at
// each step: it does so itself, and knows such nodes from nobody else.
func variable(expr parser.Expr) parser.Expr {
	switch n := expr.(type) {
	case *parser.StepInvariantExpr:
		return variable(n.Expr)
	case *parser.AggregateExpr:
		n.Expr = variable(n.Expr)
		if n.Param != nil {
			n.Param = variable(n.Param)
		}
	case *parser.BinaryExpr:
		n.LHS, n.RHS = variable(n.LHS), variable(n.RHS)
	case *parser.Call:
		for i := range n.Args {
			n.Args[i] = variable(n.Args[i])
		}
	case *parser.ParenExpr:
		n.Expr = variable(n.Expr)
	case *parser.UnaryExpr:
		n.Expr = variable(n.Expr)
	case *parser.SubqueryExpr:
		n.Expr = variable(n.Expr)
	}
	return expr
}

// contextual reports that an expression depends on the times of its query.
func contextual(expr parser.Expr) (found bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			found = found || n.StartOrEnd != 0 || n.OriginalOffsetExpr != nil
		case *parser.MatrixSelector:
			found = found || n.RangeExpr != nil
		case *parser.SubqueryExpr:
			found = found || n.StartOrEnd != 0 || n.OriginalOffsetExpr != nil || n.RangeExpr != nil || n.StepExpr != nil
		case *parser.Call:
			switch n.Func.Name {
			case "start", "end", "range", "step":
				found = true
			}
		}
		return nil
	})
	return found
}

// moved maps positions in the text that a resolved expression is printed as,
// which the store tells of, to those in the text that it was parsed from.
func moved(resolved, printed parser.Expr, original, text string) map[string]string {
	at := map[string]string{}
	var walk func(a, b parser.Node)
	walk = func(a, b parser.Node) {
		if a == nil || b == nil {
			return
		}
		at[b.PositionRange().StartPosInput(text, 0)] = a.PositionRange().StartPosInput(original, 0)
		as, bs := slices.Collect(parser.ChildrenIter(a)), slices.Collect(parser.ChildrenIter(b))
		for i := range min(len(as), len(bs)) {
			walk(as[i], bs[i])
		}
	}
	walk(resolved, printed)
	return at
}

// originalPosition puts the position at the end of a note of the store's where it
// is in the text of the client.
func originalPosition(note string, at map[string]string) string {
	return movedNote(note, func(place string) (string, bool) {
		to, ok := at[place]
		return to, ok
	})
}

// movedNote puts another position at the end of a note, if it has one that to knows.
func movedNote(note string, to func(at string) (string, bool)) string {
	open := strings.LastIndex(note, " (")
	if open < 0 || !strings.HasSuffix(note, ")") {
		return note
	}
	if at, ok := to(note[open+2 : len(note)-1]); ok {
		return note[:open+2] + at + ")"
	}
	return note
}

// indivisible says why the answer to an expression is more than its steps, each
// by itself; "" if it is not.
func indivisible(expr parser.Expr) (why string) {
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		switch n := n.(type) {
		case *parser.Call:
			if n.Func.Name == "info" {
				why = "info() joins series of all of the range"
			}
		case *parser.AggregateExpr:
			if n.Op == parser.LIMITK || n.Op == parser.LIMIT_RATIO {
				why = n.Op.String() + " picks series by the order of the store"
			}
		case *parser.MatrixSelector:
			// Its function drops the names, and then series of all steps may be alike.
			if v, ok := n.VectorSelector.(*parser.VectorSelector); ok && !named(v) {
				why = "a range of series of any name fails in the whole only"
			}
		}
		return nil
	})
	return why
}

// ranged reports that an expression has a range or a subquery.
func ranged(expr parser.Expr) (found bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n.(type) {
		case *parser.MatrixSelector, *parser.SubqueryExpr:
			found = true
		}
		return nil
	})
	return found
}

// simple reports that an expression is a selector, or the sum, count, minimum or
// maximum of one.
func simple(expr parser.Expr) bool {
	switch n := withoutParens(expr).(type) {
	case *parser.VectorSelector:
		return true
	case *parser.AggregateExpr:
		switch n.Op {
		case parser.SUM, parser.COUNT, parser.MIN, parser.MAX:
			_, ok := withoutParens(n.Expr).(*parser.VectorSelector)
			return ok
		}
	}
	return false
}

// metricsOf names what an expression selects: by names of metrics, or where a
// selector has none, by the selector.
func metricsOf(expr parser.Expr) (names []string) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			name := v.Name
			for _, m := range v.LabelMatchers {
				if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
					name = m.Value
				}
			}
			if name == "" {
				name = v.String()
			}
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return slices.Compact(names)
}
