package main

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"mcached/ingest/admission"
)

// Heads of HTTP requests come before any password, and the server keeps them
// parsed until the answer: lines of three or four bytes, each a header, take
// some thirty times as much as was sent. So a head costs admission headFactor
// bytes for each of its own beyond freeHeadBytes, as a Stranger's input, from
// the moment they come until the request has been answered. Where there is no
// room the connection is closed without an answer, so that senders retry; first
// to be closed are those whose heads have made no progress for the longest time.
// A plainServer keeps one head, within what is free, for as long as the connection is.
//
//	1,024 connections × 2 KiB × 32 = 64 MiB, and beyond that a sixteenth of admission
//
// instead of 1,024 × maxHeaderBytes × 32 = 2 GiB. What comes of a body in the
// same read as its head counts as the head's: hence no read for the server's
// buffer, which is of serverBufferBytes, takes more than what is free.
//
// HTTP/2 counts 32 bytes for each header itself, and holds them to
// maxHeaderBytes: its connections cost nothing here.
const (
	// maxHeaderBytes of one head. Prometheus' own need less than 1 KiB, cookies
	// of proxies before Grafana some 10 KiB.
	maxHeaderBytes    = 64 << 10
	freeHeadBytes     = 2 << 10
	headFactor        = 32
	serverBufferBytes = 4 << 10 // net/http's
)

// head is what a connection has read of the head of a request, and holds for it.
type head struct {
	mu    sync.Mutex
	none  bool // the head is whole, or this is HTTP/2
	bytes int
	shut  bool            // the connection is closed: nothing is lent any more
	lease admission.Lease // of no pool where heads are not bounded
}

// came notes n bytes that were read.
func (h *head) came(n int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.none || h.shut {
		return nil
	}
	was := max(h.bytes, freeHeadBytes)
	if h.bytes += n; h.bytes <= was {
		return nil
	}
	return h.lease.Try(headFactor * int64(h.bytes-was))
}

// whole says that what is read from now on is a body.
func (h *head) whole() {
	h.mu.Lock()
	h.none = true
	h.mu.Unlock()
}

// next says that the request has been answered, or the client has introduced
// itself, and the next may come.
func (h *head) next() {
	h.mu.Lock()
	h.none, h.bytes = false, 0
	h.lease.Release()
	h.mu.Unlock()
}

func (h *head) close() {
	h.mu.Lock()
	h.shut = true
	h.lease.Release()
	h.mu.Unlock()
}

// Read implements net.Conn.
func (c *limitedConn) Read(b []byte) (int, error) {
	if len(b) <= serverBufferBytes {
		b = b[:min(len(b), freeHeadBytes)]
	}
	n, err := 0, error(nil)
	if len(c.ahead) > 0 {
		n = copy(b, c.ahead)
		if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
			c.ahead = nil // its buffer is not needed any more
		}
	} else {
		n, err = c.Conn.Read(b)
	}
	if n > 0 {
		if refused := c.head.came(n); refused != nil {
			// As an error of the connection the server closes it without a word:
			// its word would be 400, which senders do not repeat.
			return 0, &net.OpError{Op: "read", Net: "tcp", Addr: c.RemoteAddr(), Err: refused}
		}
	}
	return n, err
}

// connState is http.Server.ConnState: it knows which connections are idle, and
// where heads begin and end.
func connState(nc net.Conn, state http.ConnState) {
	t, encrypted := nc.(*tls.Conn)
	if encrypted {
		nc = t.NetConn()
	}
	c, ok := nc.(*limitedConn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		c.head.whole()
		c.is(false)
	case http.StateIdle:
		if !encrypted || t.ConnectionState().NegotiatedProtocol != "h2" {
			c.head.next()
		}
		c.is(true)
		c.limit.changed()
	}
}
