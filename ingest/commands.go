package ingest

import (
	"strings"

	"mcached/ingest/resp"
)

// A command is a row of the table from which everything about commands comes:
// what is run, the check of the number of arguments, the answers of COMMAND,
// and the list in the package comment and cmd/mcached/docs/redis.md.
type command struct {
	name string
	// arity is the number of arguments, the name included; -n is n or more.
	arity int
	group group
	// syntax is what follows the name, in the notation of Redis' manual.
	syntax  string
	summary string
	flags   flags
	// keys are the places of the keys: first, last (negative from the end) and step.
	keys [3]int
	// counted, if not 0, is the place of the number of keys that follow it.
	counted int
	run     func(c *conn, args [][]byte)
	// subs are its subcommands, by which args[1] is then looked up. A command that
	// has run as well is run where there is no args[1].
	subs []command

	// These are made by index.
	whole     string // the name, of a subcommand with that of its command: client|list
	nameBytes []byte
	stats     *commandStats
}

type group string

const (
	groupConnection group = "connection"
	groupServer     group = "server"
	groupString     group = "string"
	groupGeneric    group = "generic"
	groupSeries     group = "timeseries"
	groupMetrics    group = "mcache"

	groupTransactions group = "transactions"
	groupPubSub       group = "pubsub"
	groupHash         group = "hash"
	groupSet          group = "set"
	groupScripting    group = "scripting"
)

type flags uint16

const (
	readonly flags = 1 << iota
	write
	denyoom
	fast
	noauth // may be said before AUTH
	admin
	noscript  // not for scripts
	slow      // may take long or wait: not to be run in a loop; not shown
	secret    // its arguments are logged and monitored redacted; not shown
	whileBusy // also while a script keeps all others waiting; not shown
	published // is told to others, so that a script that only reads may not; not shown
)

func (f flags) names() []string {
	var n []string
	for i, s := range []string{"readonly", "write", "denyoom", "fast", "no_auth", "admin", "noscript"} {
		if f&(1<<i) != 0 {
			n = append(n, s)
		}
	}
	return n
}

// commandSet is the table and the way into it.
type commandSet struct {
	rows   []command
	byName map[string]*command
	sorted []*command // those that are run, by their whole names
	byKind [bundleKinds]*command
}

func newCommandSet(metrics bool) commandSet {
	var rows []command
	rows = append(rows, connectionCommands()...)
	rows = append(rows, serverCommands()...)
	rows = append(rows, toolCommands()...)
	rows = append(rows, stringCommands()...)
	rows = append(rows, compareCommands()...)
	rows = append(rows, genericCommands()...)
	rows = append(rows, transactionCommands()...)
	rows = append(rows, pubsubCommands()...)
	rows = append(rows, databaseCommands()...)
	rows = append(rows, keyspaceCommands()...)
	rows = append(rows, hashCommands()...)
	rows = append(rows, setCommands()...)
	rows = append(rows, scriptCommands()...)
	rows = append(rows, clusterCommands()...)
	if metrics {
		for _, m := range metricCommands() {
			m.flags |= slow // writing may wait for memory, and reading for much
			rows = append(rows, m)
		}
	}
	marks(rows, noscript, notForScripts)
	marks(rows, whileBusy, servedWhileBusy)
	s := commandSet{rows: rows, byName: make(map[string]*command, len(rows))}
	for i := range rows {
		s.byName[rows[i].name] = &rows[i]
	}
	s.index()
	s.byKind = [bundleKinds]*command{bundleGet: s.byName["get"], bundleSet: s.byName["set"], bundleAdd: s.byName["ts.add"]}
	return s
}

// maxNameBytes is longer than any command's name.
const maxNameBytes = 24

// find looks up a name in any case.
func (s *commandSet) find(name []byte) *command {
	if len(name) > maxNameBytes {
		return nil
	}
	var buf [maxNameBytes]byte
	return s.byName[string(resp.Lower(buf[:0], name))]
}

func (m *command) sub(name []byte) *command {
	for i := range m.subs {
		if resp.EqualFold(name, m.subs[i].name) {
			return &m.subs[i]
		}
	}
	return nil
}

// container reports whether a subcommand is what args, of m, are to run.
func (m *command) container(args [][]byte) bool {
	return m.subs != nil && (m.run == nil || len(args) > 1)
}

func (m *command) takes(args int) bool {
	return args == m.arity || m.arity < 0 && args >= -m.arity
}

// execute runs one command. args are views of the input.
func (c *conn) execute(args [][]byte) {
	c.commands++
	c.at = len(c.B)
	cmd := c.srv.commands.find(args[0])
	switch {
	case cmd == nil && crossProtocol(args[0]):
		c.srv.o.Logger.Warn("closing a RESP connection that talks HTTP", "client", addressOf(c.accepted))
		c.quit = true
		return
	case cmd == nil:
		c.broken(cmd)
		c.unknown(args)
	case !cmd.takes(len(args)):
		c.broken(cmd)
		cmd.stats.rejected.Add(1)
		c.failArity(cmd)
	case !c.authenticated && cmd.flags&noauth == 0:
		cmd.stats.rejected.Add(1)
		c.Fail("NOAUTH Authentication required.")
	case c.apart && c.restricted() && !mayWhileSubscribed(cmd):
		c.failSubscribed(cmd, args)
	case c.apart && c.ears.monitors.Load() && cmd.flags&(readonly|write|published) != 0:
		cmd.stats.rejected.Add(1)
		c.Fail("ERR Replica can't interact with the keyspace")
	case c.waits != nil && !c.mayWhileBusy(cmd, args):
		c.failBusy(cmd)
	case c.srv.o.Cluster != nil && !c.belongs(cmd, args):
		if len(c.B) > c.at && c.B[c.at] == '-' {
			c.broken(cmd)
		}
	case c.queues(cmd):
		if !cmd.container(args) {
			c.enqueue(cmd, args)
		} else if sub := c.subOf(cmd, args); sub != nil {
			c.enqueue(sub, args)
		} else {
			c.broken(cmd)
		}
	default:
		if c.srv.attention.bits.Load()&paused != 0 {
			c.waitPause(cmd)
		}
		c.runAny(cmd, args)
		if c.apart {
			c.cachingEnds()
		}
	}
	c.answered()
}

// answered counts an answer that is an error, and takes back what nobody wants to
// hear.
func (c *conn) answered() {
	c.countAnswer(c.at)
	if c.silent || c.skip > 0 {
		c.B = c.B[:c.at]
		if c.skip > 0 {
			c.skip--
		}
	}
}

// runAny runs a command or the subcommand that is meant.
func (c *conn) runAny(cmd *command, args [][]byte) {
	if !cmd.container(args) {
		c.run(cmd, args)
	} else if sub := c.subOf(cmd, args); sub != nil {
		c.run(sub, args)
	}
}

// subOf is the subcommand that is meant, or nil, and then it answers why.
func (c *conn) subOf(cmd *command, args [][]byte) *command {
	if len(args) < 2 {
		c.wrongArity(cmd.name)
		return nil
	}
	sub := cmd.sub(args[1])
	switch {
	case sub == nil:
		c.Fail("ERR unknown subcommand '" + clip(args[1], 128) + "'. Try " + strings.ToUpper(cmd.name) + " HELP.")
	case !sub.takes(len(args)):
		sub.stats.rejected.Add(1)
		c.wrongArity(sub.whole)
		sub = nil
	}
	return sub
}

// failSubscribed refuses what a RESP2 connection that listens to channels may not
// say, by the name of the subcommand if there is one, as Redis does.
func (c *conn) failSubscribed(cmd *command, args [][]byte) {
	if cmd.container(args) {
		if cmd = c.subOf(cmd, args); cmd == nil {
			return
		}
	}
	cmd.stats.rejected.Add(1)
	c.Fail("ERR Can't execute '" + cmd.whole + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context")
}

// run runs a command, outside of the loop if it may take long.
func (c *conn) run(cmd *command, args [][]byte) {
	if c.loop != nil && !c.holdsBack() && (cmd.flags&slow != 0 || len(args) > loopArgs) {
		c.leave() // if it can
	}
	if c.db != 0 && cmd.group == groupSeries {
		c.Fail(errSeriesDB)
		return
	}
	c.ran(cmd)
	if c.srv.attention.bits.Load()&monitored != 0 {
		c.show(cmd, args)
	}
	if c.apart {
		c.trackRead(cmd, args)
	}
	at := len(c.B)
	cmd.run(c, args)
	c.wrote(cmd, args)
	c.tellsBroadcasts()
	c.worked()
	c.ended(cmd, args, len(c.B) > at && c.B[at] == '-')
}

// ran notes the command for CLIENT LIST.
func (c *conn) ran(cmd *command) {
	if c.last.Load() != cmd {
		if c.authenticated && !c.known.Load() {
			c.known.Store(true)
		}
		c.last.Store(cmd)
	}
}

// crossProtocol recognizes the start of an HTTP request: a browser that was
// made to post to this port must not get its body run as commands.
func crossProtocol(name []byte) bool {
	return resp.EqualFold(name, "post") || resp.EqualFold(name, "host:")
}

// unknown words the error as Redis does, because clients look for it.
func (c *conn) unknown(args [][]byte) {
	var b strings.Builder
	b.WriteString("ERR unknown command '" + clip(args[0], 128) + "', with args beginning with: ")
	for at, a := b.Len(), args[1:]; len(a) > 0 && b.Len()-at < 128; a = a[1:] {
		b.WriteString("'" + clip(a[0], 128-(b.Len()-at)) + "' ")
	}
	c.Fail(b.String())
}

func (c *conn) wrongArity(name string) {
	c.Fail("ERR wrong number of arguments for '" + name + "' command")
}

// wrongSubArity words it as Redis does where a subcommand itself counts its arguments.
func (c *conn) wrongSubArity(args [][]byte) {
	c.Fail("ERR unknown subcommand or wrong number of arguments for '" + clip(args[1], 128) + "'. Try " + strings.ToUpper(clip(args[0], maxNameBytes)) + " HELP.")
}

func clip(b []byte, n int) string { return string(b[:min(len(b), n)]) }

const (
	errSyntax  = "ERR syntax error"
	errInteger = "ERR value is not an integer or out of range"
	errFloat   = "ERR value is not a valid float"
)

// integerArg reads an integer or answers that it is none.
func (c *conn) integerArg(b []byte) (int64, bool) {
	v, ok := resp.ParseInt(b)
	if !ok {
		c.Fail(errInteger)
	}
	return v, ok
}
