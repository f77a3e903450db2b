package ingest

import (
	"math"
	"math/big"
	"strconv"

	"mcached/ingest/resp"
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
		c.Fail("ERR decrement would overflow")
	default:
		increment(c, args[1], -n)
	}
}

func increment(c *conn, key []byte, by int64) {
	var sum int64
	var buf [20]byte
	problem := ""
	err := c.updateString(key, func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		v := int64(0)
		problem = ""
		if ok {
			if v, ok = resp.ParseInt(old.Value); !ok {
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
	if !c.unchanged(err, problem) {
		c.Int(sum)
	}
}

// unchanged answers why a value was not changed: an error of the cache, or the
// text of a problem with what is there. It reports whether there is either.
func (c *conn) unchanged(err error, problem string) bool {
	switch {
	case err != nil:
		c.refuse(err)
	case problem != "":
		c.Fail(problem)
	default:
		return false
	}
	return true
}

func incrByFloat(c *conn, args [][]byte) {
	by, ok := resp.ParseLongDouble(args[2])
	if !ok { // the key is looked at first
		if _, ok := c.lengthOf(args[1]); ok {
			c.Fail(errFloat)
		}
		return
	}
	var text []byte
	problem := ""
	err := c.updateString(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		v := new(big.Float).SetPrec(resp.LongDoubleBits)
		problem = ""
		if ok {
			if v, ok = resp.ParseLongDouble(old.Value); !ok {
				problem = errFloat
				return old, kvcache.Keep
			}
		}
		if by.IsInf() || v.IsInf() || resp.TooLarge(v.Add(v, by)) {
			problem = "ERR increment would produce NaN or Infinity"
			return old, kvcache.Keep
		}
		text = appendLongDouble(text[:0], v)
		return kvcache.Entry{Value: text, ExpiresMs: old.ExpiresMs}, kvcache.Store
	})
	if !c.unchanged(err, problem) {
		c.Bulk(text)
	}
}
