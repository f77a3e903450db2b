package query

import (
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/value"

	"mcached/mcache"
)

// worker computes the results of one series after the other.
type worker struct {
	steps
	plan    *plan
	offset  int64 // ms
	it      iterator
	times   []int64
	values  []float64
	resets  []int     // i: values[i] is less than values[i-1]
	lost    []float64 // values[i-1], of the same i
	samples int       // decoded
	rows    []float64 // room for a batch of results
	windows []indexes // of fold: that of each step, of samples of the times slid
	slid    []int64
	longest int       // of windows, in samples
	filled  int       // windows with a sample
	low     []float64 // of exactSums
	queue   []int32   // of extremes

	digesting bool   // digest is wanted
	digest    digest // of the series that was decoded
}

// maxKeptValues bounds the buffers of a worker that is kept for other queries:
// 512 KiB each.
const maxKeptValues = 64 << 10

// large reports whether a worker is not worth keeping.
func (w *worker) large() bool {
	return max(cap(w.rows), cap(w.times), cap(w.resets), cap(w.windows)) > maxKeptValues
}

// reuse is a worker for p that has w's buffers.
func (w *worker) reuse(s steps, p *plan) *worker {
	*w = worker{steps: s, plan: p, offset: p.offsetMs(), it: w.it, times: w.times, values: w.values, resets: w.resets, lost: w.lost, rows: w.rows, windows: w.windows[:0], slid: w.slid, low: w.low, queue: w.queue}
	return w
}

// decode reads all samples of a series. Markers of its end have no place in a
// window; a plain selector must see them. It reports false if there is
// something else than samples.
func (w *worker) decode(s *series) bool {
	w.times, w.values, w.resets = w.times[:0], w.values[:0], w.resets[:0]
	w.lost = w.lost[:0]
	w.it.reset(s)
	if w.it.state == exhausted {
		w.digest = digest{completeFrom: s.set.maxt}
		return true // the series has gone
	}
	if w.it.snapshot.HasRecords() {
		return false
	}
	w.digest = digest{completeFrom: w.it.snapshot.CompleteFrom()}
	it := &w.it.it
	for run := it.Run(); len(run) > 0; run = it.Run() {
		if w.digesting {
			for i := range run {
				w.digest.sum = addDigest(w.digest.sum, run[i].T, run[i].V)
			}
		}
		switch {
		case w.plan.ofCounters():
			w.addToWindows(run)
		case w.plan.rangeMs > 0:
			w.addUnmarked(run)
		default:
			w.add(run)
		}
	}
	w.samples += len(w.times)
	return true
}

func (w *worker) add(run []mcache.Sample) {
	n := len(w.times)
	w.times = slices.Grow(w.times, len(run))[:n+len(run)]
	w.values = slices.Grow(w.values, len(run))[:n+len(run)]
	times, values := w.times[n:][:len(run)], w.values[n:][:len(run)]
	for i := range run {
		times[i], values[i] = run[i].T, math.Float64frombits(run[i].V)
	}
}

func (w *worker) addToWindows(run []mcache.Sample) {
	n, last := len(w.times), math.NaN() // nothing is less than that
	if n > 0 {
		last = w.values[n-1]
	}
	times := slices.Grow(w.times, len(run))[:n+len(run)]
	values := slices.Grow(w.values, len(run))[:n+len(run)]
	for i := range run {
		v := math.Float64frombits(run[i].V)
		times[n], values[n] = run[i].T, v
		if v < last {
			w.resets, w.lost = append(w.resets, n), append(w.lost, last)
		}
		if run[i].V == value.StaleNaN {
			continue // the next one takes its place
		}
		last = v
		n++
	}
	w.times, w.values = times[:n], values[:n]
}

// compute writes the result of each step to row and returns how many there are.
func (w *worker) compute(row []float64) int {
	switch {
	case w.plan.fold != nil:
		return w.fold(row)
	case w.plan.rangeMs > 0:
		return w.rates(row)
	default:
		return w.latest(row)
	}
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

// rates slides a window, open at its beginning, over the samples.
func (w *worker) rates(row []float64) (n int) {
	times, values, resets, lost := w.times, w.values, w.resets, w.lost
	first, end := 0, 0 // the window is [first:end]
	in, behind := 0, 0 // resets[in:behind] are in it
	to := w.start - w.offset
	var e extrapolation
	e.seconds, e.perSec = w.plan.selectorRange(), w.plan.perSec
	for k := range row {
		from := to - w.plan.rangeMs
		for end < len(times) && times[end] <= to {
			end++
		}
		for first < end && times[first] <= from {
			first++
		}
		for in < len(resets) && resets[in] <= first {
			in++
		}
		behind = max(behind, in)
		for behind < len(resets) && resets[behind] < end {
			behind++
		}
		if end-first < 2 {
			row[k] = none
			to += w.interval
			continue
		}
		result := values[end-1] - values[first]
		for _, f := range lost[in:behind] {
			result += f
		}
		firstT, lastT := times[first], times[end-1]
		if g := (gaps{firstT - from, to - lastT, lastT - firstT, end - first}); g != e.gaps {
			e.set(g)
		}
		if w.plan.gauge {
			row[k] = result * e.whole
		} else {
			row[k] = result * e.factor(values[first], result)
		}
		n++
		to += w.interval
	}
	return n
}

// gaps are the distances in a window, in ms: from its beginning to the first
// sample, from the last sample to its end, and between the two.
type gaps struct {
	before, after, sampled int64
	samples                int
}

// extrapolation is what a difference is multiplied by for what was not sampled
// at the ends of the window. The arithmetic is Prometheus' extrapolatedRate,
// operation by operation. All that depends on the gaps alone is done once for
// as long as they remain the same, which they do on a grid: the divisions are
// what takes the time.
type extrapolation struct {
	seconds float64 // of the window
	perSec  bool

	gaps
	toStart, toEnd, span float64 // seconds
	whole                float64 // the factor unless the counter was zero before the window began
}

func (e *extrapolation) set(g gaps) {
	e.gaps = g
	e.toStart = float64(g.before) / 1000
	e.toEnd = float64(g.after) / 1000
	e.span = float64(g.sampled) / 1000
	average := e.span / float64(g.samples-1)
	threshold := average * 1.1
	if e.toStart >= threshold {
		e.toStart = average / 2
	}
	if e.toEnd >= threshold {
		e.toEnd = average / 2
	}
	e.whole = e.of(e.toStart)
}

// of is the factor for a time before the first sample.
func (e *extrapolation) of(toStart float64) float64 {
	factor := 1.0
	if e.span != 0 {
		factor = (e.span + toStart + e.toEnd) / e.span
	}
	if e.perSec {
		factor /= e.seconds
	}
	return factor
}

// factor is that for a window whose first value is first. A counter is never
// taken for less than zero.
func (e *extrapolation) factor(first, result float64) float64 {
	if !(result > 0 && first >= 0) {
		return e.whole
	}
	// Most counters stand high: that is seen without a division, with room for
	// rounding. Numbers for which it is not sure take the long way.
	if have, need := e.span*first, e.toStart*result; have > need*1.000001 && have > 1e-290 {
		return e.whole
	}
	if toZero := e.span * (first / result); toZero < e.toStart {
		return e.of(toZero)
	}
	return e.whole
}

// selectorRange is the window in seconds.
func (p *plan) selectorRange() float64 {
	return (time.Duration(p.rangeMs) * time.Millisecond).Seconds() // as the engine: whole seconds and the rest apart, which rounds otherwise than a quotient
}
