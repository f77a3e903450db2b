package script

import (
	"fmt"
	"math"
	"sort"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

const readonlyTable = "Attempt to modify a readonly table"

// newState makes an interpreter with what scripts may use.
func newState(o *Options, random *lrand48) *state {
	l := lua.NewState(lua.Options{
		SkipOpenLibs: true, CallStackSize: callDepth, MinimizeStackMemory: true,
		RegistrySize: 1024, RegistryGrowStep: 1024, RegistryMaxSize: registers,
	})
	lua.OpenBase(l)
	lua.OpenMath(l)
	lua.OpenCoroutine(l)
	s := &state{o: o, l: l, random: random, real: l.NewTable(), protected: map[*lua.LTable]*lua.LTable{}}
	s.concat, s.handler = l.NewFunction(s.concatenate), l.NewFunction(s.handle)
	s.set, s.key = l.NewFunction(s.setElement), l.NewFunction(s.setKey)
	for _, name := range []string{"ipairs", "rawequal", "type", "_VERSION"} {
		s.real.RawSetString(name, l.GetGlobal(name))
	}
	for name, f := range map[string]lua.LGFunction{
		"tostring": s.toString, "next": s.next, "unpack": s.unpack, "load": s.load, "loadstring": s.loadString,
		"rawget": s.rawGet, "rawset": s.rawSet, "getmetatable": s.getMetatable,
		"pcall":          messageAlone(s.bounded(builtin(l.GetGlobal("pcall")))),
		"xpcall":         s.bounded(builtin(l.GetGlobal("xpcall"))),
		"setmetatable":   s.setMetatable(builtin(l.GetGlobal("setmetatable"))),
		"select":         numeric(builtin(l.GetGlobal("select")), 1, "#"),
		"tonumber":       s.toNumber,
		"error":          s.raise,
		"assert":         asserted(builtin(l.GetGlobal("assert"))),
		"collectgarbage": s.collectGarbage, "gcinfo": s.gcInfo,
		"__redis__err__handler": func(*lua.LState) int { return 1 },
	} {
		s.real.RawSetString(name, l.NewFunction(f))
	}
	pairs := l.GetGlobal("pairs").(*lua.LFunction)
	s.real.RawSetString("pairs", l.NewFunction(func(l *lua.LState) int {
		if t, ok := l.Get(1).(*lua.LTable); ok && s.protected[t] != nil {
			l.Push(s.real.RawGetString("next"))
		} else {
			l.CheckTable(1)
			l.Push(pairs.Upvalues[0].Value())
		}
		l.Push(l.Get(1))
		l.Push(lua.LNil)
		return 3
	}))
	for name, t := range map[string]*lua.LTable{
		"math": s.mathLibrary(l.GetGlobal("math").(*lua.LTable)), "coroutine": s.coroutineLibrary(l.GetGlobal("coroutine").(*lua.LTable)),
		"string": s.stringLibrary(), "table": s.tableLibrary(), "redis": s.redisLibrary(),
		"cjson": s.jsonLibrary(), "bit": s.bitLibrary(), "cmsgpack": s.msgpackLibrary(), "struct": s.structLibrary(),
	} {
		s.real.RawSetString(name, s.protect(t, lua.LNil))
	}
	strings := l.NewTable()
	strings.RawSetString("__index", s.real.RawGetString("string"))
	strings.RawSetString("__metatable", lua.LFalse)
	s.arithmeticOfStrings(strings)
	l.SetMetatable(lua.LString(""), strings)
	s.global = s.protect(s.real, l.NewFunction(func(l *lua.LState) int {
		l.RaiseError("Script attempted to access nonexistent global variable '%s'", s.text(l.Get(2)))
		return 0
	}))
	s.real.RawSetString("_G", s.global)
	return s
}

func builtin(v lua.LValue) lua.LGFunction { return v.(*lua.LFunction).GFunction }

// protect returns a table through which t is read and cannot be changed. What
// is not in t, missing is asked for, unless it is nil.
func (s *state) protect(t *lua.LTable, missing lua.LValue) *lua.LTable {
	l := s.l
	front, meta := l.NewTable(), l.NewTable()
	meta.RawSetString("__index", t)
	meta.RawSetString("__newindex", l.NewFunction(func(l *lua.LState) int {
		l.RaiseError(readonlyTable)
		return 0
	}))
	l.SetMetatable(front, meta)
	if missing != lua.LNil {
		behind := l.NewTable()
		behind.RawSetString("__index", missing)
		l.SetMetatable(t, behind)
	}
	s.protected[front] = t
	return front
}

// table is an argument that is a table which may be changed.
func (s *state) table(l *lua.LState, n int) *lua.LTable {
	t := l.CheckTable(n)
	if s.protected[t] != nil {
		s.fail(l, "ERR "+readonlyTable)
	}
	return t
}

// setMetatable is f for tables that may be changed, and for nothing else: f takes
// any value, and what it gives one number all numbers have, in all scripts.
func (s *state) setMetatable(f lua.LGFunction) lua.LGFunction {
	return func(l *lua.LState) int {
		s.table(l, 1)
		if t := l.Get(2); l.GetTop() < 2 || t != lua.LNil && t.Type() != lua.LTTable {
			l.ArgError(2, "nil or table expected")
		}
		return f(l)
	}
}

// raise is error: a number is a text, and nothing is nil.
func (s *state) raise(l *lua.LState) int {
	v := l.Get(1)
	if v.Type() == lua.LTNumber {
		v = lua.LString(s.text(v))
	}
	l.Error(v, s.optInt(l, 2, 1))
	return 0
}

func asserted(assert lua.LGFunction) lua.LGFunction {
	return func(l *lua.LState) int {
		if l.GetTop() == 0 {
			l.ArgError(1, "value expected")
		}
		return assert(l)
	}
}

func (s *state) toString(l *lua.LState) int {
	v := l.CheckAny(1)
	if n, ok := v.(lua.LNumber); ok {
		l.Push(lua.LString(s.text(n)))
	} else {
		l.Push(l.ToStringMeta(v))
	}
	return 1
}

// behind is the table that is meant: that in front of which another stands.
func (s *state) behind(l *lua.LState, n int) *lua.LTable {
	t := l.CheckTable(n)
	if b := s.protected[t]; b != nil {
		return b
	}
	return t
}

func (s *state) next(l *lua.LState) int {
	k, v := l.Next(s.behind(l, 1), l.Get(2))
	l.Push(k)
	if k == lua.LNil {
		return 1
	}
	l.Push(v)
	return 2
}

func (s *state) rawGet(l *lua.LState) int {
	l.Push(s.behind(l, 1).RawGet(l.CheckAny(2)))
	return 1
}

func (s *state) rawSet(l *lua.LState) int {
	t := s.table(l, 1)
	s.fill(l, t, l.Get(2))
	l.RawSet(t, l.CheckAny(2), l.CheckAny(3))
	l.Push(t)
	return 1
}

// getMetatable hides those that all scripts share.
func (s *state) getMetatable(l *lua.LState) int {
	v := l.CheckAny(1)
	if t, ok := v.(*lua.LTable); ok && s.protected[t] != nil || v.Type() == lua.LTString {
		l.Push(lua.LNil)
	} else if m := l.GetMetaField(v, "__metatable"); m != lua.LNil {
		l.Push(m)
	} else {
		l.Push(l.GetMetatable(v))
	}
	return 1
}

// maxProtected bounds pcalls in pcalls, as C Lua does.
const maxProtected = 190

// caughtSteps is what it costs to catch an error: the interpreter writes down
// where all open calls are.
const caughtSteps = 200

// bounded bounds how deep f, which is pcall or xpcall, is called in itself.
func (s *state) bounded(f lua.LGFunction) lua.LGFunction {
	return func(l *lua.LState) int {
		if s.nested++; s.nested > maxProtected {
			s.nested--
			l.RaiseError("stack overflow")
		}
		defer func() { s.nested-- }()
		n := f(l)
		if n == 2 && l.Get(-2) == lua.LFalse {
			s.budget.take(l, caughtSteps)
		}
		return n
	}
}

// messageAlone is pcall that gives what redis.call has raised as the message
// alone, as Redis does.
func messageAlone(pcall lua.LGFunction) lua.LGFunction {
	pcall = wordedLast(pcall)
	return func(l *lua.LState) int {
		n := pcall(l)
		if top := l.GetTop(); n == 2 && l.Get(top-1) == lua.LFalse {
			if t, ok := l.Get(top).(*lua.LTable); ok {
				if m, ok := t.RawGetString("err").(lua.LString); ok {
					l.Pop(1)
					l.Push(m)
				}
			}
		}
		return n
	}
}

// wordedLast is f, which is pcall or coroutine.resume, that gives messages in Lua's words.
func wordedLast(f lua.LGFunction) lua.LGFunction {
	return func(l *lua.LState) int {
		n := f(l)
		if top := l.GetTop(); n == 2 && l.Get(top-1) == lua.LFalse {
			if m, ok := l.Get(top).(lua.LString); ok {
				l.Pop(1)
				l.Push(lua.LString(worded(string(m))))
			}
		}
		return n
	}
}

// maxUnpacked bounds the values that a function returns, as C Lua's stack does.
const maxUnpacked = 8000

func (s *state) unpack(l *lua.LState) int {
	t := l.CheckTable(1)
	from, to := s.optInt(l, 2, 1), s.optInt(l, 3, t.Len())
	if from > to {
		return 0
	}
	if n := to - from + 1; n <= 0 || n > maxUnpacked {
		l.RaiseError("too many results to unpack")
	}
	s.budget.take(l, to-from)
	for i := from; i <= to; i++ {
		l.Push(t.RawGetInt(i))
	}
	return to - from + 1
}

func (s *state) loadString(l *lua.LState) int {
	text := s.str(l, 1)
	name := text
	if l.Get(2) != lua.LNil {
		name = s.str(l, 2)
	}
	return s.loads(l, text, chunkID(name))
}

// maxChunkID bounds the name of a chunk in messages.
const maxChunkID = 60

// chunkID is what messages call a chunk of that name: what follows "=" or "@" as it
// is, and the first line of anything else.
func chunkID(name string) string {
	if name != "" && (name[0] == '=' || name[0] == '@') {
		return name[1:min(len(name), maxChunkID)]
	}
	name, _, _ = strings.Cut(name, "\n")
	if len(name) > maxChunkID {
		name = name[:maxChunkID] + "..."
	}
	return fmt.Sprintf(`[string "%s"]`, name)
}

func (s *state) load(l *lua.LState) int {
	f := l.CheckFunction(1)
	var b strings.Builder
	for {
		l.Push(f)
		l.Call(0, 1)
		v := l.Get(-1)
		l.Pop(1)
		part, ok := v.(lua.LString)
		if !ok || part == "" {
			break
		}
		s.work(l, len(part))
		b.WriteString(string(part))
	}
	return s.loads(l, b.String(), `[string "=(load)"]`)
}

func (s *state) loads(l *lua.LState, text, name string) int {
	refuse := func(msg string) int {
		l.Push(lua.LNil)
		l.Push(lua.LString(msg))
		return 2
	}
	switch {
	case strings.HasPrefix(text, "\x1bLua"):
		return refuse(name + ": bad header in precompiled chunk")
	case len(text) > MaxSourceBytes:
		return refuse(fmt.Sprintf("%s: chunk of %d bytes is too long, the limit is %d", name, len(text), MaxSourceBytes))
	}
	s.budget.take(l, 4*len(text))
	s.budget.grow(l, int(CompiledBytes(len(text))))
	proto, err := prototypeOf([]byte(text), name)
	if err != nil {
		return refuse(err.Error())
	}
	l.Push(s.function(l, proto))
	return 1
}

// collectGarbage does nothing: what scripts leave is collected with all else.
func (s *state) collectGarbage(l *lua.LState) int {
	option := "collect"
	if l.Get(1) != lua.LNil {
		option = s.str(l, 1)
	}
	switch option {
	case "count":
		return s.gcInfo(l)
	case "stop", "restart", "collect", "step", "setpause", "setstepmul":
		l.Push(lua.LNumber(0))
		return 1
	}
	l.ArgError(1, "invalid option '"+option+"'")
	return 0
}

func (s *state) gcInfo(l *lua.LState) int {
	l.Push(lua.LNumber(32 + float64(s.budget.steps)/1024))
	return 1
}

func (s *state) mathLibrary(t *lua.LTable) *lua.LTable {
	library := s.l.NewTable()
	t.ForEach(func(name, v lua.LValue) {
		if f, ok := v.(*lua.LFunction); ok {
			v = s.l.NewFunction(allNumeric(f.GFunction))
		}
		library.RawSet(name, v)
	})
	library.RawSetString("huge", lua.LNumber(math.Inf(1)))
	library.RawSetString("random", s.l.NewFunction(s.mathRandom))
	library.RawSetString("randomseed", s.l.NewFunction(s.mathRandomSeed))
	return library
}

// coroutineLibrary has coroutines ask the same budget.
func (s *state) coroutineLibrary(t *lua.LTable) *lua.LTable {
	create, wrap := builtin(t.RawGetString("create")), builtin(t.RawGetString("wrap"))
	t.RawSetString("create", s.l.NewFunction(func(l *lua.LState) int {
		s.budget.grow(l, threadBytes)
		create(l)
		l.Get(-1).(*lua.LState).SetContext(s.budget)
		return 1
	}))
	t.RawSetString("resume", s.l.NewFunction(wordedLast(builtin(t.RawGetString("resume")))))
	t.RawSetString("wrap", s.l.NewFunction(func(l *lua.LState) int {
		s.budget.grow(l, threadBytes)
		wrap(l)
		l.Get(-1).(*lua.LFunction).Upvalues[0].Value().(*lua.LState).SetContext(s.budget)
		return 1
	}))
	return t
}

func (s *state) tableLibrary() *lua.LTable {
	t := s.l.NewTable()
	for name, f := range map[string]lua.LGFunction{
		"concat": s.tableConcat, "insert": s.tableInsert, "remove": s.tableRemove, "sort": s.tableSort,
		"getn": func(l *lua.LState) int { l.Push(lua.LNumber(l.CheckTable(1).Len())); return 1 },
		"maxn": func(l *lua.LState) int {
			t := l.CheckTable(1)
			s.budget.take(l, t.Len())
			l.Push(lua.LNumber(t.MaxN()))
			return 1
		},
		"setn":     func(l *lua.LState) int { l.RaiseError("'setn' is obsolete"); return 0 },
		"foreach":  s.forEach,
		"foreachi": s.forEachOfList,
	} {
		t.RawSetString(name, s.l.NewFunction(f))
	}
	return t
}

func (s *state) tableConcat(l *lua.LState) int {
	t, between := l.CheckTable(1), ""
	if l.Get(2) != lua.LNil {
		between = s.str(l, 2)
	}
	from, to := s.optInt(l, 3, 1), s.optInt(l, 4, t.Len())
	var b []byte
	for i := from; i <= to; i++ {
		v := t.RawGetInt(i)
		size := 24 + len(between)
		switch v := v.(type) {
		case lua.LString:
			size += len(v)
		case lua.LNumber:
		default:
			l.RaiseError("invalid value (%s) at index %d in table for 'concat'", v.Type(), i)
		}
		s.budget.take(l, 1+size/64)
		s.budget.grow(l, 2*size) // it grows by doubling
		b = s.appendText(b, v)
		if i < to {
			b = append(b, between...)
		}
	}
	return push(l, b)
}

func (s *state) tableInsert(l *lua.LState) int {
	t := s.table(l, 1)
	n := t.Len()
	switch l.GetTop() {
	case 2:
		s.budget.take(l, 1)
		t.RawSetInt(n+1, l.Get(2))
	case 3:
		at := integer(l, 2)
		if at < 1 || at > n+1 {
			s.fill(l, t, lua.LNumber(at))
			l.RawSet(t, lua.LNumber(at), l.Get(3))
			return 0
		}
		s.budget.take(l, 1+(n-at)/16)
		t.Insert(at, l.Get(3))
	default:
		l.RaiseError("wrong number of arguments to 'insert'")
	}
	return 0
}

func (s *state) tableRemove(l *lua.LState) int {
	t := s.table(l, 1)
	n := t.Len()
	at := s.optInt(l, 2, n)
	if n == 0 || at < 1 || at > n {
		return 0
	}
	s.budget.take(l, 1+(n-at)/16)
	l.Push(t.Remove(at))
	return 1
}

func (s *state) tableSort(l *lua.LState) int {
	t := s.table(l, 1)
	var by *lua.LFunction
	if l.Get(2) != lua.LNil {
		by = l.CheckFunction(2)
	}
	n := t.Len()
	s.budget.take(l, n)
	s.budget.grow(l, 16*n)
	values := make([]lua.LValue, n)
	for i := range values {
		values[i] = t.RawGetInt(i + 1)
	}
	sort.Slice(values, func(i, j int) bool {
		s.budget.take(l, 1)
		if by == nil {
			return l.LessThan(values[i], values[j])
		}
		l.Push(by)
		l.Push(values[i])
		l.Push(values[j])
		l.Call(2, 1)
		less := lua.LVAsBool(l.Get(-1))
		l.Pop(1)
		return less
	})
	for i, v := range values {
		t.RawSetInt(i+1, v)
	}
	return 0
}

// forEach calls a function for each pair until it returns something.
func (s *state) forEach(l *lua.LState) int {
	t, f := s.behind(l, 1), l.CheckFunction(2)
	for k, v := l.Next(t, lua.LNil); k != lua.LNil; k, v = l.Next(t, k) {
		if returns(l, f, k, v) {
			return 1
		}
	}
	return 0
}

// forEachOfList does so for the numbers from 1 on.
func (s *state) forEachOfList(l *lua.LState) int {
	t, f := s.behind(l, 1), l.CheckFunction(2)
	for i := 1; i <= t.Len(); i++ {
		if returns(l, f, lua.LNumber(i), t.RawGetInt(i)) {
			return 1
		}
	}
	return 0
}

// returns calls f for a pair and leaves on the stack what it returns, if anything.
func returns(l *lua.LState, f *lua.LFunction, k, v lua.LValue) bool {
	l.Push(f)
	l.Push(k)
	l.Push(v)
	l.Call(2, 1)
	if l.Get(-1) != lua.LNil {
		return true
	}
	l.Pop(1)
	return false
}
