package resp

import (
	"math"
	"strconv"

	"github.com/tidwall/redcon"
)

// Reply collects the answers to a pipeline in the protocol that the client
// chose. What RESP2 has, redcon's appenders write.
type Reply struct {
	B  []byte // the answers, which the methods append to
	V3 bool   // the client chose RESP3
}

func (r *Reply) OK()                 { r.B = redcon.AppendOK(r.B) }
func (r *Reply) Simple(s string)     { r.B = redcon.AppendString(r.B, s) }
func (r *Reply) Fail(msg string)     { r.B = redcon.AppendError(r.B, msg) }
func (r *Reply) Bulk(v []byte)       { r.B = redcon.AppendBulk(r.B, v) }
func (r *Reply) BulkString(s string) { r.B = redcon.AppendBulkString(r.B, s) }
func (r *Reply) Int(n int64)         { r.B = redcon.AppendInt(r.B, n) }
func (r *Reply) Array(n int)         { r.B = redcon.AppendArray(r.B, n) }
func (r *Reply) BulkInt(n int64)     { r.B = redcon.AppendBulkInt(r.B, n) }

// BulkHead begins a bulk of n bytes, which the caller appends, with CRLF behind.
func (r *Reply) BulkHead(n int) { r.head('$', n) }

// Null is an absent value.
func (r *Reply) Null() {
	if r.V3 {
		r.B = append(r.B, "_\r\n"...)
	} else {
		r.B = redcon.AppendNull(r.B)
	}
}

// NullArray is an absent array, which only RESP2 tells from an absent value.
func (r *Reply) NullArray() {
	if r.V3 {
		r.B = append(r.B, "_\r\n"...)
	} else {
		r.B = append(r.B, "*-1\r\n"...)
	}
}

// MapOf begins a map of n pairs: in RESP2 an array of twice as many elements.
func (r *Reply) MapOf(n int) {
	if r.V3 {
		r.head('%', n)
	} else {
		r.Array(2 * n)
	}
}

// SetOf begins a set of n elements: in RESP2 an array.
func (r *Reply) SetOf(n int) {
	if r.V3 {
		r.head('~', n)
	} else {
		r.Array(n)
	}
}

func (r *Reply) head(kind byte, n int) {
	r.B = append(r.B, kind)
	r.B = strconv.AppendInt(r.B, int64(n), 10)
	r.B = append(r.B, "\r\n"...)
}

// Double is a number: in RESP2 a bulk string of it.
func (r *Reply) Double(v float64) {
	if !r.V3 {
		var buf [32]byte
		r.Bulk(AppendDouble(buf[:0], v))
		return
	}
	r.B = append(r.B, ',')
	r.B = AppendDouble(r.B, v)
	r.B = append(r.B, "\r\n"...)
}

// AppendDouble writes v with the fewest digits that mean it, in the
// words that Redis has for what is no number.
func AppendDouble(b []byte, v float64) []byte {
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

// Flag is 1 or 0 in both protocols.
func (r *Reply) Flag(v bool) {
	if v {
		r.Int(1)
	} else {
		r.Int(0)
	}
}

// Bool is true or false: in RESP2 1 or 0.
func (r *Reply) Bool(v bool) {
	switch {
	case !r.V3:
		r.Flag(v)
	case v:
		r.B = append(r.B, "#t\r\n"...)
	default:
		r.B = append(r.B, "#f\r\n"...)
	}
}

// BigNumber is an integer of any size: in RESP2 a bulk string of it.
func (r *Reply) BigNumber(s string) {
	if !r.V3 {
		r.BulkString(s)
		return
	}
	r.B = append(append(append(r.B, '('), s...), "\r\n"...)
}

// Verbatim is a text of a format, three letters: in RESP2 a bulk string.
func (r *Reply) Verbatim(format, s string) {
	if !r.V3 {
		r.BulkString(s)
		return
	}
	r.head('=', len(s)+4)
	r.B = append(append(append(append(r.B, format...), ':'), s...), "\r\n"...)
}

// Text is a longer text for people: in RESP2 a bulk string.
func (r *Reply) Text(s string) {
	if !r.V3 {
		r.BulkString(s)
		return
	}
	r.Verbatim("txt", s)
}

// AppendBulk appends v to b as a bulk.
func AppendBulk(b, v []byte) []byte { return redcon.AppendBulk(b, v) }
