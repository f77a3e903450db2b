package block

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// unpack reads n numbers of w bits. src must have Slack bytes more than it needs.
func unpack(dst *[MaxSamples]uint64, n int, src []byte, w uint) {
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

// Len is the number of samples of a block.
func Len(b []byte) int { return int(b[0]) + 1 }

// Decode fills out with the samples of b, which begins at time start, and
// returns how many there are. buf is b with Slack more bytes behind it,
// whose content does not matter. A block that is damaged in a way that shows
// is ErrDamaged; out is then undefined.
func (c *Codec) Decode(out *[MaxSamples]Sample, buf []byte, start int64) (int, error) {
	if len(buf) < 2+Slack || buf[0] >= MaxSamples {
		return 0, fmt.Errorf("%w: header", ErrDamaged)
	}
	if buf[1]&3 == timeSections {
		return c.decodeSections(out, buf, start)
	}
	return c.decodeOne(out[:], buf, start)
}

// decodeOne is decode for a block without sections, of at most len(out) samples.
func (c *Codec) decodeOne(out []Sample, buf []byte, start int64) (int, error) {
	if len(buf) < 2+Slack || int(buf[0]) >= len(out) {
		return 0, fmt.Errorf("%w: header", ErrDamaged)
	}
	r := blockReader{buf: buf, end: len(buf) - Slack, at: 2}
	n := int(buf[0]) + 1
	out = out[:n]
	tmode, vmode, exp := buf[1]&3, buf[1]>>2&3, int(buf[1]>>4)
	if exp > maxExponent || tmode > timeDelta || vmode > valueDelta {
		return 0, fmt.Errorf("%w: modes %d, %d, exponent %d", ErrDamaged, tmode, vmode, exp)
	}
	out[0].T = start
	if n > 1 {
		step := int64(r.uvarint())
		switch tmode {
		case timeGrid:
			t := start
			for i := range out {
				out[i].T = t
				t += step
			}
		default:
			base := r.ints(&c.offs, n)
			t := start
			if tmode == timeGridR {
				for i := range out {
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
		for i := range out {
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
	if vmode == valueDelta {
		c.sums(out, v, base, shift, exp)
	} else {
		c.values(out, base, shift, exp)
	}
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

// values turns offsets into floats. Two loops, here and in sums, keep them tight.
func (c *Codec) values(out []Sample, base int64, shift byte, exp int) {
	div := pow10[exp]
	offs := c.offs[:len(out)]
	if exp == 0 && shift == 0 {
		for i := range out {
			out[i].V = math.Float64bits(float64(base + int64(offs[i])))
		}
		return
	}
	for i := range out {
		out[i].V = math.Float64bits(float64((base+int64(offs[i]))<<shift) / div)
	}
}

// sums is values where each offset is from the value before; v is the first.
func (c *Codec) sums(out []Sample, v, base int64, shift byte, exp int) {
	div := pow10[exp]
	offs := c.offs[:len(out)]
	v -= base + int64(c.offs[0])
	if exp == 0 && shift == 0 {
		for i := range out {
			v += base + int64(offs[i])
			out[i].V = math.Float64bits(float64(v))
		}
		return
	}
	for i := range out {
		v += base + int64(offs[i])
		out[i].V = math.Float64bits(float64(v<<shift) / div)
	}
}

// blockReader reads a block up to end; what would go beyond sets bad.
type blockReader struct {
	buf     []byte // with Slack behind end
	at, end int
	bad     bool
}

func (r *blockReader) err() error {
	if r.bad || r.at > r.end {
		return fmt.Errorf("%w: ends at %d of %d", ErrDamaged, r.at, r.end)
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
	if at := r.at; at < r.end && r.buf[at] < 0x80 {
		r.at = at + 1
		return uint64(r.buf[at])
	}
	v, n := binary.Uvarint(r.buf[min(r.at, r.end):r.end])
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.at += n
	return v
}

// skipUvarint is uvarint for a number that does not matter.
func (r *blockReader) skipUvarint() {
	if r.at < r.end {
		// One of these bytes is the last of nearly all; there are as many, in the slack.
		last := ^binary.LittleEndian.Uint64(r.buf[r.at:]) & (0x80 * (math.MaxUint64 / 0xff))
		if n := bits.TrailingZeros64(last)/8 + 1; last != 0 && r.at+n <= r.end {
			r.at += n
			return
		}
	}
	r.uvarint()
}

func (r *blockReader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// ints reads n offsets into offs and returns their base.
func (r *blockReader) ints(offs *[MaxSamples]uint64, n int) (base int64) {
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
