package ingest

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"mcached/ingest/admission"
)

// A client that writes a long pipeline before it reads makes the answers wait
// until it has written all of it. If the server stopped reading meanwhile, both
// would wait for each other. So answers that the socket does not take are kept in a
// backlog, which a goroutine of its own writes, and the commands go on, as far as
// the bounds allow: backlogPart of what reads may hold for one connection, and what
// Admission has room for. Where they end, commands are read no more until answers
// are; a client that then takes nothing for WriteTimeout is closed, and the log
// says who it was and how much it had not read. Before that it may take slowest
// times as long, unless other reads are short of room.
type backlog struct {
	mu      sync.Mutex
	moved   sync.Cond // something was written, or writing has ended
	queue   []answers
	bytes   int64 // of queue, of what is being written and of what is to come into it
	running bool
	err     error
	lease   admission.Lease // has bytes

	// For a connection that can be pushed to.
	pushable bool
	turn     bool   // it runs commands: pushes wait for the answers
	pushes   []byte // that wait
}

// answers are a part of the backlog.
type answers struct {
	b     []byte // what is left of whole to be written
	whole []byte // what goes back into buf
	buf   *buffer
	bytes int64 // that are counted
}

const (
	// backlogPart of what reads may hold is what one connection may.
	backlogPart = 2
	// backlogBytes is what it may where nothing bounds that.
	backlogBytes = 16 << 20
	// slowest is how many WriteTimeouts a client may take nothing of its answers
	// while it goes on sending, or nobody else needs their room.
	slowest = 6
)

// errUnread says that there is no room for answers that are not read.
var errUnread = errors.New("ingest: no room for answers that are not read")

// behind hands what is left to write to the backlog. It waits when that is full.
func (c *conn) behind() error {
	g := c.openBacklog()
	n, most := int64(cap(c.B)), c.backlogMost()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && g.bytes > int64(len(g.pushes)) && (g.bytes+n > most || g.lease.Try(n) != nil) {
		c.stuck.Store(true)
		g.moved.Wait()
	}
	c.stuck.Store(false)
	g.bytes += n
	if g.err == nil && g.lease.Held() < g.bytes { // nothing is kept that could make room
		g.mu.Unlock()
		err := g.lease.Take(context.Background(), n)
		g.mu.Lock()
		if err != nil && g.err == nil {
			c.srv.unread(c, "there is no room for answers that are not read", n)
			g.err = errUnread
		}
	}
	if g.err != nil {
		g.bytes -= n
		g.lease.Keep(g.bytes)
		return g.err
	}
	g.queue = append(g.queue, answers{b: c.out, whole: c.B, buf: c.outBuf, bytes: n})
	c.unread.Store(g.bytes)
	c.outBuf, c.B = nil, nil // they are the backlog's now
	if !g.running {
		g.running = true
		go c.catchUp(g)
	}
	return nil
}

func (c *conn) openBacklog() *backlog {
	if c.backlog == nil {
		g := new(backlog)
		g.moved.L = &g.mu
		g.lease.Open(c.srv.o.Admission, admission.Read, nil)
		g.lease.Bulk()
		c.backlog = g
	}
	return c.backlog
}

// catchUp writes the backlog until there is none.
func (c *conn) catchUp(g *backlog) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && len(g.queue) > 0 {
		next := g.queue[0]
		g.queue[0] = answers{}
		g.queue = g.queue[1:]
		g.mu.Unlock()
		err := c.writeBehind(next.b)
		g.mu.Lock()
		if g.err == nil {
			g.err = err
		}
		g.bytes -= next.bytes
		if next.buf != nil {
			c.srv.putOutput(next.buf, next.whole)
		}
		g.lease.Keep(g.bytes)
		c.unread.Store(g.bytes)
		g.moved.Broadcast()
	}
	for _, a := range g.queue { // that cannot be written any more
		g.bytes -= a.bytes
	}
	g.queue = nil
	g.lease.Keep(g.bytes)
	g.running = false
	c.writing.Store(0)
	g.moved.Broadcast()
}

// writeBehind writes all of b, waiting for the client.
func (c *conn) writeBehind(b []byte) error {
	if c.raw == nil {
		return c.writeAll(b)
	}
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		for len(b) > 0 {
			n, err := syscall.Write(int(fd), b)
			switch err {
			case nil:
				b = b[n:]
			case syscall.EINTR:
			case syscall.EAGAIN:
				c.writing.Store(c.srv.tick.Load())
				return false
			default:
				failed = err
				return true
			}
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}

// isBehind reports whether answers have to queue.
func (c *conn) isBehind() bool {
	if c.backlog == nil {
		return false
	}
	c.backlog.mu.Lock()
	defer c.backlog.mu.Unlock()
	return c.backlog.running || c.backlog.err != nil
}

// settle waits until all answers have been written, or cannot be.
func (c *conn) settle() {
	g := c.backlog
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.running {
		g.moved.Wait()
	}
	g.lease.Release()
}

// unread tells the log, at most once a second, of a client that is closed because
// it does not read.
func (s *Server) unread(c *conn, why string, bytes int64) {
	now := s.o.Now().Unix()
	if last := s.toldUnread.Load(); last == now || !s.toldUnread.CompareAndSwap(last, now) {
		s.unsaid.Add(1)
		return
	}
	s.o.Logger.Warn("closing a RESP connection", "client", addressOf(c.accepted), "why", why, "unread_bytes", bytes, "others_not_logged", s.unsaid.Swap(0))
}
