package script

import (
	"fmt"
	"math"
	"math/bits"

	lua "github.com/yuin/gopher-lua"
)

// bits32 is a number's lowest 32 bits, rounded to even as LuaJIT's bit library does.
func (s *state) bits32(l *lua.LState, n int) uint32 {
	f := math.RoundToEven(float64(numberArg(l, n)))
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return uint32(int64(math.Mod(f, 1<<32)))
}

func (s *state) bitLibrary() *lua.LTable {
	l := s.l
	t := l.NewTable()
	add := func(name string, f func(l *lua.LState) uint32) {
		t.RawSetString(name, l.NewFunction(func(l *lua.LState) int {
			l.Push(lua.LNumber(int32(f(l))))
			return 1
		}))
	}
	fold := func(name string, f func(a, b uint32) uint32) {
		add(name, func(l *lua.LState) uint32 {
			v := s.bits32(l, 1)
			for i := 2; i <= l.GetTop(); i++ {
				v = f(v, s.bits32(l, i))
			}
			return v
		})
	}
	shift := func(name string, f func(v uint32, by int) uint32) {
		add(name, func(l *lua.LState) uint32 { return f(s.bits32(l, 1), int(s.bits32(l, 2)&31)) })
	}
	add("tobit", func(l *lua.LState) uint32 { return s.bits32(l, 1) })
	add("bnot", func(l *lua.LState) uint32 { return ^s.bits32(l, 1) })
	add("bswap", func(l *lua.LState) uint32 { return bits.ReverseBytes32(s.bits32(l, 1)) })
	fold("band", func(a, b uint32) uint32 { return a & b })
	fold("bor", func(a, b uint32) uint32 { return a | b })
	fold("bxor", func(a, b uint32) uint32 { return a ^ b })
	shift("lshift", func(v uint32, by int) uint32 { return v << by })
	shift("rshift", func(v uint32, by int) uint32 { return v >> by })
	shift("arshift", func(v uint32, by int) uint32 { return uint32(int32(v) >> by) })
	shift("rol", func(v uint32, by int) uint32 { return bits.RotateLeft32(v, by) })
	shift("ror", func(v uint32, by int) uint32 { return bits.RotateLeft32(v, -by) })
	t.RawSetString("tohex", l.NewFunction(func(l *lua.LState) int {
		v, digits := s.bits32(l, 1), 8
		if l.Get(2) != lua.LNil {
			digits = int(int32(s.bits32(l, 2)))
		}
		format := "%08x"
		if digits < 0 {
			digits, format = -digits, "%08X"
		}
		text := fmt.Sprintf(format, v)
		l.Push(lua.LString(text[8-min(digits, 8):]))
		return 1
	}))
	return t
}
