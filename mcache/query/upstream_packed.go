package query

import (
	"math/bits"
	"slices"
)

// packed are the floats of a series that are numerals, as they stand in an extent:
// an answer is written from them without a list of points in between. Those with gaps
// are unpacked first.
type packed struct {
	n       int
	first   int                    // step
	gaps    bool                   // if so, steps has a bit for each of the n
	steps   [extentSteps / 8]uint8 // else one follows the other
	numbers []byte                 // and all that stands behind them in the extent
	size    int                    // bytes of the numbers
}

// packed reads what extentWriter.numerals writes.
func (x *extentReader) packed() {
	r, p := &x.r, &x.at.packed
	n := r.count(extentSteps)
	p.first, p.gaps = int(r.byte()), false
	switch r.byte() {
	case 0:
		if p.first+n > extentSteps {
			r.err = errExtent
		}
	case 1:
		p.gaps = true
		found := 0
		for i := range p.steps {
			p.steps[i] = r.byte()
			found += bits.OnesCount8(p.steps[i])
		}
		if found != n {
			r.err = errExtent
		}
	default:
		r.err = errExtent
	}
	p.size = r.count(len(r.b))
	if p.numbers = r.b; n == 0 || r.err != nil || p.size > len(r.b) {
		r.b, r.err = nil, errExtent
		return
	}
	p.n, r.b = n, r.b[p.size:]
}

// has reports whether there is one of the steps from lo to hi, which is exclusive.
func (p *packed) has(lo, hi int) bool {
	if !p.gaps {
		return p.first < hi && lo < p.first+p.n
	}
	for step := lo; step < hi; step++ {
		if p.steps[step/8]>>(step%8)&1 != 0 {
			return true
		}
	}
	return false
}

// unpack makes steps and numerals of them.
func (s *extentSeries) unpack() error {
	p, x := &s.packed, numeralReader{b: s.packed.numbers[:s.packed.size]}
	s.text = s.text[:0]
	for i := range extentSteps {
		if !p.has(i, i+1) {
			continue
		}
		if !x.next() {
			return errExtent
		}
		s.steps = append(s.steps, i)
		s.numerals = append(s.numerals, numeral{uint32(len(s.text)), uint32(x.size)})
		s.text = append(s.text, x.text()...)
	}
	p.n = 0
	return nil
}

// packedBlock are as many points as a buffer of an answer has room for behind
// flushBytes.
const packedBlock = 64

const _ = uint(bufferBytes - flushBytes - packedBlock*pointRoom)

// writePacked writes the packed points of the span, which follow each other.
func (p *recalled) writePacked(w *jsonWriter) bool {
	x := &p.reader.at.packed
	from, end := max(x.first, p.base), min(x.first+x.n, p.base+p.to-p.from)
	numbers := numeralReader{b: x.numbers}
	for range from - x.first { // those before the span
		if !numbers.next() {
			w.fail(errExtent)
			return false
		}
	}
	for step := from; step < end; {
		n := min(packedBlock, end-step)
		if !p.writeBlock(w, &numbers, step, n, step == from) || len(x.numbers)-len(numbers.b) > x.size {
			w.fail(errExtent)
			return false
		}
		if step += n; step == end {
			w.raw(`"]`)
		}
		if !w.more() {
			return false
		}
	}
	return true
}

// writeBlock writes n points from a step on, the last of which it leaves open. It
// reports false if there are not so many.
func (p *recalled) writeBlock(w *jsonWriter, numbers *numeralReader, step, n int, first bool) bool {
	i := step - p.base
	p.before.of(p.from + i + n - 1) // and all before it
	before := p.before.list[i : i+n]
	out := slices.Grow(w.buf, n*pointRoom)
	k := len(out)
	out = out[:cap(out)]
	for len(before) > 0 {
		// The first, and those that put leaves.
		if !numbers.next() {
			return false
		}
		to := out[k : k+pointRoom]
		size := before[0].put(to)
		if size == 0 {
			t, _ := p.time(step)
			size = len(append(appendTime(append(to[:0], `"],[`...), t), `,"`...))
		}
		if first { // there is no point before it
			size = copy(to, to[len(`"],`):size])
			first = false
		}
		at := k + size
		done, end := numbers.put(out, at+copy(out[at:], numbers.text()), at, before[1:])
		before, step, k = before[1+done:], step+1+done, end
	}
	w.buf = out[:k]
	return true
}
