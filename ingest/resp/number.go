package resp

import (
	"bytes"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// ParseInt reads a decimal integer as Redis does: no sign but a minus, no
// leading zeros, no spaces, within 64 bits.
func ParseInt(b []byte) (int64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	neg := b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 || b[0] == '0' && (neg || len(b) > 1) {
		return 0, false
	}
	var v uint64 // 19 digits fit
	for _, c := range b {
		d := c - '0'
		if d > 9 {
			return 0, false
		}
		v = v*10 + uint64(d)
	}
	if neg {
		return -int64(v), v <= 1<<63
	}
	return int64(v), v <= math.MaxInt64
}

// ParseFloat reads a number as strtod does within Redis' limits: no spaces, no NaN.
func ParseFloat(b []byte) (float64, bool) {
	if len(b) == 0 || len(b) > maxLongDoubleText || strings.ContainsRune(string(b), '_') {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil && v == v
}

// Redis adds in the 80-bit numbers of x86 and writes 17 digits behind the
// point, which is why 0.1 and 0.2 make 0.3 there.
const (
	LongDoubleBits   = 64 // of precision
	longDoubleMaxExp = 16384
	longDoubleMinExp = -16444 // of the smallest, which is subnormal
	// maxLongDoubleText is Redis' own bound: the largest number has 4,933 digits.
	maxLongDoubleText = 5*1024 - 1
)

// TooLarge reports whether a sum is beyond what such a number can be.
func TooLarge(v *big.Float) bool { return v.IsInf() || v.MantExp(nil) > longDoubleMaxExp }

// ParseLongDouble reads a number as strtold does, infinity included, NaN not.
func ParseLongDouble(b []byte) (*big.Float, bool) {
	if len(b) == 0 || len(b) > maxLongDoubleText || bytes.ContainsRune(b, '_') {
		return nil, false
	}
	text := strings.ToLower(string(b))
	if s := strings.TrimLeft(text, "+-"); s == "inf" || s == "infinity" {
		return new(big.Float).SetInf(text[0] == '-'), len(text)-len(s) < 2
	}
	// Exponents of more digits than any number has would only cost time.
	if _, exp, ok := strings.Cut(text, "e"); ok && len(exp) > 6 {
		return nil, false
	}
	v, _, err := big.ParseFloat(text, 10, LongDoubleBits, big.ToNearestEven)
	if err != nil || TooLarge(v) || v.Sign() != 0 && v.MantExp(nil) < longDoubleMinExp {
		return nil, false
	}
	return v, true
}
