package query

import (
	"math"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/util/kahansum"

	"mcached/mcache"
)

// A fold is a function of the samples in a window, of which there is at least
// one, in the order of time. It reports false for no result. The arithmetic is
// the engine's, operation by operation.
type fold func(times []int64, values []float64) (float64, bool)

// folds are the functions of windows that plans have beside rates, by name. All
// but rates of counters know nothing of resets.
var folds = map[string]fold{
	"irate":             instantRate,
	"idelta":            instantDelta,
	"sum_over_time":     func(_ []int64, values []float64) (float64, bool) { return sumOf(values), true },
	"avg_over_time":     func(_ []int64, values []float64) (float64, bool) { return averageOf(values), true },
	"min_over_time":     func(_ []int64, values []float64) (float64, bool) { return minimumOf(values), true },
	"max_over_time":     func(_ []int64, values []float64) (float64, bool) { return maximumOf(values), true },
	"count_over_time":   func(_ []int64, values []float64) (float64, bool) { return float64(len(values)), true },
	"present_over_time": func([]int64, []float64) (float64, bool) { return 1, true },
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

// fold slides a window, open at its beginning, over the samples.
func (w *worker) fold(row []float64) (n int) {
	times, values, of := w.times, w.values, w.plan.fold
	first, end := 0, 0 // the window is [first:end]
	to := w.start - w.offset
	for k := range row {
		for end < len(times) && times[end] <= to {
			end++
		}
		for first < end && times[first] <= to-w.plan.rangeMs {
			first++
		}
		row[k] = none
		if first < end {
			if f, ok := of(times[first:end], values[first:end]); ok {
				row[k] = f
				n++
			}
		}
		to += w.interval
	}
	return n
}

// addUnmarked adds samples, but no markers of the end of a series.
func (w *worker) addUnmarked(run []mcache.Sample) {
	for i := range run {
		if run[i].V != value.StaleNaN {
			w.times, w.values = append(w.times, run[i].T), append(w.values, math.Float64frombits(run[i].V))
		}
	}
}
