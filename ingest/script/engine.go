package script

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	lua "github.com/yuin/gopher-lua"

	"mcached/ingest/resp"
)

// Options are an Engine's bounds, all of which are required.
type Options struct {
	Timeout  time.Duration
	MaxBytes int64 // that a script may make the heap grow by
	MaxSteps int64 // instructions, and what counts as such
	// Flags is what an error that names one of these says of how to change it.
	Flags map[string]string
	Now   func() time.Time
	// Log gets what redis.log is given, from 0, debugging, to 3, a warning.
	Log func(level int, message string)
	// Version is what redis.REDIS_VERSION says, as 7.0.15.
	Version string
}

// Engine runs scripts, one at a time: the caller sees to that. What one script
// leaves behind, the next does not see.
type Engine struct {
	o      Options
	state  *state  // nil after a script that was ended
	random lrand48 // of all scripts, one after the other, as in Redis
}

// NewEngine returns an engine.
func NewEngine(o Options) *Engine { return &Engine{o: o, random: firstRandom} }

// Run is what a script is given.
type Run struct {
	Keys, Args [][]byte
	// Call runs a command and returns its whole answer, in RESP3 if resp3. The
	// answer is a view that is valid until the next call, as args are during it.
	Call func(args [][]byte, resp3 bool) []byte
	// Counted is set by Engine.Run where the script's error is one that a command
	// answered: who counts errors has had it from Call.
	Counted bool
	// Known reports whether there is a command, for redis.acl_check_cmd.
	Known  func(name string) bool
	Killed *atomic.Bool // by SCRIPT KILL; from any goroutine
}

const (
	// callDepth bounds the calls that are open, as C Lua's 20,000 do; some of
	// them take Go's stack too, a kilobyte or so.
	callDepth = 8000
	// registers bounds the values of all open calls, 16 bytes each.
	registers = 1 << 17
	// threadBytes is what a coroutine takes to begin with.
	threadBytes = 32 << 10
)

// state is an interpreter with its libraries.
type state struct {
	o      *Options
	l      *lua.LState
	global *lua.LTable // what scripts see as _G: empty, in front of real
	real   *lua.LTable
	// protected are the tables that cannot be changed, and what is behind them.
	protected map[*lua.LTable]*lua.LTable
	random    *lrand48
	concat    *lua.LFunction
	set, key  *lua.LFunction
	handler   *lua.LFunction

	// Of the script that runs.
	run    *Run
	budget *budget
	resp3  bool
	json   jsonOptions
	line   int // where the last error was raised
	source string
	logged int
	nested int // pcalls
}

// Run runs a script and writes what it returns to r: one answer, an error if it
// failed. It reports what ended the script, if it did not end by itself.
func (e *Engine) Run(p *Program, run *Run, r *resp.Reply) (by End) {
	if e.state == nil {
		e.state = newState(&e.o, &e.random)
	}
	s := e.state
	s.run, s.budget = run, newBudget(&e.o, run.Killed)
	s.resp3, s.json, s.logged, s.nested = false, defaultJSON(), 0, 0
	at := len(r.B)
	err := s.execute(p, r)
	if by = s.budget.by; by != NotEnded {
		err = errors.New(s.budget.why)
		e.state = nil // whatever it has grown to
	}
	if err != nil {
		r.B = r.B[:at]
		msg := oneLine(err.Error())
		if s.source != "" {
			msg += fmt.Sprintf(" script: %s, on @%s:%d.", p.SHA, s.source, s.line)
		}
		r.Fail(msg)
	}
	s.run, s.budget = nil, nil
	return by
}

// oneLine is a message as an error of RESP can have it.
func oneLine(s string) string { return strings.NewReplacer("\r", " ", "\n", " ").Replace(s) }

func (s *state) execute(p *Program, r *resp.Reply) (err error) {
	l := s.l
	l.SetContext(s.budget)
	s.line, s.source = 0, ""
	defer func() {
		l.RemoveContext()
		l.SetTop(0)
		s.real.RawSetString("KEYS", lua.LNil)
		s.real.RawSetString("ARGV", lua.LNil)
		if v := recover(); v != nil { // of the interpreter's own
			err = fmt.Errorf("ERR %v", v)
			s.budget.finish(ByFailure, "ERR script failed: "+oneLine(fmt.Sprint(v)))
		}
	}()
	s.real.RawSetString("KEYS", s.strings(s.run.Keys))
	s.real.RawSetString("ARGV", s.strings(s.run.Args))
	l.Push(s.function(l, p.proto))
	if err := l.PCall(0, 1, s.handler); err != nil {
		return s.reason(err)
	}
	v := l.Get(-1)
	// To write the value may run out of bounds too.
	l.Push(l.NewFunction(func(l *lua.LState) int {
		s.reply(l, r, v, 0)
		return 0
	}))
	if err := l.PCall(0, 0, nil); err != nil {
		return s.reason(err)
	}
	return nil
}

func (s *state) strings(all [][]byte) *lua.LTable {
	t := s.l.CreateTable(len(all), 0)
	for _, b := range all {
		t.Append(lua.LString(b))
	}
	return t
}

// function makes the function of what compile compiled.
func (s *state) function(l *lua.LState, proto *lua.FunctionProto) *lua.LFunction {
	outer := l.NewFunctionFromProto(proto)
	outer.Env = s.global
	l.Push(outer)
	helpers := s.helpers()
	for _, f := range helpers {
		l.Push(f)
	}
	l.Call(len(helpers), 1)
	inner := l.Get(-1).(*lua.LFunction)
	l.Pop(1)
	return inner
}

// handle is called where an error is raised, and notes where that is.
func (s *state) handle(l *lua.LState) int {
	for level := 1; level < 4; level++ {
		d, ok := l.GetStack(level)
		if !ok {
			break
		}
		if _, err := l.GetInfo("Sl", d, lua.LNil); err == nil && d.Source != "" {
			s.source, s.line = d.Source, d.CurrentLine
			break
		}
	}
	return 1 // the error as it is
}

// reason is what an error of the interpreter says to a client.
func (s *state) reason(err error) error {
	api := (*lua.ApiError)(nil)
	if !errors.As(err, &api) {
		return fmt.Errorf("ERR %w", err)
	}
	switch v := api.Object.(type) {
	case *lua.LTable:
		s.run.Counted = v.RawGetString(countedField) == lua.LTrue
		if m := v.RawGetString("err"); m.Type() == lua.LTString {
			return errors.New(m.String())
		}
		return errors.New("ERR unknown error")
	case lua.LString:
		if strings.HasSuffix(string(v), "overflow") && s.source == "" {
			// There was no room to say where, but the trace knows.
			s.source, s.line = chunkName, 1
			if m := traceLine.FindStringSubmatch(api.StackTrace); m != nil {
				s.line, _ = strconv.Atoi(m[1])
			}
			return fmt.Errorf("ERR %s:%d: stack overflow", s.source, s.line)
		}
		return errors.New("ERR " + worded(string(v)))
	case nil:
		return fmt.Errorf("ERR %w", err)
	}
	return errors.New("ERR " + s.text(api.Object))
}

var (
	arithmeticError = regexp.MustCompile(`cannot perform \w+ operation between (\w+) and (\w+)`)
	indexError      = regexp.MustCompile(`attempt to index a non-table object\((\w+)\) with key '.*'`)
	argumentError   = regexp.MustCompile(`bad argument #(\d+) to (\w+) `)
	traceLine       = regexp.MustCompile(chunkName + `:(\d+):`)
	compareError    = regexp.MustCompile(`attempt to compare (\w+) with (\w+)`)
	callError       = regexp.MustCompile(`attempt to call a non-function object`)
)

var otherErrors = strings.NewReplacer(
	"__len undefined", "attempt to get length of a value that has none",
	"__unm undefined", "attempt to perform arithmetic on a value that is no number",
	"can not resume a dead thread", "cannot resume dead coroutine",
	"can not yield from outside of a coroutine", "attempt to yield across metamethod/C-call boundary",
)

// worded is an error of gopher-lua's in Lua's words.
func worded(msg string) string {
	if m := arithmeticError.FindStringSubmatch(msg); m != nil {
		kind := m[2]
		if m[1] != "number" && m[1] != "string" || kind == "number" {
			kind = m[1]
		}
		return strings.Replace(msg, m[0], "attempt to perform arithmetic on a "+kind+" value", 1)
	}
	if m := indexError.FindStringSubmatch(msg); m != nil {
		return strings.Replace(msg, m[0], "attempt to index a "+m[1]+" value", 1)
	}
	if m := compareError.FindStringSubmatch(msg); m != nil && m[1] == m[2] {
		return strings.Replace(msg, m[0], "attempt to compare two "+m[1]+" values", 1)
	}
	msg = otherErrors.Replace(msg)
	msg = argumentError.ReplaceAllString(msg, "bad argument #$1 to '$2' ")
	return callError.ReplaceAllString(msg, "attempt to call a value that is no function")
}

// text is tostring(v) without metamethods.
func (s *state) text(v lua.LValue) string {
	if n, ok := v.(lua.LNumber); ok {
		return formatNumber(float64(n), 14)
	}
	return v.String()
}

// formatNumber is C's %.14g, or with as many digits.
func formatNumber(f float64, digits int) string {
	switch {
	case f != f:
		return "-nan" // as the processor's own is printed
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case f == float64(int64(f)) && f < 1e14 && f > -1e14 && f != 0:
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', digits, 64)
}

// str is an argument that is a string, or a number, which counts as one.
func (s *state) str(l *lua.LState, n int) string {
	switch v := l.Get(n).(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return s.text(v)
	}
	l.TypeError(n, lua.LTString)
	return ""
}
