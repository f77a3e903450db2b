package query

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/kahansum"
)

// collector gathers the rows of a plan: as they are, or by group. Groups stand
// in the order in which their first series came.
type collector struct {
	steps
	aggregate
	series  int // that may come
	size    int // values kept
	lent    int // values that the loan has for them
	points  int // results of series, which the engine has all before it aggregates
	groups  []group
	slab    []float64 // room for rows that stay as they are
	room    *room
	slabs   []*[maxSlab]float64 // borrowed from room
	byKey   map[uint64]int
	buf     []byte
	builder *labels.Builder
}

// group is the aggregation of some series, for every step. Values are none
// until the first series has one.
type group struct {
	labels labels.Labels
	first  int // step of the first value
	value  []float64
	carry  []float64 // sum, avg: what the sum has lost to rounding
	count  []float64 // avg, count
	mean   []float64 // avg, from where the sum would overflow: none before; nil while no step's does
}

func newCollector(s steps, a aggregate, series int) *collector {
	return &collector{steps: s, aggregate: a, series: series, byKey: map[uint64]int{}, builder: labels.NewBuilder(labels.EmptyLabels())}
}

// collectorOf has rows that are complete.
func collectorOf(c *computer, rows []computedRow) *collector {
	out := &collector{steps: c.steps, room: c.room, groups: make([]group, len(rows))}
	for i, row := range rows {
		out.groups[i] = group{labels: row.labels, first: row.first, value: row.values}
	}
	return out
}

// rows returns the results. The collector must not be used afterwards.
func (c *collector) rows() []computedRow {
	rows := make([]computedRow, len(c.groups))
	for i := range c.groups {
		g := &c.groups[i]
		c.finish(g)
		rows[i] = computedRow{labels: g.labels, first: g.first, values: g.value}
	}
	return rows
}

// add takes in a series. The row remains the caller's.
func (c *collector) add(ls labels.Labels, row []float64) {
	if c.op == 0 {
		first, end := 0, len(row)
		for first < end && isNone(row[first]) {
			first++
		}
		for first < end && isNone(row[end-1]) {
			end--
		}
		if c.groups == nil {
			c.groups = make([]group, 0, min(c.series, maxSlab))
		}
		c.groups = append(c.groups, group{labels: ls, first: first, value: c.keep(row[first:end])})
		return
	}
	g := c.groupOf(ls)
	switch c.op {
	case parser.SUM:
		g.sum(row)
	case parser.AVG:
		g.avg(row)
	case parser.MIN:
		g.min(row)
	case parser.MAX:
		g.max(row)
	case parser.COUNT, parser.GROUP:
		g.counted(row)
	}
}

// lend takes from a loan what is kept, some of it ahead. A group has up to four rows.
func (c *collector) lend(ctx context.Context, l Loan) error {
	if c.size <= c.lent || l == nil {
		return nil
	}
	rows := int64(1)
	if c.op != 0 {
		rows = 4
	}
	more := max(c.size-c.lent, c.lent/8, 1<<10)
	c.lent += more
	return l.Take(ctx, 8*rows*int64(more))
}

// lendAll takes from a loan what rows that stay as they are may need in all, so
// that queries which have some of it do not wait for each other. What may be much
// is taken as it comes: many a series has few steps.
func (c *collector) lendAll(ctx context.Context, l Loan) error {
	want := product(int64(c.series), int64(c.n))
	if l == nil || c.op != 0 || want > largeBytes/8 {
		return nil
	}
	c.lent = int(want)
	return l.Take(ctx, 8*want)
}

// giveBack ends the use of all rows.
func (c *collector) giveBack() {
	for _, s := range c.slabs {
		poison(s[:])
		c.room.slabs.Put(s)
	}
	c.slabs, c.slab = nil, nil
}

// maxSlab is how many values rows are given room for at once.
const maxSlab = 1 << 14

// keep copies a row.
func (c *collector) keep(row []float64) []float64 {
	if len(row) > cap(c.slab)-len(c.slab) {
		switch want := (c.series - len(c.groups)) * c.n; {
		case want < maxSlab/16 || len(row) > maxSlab:
			c.slab = make([]float64, 0, max(len(row), min(maxSlab, want)))
		default:
			s := c.room.slab()
			c.slabs = append(c.slabs, s)
			c.slab = s[:0]
		}
	}
	start := len(c.slab)
	c.slab = append(c.slab, row...)
	c.size += len(row)
	return c.slab[start:len(c.slab):len(c.slab)]
}

func (c *collector) groupOf(ls labels.Labels) *group { return &c.groups[c.placeOf(ls)] }

// placeOf is where the group of a series stands. A new one is the last.
func (c *collector) placeOf(ls labels.Labels) int {
	var key uint64
	switch {
	case c.without:
		key, c.buf = ls.HashWithoutLabels(c.buf, c.grouping...)
	case len(c.grouping) > 0:
		key, c.buf = ls.HashForLabels(c.buf, c.grouping...)
	}
	if i, ok := c.byKey[key]; ok {
		return i
	}
	c.byKey[key] = len(c.groups)
	c.size += c.n
	c.groups = append(c.groups, group{labels: c.labelsOf(ls), value: c.fresh(none)})
	g := &c.groups[len(c.groups)-1]
	switch c.op {
	case parser.SUM:
		g.carry = c.fresh(0)
	case parser.AVG:
		g.carry, g.count = c.fresh(0), c.fresh(0)
	}
	return len(c.groups) - 1
}

func (c *collector) fresh(f float64) []float64 {
	row := make([]float64, c.n)
	if f != 0 {
		for i := range row {
			row[i] = f
		}
	}
	return row
}

// labelsOf are the labels of the group of a series.
func (c *collector) labelsOf(ls labels.Labels) labels.Labels {
	c.builder.Reset(ls)
	switch {
	case c.without:
		return c.builder.Del(c.grouping...).Del(model.MetricNameLabel).Labels()
	case len(c.grouping) > 0:
		return c.builder.Keep(c.grouping...).Labels()
	default:
		return labels.EmptyLabels()
	}
}

// twoSum adds two numbers and says what that loses, as kahansum.Inc finds it: exactly, but
// by Knuth's algorithm, which does not ask which one is larger. What was lost is infinite or no number
// if any of the numbers is, or the sum overflows: see told.
func twoSum(a, b float64) (sum, lost float64) {
	sum = a + b
	ofB := sum - a
	return sum, (a - (sum - ofB)) + (b - ofB)
}

// told reports that twoSum could tell what was lost.
func told(lost float64) bool { return lost-lost == 0 }

func (g *group) sum(row []float64) {
	value, carry := g.value[:len(row)], g.carry[:len(row)]
	for k, f := range row {
		if isNone(f) {
			continue
		}
		v := value[k]
		if isNone(v) {
			value[k] = f
			continue
		}
		sum, lost := twoSum(v, f)
		if !told(lost) {
			value[k], carry[k] = kahansum.Inc(f, v, carry[k])
			continue
		}
		value[k] = sum
		carry[k] += lost
	}
}

// avg adds up and divides in the end, unless the sum is infinite: from there on
// it moves the mean.
func (g *group) avg(row []float64) {
	value, carry, count := g.value[:len(row)], g.carry[:len(row)], g.count[:len(row)]
	for k, f := range row {
		if isNone(f) {
			continue
		}
		count[k]++
		v := value[k]
		if isNone(v) {
			value[k] = f
			continue
		}
		sum, lost := twoSum(v, f)
		if !told(lost) || g.mean != nil {
			g.avgStep(k, f)
			continue
		}
		value[k] = sum
		carry[k] += lost
	}
}

// avgStep is avg at one step, where there has been a value before.
func (g *group) avgStep(k int, f float64) {
	n := g.count[k]
	if g.mean == nil || isNone(g.mean[k]) {
		sum, carry := kahansum.Inc(f, g.value[k], g.carry[k])
		if !math.IsInf(sum, 0) {
			g.value[k], g.carry[k] = sum, carry
			return
		}
		if g.mean == nil {
			g.mean = slices.Repeat([]float64{none}, len(g.value))
		}
		g.mean[k] = g.value[k] / (n - 1)
		g.carry[k] /= n - 1
	}
	q := (n - 1) / n
	g.mean[k], g.carry[k] = kahansum.Inc(f/n, q*g.mean[k], q*g.carry[k])
}

func (g *group) min(row []float64) {
	value := g.value[:len(row)]
	for k, f := range row {
		if v := value[k]; !isNone(f) && (v > f || math.IsNaN(v)) {
			value[k] = f
		}
	}
}

func (g *group) max(row []float64) {
	value := g.value[:len(row)]
	for k, f := range row {
		if v := value[k]; !isNone(f) && (v < f || math.IsNaN(v)) {
			value[k] = f
		}
	}
}

func (g *group) counted(row []float64) {
	value := g.value[:len(row)]
	for k, f := range row {
		if isNone(f) {
			continue
		}
		if isNone(value[k]) {
			value[k] = 0
		}
		value[k]++
	}
}

// finish turns what was gathered into results.
func (c *collector) finish(g *group) {
	for k, v := range g.value {
		if isNone(v) {
			continue
		}
		switch c.op {
		case parser.SUM:
			g.value[k] = v + g.carry[k]
		case parser.AVG:
			if g.mean != nil && !isNone(g.mean[k]) {
				g.value[k] = g.mean[k] + g.carry[k]
			} else {
				g.value[k] = v/g.count[k] + g.carry[k]/g.count[k]
			}
		case parser.GROUP:
			g.value[k] = 1
		}
	}
}
