package script

import (
	"errors"
	"math"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// Which strings are numbers is said here alone. The interpreter has three ways of
// its own: tonumber knows no exponents, which redis.call writes numbers with, and
// the other two take "010" for eight and "1_000" and "0b11" for numbers. All of
// ARGV and of what commands answer are strings, so scripts meet that.

// spaces are what C's isspace is true of.
const spaces = " \t\n\v\f\r"

// parseNumber is what Lua, by C's strtod, makes of a string: a decimal or
// hexadecimal number, infinity or NaN, with spaces around it.
func parseNumber(text string) (n lua.LNumber, ok bool) {
	text = strings.Trim(text, spaces)
	if strings.IndexByte(text, '_') >= 0 {
		return 0, false
	}
	switch digits := unsigned(text); {
	case strings.EqualFold(digits, "nan"):
		return lua.LNumber(math.NaN()), true
	case len(digits) > 2 && digits[0] == '0' && digits[1]|0x20 == 'x' && !strings.ContainsAny(digits, "pP"):
		text += "p0"
	}
	f, err := strconv.ParseFloat(text, 64)
	return lua.LNumber(f), err == nil || errors.Is(err, strconv.ErrRange)
}

// unsigned is text without the sign before it, if there is one.
func unsigned(text string) string {
	if text != "" && (text[0] == '+' || text[0] == '-') {
		return text[1:]
	}
	return text
}

// numberOf is a value that is a number or a string that reads as one.
func numberOf(v lua.LValue) (n lua.LNumber, ok bool) {
	switch v := v.(type) {
	case lua.LNumber:
		return v, true
	case lua.LString:
		return parseNumber(string(v))
	}
	return 0, false
}

// numberArg is an argument that is a number or reads as one.
func numberArg(l *lua.LState, n int) lua.LNumber {
	f, ok := numberOf(l.Get(n))
	if !ok {
		l.TypeError(n, lua.LTNumber)
	}
	return f
}

// integer is numberArg without its fraction.
func integer(l *lua.LState, n int) int { return int(numberArg(l, n)) }

func (s *state) optInt(l *lua.LState, n, byDefault int) int {
	if v := l.Get(n); v == lua.LNil {
		return byDefault
	}
	return integer(l, n)
}

// numeric has f, which takes numbers alone, take a string that reads as one in the
// place n, but for those that mean something else.
func numeric(f lua.LGFunction, n int, but string) lua.LGFunction {
	return func(l *lua.LState) int {
		if v, ok := l.Get(n).(lua.LString); ok && string(v) != but {
			l.Replace(n, numberArg(l, n))
		}
		return f(l)
	}
}

// allNumeric is numeric for all arguments.
func allNumeric(f lua.LGFunction) lua.LGFunction {
	return func(l *lua.LState) int {
		for i := 1; i <= l.GetTop(); i++ {
			if l.Get(i).Type() == lua.LTString {
				l.Replace(i, numberArg(l, i))
			}
		}
		return f(l)
	}
}

// toNumber is tonumber.
func (s *state) toNumber(l *lua.LState) int {
	base := s.optInt(l, 2, 10)
	if base == 10 {
		if n, ok := numberOf(l.CheckAny(1)); ok {
			l.Push(n)
		} else {
			l.Push(lua.LNil)
		}
		return 1
	}
	text := strings.Trim(s.str(l, 1), spaces)
	if base < 2 || base > 36 {
		l.ArgError(2, "base out of range")
	}
	digits := unsigned(text)
	if base == 16 && len(digits) > 2 && digits[0] == '0' && digits[1]|0x20 == 'x' {
		digits = digits[2:]
	}
	n, err := strconv.ParseUint(digits, base, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		l.Push(lua.LNil)
		return 1
	case err == nil && text[0] == '-':
		n = -n // as C's strtoul has it
	}
	l.Push(lua.LNumber(n))
	return 1
}

// arithmetic are the operators as the metatable of strings has them, so that the
// interpreter asks for them where an operand is one.
var arithmetic = map[string]func(a, b float64) float64{
	"__add": func(a, b float64) float64 { return a + b },
	"__sub": func(a, b float64) float64 { return a - b },
	"__mul": func(a, b float64) float64 { return a * b },
	"__div": func(a, b float64) float64 { return a / b },
	"__pow": math.Pow,
	"__unm": func(a, _ float64) float64 { return -a },
	"__mod": func(a, b float64) float64 {
		m := math.Mod(a, b)
		if m < 0 && b > 0 || m > 0 && b < 0 {
			m += b
		}
		return m
	},
}

func (s *state) arithmeticOfStrings(meta *lua.LTable) {
	for event, f := range arithmetic {
		meta.RawSetString(event, s.l.NewFunction(func(l *lua.LState) int {
			a, b := l.Get(1), l.Get(2)
			if event == "__unm" {
				b = a
			}
			x, okA := numberOf(a)
			y, okB := numberOf(b)
			if okA && okB {
				l.Push(lua.LNumber(f(float64(x), float64(y))))
				return 1
			}
			if b.Type() != lua.LTString {
				if of := l.GetMetaField(b, event); of != lua.LNil {
					l.Push(of)
					l.Push(a)
					l.Push(b)
					l.Call(2, 1)
					return 1
				}
			}
			if okA {
				a = b
			}
			l.RaiseError("attempt to perform arithmetic on a %s value", a.Type())
			return 0
		}))
	}
}
