package query

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// quantiled is the quantile aggregation of a formula, for a number from 0 to 1:
// the engine has warnings about others.
type quantiled struct {
	of formula
	aggregate
	q float64
}

// quantileOf returns nil for what the engine has to do.
func (b *formulaBuilder) quantileOf(n *parser.AggregateExpr) formula {
	q, ok := numberOf(n.Param)
	if !ok || !(q >= 0 && q <= 1) {
		return nil
	}
	of := b.operand(n.Expr)
	if of == nil {
		return nil
	}
	return &quantiled{of: of, q: q, aggregate: aggregateOf(n)}
}

// columns is how many steps of a row are looked at together: a cache line of it.
const columns = 8

func (a *quantiled) rows(f *formulaRun) ([]computedRow, error) {
	rows, err := f.some(a.of)
	if err != nil {
		return nil, err
	}
	out := newCollector(f.c.steps, a.aggregate, len(rows))
	members := [][]computedRow{} // of each group
	for _, row := range rows {
		i := out.placeOf(row.labels)
		if i == len(members) {
			members = append(members, nil)
		}
		members[i] = append(members[i], row)
	}
	f.count(len(out.groups))
	if err := out.lend(f.ctx, f.q.loan); err != nil {
		return nil, err
	}
	if err := f.take(columns * len(rows) / max(f.c.n, 1)); err != nil {
		return nil, err
	}
	var values [columns][]float64
	for i, group := range members {
		row := out.groups[i].value
		for from := 0; from < f.c.n; from += columns {
			steps := row[from:min(from+columns, f.c.n)]
			for k := range values {
				values[k] = values[k][:0]
			}
			for _, r := range group {
				for k, v := range r.values[from:][:len(steps)] {
					if !isNone(v) {
						values[k] = append(values[k], v)
					}
				}
			}
			for k := range steps {
				if len(values[k]) > 0 {
					steps[k] = quantileIn(a.q, values[k])
				}
			}
		}
		if err := engineError(f.ctx.Err()); err != nil {
			return nil, err
		}
	}
	return out.rows(), nil
}

// quantileIn is the quantile of values, of which there is one at least; their
// order changes. Values that are no numbers are less than all others.
func quantileIn(q float64, values []float64) float64 {
	rank := q * float64(len(values)-1)
	low := math.Floor(rank)
	high := min(float64(len(values)-1), low+1)
	weight := rank - low
	lower := nth(values, int(low))
	upper := lower
	if high > low {
		upper = least(values[int(high):])
	}
	return lower*(1-weight) + upper*weight
}

// before reports the order of the engine, of all floats.
func before(a, b float64) bool { return a < b || a != a && b == b }

// nth is the value that stands at i when values are sorted. It puts it there,
// and those that are not before it behind it: Hoare's FIND, 1961.
func nth(values []float64, i int) float64 {
	for left, right := 0, len(values)-1; left < right; {
		if right-left < 12 {
			slices.SortFunc(values[left:right+1], compareFloats)
			break
		}
		pivot := middle(values[left], values[(left+right)/2], values[right])
		l, r := left, right
		for l <= r {
			for before(values[l], pivot) {
				l++
			}
			for before(pivot, values[r]) {
				r--
			}
			if l <= r {
				values[l], values[r] = values[r], values[l]
				l++
				r--
			}
		}
		switch {
		case i <= r:
			right = r
		case i >= l:
			left = l
		default:
			return values[i]
		}
	}
	return values[i]
}

func compareFloats(a, b float64) int {
	switch {
	case before(a, b):
		return -1
	case before(b, a):
		return 1
	default:
		return 0
	}
}

// middle is the median of three.
func middle(a, b, c float64) float64 {
	if before(b, a) {
		a, b = b, a
	}
	if before(c, b) {
		b = c
		if before(b, a) {
			b = a
		}
	}
	return b
}

func least(values []float64) float64 {
	f := values[0]
	for _, v := range values[1:] {
		if before(v, f) {
			f = v
		}
	}
	return f
}
