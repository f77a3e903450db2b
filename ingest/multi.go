package ingest

import (
	"sync/atomic"

	"mcached/ingest/admission"
	"mcached/ingest/resp"
)

// # Transactions
//
// Between MULTI and EXEC commands are checked and queued; EXEC runs them with no
// other command of any client in between. Everything that runs commands, a loop
// or a connection's own goroutine, holds a gate for reading meanwhile: a loop
// has its own, which nobody else touches as a rule, and all other connections
// share one. EXEC takes all gates for writing. Sockets are never waited for
// behind a gate: what is answered inside of a transaction is collected, and a
// connection lets go of its gate while it waits for its client to read.
//
//	loop 1 ──▶ gate 1 ─┐
//	loop 2 ──▶ gate 2 ─┼─▶ EXEC holds all of them
//	others ──▶ gate  0 ┘
//
// A loop's gate is held for a short time only, because what is slow leaves its
// loop and takes the other gate before it begins. So a short transaction is run
// where its connection is, if nobody holds the other gate, and waits for
// the loops. A longer one leaves.
//
// What is queued is copied to one text. GETs and SETs that follow one another are
// run together, as in a pipeline.

// maxQueued bounds the commands of a transaction.
const maxQueued = 1 << 16

// transaction is what a connection has queued and watches.
type transaction struct {
	open   bool  // MULTI was said
	broken bool  // a command could not be queued
	slow   bool  // a command may take long
	queued       // copies of the commands
	bytes  int64 // of the queue
	lent   int64 // of these, and ahead
	lease  admission.Lease
	first  *queued // where the queue begins, nil while there is none

	watched []watched
	dirty   atomic.Bool // a watched key was written; set by others
	running bool        // EXEC is at work
}

// queued is a queue of commands. args and text are the newest pieces of what its
// commands are views of.
type queued struct {
	queue [][][]byte
	args  [][]byte
	text  []byte
}

// firstQueued is enough for most transactions; servers keep some.
func firstQueued() *queued {
	return &queued{make([][][]byte, 0, argsPiece), make([][]byte, 0, argsPiece), make([]byte, 0, textPiece)}
}

const (
	// queuedBytes is what a queued argument takes beside its bytes.
	queuedBytes = 48
	// lentAhead is how much more than is needed is lent at a time.
	lentAhead = 4 << 10
	// textPiece and argsPiece are the sizes of the first pieces that a queue is
	// copied to; each further one is twice as large, up to so many times.
	textPiece, argsPiece, pieceGrowth = 2 << 10, 64, 16
	// shortBytes bounds a transaction that is run in a loop, beside turnCommands.
	shortBytes = 64 << 10
)

// mayWhileBusy reports whether a command may be run while a script holds all
// gates.
func (c *conn) mayWhileBusy(cmd *command, args [][]byte) bool {
	if cmd.subs != nil && len(args) > 1 {
		if sub := cmd.sub(args[1]); sub != nil {
			cmd = sub
		}
	}
	return cmd.flags&whileBusy != 0
}

func transactionCommands() []command {
	return []command{
		{name: "multi", arity: 1, group: groupTransactions, summary: "Begins a transaction.", flags: fast, run: multi},
		{name: "exec", arity: 1, group: groupTransactions, summary: "Runs the commands of the transaction.", run: execTransaction},
		{name: "discard", arity: 1, group: groupTransactions, summary: "Forgets the transaction.", flags: fast, run: discard},
		{name: "watch", arity: -2, group: groupTransactions, syntax: "key [key ...]", summary: "Has EXEC do nothing if one of the keys is written before.", flags: fast, keys: [3]int{1, -1, 1}, run: watch},
		{name: "unwatch", arity: 1, group: groupTransactions, summary: "Forgets all that is watched.", flags: fast, run: func(c *conn, _ [][]byte) { c.unwatch(); c.OK() }},
	}
}

// queues reports whether cmd is queued, or refused, instead of run now. cmd is nil
// for one that is unknown.
func (c *conn) queues(cmd *command) bool {
	if c.tx == nil || !c.tx.open || c.tx.running {
		return false
	}
	if cmd == nil {
		return true
	}
	switch cmd.name {
	case "multi", "exec", "discard", "watch", "quit", "reset":
		return false
	}
	return true
}

// broken notes that a command was refused, which spoils the transaction it is
// part of, if it is.
func (c *conn) broken(cmd *command) {
	if c.queues(cmd) {
		c.tx.broken = true
	}
}

// failArity refuses a command, which spoils a transaction even where the command
// is not one that is queued; EXEC ends it.
func (c *conn) failArity(cmd *command) {
	if c.tx == nil || !c.tx.open || c.tx.running {
		c.wrongArity(cmd.name)
		return
	}
	c.tx.broken = true
	if cmd.name != "exec" {
		c.wrongArity(cmd.name)
		return
	}
	c.forget()
	c.Fail("EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command")
}

// enqueue queues a command that has been checked.
func (c *conn) enqueue(cmd *command, args [][]byte) {
	x := c.tx
	n := int64(0)
	for _, a := range args {
		n += int64(len(a)) + queuedBytes
	}
	switch {
	case len(x.queue) >= maxQueued:
		c.breaks("ERR too many commands in a transaction, the limit is " + itoa(maxQueued))
		return
	case x.bytes+n > int64(c.srv.o.MaxCommandBytes):
		c.breaks("ERR too many bytes in a transaction: " + itoa(x.bytes+n) + ", the limit is " + itoa(int64(c.srv.o.MaxCommandBytes)))
		return
	}
	if x.queue == nil {
		x.lease.Open(c.srv.o.Admission, admission.Input, c.cutQueue)
		x.first = c.srv.queues.Get().(*queued)
		x.queued = *x.first
	}
	if x.bytes+n > x.lent {
		more := x.bytes + n - x.lent + lentAhead
		if err := x.lease.Try(more); err != nil {
			x.broken = true
			c.refusedRoom(err)
			return
		}
		x.lent += more
	}
	x.bytes += n
	x.slow = x.slow || cmd.flags&slow != 0 || cmd.whole != cmd.name || len(args) > loopArgs
	x.keep(args)
	c.multi.Store(int32(len(x.queue) + 1))
	c.multiBytes.Store(x.bytes)
	c.Simple("QUEUED")
}

// keep copies a command to the queue.
func (x *queued) keep(args [][]byte) {
	if len(x.args)+len(args) > cap(x.args) {
		x.args = make([][]byte, 0, max(len(args), min(2*cap(x.args), argsPiece*pieceGrowth)))
	}
	at := len(x.args)
	for _, a := range args {
		if len(x.text)+len(a) > cap(x.text) {
			x.text = make([]byte, 0, max(len(a), min(2*cap(x.text), textPiece*pieceGrowth)))
		}
		from := len(x.text)
		x.text = append(x.text, a...)
		x.args = append(x.args, x.text[from:len(x.text):len(x.text)])
	}
	x.queue = append(x.queue, x.args[at:len(x.args):len(x.args)])
}

// short reports whether the transaction may be run in a loop.
func (x *transaction) short() bool {
	return !x.slow && len(x.queue) <= turnCommands && x.bytes <= shortBytes
}

// cutQueue ends the connection, whose transaction keeps others from the room
// that it takes and does not go on. It is called from any goroutine.
func (c *conn) cutQueue() {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if _, open := c.srv.conns[c]; !open {
		return
	}
	c.srv.counters.overloaded.Add(1)
	c.srv.o.Logger.Debug("closing a RESP connection", "client", addressOf(c.accepted), "why", "others need the room that its transaction takes")
	c.shut()
}

// breaks answers an error for a command that is not queued, after which EXEC
// runs none.
func (c *conn) breaks(msg string) {
	c.tx.broken = true
	c.Fail(msg)
}

// failBusy refuses a command because a script runs for long, and with EXEC the
// transaction.
func (c *conn) failBusy(cmd *command) {
	c.broken(cmd)
	if cmd.name == "exec" && c.tx != nil && c.tx.open {
		c.forget()
		c.Fail("EXECABORT Transaction discarded because of: " + errBusy)
		return
	}
	c.Fail(errBusy)
}

func multi(c *conn, _ [][]byte) {
	switch {
	case c.tx == nil:
		c.tx = new(transaction)
	case c.tx.open:
		c.Fail("ERR MULTI calls can not be nested")
		return
	}
	c.tx.open = true
	c.multi.Store(1)
	c.OK()
}

func discard(c *conn, _ [][]byte) {
	if c.tx == nil || !c.tx.open {
		c.Fail("ERR DISCARD without MULTI")
		return
	}
	c.forget()
	c.OK()
}

// forget ends the transaction, if there is one, and all that is watched.
func (c *conn) forget() {
	c.unwatch()
	if c.tx != nil {
		if x := c.tx; x.first != nil {
			if c.span.calls > 0 {
				c.measure(nil) // it may have a view of the queue
			}
			clear(x.first.queue[:cap(x.first.queue)]) // what it grew by
			clear(x.first.args[:cap(x.first.args)])
			poison(x.first.text[:cap(x.first.text)])
			c.srv.queues.Put(x.first)
		}
		c.tx.lease.Release()
		c.tx = nil
		c.multi.Store(0)
		c.multiBytes.Store(0)
	}
}

func execTransaction(c *conn, _ [][]byte) {
	x := c.tx
	switch {
	case x == nil || !x.open:
		c.Fail("ERR EXEC without MULTI")
		return
	case x.broken:
		c.forget()
		c.Fail("EXECABORT Transaction discarded because of previous errors.")
		return
	}
	run := func() {
		if problem := c.queuedElsewhere(x.queue); problem != "" {
			c.Fail(problem)
			return
		}
		if c.changed() {
			c.NullArray()
			return
		}
		x.running = true
		c.Array(len(x.queue))
		c.runQueue(x.queue)
		x.running = false
	}
	if c.loop == nil || !x.short() || !c.aloneAtOnce(run) {
		if c.loop != nil {
			c.leave() // if it can
		}
		c.alone(run)
	}
	c.forget()
}

func (c *conn) runQueue(queue [][][]byte) {
	for _, args := range queue {
		if kind := c.bundleOfQueued(args); kind != noBundle {
			c.join(kind, args)
			continue
		}
		c.runBundle()
		c.runQueued(args)
		c.tooMuch("transaction")
	}
	c.runBundle()
	c.tooMuch("transaction")
}

// bundleOfQueued is bundleOf for a command of a transaction, which was checked when it
// was queued.
func (c *conn) bundleOfQueued(args [][]byte) bundleKind {
	switch {
	case c.apart || c.silent || c.skip > 0 || c.srv.attention.bits.Load() != 0:
	case len(args) == 2 && resp.EqualFold(args[0], "get"):
		return bundleGet
	case len(args) == 3 && resp.EqualFold(args[0], "set"):
		return bundleSet
	}
	return noBundle
}

// runQueued runs one command of a transaction and counts it.
func (c *conn) runQueued(args [][]byte) {
	c.commands++
	at := len(c.B)
	cmd := c.srv.commands.find(args[0])
	c.runAny(cmd, args)
	c.countAnswer(at)
}

// tooMuch ends a connection whose transaction or script answers more than a
// connection may be sent at a time; the commands are run all the same, as what was
// written is written.
func (c *conn) tooMuch(what string) {
	if len(c.B)-c.at > c.srv.o.MaxCommandBytes {
		if !c.quit {
			c.srv.o.Logger.Warn("closing a RESP connection: the answers of its "+what+" are too long", "client", addressOf(c.accepted), "limit", c.srv.o.MaxCommandBytes)
		}
		c.quit = true
		c.B = append(c.B[:c.at], "-ERR the answers of the "+what+" are too long, the limit is "...)
		c.B = append(c.B, itoa(int64(c.srv.o.MaxCommandBytes))+" bytes\r\n"...)
	}
}

// holdsBack says that answers are collected, because nobody may be waited for.
func (c *conn) holdsBack() bool { return c.script != nil || c.tx != nil && c.tx.running }
