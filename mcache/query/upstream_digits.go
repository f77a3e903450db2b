package query

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Numbers are kept in an extent as they are written, four bits a character, and of
// each only what follows the characters that it has in common with the one before:
//
//	number   shared (3 bits, the highest) | rest (5) | rest characters, two a byte
//	         0 (1): the number before once more
//
//	12.5     0 << 5 | 4   0x21 0x5e
//	12.75    3 << 5 | 2   0x57
//
// A character is the four lowest bits of its code, the first of two in the lower
// half of a byte: the digits, the point (14) and the minus (13) differ in these. So an
// answer is recorded and written again without any number being read or formatted, and
// is the same byte for byte.
//
// Cost: 1 byte of a number that does not change, 2 to 5 of one that grows, 10 of one with
// 17 digits.

const (
	// maxNumeral is how many characters a number has that is kept like that. -1e-6
	// with 17 digits has more than all others: 25.
	maxNumeral = 24
	maxShared  = 7
	// numeralBytes are what a number takes at most.
	numeralBytes = 1 + maxNumeral/2
	// numeralRoom is more than what is left of the last number takes, and what is
	// read with it.
	numeralRoom = numeralBytes + 8
)

// A numeral is a number in a text.
type numeral struct{ at, size uint32 }

// numeralSize is how long the number at p of a text is, which has a quote behind it; 0
// if it is no numeral.
func numeralSize(text []byte, p int) int {
	q := p
	if text[q] == '-' {
		q++
	}
	for len(text)-q >= 8 && q-p <= maxNumeral {
		other := outsideNumerals(binary.LittleEndian.Uint64(text[q:]))
		if other == 0 {
			q += 8
			continue
		}
		if q += bits.TrailingZeros64(other) / 8; text[q] != '"' || q-p > maxNumeral {
			return 0
		}
		return q - p
	}
	for q < len(text) && text[q] >= '.' && text[q] <= '9' {
		q++
	}
	if q == len(text) || text[q] != '"' || q-p > maxNumeral {
		return 0
	}
	return q - p
}

// again reports that a number, which has a quote behind it, is at p of its text as
// well. It may report false where it is.
func (x numeral) again(text []byte, p int) bool {
	if x.size == 0 || len(text)-p < maxNumeral+1 {
		return false
	}
	at, size := int(x.at), int(x.size)
	return binary.LittleEndian.Uint64(text[p:]) == binary.LittleEndian.Uint64(text[at:]) &&
		(size < 8 || string(text[p+8:p+size+1]) == string(text[at+8:at+size+1]))
}

// textOfNumeral has the text of a numeral as three words, with zeros behind it.
func textOfNumeral(text []byte, x numeral) (a, b, c uint64) {
	at := text[x.at:]
	if len(at) < maxNumeral {
		var padded [maxNumeral]byte
		copy(padded[:], at)
		at = padded[:]
	}
	a = binary.LittleEndian.Uint64(at)
	if x.size <= 8 {
		return a & firstBytes(x.size), 0, 0
	}
	b = binary.LittleEndian.Uint64(at[8:])
	if x.size <= 16 {
		return a, b & firstBytes(x.size-8), 0
	}
	return a, b, binary.LittleEndian.Uint64(at[16:]) & firstBytes(x.size-16)
}

// firstBytes are the lowest n bytes of a word.
func firstBytes(n uint32) uint64 { return 1<<(8*n) - 1 }

// appendNumerals appends numbers of a text, which have up to maxNumeral characters.
func appendNumerals(dst, text []byte, list []numeral) []byte {
	k := len(dst)
	dst = slices.Grow(dst, len(list)*numeralBytes+numeralRoom)
	out := dst[:cap(dst)]
	var before [3]uint64
	for i, x := range list {
		if i > 0 && x.at == list[i-1].at {
			out[k] = 0
			k++
			continue
		}
		a, b, c := textOfNumeral(text, x)
		if a == before[0] && b == before[1] && c == before[2] {
			out[k] = 0
			k++
			continue
		}
		shared := uint32(bits.TrailingZeros64((a^before[0])|1<<(8*maxShared))) / 8
		before = [3]uint64{a, b, c}
		by, rest := 8*shared, x.size-shared
		out[k] = byte(shared<<5 | rest)
		binary.LittleEndian.PutUint64(out[k+1:], halves(a>>by|b<<(64-by))|halves(b>>by|c<<(64-by))<<32)
		if rest > 16 {
			binary.LittleEndian.PutUint32(out[k+9:], uint32(halves(c>>by)))
		}
		k += 1 + int(rest+1)/2
	}
	return out[:k]
}

// halves has the lower halves of eight bytes in four.
func halves(w uint64) uint64 {
	w &= 0x0f0f0f0f_0f0f0f0f
	w = (w | w>>4) & 0x00ff00ff_00ff00ff
	w = (w | w>>8) & 0x0000ffff_0000ffff
	return (w | w>>16) & 0xffffffff
}

// characters are those that halves took.
func characters(h uint32) uint64 {
	w := uint64(h)
	w = (w | w<<16) & 0x0000ffff_0000ffff
	w = (w | w<<8) & 0x00ff00ff_00ff00ff
	w = (w | w<<4) & 0x0f0f0f0f_0f0f0f0f
	// Digits are 0x30 and more, the others 0x20 and more.
	return (w | 0x30*ones) ^ (w+6*ones)&(0x10*ones)
}

// numeralReader reads what appendNumerals wrote.
type numeralReader struct {
	b    []byte
	size int // of the last number
	last [maxNumeral + 8]byte
}

// next reads a number into last. It reports false if there is none.
func (x *numeralReader) next() bool {
	if len(x.b) == 0 {
		return false
	}
	head := x.b[0]
	if head == 0 {
		x.b = x.b[1:]
		return x.size > 0
	}
	shared, rest := int(head>>5), int(head&31)
	end := 1 + (rest+1)/2
	if end > len(x.b) || shared > x.size || shared+rest > maxNumeral {
		return false
	}
	for i := range rest {
		x.last[shared+i] = byte(characters(uint32(x.b[1+i/2] >> (i % 2 * 4) & 15)))
	}
	x.b, x.size = x.b[end:], shared+rest
	return true
}

// text is the number that was read last.
func (x *numeralReader) text() []byte { return x.last[:x.size] }

// pointRoom is what put wants for a point.
const pointRoom = 64

// put writes the next numbers, each behind its separator, to out[k:], which has
// pointRoom for each. The number before is at out[at:]. It returns how many were
// written, and where the last of them ends: it stops before one that has no
// separator, and before the end of what there is to be read.
func (x *numeralReader) put(out []byte, k, at int, before []separator) (done, end int) {
	b, pos, size := x.b, 0, x.size
	beginning := binary.LittleEndian.Uint64(out[at:])
	for i := range before {
		s := &before[i]
		if len(b)-pos < numeralRoom || s.n == 0 {
			break
		}
		to, n := (*[pointRoom]byte)(out[k:]), int(s.n&31)
		binary.LittleEndian.PutUint64(to[:], s.a)
		binary.LittleEndian.PutUint64(to[8:], s.b)
		binary.LittleEndian.PutUint32(to[16:], s.c)
		if head := b[pos]; head == 0 && size > 0 {
			from := (*[4 * 8]byte)(out[at:])
			binary.LittleEndian.PutUint64(to[n:], binary.LittleEndian.Uint64(from[:]))
			binary.LittleEndian.PutUint64(to[n+8:], binary.LittleEndian.Uint64(from[8:]))
			binary.LittleEndian.PutUint64(to[n+16:], binary.LittleEndian.Uint64(from[16:]))
			binary.LittleEndian.PutUint64(to[n+24:], binary.LittleEndian.Uint64(from[24:]))
			pos++
		} else {
			shared, rest := int(head>>5), int(head&31)
			if shared > size || shared+rest > maxNumeral || head == 0 {
				break
			}
			w := binary.LittleEndian.Uint64(b[pos+1:])
			c := characters(uint32(w))
			binary.LittleEndian.PutUint64(to[n:], beginning)
			binary.LittleEndian.PutUint64(to[n+shared:], c)
			binary.LittleEndian.PutUint64(to[n+shared+8:], characters(uint32(w>>32)))
			if rest > 16 {
				binary.LittleEndian.PutUint64(to[n+shared+16:], characters(binary.LittleEndian.Uint32(b[pos+9:])))
			}
			beginning = beginning&firstBytes(uint32(shared)) | c<<(8*shared&63)
			size = shared + rest
			pos += 1 + (rest+1)/2
		}
		at = k + n
		k, done = at+size, done+1
	}
	x.b, x.size = b[pos:], size
	copy(x.last[:], out[at:at+size])
	return done, k
}
