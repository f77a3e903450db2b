package query

import (
	"math"
	"math/bits"
	"slices"
)

// Sums of windows that overlap. The engine adds each window anew, and gathers in a
// carry what its additions lose to rounding (kahansum.Inc). The same bits are found
// here from the window before, by what leaves and what enters, whenever the carry
// itself loses nothing.
//
// That is so unless the values differ by some twelve orders of magnitude. All of
// them are multiples of the lowest bit that any of them has, the unit. So are their
// sums, and what an addition loses; a float holds that exactly, and any carry of at
// most 2^53 units. Sum and carry together are then the exact sum of the window, S:
//
//	the sum over time is S, rounded once;
//	the sum without the carry is what adding the values in order gives, and the
//	carry is S less that.
//
// S is kept in two floats, a high and a low one. Each value is cut in two: rounded
// to a multiple of a coarse unit, of which the high one can hold as many as a sum
// has, and the rest, of which the low one can.
//
//	    |<-- high ... coarse unit -->|<-- low ... unit -->|
//	v =   1 0 1 1 0 1 0 0 1 1 0 0 1    1 0 0 1 1 1 0 1 1
//
// Where sums of the values have at most 53 bits, as those of whole numbers have,
// nothing is cut: the high one is S and the sum in order as well, without a carry.

// leastExponent and mostExponent are of bits that values may have: neither a cut nor a
// sum then leaves the range in which floats have all their bits.
const leastExponent, mostExponent = -900, 900

// cutFor returns what cuts these values so that sums of windows of at most so many of
// them lose nothing: a number so large that a float near it holds the coarse unit and
// nothing below. What is added to it is rounded. It is 0 where no value needs to be
// cut, and the engine's sums lose nothing either. False means that there is none.
func cutFor(values []float64, longest int) (cut float64, ok bool) {
	top, unit := math.MinInt, math.MaxInt // exponents of the highest and of the lowest bit
	for _, v := range values {
		b := math.Float64bits(v) &^ (1 << 63)
		if b == 0 {
			continue
		}
		exponent := int(b>>52) - 1023 // -1023 is less than what is allowed, 1024 is no number
		top = max(top, exponent)
		unit = min(unit, exponent-52+bits.TrailingZeros64(b|1<<52))
	}
	// A window has at most 2^size values, of less than 2^(top+1) each.
	size := bits.Len(uint(longest))
	switch {
	case top == math.MinInt:
		return 0, true // all are zero
	case unit < leastExponent || top > mostExponent:
		return 0, false
	case top+1+size-unit <= 53:
		return 0, true // any sum is at most 2^53 units
	// An addition loses at most half of the last bit of a sum, 2^(top+size-52), and all of
	// a window 2^size times that, which must be at most 2^53 units. With the coarse unit
	// 2^(top+size-50), what is below is at most half of that; its sum, and the difference
	// between the high one and a sum in order, are less than 2^(top+2*size-50).
	case top+2*size-50-unit <= 53:
		return math.Ldexp(1.5, 52+top+size-50), true
	}
	return 0, false
}

// exactSums writes the sum of each window, in two numbers. A window begins and ends no
// earlier than the one before.
func (w *worker) exactSums(cut float64, high, low []float64) {
	var h, l float64
	values, first, end := w.values, int32(0), int32(0) // what is in the sums
	for k, in := range w.windows {
		if in.first == first+1 && in.end == end+1 { // a step is a scrape: no additions one after the other
			out, enters := values[first], values[end]
			coarseOut, coarse := (out+cut)-cut, (enters+cut)-cut
			h += coarse - coarseOut
			l += (enters - coarse) - (out - coarseOut)
			first, end = in.first, in.end
			high[k], low[k] = h, l
			continue
		}
		if in.first >= end {
			h, l, first, end = 0, 0, in.first, in.first
		}
		for _, v := range values[first:in.first] {
			coarse := (v + cut) - cut
			h -= coarse
			l -= v - coarse
		}
		for _, v := range values[end:in.end] {
			coarse := (v + cut) - cut
			h += coarse
			l += v - coarse
		}
		first, end = in.first, in.end
		high[k], low[k] = h, l
	}
}

// sums are all of sum_over_time.
func (w *worker) sums(row []float64) bool {
	cut, ok := cutFor(w.values, w.longest)
	if !ok {
		return false
	}
	w.low = slices.Grow(w.low[:0], len(row))[:len(row)]
	w.exactSums(cut, row, w.low)
	for k, in := range w.windows {
		if in.first == in.end {
			row[k] = none
			continue
		}
		row[k] += w.low[k]
	}
	return true
}

// averages are all of avg_over_time. Each addition of a sum in order waits for the one
// before, so that the sums of four windows take as long as one.
func (w *worker) averages(row []float64) bool {
	cut, ok := cutFor(w.values, w.longest)
	if !ok {
		return false
	}
	w.low = slices.Grow(w.low[:0], len(row))[:len(row)]
	w.exactSums(cut, row, w.low)
	if cut == 0 { // each sum in order is the exact one
		for k, in := range w.windows {
			row[k] = in.average(row[k], 0)
		}
		return true
	}
	k, low := 0, w.low
	for ; k+4 <= len(row); k += 4 {
		in := w.windows[k : k+4]
		a, b, c, d := w.valuesOf(in[0]), w.valuesOf(in[1]), w.valuesOf(in[2]), w.valuesOf(in[3])
		var sumA, sumB, sumC, sumD float64
		n := min(len(a), len(b), len(c), len(d))
		for i := range n {
			sumA += a[i]
			sumB += b[i]
			sumC += c[i]
			sumD += d[i]
		}
		sumA, sumB, sumC, sumD = addInOrder(sumA, a[n:]), addInOrder(sumB, b[n:]), addInOrder(sumC, c[n:]), addInOrder(sumD, d[n:])
		row[k] = in[0].average(sumA, (row[k]-sumA)+low[k])
		row[k+1] = in[1].average(sumB, (row[k+1]-sumB)+low[k+1])
		row[k+2] = in[2].average(sumC, (row[k+2]-sumC)+low[k+2])
		row[k+3] = in[3].average(sumD, (row[k+3]-sumD)+low[k+3])
	}
	for ; k < len(row); k++ {
		sum := addInOrder(0, w.valuesOf(w.windows[k]))
		row[k] = w.windows[k].average(sum, (row[k]-sum)+low[k])
	}
	return true
}

func (w *worker) valuesOf(in indexes) []float64 { return w.values[in.first:in.end] }

func addInOrder(sum float64, values []float64) float64 {
	for _, v := range values {
		sum += v
	}
	return sum
}

// average is that of a window with this sum and carry.
func (in indexes) average(sum, carry float64) float64 {
	if in.first == in.end {
		return none
	}
	n := float64(in.end - in.first)
	return sum/n + carry/n
}

// extremes are all of min_over_time, or of max_over_time with a sign of -1: the first of
// the values that are alike. A value counts no more once a lesser one has come; those
// that count wait in a queue, the least of the window first. It reports false where
// there is what is no number.
func (w *worker) extremes(row []float64, sign float64) bool {
	values := w.values
	w.queue = slices.Grow(w.queue[:0], len(values))[:len(values)]
	queue, head, tail := w.queue, 0, 0
	next := int32(0) // that has not come
	for k, in := range w.windows {
		for next = max(next, in.first); next < in.end; next++ {
			v := sign * values[next]
			if math.IsNaN(v) {
				return false
			}
			for tail > head && sign*values[queue[tail-1]] > v {
				tail--
			}
			queue[tail] = next
			tail++
		}
		for head < tail && queue[head] < in.first {
			head++
		}
		row[k] = none
		if in.first < in.end {
			row[k] = values[queue[head]]
		}
	}
	return true
}
