package ingest

import (
	"runtime"
	"slices"
	"sync"
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
//
// WATCH puts its keys into a table that writers look at while there is any. A
// key that was there and is gone counts as changed: it expired, or its memory
// was wanted.

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

type watched struct {
	dbKey
	there bool // when it was watched
}

// dbKey is a key in a database.
type dbKey struct {
	db  int
	key string
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
	// gateTries is how often a loop looks whether others have ended their commands.
	gateTries = 16
)

// gates are what holds all commands off; see above.
type gates struct {
	mu     sync.Mutex // held by the transaction that is run
	shared sync.RWMutex
	all    []*sync.RWMutex // shared and those of the loops, constant while anything is served
}

// watchers are the connections that watch a key.
type watchers struct {
	some atomic.Bool // there are any
	mu   sync.Mutex
	keys map[dbKey][]*conn
}

// enterGate is called before commands are run, leaveGate after. Where a script
// keeps it waiting for long it returns without the gate, and waits is set: then
// next to nothing is to be run.
func (c *conn) enterGate() {
	c.gate = c.gateOf()
	if c.waits = c.srv.enters(c.gate); c.waits != nil {
		c.gate = nil
	}
}

// enterGateAgain is for who has let go of the gate in the middle of a command.
func (c *conn) enterGateAgain() {
	c.gate = c.gateOf()
	c.gate.RLock()
}

func (c *conn) gateOf() *sync.RWMutex {
	if c.loop != nil {
		return &c.loop.gate
	}
	return &c.srv.gates.shared
}

// enters takes a gate, or returns the script that holds all of them and has for
// so long that others are told.
func (s *Server) enters(gate *sync.RWMutex) *scriptRun {
	for !gate.TryRLock() {
		run := s.scripts.now.Load()
		if run == nil {
			gate.RLock()
			return nil
		}
		select {
		case <-run.over:
		case <-run.busy:
			return run
		}
	}
	return nil
}

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

func (c *conn) leaveGate() {
	c.waits = nil
	if c.gate != nil {
		c.gate.RUnlock()
		c.gate = nil
	}
}

// alone runs f while no other connection runs a command.
func (c *conn) alone(f func()) {
	if c.holdsBack() {
		f() // inside of a transaction, which is alone
		return
	}
	g := &c.srv.gates
	behind := c.gate != nil
	c.leaveGate()
	g.mu.Lock()
	for _, gate := range g.all {
		gate.Lock()
	}
	f()
	for _, gate := range g.all {
		gate.Unlock()
	}
	g.mu.Unlock()
	if behind {
		c.enterGateAgain()
	}
}

// aloneAtOnce is alone for a connection in a loop, whose others must not wait. It
// reports false, and does not call f, if another connection is alone, or one
// outside of the loops does not end its command at once.
func (c *conn) aloneAtOnce(f func()) bool {
	g := &c.srv.gates
	if !g.mu.TryLock() {
		return false
	}
	defer g.mu.Unlock()
	if !tryFor(&g.shared, gateTries) {
		return false
	}
	defer g.shared.Unlock()
	c.gate.RUnlock()
	loops := g.all[1:]
	for _, gate := range loops {
		gate.Lock()
	}
	f()
	for _, gate := range loops {
		gate.Unlock()
	}
	c.gate.RLock() // at once: who is to be alone needs g.mu
	return true
}

func tryFor(gate *sync.RWMutex, times int) bool {
	for range times {
		if gate.TryLock() {
			return true
		}
		runtime.Gosched()
	}
	return false
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

// queues reports whether cmd is queued, or refused, instead of run now, and
// answers it then. cmd is nil for one that is unknown.
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
	c.srv.o.Logger.Debug("closing a RESP connection", "client", addressOf(c.sock), "why", "others need the room that its transaction takes")
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
	if len(c.B) > at && c.B[at] == '-' {
		c.countError(c.B[at:])
	}
}

// tooMuch ends a connection whose transaction or script answers more than a
// connection may be sent at a time; the commands are run all the same, as what was
// written is written.
func (c *conn) tooMuch(what string) {
	if len(c.B)-c.at > c.srv.o.MaxCommandBytes {
		if !c.quit {
			c.srv.o.Logger.Warn("closing a RESP connection: the answers of its "+what+" are too long", "client", addressOf(c.sock), "limit", c.srv.o.MaxCommandBytes)
		}
		c.quit = true
		c.B = append(c.B[:c.at], "-ERR the answers of the "+what+" are too long, the limit is "...)
		c.B = append(c.B, itoa(int64(c.srv.o.MaxCommandBytes))+" bytes\r\n"...)
	}
}

// holdsBack says that answers are collected, because nobody may be waited for.
func (c *conn) holdsBack() bool { return c.script != nil || c.tx != nil && c.tx.running }

func watch(c *conn, args [][]byte) {
	if c.tx == nil {
		c.tx = new(transaction)
	}
	if c.tx.open {
		c.Fail("ERR WATCH inside MULTI is not allowed")
		return
	}
	if len(c.tx.watched)+len(args)-1 > maxQueued {
		c.Fail("ERR too many watched keys, the limit is " + itoa(maxQueued))
		return
	}
	w := &c.srv.watchers
	w.mu.Lock()
	w.some.Store(true)
	if w.keys == nil {
		w.keys = map[dbKey][]*conn{}
	}
	for _, a := range args[1:] {
		key := dbKey{c.db, string(a)}
		if !slices.Contains(w.keys[key], c) {
			w.keys[key] = append(w.keys[key], c)
			c.tx.watched = append(c.tx.watched, watched{dbKey: key})
		}
	}
	w.mu.Unlock()
	for i := len(c.tx.watched) - 1; i >= 0 && i >= len(c.tx.watched)-len(args)+1; i-- {
		k := &c.tx.watched[i]
		k.there = c.srv.has(k.db, []byte(k.key))
	}
	c.OK()
}

// unwatch forgets all that is watched.
func (c *conn) unwatch() {
	if c.tx == nil || len(c.tx.watched) == 0 {
		return
	}
	w := &c.srv.watchers
	w.mu.Lock()
	for _, k := range c.tx.watched {
		left := slices.DeleteFunc(w.keys[k.dbKey], func(o *conn) bool { return o == c })
		if len(left) > 0 {
			w.keys[k.dbKey] = left
		} else {
			delete(w.keys, k.dbKey)
		}
	}
	w.some.Store(len(w.keys) > 0)
	w.mu.Unlock()
	c.tx.watched = nil
	c.tx.dirty.Store(false)
}

// changed reports whether something that is watched is not as it was.
func (c *conn) changed() bool {
	return c.tx.dirty.Load() || slices.ContainsFunc(c.tx.watched, func(k watched) bool { return k.there && !c.srv.has(k.db, []byte(k.key)) })
}

// wrote tells those who watch, or track, of the keys of a command that has run.
func (c *conn) wrote(cmd *command, args [][]byte) {
	s := c.srv
	if cmd.flags&write == 0 || !s.watchers.some.Load() && s.tracking.some.Load() == 0 {
		return
	}
	if cmd.keys[0] == 0 {
		// FLUSHALL and its like: what was there is gone, which EXEC sees.
		if cmd.group == groupServer && s.tracking.some.Load() > 0 {
			s.tracking.flushed()
		}
		return
	}
	if c.broadcasts == nil && s.tracking.some.Load() > 0 {
		c.broadcasts = new(broadcasts)
	}
	cmd.eachKey(args, func(key []byte) { s.wroteKey(c.db, key, c, c.broadcasts) })
}

// tellsBroadcasts tells of what was written, if what wrote it is over.
func (c *conn) tellsBroadcasts() {
	if c.broadcasts != nil && !c.holdsBack() {
		c.srv.tracking.broadcast(c.broadcasts, c)
	}
}

// wroteKey tells of a key that by has written, nil for one who does not track.
// b is nil only when nobody tracked a moment ago.
func (s *Server) wroteKey(db int, key []byte, by *conn, b *broadcasts) {
	if b != nil {
		s.tracking.wrote(key, by, b)
	}
	if !s.watchers.some.Load() {
		return
	}
	w := &s.watchers
	w.mu.Lock()
	for _, c := range w.keys[dbKey{db, string(key)}] {
		c.tx.dirty.Store(true)
	}
	w.mu.Unlock()
}

// wroteBundle is wrote for a bundle. In a transaction its end tells of it.
func (c *conn) wroteBundle(keys [][]byte) {
	if !c.holdsBack() || c.srv.tracking.some.Load() == 0 {
		c.srv.wroteKeys(c.db, keys)
		return
	}
	if c.broadcasts == nil {
		c.broadcasts = new(broadcasts)
	}
	for _, k := range keys {
		c.srv.wroteKey(c.db, k, c, c.broadcasts)
	}
}

// wroteKeys is for commands that were run together.
func (s *Server) wroteKeys(db int, keys [][]byte) {
	if s.watchers.some.Load() || s.tracking.some.Load() > 0 {
		var b broadcasts
		for _, k := range keys {
			s.wroteKey(db, k, nil, &b)
		}
		s.tracking.broadcast(&b, nil)
	}
}
