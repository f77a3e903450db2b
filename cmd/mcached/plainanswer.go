package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// answer serves the request whose head is the first bytes of buf. It reports
// whether the connection can take another.
func (c *plainConn) answer(length int64, head int) bool {
	ctx := &plainContext{Context: c.ctx, c: c}
	defer ctx.end()
	c.body = plainBody{c: c, ahead: c.buf[head:], left: length}
	r := c.req.WithContext(ctx)
	if length != c.req.ContentLength {
		c.req.ContentLength, c.req.Header["Content-Length"][0] = length, strconv.FormatInt(length, 10)
	}
	r.ContentLength, r.Body = length, &c.body
	if int64(len(c.body.ahead)) < length { // until the handler says another
		_ = c.SetReadDeadline(time.Now().Add(c.server.ReadTimeout))
	}
	c.w.begin(c)
	c.server.Handler.ServeHTTP(&c.w, r)
	keep := c.w.header.Get("Connection") != "close"
	// As net/http does it: what is left of a body is read, up to a bound.
	const most = 256 << 10
	if keep && c.body.left < most && c.body.failed == nil {
		_, _ = io.Copy(io.Discard, &c.body)
	}
	whole := c.body.left == 0
	keep = keep && whole && !c.server.closing.Load()
	if c.out = c.w.end(c.out[:0], keep); c.write() != nil {
		return false
	}
	if !whole {
		c.linger()
	}
	c.buf = c.buf[:copy(c.buf[:cap(c.buf)], c.body.ahead)]
	return keep
}

// plainContext is the context of a request of a plainConn. Most handlers only ask
// it for values and for Err, which cost nothing to make.
type plainContext struct {
	context.Context // of the connection
	c               *plainConn

	mu     sync.Mutex
	waited context.Context // which ends with the request; nil as long as nobody asked for Done
	cancel context.CancelFunc
	ended  bool
}

// end says that the request is answered.
func (x *plainContext) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended = true; x.cancel != nil {
		x.cancel()
	}
}

// Done implements context.Context.
func (x *plainContext) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waited == nil {
		x.waited, x.cancel = context.WithCancel(x.Context)
		if x.ended {
			x.cancel()
		}
	}
	return x.waited.Done()
}

// Value implements context.Context. What asked for Done is told of the context
// behind it, so that package context needs no goroutine to wait.
func (x *plainContext) Value(key any) any {
	x.mu.Lock()
	of := x.waited
	x.mu.Unlock()
	if of == nil {
		of = x.Context
	}
	return of.Value(key)
}

// Err implements context.Context.
func (x *plainContext) Err() error {
	if err := x.Context.Err(); err != nil {
		return err
	}
	x.mu.Lock()
	ended := x.ended
	x.mu.Unlock()
	if ended || x.c.gone() {
		return context.Canceled
	}
	return nil
}

// gone reports whether the client sends no more: nothing is read by that.
func (c *plainConn) gone() (is bool) {
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
func (c *plainConn) write() error {
	_, err := c.io.Write(c.out)
	if c.late {
		c.late = false
		_ = c.SetWriteDeadline(time.Time{})
	}
	return err
}

// full bounds how long a client may take nothing of its answers.
func (c *plainConn) full() {
	c.late = true
	_ = c.SetWriteDeadline(time.Now().Add(c.server.ReadTimeout))
}

// linger lets the client read the answer though it still sends: a connection
// that is closed while bytes come is reset.
func (c *plainConn) linger() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	const most = 500 * time.Millisecond
	_ = c.SetReadDeadline(time.Now().Add(most))
	_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, 1<<20))
}

// plainBody is the body of a request: what came with its head, then what comes.
type plainBody struct {
	c      *plainConn
	ahead  []byte // of the connection's buffer; what is behind the body stays
	left   int64
	failed error
}

// Read implements io.Reader.
func (b *plainBody) Read(p []byte) (n int, err error) {
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
func (b *plainBody) Close() error { return nil }

// plainAnswer is the http.ResponseWriter of a plainConn. It holds the answer,
// which is short, until the handler has returned.
type plainAnswer struct {
	c      *plainConn
	header http.Header
	code   int
	head   bytes.Buffer // lines of the header
	body   []byte

	second int64 // of date
	date   []byte
}

func (w *plainAnswer) begin(c *plainConn) {
	w.c, w.code, w.body = c, 0, w.body[:0]
	w.head.Reset()
	if w.header == nil {
		w.header = http.Header{}
	}
	clear(w.header)
}

// Header implements http.ResponseWriter.
func (w *plainAnswer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *plainAnswer) WriteHeader(code int) {
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
func (w *plainAnswer) Write(b []byte) (int, error) {
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
func (w *plainAnswer) SetReadDeadline(t time.Time) error { return w.c.SetReadDeadline(t) }

// end appends the answer to dst. keep says that the connection stays.
func (w *plainAnswer) end(dst []byte, keep bool) []byte {
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
