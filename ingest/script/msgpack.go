package script

import (
	"encoding/binary"
	"math"

	lua "github.com/yuin/gopher-lua"
)

// cmsgpack: MessagePack as Redis' scripts have it. A table is an array if its keys
// are 1 to n, and a map otherwise.

// maxPackDepth is where nesting ends: deeper tables are packed as nil.
const maxPackDepth = 16

func (s *state) msgpackLibrary() *lua.LTable {
	l := s.l
	t := l.NewTable()
	t.RawSetString("pack", l.NewFunction(func(l *lua.LState) int {
		if l.GetTop() == 0 {
			l.ArgError(0, "MessagePack pack needs input.")
		}
		p := packer{s: s, l: l}
		for i := 1; i <= l.GetTop(); i++ {
			p.value(l.Get(i), 0)
		}
		return push(l, p.b)
	}))
	t.RawSetString("unpack", l.NewFunction(func(l *lua.LState) int { return s.unpackAll(l, s.str(l, 1)) }))
	t.RawSetString("unpack_one", l.NewFunction(func(l *lua.LState) int {
		return s.unpackFrom(l, s.str(l, 1), 1, s.optInt(l, 2, 0))
	}))
	t.RawSetString("unpack_limit", l.NewFunction(func(l *lua.LState) int {
		return s.unpackFrom(l, s.str(l, 1), integer(l, 2), s.optInt(l, 3, 0))
	}))
	t.RawSetString("_NAME", lua.LString("cmsgpack"))
	t.RawSetString("_VERSION", lua.LString("lua-cmsgpack 0.4.0"))
	t.RawSetString("_DESCRIPTION", lua.LString("MessagePack for scripts"))
	return t
}

type packer struct {
	s *state
	l *lua.LState
	b []byte
}

var be = binary.BigEndian

// head appends a length by the shortest of its forms; small is 0 for none.
func (p *packer) head(n int, small byte, smallMost int, w8, w16, w32 byte) {
	p.s.budget.take(p.l, 1)
	p.s.budget.grow(p.l, 2*9)
	switch {
	case n <= smallMost:
		p.b = append(p.b, small|byte(n))
	case w8 != 0 && n <= math.MaxUint8:
		p.b = append(p.b, w8, byte(n))
	case n <= math.MaxUint16:
		p.b = be.AppendUint16(append(p.b, w16), uint16(n))
	default:
		p.b = be.AppendUint32(append(p.b, w32), uint32(n))
	}
}

func (p *packer) value(v lua.LValue, depth int) {
	switch v := v.(type) {
	case lua.LString:
		p.head(len(v), 0xa0, 31, 0xd9, 0xda, 0xdb)
		p.s.work(p.l, 2*len(v))
		p.b = append(p.b, v...)
	case lua.LBool:
		if v {
			p.b = append(p.b, 0xc3)
		} else {
			p.b = append(p.b, 0xc2)
		}
	case lua.LNumber:
		p.number(float64(v))
	case *lua.LTable:
		if t := p.s.protected[v]; t != nil {
			v = t
		}
		if depth == maxPackDepth {
			p.b = append(p.b, 0xc0)
		} else {
			p.table(v, depth+1)
		}
	default:
		p.b = append(p.b, 0xc0)
	}
}

func (p *packer) number(f float64) {
	p.s.budget.take(p.l, 1)
	p.s.budget.grow(p.l, 2*9)
	n := int64(f)
	switch {
	case float64(n) != f || f >= 1<<63:
		if g := float32(f); float64(g) == f {
			p.b = be.AppendUint32(append(p.b, 0xca), math.Float32bits(g))
		} else {
			p.b = be.AppendUint64(append(p.b, 0xcb), math.Float64bits(f))
		}
	case n >= 0 && n <= 127, n < 0 && n >= -32:
		p.b = append(p.b, byte(n))
	case n >= 0 && n <= math.MaxUint8:
		p.b = append(p.b, 0xcc, byte(n))
	case n >= 0 && n <= math.MaxUint16:
		p.b = be.AppendUint16(append(p.b, 0xcd), uint16(n))
	case n >= 0 && n <= math.MaxUint32:
		p.b = be.AppendUint32(append(p.b, 0xce), uint32(n))
	case n >= 0:
		p.b = be.AppendUint64(append(p.b, 0xcf), uint64(n))
	case n >= math.MinInt8:
		p.b = append(p.b, 0xd0, byte(n))
	case n >= math.MinInt16:
		p.b = be.AppendUint16(append(p.b, 0xd1), uint16(n))
	case n >= math.MinInt32:
		p.b = be.AppendUint32(append(p.b, 0xd2), uint32(n))
	default:
		p.b = be.AppendUint64(append(p.b, 0xd3), uint64(n))
	}
}

func (p *packer) table(t *lua.LTable, depth int) {
	items, most, list := 0, 0, true
	for k, _ := t.Next(lua.LNil); k != lua.LNil; k, _ = t.Next(k) {
		p.s.budget.take(p.l, 1)
		items++
		n, ok := k.(lua.LNumber)
		if !ok || n < 1 || n != lua.LNumber(math.Floor(float64(n))) || n > math.MaxInt32 {
			list = false
			continue
		}
		most = max(most, int(n))
	}
	if list && most == items && items > 0 {
		p.head(items, 0x90, 15, 0, 0xdc, 0xdd)
		for i := range items {
			p.value(t.RawGetInt(i+1), depth)
		}
		return
	}
	if items == 0 {
		p.head(0, 0x90, 15, 0, 0xdc, 0xdd)
		return
	}
	p.head(items, 0x80, 15, 0, 0xde, 0xdf)
	for k, v := t.Next(lua.LNil); k != lua.LNil; k, v = t.Next(k) {
		p.value(k, depth)
		p.value(v, depth)
	}
}

// unpackAll pushes all messages of text.
func (s *state) unpackAll(l *lua.LState, text string) int {
	u := unpacker{s: s, l: l, b: text}
	return u.messages(math.MaxInt, maxUnpacked)
}

// unpackFrom pushes the messages of text from offset on, at most limit unless that
// is 0, and before them the offset to go on with, or -1.
func (s *state) unpackFrom(l *lua.LState, text string, limit, offset int) int {
	if offset < 0 || limit < 0 {
		l.RaiseError("Invalid request to unpack with offset of %d and limit of %d.", offset, len(text))
	}
	if offset > len(text) {
		l.RaiseError("Start offset %d greater than input length %d.", offset, len(text))
	}
	u := unpacker{s: s, l: l, b: text[offset:]}
	if limit == 0 {
		limit = math.MaxInt
	}
	l.Push(lua.LNil)
	at := l.GetTop()
	n := u.messages(limit, maxUnpacked-1)
	next := lua.LNumber(len(text) - len(u.b))
	if len(u.b) == 0 {
		next = -1
	}
	l.Replace(at, next)
	return 1 + n
}

type unpacker struct {
	s *state
	l *lua.LState
	b string
}

// messages pushes at most limit messages. More than most are an error.
func (u *unpacker) messages(limit, most int) (n int) {
	for ; n < limit && len(u.b) > 0; n++ {
		if n >= most {
			u.l.RaiseError("too many messages to unpack")
		}
		u.l.Push(u.value(0))
	}
	return n
}

func (u *unpacker) take(n int) string {
	if n < 0 || n > len(u.b) {
		u.l.RaiseError("Missing bytes in input.")
	}
	v := u.b[:n]
	u.b = u.b[n:]
	return v
}

func (u *unpacker) uint(n int) (v uint64) {
	for _, c := range []byte(u.take(n)) {
		v = v<<8 | uint64(c)
	}
	return v
}

// maxUnpackDepth bounds nesting, which is done by recursion.
const maxUnpackDepth = 1000

func (u *unpacker) value(depth int) lua.LValue {
	u.s.budget.take(u.l, 1)
	if depth > maxUnpackDepth {
		u.l.RaiseError("message is nested too deeply")
	}
	switch c := byte(u.uint(1)); {
	case c < 0x80:
		return lua.LNumber(c)
	case c >= 0xe0:
		return lua.LNumber(int8(c))
	case c < 0x90:
		return u.pairs(int(c&15), depth)
	case c < 0xa0:
		return u.list(int(c&15), depth)
	case c < 0xc0:
		return lua.LString(u.take(int(c & 31)))
	case c == 0xc0:
		return lua.LNil
	case c == 0xc2, c == 0xc3:
		return lua.LBool(c == 0xc3)
	case c >= 0xc4 && c <= 0xc6:
		return lua.LString(u.take(int(u.uint(1 << (c - 0xc4)))))
	case c == 0xca:
		return lua.LNumber(math.Float32frombits(uint32(u.uint(4))))
	case c == 0xcb:
		return lua.LNumber(math.Float64frombits(u.uint(8)))
	case c >= 0xcc && c <= 0xcf:
		return lua.LNumber(u.uint(1 << (c - 0xcc)))
	case c >= 0xd0 && c <= 0xd3:
		n := 1 << (c - 0xd0)
		v := u.uint(n)
		return lua.LNumber(int64(v<<(64-8*n)) >> (64 - 8*n))
	case c >= 0xd9 && c <= 0xdb:
		return lua.LString(u.take(int(u.uint(1 << (c - 0xd9)))))
	case c == 0xdc, c == 0xdd:
		return u.list(int(u.uint(2<<(c-0xdc))), depth)
	case c == 0xde, c == 0xdf:
		return u.pairs(int(u.uint(2<<(c-0xde))), depth)
	}
	u.l.RaiseError("Bad data format in input.")
	return nil
}

func (u *unpacker) list(n, depth int) lua.LValue {
	u.s.budget.grow(u.l, 100)
	t := u.l.NewTable()
	for i := range n {
		u.s.budget.grow(u.l, 32)
		t.RawSetInt(i+1, u.value(depth+1))
	}
	return t
}

func (u *unpacker) pairs(n, depth int) lua.LValue {
	u.s.budget.grow(u.l, 100)
	t := u.l.NewTable()
	for range n {
		k := u.value(depth + 1)
		v := u.value(depth + 1)
		u.s.budget.grow(u.l, 64)
		if f, ok := k.(lua.LNumber); k != lua.LNil && !(ok && f != f) {
			u.s.fill(u.l, t, k)
			t.RawSet(k, v)
		}
	}
	return t
}
