package script

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"mcached/ingest/resp"
)

// maxLogged bounds the lines that one script logs.
const maxLogged = 10

func (s *state) redisLibrary() *lua.LTable {
	l := s.l
	t := l.NewTable()
	for name, f := range map[string]lua.LGFunction{
		"call":  s.redisCall,
		"pcall": s.redisPcall,
		"error_reply": func(l *lua.LState) int {
			return s.single(l, "err", func(m string) string {
				if strings.IndexByte(m, ' ') < 0 { // one word is no code
					m = "ERR " + strings.TrimPrefix(m, "-")
				}
				return strings.TrimPrefix(m, "-")
			})
		},
		"status_reply":       func(l *lua.LState) int { return s.single(l, "ok", func(m string) string { return m }) },
		"sha1hex":            s.sha1hex,
		"log":                s.log,
		"setresp":            s.setResp,
		"acl_check_cmd":      s.aclCheck,
		"replicate_commands": func(l *lua.LState) int { l.Push(lua.LTrue); return 1 },
		"set_repl":           s.setRepl,
		"breakpoint":         func(l *lua.LState) int { l.Push(lua.LFalse); return 1 },
		"debug":              func(*lua.LState) int { return 0 },
	} {
		t.RawSetString(name, l.NewFunction(f))
	}
	for name, n := range map[string]int{"LOG_DEBUG": 0, "LOG_VERBOSE": 1, "LOG_NOTICE": 2, "LOG_WARNING": 3, "REPL_NONE": 0, "REPL_AOF": 1, "REPL_SLAVE": 2, "REPL_REPLICA": 2, "REPL_ALL": 3} {
		t.RawSetString(name, lua.LNumber(n))
	}
	t.RawSetString("REDIS_VERSION", lua.LString(s.o.Version))
	number := 0
	for part := range strings.SplitSeq(s.o.Version, ".") {
		n, _ := strconv.Atoi(part)
		number = number<<8 | n
	}
	t.RawSetString("REDIS_VERSION_NUM", lua.LNumber(number))
	return t
}

// fail raises an error as redis.call does: a table with the whole message.
func (s *state) fail(l *lua.LState, msg string) int {
	l.Error(s.errorTable(l, msg), 1)
	return 0
}

func (s *state) errorTable(l *lua.LState, msg string) *lua.LTable {
	t := l.NewTable()
	t.RawSetString("err", lua.LString(msg))
	return t
}

// countedField says of an error that it is in the statistics, by Redis' name for it.
const countedField = "ignore_error_stats_update"

// commandError is the error that a command has answered, which Call has counted.
func (s *state) commandError(l *lua.LState, msg string) *lua.LTable {
	t := s.errorTable(l, msg)
	t.RawSetString(countedField, lua.LTrue)
	return t
}

func (s *state) single(l *lua.LState, field string, f func(string) string) int {
	t := l.NewTable()
	if m, ok := l.Get(1).(lua.LString); ok && l.GetTop() == 1 {
		t.RawSetString(field, lua.LString(f(string(m))))
	} else {
		t.RawSetString("err", lua.LString("ERR wrong number or type of arguments"))
	}
	l.Push(t)
	return 1
}

// redisCall is redis.call.
func (s *state) redisCall(l *lua.LState) int {
	v, failed := s.command(l)
	if failed != nil {
		l.Error(failed, 1)
	}
	l.Push(v)
	return 1
}

// redisPcall is redis.pcall, which does not raise an error but returns it.
func (s *state) redisPcall(l *lua.LState) int {
	v, failed := s.command(l)
	if failed != nil {
		v = failed
	}
	l.Push(v)
	return 1
}

const wrongArguments = "ERR Lua redis lib command arguments must be strings or integers"

// command runs the command that the arguments are: its answer, or what failed.
func (s *state) command(l *lua.LState) (v lua.LValue, failed *lua.LTable) {
	n := l.GetTop()
	if n == 0 {
		return nil, s.errorTable(l, "ERR Please specify at least one argument for this redis lib call")
	}
	args, size := make([][]byte, n), 0
	for i := range n {
		switch v := l.Get(i + 1).(type) {
		case lua.LString:
			args[i] = []byte(v)
		case lua.LNumber:
			args[i] = []byte(formatNumber(float64(v), 17))
		default:
			return nil, s.errorTable(l, wrongArguments)
		}
		size += len(args[i])
	}
	s.budget.take(l, 20+size/64)
	s.budget.grow(l, size)
	reply := s.run.Call(args, s.resp3)
	s.budget.take(l, len(reply)/64)
	s.budget.grow(l, 2*len(reply))
	if len(reply) > 0 && reply[0] == '-' {
		msg, _, _ := strings.Cut(string(reply[1:]), "\r\n")
		return nil, s.commandError(l, msg)
	}
	v, _ = s.value(l, reply)
	return v, nil
}

func (s *state) sha1hex(l *lua.LState) int {
	if l.GetTop() != 1 {
		return s.fail(l, "ERR wrong number of arguments")
	}
	text := "" // of what is no string, as in Redis
	if t := l.Get(1).Type(); t == lua.LTString || t == lua.LTNumber {
		text = s.str(l, 1)
	}
	s.budget.take(l, len(text)/16)
	sum := sha1.Sum([]byte(text))
	l.Push(lua.LString(hex.EncodeToString(sum[:])))
	return 1
}

func (s *state) log(l *lua.LState) int {
	level, ok := numberOf(l.Get(1))
	if l.GetTop() < 2 {
		return s.fail(l, "ERR redis.log() requires two arguments or more.")
	}
	if !ok {
		return s.fail(l, "ERR First argument must be a number (log level).")
	}
	if level = lua.LNumber(truncated(float64(level))); level < 0 || level > 3 {
		return s.fail(l, "ERR Invalid debug level.")
	}
	var words []string
	for i := 2; i <= l.GetTop(); i++ {
		if l.Get(i).Type() == lua.LTString || l.Get(i).Type() == lua.LTNumber {
			words = append(words, s.str(l, i))
		}
	}
	if s.logged++; s.logged <= maxLogged {
		text := strings.Join(words, " ")
		s.o.Log(int(level), text[:min(len(text), 1024)])
	}
	return 0
}

func (s *state) setResp(l *lua.LState) int {
	if l.GetTop() != 1 {
		return s.fail(l, "ERR redis.setresp() requires one argument.")
	}
	n, _ := numberOf(l.Get(1))
	if n != 2 && n != 3 {
		return s.fail(l, "ERR RESP version must be 2 or 3.")
	}
	s.resp3 = n == 3
	return 0
}

// setRepl checks its argument: there is nobody to replicate to.
func (s *state) setRepl(l *lua.LState) int {
	if l.GetTop() != 1 {
		return s.fail(l, "ERR redis.set_repl() requires one argument.")
	}
	if n, _ := numberOf(l.Get(1)); truncated(float64(n))&^3 != 0 {
		return s.fail(l, "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.")
	}
	return 0
}

func (s *state) aclCheck(l *lua.LState) int {
	if l.GetTop() == 0 {
		return s.fail(l, "ERR Please specify at least one argument for this redis lib call")
	}
	for i := range l.GetTop() {
		if t := l.Get(i + 1).Type(); t != lua.LTString && t != lua.LTNumber {
			return s.fail(l, wrongArguments)
		}
	}
	if !s.run.Known(s.str(l, 1)) {
		return s.fail(l, "ERR Invalid command passed to redis.acl_check_cmd()")
	}
	l.Push(lua.LTrue)
	return 1
}

// value is an answer as Lua has it, and what follows it.
func (s *state) value(l *lua.LState, b []byte) (v lua.LValue, rest []byte) {
	end := bytes.Index(b, []byte("\r\n"))
	kind, head, rest := b[0], b[1:end], b[end+2:]
	n := 0
	switch kind {
	case '$', '*', '%', '~', '=', '>':
		n, _ = strconv.Atoi(string(head))
	}
	field := func(name string, v lua.LValue) lua.LValue {
		t := l.CreateTable(0, 1)
		t.RawSetString(name, v)
		return t
	}
	switch kind {
	case '$':
		if n < 0 {
			return lua.LFalse, rest
		}
		return lua.LString(rest[:n]), rest[n+2:]
	case '+':
		return field("ok", lua.LString(head)), rest
	case '-':
		return s.commandError(l, string(head)), rest
	case ':':
		n, _ := strconv.ParseInt(string(head), 10, 64)
		return lua.LNumber(n), rest
	case '_':
		return lua.LNil, rest
	case '#':
		return lua.LBool(string(head) == "t"), rest
	case ',':
		f, _ := strconv.ParseFloat(string(head), 64)
		return field("double", lua.LNumber(f)), rest
	case '(':
		return field("big_number", lua.LString(head)), rest
	case '=':
		t := l.NewTable()
		t.RawSetString("format", lua.LString(rest[:3]))
		t.RawSetString("string", lua.LString(rest[4:n]))
		return field("verbatim_string", t), rest[n+2:]
	case '*', '>':
		if n < 0 {
			return lua.LFalse, rest
		}
		s.budget.take(l, n)
		t := l.CreateTable(n, 0)
		for i := range n {
			v, rest = s.value(l, rest)
			t.RawSetInt(i+1, v)
		}
		return t, rest
	case '%', '~':
		s.budget.take(l, n)
		t := l.CreateTable(0, n)
		for range n {
			var k lua.LValue
			k, rest = s.value(l, rest)
			v = lua.LTrue
			if kind == '%' {
				v, rest = s.value(l, rest)
			}
			if k != lua.LNil {
				s.fill(l, t, k)
				t.RawSet(k, v)
			}
		}
		return field(map[byte]string{'%': "map", '~': "set"}[kind], t), rest
	}
	return lua.LNil, rest
}

// maxReplyDepth bounds the tables in tables that a script answers, in Redis the
// interpreter's stack.
const maxReplyDepth = 1000

// reply writes a value as RESP.
func (s *state) reply(l *lua.LState, r *resp.Reply, v lua.LValue, depth int) {
	s.budget.take(l, 1)
	if depth > maxReplyDepth {
		r.Fail("ERR reached lua stack limit")
		return
	}
	switch v := v.(type) {
	case lua.LString:
		s.budget.take(l, len(v)/64)
		r.BulkString(string(v))
	case lua.LNumber:
		r.Int(truncated(float64(v)))
	case lua.LBool:
		switch {
		case s.resp3:
			r.Bool(bool(v))
		case bool(v):
			r.Int(1)
		default:
			r.Null()
		}
	case *lua.LTable:
		s.replyTable(l, r, v, depth)
	default:
		r.Null()
	}
}

// truncated is a number as an integer, as the processors that Redis runs on do it.
func truncated(f float64) int64 {
	if f != f || f >= 1<<63 || f < -1<<63 {
		return -1 << 63
	}
	return int64(f)
}

func (s *state) replyTable(l *lua.LState, r *resp.Reply, t *lua.LTable, depth int) {
	if behind := s.protected[t]; behind != nil {
		t = behind
	}
	if m, ok := t.RawGetString("err").(lua.LString); ok {
		s.run.Counted = depth == 0 && t.RawGetString(countedField) == lua.LTrue
		r.Fail(oneLine(string(m)))
		return
	}
	if m, ok := t.RawGetString("ok").(lua.LString); ok {
		r.Simple(oneLine(string(m)))
		return
	}
	if n, ok := t.RawGetString("double").(lua.LNumber); ok {
		r.Double(float64(n))
		return
	}
	if m, ok := t.RawGetString("map").(*lua.LTable); ok {
		s.replyPairs(l, r, m, r.MapOf, true, depth)
		return
	}
	if m, ok := t.RawGetString("set").(*lua.LTable); ok {
		s.replyPairs(l, r, m, r.SetOf, false, depth)
		return
	}
	if m, ok := t.RawGetString("big_number").(lua.LString); ok {
		r.BigNumber(oneLine(string(m)))
		return
	}
	if m, ok := t.RawGetString("verbatim_string").(*lua.LTable); ok {
		format, _ := m.RawGetString("format").(lua.LString)
		text, ok := m.RawGetString("string").(lua.LString)
		if ok && len(format) == 3 {
			r.Verbatim(string(format), string(text))
			return
		}
	}
	n := 0
	for t.RawGetInt(n+1) != lua.LNil {
		n++
	}
	s.budget.take(l, n)
	r.Array(n)
	for i := range n {
		s.reply(l, r, t.RawGetInt(i+1), depth+1)
	}
}

func (s *state) replyPairs(l *lua.LState, r *resp.Reply, t *lua.LTable, head func(int), values bool, depth int) {
	n := 0
	t.ForEach(func(lua.LValue, lua.LValue) { n++ })
	s.budget.take(l, n)
	head(n)
	t.ForEach(func(k, v lua.LValue) {
		s.reply(l, r, k, depth+1)
		if values {
			s.reply(l, r, v, depth+1)
		}
	})
}
