package script

import lua "github.com/yuin/gopher-lua"

// The interpreter keeps what integers name in an array, and to set one element it
// fills all before it with nil: t[4e6]=1 takes 64 MB in one instruction, where Lua
// hashes a key that stands alone. So keys from maxArray on are hashed, and what
// sets an element is made a call when a script is compiled, which counts what the
// array grows by before it does.

const (
	// maxArray is the first integer that is hashed. An array of so many elements
	// is all the memory that a script has unless it is given more; one that is
	// given more has arrays no longer than this.
	maxArray = 1 << 22
	// elementBytes is what an element takes, if it is nil, too.
	elementBytes = 16
	// smallArray is how many elements are made without being counted.
	smallArray = 1 << 10
)

func init() { lua.MaxArrayIndex = maxArray } // a bound of the library's, for all of a process

// Names of functions that calls are made of, which no script can spell.
const (
	concatName = "(concat)" // a .. b
	setName    = "(set)"    // t[k] = v, the only target of its statement
	keyName    = "(key)"    // k, where it is set among others or in a constructor
)

// helpers are the functions of those names, in the order in which a chunk is given them.
func (s *state) helpers() []lua.LValue { return []lua.LValue{s.concat, s.set, s.key} }

var helperNames = []string{concatName, setName, keyName}

// setElement is t[k] = v.
func (s *state) setElement(l *lua.LState) int {
	t, k, v := l.Get(1), l.Get(2), l.Get(3)
	s.fill(l, t, k)
	l.SetTable(t, k, v)
	return 0
}

// setKey returns a key for which it is not known what table it is of.
func (s *state) setKey(l *lua.LState) int {
	k := l.Get(1)
	s.fill(l, lua.LNil, k)
	l.Push(k)
	return 1
}

// fill counts what setting k makes of elements before it. A table that has a
// neighbor of k has them already; others are taken to have none.
func (s *state) fill(l *lua.LState, table, k lua.LValue) {
	f, ok := k.(lua.LNumber)
	if !ok || !(f > smallArray && f < maxArray) {
		return
	}
	n := int(f)
	if t, ok := table.(*lua.LTable); ok && t.Metatable == lua.LNil {
		for i := n - 1; i <= n+1; i++ {
			if t.RawGetInt(i) != lua.LNil {
				return
			}
		}
	}
	s.budget.take(l, n/64)
	s.budget.grow(l, n*elementBytes)
}
