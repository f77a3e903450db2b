package query

import (
	"encoding/binary"
	"math/bits"

	"mcached/mcache"
)

// xorEncoder writes XOR chunks, the same bytes as Prometheus' chunkenc does.
// That one writes bit by bit into a slice and keeps its count of samples there;
// here bits gather in a register.
type xorEncoder struct {
	out     []byte // full words; the first two bytes are the count
	word    uint64 // bits that are not out yet, from the highest on
	used    uint   // of word; less than 64
	n       int    // samples
	t, step int64  // of the last sample, and from the one before to it
	v       uint64
	leading uint // bits of the last difference that was written whole; none before
	trail   uint
}

// noLeading is more than any difference has.
const noLeading = 0xff

// reset begins a chunk. The one before must not be used any more.
func (e *xorEncoder) reset() {
	*e = xorEncoder{out: append(e.out[:0], 0, 0), leading: noLeading}
}

// put writes the lowest k bits of v, which has no others. k is 1 to 64.
func (e *xorEncoder) put(v uint64, k uint) {
	free := 64 - e.used
	if k < free {
		e.word |= v << (free - k)
		e.used += k
		return
	}
	rest := k - free
	e.out = binary.BigEndian.AppendUint64(e.out, e.word|v>>rest)
	e.word, e.used = v<<(64-rest), rest
}

func (e *xorEncoder) putBytes(b []byte) {
	for _, c := range b {
		e.put(uint64(c), 8)
	}
}

func (e *xorEncoder) append(s mcache.Sample) {
	var varint [binary.MaxVarintLen64]byte
	step := s.T - e.t
	switch e.n {
	case 0:
		e.putBytes(varint[:binary.PutVarint(varint[:], s.T)])
		e.put(s.V, 64)
		step = 0
	case 1:
		e.putBytes(varint[:binary.PutUvarint(varint[:], uint64(step))])
		e.value(s.V)
	default:
		switch d := step - e.step; {
		case d == 0:
			e.put(0, 1)
		case fits(d, 14):
			e.put(0b10<<14|uint64(d)&(1<<14-1), 2+14)
		case fits(d, 17):
			e.put(0b110<<17|uint64(d)&(1<<17-1), 3+17)
		case fits(d, 20):
			e.put(0b1110<<20|uint64(d)&(1<<20-1), 4+20)
		default:
			e.put(0b1111, 4)
			e.put(uint64(d), 64)
		}
		e.value(s.V)
	}
	e.t, e.step, e.v = s.T, step, s.V
	e.n++
}

// fits reports whether the format gives d n bits.
func fits(d int64, n uint) bool { return -(1<<(n-1)-1) <= d && d <= 1<<(n-1) }

// value writes how a value differs from the one before.
func (e *xorEncoder) value(v uint64) {
	diff := v ^ e.v
	if diff == 0 {
		e.put(0, 1)
		return
	}
	leading, trail := min(uint(bits.LeadingZeros64(diff)), 31), uint(bits.TrailingZeros64(diff))
	if e.leading != noLeading && leading >= e.leading && trail >= e.trail {
		e.put(0b10, 2)
		e.put(diff>>e.trail, 64-e.leading-e.trail)
		return
	}
	e.leading, e.trail = leading, trail
	significant := 64 - leading - trail // 64 is written as 0
	e.put(0b11<<11|uint64(leading)<<6|uint64(significant&63), 2+5+6)
	e.put(diff>>trail, significant)
}

// bytes ends the chunk and returns it. It is valid until the next reset.
func (e *xorEncoder) bytes() []byte {
	var last [8]byte
	binary.BigEndian.PutUint64(last[:], e.word)
	e.out = append(e.out, last[:(e.used+7)/8]...)
	binary.BigEndian.PutUint16(e.out, uint16(e.n))
	return e.out
}
