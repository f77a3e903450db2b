package query

import (
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/util/annotations"
)

// bucketed is histogram_quantile of a formula whose rows are buckets, for a number from
// 0 to 1: the engine has warnings about others, and about labels that are no bounds. The
// engine finds the histogram of each bucket at each step; here that is done once.
type bucketed struct {
	of       formula
	q        float64
	position posrange.PositionRange // of what the remark is on
}

// bucketedOf returns nil for what the engine has to do.
func (b *formulaBuilder) bucketedOf(n *parser.Call) formula {
	q, ok := numberOf(n.Args[0])
	if !ok || !(q >= 0 && q <= 1) {
		return nil
	}
	of := b.build(n.Args[1])
	if of == nil {
		return nil
	}
	return &bucketed{of: of, q: q, position: n.Args[1].PositionRange()}
}

func (a *bucketed) rows(f *formulaRun) ([]computedRow, error) {
	others := f.notes // of other parts, which merge must not count again
	f.notes = nil
	out, err := a.quantiles(f)
	f.notes = others.Merge(f.notes)
	return out, err
}

func (a *bucketed) quantiles(f *formulaRun) ([]computedRow, error) {
	rows, err := f.some(a.of)
	if err != nil {
		return nil, err
	}
	f.count(len(rows))
	if err := f.take(columns * len(rows) / max(f.c.n, 1)); err != nil {
		return nil, err
	}
	histograms, err := histogramsOf(rows)
	if err != nil {
		return nil, err
	}
	var (
		out     = rows[:0]
		buckets promql.Buckets
		notes   []annotations.Annotations // at each step; nil: none at any
	)
	for _, h := range histograms {
		result := h.buckets[0].values
		for k := range result {
			buckets = buckets[:0]
			for i := range h.buckets {
				if v := h.buckets[i].values[k]; !isNone(v) {
					buckets = append(buckets, promql.Bucket{UpperBound: h.buckets[i].bound, Count: v})
				}
			}
			if result[k] = none; len(buckets) == 0 {
				continue
			}
			q, forced, _, low, high, most := promql.BucketQuantile(a.q, buckets)
			if forced {
				if notes == nil {
					notes = make([]annotations.Annotations, f.c.n)
				}
				notes[k].Add(annotations.NewHistogramQuantileForcedMonotonicityInfo("", a.position, f.c.start+int64(k)*f.c.interval, low, high, most))
			}
			result[k] = q
		}
		out = append(out, computedRow{labels: h.labels, values: result})
		if err := engineError(f.ctx.Err()); err != nil {
			return nil, err
		}
	}
	f.merge(notes)
	return f.distinct(out)
}

// merge merges the notes of all steps as the engine does: at each, those of all steps up
// to it are merged once more, so that how many samples one says it is about doubles.
func (f *formulaRun) merge(notes []annotations.Annotations) {
	var upToStep annotations.Annotations
	for _, n := range notes {
		f.notes.Merge(upToStep.Merge(n))
	}
}

// classic is a histogram, of which each bucket is a series, in the order of their bounds.
type classic struct {
	labels  labels.Labels
	buckets []bucket
}

type bucket struct {
	bound  float64
	values []float64
}

// histogramsOf finds the histograms that rows are buckets of, as long as each has at most
// two of a bound, as 1 and 1.0 are. In which order it adds more is the engine's secret, and
// which of 0 and -0 it takes for the bound of both.
func histogramsOf(rows []computedRow) ([]classic, error) {
	var (
		all     []classic
		places  = make(map[string]int, len(rows)/4)
		builder = labels.NewBuilder(labels.EmptyLabels())
		key     []byte
	)
	for _, row := range rows {
		bound, err := strconv.ParseFloat(row.labels.Get(model.BucketLabel), 64)
		if err != nil || math.IsNaN(bound) {
			return nil, errUnplanned
		}
		key = row.labels.BytesWithoutLabels(key, model.BucketLabel)
		at, ok := places[string(key)]
		if !ok {
			at = len(all)
			places[string(key)] = at
			builder.Reset(row.labels)
			all = append(all, classic{labels: nameless(builder.Del(model.BucketLabel).Labels())})
		}
		all[at].buckets = append(all[at].buckets, bucket{bound, row.values})
	}
	for _, h := range all {
		slices.SortFunc(h.buckets, func(a, b bucket) int { return compareFloats(a.bound, b.bound) })
		for i := 1; i < len(h.buckets); i++ {
			a, b := h.buckets[i-1].bound, h.buckets[i].bound
			if a == b && (math.Signbit(a) != math.Signbit(b) || i > 1 && h.buckets[i-2].bound == b) {
				return nil, errUnplanned
			}
		}
	}
	return all, nil
}
