package query

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/schema"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// steps are the times of a range query.
type steps struct {
	start, interval int64 // unix ms, ms
	n               int
	lookback        int64 // ms
}

// none stands for a step without a result. No result has these bits: samples
// that have them are none, and arithmetic makes quiet NaNs only.
var none = math.Float64frombits(value.StaleNaN)

func isNone(f float64) bool { return math.Float64bits(f) == value.StaleNaN }

// computer carries out plans for one request.
type computer struct {
	steps
	maxPoints int // that may be results of one plan, before and after aggregation
	plans     []*plan
}

// newComputer returns a computer for a range query, or nil if its times are not
// ones to compute with: the engine then does what it does.
func newComputer(start, end time.Time, step, lookback time.Duration, maxPoints int) *computer {
	const maxSeconds = math.MaxInt64 / int64(time.Second) // what nanoseconds can count
	if step < time.Millisecond || max(-start.Unix(), end.Unix()) >= maxSeconds-int64(365*24*time.Hour/time.Second) {
		return nil
	}
	// The engine's conversions, which are not those of package time before 1970.
	from, to := start.UnixNano()/int64(time.Millisecond), end.UnixNano()/int64(time.Millisecond)
	return &computer{maxPoints: maxPoints, steps: steps{
		start:    from,
		interval: step.Milliseconds(),
		n:        int((to-from)/step.Milliseconds()) + 1,
		lookback: lookback.Milliseconds(),
	}}
}

func (c *computer) planOf(matchers []*labels.Matcher) *plan {
	if c == nil || len(matchers) != 1 {
		return nil
	}
	for _, p := range c.plans {
		if p.matcher == matchers[0] {
			return p
		}
	}
	return nil
}

// errUnplanned says that there are histograms among the samples of a plan. The
// query has to be given to the engine as it was.
var errUnplanned = errors.New("histograms are for the engine")

// errSameLabels is Prometheus' error for series that differ in name only.
var errSameLabels = errors.New("vector cannot contain metrics with the same labelset")

// run carries out a plan.
func (c *computer) run(ctx context.Context, q *Queryable, p *plan) storage.SeriesSet {
	offset := p.selector.OriginalOffset.Milliseconds()
	window := c.lookback
	if p.rangeMs > 0 {
		window = p.rangeMs
	}
	last := c.start + int64(c.n-1)*c.interval
	hints := &storage.SelectHints{Start: c.start - offset - window + 1, End: last - offset}
	qr := querier{q: q, mint: hints.Start, maxt: hints.End}
	selected := qr.Select(ctx, false, hints, p.selector.LabelMatchers...)
	set, ok := selected.(*seriesSet)
	if !ok {
		return selected // an error
	}
	w := worker{steps: c.steps, plan: p, offset: offset}
	out := newCollector(c.steps, p.aggregate)
	row := make([]float64, c.n)
	points := 0
	var notes annotations.Annotations
	seen := make(map[uint64]struct{}, len(set.series))
	for i := range set.series {
		if i%checkReads == 0 {
			if err := ctx.Err(); err != nil {
				return storage.ErrSeriesSet(err)
			}
		}
		s := &set.series[i]
		if !w.decode(s) {
			return storage.ErrSeriesSet(errUnplanned)
		}
		n := w.compute(row)
		if n == 0 {
			continue
		}
		ls := s.labels
		if p.rangeMs > 0 {
			p.noteName(&notes, ls)
			ls = ls.DropReserved(schema.IsMetadataLabel)
			hash := ls.Hash()
			if _, ok := seen[hash]; ok {
				return storage.ErrSeriesSet(errSameLabels)
			}
			seen[hash] = struct{}{}
		}
		out.add(ls, row)
		if points += n; points > c.maxPoints || out.size() > c.maxPoints {
			return storage.ErrSeriesSet(promql.ErrTooManySamples("query execution"))
		}
	}
	q.computed.Add(int64(w.samples))
	return &computedSet{steps: c.steps, rows: out.rows(), at: -1, notes: notes}
}

// noteName adds Prometheus' remark on rates of what is no counter by its name.
func (p *plan) noteName(notes *annotations.Annotations, ls labels.Labels) {
	name := ls.Get(model.MetricNameLabel)
	for _, suffix := range [...]string{"_total", "_sum", "_count", "_bucket"} {
		if strings.HasSuffix(name, suffix) {
			return
		}
	}
	if name != "" {
		notes.Add(annotations.NewPossibleNonCounterInfo(name, p.position))
	}
}

// worker computes the results of one series after the other.
type worker struct {
	steps
	plan    *plan
	offset  int64 // ms
	it      iterator
	times   []int64
	values  []float64
	resets  []int // i: values[i] is less than values[i-1]
	samples int   // decoded
}

// decode reads all samples of a series. Markers of its end have no place in a
// window; a plain selector must see them. It reports false if there is
// something else than samples.
func (w *worker) decode(s *series) bool {
	w.times, w.values, w.resets = w.times[:0], w.values[:0], w.resets[:0]
	w.it.reset(s)
	if w.it.state == exhausted {
		return true // the series has gone
	}
	windows := w.plan.rangeMs > 0
	it := &w.it.it
	for it.Next() {
		if it.OnRecord() {
			return false
		}
		at := it.At()
		if windows && at.V == value.StaleNaN {
			continue
		}
		v := math.Float64frombits(at.V)
		if n := len(w.values); windows && n > 0 && v < w.values[n-1] {
			w.resets = append(w.resets, n)
		}
		w.times, w.values = append(w.times, at.T), append(w.values, v)
	}
	w.samples += len(w.times)
	return true
}

// compute writes the result of each step to row and returns how many there are.
func (w *worker) compute(row []float64) int {
	if w.plan.rangeMs > 0 {
		return w.rates(row)
	}
	return w.latest(row)
}

// latest finds the sample that counts at each step.
func (w *worker) latest(row []float64) (n int) {
	times, values := w.times, w.values
	next := 0
	at := w.start - w.offset
	for k := range row {
		for next < len(times) && times[next] <= at {
			next++
		}
		f := none
		if next > 0 && times[next-1] > at-w.lookback {
			f = values[next-1]
		}
		if !isNone(f) {
			n++
		}
		row[k] = f
		at += w.interval
	}
	return n
}

// rates slides a window, open at its beginning, over the samples. The
// arithmetic is Prometheus' extrapolatedRate, operation by operation.
func (w *worker) rates(row []float64) (n int) {
	times, values, resets := w.times, w.values, w.resets
	seconds := w.plan.selectorRange()
	first, end := 0, 0 // the window is [first:end]
	to := w.start - w.offset
	for k := range row {
		from := to - w.plan.rangeMs
		for end < len(times) && times[end] <= to {
			end++
		}
		for first < end && times[first] <= from {
			first++
		}
		for len(resets) > 0 && resets[0] <= first {
			resets = resets[1:]
		}
		if end-first < 2 {
			row[k] = none
			to += w.interval
			continue
		}
		result := values[end-1] - values[first]
		for _, r := range resets {
			if r >= end {
				break
			}
			result += values[r-1]
		}
		firstT, lastT := times[first], times[end-1]
		toStart := float64(firstT-from) / 1000
		toEnd := float64(to-lastT) / 1000
		sampled := float64(lastT-firstT) / 1000
		average := sampled / float64(end-first-1)
		threshold := average * 1.1
		if toStart >= threshold {
			toStart = average / 2
		}
		toZero := toStart
		if result > 0 && values[first] >= 0 {
			toZero = sampled * (values[first] / result)
		}
		if toZero < toStart {
			toStart = toZero
		}
		if toEnd >= threshold {
			toEnd = average / 2
		}
		factor := 1.0
		if sampled != 0 {
			factor = (sampled + toStart + toEnd) / sampled
		}
		if w.plan.perSec {
			factor /= seconds
		}
		row[k] = result * factor
		n++
		to += w.interval
	}
	return n
}

// selectorRange is the window in seconds.
func (p *plan) selectorRange() float64 {
	return (time.Duration(p.rangeMs) * time.Millisecond).Seconds() // as the engine: whole seconds and the rest apart, which rounds otherwise than a quotient
}
