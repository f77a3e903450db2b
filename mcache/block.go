package mcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// A block is up to blockMax samples in their sealed form. Its first time is
// kept beside its address, not in it.
//
//	byte 0   number of samples − 1
//	byte 1   time mode (2 bits) | value mode (2) | decimal exponent (4)
//	         then, for more than one sample, the step in ms (uvarint),
//	         for time modes other than timeGrid the residuals (ints)
//	values   valueRaw: the smallest of the bit patterns (8 bytes), ints of the differences
//	         else: shift (6 bits) | has exceptions (1 bit), the first value if
//	         valueDelta (varint), ints, and the values that are not decimal:
//	         count (1 byte), then place (1 byte) and bits (8) of each
//
// ints are n integers as offsets from a base, packed at w bits each, with the
// few that need more behind them:
//
//	w (1 byte) | exceptions (1 byte) | base (varint) | ⌈n·w/8⌉ bytes | exceptions: place (1), offset (uvarint)
//
// A value is decimal with exponent e if some integer of less than 53 bits,
// divided by 10^e as floats are divided, gives back its very bits. That test
// is made on every value, so a block is bit-exact for any input.
const (
	blockMax = 128

	timeGrid  = 0 // start + i·step
	timeGridR = 1 // start + i·step + residual
	timeDelta = 2 // previous + step + residual

	valueRaw   = 0
	valueFrame = 1 // base + offset
	valueDelta = 2 // previous + base + offset

	maxExponent = 10
	maxDecimal  = 1 << 53

	// exceptionBits is what one exception costs beside the packed bits, about.
	exceptionBits = 40
	// maxForeign values may be not decimal before the block is raw: one in eight.
	foreignShare = 8

	// unpackSlack bytes may be read, not used, behind a block.
	unpackSlack = 16
)

// maxBlockBytes bounds an encoded block: raw values of full width and residual
// times of full width, with every header.
const maxBlockBytes = 2 + 10 + 2*(2+10+8*blockMax+blockMax) + 16

var errBlock = errors.New("mcache: damaged block")

var pow10 = [maxExponent + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10}

// codec is the scratch space of encoding and decoding; about 6 KiB, one a shard.
type codec struct {
	ints    [blockMax]int64
	offs    [blockMax]uint64
	best    [blockMax]uint64
	trial   [blockMax]uint64
	foreign [blockMax]bool
}

// encode appends the block of ss to dst. ss holds 1 to blockMax samples in
// order of time, each time once. step is the series' step in ms, or 0.
func (c *codec) encode(dst []byte, ss []Sample, step int64) []byte {
	n := len(ss)
	at := len(dst)
	dst = append(dst, byte(n-1), 0)
	var mode byte
	if n > 1 {
		mode, dst = c.encodeTimes(dst, ss, step)
	}
	vmode, exp, dst := c.encodeValues(dst, ss)
	dst[at+1] = mode | vmode<<2 | byte(exp)<<4
	return dst
}

// encodeTimes picks the grid that most distances suggest.
func (c *codec) encodeTimes(dst []byte, ss []Sample, step int64) (mode byte, _ []byte) {
	n := len(ss)
	if d := ss[1].T - ss[0].T; step <= 0 || (d != step && ss[n-1].T-ss[0].T != int64(n-1)*step) {
		step = modalDistance(ss)
	}
	regular := true
	for i := 1; i < n; i++ {
		if ss[i].T-ss[i-1].T != step {
			regular = false
			break
		}
	}
	dst = binary.AppendUvarint(dst, uint64(step))
	if regular {
		return timeGrid, dst
	}
	// Residuals to the grid stay small under jitter; residuals of distances stay small across holes.
	start := ss[0].T
	for i := range ss {
		c.ints[i] = ss[i].T - start - int64(i)*step
	}
	grid, gridBase := packing(c.ints[:n], &c.offs)
	c.best = c.offs
	for i := n - 1; i > 0; i-- {
		c.ints[i] = ss[i].T - ss[i-1].T - step
	}
	c.ints[0] = 0
	delta, deltaBase := packing(c.ints[:n], &c.offs)
	if grid.cost <= delta.cost {
		return timeGridR, appendInts(dst, c.best[:n], gridBase, grid)
	}
	return timeDelta, appendInts(dst, c.offs[:n], deltaBase, delta)
}

// modalDistance is the most frequent distance between neighbours, the smaller
// of two equally frequent ones. ss has at least two samples.
func modalDistance(ss []Sample) int64 {
	// One that makes up more than half survives a vote against all others
	// (Boyer and Moore), which is how nearly every series is.
	n := len(ss) - 1
	var most int64
	votes := 0
	for i := range n {
		switch d := ss[i+1].T - ss[i].T; {
		case votes == 0:
			most, votes = d, 1
		case d == most:
			votes++
		default:
			votes--
		}
	}
	count := 0
	for i := range n {
		if ss[i+1].T-ss[i].T == most {
			count++
		}
	}
	if count*2 > n {
		return most
	}
	ds := make([]int64, n, 2*blockMax)
	for i := range n {
		ds[i] = ss[i+1].T - ss[i].T
	}
	slices.Sort(ds)
	best, run, longest := ds[0], 0, 0
	for i, d := range ds {
		if i > 0 && d != ds[i-1] {
			run = 0
		}
		if run++; run > longest {
			best, longest = d, run
		}
	}
	return best
}

func (c *codec) encodeValues(dst []byte, ss []Sample) (mode byte, exp int, _ []byte) {
	n := len(ss)
	exp, foreign, ok := c.decimals(ss)
	if !ok {
		return valueRaw, 0, c.encodeRaw(dst, ss)
	}
	var or uint64
	for i := range n {
		or |= uint64(c.ints[i])
	}
	shift := 0
	if or != 0 {
		shift = bits.TrailingZeros64(or)
		for i := range n {
			c.ints[i] >>= shift
		}
	}
	frame, base := packing(c.ints[:n], &c.offs)
	mode, plan := byte(valueFrame), frame
	offs := &c.offs
	first := c.ints[0]
	if frame.width > 0 && n > 2 {
		if d, b, ok := c.deltas(n, frame.cost); ok {
			mode, plan, base, offs = valueDelta, d, b, &c.best
		}
	}
	flag := byte(0)
	if foreign > 0 {
		flag = 1 << 6
	}
	dst = append(dst, byte(shift)|flag)
	if mode == valueDelta {
		dst = binary.AppendVarint(dst, first)
	}
	dst = appendInts(dst, offs[:n], base, plan)
	if foreign > 0 {
		dst = append(dst, byte(foreign))
		for i := range n {
			if c.foreign[i] {
				dst = binary.LittleEndian.AppendUint64(append(dst, byte(i)), ss[i].V)
			}
		}
	}
	return mode, exp, dst
}

// decimals fills c.ints with the values as integers over 10^exp. Values that
// are none are marked in c.foreign and take the integer before them.
func (c *codec) decimals(ss []Sample) (exp, foreign int, ok bool) {
	limit := len(ss) / foreignShare
	for i := range ss {
		v := math.Float64frombits(ss[i].V)
		d, e, ok := decimal(v, ss[i].V, exp)
		if ok && e > exp && !c.rescale(i, pow10[e-exp]) {
			ok = false
		}
		c.foreign[i] = !ok
		if ok {
			exp = max(exp, e)
			c.ints[i] = d
			continue
		}
		if foreign++; foreign > limit {
			return 0, 0, false
		}
		if i > 0 {
			c.ints[i] = c.ints[i-1]
		} else {
			c.ints[i] = 0
		}
	}
	return exp, foreign, true
}

// rescale multiplies the first n integers, if all of them stay in bounds.
func (c *codec) rescale(n int, by float64) bool {
	limit := int64(maxDecimal / by)
	for i := range n {
		if c.ints[i] > limit || c.ints[i] < -limit {
			return false
		}
	}
	for i := range n {
		c.ints[i] *= int64(by)
	}
	return true
}

// decimal finds the smallest exponent from exp on with which v is decimal.
func decimal(v float64, vbits uint64, exp int) (int64, int, bool) {
	if exp == 0 {
		if d := int64(v); v > -maxDecimal && v < maxDecimal && math.Float64bits(float64(d)) == vbits {
			return d, 0, true
		}
	}
	for e := exp; e <= maxExponent; e++ {
		t := v * pow10[e]
		if !(t > -maxDecimal && t < maxDecimal) { // NaN too
			return 0, 0, false
		}
		d := int64(math.RoundToEven(t))
		if math.Float64bits(float64(d)/pow10[e]) == vbits {
			return d, e, true
		}
	}
	return 0, 0, false
}

// deltas packs the distances between c.ints into c.best, if that costs less
// than cost. A second try lets distances below zero be exceptions: a counter
// that was reset once.
func (c *codec) deltas(n, cost int) (plan packPlan, base int64, ok bool) {
	var ds [blockMax]int64
	least, leastUp := int64(math.MaxInt64), int64(math.MaxInt64)
	for i := 1; i < n; i++ {
		d := c.ints[i] - c.ints[i-1]
		ds[i] = d
		least = min(least, d)
		if d >= 0 {
			leastUp = min(leastUp, d)
		}
	}
	bases := [2]int64{least, leastUp}
	for k, b := range bases {
		if k == 1 && (leastUp == least || leastUp == math.MaxInt64) {
			break
		}
		var hist [65]int
		c.trial[0] = 0
		hist[0]++
		for i := 1; i < n; i++ {
			c.trial[i] = uint64(ds[i] - b) // wraps round where d < b, and so is wide
			hist[bits.Len64(c.trial[i])]++
		}
		if p := bestWidth(&hist, n); p.cost < cost {
			cost, plan, base, ok = p.cost, p, b, true
			c.best = c.trial
		}
	}
	return plan, base, ok
}

func (c *codec) encodeRaw(dst []byte, ss []Sample) []byte {
	least := ss[0].V
	for i := range ss {
		least = min(least, ss[i].V)
	}
	var hist [65]int
	for i := range ss {
		c.offs[i] = ss[i].V - least
		hist[bits.Len64(c.offs[i])]++
	}
	dst = binary.LittleEndian.AppendUint64(dst, least)
	return appendInts(dst, c.offs[:len(ss)], 0, bestWidth(&hist, len(ss)))
}

// packPlan says how n offsets are packed: all that fit at width bits, the others as exceptions.
type packPlan struct {
	width, exceptions int
	cost              int // bits
}

// packing turns ints into offsets from their smallest and plans their width.
func packing(ints []int64, offs *[blockMax]uint64) (packPlan, int64) {
	base := ints[0]
	for _, v := range ints {
		base = min(base, v)
	}
	var hist [65]int
	for i, v := range ints {
		offs[i] = uint64(v - base)
		hist[bits.Len64(offs[i])]++
	}
	return bestWidth(&hist, len(ints)), base
}

// bestWidth weighs packed bits against exceptions, given how many offsets need how many bits.
func bestWidth(hist *[65]int, n int) packPlan {
	best := packPlan{cost: math.MaxInt}
	exceptions := 0
	for w := 64; w >= 0; w-- {
		if cost := n*w + exceptions*exceptionBits; cost <= best.cost {
			best = packPlan{width: w, exceptions: exceptions, cost: cost}
		}
		exceptions += hist[w]
		if exceptions*exceptionBits > best.cost {
			break
		}
	}
	return best
}

func appendInts(dst []byte, offs []uint64, base int64, p packPlan) []byte {
	dst = append(dst, byte(p.width), byte(p.exceptions))
	dst = binary.AppendVarint(dst, base)
	dst = appendPacked(dst, offs, uint(p.width))
	if p.exceptions > 0 {
		for i, v := range offs {
			if bits.Len64(v) > p.width {
				dst = binary.AppendUvarint(append(dst, byte(i)), v)
			}
		}
	}
	return dst
}

// appendPacked writes the low w bits of each offset, lowest bit first.
func appendPacked(dst []byte, offs []uint64, w uint) []byte {
	if w == 0 {
		return dst
	}
	mask := ^uint64(0) >> (64 - w)
	var acc uint64
	var have uint
	for _, v := range offs {
		v &= mask
		acc |= v << have
		if have+w < 64 {
			have += w
			continue
		}
		dst = binary.LittleEndian.AppendUint64(dst, acc)
		acc = v >> (64 - have) // 0 for have == 0: Go shifts by 64 to nothing
		have = have + w - 64
	}
	for ; have > 0; have -= min(have, 8) {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// unpack reads n numbers of w bits. src must have unpackSlack bytes more than it needs.
func unpack(dst *[blockMax]uint64, n int, src []byte, w uint) {
	switch {
	case w == 0:
		clear(dst[:n])
	case w <= 56:
		mask := uint64(1)<<w - 1
		var p uint
		for i := range dst[:n] {
			dst[i] = binary.LittleEndian.Uint64(src[p>>3:]) >> (p & 7) & mask
			p += w
		}
	default:
		mask := ^uint64(0) >> (64 - w)
		var p uint
		for i := range dst[:n] {
			at := src[p>>3:]
			s := p & 7
			v := binary.LittleEndian.Uint64(at) >> s
			v |= uint64(at[8]) << (64 - s) // nothing for s == 0
			dst[i] = v & mask
			p += w
		}
	}
}

// blockLen is the number of samples of a block.
func blockLen(b []byte) int { return int(b[0]) + 1 }

// decode fills out with the samples of b, which begins at time start, and
// returns how many there are. buf is b with unpackSlack more bytes behind it,
// whose content does not matter. A block that is damaged in a way that shows
// is errBlock; out is then undefined.
func (c *codec) decode(out *[blockMax]Sample, buf []byte, start int64) (int, error) {
	if len(buf) < 2+unpackSlack || buf[0] >= blockMax {
		return 0, fmt.Errorf("%w: header", errBlock)
	}
	r := blockReader{buf: buf, end: len(buf) - unpackSlack, at: 2}
	n := int(buf[0]) + 1
	tmode, vmode, exp := buf[1]&3, buf[1]>>2&3, int(buf[1]>>4)
	if exp > maxExponent || tmode > timeDelta || vmode > valueDelta {
		return 0, fmt.Errorf("%w: modes %d, %d, exponent %d", errBlock, tmode, vmode, exp)
	}
	out[0].T = start
	if n > 1 {
		step := int64(r.uvarint())
		switch tmode {
		case timeGrid:
			t := start
			for i := range out[:n] {
				out[i].T = t
				t += step
			}
		default:
			base := r.ints(&c.offs, n)
			t := start
			if tmode == timeGridR {
				for i := range out[:n] {
					out[i].T = t + base + int64(c.offs[i])
					t += step
				}
			} else {
				for i := 1; i < n; i++ {
					t += step + base + int64(c.offs[i])
					out[i].T = t
				}
			}
		}
	}
	if vmode == valueRaw {
		least := r.uint64()
		r.ints(&c.offs, n)
		for i := range out[:n] {
			out[i].V = least + c.offs[i]
		}
		return n, r.err()
	}
	head := r.byte()
	shift := head & 63
	var v int64
	if vmode == valueDelta {
		v = r.varint()
	}
	base := r.ints(&c.offs, n)
	if r.bad {
		return 0, r.err()
	}
	c.values(out, n, vmode == valueDelta, v, base, shift, exp)
	if head&(1<<6) != 0 {
		for range int(r.byte()) {
			i := r.byte()
			if int(i) >= n {
				r.bad = true
				break
			}
			out[i].V = r.uint64()
		}
	}
	return n, r.err()
}

// values turns offsets into floats; one loop for each of the four kinds keeps them tight.
func (c *codec) values(out *[blockMax]Sample, n int, delta bool, v, base int64, shift byte, exp int) {
	div := pow10[exp]
	switch {
	case !delta && exp == 0 && shift == 0:
		for i := range out[:n] {
			out[i].V = math.Float64bits(float64(base + int64(c.offs[i])))
		}
	case !delta:
		for i := range out[:n] {
			out[i].V = math.Float64bits(float64((base+int64(c.offs[i]))<<shift) / div)
		}
	case exp == 0 && shift == 0:
		v -= base + int64(c.offs[0])
		for i := range out[:n] {
			v += base + int64(c.offs[i])
			out[i].V = math.Float64bits(float64(v))
		}
	default:
		v -= base + int64(c.offs[0])
		for i := range out[:n] {
			v += base + int64(c.offs[i])
			out[i].V = math.Float64bits(float64(v<<shift) / div)
		}
	}
}

// blockReader reads a block up to end; what would go beyond sets bad.
type blockReader struct {
	buf     []byte // with unpackSlack behind end
	at, end int
	bad     bool
}

func (r *blockReader) err() error {
	if r.bad || r.at > r.end {
		return fmt.Errorf("%w: ends at %d of %d", errBlock, r.at, r.end)
	}
	return nil
}

func (r *blockReader) byte() byte {
	if r.at >= r.end {
		r.bad = true
		return 0
	}
	r.at++
	return r.buf[r.at-1]
}

func (r *blockReader) uint64() uint64 {
	if r.at+8 > r.end {
		r.bad = true
		return 0
	}
	r.at += 8
	return binary.LittleEndian.Uint64(r.buf[r.at-8:])
}

func (r *blockReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.buf[min(r.at, r.end):r.end])
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.at += n
	return v
}

func (r *blockReader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// ints reads n offsets into offs and returns their base.
func (r *blockReader) ints(offs *[blockMax]uint64, n int) (base int64) {
	w, exceptions := uint(r.byte()), int(r.byte())
	base = r.varint()
	size := (n*int(w) + 7) / 8
	if r.bad || w > 64 || exceptions > n || r.at+size > r.end {
		r.bad = true
		return 0
	}
	unpack(offs, n, r.buf[r.at:], w)
	r.at += size
	for range exceptions {
		i := int(r.byte())
		v := r.uvarint()
		if i >= n {
			r.bad = true
			return 0
		}
		offs[i] = v
	}
	return base
}
