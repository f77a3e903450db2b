package mcache

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// planValues takes the zeros that all of the first n c.ints end with off them
// and decides whether they or their distances are packed.
func (c *codec) planValues(n int) (mode byte, shift int, base int64, plan packPlan) {
	v := c.ints[0]
	or, least, most := uint64(v), v, v
	var down int
	leastD, mostD := int64(math.MaxInt64), int64(math.MinInt64)
	up := uint64(math.MaxUint64) // the least distance not below zero: those that are, are large as unsigned
	for _, w := range c.ints[1:n] {
		d := w - v
		or |= uint64(w)
		least, most = min(least, w), max(most, w)
		leastD, mostD = min(leastD, d), max(mostD, d)
		down += int(uint64(d) >> 63)
		up = min(up, uint64(d))
		v = w
	}
	if or != 0 {
		if shift = bits.TrailingZeros64(or); shift > 0 {
			for i := range n {
				c.ints[i] >>= shift
			}
			least, most, leastD, mostD = least>>shift, most>>shift, leastD>>shift, mostD>>shift
		}
	}
	if least == most {
		return valueFrame, shift, least, packPlan{}
	}
	frame, delta := bits.Len64(uint64(most-least)), bits.Len64(uint64(mostD-leastD))
	if n <= shortBlock && !jumps(mostD-leastD, (v>>shift-c.ints[0])/int64(n-1)-leastD) {
		if n > 2 && delta < frame {
			return valueDelta, shift, leastD, packPlan{width: delta}
		}
		return valueFrame, shift, least, packPlan{width: frame}
	}
	var hist histogram
	for _, v := range c.ints[:n] {
		hist[bits.Len64(uint64(v-least))]++
	}
	mode, base, plan = valueFrame, least, hist.bestWidth(n, frame)
	// A second try lets distances below zero be exceptions: a counter that was
	// reset once.
	leastUp := leastD
	if up <= math.MaxInt64 {
		leastUp = int64(up) >> shift
	}
	for _, b := range [2]int64{leastD, leastUp} {
		if b != leastD && down*exceptionBits >= plan.cost {
			break
		}
		hist = histogram{1}
		widest := delta
		if b != leastD {
			widest = 64 // what is below the base wraps round
		}
		v := c.ints[0]
		for _, w := range c.ints[1:n] {
			hist[bits.Len64(uint64(w-v-b))]++
			v = w
		}
		if p := hist.bestWidth(n, widest); p.cost < plan.cost {
			mode, base, plan = valueDelta, b, p
		}
		if leastUp == leastD {
			break
		}
	}
	return mode, shift, base, plan
}

// jumps reports whether distances within span of each other, at offset mean on
// average, look like those with an outlier or two, as where a counter began
// again.
func jumps(span, mean int64) bool { return span > 3 && (span > 8*mean || span > 8*(span-mean)) }

// histogram says how many offsets need how many bits. They are at most blockMax.
type histogram [65]uint8

// packPlan says how n offsets are packed: all that fit at width bits, the others as exceptions.
type packPlan struct {
	width, exceptions int
	cost              int // bits
}

// packing plans the width of the offsets of ints from base.
func packing(ints []int64, base int64) packPlan {
	var hist histogram
	var or uint64
	for _, v := range ints {
		or |= uint64(v - base)
		hist[bits.Len64(uint64(v-base))]++
	}
	return hist.bestWidth(len(ints), bits.Len64(or))
}

func leastOf(ints []int64) int64 {
	least := ints[0]
	for _, v := range ints[1:] {
		least = min(least, v)
	}
	return least
}

// bestWidth weighs packed bits against exceptions, from the widest offset on down.
func (hist *histogram) bestWidth(n, widest int) packPlan {
	best := packPlan{cost: math.MaxInt}
	exceptions := 0
	for w := widest; w >= 0; w-- {
		if cost := n*w + exceptions*exceptionBits; cost <= best.cost {
			best = packPlan{width: w, exceptions: exceptions, cost: cost}
		}
		exceptions += int(hist[w])
		if exceptions*exceptionBits > best.cost {
			break
		}
	}
	return best
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
