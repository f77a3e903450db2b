package query

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// packed are the floats of a series that are decimals, as they stand in an extent:
// an answer is written from them without a list of points in between. Those with gaps
// are unpacked first.
type packed struct {
	n        int
	first    int                    // step
	gaps     bool                   // if so, steps has a bit for each of the n
	steps    [extentSteps / 8]uint8 // else one follows the other
	decimals uint8                  // of all, or noDecimals
	numbers  []byte                 // and all that stands behind them in the extent
	size     int                    // bytes of the numbers
}

// packed reads what decimals writes, up to the numbers.
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
	p.decimals, p.numbers = r.byte(), r.b
	switch {
	case p.decimals == noDecimals:
		p.size = 8 * n
	case p.decimals <= maxDecimals:
		p.size = varintsEnd(p.numbers, n)
	default:
		r.err = errExtent
	}
	if n == 0 || r.err != nil || p.size > len(r.b) {
		r.b, r.err = nil, errExtent
		return
	}
	p.n, r.b = n, r.b[p.size:]
}

// varintsEnd is where n varints end, more than b has if there are not so many.
func varintsEnd(b []byte, n int) (end int) {
	for ; n > 8 && len(b)-end >= 8; end += 8 {
		n -= bits.OnesCount64(^binary.LittleEndian.Uint64(b[end:]) & highest)
	}
	for ; n > 0 && end < len(b); end++ {
		if b[end] < 0x80 {
			n--
		}
	}
	return end + n
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

// take reads the next numbers, as many as there is room for in dst. b are those that
// are left, m the units of the one before. It returns what is left behind them; not
// ok if one is no number.
func (p *packed) take(dst []decimal, b []byte, m int64) (rest []byte, last int64, ok bool) {
	if p.decimals == noDecimals {
		for i := range dst {
			d := decimal(binary.LittleEndian.Uint64(b[8*i:]))
			if dst[i] = d; d.decimals() > maxDecimals || !isUnits(d.units()) {
				return nil, 0, false
			}
		}
		return b[8*len(dst):], 0, true
	}
	for i := range dst {
		by, size := varint(b)
		if m += by; size <= 0 || !isUnits(m) {
			return nil, 0, false
		}
		dst[i], b = decimalOf(m, int(p.decimals)), b[size:]
	}
	return b, m, true
}

func isUnits(m int64) bool { return -maxUnits < m && m < maxUnits }

// varint is binary.Varint, without a branch for each byte where it has no more than
// eight: seven bits each are pushed together, two and two.
func varint(b []byte) (v int64, size int) {
	if len(b) < 8 {
		return binary.Varint(b)
	}
	w := binary.LittleEndian.Uint64(b)
	last := ^w & highest // of the lowest byte with it
	if last == 0 {
		return binary.Varint(b)
	}
	w &= (last ^ (last - 1)) &^ highest
	w = w&0x007f007f_007f007f | w&0x7f007f00_7f007f00>>1
	w = w&0x00003fff_00003fff | w&0x3fff0000_3fff0000>>2
	w = w&0x00000000_0fffffff | w&0x0fffffff_00000000>>4
	return int64(w>>1) ^ -int64(w&1), bits.TrailingZeros64(last)/8 + 1
}

// unpack makes steps and decimals of them.
func (s *extentSeries) unpack() error {
	p, b := &s.packed, s.packed.numbers[:s.packed.size]
	for i := range extentSteps {
		if p.has(i, i+1) {
			s.steps = append(s.steps, i)
		}
	}
	s.decimals = slices.Grow(s.decimals, p.n)[:p.n]
	_, _, ok := p.take(s.decimals, b, 0)
	if p.n = 0; !ok {
		return errExtent
	}
	return nil
}

// packedBlock are as many points as a buffer of an answer has room for behind
// flushBytes.
const packedBlock = 64

const _ = uint(bufferBytes - flushBytes - packedBlock*(longSeparator+numberBytes))

// writePacked writes the packed points of the span, which follow each other.
func (p *recalled) writePacked(w *jsonWriter) bool {
	x := &p.reader.at.packed
	var list [packedBlock]decimal
	from, end := max(x.first, p.base), min(x.first+x.n, p.base+p.to-p.from)
	b, m, n := x.numbers, int64(0), 0
	for step := x.first; step < end; step += n {
		n = packedBlock
		if step < from {
			n = min(n, from-step) // those before the span
		}
		n = min(n, end-step)
		var ok bool
		if b, m, ok = x.take(list[:n], b, m); !ok {
			w.fail(errExtent)
			return false
		}
		if step < from {
			continue
		}
		if p.writeBlock(w, list[:n], step, step == from); step+n == end {
			w.raw(`"]`)
		}
		if !w.more() {
			return false
		}
	}
	return true
}

// writeBlock writes points from a step on, the last of which it leaves open.
func (p *recalled) writeBlock(w *jsonWriter, list []decimal, step int, first bool) {
	at := step - p.base
	p.before.of(p.from + at + len(list) - 1) // and all before it
	before := p.before.list[at : at+len(list)]
	out := slices.Grow(w.buf, len(list)*(longSeparator+numberBytes))
	k := len(out)
	out = out[:cap(out)]
	for i, d := range list {
		s := &before[i]
		to := out[k : k+longSeparator+numberBytes]
		binary.LittleEndian.PutUint64(to, s.a)
		binary.LittleEndian.PutUint64(to[8:], s.b)
		binary.LittleEndian.PutUint32(to[16:], s.c)
		n := int(s.n)
		if n == 0 {
			t, _ := p.time(step + i)
			n = len(append(appendTime(append(to[:0], `"],[`...), t), `,"`...))
		}
		if first && i == 0 { // there is no point before it
			n = copy(to, to[len(`"],`):n])
		}
		k += n + d.put(to[n:n+numberBytes])
	}
	w.buf = out[:k]
}
