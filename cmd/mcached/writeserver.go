package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// writeServer is in front of an http.Server and answers remote writes by itself.
//
// A sender sends one request after the other over a connection, with the same
// head but for Content-Length. net/http parses each of these heads, and begins a
// goroutine for each body that waits for the client to hang up, and has to be
// stopped before the answer is complete: of a request of 100 samples more than
// half of the time. Here the head is parsed once (by net/http's own parser) and
// compared from then on, nobody waits beside the handler, and the scheduler is not
// woken to watch (rawIO). The handlers are the same, middleware included.
//
//	accept ──▶ head ──like the one before, or plain──▶ handler ──▶ answer ─┐
//	            ▲ │                                                        │
//	            │ └─anything else──▶ http.Server, for good                 │
//	            └──────────────────────────────────────────────────────────┘
//
// What is plain is narrow on purpose: a POST to one of the paths, HTTP/1.1, a
// Content-Length, no header that says something of the connection, a head of
// printable ASCII that fits the buffer. Everything else, and whatever follows it
// on that connection, is net/http's, which is given the bytes that have come as
// if nobody had read them. So there is nothing here that could take a head for
// another than net/http does.
//
// One thing is different: that its client has hung up a handler is told when it
// looks, by Context.Err, and not when it waits, by Done. Writes to this machine
// wait for nothing for long.
type writeServer struct {
	*http.Server
	paths []string

	mu      sync.Mutex
	conns   map[*writeConn]struct{}
	closing bool
	open    sync.WaitGroup // of conns
}

// writeBuffer holds a head and what comes with it, mostly the whole of a small
// request. A connection has one, as net/http's have two of half of it.
const writeBuffer = 8 << 10

func newWriteServer(s *http.Server, paths ...string) *writeServer {
	return &writeServer{Server: s, paths: paths, conns: map[*writeConn]struct{}{}}
}

// Serve is http.Server's.
func (s *writeServer) Serve(l net.Listener) error {
	if len(s.paths) == 0 {
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
func (s *writeServer) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for c := range s.conns {
		if c.idle {
			_ = c.Close()
		}
	}
	s.mu.Unlock()
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
func (s *writeServer) begin(lc *limitedConn, rest *restListener) bool {
	c := &writeConn{limitedConn: lc, server: s, idle: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
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
// longer, a writeServer's.
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

// writeConn is a connection that is served by a writeServer.
type writeConn struct {
	*limitedConn
	server *writeServer
	idle   bool // under server.mu: it waits for a request

	io   io.ReadWriter
	buf  []byte // what has come and is not used
	skip int    // bytes of empty lines that may come before the next head
	like likeness
	req  *http.Request // of like, as it came; handlers get copies
	ctx  context.Context
	body writeBody
	w    writeAnswer
	out  []byte
}

// likeness is a head but for the digits of its Content-Length.
type likeness struct{ before, behind []byte }

// serve answers requests until the connection is closed: then done is true. Else
// buf has what is not a request for it.
func (c *writeConn) serve() (done bool) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler {
				c.logf("http: panic serving %v: %v\n%s", c.RemoteAddr(), v, debug.Stack())
			}
			_ = c.Close()
			done = true
		}
	}()
	c.buf, c.io = make([]byte, 0, writeBuffer), c.Conn
	if t, ok := c.Conn.(*net.TCPConn); ok {
		if raw, err := newRawIO(t); err == nil {
			c.io = raw
		}
	}
	wait := c.server.ReadHeaderTimeout
	for requests := 1; ; requests++ {
		if requests%yieldEvery == 0 {
			runtime.Gosched()
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		length, head, err := c.readHead()
		if err != nil {
			_ = c.Close()
			return true
		}
		if head == 0 {
			c.limitedConn.ahead = c.buf
			return false
		}
		if !c.active(true) {
			_ = c.Close()
			return true
		}
		connState(c.limitedConn, http.StateActive)
		if !c.answer(length, head) || !c.active(false) {
			_ = c.Close()
			return true
		}
		connState(c.limitedConn, http.StateIdle)
		c.skip = maxSkip
		wait = c.server.IdleTimeout
	}
}

// yieldEvery requests, others have their turn: where a client always has the next
// ready, nothing else may make a goroutine give way that uses rawIO.
const yieldEvery = 16

func (c *writeConn) logf(format string, values ...any) {
	if l := c.server.ErrorLog; l != nil {
		l.Printf(format, values...)
		return
	}
	log.Printf(format, values...)
}

// active notes that a request is answered, or was. It reports false when the
// server is being shut down.
func (c *writeConn) active(is bool) bool {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.idle = !is
	return !c.server.closing
}

// readHead reads until there is a whole head in buf and returns how long it is,
// and the body behind it. A length of 0 says that it is not for this server. What
// is read is within what a head has free of admission (heads.go).
func (c *writeConn) readHead() (length int64, head int, err error) {
	for reads := 0; ; reads++ {
		c.skipEmptyLines()
		if len(c.buf) > 0 {
			if length, head = c.like.match(c.buf); head > 0 {
				return length, head, nil
			}
			if end := bytes.Index(c.buf[:min(len(c.buf), freeHeadBytes)], headEnd); end >= 0 {
				length, head = c.parse(c.buf[:end+len(headEnd)])
				return length, head, nil
			}
			if len(c.buf) >= freeHeadBytes || !c.mayBecomePlain() {
				return 0, 0, nil
			}
		}
		if reads == 1 { // the rest of the head is due
			_ = c.SetReadDeadline(time.Now().Add(c.server.ReadHeaderTimeout))
		}
		n, err := c.io.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if n == 0 && err == io.EOF && len(c.buf) > 0 {
			return 0, 0, nil // net/http says what it misses
		}
		if n == 0 && err != nil {
			return 0, 0, err
		}
	}
}

// skipEmptyLines drops what old clients send behind a POST.
func (c *writeConn) skipEmptyLines() {
	n := 0
	for n < len(c.buf) && c.skip > 0 && (c.buf[n] == '\r' || c.buf[n] == '\n') {
		n++
		c.skip--
	}
	if n > 0 {
		c.buf = c.buf[:copy(c.buf, c.buf[n:])]
	}
}

// maxSkip bytes of empty lines are taken, as net/http does it.
const maxSkip = 4

var (
	headEnd    = []byte("\r\n\r\n")
	hostLine   = []byte("\r\nhost:") // in lower case, as the next
	lengthLine = []byte("\r\ncontent-length:")
)

// mayBecomePlain reports whether buf begins as a plain request does, as far as it goes.
func (c *writeConn) mayBecomePlain() bool {
	return slices.ContainsFunc(c.server.paths, func(path string) bool {
		line := "POST " + path + " HTTP/1.1\r\n"
		n := min(len(line), len(c.buf))
		return string(c.buf[:n]) == line[:n]
	})
}

// match reports whether b begins with a head like l: its length, and that of the
// body behind it. 0 is neither.
func (l *likeness) match(b []byte) (length int64, head int) {
	if len(l.before) == 0 || !bytes.HasPrefix(b, l.before) {
		return 0, 0
	}
	i := len(l.before)
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9' && i-len(l.before) < maxLengthDigits; i++ {
		length = length*10 + int64(b[i]-'0')
	}
	if i == len(l.before) || b[len(l.before)] == '0' || !bytes.HasPrefix(b[i:], l.behind) {
		return 0, 0
	}
	return length, i + len(l.behind)
}

// maxLengthDigits of a Content-Length are enough for any body that is taken.
const maxLengthDigits = 12

// parse looks whether head, which is whole, is plain, and keeps it for those to
// come. It returns 0, 0 if it is not.
func (c *writeConn) parse(head []byte) (length int64, n int) {
	if !c.mayBecomePlain() || !areLines(head) {
		return 0, 0
	}
	head = bytes.Clone(head)
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	lower := bytes.ToLower(head)
	if err != nil || r.ContentLength <= 0 || len(r.TransferEncoding) > 0 || r.Close || !isPlain(r.Host, ".-_:[]") ||
		bytes.Count(lower, hostLine) != 1 || bytes.Count(lower, lengthLine) != 1 {
		return 0, 0
	}
	for name, values := range r.Header {
		if len(values) != 1 || !isPlain(name, "-_") || slices.Contains(connectionHeaders, name) {
			return 0, 0
		}
	}
	at, digits := bytes.Index(lower, lengthLine)+len(lengthLine), strconv.FormatInt(r.ContentLength, 10)
	if head[at] == ' ' {
		at++
	}
	if len(digits) > maxLengthDigits || !bytes.HasPrefix(head[at:], []byte(digits+"\r\n")) {
		return 0, 0
	}
	c.like = likeness{head[:at:at], head[at+len(digits):]}
	if c.ctx == nil {
		c.ctx = context.WithValue(context.WithValue(context.Background(), http.ServerContextKey, c.server.Server), http.LocalAddrContextKey, c.LocalAddr())
	}
	r.RemoteAddr = c.RemoteAddr().String()
	c.req = r
	return r.ContentLength, len(head)
}

// areLines reports whether head consists of lines of printable ASCII that end as
// they should, and of which none continues another.
func areLines(head []byte) bool {
	for i, b := range head {
		switch {
		case b == '\r' && head[i+1] == '\n' && (i+2 == len(head) || head[i+2] != ' '), b == '\n' && head[i-1] == '\r':
		case b < ' ' || b > '~':
			return false
		}
	}
	return true
}

// connectionHeaders say something of the connection, or of how the body comes.
var connectionHeaders = []string{"Connection", "Expect", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings"}

// isPlain reports whether text is letters, digits and what else is given.
func isPlain(text, others string) bool {
	for _, b := range []byte(text) {
		if (b < '0' || b > '9') && (b|0x20 < 'a' || b|0x20 > 'z') && strings.IndexByte(others, b) < 0 {
			return false
		}
	}
	return text != ""
}

// answer serves the request whose head is the first bytes of buf. It reports
// whether the connection can take another.
func (c *writeConn) answer(length int64, head int) bool {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.body = writeBody{c: c, ahead: c.buf[head:], left: length}
	r := c.req.WithContext(writeContext{ctx, c})
	if length != c.req.ContentLength {
		c.req.ContentLength, c.req.Header["Content-Length"][0] = length, strconv.FormatInt(length, 10)
	}
	r.ContentLength, r.Body = length, &c.body
	c.w.begin(c)
	c.server.Handler.ServeHTTP(&c.w, r)
	keep := c.w.header.Get("Connection") != "close"
	// As net/http does it: what is left of a body is read, up to a bound.
	const most = 256 << 10
	if keep && c.body.left <= most && c.body.failed == nil {
		_, _ = io.Copy(io.Discard, &c.body)
	}
	whole := c.body.left == 0
	keep = keep && whole
	if c.out = c.w.end(c.out[:0], keep); c.write() != nil {
		return false
	}
	if !whole {
		c.linger()
	}
	c.buf = c.buf[:copy(c.buf[:cap(c.buf)], c.body.ahead)]
	return keep
}

// writeContext is the context of a request of a writeConn.
type writeContext struct {
	context.Context
	c *writeConn
}

// Err implements context.Context.
func (x writeContext) Err() error {
	if err := x.Context.Err(); err != nil || !x.c.gone() {
		return err
	}
	return context.Canceled
}

// gone reports whether the client sends no more: nothing is read by that.
func (c *writeConn) gone() (is bool) {
	t, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		is = n == 0 && err == nil || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	return is || err != nil
}

// write sends the answer.
func (c *writeConn) write() error {
	_, err := c.io.Write(c.out)
	return err
}

// linger lets the client read the answer though it still sends: a connection
// that is closed while bytes come is reset.
func (c *writeConn) linger() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	const most = 500 * time.Millisecond
	_ = c.SetReadDeadline(time.Now().Add(most))
	_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, 1<<20))
}

// writeBody is the body of a request: what came with its head, then what comes.
type writeBody struct {
	c      *writeConn
	ahead  []byte // of the connection's buffer; what is behind the body stays
	left   int64
	failed error
}

// Read implements io.Reader.
func (b *writeBody) Read(p []byte) (n int, err error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.failed != nil {
		return 0, b.failed
	}
	p = p[:min(int64(len(p)), b.left)]
	if len(b.ahead) > 0 {
		n = copy(p, b.ahead)
		b.ahead = b.ahead[n:]
	} else if n, err = b.c.io.Read(p); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.left -= int64(n)
	b.failed = err
	return n, err
}

// Close implements io.Closer.
func (b *writeBody) Close() error { return nil }

// writeAnswer is the http.ResponseWriter of a writeConn. It holds the answer,
// which is short, until the handler has returned.
type writeAnswer struct {
	c      *writeConn
	header http.Header
	code   int
	head   bytes.Buffer // lines of the header
	body   []byte

	second int64 // of date
	date   []byte
}

func (w *writeAnswer) begin(c *writeConn) {
	w.c, w.code, w.body = c, 0, w.body[:0]
	w.head.Reset()
	if w.header == nil {
		w.header = http.Header{}
	}
	clear(w.header)
}

// Header implements http.ResponseWriter.
func (w *writeAnswer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *writeAnswer) WriteHeader(code int) {
	if w.code == 0 && code >= http.StatusOK {
		w.code = code
		if len(w.header) > 0 {
			_ = w.header.WriteSubset(&w.head, ownHeaders)
		}
	}
}

// ownHeaders are written by end.
var ownHeaders = map[string]bool{"Content-Length": true, "Date": true, "Transfer-Encoding": true, "Connection": true}

// Write implements http.ResponseWriter.
func (w *writeAnswer) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.code == http.StatusNoContent || w.code == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	w.body = append(w.body, b...)
	return len(b), nil
}

// SetReadDeadline is for http.ResponseController.
func (w *writeAnswer) SetReadDeadline(t time.Time) error { return w.c.SetReadDeadline(t) }

// SetWriteDeadline is for http.ResponseController.
func (w *writeAnswer) SetWriteDeadline(t time.Time) error { return w.c.SetWriteDeadline(t) }

// end appends the answer to dst. keep says that the connection stays.
func (w *writeAnswer) end(dst []byte, keep bool) []byte {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	dst = append(strconv.AppendInt(append(dst, "HTTP/1.1 "...), int64(w.code), 10), ' ')
	dst = append(append(dst, http.StatusText(w.code)...), "\r\n"...)
	dst = append(dst, w.head.Bytes()...)
	if now := time.Now(); now.Unix() != w.second {
		w.second, w.date = now.Unix(), now.UTC().AppendFormat(w.date[:0], http.TimeFormat)
	}
	dst = append(append(append(dst, "Date: "...), w.date...), "\r\n"...)
	if !keep {
		dst = append(dst, "Connection: close\r\n"...)
	}
	if w.code != http.StatusNoContent && w.code != http.StatusNotModified {
		dst = append(strconv.AppendInt(append(dst, "Content-Length: "...), int64(len(w.body)), 10), "\r\n"...)
	}
	return append(append(dst, "\r\n"...), w.body...)
}
