package mcache

import (
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"mcached/mcache/block"
)

// The head of a series is the array that its newest samples are written to,
// in one of two forms:
//
//	modeGrid    slot i holds the value of time start + i·step; have says which slots do
//	modePairs   sorted (time, value) pairs, for what is not on a grid
//
// A series begins with pairs, since a step is not known before a few samples
// came. A head that cannot take a sample is laid out anew by layHead, which
// decides by itself; when no layout holds them all, the head is sealed.

const (
	slotBytes = 8
	pairBytes = 16

	// stepSamples are needed before the distances are believed to be a step.
	stepSamples = 3
)

// headLen is the number of samples in the head.
func (r *series) headLen() int {
	switch r.mode {
	case modeGrid:
		return bits.OnesCount64(r.have)
	case modePairs:
		return int(r.next)
	}
	return 0
}

// headLast is the time of the last sample in the head, which must have one.
func (r *series) headLast() int64 {
	if r.mode == modeGrid {
		return r.start + int64(r.next-1)*int64(r.step)
	}
	return r.start
}

func slot(p unsafe.Pointer, i int) *uint64 { return (*uint64)(unsafe.Add(p, i*slotBytes)) }
func pair(p unsafe.Pointer, i int) *Sample { return (*Sample)(unsafe.Add(p, i*pairBytes)) }

// headSamples appends the samples of the head to dst, in order of time.
func headSamples(dst []Sample, r *series, p unsafe.Pointer) []Sample {
	return headFrom(dst, r, p, math.MinInt64)
}

// headFrom is headSamples of those at or after from.
func headFrom(dst []Sample, r *series, p unsafe.Pointer, from int64) []Sample {
	if r.mode == modeGrid {
		// Mostly the last few are meant, which takes no division.
		first, step := int(r.next), int64(r.step)
		t := r.start + int64(first)*step
		if from <= r.start {
			first, t = 0, r.start
		}
		for ; first > 0 && t-step >= from; first-- {
			t -= step
		}
		have := r.have >> first
		if have&(have+1) == 0 { // no holes
			dst = slices.Grow(dst, headMax/slotBytes)
			n := len(dst)
			end := n + bits.Len64(have)
			run := dst[n:end]
			for i := range run {
				run[i] = Sample{T: t, V: *slot(p, first+i)}
				t += step
			}
			return dst[:end]
		}
		for ; have != 0; have &= have - 1 {
			i := bits.TrailingZeros64(have)
			dst = append(dst, Sample{T: t + int64(i)*step, V: *slot(p, first+i)})
		}
		return dst
	}
	ss := unsafe.Slice((*Sample)(p), int(r.next))
	for len(ss) > 0 && ss[0].T < from {
		ss = ss[1:]
	}
	return append(dst, ss...)
}

// layout is a form that a head can take.
type layout struct {
	mode headMode
	size int    // bytes
	step uint32 // ms, for modeGrid
}

// layHead chooses the smallest form, not below size bytes, that holds all of
// ss, which are sorted by time. It touches no memory. step is the step known, or 0.
func layHead(ss []Sample, step uint32, size int) (layout, bool) {
	if step == 0 && len(ss) >= stepSamples {
		step = commonStep(ss)
	}
	for ; size <= headMax; size *= headMax / headMin {
		if step != 0 && onGrid(ss, int64(step), size/slotBytes) {
			return layout{modeGrid, size, step}, true
		}
		if len(ss) <= size/pairBytes {
			return layout{modePairs, size, step}, true
		}
	}
	return layout{}, false
}

// onGrid reports whether ss fall into the first slots of a grid that begins
// with the first of them.
func onGrid(ss []Sample, step int64, slots int) bool {
	start := ss[0].T
	if (ss[len(ss)-1].T-start)/step >= int64(slots) {
		return false
	}
	for i := range ss {
		if (ss[i].T-start)%step != 0 {
			return false
		}
	}
	return true
}

// commonStep is the most frequent distance in ss, or 0 if it needs more than
// 32 bits.
func commonStep(ss []Sample) uint32 {
	d := block.ModalDistance(ss)
	if d <= 0 || d > 1<<32-1 {
		return 0
	}
	return uint32(d)
}

// setHead writes ss in the form l to p, which has room for it.
func (r *series) setHead(p unsafe.Pointer, l layout, ss []Sample) {
	r.mode, r.size, r.next, r.have = l.mode, uint8(l.size/8), 0, 0
	if l.step != 0 {
		r.step = l.step
	}
	if len(ss) == 0 {
		return
	}
	if l.mode == modePairs {
		copy(unsafe.Slice((*Sample)(p), len(ss)), ss)
		r.next, r.start = uint8(len(ss)), ss[len(ss)-1].T
		return
	}
	r.start = ss[0].T
	for i := range ss {
		k := int((ss[i].T - r.start) / int64(r.step))
		*slot(p, k) = ss[i].V
		r.have |= 1 << k
		r.next = uint8(k + 1)
	}
}

// merge merges two sorted runs into dst; of two samples for one time the one
// of b stays. It returns how many of b were new times.
func merge(dst, a, b []Sample) (_ []Sample, added int) {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].T < b[0].T:
			dst = append(dst, a[0])
			a = a[1:]
		case a[0].T > b[0].T:
			dst = append(dst, b[0])
			b = b[1:]
			added++
		default:
			a = a[1:]
			dst = append(dst, b[0])
			b = b[1:]
		}
	}
	return append(append(dst, a...), b...), added + len(b)
}
