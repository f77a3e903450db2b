package main

import (
	"net"
	"sync"
	"time"

	"mcached/ingest/admission"
)

// connLimit bounds the connections of an HTTP listener. When there are as many
// as there may be, the one that has been idle for the longest time is closed
// for the next: a client that finds its connection closed opens another, while
// one that is not accepted finds nobody, health checks included. Connections
// that have sent nothing yet are closed, too, when they have had newGrace for
// it.
type connLimit struct {
	net.Listener
	max   int
	heads *admission.Pool // of heads of requests; nil: unbounded. Set before Accept

	mu     sync.Mutex
	conns  map[*limitedConn]struct{}
	change chan struct{} // has an element when one was closed or became idle
	made   uint64        // connections closed for others
}

// newGrace is how long a new connection may take for its first byte.
const newGrace = time.Second

// limitedConn is one connection.
type limitedConn struct {
	net.Conn
	limit *connLimit
	head  head
	ahead []byte // what a plainServer has read, to be read again

	// Under connLimit.mu:
	idle  bool // it waits for a request
	fresh bool // for the first one
	since time.Time
}

func limitConns(l net.Listener, most int) *connLimit {
	return &connLimit{Listener: l, max: most, conns: map[*limitedConn]struct{}{}, change: make(chan struct{}, 1)}
}

// Accept implements net.Listener. If there are too many and none can be closed,
// it waits for that.
func (l *connLimit) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &limitedConn{Conn: nc, limit: l, idle: true, fresh: true, since: time.Now()}
	c.head.lease.Open(l.heads, admission.Stranger, func() { _ = nc.Close() })
	for !l.enter(c) {
		select {
		case <-l.change:
		case <-time.After(newGrace / 4): // until a new one has been new for too long
		}
	}
	return c, nil
}

// enter takes c in, if need be in the place of another.
func (l *connLimit) enter(c *limitedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= l.max {
		var oldest *limitedConn
		for k := range l.conns {
			if k.idle && (!k.fresh || time.Since(k.since) > newGrace) && (oldest == nil || k.since.Before(oldest.since)) {
				oldest = k
			}
		}
		if oldest == nil {
			return false
		}
		delete(l.conns, oldest)
		l.made++
		_ = oldest.Conn.Close() // which the server detects
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *connLimit) changed() {
	select {
	case l.change <- struct{}{}:
	default:
	}
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.limit.mu.Lock()
	delete(c.limit.conns, c)
	c.limit.mu.Unlock()
	c.head.close()
	c.limit.changed()
	return c.Conn.Close()
}

// is notes whether c waits for a request.
func (c *limitedConn) is(idle bool) {
	c.limit.mu.Lock()
	if c.idle, c.fresh = idle, false; idle {
		c.since = time.Now()
	}
	c.limit.mu.Unlock()
}
