package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"mcached/remotewrite/rawio"
)

// plainConn is a connection that is served by a plainServer.
type plainConn struct {
	*limitedConn
	server *plainServer
	idle   bool // under server.mu: it waits for a request

	io   io.ReadWriter
	buf  []byte // what has come and is not used
	skip int    // bytes of empty lines that may come before the next head
	like likeness
	req  *http.Request // of like; handlers get copies, of which Header and URL are this one's
	ctx  context.Context
	body plainBody
	w    plainAnswer
	out  []byte
	late bool // out had to be waited for
}

// likeness is a head but for the digits of its Content-Length and, if it has the
// header that varies, what that says:
//
//	before │ length │ between │ value │ behind
type likeness struct {
	before, between, behind []byte
	varies                  bool // else nothing comes behind between
}

// serve answers requests until the connection is closed: then done is true. Else
// buf has what is not a request for it.
func (c *plainConn) serve() (done bool) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler {
				c.logf("http: panic serving %v: %v\n%s", c.RemoteAddr(), v, debug.Stack())
			}
			_ = c.Close()
			done = true
		}
	}()
	c.buf, c.io = make([]byte, 0, plainBuffer), c.Conn
	if t, ok := c.Conn.(*net.TCPConn); ok {
		if raw, err := rawio.New(t); err == nil {
			raw.Full = c.full
			c.io = raw
		}
	}
	wait := c.server.ReadHeaderTimeout
	for requests := 1; ; requests++ {
		if requests%yieldEvery == 0 {
			runtime.Gosched()
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		length, value, head, err := c.readHead()
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
		if value != nil {
			c.req.Header[c.server.varies][0] = string(value)
		}
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
// ready, nothing else may make a goroutine give way that uses rawio.
const yieldEvery = 16

func (c *plainConn) logf(format string, values ...any) {
	if l := c.server.ErrorLog; l != nil {
		l.Printf(format, values...)
		return
	}
	log.Printf(format, values...)
}

// active notes that a request is answered, or was. It reports false when the
// server is being shut down.
func (c *plainConn) active(is bool) bool {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.idle = !is
	return !c.server.closing.Load()
}

// readHead reads until there is a whole head in buf, and returns how long the body
// behind it is, and the head; and if the header that varies is another than that of
// req, what it says, as a view of buf. A head of 0 says that it is not for this
// server. No head is longer than what is free of admission (heads.go).
func (c *plainConn) readHead() (length int64, value []byte, head int, err error) {
	for begun := false; ; {
		c.skipEmptyLines()
		if len(c.buf) > 0 {
			if length, value, head = c.like.match(c.buf[:min(len(c.buf), freeHeadBytes)]); head > 0 {
				return length, value, head, nil
			}
			if end := bytes.Index(c.buf[:min(len(c.buf), freeHeadBytes)], headEnd); end >= 0 {
				length, head = c.parse(c.buf[:end+len(headEnd)])
				return length, nil, head, nil
			}
			if len(c.buf) >= freeHeadBytes || !c.mayBecomePlain() {
				return 0, nil, 0, nil
			}
			if !begun { // the rest of it is due
				begun = true
				_ = c.SetReadDeadline(time.Now().Add(c.server.ReadHeaderTimeout))
			}
		}
		n, err := c.io.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if n == 0 && err == io.EOF && len(c.buf) > 0 {
			return 0, nil, 0, nil // net/http says what it misses
		}
		if n == 0 && err != nil {
			return 0, nil, 0, err
		}
	}
}

// skipEmptyLines drops what old clients send behind a POST.
func (c *plainConn) skipEmptyLines() {
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
func (c *plainConn) mayBecomePlain() bool {
	return slices.ContainsFunc(c.server.paths, func(path string) bool {
		line := "POST " + path + " HTTP/1.1\r\n"
		n := min(len(line), len(c.buf))
		return string(c.buf[:n]) == line[:n]
	})
}

// match reports whether b begins with a head like l: its length, that of the body
// behind it, and the value of the header that varies, as a view of b. 0 is neither.
func (l *likeness) match(b []byte) (length int64, value []byte, head int) {
	if len(l.before) == 0 || !bytes.HasPrefix(b, l.before) {
		return 0, nil, 0
	}
	i := len(l.before)
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9' && i-len(l.before) < maxLengthDigits; i++ {
		length = length*10 + int64(b[i]-'0')
	}
	if i == len(l.before) || b[len(l.before)] == '0' || !bytes.HasPrefix(b[i:], l.between) {
		return 0, nil, 0
	}
	i += len(l.between)
	if !l.varies {
		return length, nil, i
	}
	from := i
	for i < len(b) && b[i] >= ' ' && b[i] <= '~' {
		i++
	}
	value = b[from:i]
	if len(value) == 0 || value[0] == ' ' || value[len(value)-1] == ' ' || !bytes.HasPrefix(b[i:], l.behind) {
		return 0, nil, 0
	}
	return length, value, i + len(l.behind)
}

// maxLengthDigits of a Content-Length are enough for any body that is taken.
const maxLengthDigits = 12

// parse looks whether head, which is whole, is plain, and keeps it for those to
// come. It returns 0, 0 if it is not.
func (c *plainConn) parse(head []byte) (length int64, n int) {
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
	c.like = likeness{before: head[:at:at], between: head[at+len(digits):]}
	c.like.split(lower[at+len(digits):], c.server.varies, r.Header)
	if c.ctx == nil {
		c.ctx = context.WithValue(context.WithValue(context.Background(), http.ServerContextKey, c.server.Server), http.LocalAddrContextKey, c.LocalAddr())
	}
	r.RemoteAddr = c.RemoteAddr().String()
	c.req = r
	return r.ContentLength, len(head)
}

// split takes the value of a header out of what is between, which is lower in lower
// case, if it is there.
func (l *likeness) split(lower []byte, varies string, of http.Header) {
	line := []byte("\r\n" + strings.ToLower(varies) + ": ")
	at := bytes.Index(lower, line)
	if varies == "" || at < 0 {
		return
	}
	at += len(line)
	rest, ok := bytes.CutPrefix(l.between[at:], []byte(of.Get(varies)))
	if !ok || !bytes.HasPrefix(rest, headEnd[:2]) { // there are more spaces about it
		return
	}
	l.between, l.behind, l.varies = l.between[:at:at], rest, true
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
