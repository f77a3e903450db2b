package script

import lua "github.com/yuin/gopher-lua"

// lrand48 is the generator of that name, which Redis has math.random use so that
// it gives the same numbers on every machine. It goes on from script to script.
type lrand48 uint64

func seeded(seed int32) lrand48 { return lrand48(uint32(seed))<<16 | 0x330e }

// firstRandom is where it begins that was not seeded.
const firstRandom lrand48 = 0x1234abcd330e

// next is a number of 31 bits.
func (r *lrand48) next() int32 {
	*r = (*r*0x5deece66d + 0xb) & (1<<48 - 1)
	return int32(*r >> 17)
}

func (s *state) mathRandom(l *lua.LState) int {
	const most = 1<<31 - 1
	f := float64(s.random.next()%most) / most
	switch l.GetTop() {
	case 0:
		l.Push(lua.LNumber(f))
	case 1:
		u := integer(l, 1)
		if u < 1 {
			l.ArgError(1, "interval is empty")
		}
		l.Push(lua.LNumber(int64(f*float64(u)) + 1))
	case 2:
		from, to := integer(l, 1), integer(l, 2)
		if from > to {
			l.ArgError(2, "interval is empty")
		}
		l.Push(lua.LNumber(int64(f*float64(to-from+1)) + int64(from)))
	default:
		l.RaiseError("wrong number of arguments")
	}
	return 1
}

func (s *state) mathRandomSeed(l *lua.LState) int {
	*s.random = seeded(int32(int64(numberArg(l, 1))))
	return 0
}
