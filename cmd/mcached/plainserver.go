package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// plainServer is in front of an http.Server and answers by itself what the daemon
// is asked most: remote writes, those from other members of a cluster, too, and reads.
//
// net/http parses each head, and begins a goroutine for each request that waits for
// the client to hang up, and has to be stopped before the answer is complete: of a
// remote write of 100 samples more than half of the time, and of a query of one
// series as well. Here nobody waits beside the handler, and the scheduler is not
// woken to watch (package rawio). A sender sends one request after the other over a
// connection, with the same head but for Content-Length, and a signature if it is a
// member of a cluster: its head is parsed once (by net/http's own parser) and
// compared from then on. Of a read it is all but the first line. The handlers are the
// same, middleware included.
//
//	accept ──▶ head ──like the one before, or plain──▶ handler ──▶ answer ─┐
//	            ▲ │                                                        │
//	            │ └─anything else──▶ http.Server, for good                 │
//	            └──────────────────────────────────────────────────────────┘
//
// What is plain is narrow on purpose: a POST to one of the paths, or a GET or a POST
// of what is below reads; HTTP/1.1, a POST's Content-Length, no header that says
// something else of the connection than that it stays, a head of
// freeHeadBytes of printable ASCII at the most. Everything else, and whatever follows it
// on that connection, is net/http's, which is given the bytes that have come as
// if nobody had read them. So there is nothing here that could take a head for
// another than net/http does.
//
// One thing is different: that its client has hung up a handler that waits (by Done)
// is told at the next look of the server at those who do, each lookEvery. By Err it
// is told when it looks.
type plainServer struct {
	*http.Server
	writes []string // first lines of remote writes, with their ends
	reads  string   // paths that begin so are read from; "" for none. Set before Serve, as the next
	varies string   // a header, by its canonical name, that is another in each write; "" for none

	lingers time.Duration // how long a client may send on that has its answer

	closing atomic.Bool    // set under mu
	open    sync.WaitGroup // of conns
	watched watched

	mu    sync.Mutex
	conns map[*plainConn]struct{}
}

// plainBuffer holds a head and what comes with it, mostly the whole of a small
// request. A connection has one, as net/http's have two of half of it.
const plainBuffer = 8 << 10

// lingers is long for a client to notice its answer, on a busy machine, too, and short
// for one that does not look.
const lingers = 2 * time.Second

// newPlainServer puts one before s, which must have timeouts for heads, for
// requests and for idle connections.
func newPlainServer(s *http.Server, paths ...string) *plainServer {
	p := &plainServer{Server: s, conns: map[*plainConn]struct{}{}, lingers: lingers}
	for _, path := range paths {
		p.writes = append(p.writes, "POST "+path+" HTTP/1.1\r\n")
	}
	return p
}

// Serve is http.Server's.
func (s *plainServer) Serve(l net.Listener) error {
	if len(s.writes) == 0 && s.reads == "" {
		return s.Server.Serve(l)
	}
	rest := &restListener{Listener: l, accepted: make(chan accepted), closed: make(chan struct{})}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := rest.Listener.Accept()
			if lc, ok := c.(*limitedConn); ok && s.begin(lc, rest) {
				continue
			}
			if !rest.pass(accepted{c, err}) || errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	err := s.Server.Serve(rest)
	_ = rest.Close()
	accepting.Wait()
	return err
}

// Shutdown is http.Server's.
func (s *plainServer) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing.Store(true)
	for c := range s.conns {
		if c.idle {
			_ = c.Close()
		}
	}
	s.mu.Unlock()
	defer s.watched.stop()
	err := s.Server.Shutdown(ctx)
	ended := make(chan struct{})
	go func() {
		s.open.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		s.mu.Lock()
		for c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		if err == nil {
			err = ctx.Err()
		}
	}
	return err
}

// begin serves c in a goroutine of its own. It reports false if the server is
// being shut down.
func (s *plainServer) begin(lc *limitedConn, rest *restListener) bool {
	c := &plainConn{limitedConn: lc, server: s, idle: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	s.open.Go(func() {
		leave := func() {
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}
		defer leave()
		if c.serve() {
			return
		}
		leave() // from here on it is net/http's to close
		if !rest.pass(accepted{c.limitedConn, nil}) {
			_ = c.Close()
		}
	})
	return true
}

// restListener is what http.Server listens on: connections that are not, or no
// longer, a plainServer's.
type restListener struct {
	net.Listener
	accepted chan accepted
	closed   chan struct{}
	once     sync.Once
}

type accepted struct {
	conn net.Conn
	err  error
}

// pass hands a connection, or why there is none, to who accepts. It reports
// false when nobody does any more.
func (l *restListener) pass(a accepted) bool {
	select {
	case l.accepted <- a:
		return true
	case <-l.closed:
		if a.conn != nil {
			_ = a.conn.Close()
		}
		return false
	}
}

// Accept implements net.Listener.
func (l *restListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *restListener) Close() (err error) {
	l.once.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
	})
	return err
}
