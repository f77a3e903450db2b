package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mcached/remotewrite/rawio"
)

// answer serves the request whose head is the first bytes of buf. It reports
// whether the connection can take another.
func (c *plainConn) answer(of request) bool {
	ctx := &plainContext{Context: c.ctx, c: c}
	defer ctx.end()
	c.body = plainBody{c: c, ahead: c.buf[of.head:], left: of.length}
	r := of.WithContext(ctx)
	r.ContentLength, r.Body = of.length, http.NoBody
	if of.length > 0 {
		r.Body = &c.body
	}
	if c.whole = int64(len(c.body.ahead)) >= of.length; !c.whole {
		c.due(c.server.ReadTimeout) // until the handler says another
	}
	c.w.begin(c)
	c.server.Handler.ServeHTTP(&c.w, r)
	if c.w.end() != nil {
		return false
	}
	if c.body.left > 0 {
		c.linger()
	}
	c.buf = c.buf[:copy(c.buf[:cap(c.buf)], c.body.ahead)]
	return c.w.keep
}

// settle decides whether the connection stays. As net/http does it: what is left of
// a body is read, up to a bound.
func (c *plainConn) settle(h http.Header) (keep bool) {
	const most = 256 << 10
	said := h["Connection"]
	keep = len(said) == 0 || said[0] != "close"
	if keep && c.body.left > 0 && c.body.left < most && c.body.failed == nil {
		_, _ = io.Copy(io.Discard, &c.body)
	}
	return keep && c.body.left == 0 && !c.server.closing.Load()
}

// write sends pieces of an answer.
func (c *plainConn) write(pieces ...[]byte) (err error) {
	if raw, ok := c.io.(*rawio.Conn); ok && len(pieces) > 1 {
		err = raw.WriteBuffers(pieces)
	} else {
		for _, p := range pieces {
			if _, err = c.io.Write(p); err != nil {
				break
			}
		}
	}
	if c.late {
		c.late = false
		_ = c.SetWriteDeadline(time.Time{})
	}
	return err
}

// full bounds how long a client may take nothing of its answers, where the handler
// does not.
func (c *plainConn) full() {
	if !c.w.bounded {
		c.late = true
		_ = c.SetWriteDeadline(time.Now().Add(c.server.ReadTimeout))
	}
}

// linger lets the client read the answer though it still sends: a connection that is
// closed while bytes come is reset, and who cannot send does not read any more.
func (c *plainConn) linger() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	_ = c.SetReadDeadline(time.Now().Add(c.server.lingers))
	_, _ = io.Copy(io.Discard, c.Conn)
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

// plainAnswer is the http.ResponseWriter of a plainConn. It holds the answer until
// the handler has returned, if that is short; a longer one is sent as it comes, in
// chunks if the handler has not said how long it is.
type plainAnswer struct {
	c      *plainConn
	header http.Header
	code   int          // 0: nothing is said yet
	head   bytes.Buffer // lines of the header, as they were then
	names  []string     // scratch space, of the header
	typed  bool         // what the body is need not be told from it
	length int64        // of the body, as the handler says; -1: it does not
	body   []byte       // what is not sent
	sent   int64        // bytes of the body that were
	begun  bool         // the head has been sent
	keep   bool         // the connection stays; once begun
	failed error

	bounded bool // the handler has set a deadline for writing

	out    []byte // head of an answer, or of a chunk
	second int64  // of date
	date   []byte
}

const (
	heldBytes = 2 << 10 // of an answer are held, as net/http does it
	sniffed   = 512     // bytes of it may tell what it is
	joined    = 1 << 10 // bytes at most are sent in one piece: to copy them costs less than to tell the kernel of each
)

func (w *plainAnswer) begin(c *plainConn) {
	w.c, w.code, w.length, w.body, w.sent, w.begun, w.failed = c, 0, -1, w.body[:0], 0, false, nil
	w.head.Reset()
	if w.header == nil {
		w.header = http.Header{}
	}
	if len(w.header) > 0 {
		clear(w.header)
	}
}

// Header implements http.ResponseWriter.
func (w *plainAnswer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *plainAnswer) WriteHeader(code int) {
	if w.code != 0 || code < http.StatusOK {
		return
	}
	w.code = code
	if len(w.header) == 0 {
		return
	}
	if said := w.header["Content-Length"]; len(said) > 0 {
		if n, err := strconv.ParseInt(said[0], 10, 64); err == nil && n >= 0 {
			w.length = n
		}
	}
	w.typed = w.header["Content-Type"] != nil || w.header.Get("Content-Encoding") != ""
	if !w.writeHeader() {
		_ = w.header.WriteSubset(&w.head, ownHeaders)
	}
}

// writeHeader does what WriteSubset does where nothing has to be left out or mended, as in
// nearly all answers. It reports false, and has written nothing, if it is not so.
func (w *plainAnswer) writeHeader() bool {
	w.names = w.names[:0]
	for name, values := range w.header {
		if ownHeaders[name] {
			continue
		}
		if len(values) != 1 || !isPlain(name, "-_") || strings.ContainsAny(values[0], "\r\n") || strings.TrimSpace(values[0]) != values[0] {
			return false
		}
		w.names = append(w.names, name)
	}
	slices.Sort(w.names)
	for _, name := range w.names {
		w.head.WriteString(name)
		w.head.WriteString(": ")
		w.head.WriteString(w.header[name][0])
		w.head.WriteString("\r\n")
	}
	return true
}

// ownHeaders are written by appendHead.
var ownHeaders = map[string]bool{"Content-Length": true, "Date": true, "Transfer-Encoding": true, "Connection": true}

// hasBody reports whether there may be one.
func (w *plainAnswer) hasBody() bool {
	return w.code != http.StatusNoContent && w.code != http.StatusNotModified
}

// Write implements http.ResponseWriter.
func (w *plainAnswer) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case !w.hasBody():
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.sent+int64(len(w.body)+len(b)) > w.length:
		return 0, http.ErrContentLength
	case len(w.body)+len(b) <= heldBytes && w.failed == nil:
		w.body = append(w.body, b...)
		return len(b), nil
	}
	if err := w.send(b, false); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Flush implements http.Flusher.
func (w *plainAnswer) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *plainAnswer) FlushError() error {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.send(nil, false)
}

// SetReadDeadline is for http.ResponseController. A body that has come is read from no
// connection.
func (w *plainAnswer) SetReadDeadline(t time.Time) error {
	if w.c.whole {
		return nil
	}
	return w.c.SetReadDeadline(t)
}

// SetWriteDeadline is for http.ResponseController.
func (w *plainAnswer) SetWriteDeadline(t time.Time) error {
	w.bounded = !t.IsZero()
	return w.c.SetWriteDeadline(t)
}

// end sends what is left of the answer.
func (w *plainAnswer) end() error {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	err := w.send(nil, true)
	if w.bounded {
		_ = w.SetWriteDeadline(time.Time{})
	}
	if w.length > w.sent {
		w.keep = false // as the client waits for more
	}
	return err
}

var lastChunk = []byte("0\r\n\r\n")

// send sends what is held, and b behind it; last says that the body ends with it.
func (w *plainAnswer) send(b []byte, last bool) error {
	if w.failed != nil {
		return w.failed
	}
	n, out := len(w.body)+len(b), w.out[:0]
	var chunkEnd, bodyEnd []byte
	switch {
	case w.begun:
	case last && w.length < 0 && w.hasBody():
		w.length = int64(n)
		fallthrough
	default:
		w.begun, w.keep = true, w.c.settle(w.header)
		out = w.appendHead(out, b)
	}
	if w.length < 0 && w.hasBody() { // in chunks
		if n > 0 {
			out = append(strconv.AppendInt(out, int64(n), 16), "\r\n"...)
			chunkEnd = headEnd[:2]
		}
		if last {
			bodyEnd = lastChunk
		}
	}
	switch {
	case len(out)+n+len(bodyEnd) == 0:
	case len(out)+n <= joined:
		out = append(append(append(append(out, w.body...), b...), chunkEnd...), bodyEnd...)
		w.failed = w.c.write(out)
	default:
		w.failed = w.c.write(out, w.body, b, chunkEnd, bodyEnd)
	}
	w.out = out
	w.body, w.sent = w.body[:0], w.sent+int64(n)
	return w.failed
}

// appendHead appends the head of the answer to dst; b is what its body begins with,
// behind what is held.
func (w *plainAnswer) appendHead(dst, b []byte) []byte {
	dst = append(strconv.AppendInt(append(dst, "HTTP/1.1 "...), int64(w.code), 10), ' ')
	dst = append(append(dst, http.StatusText(w.code)...), "\r\n"...)
	dst = append(dst, w.head.Bytes()...)
	if now := time.Now(); now.Unix() != w.second {
		w.second, w.date = now.Unix(), now.UTC().AppendFormat(w.date[:0], http.TimeFormat)
	}
	dst = append(append(append(dst, "Date: "...), w.date...), "\r\n"...)
	if !w.keep {
		dst = append(dst, "Connection: close\r\n"...)
	}
	if w.hasBody() {
		if len(w.body)+len(b) > 0 && !w.typed {
			begins := append(w.body, b[:min(len(b), sniffed)]...)
			dst = append(append(append(dst, "Content-Type: "...), http.DetectContentType(begins)...), "\r\n"...)
		}
		if w.length >= 0 {
			dst = append(strconv.AppendInt(append(dst, "Content-Length: "...), w.length, 10), "\r\n"...)
		} else {
			dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
		}
	}
	return append(dst, "\r\n"...)
}
