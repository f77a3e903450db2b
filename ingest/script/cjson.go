package script

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// jsonOptions are what a script can set of cjson; each begins with the defaults.
type jsonOptions struct {
	encodeDepth, decodeDepth, precision int
	sparseConvert                       bool
	sparseRatio, sparseSafe             int
	encodeInvalid, encodeInvalidNull    bool
	decodeInvalid, keepBuffer           bool
}

// maxJSONDepth bounds what a script may set, as it is done by recursion.
const maxJSONDepth = 10_000

func defaultJSON() jsonOptions {
	return jsonOptions{encodeDepth: 1000, decodeDepth: 1000, precision: 14, sparseRatio: 2, sparseSafe: 10, decodeInvalid: true, keepBuffer: true}
}

// jsonNull is cjson.null.
type jsonNull struct{}

func (s *state) jsonLibrary() *lua.LTable {
	l := s.l
	t := l.NewTable()
	null := l.NewUserData()
	null.Value = jsonNull{}
	number := func(name string, field func() *int, most int) {
		t.RawSetString(name, l.NewFunction(func(l *lua.LState) int {
			if l.GetTop() > 0 {
				n := integer(l, 1)
				if n < 1 || n > most {
					l.ArgError(1, fmt.Sprintf("expected integer between 1 and %d", most))
				}
				*field() = n
			}
			l.Push(lua.LNumber(*field()))
			return 1
		}))
	}
	flag := func(name string, field func() *bool) {
		t.RawSetString(name, l.NewFunction(func(l *lua.LState) int {
			if l.GetTop() > 0 {
				*field() = lua.LVAsBool(l.Get(1))
			}
			l.Push(lua.LBool(*field()))
			return 1
		}))
	}
	number("encode_max_depth", func() *int { return &s.json.encodeDepth }, maxJSONDepth)
	number("decode_max_depth", func() *int { return &s.json.decodeDepth }, maxJSONDepth)
	number("encode_number_precision", func() *int { return &s.json.precision }, 14)
	flag("decode_invalid_numbers", func() *bool { return &s.json.decodeInvalid })
	flag("encode_keep_buffer", func() *bool { return &s.json.keepBuffer })
	t.RawSetString("encode_invalid_numbers", l.NewFunction(func(l *lua.LState) int {
		if v := l.Get(1); v != lua.LNil {
			s.json.encodeInvalidNull = v.String() == "null"
			s.json.encodeInvalid = v == lua.LTrue || s.json.encodeInvalidNull
		}
		if s.json.encodeInvalidNull {
			l.Push(lua.LString("null"))
		} else {
			l.Push(lua.LBool(s.json.encodeInvalid))
		}
		return 1
	}))
	t.RawSetString("encode_sparse_array", l.NewFunction(func(l *lua.LState) int {
		if l.Get(1) != lua.LNil {
			s.json.sparseConvert = lua.LVAsBool(l.Get(1))
		}
		s.json.sparseRatio, s.json.sparseSafe = s.optInt(l, 2, s.json.sparseRatio), s.optInt(l, 3, s.json.sparseSafe)
		l.Push(lua.LBool(s.json.sparseConvert))
		l.Push(lua.LNumber(s.json.sparseRatio))
		l.Push(lua.LNumber(s.json.sparseSafe))
		return 3
	}))
	t.RawSetString("encode", l.NewFunction(func(l *lua.LState) int {
		oneArgument(l)
		e := jsonEncoder{s: s, l: l}
		e.value(l.CheckAny(1), 0)
		return push(l, e.b)
	}))
	t.RawSetString("decode", l.NewFunction(func(l *lua.LState) int {
		oneArgument(l)
		d := jsonDecoder{s: s, l: l, text: s.str(l, 1), null: null}
		s.budget.take(l, len(d.text)/16)
		l.Push(d.whole())
		return 1
	}))
	t.RawSetString("new", l.NewFunction(func(l *lua.LState) int { l.Push(s.real.RawGetString("cjson")); return 1 }))
	t.RawSetString("null", null)
	t.RawSetString("_NAME", lua.LString("cjson"))
	t.RawSetString("_VERSION", lua.LString("2.1.0"))
	return t
}

func oneArgument(l *lua.LState) {
	if l.GetTop() != 1 {
		l.ArgError(1, "expected 1 argument")
	}
}

type jsonEncoder struct {
	s *state
	l *lua.LState
	b []byte
}

func (e *jsonEncoder) refuse(what, why string) {
	e.l.RaiseError("Cannot serialise %s: %s", what, why)
}

// room counts n bytes that are about to be appended, which may double the buffer.
func (e *jsonEncoder) room(n int) {
	e.s.budget.take(e.l, 1+n/16)
	e.s.budget.grow(e.l, 2*n)
}

func (e *jsonEncoder) value(v lua.LValue, depth int) {
	switch v := v.(type) {
	case lua.LString:
		e.text(string(v))
	case lua.LNumber:
		e.number(float64(v))
	case lua.LBool:
		e.b = strconv.AppendBool(e.b, bool(v))
	case *lua.LTable:
		if depth++; depth > e.s.json.encodeDepth {
			e.l.RaiseError("Cannot serialise, excessive nesting (%d)", depth)
		}
		if t := e.s.protected[v]; t != nil {
			v = t
		}
		e.table(v, depth)
	default:
		if u, ok := v.(*lua.LUserData); ok && u.Value == (jsonNull{}) || v == lua.LNil {
			e.b = append(e.b, "null"...)
		} else {
			e.refuse(v.Type().String(), "type not supported")
		}
	}
}

func (e *jsonEncoder) number(f float64) {
	e.room(24)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		switch {
		case e.s.json.encodeInvalidNull:
			e.b = append(e.b, "null"...)
			return
		case !e.s.json.encodeInvalid:
			e.refuse("number", "must not be NaN or Inf")
		}
	}
	e.b = append(e.b, formatNumber(f, e.s.json.precision)...)
}

func (e *jsonEncoder) text(v string) {
	e.room(len(v) + 2)
	e.b = append(e.b, '"')
	for i := range len(v) {
		switch c := v[i]; c {
		case '"', '\\', '/':
			e.b = append(e.b, '\\', c)
		case '\b':
			e.b = append(e.b, `\b`...)
		case '\f':
			e.b = append(e.b, `\f`...)
		case '\n':
			e.b = append(e.b, `\n`...)
		case '\r':
			e.b = append(e.b, `\r`...)
		case '\t':
			e.b = append(e.b, `\t`...)
		default:
			if c < 32 || c == 127 {
				e.b = fmt.Appendf(e.b, `\u%04x`, c)
			} else {
				e.b = append(e.b, c)
			}
		}
	}
	e.b = append(e.b, '"')
}

// length is that of a table which is a list, or -1 for another. One that has far
// more places than elements is an error, or an object if so set.
func (e *jsonEncoder) length(t *lua.LTable) int {
	most, items := 0, 0
	for k, _ := t.Next(lua.LNil); k != lua.LNil; k, _ = t.Next(k) {
		e.s.budget.take(e.l, 1)
		n, ok := k.(lua.LNumber)
		if !ok || n < 1 || n != lua.LNumber(math.Floor(float64(n))) || n > math.MaxInt32 {
			return -1
		}
		most, items = max(most, int(n)), items+1
	}
	o := &e.s.json
	if o.sparseRatio > 0 && most > items*o.sparseRatio && most > o.sparseSafe {
		if !o.sparseConvert {
			e.refuse("table", "excessively sparse array")
		}
		return -1
	}
	return most
}

func (e *jsonEncoder) table(t *lua.LTable, depth int) {
	if n := e.length(t); n > 0 {
		e.b = append(e.b, '[')
		for i := 1; i <= n; i++ {
			if i > 1 {
				e.b = append(e.b, ',')
			}
			e.room(5)
			e.value(t.RawGetInt(i), depth)
		}
		e.b = append(e.b, ']')
		return
	}
	e.b = append(e.b, '{')
	first := true
	for k, v := t.Next(lua.LNil); k != lua.LNil; k, v = t.Next(k) {
		if !first {
			e.b = append(e.b, ',')
		}
		first = false
		switch k := k.(type) {
		case lua.LString:
			e.text(string(k))
		case lua.LNumber:
			e.b = append(e.b, '"')
			e.number(float64(k))
			e.b = append(e.b, '"')
		default:
			e.refuse(k.Type().String(), "table key must be a number or string")
		}
		e.b = append(e.b, ':')
		e.value(v, depth)
	}
	e.b = append(e.b, '}')
}

type jsonDecoder struct {
	s    *state
	l    *lua.LState
	text string
	at   int
	null *lua.LUserData

	// The token that was read.
	kind  string
	start int
	value lua.LValue
}

func (d *jsonDecoder) expected(what string) {
	d.l.RaiseError("Expected %s but found %s at character %d", what, d.kind, d.start+1)
}

func (d *jsonDecoder) whole() lua.LValue {
	if len(d.text) >= 2 && (d.text[0] == 0 || d.text[1] == 0) {
		d.l.RaiseError("JSON parser does not support UTF-16 or UTF-32")
	}
	d.token()
	v := d.parse(0)
	if d.token(); d.kind != "T_END" {
		d.expected("the end")
	}
	return v
}

// parse is the value that begins with the token read.
func (d *jsonDecoder) parse(depth int) lua.LValue {
	d.s.budget.take(d.l, 1)
	switch d.kind {
	case "T_STRING", "T_NUMBER", "T_BOOLEAN", "T_NULL":
		return d.value
	case "T_OBJ_BEGIN", "T_ARR_BEGIN":
		if depth++; depth > d.s.json.decodeDepth {
			d.l.RaiseError("Found too many nested data structures (%d) at character %d", depth, d.at)
		}
		d.s.budget.grow(d.l, 200)
		if d.kind == "T_OBJ_BEGIN" {
			return d.object(depth)
		}
		return d.array(depth)
	}
	d.expected("value")
	return nil
}

func (d *jsonDecoder) object(depth int) lua.LValue {
	t := d.l.NewTable()
	if d.token(); d.kind == "T_OBJ_END" {
		return t
	}
	for {
		if d.kind != "T_STRING" {
			d.expected("object key string")
		}
		k := d.value
		if d.token(); d.kind != "T_COLON" {
			d.expected("colon")
		}
		d.token()
		v := d.parse(depth)
		d.s.budget.grow(d.l, 64)
		t.RawSet(k, v)
		if d.token(); d.kind == "T_OBJ_END" {
			return t
		}
		if d.kind != "T_COMMA" {
			d.expected("comma or object end")
		}
		d.token()
	}
}

func (d *jsonDecoder) array(depth int) lua.LValue {
	t := d.l.NewTable()
	if d.token(); d.kind == "T_ARR_END" {
		return t
	}
	for {
		d.s.budget.grow(d.l, 32)
		t.Append(d.parse(depth))
		if d.token(); d.kind == "T_ARR_END" {
			return t
		}
		if d.kind != "T_COMMA" {
			d.expected("comma or array end")
		}
		d.token()
	}
}

// token reads the next one.
func (d *jsonDecoder) token() {
	for d.at < len(d.text) && strings.IndexByte(" \t\r\n", d.text[d.at]) >= 0 {
		d.at++
	}
	d.start = d.at
	if d.at == len(d.text) {
		d.kind = "T_END"
		return
	}
	rest := d.text[d.at:]
	switch c := rest[0]; {
	case strings.IndexByte("{}[]:,", c) >= 0:
		d.kind = map[byte]string{'{': "T_OBJ_BEGIN", '}': "T_OBJ_END", '[': "T_ARR_BEGIN", ']': "T_ARR_END", ':': "T_COLON", ',': "T_COMMA"}[c]
		d.at++
	case c == '"':
		d.quoted()
	case strings.HasPrefix(rest, "true"):
		d.kind, d.value = "T_BOOLEAN", lua.LTrue
		d.at += 4
	case strings.HasPrefix(rest, "false"):
		d.kind, d.value = "T_BOOLEAN", lua.LFalse
		d.at += 5
	case strings.HasPrefix(rest, "null"):
		d.kind, d.value = "T_NULL", d.null
		d.at += 4
	case c == '-' || isDigit(c) || d.s.json.decodeInvalid && (c|0x20 == 'n' || c|0x20 == 'i'):
		d.number(rest)
	default:
		d.kind = "invalid token"
	}
}

func (d *jsonDecoder) number(rest string) {
	n := 0
	for n < len(rest) && (isAlpha(rest[n]) || isDigit(rest[n]) || strings.IndexByte("+-.", rest[n]) >= 0) {
		n++
	}
	word := rest[:n]
	digits := strings.TrimLeft(word, "-")
	odd := len(digits) == 0 || !isDigit(digits[0]) || len(digits) > 1 && digits[0] == '0' && digits[1] != '.' && digits[1]|0x20 != 'e'
	if odd && !d.s.json.decodeInvalid {
		d.kind = "invalid number"
		return
	}
	f, err := strconv.ParseFloat(word, 64)
	if strings.HasPrefix(digits, "0x") {
		var u uint64
		u, err = strconv.ParseUint(digits[2:], 16, 64)
		f = float64(u)
	}
	if err != nil && !math.IsInf(f, 0) {
		d.kind = "invalid number"
		if !isDigit(word[0]) && word[0] != '-' {
			d.kind = "invalid token"
		}
		return
	}
	d.kind, d.value = "T_NUMBER", lua.LNumber(f)
	d.at += n
}

func (d *jsonDecoder) quoted() {
	i := d.at + 1
	end := i
	for end < len(d.text) && d.text[end] != '"' && d.text[end] != '\\' && d.text[end] >= 32 {
		end++
	}
	if end < len(d.text) && d.text[end] == '"' {
		d.kind, d.value = "T_STRING", lua.LString(d.text[i:end]) // shares the bytes
		d.at = end + 1
		return
	}
	var b []byte
	for i < len(d.text) {
		c := d.text[i]
		switch {
		case c == '"':
			d.s.budget.grow(d.l, len(b))
			d.kind, d.value = "T_STRING", lua.LString(b)
			d.at = i + 1
			return
		case c == '\\':
			n := 0
			if b, n = d.escape(b, d.text[i:]); n == 0 {
				d.start = i
				return
			}
			i += n
		default:
			b = append(b, c)
			i++
		}
		if len(b)&0xffff == 0xffff {
			d.s.budget.grow(d.l, 4*0xffff)
		}
	}
	d.kind, d.start = "unexpected end of string", len(d.text)
}

// escape appends what an escape means, and returns its length, or 0.
func (d *jsonDecoder) escape(b []byte, s string) ([]byte, int) {
	d.kind = "invalid escape code"
	if len(s) < 2 {
		return b, 0
	}
	if at := strings.IndexByte(`"\/bfnrt`, s[1]); at >= 0 {
		return append(b, "\"\\/\b\f\n\r\t"[at]), 2
	}
	if s[1] != 'u' {
		return b, 0
	}
	d.kind = "invalid unicode escape code"
	one := func(s string) (rune, bool) {
		if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
			return 0, false
		}
		v, err := strconv.ParseUint(s[2:6], 16, 16)
		return rune(v), err == nil
	}
	r, ok := one(s)
	if !ok {
		return b, 0
	}
	if !utf16.IsSurrogate(r) {
		return utf8.AppendRune(b, r), 6
	}
	low, ok := one(s[6:])
	if pair := utf16.DecodeRune(r, low); ok && pair != utf8.RuneError {
		return utf8.AppendRune(b, pair), 12
	}
	return b, 0
}
