package query

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// computedRow is a series with a value, or none, for each of the steps from
// first on. Before and behind that there is none.
type computedRow struct {
	labels labels.Labels
	first  int
	values []float64
}

// at is the value of a step.
func (r *computedRow) at(step int) float64 {
	if step -= r.first; step < 0 || step >= len(r.values) {
		return none
	}
	return r.values[step]
}

// computedMatrix is what a plan found as the whole result of a query.
type computedMatrix struct {
	steps
	rows []computedRow
}

// Type is that of what the engine answers range queries with.
func (*computedMatrix) Type() parser.ValueType { return parser.ValueTypeMatrix }
func (*computedMatrix) String() string         { return "computed matrix" }

// sort puts the rows in the order of their labels, as the engine does.
func (m *computedMatrix) sort() {
	slices.SortFunc(m.rows, func(a, b computedRow) int { return labels.Compare(a.labels, b.labels) })
}

// computedSet is what a plan found, as the engine reads it.
type computedSet struct {
	steps
	rows  []computedRow
	at    int
	notes annotations.Annotations
}

func (s *computedSet) Next() bool                        { s.at++; return s.at < len(s.rows) }
func (s *computedSet) Err() error                        { return nil }
func (s *computedSet) Warnings() annotations.Annotations { return s.notes }
func (s *computedSet) At() storage.Series {
	return &computedSeries{steps: &s.steps, row: &s.rows[s.at]}
}

type computedSeries struct {
	steps *steps
	row   *computedRow
}

func (s *computedSeries) Labels() labels.Labels { return s.row.labels }

func (s *computedSeries) Iterator(prev chunkenc.Iterator) chunkenc.Iterator {
	it, ok := prev.(*computedIterator)
	if !ok {
		it = &computedIterator{}
	}
	*it = computedIterator{steps: s.steps, row: s.row, at: -1}
	return it
}

// computedIterator stands on every step, also where there is no value: the
// engine takes none for the end of a series, and looks no further back.
type computedIterator struct {
	steps *steps
	row   *computedRow
	at    int
}

func (it *computedIterator) Next() chunkenc.ValueType {
	it.at++
	return it.valueType()
}

func (it *computedIterator) valueType() chunkenc.ValueType {
	if it.at >= it.steps.n {
		it.at = it.steps.n // so that Next ends
		return chunkenc.ValNone
	}
	return chunkenc.ValFloat
}

func (it *computedIterator) Seek(t unixMs) chunkenc.ValueType {
	if ahead := t - it.steps.start; ahead > 0 {
		it.at = max(it.at, int((ahead+it.steps.interval-1)/it.steps.interval))
	}
	it.at = max(it.at, 0)
	return it.valueType()
}

func (it *computedIterator) At() (int64, float64) { return it.AtT(), it.row.at(it.at) }
func (it *computedIterator) AtT() int64           { return it.steps.start + int64(it.at)*it.steps.interval }

// AtST is 0, unknown: what is computed did not begin to count at any time.
func (it *computedIterator) AtST() int64 { return 0 }
func (it *computedIterator) Err() error  { return nil }

// AtHistogram is never called: all values are floats.
func (it *computedIterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	return it.AtT(), nil
}

// AtFloatHistogram is never called: all values are floats.
func (it *computedIterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return it.AtT(), nil
}
