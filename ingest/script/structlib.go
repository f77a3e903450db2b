package script

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"slices"

	lua "github.com/yuin/gopher-lua"
)

const (
	maxPackedInt = 32 // bytes of an integer; those beyond eight are zero
	maxAlign     = 8  // what "!" alone means
)

// layout is a format of the struct library, as it is read: a letter says what the
// next value is, and how it is aligned.
type layout struct {
	l      *lua.LState
	format string
	at     int
	big    bool
	align  int
}

func newLayout(s *state, l *lua.LState) *layout { return &layout{l: l, format: s.str(l, 1), align: 1} }

// next is the next letter and the size of its value, 0 if that is not fixed.
func (f *layout) next() (letter byte, size int, ok bool) {
	if f.at == len(f.format) || f.format[f.at] == 0 { // an end to C
		return 0, 0, false
	}
	letter = f.format[f.at]
	f.at++
	switch letter {
	case 'b', 'B', 'x':
		size = 1
	case 'h', 'H':
		size = 2
	case 'f':
		size = 4
	case 'l', 'L', 'T', 'd':
		size = 8
	case 'c':
		size = f.number(1)
	case 'i', 'I':
		if size = f.number(4); size > maxPackedInt {
			f.l.RaiseError("integral size %d is larger than limit of %d", size, maxPackedInt)
		}
	}
	return letter, size, true
}

// number is the number that stands behind a letter.
func (f *layout) number(byDefault int) int {
	from, n := f.at, 0
	for ; f.at < len(f.format) && f.format[f.at] >= '0' && f.format[f.at] <= '9'; f.at++ {
		if n = n*10 + int(f.format[f.at]-'0'); n > math.MaxInt32 {
			f.l.RaiseError("integral size overflow")
		}
	}
	if f.at == from {
		return byDefault
	}
	return n
}

// padding is how many bytes are left out before a value at pos.
func (f *layout) padding(pos int, letter byte, size int) int {
	if size == 0 || letter == 'c' {
		return 0
	}
	size = min(size, f.align)
	return (size - pos&(size-1)) & (size - 1)
}

// control is a letter that stands for no value.
func (f *layout) control(letter byte) {
	switch letter {
	case ' ':
	case '>':
		f.big = true
	case '<':
		f.big = false
	case '!':
		if f.align = f.number(maxAlign); bits.OnesCount(uint(f.align)) != 1 {
			f.l.RaiseError("alignment %d is not a power of 2", f.align)
		}
	default:
		f.l.ArgError(1, fmt.Sprintf("invalid format option '%c'", letter))
	}
}

// put appends the lowest size bytes of v.
func (f *layout) put(b []byte, v uint64, size int) []byte {
	from := len(b)
	for range size {
		b = append(b, byte(v))
		v >>= 8
	}
	if f.big {
		slices.Reverse(b[from:])
	}
	return b
}

// get is what put has written.
func (f *layout) get(b []byte) (v uint64) {
	for i := range b {
		if f.big {
			v = v<<8 | uint64(b[i])
		} else {
			v = v<<8 | uint64(b[len(b)-1-i])
		}
	}
	return v
}

// signed is v, of size bytes, as a number that may be negative.
func signed(v uint64, size int) lua.LNumber {
	unused := uint(max(64-8*size, 0))
	return lua.LNumber(int64(v<<unused) >> unused)
}

// structLibrary is lua_struct.c's: values as bytes.
func (s *state) structLibrary() *lua.LTable {
	t := s.l.NewTable()
	for name, f := range map[string]lua.LGFunction{"pack": s.structPack, "unpack": s.structUnpack, "size": s.structSize} {
		t.RawSetString(name, s.l.NewFunction(f))
	}
	return t
}

func (s *state) structPack(l *lua.LState) int {
	f, arg := newLayout(s, l), 2
	var b []byte
	for {
		letter, size, ok := f.next()
		if !ok {
			return push(l, b)
		}
		s.budget.take(l, 1)
		b = append(b, make([]byte, f.padding(len(b), letter, size))...)
		switch letter {
		case 'b', 'B', 'h', 'H', 'l', 'L', 'T', 'i', 'I':
			n := numberArg(l, arg)
			arg++
			v := uint64(n)
			if n < 0 {
				v = uint64(int64(n))
			}
			b = f.put(b, v, size)
		case 'x':
			b = append(b, 0)
		case 'f':
			b = f.put(b, uint64(math.Float32bits(float32(numberArg(l, arg)))), size)
			arg++
		case 'd':
			b = f.put(b, math.Float64bits(float64(numberArg(l, arg))), size)
			arg++
		case 'c', 's':
			text := s.str(l, arg)
			arg++
			if size == 0 {
				size = len(text)
			}
			if len(text) < size {
				l.ArgError(arg, "string too short")
			}
			s.work(l, size)
			if b = append(b, text[:size]...); letter == 's' {
				b = append(b, 0)
			}
		default:
			f.control(letter)
		}
	}
}

func (s *state) structUnpack(l *lua.LState) int {
	f, data, pos := newLayout(s, l), []byte(s.str(l, 2)), s.optInt(l, 3, 1)-1
	if pos == -1 {
		l.ArgError(3, "offset must be 1 or greater")
	}
	s.work(l, len(data))
	n := 0
	within := func(size int) {
		if pos < 0 || size < 0 || size > len(data) || pos > len(data)-size {
			l.ArgError(2, "data string too short")
		}
	}
	for {
		letter, size, ok := f.next()
		if !ok {
			l.Push(lua.LNumber(pos + 1))
			return n + 1
		}
		if n++; n > maxUnpacked {
			l.RaiseError("too many results")
		}
		s.budget.take(l, 1)
		pos += f.padding(pos, letter, size)
		within(size)
		switch letter {
		case 'b', 'h', 'l', 'i':
			l.Push(signed(f.get(data[pos:pos+size]), size))
		case 'B', 'H', 'L', 'T', 'I':
			l.Push(lua.LNumber(f.get(data[pos : pos+size])))
		case 'f':
			l.Push(lua.LNumber(math.Float32frombits(uint32(f.get(data[pos : pos+size])))))
		case 'd':
			l.Push(lua.LNumber(math.Float64frombits(f.get(data[pos : pos+size]))))
		case 'c':
			if size == 0 {
				last, ok := lua.LNumber(0), false
				if n > 1 {
					last, ok = numberOf(l.Get(-1))
				}
				if !ok {
					l.RaiseError("format 'c0' needs a previous size")
				}
				l.Pop(1)
				n--
				size = int(last)
				within(size)
			}
			l.Push(lua.LString(data[pos : pos+size]))
		case 's':
			end := bytes.IndexByte(data[pos:], 0)
			if end < 0 {
				l.RaiseError("unfinished string in data")
			}
			l.Push(lua.LString(data[pos : pos+end]))
			size = end + 1
		default:
			n--
			if letter != 'x' {
				f.control(letter)
			}
		}
		pos += size
	}
}

func (s *state) structSize(l *lua.LState) int {
	f, pos := newLayout(s, l), 0
	for {
		letter, size, ok := f.next()
		if !ok {
			l.Push(lua.LNumber(pos))
			return 1
		}
		s.budget.take(l, 1)
		pos += f.padding(pos, letter, size)
		switch {
		case letter == 's', letter == 'c' && size == 0:
			name := string(letter)
			if letter == 'c' {
				name = "c0"
			}
			l.ArgError(1, "option '"+name+"' has no fixed size")
		case letter >= '0' && letter <= '9', letter|0x20 >= 'a' && letter|0x20 <= 'z':
		default:
			f.control(letter)
		}
		pos += size
	}
}
