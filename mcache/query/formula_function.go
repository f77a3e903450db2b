package query

import (
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Functions of one number, for which a formula asks at each step of each row, and
// scalars, which are the same for all rows.

// applied is a function of what a formula comes to.
type applied struct {
	of formula
	f  func(float64) float64 // nil: of whatever it comes to there is no result
}

func (a *applied) rows(f *formulaRun) ([]computedRow, error) {
	rows, err := a.of.rows(f)
	if err != nil || a.f == nil {
		return nil, err
	}
	f.count(len(rows))
	for i := range rows {
		rows[i].labels = nameless(rows[i].labels)
		for k, v := range rows[i].values {
			if !isNone(v) {
				rows[i].values[k] = a.f(v)
			}
		}
	}
	return f.distinct(rows)
}

// functions are those of a number alone.
var functions = map[string]func(float64) float64{
	"abs":   math.Abs,
	"ceil":  math.Ceil,
	"floor": math.Floor,
	"exp":   math.Exp,
	"sqrt":  math.Sqrt,
	"ln":    math.Log,
	"log2":  math.Log2,
	"log10": math.Log10,
	"deg":   func(v float64) float64 { return v * 180 / math.Pi },
	"rad":   func(v float64) float64 { return v * math.Pi / 180 },
	"sgn":   sign,
}

func negative(v float64) float64 { return -v }

func sign(v float64) float64 {
	switch {
	case v < 0:
		return -1
	case v > 0:
		return 1
	default:
		return v
	}
}

// call builds what a function is that takes a formula, or makes one of a scalar.
func (b *formulaBuilder) call(n *parser.Call) formula {
	switch n.Func.Name {
	case "histogram_quantile":
		return b.bucketedOf(n)
	case "vector":
		if s, ok := scalarOf(n.Args[0]); ok {
			return &everywhere{s}
		}
		return nil
	}
	numbers := make([]float64, 0, 2)
	for i := 1; i < len(n.Args); i++ {
		v, ok := numberOf(n.Args[i])
		if !ok {
			return nil
		}
		numbers = append(numbers, v)
	}
	f := functions[n.Func.Name]
	switch n.Func.Name {
	case "round":
		f = roundTo(1)
		if len(numbers) > 0 {
			f = roundTo(numbers[0])
		}
	case "clamp":
		f = clampTo(numbers[0], numbers[1])
	case "clamp_min":
		f = clampTo(numbers[0], math.Inf(1))
	case "clamp_max":
		f = clampTo(math.Inf(-1), numbers[0])
	default:
		if f == nil {
			return nil
		}
	}
	of := b.build(n.Args[0])
	if of == nil {
		return nil
	}
	return &applied{of, f}
}

// roundTo rounds to a multiple, and what is between two up, by the engine's operations.
func roundTo(multiple float64) func(float64) float64 {
	inverse := 1 / multiple
	return func(v float64) float64 { return math.Floor(v*inverse+0.5) / inverse }
}

// clampTo is nil for bounds that nothing is between.
func clampTo(least, most float64) func(float64) float64 {
	if most < least {
		return nil
	}
	return func(v float64) float64 { return math.Max(least, math.Min(most, v)) }
}

// scalar is what an expression of numbers and of the time comes to.
type scalar struct {
	value float64
	at    func(ms int64) float64 // at a unix time; nil: value, at all times
}

// over is what it comes to at each step, or nil if that is value.
func (s scalar) over(t steps) []float64 {
	if s.at == nil {
		return nil
	}
	values := make([]float64, t.n)
	for k := range values {
		values[k] = s.at(t.start + int64(k)*t.interval)
	}
	return values
}

// scalarOf is what an expression without series comes to.
func scalarOf(expr parser.Expr) (scalar, bool) {
	switch n := withoutParens(expr).(type) {
	case *parser.NumberLiteral:
		return scalar{value: n.Val}, true
	case *parser.Call:
		if n.Func.Name == "time" {
			return scalar{at: func(ms int64) float64 { return float64(ms) / 1000 }}, true
		}
	case *parser.UnaryExpr:
		of, ok := scalarOf(n.Expr)
		if ok && n.Op == parser.SUB {
			of = combine(of, of, func(v, _ float64) (float64, bool) { return -v, true })
		}
		return of, ok
	case *parser.BinaryExpr:
		op := operations[n.Op]
		if op == nil || n.Op.IsComparisonOperator() {
			return scalar{}, false
		}
		l, ok1 := scalarOf(n.LHS)
		r, ok2 := scalarOf(n.RHS)
		if ok1 && ok2 {
			return combine(l, r, op), true
		}
	}
	return scalar{}, false
}

func combine(l, r scalar, op operation) scalar {
	if l.at == nil && r.at == nil {
		v, _ := op(l.value, r.value)
		return scalar{value: v}
	}
	return scalar{at: func(ms int64) float64 { v, _ := op(l.now(ms), r.now(ms)); return v }}
}

func (s scalar) now(ms int64) float64 {
	if s.at == nil {
		return s.value
	}
	return s.at(ms)
}

// numberOf is the value of an expression of numbers alone.
func numberOf(expr parser.Expr) (float64, bool) {
	s, ok := scalarOf(expr)
	return s.value, ok && s.at == nil
}

// everywhere is a scalar as a series without labels.
type everywhere struct{ scalar }

func (e *everywhere) rows(f *formulaRun) ([]computedRow, error) {
	if err := f.take(1); err != nil {
		return nil, err
	}
	f.count(1)
	values := e.over(f.c.steps)
	if values == nil {
		values = make([]float64, f.c.n)
		for k := range values {
			values[k] = e.value
		}
	}
	return []computedRow{{labels: labels.EmptyLabels(), values: values}}, nil
}
