package query

import (
	"fmt"
	"strings"
	"sync"

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

// What has to be compiled as a regular expression takes 20 µs and 8 KiB for
// each of its alternatives, and nothing can interrupt that, either. A list of
// values without any other sign than | is not compiled and has no bound of its
// own; one in brackets, or with signs escaped, as Grafana sends it, is. Beyond
// largePatternBytes one is compiled at a time, which takes a second at most.
const (
	maxPatternBytes   = 2 << 20 // some 60,000 names of pods
	largePatternBytes = 128 << 10
)

// boundedParser is Prometheus' parser, for expressions of a bounded size.
type boundedParser struct {
	parser.Parser
	large       *sync.Mutex // held by who parses large patterns
	selectors   *keptSelectors
	expressions *keptExpressions
}

func newBoundedParser(o parser.Options) boundedParser {
	return boundedParser{parser.NewParser(o), new(sync.Mutex), newKeptSelectors(), newKeptExpressions()}
}

// admit checks the size of an expression and waits for its turn, if it needs one.
func (p boundedParser) admit(inputs ...string) (done func(), err error) {
	patterns := 0
	for _, input := range inputs {
		unquoted, n := measure(input)
		if unquoted > maxUnquotedBytes {
			return nil, fmt.Errorf("expression is too long: %d bytes outside of quotes, at most %d", unquoted, maxUnquotedBytes)
		}
		patterns += n
	}
	if patterns > maxPatternBytes {
		return nil, fmt.Errorf("regular expressions are too long: %d bytes, at most %d; lists of values with no other sign than | do not count", patterns, maxPatternBytes)
	}
	if patterns < largePatternBytes {
		return func() {}, nil
	}
	p.large.Lock()
	return p.large.Unlock, nil
}

func (p boundedParser) ParseExpr(input string) (parser.Expr, error) {
	done, err := p.admit(input)
	if err != nil {
		return nil, err
	}
	defer done()
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
	done, err := p.admit(input)
	if err != nil {
		return nil, err
	}
	defer done()
	return p.Parser.ParseMetricSelector(input)
}

// ParseMetricSelectors parses what it has not parsed lately. Matchers may be those of
// another request, too: they must not be changed, but for their order.
func (p boundedParser) ParseMetricSelectors(inputs []string) ([][]*labels.Matcher, error) {
	done, err := p.admit(inputs...)
	if err != nil {
		return nil, err
	}
	defer done()
	sets := make([][]*labels.Matcher, len(inputs))
	for i, input := range inputs {
		ms, ok := p.selectors.of(input)
		if !ok {
			input = strings.Clone(input) // matchers are views of it
			if ms, err = p.Parser.ParseMetricSelector(input); err != nil {
				return nil, err
			}
			p.selectors.keep(input, ms)
		}
		sets[i] = ms
	}
	return sets, nil
}

// measure counts what stands outside of quotes and comments, and the bytes of
// texts in quotes that may be regular expressions to compile.
func measure(input string) (unquoted, patterns int) {
	for i := 0; i < len(input); i++ {
		switch c := input[i]; c {
		case '"', '\'', '`':
			start := i + 1
			for i++; i < len(input) && input[i] != c; i++ {
				if input[i] == '\\' && c != '`' {
					i++
				}
			}
			if text := input[start:min(i, len(input))]; strings.ContainsAny(text, `\.+*?()[]{}^$`) {
				patterns += len(text)
			}
		case '#':
			for i < len(input) && input[i] != '\n' {
				i++
			}
		default:
			unquoted++
		}
	}
	return unquoted, patterns
}

func depth(node parser.Node) int {
	deepest := 0
	for child := range parser.ChildrenIter(node) {
		deepest = max(deepest, depth(child))
	}
	return deepest + 1
}
