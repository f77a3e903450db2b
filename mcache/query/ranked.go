package query

import (
	"container/heap"
	"math"
	"sort"

	"github.com/prometheus/prometheus/promql/parser"
)

// ranked is topk or bottomk of a plan. Of values that are alike it is by the order in
// which they come to a heap, and by the heap, which of them are chosen, and in which
// order an instant query has them: so heap, comparison and order are the engine's.
// The order of an operator's results is made up by the engine's maps; hence a plan,
// whose order is not.
type ranked struct {
	of *planned
	aggregate
	k int
}

// rankedOf returns nil for what the engine has to do.
func (b *formulaBuilder) rankedOf(n *parser.AggregateExpr) formula {
	k, ok := numberOf(n.Param)
	if !ok || !(k >= 1 && k <= math.MaxInt32) {
		return nil
	}
	if of, ok := b.operand(n.Expr).(*planned); ok {
		return &ranked{of: of, k: int(k), aggregate: aggregateOf(n)}
	}
	return nil
}

// chosen are the points of one group at one step that are the k largest so far, or
// the least of bottomk; the one that would go first is at 0.
type chosen struct {
	points []rankedPoint
	least  bool
}

type rankedPoint struct {
	f   float64
	row int
}

// Len implements heap.Interface.
func (h *chosen) Len() int { return len(h.points) }

// Less implements heap.Interface.
func (h *chosen) Less(i, j int) bool {
	if math.IsNaN(h.points[i].f) {
		return true
	}
	if h.least {
		return h.points[i].f > h.points[j].f
	}
	return h.points[i].f < h.points[j].f
}

// Swap implements heap.Interface.
func (h *chosen) Swap(i, j int) { h.points[i], h.points[j] = h.points[j], h.points[i] }

// Push implements heap.Interface.
func (h *chosen) Push(p any) { h.points = append(h.points, p.(rankedPoint)) }

// Pop implements heap.Interface. Nobody pops.
func (h *chosen) Pop() any { return nil }

// offer takes a point in, if it is one of the first k.
func (h *chosen) offer(f float64, row, k int) {
	if len(h.points) < k {
		heap.Push(h, rankedPoint{f, row})
		return
	}
	first := h.points[0].f
	if h.least && first > f || !h.least && first < f || math.IsNaN(first) && !math.IsNaN(f) {
		h.points[0] = rankedPoint{f, row}
		heap.Fix(h, 0)
	}
}

func (a *ranked) rows(f *formulaRun) ([]computedRow, error) {
	rows, err := f.some(a.of)
	if err != nil {
		return nil, err
	}
	groups := newCollector(f.c.steps, a.aggregate, len(rows))
	group := make([]int, len(rows))
	for i, row := range rows {
		group[i] = groups.placeOf(row.labels)
	}
	f.count(len(rows))
	if err := groups.lend(f.ctx, f.q.loan); err != nil {
		return nil, err
	}
	if err := f.take(2 * columns * min(a.k, len(rows)) * len(groups.groups) / max(f.c.n, 1)); err != nil {
		return nil, err
	}
	heaps := make([]chosen, columns*len(groups.groups))
	for from := 0; from < f.c.n; from += columns {
		to := min(from+columns, f.c.n)
		for i := range heaps {
			heaps[i] = chosen{points: heaps[i].points[:0], least: a.op == parser.BOTTOMK}
		}
		for i := range rows {
			at := heaps[columns*group[i]:]
			for k, v := range rows[i].values[from:to] {
				if !isNone(v) {
					at[k].offer(v, i, a.k)
					rows[i].values[from+k] = none
				}
			}
		}
		for i := range heaps {
			for _, p := range heaps[i].points {
				rows[p.row].values[from+i%columns] = p.f
			}
		}
		if err := engineError(f.ctx.Err()); err != nil {
			return nil, err
		}
	}
	if f.c.n > 1 {
		return rows, nil
	}
	first := make([]computedRow, 0, len(rows)) // as an instant query has them
	for i := 0; i < len(heaps); i += columns {
		sort.Sort(sort.Reverse(&heaps[i]))
		for _, p := range heaps[i].points {
			first = append(first, rows[p.row])
		}
	}
	return first, nil
}
