package ingest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mcached/ingest/admission"
	"mcached/ingest/resp"
	"mcached/mcache"
)

const (
	// bufferBytes is a connection's first buffer for input: a pipeline of 64
	// commands of 200 bytes. It is only held while there is input.
	bufferBytes = 16 << 10
	// lingers is how long is read and discarded after the last answer, so that
	// the kernel does not reset the connection because input was left unread:
	// who cannot send does not read any more.
	lingers = 2 * time.Second
)

// conn is one client. A goroutine, that of its loop or its own, reads what
// there is, runs the commands in it and writes the answers in one go; nothing
// else touches a conn but through the fields that say so.
type conn struct {
	srv *Server
	// accepted is what was accepted. It is closed in a loop and after one, and keeps its
	// addresses, which those of another descriptor are not: the kernel tells of no peer
	// that has gone.
	accepted net.Conn
	sock     net.Conn        // accepted, or another descriptor of it; closed in a loop
	nc       net.Conn        // sock, or TLS on it
	raw      syscall.RawConn // nil where nc is not a plain socket
	// under is the socket below TLS, to ask what it has sent; else nil.
	under syscall.RawConn
	id    int64

	// While it is in a loop; see there. They change under Server.mu.
	loop *loop
	fd   int // -1 when in no loop
	slot int32
	// These belong to the loop's goroutine.
	queued   bool // it stands in loop.ready
	readable bool // the socket may have something
	hung     bool // the client has hung up, or the connection broke
	more     bool // the input may have commands that were left for the next turn
	asleep   bool // this turn: keys are not served, see pulse
	small    bool // what was read last was one command that can be gathered
	summoned bool // it is to leave as soon as it speaks RESP3: another redirects to it
	met      int  // for loop.crowd

	// in[start:end] was read and not used up. Nil while there is none.
	in         []byte
	start, end int
	need       int             // how long the command in progress is at the least
	lease      admission.Lease // for an input that is not whole, or larger than bufferBytes
	held       int64           // bytes of it
	framer     resp.Framer
	dropping   dropping // a command with an argument that is too long
	limits     *resp.Limits
	resp.Reply
	outBuf *buffer  // that B was taken from, nil while there are no answers
	pieces [][]byte // of a long answer that is to be written, nil between answers
	at     int      // where in B the answer to the command at work begins
	client

	backlog    *backlog        // nil unless the client was slower than its answers
	work       admission.Lease // for what the command at work collects
	working    bool            // work is open
	busy       error           // why a query of it has no result, if that is for want of room
	gate       *sync.RWMutex   // held for reading while commands are run
	waits      *scriptRun      // that keeps this connection from its gate
	script     *scriptRun      // of this connection, at work
	tx         *transaction    // nil for none
	broadcasts *broadcasts     // what is written and not yet told; nil until somebody tracked
	apart      bool            // it is or was told of something: no bundles
	ears       ears            // what it is told of by others
	subs       subscriptions   // nil for none
	bundle     *bundle         // of commands that are to be run together, nil between turns
	workspace  *workspace      // for hashes and sets, nil until it has seen one
	span       span            // of commands that were run and are not counted yet
	batch      mcache.Batch    // for TS.ADD
	changes    *changes        // keys that it wrote and whose heirs do not have them yet, or nil
	compacted  [][]byte        // destinations that it wrote, of which nobody has been told

	// For readFn and writeFn, which RawConn calls.
	readFn, writeFn func(fd uintptr) bool
	ioN             int
	ioErr           error
	out             []byte

	// Added to the server's counters after each read.
	commands, failed uint64

	// Read by the sweeper and CLIENT LIST: ticks, 0 for not.
	created    int64
	active     atomic.Int64 // last time that something was read
	known      atomic.Bool  // a command has run past AUTH
	unread     atomic.Int64 // bytes of answers that wait for the client
	multi      atomic.Int32 // commands that a transaction has queued, and 1; 0 for none
	multiBytes atomic.Int64 // of its queue
	half       atomic.Int64 // since when a command is incomplete
	writing    atomic.Int64 // since when a write waits for the client
	stuck      atomic.Bool  // no more answers of it can be kept
	shutting   atomic.Bool  // to end after what was read
	killed     atomic.Bool  // to end at once
}

func newConn(s *Server, nc net.Conn, id int64) *conn {
	c := &conn{srv: s, id: id, fd: -1, accepted: nc}
	c.use(nc)
	if _, local := nc.(*net.UnixConn); s.o.TLS != nil && !local {
		c.nc, c.under, c.raw = tls.Server(nc, s.o.TLS), c.raw, nil
	}
	c.readFn, c.writeFn = c.rawRead, c.rawWrite
	c.created = s.tick.Load()
	c.active.Store(c.created)
	c.setAuthenticated(s.password() == "")
	c.framer.Reset()
	return c
}

// use makes nc the connection's socket.
func (c *conn) use(nc net.Conn) {
	c.sock, c.nc, c.raw = nc, nc, nil
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
}

// serve runs until the client has gone or was sent away, on a goroutine of the
// connection's own.
func (c *conn) serve() {
	if t, ok := c.nc.(*tls.Conn); ok {
		c.half.Store(c.created)
		if err := t.Handshake(); err != nil {
			c.srv.o.Logger.Debug("RESP TLS handshake failed", "client", addressOf(c.accepted), "err", err)
			return
		}
		c.half.Store(0)
	}
	for c.turn() {
	}
}

// finish forgets the connection and closes its socket.
func (c *conn) finish() {
	c.forget()
	c.deafen()
	c.srv.tracking.forgetTarget(c)
	c.settle()
	c.freeInput()
	s := c.srv
	s.mu.Lock()
	delete(s.conns, c)
	fd := c.fd
	if c.loop != nil {
		s.vacateLocked(c)
	}
	s.mu.Unlock()
	if fd >= 0 {
		_ = syscall.Close(fd)
	} else {
		c.nc.Close()
	}
	s.wg.Done()
}

// turn is one read, the commands in it, and one write. It reports whether the
// connection goes on.
func (c *conn) turn() bool {
	if c.outBuf != nil { // answers that were gathered and not taken
		if err := c.flush(); err != nil {
			return false
		}
	}
	var err error
	if !c.more {
		err = c.fill()
	}
	switch {
	case err == nil:
		c.active.Store(c.srv.tick.Load())
		c.beginsTurn()
		c.enterGate()
		c.consume()
		c.leaveGate()
	case errors.Is(err, errAgain):
		return !c.shutting.Load()
	case errors.As(err, new(*admission.Refusal)):
		c.takeOutput()
		c.shed(err)
	default:
		return false
	}
	c.count()
	if err := c.flush(); err != nil {
		return false
	}
	c.endsTurn()
	if c.quit {
		c.deafen()
		c.freeInput()
		c.lingerOn()
		return false
	}
	return c.more || !c.shutting.Load()
}

// consume runs the complete commands of the input: all of them, or, in a loop,
// as many as a turn may have.
func (c *conn) consume() {
	c.takeOutput()
	c.began()
	c.asleep = !c.srv.pulse.runs(c.span.since)
	c.more = false
	bytes, turn := c.end-c.start, 0
	for ; c.start < c.end && !c.quit; turn++ {
		if turn >= turnCommands && c.loop != nil && c.hold(int64(len(c.in))) == nil {
			c.freeBundle()
			c.rested()
			poison(c.in[:c.start:c.start])
			c.more = true
			return
		}
		if c.dropping.on {
			if more, err := c.drop(); err != nil {
				c.protocolError(err)
				return
			} else if more {
				break
			}
			continue
		}
		n, args, need, err := c.framer.Next(c.in[c.start:c.end], c.limits)
		if err != nil { // first of all: looking at what it is costs an allocation
			if long := (*resp.TooLong)(nil); errors.As(err, &long) {
				c.runBundle()
				c.dropFrom(long, nil)
				continue
			}
			c.protocolError(err)
			return
		}
		if n == 0 {
			c.need = need
			break
		}
		c.start += n
		if len(args) == 0 {
			continue
		}
		if kind := c.bundleOf(args); kind != noBundle {
			c.join(kind, args)
			continue
		}
		c.runBundle()
		if c.execute(args); len(c.B) >= c.srv.o.MaxOutputBytes {
			c.writeOut()
		}
		// What follows may be many commands that wait for other nodes, each for seconds.
		c.quit = c.quit || c.killed.Load()
	}
	c.small = turn == 1 && bytes < smallBytes && c.bundle != nil && c.bundle.n == 1 && c.bundle.kind <= bundleSet && c.start == c.end
	c.freeBundle()
	c.rested()
	poison(c.in[:c.start:c.start])
	if c.start == c.end {
		c.freeInput()
		if c.dropping.on {
			c.half.Store(c.srv.tick.Load())
		} else if c.half.Load() != 0 {
			c.half.Store(0)
		}
		return
	}
	if c.half.Load() == 0 || c.start > 0 {
		c.half.Store(c.srv.tick.Load())
	}
	if err := c.hold(int64(len(c.in))); err != nil && !c.quit {
		c.shed(err)
	}
}

// protocolError answers what is wrong with the stream, which ends.
func (c *conn) protocolError(err error) {
	c.freeBundle()
	c.rested()
	c.srv.counters.protocol.Add(1)
	c.srv.o.Logger.Debug("RESP protocol error", "client", addressOf(c.accepted), "err", err)
	c.Fail(err.Error())
	c.quit = true
}

// cut ends the connection, which keeps others from having the room of what it
// has sent of a command. It is called from any goroutine.
func (c *conn) cut() {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if _, open := c.srv.conns[c]; !open || c.half.Load() == 0 {
		return
	}
	c.srv.counters.overloaded.Add(1)
	c.srv.o.Logger.Debug("closing a RESP connection", "client", addressOf(c.accepted), "why", "others need the room that half a command takes")
	c.shut()
}

// shed says that there is no room for a command, once it has come and was thrown
// away, or ends the connection, where what follows in it cannot be told from the
// rest of that command.
func (c *conn) shed(err error) {
	if long := c.framer.Abandon(); long != nil && c.authenticated && !c.dropping.on {
		c.dropFrom(long, err)
		c.more = true // some of it has come
		return
	}
	c.srv.counters.overloaded.Add(1)
	c.refusedRoom(err)
	c.quit = true
}

// count moves the counters of a batch to the server's.
func (c *conn) count() {
	if c.commands > 0 {
		c.srv.counters.commands.Add(c.commands)
		c.commands = 0
	}
	if c.failed > 0 {
		c.srv.counters.failed.Add(c.failed)
		c.failed = 0
	}
}

// lingerOn says that nothing more will be written and reads on for a moment.
func (c *conn) lingerOn() {
	if c.loop != nil && !c.leave() {
		return
	}
	c.settle()
	cw, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || cw.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(c.srv.lingers))
	_, _ = io.Copy(io.Discard, c.nc)
}

const unreadForLong = "answers were not read"

// overdue says why the connection should be closed at tick now, and after what
// time that is, or nothing.
func (c *conn) overdue(now int64) (why string, limit time.Duration) {
	o := &c.srv.o
	late := func(since int64, d time.Duration) bool { return since != 0 && now-since > c.srv.ticks(d) }
	writing, active := c.writing.Load(), c.active.Load()
	switch {
	case c.killed.Load(): // and was counted, but has not gone yet
	case late(writing, slowest*o.WriteTimeout):
		return unreadForLong, slowest * o.WriteTimeout
	case late(writing, o.WriteTimeout) && late(active, o.WriteTimeout) && (c.stuck.Load() || o.Admission.Scarce(admission.Read)):
		return unreadForLong, o.WriteTimeout
	case late(c.half.Load(), o.CommandTimeout):
		return "a command was not complete", o.CommandTimeout
	}
	if idle := c.srv.IdleTimeout(); idle > 0 && !c.ears.waits() && late(active, idle) {
		return "nothing came", idle
	}
	return "", 0
}

// drain makes the connection end after what it has read. The caller holds
// Server.mu.
func (c *conn) drain() {
	c.shutting.Store(true)
	if c.fd >= 0 {
		_ = syscall.Shutdown(c.fd, syscall.SHUT_RD) // of which the loop is told
		return
	}
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}

// shut makes the connection end at once, whoever is waiting on it. The caller
// holds Server.mu.
func (c *conn) shut() {
	c.killed.Store(true)
	if c.fd >= 0 {
		_ = syscall.Shutdown(c.fd, syscall.SHUT_RDWR)
		return
	}
	c.sock.Close()
}
