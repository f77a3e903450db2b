package query

import (
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

type object = map[string]any

// translate turns a syntax tree into what parse_query answers.
func translate(node parser.Expr) any {
	switch n := node.(type) {
	case nil:
		return nil
	case *parser.AggregateExpr:
		return object{
			"type":     "aggregation",
			"op":       n.Op.String(),
			"expr":     translate(n.Expr),
			"param":    translate(n.Param),
			"grouping": notNull(n.Grouping),
			"without":  n.Without,
		}
	case *parser.BinaryExpr:
		return object{
			"type":     "binaryExpr",
			"op":       n.Op.String(),
			"lhs":      translate(n.LHS),
			"rhs":      translate(n.RHS),
			"matching": translateMatching(n.VectorMatching),
			"bool":     n.ReturnBool,
		}
	case *parser.Call:
		args := make([]any, len(n.Args))
		for i, arg := range n.Args {
			args[i] = translate(arg)
		}
		return object{
			"type": "call",
			"func": object{
				"name":       n.Func.Name,
				"argTypes":   n.Func.ArgTypes,
				"variadic":   n.Func.Variadic,
				"returnType": n.Func.ReturnType,
			},
			"args": args,
		}
	case *parser.VectorSelector:
		o := translateSelector(n)
		o["type"] = "vectorSelector"
		return o
	case *parser.MatrixSelector:
		o := translateSelector(n.VectorSelector.(*parser.VectorSelector))
		o["type"] = "matrixSelector"
		o["range"] = n.Range.Milliseconds()
		o["rangeExpr"] = translateDuration(n.RangeExpr)
		return o
	case *parser.SubqueryExpr:
		return object{
			"type":       "subquery",
			"expr":       translate(n.Expr),
			"range":      n.Range.Milliseconds(),
			"rangeExpr":  translateDuration(n.RangeExpr),
			"offset":     n.OriginalOffset.Milliseconds(),
			"offsetExpr": translateDuration(n.OriginalOffsetExpr),
			"step":       n.Step.Milliseconds(),
			"stepExpr":   translateDuration(n.StepExpr),
			"timestamp":  n.Timestamp,
			"startOrEnd": translateStartOrEnd(n.StartOrEnd),
		}
	case *parser.DurationExpr:
		return translateDuration(n)
	case *parser.NumberLiteral:
		return object{"type": "numberLiteral", "val": strconv.FormatFloat(n.Val, 'f', -1, 64)}
	case *parser.StringLiteral:
		return object{"type": "stringLiteral", "val": n.Val}
	case *parser.ParenExpr:
		return object{"type": "parenExpr", "expr": translate(n.Expr)}
	case *parser.UnaryExpr:
		return object{"type": "unaryExpr", "op": n.Op.String(), "expr": translate(n.Expr)}
	default:
		// A kind of node that the parser has learnt since: say what it looks like.
		return object{"type": "unknown", "val": n.String()}
	}
}

func translateSelector(n *parser.VectorSelector) object {
	return object{
		"name":       n.Name,
		"offset":     n.OriginalOffset.Milliseconds(),
		"offsetExpr": translateDuration(n.OriginalOffsetExpr),
		"matchers":   translateMatchers(n.LabelMatchers),
		"timestamp":  n.Timestamp,
		"startOrEnd": translateStartOrEnd(n.StartOrEnd),
		"anchored":   n.Anchored,
		"smoothed":   n.Smoothed,
	}
}

func translateMatching(m *parser.VectorMatching) any {
	if m == nil {
		return nil
	}
	return object{
		"card":    m.Card.String(),
		"labels":  notNull(m.MatchingLabels),
		"on":      m.On,
		"include": notNull(m.Include),
		"fillValues": object{
			"lhs": m.FillValues.LHS,
			"rhs": m.FillValues.RHS,
		},
	}
}

func translateMatchers(ms []*labels.Matcher) []object {
	out := make([]object, len(ms))
	for i, m := range ms {
		out[i] = object{"name": m.Name, "value": m.Value, "type": m.Type.String()}
	}
	return out
}

// translateDuration takes the places where a duration may be computed. The
// parser leaves typed nil pointers where there is none.
func translateDuration(node parser.Expr) any {
	switch n := node.(type) {
	case *parser.DurationExpr:
		if n == nil {
			return nil
		}
		return object{
			"type":    "durationExpr",
			"op":      n.Op.String(),
			"lhs":     translateDuration(n.LHS),
			"rhs":     translateDuration(n.RHS),
			"wrapped": n.Wrapped,
		}
	case *parser.NumberLiteral:
		if n == nil {
			return nil
		}
		return object{
			"type":     "numberLiteral",
			"val":      strconv.FormatFloat(n.Val, 'f', -1, 64),
			"duration": n.Duration,
		}
	default:
		return translate(n)
	}
}

func translateStartOrEnd(i parser.ItemType) any {
	if i == 0 {
		return nil
	}
	return i.String()
}

func notNull(ss []string) []string {
	if ss == nil {
		return []string{}
	}
	return ss
}
