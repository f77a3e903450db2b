package block

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// planValues takes the zeros that all of the first n c.ints end with off them
// and decides whether they or their distances, which it leaves in c.deltas,
// are packed. The first distance is the base.
func (c *Codec) planValues(n int) (mode byte, shift int, base int64, plan packPlan) {
	ints, deltas := c.ints[:n], c.deltas[:n]
	v := ints[0]
	or, least, most := uint64(v), v, v
	leastD, mostD := int64(math.MaxInt64), int64(math.MinInt64)
	for i := 1; i < len(ints) && i < len(deltas); i++ {
		w := ints[i]
		d := w - v
		or |= uint64(w)
		least, most = min(least, w), max(most, w)
		leastD, mostD = min(leastD, d), max(mostD, d)
		deltas[i] = d
		v = w
	}
	if or != 0 {
		if shift = bits.TrailingZeros64(or); shift > 0 {
			for i := range ints {
				ints[i] >>= shift
				deltas[i] >>= shift
			}
			least, most, leastD, mostD = least>>shift, most>>shift, leastD>>shift, mostD>>shift
		}
	}
	if least == most {
		return valueFrame, shift, least, packPlan{}
	}
	deltas[0] = leastD
	frame, delta := bits.Len64(uint64(most-least)), bits.Len64(uint64(mostD-leastD))
	if n <= shortBlock && !jumps(mostD-leastD, (ints[n-1]-ints[0])/int64(n-1)-leastD) {
		if n > 2 && delta < frame {
			return valueDelta, shift, leastD, packPlan{width: delta}
		}
		return valueFrame, shift, least, packPlan{width: frame}
	}
	if leastD >= 0 { // a counter, of which the distances are always the smaller
		return valueDelta, shift, leastD, packing(deltas, leastD, delta)
	}
	mode, base, plan = valueFrame, least, packing(ints, least, frame)
	if delta > frame && plan.width >= frame-1 {
		return mode, shift, base, plan // noise: nothing stands out, and distances are greater
	}
	if p := packing(deltas, leastD, delta); p.cost < plan.cost {
		mode, base, plan = valueDelta, leastD, p
	}
	if -leastD > 4*mostD {
		// A counter that was reset, perhaps: let the distances below zero be exceptions.
		up := uint64(math.MaxInt64) // the least of the others: those below are large as unsigned
		down := 0
		for _, d := range deltas[1:] {
			down += int(uint64(d) >> 63)
			up = min(up, uint64(d))
		}
		if up < math.MaxInt64 && down*exceptionBits < plan.cost {
			deltas[0] = int64(up)
			if p := packing(deltas, int64(up), 64); p.cost < plan.cost {
				mode, base, plan = valueDelta, int64(up), p
			}
		}
	}
	deltas[0] = base
	return mode, shift, base, plan
}

// jumps reports whether distances within span of each other, at offset mean on
// average, look like those with an outlier or two, as where a counter began
// again.
func jumps(span, mean int64) bool { return span > 3 && (span > 8*mean || span > 8*(span-mean)) }

// packPlan says how n offsets are packed: all that fit at width bits, the others as exceptions.
type packPlan struct {
	width, exceptions int
	cost              int // bits
}

// packing weighs packed bits against exceptions for the offsets of ints, at
// most MaxSamples, from base. None needs more than widest bits.
func packing(ints []int64, base int64, widest int) packPlan {
	best := packPlan{cost: math.MaxInt}
	exceptions := 0
	for top := widest; ; top -= 8 {
		// Eight counters in one register, of the offsets of top bits, of one less,
		// and so on. Others are shifted out of it. Few blocks need a second round.
		var counts uint64
		for _, v := range ints {
			counts += 1 << (uint(top-bits.Len64(uint64(v-base))) * 8)
		}
		for w := top; w > top-8; w-- {
			if cost := len(ints)*w + exceptions*exceptionBits; cost <= best.cost {
				best = packPlan{width: w, exceptions: exceptions, cost: cost}
			}
			exceptions += int(counts & 0xff)
			counts >>= 8
			if w == 0 || exceptions*exceptionBits > best.cost {
				return best
			}
		}
	}
}

// span is the least of ints, and the bits that the greatest is above it.
func span(ints []int64) (least int64, widest int) {
	least, most := ints[0], ints[0]
	for _, v := range ints[1:] {
		least, most = min(least, v), max(most, v)
	}
	return least, bits.Len64(uint64(most - least))
}

// appendInts writes ints as the plan for their offsets from base says.
func appendInts(dst []byte, ints []int64, base int64, p packPlan) []byte {
	dst = append(dst, byte(p.width), byte(p.exceptions))
	dst = binary.AppendVarint(dst, base)
	dst = appendPacked(dst, ints, base, uint(p.width))
	if p.exceptions > 0 {
		for i, v := range ints {
			if u := uint64(v - base); bits.Len64(u) > p.width {
				dst = binary.AppendUvarint(append(dst, byte(i)), u)
			}
		}
	}
	return dst
}

// appendPacked writes the low w bits of each offset from base, lowest bit first.
func appendPacked(dst []byte, ints []int64, base int64, w uint) []byte {
	if w == 0 {
		return dst
	}
	at, size := len(dst), (len(ints)*int(w)+7)/8
	dst = slices.Grow(dst, size+8)[:at+size+8] // whole words are written
	out := dst[at:]
	mask := ^uint64(0) >> (64 - w)
	var acc uint64 // the bits that make no byte yet
	var have uint
	// As many at a time as fit 56 bits, so that with those before them they fit a word.
	switch {
	case w <= 7:
		for ; len(ints) >= 8; ints = ints[8:] {
			v := ints[:8:8]
			acc |= (uint64(v[0]-base)&mask | uint64(v[1]-base)&mask<<w | uint64(v[2]-base)&mask<<(2*w) | uint64(v[3]-base)&mask<<(3*w) |
				(uint64(v[4]-base)&mask|uint64(v[5]-base)&mask<<w|uint64(v[6]-base)&mask<<(2*w)|uint64(v[7]-base)&mask<<(3*w))<<(4*w)) << have
			binary.LittleEndian.PutUint64(out, acc)
			have += 8 * w
			out, acc, have = out[have>>3:], acc>>(have&^7), have&7
		}
	case w <= 14:
		for ; len(ints) >= 4; ints = ints[4:] {
			v := ints[:4:4]
			acc |= (uint64(v[0]-base)&mask | uint64(v[1]-base)&mask<<w | uint64(v[2]-base)&mask<<(2*w) | uint64(v[3]-base)&mask<<(3*w)) << have
			binary.LittleEndian.PutUint64(out, acc)
			have += 4 * w
			out, acc, have = out[have>>3:], acc>>(have&^7), have&7
		}
	case w > 56:
		for _, v := range ints {
			u := uint64(v-base) & mask
			acc |= u << have
			binary.LittleEndian.PutUint64(out, acc)
			if n := have + w; n >= 64 {
				out, acc, have = out[8:], u>>(64-have), n-64 // nothing is left of u for have == 0
			} else {
				out, acc, have = out[n>>3:], acc>>(n&^7), n&7
			}
		}
		ints = nil
	}
	for _, v := range ints {
		acc |= uint64(v-base) & mask << have
		binary.LittleEndian.PutUint64(out, acc)
		have += w
		out, acc, have = out[have>>3:], acc>>(have&^7), have&7
	}
	if have > 0 {
		out[0] = byte(acc)
	}
	return dst[:at+size]
}
