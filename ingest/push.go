package ingest

import (
	"sync"
	"sync/atomic"

	"mcached/ingest/admission"
)

// # Pushes
//
// Some clients are told of what others do: who has subscribed to a channel, who
// tracks keys, who monitors, to whom another redirects what it tracks. Such a
// connection leaves its loop for good, and what
// it is to be told goes through its backlog, which a goroutine of its own writes,
// so that nobody ever waits for it. A push must not overtake an answer that was
// made before it: a client that is told to forget a key before it gets the old
// value would keep that. So while a connection runs commands, pushes wait until
// their answers have been written.
//
// What waits is bounded as a backlog is, by a part of what reads may hold and by
// Admission; a client that falls further behind is closed, as in Redis.

// listening is what a connection is told of, for CLIENT LIST. Others read it.
type listening struct {
	channels, patterns, shards int32
	monitors, broken           bool
	tracks, broadcasts         bool
	redirect                   int64 // -1 when not tracking, 0 for none
}

// flags are CLIENT LIST's.
func (l *listening) flags() (f string) {
	for _, x := range []struct {
		is   bool
		flag string
	}{{l.monitors, "O"}, {l.channels+l.patterns+l.shards > 0, "P"}, {l.tracks, "t"}, {l.broken, "R"}, {l.broadcasts, "B"}} {
		if x.is {
			f += x.flag
		}
	}
	return f
}

// ears are the counters behind listening. The connection's own goroutine changes them.
type ears struct {
	channels, patterns, shards atomic.Int32
	monitors                   atomic.Bool
	resp3                      atomic.Bool // as Reply.V3
	pushable                   atomic.Bool // opensEars was called
	early                      atomic.Pointer[early]
	tracker                    atomic.Pointer[tracker]
}

func (c *conn) listens() listening {
	l := listening{channels: c.ears.channels.Load(), patterns: c.ears.patterns.Load(), shards: c.ears.shards.Load(), monitors: c.ears.monitors.Load(), redirect: -1}
	if t := c.ears.tracker.Load(); t != nil {
		l.tracks, l.broadcasts, l.broken, l.redirect = true, t.bcast, t.broken.Load(), t.redirect
	}
	return l
}

// subscriptions is how many it has.
func (e *ears) subscriptions() int32 {
	return e.channels.Load() + e.patterns.Load() + e.shards.Load()
}

// waits says that the connection is quiet because it is there to be told.
func (e *ears) waits() bool { return e.subscriptions() > 0 || e.monitors.Load() }

// speaks sets the protocol.
func (c *conn) speaks(resp3 bool) {
	c.V3 = resp3
	c.ears.resp3.Store(resp3)
	if resp3 && c.loop == nil {
		c.opensEars()
	}
}

// canBePushed makes the connection one that can be pushed to, or answers why not.
func (c *conn) canBePushed() bool {
	if c.loop != nil && !c.leave() {
		c.Fail("ERR no file descriptor is left for a connection of this kind")
		return false
	}
	c.opensEars()
	c.apart = true
	return true
}

// opensEars makes a connection that is in no loop one that can be pushed to. Those
// of RESP3 are from the start, as another may redirect to them what it tracks.
func (c *conn) opensEars() {
	if c.ears.pushable.Load() {
		return
	}
	g := c.openBacklog()
	g.mu.Lock()
	g.pushable, g.turn = true, true
	g.mu.Unlock()
	if e := c.ears.early.Load(); e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.messages) > 0 {
			c.push(e.messages)
			e.messages = nil
		}
	}
	c.ears.pushable.Store(true)
}

// early is what a connection in a loop is to be told, until it has left.
type early struct {
	mu       sync.Mutex
	messages []byte
}

// earlyBytes bounds that: more is told by saying that all keys may have changed.
const earlyBytes = 64 << 10

// willBePushed has the connection, which is another one's, leave its loop as soon as
// it speaks RESP3. Until then tells are kept.
func (c *conn) willBePushed() {
	if c.ears.pushable.Load() || !c.ears.early.CompareAndSwap(nil, new(early)) {
		return
	}
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if c.loop != nil {
		c.loop.summon(c)
	}
}

// pushInvalidation pushes the message, or keeps it while the connection leaves its
// loop; all says the same of all keys.
func (c *conn) pushInvalidation(message []byte, all func() []byte) {
	e := c.ears.early.Load()
	if c.ears.pushable.Load() || e == nil {
		c.push(message)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case c.ears.pushable.Load():
		c.push(message)
	case len(e.messages)+len(message) > earlyBytes:
		e.messages = all()
	default:
		e.messages = append(e.messages, message...)
	}
}

// push writes a message to the client in its time. It is called from any
// goroutine, never waits, and does not keep message.
func (c *conn) push(message []byte) {
	g := c.backlog
	n := int64(len(message))
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return
	}
	if g.bytes+n > c.backlogMost() || g.lease.Try(n) != nil {
		g.err = errUnread
		c.srv.unread(c, "it is behind with what it is to be told", g.bytes+n)
		c.killed.Store(true)
		c.sock.Close() // it is in no loop
		return
	}
	g.bytes += n
	g.pushes = append(g.pushes, message...)
	if !g.turn {
		c.releaseLocked(g)
	}
}

// releaseLocked has what was pushed written. The backlog's lock is held.
func (c *conn) releaseLocked(g *backlog) {
	if len(g.pushes) == 0 {
		return
	}
	g.queue = append(g.queue, answers{b: g.pushes, bytes: int64(len(g.pushes))})
	g.pushes = nil
	c.unread.Store(g.bytes)
	if !g.running {
		g.running = true
		go c.catchUp(g)
	}
}

// beginsTurn holds pushes back until the answers of this turn are written.
func (c *conn) beginsTurn() {
	if g := c.backlog; g != nil {
		g.mu.Lock()
		g.turn = g.pushable
		g.mu.Unlock()
	}
}

func (c *conn) endsTurn() {
	if g := c.backlog; g != nil {
		g.mu.Lock()
		if g.turn = false; g.err == nil {
			c.releaseLocked(g)
		}
		g.mu.Unlock()
	}
}

// backlogMost bounds a connection's backlog.
func (c *conn) backlogMost() int64 {
	if p := c.srv.o.Admission; p != nil {
		return p.Limit(admission.Read) / backlogPart
	}
	return backlogBytes
}

// appendPush begins a push of n elements, in RESP2 an array.
func appendPush(b []byte, resp3 bool, n byte) []byte {
	kind := byte('*')
	if resp3 {
		kind = '>'
	}
	return append(b, kind, '0'+n, '\r', '\n')
}
