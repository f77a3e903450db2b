package query

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/util/kahansum"

	"mcached/mcache"
)

// A fold is a function of windows. The arithmetic is the engine's, operation by
// operation, or gives the same bits for a reason that stands beside it.
type fold struct {
	// of computes one window, of which there is at least one sample, in the order of
	// time. It reports false for no result.
	of func(times []int64, values []float64) (float64, bool)
	// all computes all windows of a worker at once, which is less work where they overlap.
	// False means that it can not: of has to. It may be nil.
	all func(w *worker, row []float64) bool
}

// folds are the functions of windows that plans have beside rates, by name. All
// but rates of counters know nothing of resets.
var folds = map[string]*fold{
	"irate":  {of: instantRate},
	"idelta": {of: instantDelta},
	"sum_over_time": {
		of:  func(_ []int64, values []float64) (float64, bool) { return sumOf(values), true },
		all: (*worker).sums,
	},
	"avg_over_time": {
		of:  func(_ []int64, values []float64) (float64, bool) { return averageOf(values), true },
		all: (*worker).averages,
	},
	"min_over_time": {
		of:  func(_ []int64, values []float64) (float64, bool) { return minimumOf(values), true },
		all: func(w *worker, row []float64) bool { return w.extremes(row, 1) },
	},
	"max_over_time": {
		of:  func(_ []int64, values []float64) (float64, bool) { return maximumOf(values), true },
		all: func(w *worker, row []float64) bool { return w.extremes(row, -1) },
	},
	"count_over_time":   {of: func(_ []int64, values []float64) (float64, bool) { return float64(len(values)), true }},
	"present_over_time": {of: func([]int64, []float64) (float64, bool) { return 1, true }},
}

func instantRate(times []int64, values []float64) (float64, bool) {
	n := len(values)
	if n < 2 {
		return 0, false
	}
	last, before := values[n-1], values[n-2]
	result := last // since the counter began anew
	if !(last < before) {
		result = last - before
	}
	return result / (float64(times[n-1]-times[n-2]) / 1000), true
}

func instantDelta(_ []int64, values []float64) (float64, bool) {
	n := len(values)
	if n < 2 {
		return 0, false
	}
	return values[n-1] - values[n-2], true
}

func sumOf(values []float64) float64 {
	var sum, carry float64
	for _, f := range values {
		sum, carry = kahansum.Inc(f, sum, carry)
	}
	if math.IsInf(sum, 0) {
		return sum
	}
	return sum + carry
}

// averageOf adds up and divides in the end, unless the sum is infinite: from
// there on it moves the mean.
func averageOf(values []float64) float64 {
	sum, carry := values[0], 0.0
	for i, f := range values[1:] {
		next, lost := kahansum.Inc(f, sum, carry)
		if math.IsInf(next, 0) {
			return movedMean(values[i+1:], float64(i+1), sum/float64(i+1), carry/float64(i+1))
		}
		sum, carry = next, lost
	}
	n := float64(len(values))
	return sum/n + carry/n
}

// movedMean moves the mean of count values by more of them.
func movedMean(values []float64, count, mean, carry float64) float64 {
	for _, f := range values {
		count++
		q := (count - 1) / count
		mean, carry = kahansum.Inc(f/count, q*mean, q*carry)
	}
	return mean + carry
}

func minimumOf(values []float64) float64 {
	least := values[0]
	for _, f := range values[1:] {
		if f < least || math.IsNaN(least) {
			least = f
		}
	}
	return least
}

func maximumOf(values []float64) float64 {
	most := values[0]
	for _, f := range values[1:] {
		if f > most || math.IsNaN(most) {
			most = f
		}
	}
	return most
}

// indexes are the samples [first:end] of a series.
type indexes struct{ first, end int32 } // a series of more has over 32 GiB of times and values

// fold computes a function of the window of each step.
func (w *worker) fold(row []float64) int {
	n := w.slide(len(row))
	f := w.plan.fold
	if f.all != nil && f.all(w, row) {
		return n
	}
	n = 0
	for k, in := range w.windows {
		row[k] = none
		if in.first < in.end {
			if r, ok := f.of(w.times[in.first:in.end], w.values[in.first:in.end]); ok {
				row[k] = r
				n++
			}
		}
	}
	return n
}

// slide moves a window, open at its beginning, over the samples, and returns at how
// many of the steps there is a sample in it. What is scraped at once has the same times:
// windows of the series before are used again then.
func (w *worker) slide(steps int) (n int) {
	if len(w.windows) == steps && slices.Equal(w.times, w.slid) {
		return w.filled
	}
	w.slid = append(w.slid[:0], w.times...)
	w.windows = slices.Grow(w.windows[:0], steps)[:steps]
	windows, times := w.windows, w.times
	first, end, longest := 0, 0, 0
	to := w.start - w.offset
	for k := range windows {
		for end < len(times) && times[end] <= to {
			end++
		}
		for from := to - w.plan.rangeMs; first < end && times[first] <= from; {
			first++
		}
		windows[k] = indexes{int32(first), int32(end)}
		longest = max(longest, end-first)
		if first < end {
			n++
		}
		to += w.interval
	}
	w.longest, w.filled = longest, n
	return n
}

// addUnmarked adds samples, but no markers of the end of a series.
func (w *worker) addUnmarked(run []mcache.Sample) {
	n := len(w.times)
	times := slices.Grow(w.times, len(run))[:n+len(run)]
	values := slices.Grow(w.values, len(run))[:n+len(run)]
	for i := range run {
		times[n], values[n] = run[i].T, math.Float64frombits(run[i].V)
		if run[i].V != value.StaleNaN {
			n++ // else the next one takes its place
		}
	}
	w.times, w.values = times[:n], values[:n]
}
