package query

import (
	"math"
	"strconv"
)

// maxExactDigits bounds numbers of up to 15 digits. Every decimal of so many
// digits has a float64 of its own, so if one reads back as the value it is the
// shortest that does, and strconv would write the same.
const maxExactDigits = 1e15

// appendFloat appends f as Prometheus writes a sample's value, without quotes:
// the shortest decimal that reads back as f, with an exponent only below 1e-6
// and from 1e21.
//
// Most values are whole or have up to three decimals. Writing those as integers
// takes a quarter of the time of the general algorithm.
func appendFloat(b []byte, f float64) []byte {
	if i := int64(f); float64(i) == f && -maxExactDigits < i && i < maxExactDigits && (i != 0 || !math.Signbit(f)) {
		return appendInt(b, i)
	}
	if m := math.Round(f * 1000); m/1000 == f && -maxExactDigits < m && m < maxExactDigits && m != 0 {
		return appendMilli(b, int64(m))
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}

// appendTime appends a time in ms as seconds, as Prometheus writes it.
func appendTime(b []byte, ms int64) []byte {
	if ms%1000 != 0 {
		// Unlike values, fractions of times keep their trailing zeros.
		b, n := appendSeconds(b, ms)
		return append(b, '.', '0'+byte(n/100), '0'+byte(n/10%10), '0'+byte(n%10))
	}
	b, _ = appendSeconds(b, ms)
	return b
}

// appendMilli appends m thousandths, without trailing zeros.
func appendMilli(b []byte, m int64) []byte {
	b, n := appendSeconds(b, m)
	if n == 0 {
		return b
	}
	b = append(b, '.', '0'+byte(n/100))
	if n%100 != 0 {
		b = append(b, '0'+byte(n/10%10))
		if n%10 != 0 {
			b = append(b, '0'+byte(n%10))
		}
	}
	return b
}

// appendSeconds appends the sign and the whole part of m thousandths and
// returns the thousandths that are left.
func appendSeconds(b []byte, m int64) ([]byte, uint64) {
	u := uint64(m)
	if m < 0 {
		b = append(b, '-')
		u = -u
	}
	return appendUint(b, u/1000), u % 1000
}

func appendInt(b []byte, i int64) []byte {
	u := uint64(i)
	if i < 0 {
		b = append(b, '-')
		u = -u
	}
	return appendUint(b, u)
}

const twoDigits = "00010203040506070809" +
	"10111213141516171819" +
	"20212223242526272829" +
	"30313233343536373839" +
	"40414243444546474849" +
	"50515253545556575859" +
	"60616263646566676869" +
	"70717273747576777879" +
	"80818283848586878889" +
	"90919293949596979899"

func appendUint(b []byte, u uint64) []byte {
	if u < 10 {
		return append(b, '0'+byte(u))
	}
	var text [20]byte
	at := len(text)
	for u >= 100 {
		two := u % 100 * 2
		u /= 100
		at -= 2
		text[at], text[at+1] = twoDigits[two], twoDigits[two+1]
	}
	if u >= 10 {
		at -= 2
		text[at], text[at+1] = twoDigits[u*2], twoDigits[u*2+1]
	} else {
		at--
		text[at] = '0' + byte(u)
	}
	return append(b, text[at:]...)
}
