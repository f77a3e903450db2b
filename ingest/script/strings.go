package script

import (
	"fmt"
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

func (s *state) stringLibrary() *lua.LTable {
	t := s.l.NewTable()
	for name, f := range map[string]lua.LGFunction{
		"byte": s.stringByte, "char": s.stringChar, "find": s.stringFind,
		"match": s.stringMatch, "format": s.stringFormat, "gmatch": s.stringGmatch,
		"gfind": s.stringGmatch, "gsub": s.stringGsub, "rep": s.stringRep, "sub": s.stringSub,
		"len":   func(l *lua.LState) int { l.Push(lua.LNumber(len(s.str(l, 1)))); return 1 },
		"lower": func(l *lua.LState) int { return s.mapped(l, 'A', 'Z') }, "upper": func(l *lua.LState) int { return s.mapped(l, 'a', 'z') },
		"reverse": s.stringReverse,
		"dump":    func(l *lua.LState) int { l.RaiseError("unable to dump given function"); return 0 },
	} {
		t.RawSetString(name, s.l.NewFunction(f))
	}
	return t
}

// push gives a string that was made back to the script.
func push(l *lua.LState, b []byte) int {
	l.Push(lua.LString(b))
	return 1
}

// work counts n bytes that are read or written.
func (s *state) work(l *lua.LState, n int) {
	s.budget.take(l, n/64)
	s.budget.grow(l, n)
}

// concat is "..": operands that are no strings or numbers need a metamethod.
func (s *state) concatenate(l *lua.LState) int {
	n := l.GetTop()
	size := 0
	for i := 1; i <= n; i++ {
		switch v := l.Get(i).(type) {
		case lua.LString:
			size += len(v)
		case lua.LNumber:
			size += 24
		default:
			return s.concatenateOdd(l, n)
		}
	}
	s.work(l, size)
	b := make([]byte, 0, size)
	for i := 1; i <= n; i++ {
		b = s.appendText(b, l.Get(i))
	}
	return push(l, b)
}

func (s *state) appendText(b []byte, v lua.LValue) []byte {
	if t, ok := v.(lua.LString); ok {
		return append(b, t...)
	}
	return append(b, s.text(v)...)
}

// concatenateOdd goes from the right, two by two.
func (s *state) concatenateOdd(l *lua.LState, n int) int {
	text := func(v lua.LValue) bool { return v.Type() == lua.LTString || v.Type() == lua.LTNumber }
	right := l.Get(n)
	for i := n - 1; i >= 1; i-- {
		left := l.Get(i)
		if text(left) && text(right) {
			a, b := s.text(left), s.text(right)
			s.work(l, len(a)+len(b))
			right = lua.LString(a + b)
			continue
		}
		f := l.GetMetaField(left, "__concat")
		if f == lua.LNil {
			f = l.GetMetaField(right, "__concat")
		}
		if f == lua.LNil {
			odd := right
			if !text(left) {
				odd = left
			}
			l.RaiseError("attempt to concatenate a %s value", odd.Type())
		}
		l.Push(f)
		l.Push(left)
		l.Push(right)
		l.Call(2, 1)
		right = l.Get(-1)
		l.Pop(1)
	}
	l.Push(right)
	return 1
}

// place is where in a string of n bytes position i is, from 1, negative from the end.
func place(i, n int) int {
	if i < 0 {
		return max(i+n+1, 0)
	}
	return i
}

func (s *state) stringSub(l *lua.LState) int {
	v := s.str(l, 1)
	from, to := max(place(integer(l, 2), len(v)), 1), min(place(s.optInt(l, 3, -1), len(v)), len(v))
	if from > to {
		l.Push(lua.LString(""))
	} else {
		l.Push(lua.LString(v[from-1 : to])) // shares the bytes
	}
	return 1
}

func (s *state) stringByte(l *lua.LState) int {
	v := s.str(l, 1)
	i := s.optInt(l, 2, 1)
	from, to := place(i, len(v)), place(s.optInt(l, 3, place(i, len(v))), len(v))
	from, to = max(from, 1), min(to, len(v))
	if to-from >= maxUnpacked {
		l.RaiseError("string slice too long")
	}
	n := 0
	for ; from <= to; from++ {
		l.Push(lua.LNumber(v[from-1]))
		n++
	}
	return n
}

func (s *state) stringChar(l *lua.LState) int {
	b := make([]byte, 0, l.GetTop())
	for i := 1; i <= l.GetTop(); i++ {
		c := integer(l, i)
		if c < 0 || c > 255 {
			l.ArgError(i, "invalid value")
		}
		b = append(b, byte(c))
	}
	return push(l, b)
}

func (s *state) mapped(l *lua.LState, from, to byte) int {
	v := s.str(l, 1)
	s.work(l, len(v))
	b := []byte(v)
	for i, c := range b {
		if c >= from && c <= to {
			b[i] = c ^ 0x20
		}
	}
	return push(l, b)
}

func (s *state) stringReverse(l *lua.LState) int {
	v := s.str(l, 1)
	s.work(l, len(v))
	b := make([]byte, len(v))
	for i := range v {
		b[len(v)-1-i] = v[i]
	}
	return push(l, b)
}

func (s *state) stringRep(l *lua.LState) int {
	v, n := s.str(l, 1), integer(l, 2)
	if n <= 0 || v == "" {
		l.Push(lua.LString(""))
		return 1
	}
	if n > math.MaxInt32 || int64(n)*int64(len(v)) > math.MaxInt32 {
		s.budget.grow(l, math.MaxInt32)
		l.RaiseError("resulting string too large")
	}
	s.work(l, n*len(v))
	l.Push(lua.LString(strings.Repeat(v, n)))
	return 1
}

// searched are the arguments of find and match: what is searched, the pattern, and
// from where on.
func (s *state) searched(l *lua.LState) (v, p string, init int) {
	v, p = s.str(l, 1), s.str(l, 2)
	return v, p, min(max(place(s.optInt(l, 3, 1), len(v)), 1)-1, len(v))
}

func (s *state) stringFind(l *lua.LState) int {
	v, p, init := s.searched(l)
	if lua.LVAsBool(l.Get(4)) || !strings.ContainsAny(p, "^$*+?.([%-") {
		s.budget.take(l, (len(v)-init)/64)
		at := strings.Index(v[init:], p)
		if at < 0 {
			l.Push(lua.LNil)
			return 1
		}
		l.Push(lua.LNumber(init + at + 1))
		l.Push(lua.LNumber(init + at + len(p)))
		return 2
	}
	m := matcher{s: s, l: l, src: v, p: p}
	from, to, ok := m.find(init)
	if !ok {
		l.Push(lua.LNil)
		return 1
	}
	l.Push(lua.LNumber(from + 1))
	l.Push(lua.LNumber(to))
	if m.level == 0 {
		return 2
	}
	return 2 + m.push(from, to)
}

func (s *state) stringMatch(l *lua.LState) int {
	v, p, init := s.searched(l)
	m := matcher{s: s, l: l, src: v, p: p}
	from, to, ok := m.find(init)
	if !ok {
		l.Push(lua.LNil)
		return 1
	}
	return m.push(from, to)
}

func (s *state) stringGmatch(l *lua.LState) int {
	v, p, at := s.str(l, 1), s.str(l, 2), 0
	l.Push(l.NewFunction(func(l *lua.LState) int {
		m := matcher{s: s, l: l, src: v, p: p}
		for ; at <= len(v); at++ {
			m.level = 0
			if end := m.match(at, 0); end >= 0 {
				from := at
				if at = end; end == from {
					at++
				}
				return m.push(from, end)
			}
		}
		return 0
	}))
	return 1
}

func (s *state) stringGsub(l *lua.LState) int {
	v, p, with := s.str(l, 1), s.str(l, 2), l.Get(3)
	switch with.Type() {
	case lua.LTString, lua.LTNumber, lua.LTTable, lua.LTFunction:
	default:
		l.ArgError(3, "string/function/table expected")
	}
	most := s.optInt(l, 4, len(v)+1)
	m := matcher{s: s, l: l, src: v, p: p}
	anchor := 0
	if strings.HasPrefix(p, "^") {
		anchor = 1
	}
	var b []byte
	add := func(text string) {
		s.work(l, len(text))
		b = append(b, text...)
	}
	n, at := 0, 0
	for n < most {
		m.level = 0
		end := m.match(at, anchor)
		if end >= 0 {
			n++
			s.substitute(&m, with, at, end, add)
		}
		switch {
		case end > at:
			at = end
		case at < len(v):
			b = append(b, v[at])
			at++
		default:
			at++
		}
		if at > len(v) || anchor == 1 {
			break
		}
	}
	if at < len(v) {
		add(v[at:])
	}
	l.Push(lua.LString(b))
	l.Push(lua.LNumber(n))
	return 2
}

// substitute adds what stands in the place of a match.
func (s *state) substitute(m *matcher, with lua.LValue, from, to int, add func(string)) {
	l := m.l
	var v lua.LValue
	switch w := with.(type) {
	case *lua.LFunction:
		l.Push(w)
		n := m.push(from, to)
		l.Call(n, 1)
		v = l.Get(-1)
		l.Pop(1)
	case *lua.LTable:
		v = l.GetTable(w, m.get(0, from, to))
	default:
		text := s.text(w)
		for {
			i := strings.IndexByte(text, '%')
			if i < 0 {
				add(text)
				return
			}
			add(text[:i])
			c := byte(0)
			if i+1 < len(text) {
				c = text[i+1]
			}
			switch {
			case c == '0':
				add(m.src[from:to])
			case isDigit(c):
				add(s.text(m.get(int(c-'1'), from, to)))
			case c != 0 || i+1 < len(text):
				add(text[i+1 : i+2])
			}
			text = text[min(i+2, len(text)):]
		}
	}
	switch {
	case v == lua.LNil || v == lua.LFalse:
		add(m.src[from:to])
	case v.Type() == lua.LTString || v.Type() == lua.LTNumber:
		add(s.text(v))
	default:
		l.RaiseError("invalid replacement value (a %s)", v.Type())
	}
}

func (s *state) stringFormat(l *lua.LState) int {
	f := s.str(l, 1)
	s.work(l, len(f))
	var b []byte
	arg := 1
	for i := 0; i < len(f); i++ {
		if f[i] != '%' {
			b = append(b, f[i])
			continue
		}
		if i++; i < len(f) && f[i] == '%' {
			b = append(b, '%')
			continue
		}
		start := i
		for i < len(f) && strings.IndexByte("-+ #0", f[i]) >= 0 {
			i++
		}
		if i-start > 5 {
			l.RaiseError("invalid format (repeated flags)")
		}
		width := i
		for i < len(f) && isDigit(f[i]) {
			i++
		}
		digits := i - width
		if i < len(f) && f[i] == '.' {
			i++
			precision := i
			for i < len(f) && isDigit(f[i]) {
				i++
			}
			digits = max(digits, i-precision)
		}
		if digits > 2 {
			l.RaiseError("invalid format (width or precision too long)")
		}
		if i >= len(f) {
			l.RaiseError("invalid option '%%%s' to 'format'", "")
		}
		arg++
		b = s.formatOne(l, b, f[start:i], f[i], arg)
	}
	return push(l, b)
}

// formatOne appends an argument as the conversion says: its flags, width and
// precision are C's, and Go's where they are needed.
func (s *state) formatOne(l *lua.LState, b []byte, spec string, conversion byte, arg int) []byte {
	if arg > l.GetTop() {
		l.ArgError(arg, "no value")
	}
	switch conversion {
	case 'c':
		return fmt.Appendf(b, "%"+spec+"s", string([]byte{byte(integer(l, arg))}))
	case 'd', 'i':
		return fmt.Appendf(b, "%"+spec+"d", truncated(float64(numberArg(l, arg))))
	case 'u':
		return fmt.Appendf(b, "%"+spec+"d", uint64(truncated(float64(numberArg(l, arg)))))
	case 'o', 'x', 'X':
		return fmt.Appendf(b, "%"+spec+string(conversion), uint64(truncated(float64(numberArg(l, arg)))))
	case 'e', 'E', 'f', 'g', 'G':
		if !strings.Contains(spec, ".") {
			spec += ".6"
		}
		v := float64(numberArg(l, arg))
		if math.IsInf(v, 0) || math.IsNaN(v) {
			flags, _, _ := strings.Cut(spec, ".")
			return fmt.Appendf(b, "%"+strings.ReplaceAll(flags, "0", "")+"s", formatNumber(v, 14))
		}
		return fmt.Appendf(b, "%"+spec+string(conversion), v)
	case 'q':
		v := s.str(l, arg)
		s.work(l, 2*len(v))
		b = append(b, '"')
		for i := range len(v) {
			switch c := v[i]; c {
			case '"', '\\', '\n':
				b = append(b, '\\', c)
			case '\r':
				b = append(b, `\r`...)
			case 0:
				b = append(b, `\000`...)
			default:
				b = append(b, c)
			}
		}
		return append(b, '"')
	case 's':
		v := s.str(l, arg)
		if width, precision, cut := strings.Cut(spec, "."); cut {
			n := 0
			_, _ = fmt.Sscan(precision, &n)
			v, spec = v[:min(n, len(v))], width
		}
		s.work(l, len(v))
		if spec == "" {
			return append(b, v...)
		}
		// Go counts runes for the width, C bytes.
		n := 0
		_, _ = fmt.Sscan(strings.TrimLeft(spec, "-+ #0"), &n)
		pad := strings.Repeat(" ", max(n-len(v), 0))
		if strings.Contains(spec, "-") {
			return append(append(b, v...), pad...)
		}
		return append(append(b, pad...), v...)
	}
	l.RaiseError("invalid option '%%%c' to 'format'", conversion)
	return b
}
