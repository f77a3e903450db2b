package query

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strconv"
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
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return len(strconv.AppendFloat(b[:0], f, format, -1, 64))
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

// A decimal is a number as it is written: an integer of less than maxUnits, in
// units of 10^-decimals. All that appendFloat writes is one, but for exponents,
// infinities, NaN, -0, and whole numbers beyond.
//
//	units (59 bits, signed) | decimals (5)
type decimal int64

const (
	maxUnits    = 1 << 58 // any 17 digits are less
	maxDecimals = 23      // 0.0000012345678901234567 has 22
)

func decimalOf(units int64, decimals int) decimal { return decimal(units<<5 | int64(decimals)) }

func (d decimal) units() int64  { return int64(d) >> 5 }
func (d decimal) decimals() int { return int(d & 31) }

// parseDecimal reads one. It is ok only if put writes it the same: without an
// exponent, and without zeros that say nothing.
func parseDecimal(text []byte) (_ decimal, ok bool) {
	i, negative := 0, len(text) > 0 && text[0] == '-'
	if negative {
		i = 1
	}
	m, first, point := int64(0), i, len(text)
	for ; i < len(text); i++ {
		d := text[i] - '0'
		if d >= 10 {
			if text[i] != '.' || point < len(text) {
				return 0, false
			}
			point = i
			continue
		}
		if m = m*10 + int64(d); m >= maxUnits {
			return 0, false
		}
	}
	if point == first || point > first+1 && text[first] == '0' {
		return 0, false
	}
	decimals := 0
	if point < len(text) {
		if decimals = len(text) - point - 1; decimals == 0 || decimals > maxDecimals || text[len(text)-1] == '0' {
			return 0, false
		}
	}
	if negative {
		if m == 0 {
			return 0, false
		}
		m = -m
	}
	return decimalOf(m, decimals), true
}

// parseDecimalIn is parseDecimal of what stands from one place of a text to another. It
// takes a number of up to sixteen characters as two words that end with it, which are
// its digits once those before the point are moved into its place.
func parseDecimalIn(text []byte, from, to int) (_ decimal, ok bool) {
	n, negative := to-from, text[from] == '-'
	if n > 16 || to < 16 || n < 2 {
		return parseDecimal(text[from:to])
	}
	if negative {
		from, n = from+1, n-1
	}
	high, low := binary.LittleEndian.Uint64(text[to-16:]), binary.LittleEndian.Uint64(text[to-8:])
	if n > 8 {
		high = withZeros(high, 16-n)
	} else {
		high, low = asciiZeros, withZeros(low, 8-n)
	}
	decimals := 0
	if z := zeros(low ^ '.'*ones); z != 0 {
		at := bits.TrailingZeros64(z) &^ 7
		before := uint64(1)<<at - 1
		low = low&^(before<<8|0xff) | low&before<<8 | high>>56
		high = high<<8 | '0'
		decimals, n = 7-at/8, n-1
	} else if z := zeros(high ^ '.'*ones); z != 0 {
		at := bits.TrailingZeros64(z) &^ 7
		before := uint64(1)<<at - 1
		high = high&^(before<<8|0xff) | high&before<<8 | '0'
		decimals, n = 15-at/8, n-1
	}
	first, ok1 := parseEightDigits(high)
	last, ok2 := parseEightDigits(low)
	m := int64(first)*1e8 + int64(last)
	end := text[to-1]
	if !ok1 || !ok2 || end == '.' || decimals > 0 && end == '0' || negative && m == 0 {
		return 0, false
	}
	if whole := n - decimals; whole < 1 || whole > 1 && text[from] == '0' {
		return 0, false
	}
	if negative {
		m = -m
	}
	return decimalOf(m, decimals), true
}

// withZeros has digits in the place of the first n characters: zeros.
func withZeros(word uint64, n int) uint64 {
	first := uint64(1)<<(8*n&63) - 1
	return word&^first | asciiZeros&first
}

// tenTo are the powers of ten that an int64 holds.
var tenTo = [...]int64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}

// mostUnits are those that can be multiplied by them.
var mostUnits = func() (t [len(tenTo)]int64) {
	for i, by := range tenTo {
		t[i] = maxUnits / by
	}
	return t
}()

// with has it in smaller units; not ok if there are too many of them.
func (d decimal) with(decimals int) (_ decimal, ok bool) {
	by := decimals - d.decimals()
	if by == 0 {
		return d, true
	}
	if by >= len(tenTo) {
		return decimalOf(0, decimals), d.units() == 0
	}
	most, m := mostUnits[by], d.units()
	return decimalOf(m*tenTo[by], decimals), -most < m && m < most
}

// put writes it, without zeros at its end. b is as for putFloat.
func (d decimal) put(b []byte) int {
	m, decimals := d.units(), d.decimals()
	n, u := 0, uint64(m)
	if m < 0 {
		b[0] = '-'
		n, u = 1, -u
	}
	if decimals <= 3 && u < maxMillis {
		if millis := u * uint64(tenTo[3-decimals]); millis < maxMillis {
			return n + putMillis(b[n:], millis)
		}
	}
	if decimals >= len(tenTo) { // it is less than one
		if u == 0 {
			return putUint(b[n:], 0)
		}
		b[n], b[n+1] = '0', '.'
		var digits [numberBytes]byte
		size := putUint(digits[:], u)
		first := n + 2 + decimals - size
		for i := n + 2; i < first; i++ {
			b[i] = '0'
		}
		return withoutZeros(b, first+copy(b[first:], digits[:size]))
	}
	scale := uint64(tenTo[decimals])
	whole := u / scale
	n += putUint(b[n:], whole)
	rest := u - whole*scale
	if rest == 0 {
		return n
	}
	// As many digits as there are decimals are the last of a number with a one
	// before them, of which the point takes the place.
	end := n
	if decimals < 8 {
		end += putUint(b[n:], scale+rest)
	} else {
		high := rest / 1e8
		end += putUint(b[n:], scale/1e8+high)
		binary.LittleEndian.PutUint64(b[end:], eightDigits(uint32(rest-high*1e8))|asciiZeros)
		end += 8
	}
	b[n] = '.'
	return withoutZeros(b, end)
}

// withoutZeros is where b[:end] ends without the zeros at its end.
func withoutZeros(b []byte, end int) int {
	for b[end-1] == '0' {
		end--
	}
	return end
}
