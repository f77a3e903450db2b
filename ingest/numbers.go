package ingest

import (
	"bytes"
	"math"
	"math/big"
	"strconv"
	"strings"

	"mcached/kvcache"
)

func incrBy(c *conn, args [][]byte) {
	if n, ok := c.integerArg(args[2]); ok {
		increment(c, args[1], n)
	}
}

func decrBy(c *conn, args [][]byte) {
	switch n, ok := c.integerArg(args[2]); {
	case !ok:
	case n == math.MinInt64:
		c.fail("ERR decrement would overflow")
	default:
		increment(c, args[1], -n)
	}
}

func increment(c *conn, key []byte, by int64) {
	var sum int64
	var buf [20]byte
	problem := ""
	err := c.srv.o.Blobs.Update(key, func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		v := int64(0)
		problem = ""
		if ok {
			if v, ok = parseInt(old.Value); !ok {
				problem = errInteger
				return old, kvcache.Keep
			}
		}
		if by > 0 && v > math.MaxInt64-by || by < 0 && v < math.MinInt64-by {
			problem = "ERR increment or decrement would overflow"
			return old, kvcache.Keep
		}
		sum = v + by
		return kvcache.Entry{Value: strconv.AppendInt(buf[:0], sum, 10), ExpiresMs: old.ExpiresMs}, kvcache.Store
	})
	switch {
	case err != nil:
		c.refuse(err)
	case problem != "":
		c.fail(problem)
	default:
		c.integer(sum)
	}
}

func incrByFloat(c *conn, args [][]byte) {
	by, ok := parseLongDouble(args[2])
	if !ok {
		c.fail(errFloat)
		return
	}
	var text []byte
	problem := ""
	err := c.srv.o.Blobs.Update(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		v := new(big.Float).SetPrec(longDoubleBits)
		problem = ""
		if ok {
			if v, ok = parseLongDouble(old.Value); !ok {
				problem = errFloat
				return old, kvcache.Keep
			}
		}
		if by.IsInf() || v.IsInf() || tooLarge(v.Add(v, by)) {
			problem = "ERR increment would produce NaN or Infinity"
			return old, kvcache.Keep
		}
		text = v.Append(text[:0], 'f', 17)
		text = bytes.TrimSuffix(bytes.TrimRight(text, "0"), []byte("."))
		if string(text) == "-0" {
			text = text[1:]
		}
		return kvcache.Entry{Value: text, ExpiresMs: old.ExpiresMs}, kvcache.Store
	})
	switch {
	case err != nil:
		c.refuse(err)
	case problem != "":
		c.fail(problem)
	default:
		c.bulk(text)
	}
}

// Redis adds in the 80-bit numbers of x86 and writes 17 digits behind the
// point, which is why 0.1 and 0.2 make 0.3 there.
const (
	longDoubleBits   = 64
	longDoubleMaxExp = 16384
	longDoubleMinExp = -16444 // of the smallest, which is subnormal
	// maxLongDoubleText is Redis' own bound: the largest number has 4,933 digits.
	maxLongDoubleText = 5*1024 - 1
)

func tooLarge(v *big.Float) bool { return v.IsInf() || v.MantExp(nil) > longDoubleMaxExp }

// parseLongDouble reads a number as strtold does, infinity included, NaN not.
func parseLongDouble(b []byte) (*big.Float, bool) {
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
	v, _, err := big.ParseFloat(text, 10, longDoubleBits, big.ToNearestEven)
	if err != nil || tooLarge(v) || v.Sign() != 0 && v.MantExp(nil) < longDoubleMinExp {
		return nil, false
	}
	return v, true
}
