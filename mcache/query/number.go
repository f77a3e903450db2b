package query

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// maxExactDigits bounds numbers of up to 15 digits. Every decimal of so many
// digits has a float64 of its own, so if one reads back as the value it is the
// shortest that does, and strconv would write the same.
const maxExactDigits = 1e15

// numberBytes is the room that put functions want: more than the longest
// float, 0.0000012345678901234567 with a sign, and than the longest time.
const numberBytes = 32

// appendFloat appends f as Prometheus writes a sample's value, without quotes:
// the shortest decimal that reads back as f, with an exponent only below 1e-6
// and from 1e21.
func appendFloat(b []byte, f float64) []byte {
	n := len(b)
	b = slices.Grow(b, numberBytes)
	return b[:n+putFloat(b[n:n+numberBytes], f)]
}

// putFloat writes f as appendFloat does to the beginning of b and returns how
// long it is. b must have numberBytes, of which those behind may change, too.
//
// Most values are whole or have up to three decimals. Writing those as integers
// takes a fifth of the time of the general algorithm.
func putFloat(b []byte, f float64) int {
	if i := int64(f); float64(i) == f && -maxExactDigits < i && i < maxExactDigits && (i != 0 || !math.Signbit(f)) {
		return putInt(b, i)
	}
	// Half away from zero is only a guess at the decimal: what counts is that
	// it reads back as f.
	if m := int64(f*1000 + math.Copysign(0.5, f)); float64(m)/1000 == f && -maxExactDigits < m && m < maxExactDigits && m != 0 {
		return putMilli(b, m)
	}
	return putShortest(b, f)
}

// appendTime appends a time in ms as seconds, as Prometheus writes it.
func appendTime(b []byte, ms int64) []byte {
	n := len(b)
	b = slices.Grow(b, numberBytes)
	return b[:n+putTime(b[n:n+numberBytes], ms)]
}

// putTime is to appendTime what putFloat is to appendFloat. Unlike values,
// fractions of times keep their trailing zeros.
func putTime(b []byte, ms int64) int {
	n, rest := putSeconds(b, ms)
	if rest != 0 {
		putThousandths(b[n:], rest)
		n += 4
	}
	return n
}

// putMilli writes m thousandths, without trailing zeros.
func putMilli(b []byte, m int64) int {
	n, u := 0, uint64(m)
	if m < 0 {
		b[0] = '-'
		n, u = 1, -u
	}
	if u < maxMillis {
		return n + putMillis(b[n:], u)
	}
	whole := u / 1000
	n += putUint(b[n:], whole)
	return n + putFraction(b[n:], u-whole*1000)
}

// maxMillis are thousandths of what eightDigits takes.
const maxMillis = 1e11

// putMillis is putMilli of fewer than maxMillis.
func putMillis(b []byte, u uint64) int {
	whole := u / 1000
	digits := eightDigits(uint32(whole))
	zeros := min(bits.TrailingZeros64(digits)/8, 7) // one digit before the point
	binary.LittleEndian.PutUint64(b, (digits|asciiZeros)>>(zeros*8&63))
	return 8 - zeros + putFraction(b[8-zeros:], u-whole*1000)
}

// putFraction writes a point and up to three digits of thousandths, or nothing.
// It may change four bytes.
func putFraction(b []byte, u uint64) int {
	f := fractions[u]
	binary.LittleEndian.PutUint32(b, uint32(f))
	return int(f >> 32)
}

// fractions are those of thousandths: their text, with the point, and how long it is.
var fractions = func() (t [1000]uint64) {
	for i := range t {
		var b [4]byte
		putThousandths(b[:], uint64(i))
		n := withoutZeros(b[:], 4)
		if b[n-1] == '.' {
			n = 0
		}
		t[i] = uint64(binary.LittleEndian.Uint32(b[:])) | uint64(n)<<32
	}
	return t
}()

// putSeconds writes the sign and the whole part of m thousandths and returns
// the thousandths that are left.
func putSeconds(b []byte, m int64) (n int, rest uint64) {
	u := uint64(m)
	if m < 0 {
		b[0] = '-'
		u, n = -u, 1
	}
	whole := u / 1000
	return n + putUint(b[n:], whole), u - whole*1000
}

// putThousandths writes a point and three digits.
func putThousandths(b []byte, u uint64) {
	hundreds, tens := u/100, u/10
	binary.LittleEndian.PutUint32(b, '.'|uint32('0'+hundreds)<<8|uint32('0'+tens-hundreds*10)<<16|uint32('0'+u-tens*10)<<24)
}

func putInt(b []byte, i int64) int {
	if i < 0 {
		b[0] = '-'
		return 1 + putUint(b[1:], -uint64(i))
	}
	return putUint(b, uint64(i))
}

func putUint(b []byte, u uint64) int {
	switch {
	case u < 10:
		b[0] = '0' + byte(u)
		return 1
	case u < 1e8:
		// Leading zeros are the low bytes: the first digit stands first.
		digits := eightDigits(uint32(u))
		zeros := bits.TrailingZeros64(digits) &^ 7
		binary.LittleEndian.PutUint64(b, (digits|asciiZeros)>>(zeros&63))
		return 8 - zeros/8
	default:
		high := u / 1e8
		n := putUint(b, high)
		binary.LittleEndian.PutUint64(b[n:], eightDigits(uint32(u-high*1e8))|asciiZeros)
		return n + 8
	}
}

const asciiZeros = 0x3030303030303030

// eightDigits takes a number below 1e8 apart: a byte of the result is a digit,
// the first one lowest. Each step divides all parts of a number at once, by
// multiplication with the quotient's inverse, which is exact in these ranges.
func eightDigits(u uint32) uint64 {
	// Four digits and four.
	high := u / 10_000
	x := uint64(high) | uint64(u-high*10_000)<<32
	// Into pairs: 10,486 / 2^20 is a hundredth.
	q := x * 10_486 >> 20 & 0x7f_0000_007f
	x = q | (x-q*100)<<16
	// Into digits: 103 / 2^10 is a tenth.
	q = x * 103 >> 10 & 0xf_000f_000f_000f
	return q | (x-q*10)<<8
}

// parseEightDigits is the number that eight characters write, the first of which
// is in the lowest byte; not ok if they are not all digits. Digits are put
// together into pairs, and those into the number, by two multiplications at once:
// Daniel Lemire, "Quickly parsing eight digits".
func parseEightDigits(text uint64) (v uint32, ok bool) {
	d := text - asciiZeros
	if (d|(d+0x7676767676767676))&0x8080808080808080 != 0 {
		return 0, false
	}
	d = d*10 + d>>8 // each even byte is a pair
	const pair = 0x000000ff_000000ff
	d = (d&pair)*(100+1_000_000<<32) + (d>>16&pair)*(1+10_000<<32)
	return uint32(d >> 32), true
}

// withoutZeros is where b[:end] ends without the zeros at its end.
func withoutZeros(b []byte, end int) int {
	for b[end-1] == '0' {
		end--
	}
	return end
}
