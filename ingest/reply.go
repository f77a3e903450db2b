package ingest

import (
	"math"
	"strconv"

	"github.com/tidwall/redcon"
)

// reply collects the answers to a pipeline in the protocol that the client
// chose. What RESP2 has, redcon's appenders write.
type reply struct {
	b     []byte
	resp3 bool
}

func (r *reply) ok()                 { r.b = redcon.AppendOK(r.b) }
func (r *reply) simple(s string)     { r.b = redcon.AppendString(r.b, s) }
func (r *reply) fail(msg string)     { r.b = redcon.AppendError(r.b, msg) }
func (r *reply) bulk(v []byte)       { r.b = redcon.AppendBulk(r.b, v) }
func (r *reply) bulkString(s string) { r.b = redcon.AppendBulkString(r.b, s) }
func (r *reply) integer(n int64)     { r.b = redcon.AppendInt(r.b, n) }
func (r *reply) array(n int)         { r.b = redcon.AppendArray(r.b, n) }
func (r *reply) bulkInt(n int64)     { r.b = redcon.AppendBulkInt(r.b, n) }

// null is an absent value.
func (r *reply) null() {
	if r.resp3 {
		r.b = append(r.b, "_\r\n"...)
	} else {
		r.b = redcon.AppendNull(r.b)
	}
}

// nullArray is an absent array, which only RESP2 tells from an absent value.
func (r *reply) nullArray() {
	if r.resp3 {
		r.b = append(r.b, "_\r\n"...)
	} else {
		r.b = append(r.b, "*-1\r\n"...)
	}
}

// mapOf begins a map of n pairs: in RESP2 an array of twice as many elements.
func (r *reply) mapOf(n int) {
	if r.resp3 {
		r.head('%', n)
	} else {
		r.array(2 * n)
	}
}

// setOf begins a set of n elements: in RESP2 an array.
func (r *reply) setOf(n int) {
	if r.resp3 {
		r.head('~', n)
	} else {
		r.array(n)
	}
}

func (r *reply) head(kind byte, n int) {
	r.b = append(r.b, kind)
	r.b = strconv.AppendInt(r.b, int64(n), 10)
	r.b = append(r.b, "\r\n"...)
}

// double is a number: in RESP2 a bulk string of it.
func (r *reply) double(v float64) {
	if !r.resp3 {
		var buf [32]byte
		r.bulk(appendDouble(buf[:0], v))
		return
	}
	r.b = append(r.b, ',')
	r.b = appendDouble(r.b, v)
	r.b = append(r.b, "\r\n"...)
}

// appendDouble writes v with the fewest digits that mean it, in the
// words that Redis has for what is no number.
func appendDouble(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, "nan"...)
	case math.IsInf(v, 1):
		return append(b, "inf"...)
	case math.IsInf(v, -1):
		return append(b, "-inf"...)
	}
	// As C's %.17g: no exponent where the digits before the point fit.
	if a := math.Abs(v); a == 0 || a >= 1e-5 && a < 1e17 {
		return strconv.AppendFloat(b, v, 'f', -1, 64)
	}
	return strconv.AppendFloat(b, v, 'e', -1, 64)
}

// flag is 1 or 0 in both protocols.
func (r *reply) flag(v bool) {
	if v {
		r.integer(1)
	} else {
		r.integer(0)
	}
}

// text is a longer text for people: in RESP2 a bulk string.
func (r *reply) text(s string) {
	if !r.resp3 {
		r.bulkString(s)
		return
	}
	r.head('=', len(s)+4)
	r.b = append(r.b, "txt:"...)
	r.b = append(r.b, s...)
	r.b = append(r.b, "\r\n"...)
}

func appendBulk(b, v []byte) []byte { return redcon.AppendBulk(b, v) }
