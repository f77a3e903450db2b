package block

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"
)

// The modes and limits of the format, which doc.go describes.
const (
	// MaxSamples is how many samples a block has at most.
	MaxSamples = 128

	timeGrid  = 0 // start + i·step
	timeGridR = 1 // start + i·step + residual
	timeDelta = 2 // previous + step + residual
	// timeSections says that the block is a list of blocks; see sections.go.
	timeSections = 3

	valueRaw   = 0
	valueFrame = 1 // base + offset
	valueDelta = 2 // previous + base + offset

	maxExponent = 10
	maxDecimal  = 1 << 53 // decimals are below it, and above its negative
)

// What the encoder decides by; a decoder need not know.
const (
	// exceptionBits is what one exception costs beside the packed bits, about.
	exceptionBits = 40
	// foreignShare: one value in so many may be foreign before the block is raw.
	foreignShare = 8

	// shortBlock samples are packed without exceptions unless they jump: to look
	// for some would cost more time than it saves bytes.
	shortBlock = 64
)

// Slack is how many bytes behind a block Decode and Inspect may read, and do
// not use.
const Slack = 16

// What the bytes of a block have room for.
const (
	_ = uint(256 - MaxSamples)                    // number of samples − 1, places of exceptions
	_ = uint(timeDelta - timeGridR)               // two bits of time mode,
	_ = uint(3 - timeSections)                    // of which the last says sections
	_ = uint(15 - maxExponent)                    // four bits of exponent
	_ = uint(63 - MaxSections)                    // six bits of sections
	_ = uint(1<<(8*sectionLength) - 1 - MaxBytes) // the length of a section
	_ = uint(Slack - 9)                           // unpack reads a word and a byte from the last bit
)

// MaxBytes bounds an encoded block: raw values of full width and residual
// times of full width, with every header, those of sections included.
const MaxBytes = 2 + 10 + 2*(2+10+8*MaxSamples+MaxSamples) + 16 + MaxSections*sectionOverhead

var ErrDamaged = errors.New("mcache: damaged block")

var pow10 = [maxExponent + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10}

// Codec is the scratch space of encoding and decoding; 3 KiB, one a shard.
type Codec struct {
	ints, deltas [MaxSamples]int64
	offs         [MaxSamples]uint64
	foreign      [MaxSamples / 64]uint64 // bit i: value i is not decimal
}

// Encode appends the block of ss to dst. ss holds 1 to MaxSamples samples in
// order of time, each time once. step is the series' step in ms, or 0.
func (c *Codec) Encode(dst []byte, ss []Sample, step int64) []byte {
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
func (c *Codec) encodeTimes(dst []byte, ss []Sample, step int64) (mode byte, _ []byte) {
	n := len(ss)
	if d := ss[1].T - ss[0].T; step <= 0 || (d != step && ss[n-1].T-ss[0].T != int64(n-1)*step) {
		step = ModalDistance(ss)
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
	grid, delta := c.ints[:n], c.deltas[:n]
	start := ss[0].T
	delta[0] = 0
	for i := range ss {
		grid[i] = ss[i].T - start - int64(i)*step
		if i > 0 {
			delta[i] = ss[i].T - ss[i-1].T - step
		}
	}
	gridBase, gridWidest := span(grid)
	deltaBase, deltaWidest := span(delta)
	gridPlan, deltaPlan := packing(grid, gridBase, gridWidest), packing(delta, deltaBase, deltaWidest)
	if gridPlan.cost <= deltaPlan.cost {
		return timeGridR, appendInts(dst, grid, gridBase, gridPlan)
	}
	return timeDelta, appendInts(dst, delta, deltaBase, deltaPlan)
}

// ModalDistance is the most frequent distance between neighbours, the smaller
// of two equally frequent ones. ss has at least two samples.
func ModalDistance(ss []Sample) int64 {
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
	ds := make([]int64, n, 2*MaxSamples)
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

func (c *Codec) encodeValues(dst []byte, ss []Sample) (mode byte, exp int, _ []byte) {
	n := len(ss)
	exp, foreign, ok := c.decimals(ss)
	if !ok {
		return valueRaw, 0, c.encodeRaw(dst, ss)
	}
	mode, shift, base, plan := c.planValues(n)
	flag := byte(0)
	if foreign > 0 {
		flag = 1 << 6
	}
	dst = append(dst, byte(shift)|flag)
	if mode == valueDelta {
		dst = appendInts(binary.AppendVarint(dst, c.ints[0]), c.deltas[:n], base, plan)
	} else {
		dst = appendInts(dst, c.ints[:n], base, plan)
	}
	if foreign > 0 {
		dst = append(dst, byte(foreign))
		for i := range n {
			if c.foreign[i>>6]>>(i&63)&1 != 0 {
				dst = binary.LittleEndian.AppendUint64(append(dst, byte(i)), ss[i].V)
			}
		}
	}
	return mode, exp, dst
}

// decimals fills c.ints with the values as integers over 10^exp. Values that
// are none are marked in c.foreign and take the integer before them.
func (c *Codec) decimals(ss []Sample) (exp, foreign int, ok bool) {
	limit := len(ss) / foreignShare
	c.foreign = [MaxSamples / 64]uint64{}
	if k := 1; ss[len(ss)-1].V == ss[0].V { // perhaps a constant
		for k < len(ss) && ss[k].V == ss[0].V {
			k++
		}
		if k == len(ss) {
			d, e, ok := decimal(math.Float64frombits(ss[0].V), ss[0].V, 0)
			for i := range c.ints[:k] {
				c.ints[i] = d
			}
			return e, 0, ok
		}
	}
	for i := 0; ; i++ {
		// Most blocks are one run: the exponent of the first values serves all.
		if exp == 0 {
			i += integers(c.ints[i:], ss[i:])
		} else {
			i += fractions(c.ints[i:], ss[i:], pow10[exp])
		}
		if i == len(ss) {
			return exp, foreign, true
		}
		d, e, ok := decimal(math.Float64frombits(ss[i].V), ss[i].V, exp)
		if ok && (e == exp || c.rescale(i, pow10[e-exp])) {
			c.ints[i], exp = d, e
			continue
		}
		if foreign++; foreign > limit {
			return 0, 0, false
		}
		c.foreign[i>>6] |= 1 << (i & 63)
		c.ints[i] = c.ints[max(i-1, 0)]
		if i == 0 {
			c.ints[0] = 0
		}
	}
}

// integers fills dst with the values of ss, up to the first that is no
// integer, and returns how many that are.
func integers(dst []int64, ss []Sample) int {
	dst = dst[:len(ss)]
	for i := range ss {
		d := int64(math.Float64frombits(ss[i].V))
		if math.Float64bits(float64(d)) != ss[i].V || uint64(d+maxDecimal-1) > 2*maxDecimal-2 {
			return i
		}
		dst[i] = d
	}
	return len(ss)
}

// fractions is integers for values over power.
func fractions(dst []int64, ss []Sample, power float64) int {
	dst = dst[:len(ss)]
	for i := range ss {
		d := int64(math.RoundToEven(math.Float64frombits(ss[i].V) * power))
		if math.Float64bits(float64(d)/power) != ss[i].V || uint64(d+maxDecimal-1) > 2*maxDecimal-2 {
			return i
		}
		dst[i] = d
	}
	return len(ss)
}

// rescale multiplies the first n integers, if all of them stay in bounds.
func (c *Codec) rescale(n int, by float64) bool {
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

func (c *Codec) encodeRaw(dst []byte, ss []Sample) []byte {
	least := ss[0].V
	for i := range ss {
		least = min(least, ss[i].V)
	}
	var or uint64
	for i := range ss {
		or |= ss[i].V - least
		c.ints[i] = int64(ss[i].V - least)
	}
	dst = binary.LittleEndian.AppendUint64(dst, least)
	return appendInts(dst, c.ints[:len(ss)], 0, packing(c.ints[:len(ss)], 0, bits.Len64(or)))
}
