package ingest

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mcached/ingest/resp"
	"mcached/ingest/script"
)

// # Scripts
//
// A script runs as a transaction does, with no other command in between; package
// script has the interpreter and its bounds. One runs at a time. Those who come
// meanwhile wait for its gate, and are told BUSY once it has run for busyPart of
// its time: then SCRIPT KILL can be said.
//
// Compiled scripts are kept by their SHA1, those used last, within maxScripts and
// maxScriptBytes: a client whose script is gone is told NOSCRIPT, and sends it.

const (
	maxScripts     = 1000
	maxScriptBytes = 8 << 20 // of source; what is compiled of it takes some three times as much
	// busyPart: who waits for a script is told after a fifth of its time.
	busyPart = 5
)

const (
	errNoScript = "NOSCRIPT No matching script. Please use EVAL."
	errBusy     = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
)

// scripting is what a server has for scripts.
type scripting struct {
	engine *script.Engine             // used by who is alone
	now    atomic.Pointer[scriptRun]  // what runs
	ended  [script.Ends]atomic.Uint64 // scripts that were ended, by what ended them
	mu     sync.Mutex
	cache  map[string]*cachedScript // by SHA1
	bytes  int                      // of sources in cache
	clock  uint64                   // counts uses
}

type cachedScript struct {
	*script.Program
	used uint64
}

// scriptRun is a script at work.
type scriptRun struct {
	killed atomic.Bool
	wrote  atomic.Bool
	busy   chan struct{} // closed when others are told that they wait
	over   chan struct{} // closed at the end
}

func scriptCommands() []command {
	eval := "numkeys [key [key ...]] [arg [arg ...]]"
	return []command{
		{name: "eval", arity: -3, counted: 2, group: groupScripting, syntax: "script " + eval, summary: "Runs a Lua script.", flags: slow, run: func(c *conn, args [][]byte) { evalSource(c, args, false) }},
		{name: "eval_ro", arity: -3, counted: 2, group: groupScripting, syntax: "script " + eval, summary: "Runs a Lua script that writes nothing.", flags: slow | readonly, run: func(c *conn, args [][]byte) { evalSource(c, args, true) }},
		{name: "evalsha", arity: -3, counted: 2, group: groupScripting, syntax: "sha1 " + eval, summary: "Runs a Lua script by its SHA1.", flags: slow, run: func(c *conn, args [][]byte) { evalSHA(c, args, false) }},
		{name: "evalsha_ro", arity: -3, counted: 2, group: groupScripting, syntax: "sha1 " + eval, summary: "Runs a Lua script that writes nothing, by its SHA1.", flags: slow | readonly, run: func(c *conn, args [][]byte) { evalSHA(c, args, true) }},
		{name: "script", arity: -2, group: groupScripting, syntax: "LOAD script | EXISTS sha1 [sha1 ...] | FLUSH [ASYNC | SYNC] | KILL", summary: "Keeps scripts, and ends one that runs.", subs: []command{
			{name: "load", arity: 3, syntax: "script", summary: "Compiles a script, keeps it and returns its SHA1.", flags: slow, run: scriptLoad},
			{name: "exists", arity: -3, syntax: "sha1 [sha1 ...]", summary: "Tells which scripts are kept.", run: scriptExists},
			{name: "flush", arity: -2, syntax: "[ASYNC | SYNC]", summary: "Forgets all scripts.", run: scriptFlush},
			{name: "kill", arity: 2, summary: "Ends the script that runs, unless it has written.", run: scriptKill},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("script") }},
		}},
	}
}

// notForScripts are the commands that a script cannot call, with their
// subcommands: what is about the connection, the server or other scripts.
var notForScripts = []string{
	"auth", "hello", "quit", "reset", "client", "multi", "exec", "discard", "watch", "unwatch",
	"eval", "eval_ro", "evalsha", "evalsha_ro", "script", "function", "config", "module", "acl", "latency", "monitor", "role", "wait",
	"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe",
}

// servedWhileBusy are the commands that are run while a script keeps all others waiting.
var servedWhileBusy = []string{"auth", "hello", "quit", "reset", "multi", "discard", "unwatch", "script|kill"}

// marks sets a flag of the commands named and of their subcommands.
func marks(rows []command, flag flags, names []string) {
	for i := range rows {
		m := &rows[i]
		whole := slices.Contains(names, m.name)
		if whole {
			m.flags |= flag
		}
		for j := range m.subs {
			if whole || slices.Contains(names, m.name+"|"+m.subs[j].name) {
				m.subs[j].flags |= flag
			}
		}
	}
}

func newScripting(o *Options) *scripting {
	return &scripting{cache: map[string]*cachedScript{}, engine: script.NewEngine(script.Options{
		Timeout: o.ScriptTimeout, MaxBytes: int64(o.MaxScriptBytes), MaxSteps: int64(o.MaxScriptSteps), Now: time.Now, Version: redisVersion,
		Flags: map[string]string{"Timeout": o.flag("ScriptTimeout"), "MaxBytes": o.flag("MaxScriptBytes"), "MaxSteps": o.flag("MaxScriptSteps")},
		Log: func(level int, message string) {
			o.Logger.Debug("redis.log of a script", "level", level, "message", message)
		},
	})}
}

// compiled is a script that is kept, or that is compiled and kept now.
func (c *conn) compiled(source []byte) (*script.Program, bool) {
	k := c.srv.scripts
	if p := k.find(script.SHA(source)); p != nil {
		return p, true
	}
	if !c.room(script.CompiledBytes(min(len(source), script.MaxSourceBytes))) {
		return nil, false
	}
	p, err := script.Compile(source)
	if err != nil {
		c.Fail(err.Error())
		return nil, false
	}
	k.keep(p)
	return p, true
}

// kept is how many scripts are in the cache.
func (k *scripting) kept() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.cache)
}

func (k *scripting) find(sha string) *script.Program {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.cache[sha]
	if s == nil {
		return nil
	}
	k.clock++
	s.used = k.clock
	return s.Program
}

// keep adds a script, and forgets those that were not used for the longest time.
func (k *scripting) keep(p *script.Program) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cache[p.SHA] != nil {
		return
	}
	for len(k.cache) > 0 && (len(k.cache) >= maxScripts || k.bytes+p.Bytes > maxScriptBytes) {
		var oldest *cachedScript
		for _, s := range k.cache {
			if oldest == nil || s.used < oldest.used {
				oldest = s
			}
		}
		delete(k.cache, oldest.SHA)
		k.bytes -= oldest.Bytes
	}
	k.clock++
	k.cache[p.SHA] = &cachedScript{p, k.clock}
	k.bytes += p.Bytes
}

func evalSource(c *conn, args [][]byte, readOnly bool) {
	keys, rest, ok := c.scriptKeys(args)
	if !ok {
		return
	}
	if p, ok := c.compiled(args[1]); ok {
		c.runScript(p, keys, rest, readOnly)
	}
}

func evalSHA(c *conn, args [][]byte, readOnly bool) {
	keys, rest, ok := c.scriptKeys(args)
	if !ok {
		return
	}
	var p *script.Program
	if len(args[1]) == 40 {
		p = c.srv.scripts.find(string(resp.Lower(nil, args[1])))
	}
	if p == nil {
		c.Fail(errNoScript)
		return
	}
	c.runScript(p, keys, rest, readOnly)
}

// scriptKeys tells keys from other arguments, or answers what is wrong.
func (c *conn) scriptKeys(args [][]byte) (keys, rest [][]byte, ok bool) {
	n, ok := c.integerArg(args[2])
	switch {
	case !ok:
		return nil, nil, false
	case n > int64(len(args)-3):
		c.Fail("ERR Number of keys can't be greater than number of args")
		return nil, nil, false
	case n < 0:
		c.Fail("ERR Number of keys can't be negative")
		return nil, nil, false
	}
	return args[3 : 3+n], args[3+n:], true
}

// runScript runs a script alone and answers what it returns. The database that it
// selects is selected for itself.
func (c *conn) runScript(p *script.Program, keys, args [][]byte, readOnly bool) {
	if readOnly && p.Writes {
		c.Fail("ERR Can not execute a script with write flag using *_ro command.")
		return
	}
	k := c.srv.scripts
	at := scriptSlot{}
	c.alone(func() {
		if v := c.srv.view(); v != nil && len(keys) > 0 {
			at = scriptSlot{c.srv.o.Cluster.KeySlot(keys[0]), true}
			if problem := c.slotElsewhere(v, at.slot); problem != "" { // since it was let through
				c.Fail(problem)
				return
			}
		}
		run := &scriptRun{busy: make(chan struct{}), over: make(chan struct{})}
		busy := time.AfterFunc(c.srv.o.ScriptTimeout/busyPart, func() { close(run.busy) })
		k.now.Store(run)
		db, was := c.db, c.script
		c.script = run
		calls := scriptCalls{c: c, run: run, readOnly: readOnly || p.NoWrites, oneSlot: p.OneSlot, at: at}
		given := script.Run{Keys: keys, Args: args, Call: calls.call, Known: calls.known, Killed: &run.killed}
		by := k.engine.Run(p, &given, &c.Reply)
		c.counted = given.Counted && by == script.NotEnded
		if by != script.NotEnded {
			k.ended[by].Add(1)
			c.srv.o.Logger.Warn("a script was ended", "by", by, "sha1", p.SHA, "client", addressOf(c.accepted), "answer", clip(c.B[c.at:], 200))
		}
		c.script = was
		c.selects(db)
		busy.Stop()
		k.now.Store(nil)
		close(run.over)
		c.tooMuch("script")
	})
}

// scriptCalls are the commands that a script calls.
type scriptCalls struct {
	c        *conn
	run      *scriptRun
	readOnly bool
	oneSlot  bool
	at       scriptSlot
}

func (s *scriptCalls) known(name string) bool {
	return s.c.srv.commands.find([]byte(name)) != nil
}

// call runs a command, whose answer is behind those that wait to be sent, and is
// taken from there.
func (s *scriptCalls) call(args [][]byte, resp3 bool) []byte {
	c := s.c
	at, v3 := len(c.B), c.V3
	c.V3 = resp3
	cmd := c.srv.commands.find(args[0])
	if cmd != nil && cmd.subs != nil && len(args) > 1 && cmd.takes(len(args)) {
		cmd = cmd.sub(args[1])
	}
	switch {
	case cmd == nil:
		c.Fail("ERR Unknown Redis command called from script")
	case !cmd.takes(len(args)):
		c.Fail("ERR Wrong number of args calling Redis command from script")
	case cmd.flags&noscript != 0:
		c.Fail("ERR This Redis command is not allowed from script")
	case s.readOnly && cmd.flags&(write|published) != 0:
		c.Fail("ERR Write commands are not allowed from read-only scripts.")
	default:
		if problem := s.at.refuses(c.srv, s.oneSlot, args); problem != "" {
			c.Fail(problem)
			break
		}
		if cmd.flags&write != 0 {
			s.run.wrote.Store(true)
		}
		c.commands++
		c.run(cmd, args)
	}
	if c.B[at] == '-' {
		c.countError(c.B[at:])
	}
	c.V3 = v3
	reply := c.B[at:]
	c.B = c.B[:at]
	return reply
}

func scriptLoad(c *conn, args [][]byte) {
	if p, ok := c.compiled(args[2]); ok {
		c.BulkString(p.SHA)
	}
}

func scriptExists(c *conn, args [][]byte) {
	c.Array(len(args) - 2)
	for _, a := range args[2:] {
		c.Flag(len(a) == 40 && c.srv.scripts.find(string(resp.Lower(nil, a))) != nil)
	}
}

func scriptFlush(c *conn, args [][]byte) {
	if len(args) > 3 || len(args) == 3 && !slices.Contains([]string{"async", "sync"}, strings.ToLower(clip(args[2], 10))) {
		c.Fail("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
		return
	}
	k := c.srv.scripts
	k.mu.Lock()
	clear(k.cache)
	k.bytes = 0
	k.mu.Unlock()
	c.OK()
}

func scriptKill(c *conn, _ [][]byte) {
	run := c.srv.scripts.now.Load()
	switch {
	case run == nil:
		c.Fail("NOTBUSY No scripts in execution right now.")
	case run.wrote.Load():
		c.Fail("UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.")
	default:
		run.killed.Store(true)
		c.OK()
	}
}
