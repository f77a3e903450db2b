package query

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"strconv"
)

// The shortest decimal that reads back as a float, and of those the closest, as
// strconv finds it, too. Rates and averages have 16 or 17 digits. Of what strconv
// takes for one most is writing them, one by one; here eight are written at
// once. The digits are found by Schubfach (R. Giulietti, "The Schubfach way to render
// doubles", 2020), in which the names below are explained.
//
// Only what is written without an exponent is done here, so that thirty powers of
// ten suffice. All else is rare, and strconv's.
const (
	minPlain, maxPlain = 1e-6, 1e21 // abs(f) from, and to below

	fractionBits = 52
	exponentBias = 1023 + fractionBits

	minPower, maxPower = -5, 22 // of ten, that such floats need
)

// putShortest is putFloat for any float.
func putShortest(b []byte, f float64) int {
	abs := math.Abs(f)
	if !(minPlain <= abs && abs < maxPlain) { // or no number
		format := byte('e')
		if abs == 0 {
			format = 'f'
		}
		return len(strconv.AppendFloat(b[:0], f, format, -1, 64))
	}
	n := 0
	if f < 0 {
		b[0], n = '-', 1
	}
	digits, exponent := shortest(math.Float64bits(abs))
	if digits < 1e15 { // 15 are the fewest
		digits, exponent = digits*10, exponent-1
	}
	count := 16
	if digits >= 1e16 {
		count = 17
	}
	switch whole := exponent + count; { // how many stand before the point
	case whole <= 0:
		binary.LittleEndian.PutUint64(b[n:], asciiZeros^('0'^'.')<<8)
		n += len("0.") - whole
		return n + putDigits(b[n:], digits, 1)
	case whole < count:
		count = putDigits(b[n+1:], digits, whole)
		for i := range whole {
			b[n+i] = b[n+1+i]
		}
		if b[n+whole] = '.'; count > whole {
			count++
		}
		return n + count
	default:
		count = putDigits(b[n:], digits, count)
		for i := count; i < whole; i++ {
			b[n+i] = '0'
		}
		return n + whole
	}
}

// putDigits writes 16 or 17 digits and returns how many there are without the zeros
// at their end, but at least so many.
func putDigits(b []byte, digits uint64, least int) int {
	n := 16
	if digits >= 1e16 {
		first := digits / 1e16
		b[0] = '0' + byte(first)
		digits -= first * 1e16
		b, n = b[1:], 17
	}
	high := digits / 1e8
	left, right := eightDigits(uint32(high)), eightDigits(uint32(digits-high*1e8))
	binary.LittleEndian.PutUint64(b, left|asciiZeros)
	binary.LittleEndian.PutUint64(b[8:], right|asciiZeros)
	zeros := bits.LeadingZeros64(right) / 8
	if right == 0 {
		zeros += bits.LeadingZeros64(left) / 8
	}
	return max(n-zeros, least)
}

// shortest returns digits times ten to the exponent, the shortest decimal that
// reads back as the float of these bits, which is from minPlain to maxPlain. It
// may end with zeros.
func shortest(float uint64) (digits uint64, exponent int) {
	fraction := float & (1<<fractionBits - 1)
	c := fraction | 1<<fractionBits
	q := int(float>>fractionBits) - exponentBias
	// Where a power of two is, the floats below are twice as close as those above.
	closer := uint64(0)
	k := (q * 1262611) >> 22 // of 2^q the decimal logarithm, rounded down
	if fraction == 0 {
		closer = 1
		k = (q*1262611 - 524031) >> 22 // of 3/4 of that
	}
	h := q + log2OfPower(-k) + 1
	power := &powersOfTen[-k-minPower]
	// In quarters of the last digit: the float, and what reads back as it.
	vb := power.times(4 * c << h)
	lower := power.times((4*c-2+closer)<<h) + c&1
	upper := power.times((4*c+2)<<h) - c&1
	s := vb / 4
	shorter := s / 10
	switch under, over := lower <= 40*shorter, 40*shorter+40 <= upper; {
	case under && !over:
		return shorter, k + 1
	case over && !under:
		return shorter + 1, k + 1
	}
	switch under, over := lower <= 4*s, 4*s+4 <= upper; {
	case under && !over:
		return s, k
	case over && !under:
		return s + 1, k
	}
	if half := 4*s + 2; vb > half || vb == half && s&1 == 1 {
		s++
	}
	return s, k
}

// log2OfPower is the binary logarithm of ten to the e, rounded down.
func log2OfPower(e int) int { return (e * 1741647) >> 19 }

// power is one of ten, with a binary exponent of its own so that it has 128 bits,
// rounded up.
type power struct{ high, low uint64 }

// times is the product with x by 2^-128, rounded to odd: what has a fraction ends
// with a one.
func (p *power) times(x uint64) uint64 {
	carry, _ := bits.Mul64(p.low, x)
	high, low := bits.Mul64(p.high, x)
	low, over := bits.Add64(low, carry, 0)
	high += over
	if low > 1 {
		high |= 1
	}
	return high
}

var powersOfTen = func() (t [maxPower - minPower + 1]power) {
	toThe := func(e int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(e, 0))), nil) }
	for i := range t {
		e := minPower + i
		divisor := toThe(-e)
		p := new(big.Int).Lsh(toThe(e), uint(127-log2OfPower(e)))
		p.Add(p, divisor).Sub(p, big.NewInt(1)).Quo(p, divisor)
		bytes := p.FillBytes(make([]byte, 16))
		t[i] = power{binary.BigEndian.Uint64(bytes), binary.BigEndian.Uint64(bytes[8:])}
	}
	return t
}()
