package query

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// What the parser and the engine do to an expression takes time that grows with
// the square of its depth, and nothing can interrupt it: 100 ms for 8,000
// levels of parsing, a second of preparing, and printing is worse. Two bounds
// keep all of that to a few tenths of a second. Neither counts what stands in
// quotes, where generated queries list values by the thousand.
const (
	maxUnquotedBytes = 16 << 10
	maxDepth         = 500 // levels; a chain of operators is as deep as it is long
)

// boundedParser is Prometheus' parser, for expressions of a bounded size.
type boundedParser struct{ parser.Parser }

func (p boundedParser) ParseExpr(input string) (parser.Expr, error) {
	if err := checkUnquoted(input); err != nil {
		return nil, err
	}
	expr, err := p.Parser.ParseExpr(input)
	if err != nil {
		return nil, err
	}
	if n := depth(expr); n > maxDepth {
		return nil, fmt.Errorf("expression is too deep: %d levels, at most %d", n, maxDepth)
	}
	return expr, nil
}

func (p boundedParser) ParseMetricSelector(input string) ([]*labels.Matcher, error) {
	if err := checkUnquoted(input); err != nil {
		return nil, err
	}
	return p.Parser.ParseMetricSelector(input)
}

func (p boundedParser) ParseMetricSelectors(inputs []string) ([][]*labels.Matcher, error) {
	for _, input := range inputs {
		if err := checkUnquoted(input); err != nil {
			return nil, err
		}
	}
	return p.Parser.ParseMetricSelectors(inputs)
}

// checkUnquoted counts what stands outside of quotes and comments.
func checkUnquoted(input string) error {
	n := 0
	for i := 0; i < len(input); i++ {
		switch c := input[i]; c {
		case '"', '\'', '`':
			for i++; i < len(input) && input[i] != c; i++ {
				if input[i] == '\\' && c != '`' {
					i++
				}
			}
		case '#':
			for i < len(input) && input[i] != '\n' {
				i++
			}
		default:
			n++
		}
	}
	if n > maxUnquotedBytes {
		return fmt.Errorf("expression is too long: %d bytes outside of quotes, at most %d", n, maxUnquotedBytes)
	}
	return nil
}

func depth(node parser.Node) int {
	deepest := 0
	for child := range parser.ChildrenIter(node) {
		deepest = max(deepest, depth(child))
	}
	return deepest + 1
}
