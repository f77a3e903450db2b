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
	// lastLen is the length of the last value read, see value.
	lastLen int
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

// value writes a bulk of what get appends, without a copy in between. The
// length comes first on the wire and is known last: room is left for as many
// digits as the last value's length had, and the bytes move only when that
// was wrong. If get reports false, value writes nothing and reports false.
func (r *reply) value(get func(dst []byte) ([]byte, bool)) bool {
	at := len(r.b)
	from := r.guess()
	b, ok := get(r.b)
	if !ok {
		r.b = r.b[:at]
		return false
	}
	r.b = b
	r.settle(at, from)
	return true
}

// guess leaves room for "$<length>\r\n" and returns where the value begins.
func (r *reply) guess() int {
	var room [24]byte
	r.b = append(r.b, room[:3+digits(r.lastLen)]...)
	return len(r.b)
}

// settle writes the header at `at` of the value that was appended at `from`,
// and the end of the bulk.
func (r *reply) settle(at, from int) {
	n := len(r.b) - from
	var buf [24]byte
	h := append(buf[:0], '$')
	h = strconv.AppendInt(h, int64(n), 10)
	h = append(h, '\r', '\n')
	if d := at + len(h) - from; d != 0 {
		if d > 0 {
			r.b = append(r.b, buf[:d]...)
		}
		copy(r.b[from+d:], r.b[from:from+n])
		r.b = r.b[:from+d+n]
	}
	copy(r.b[at:], h)
	r.b = append(r.b, '\r', '\n')
	r.lastLen = n
}

func digits(n int) int {
	d := 1
	for n >= 10 {
		n /= 10
		d++
	}
	return d
}

func appendBulk(b, v []byte) []byte { return redcon.AppendBulk(b, v) }
