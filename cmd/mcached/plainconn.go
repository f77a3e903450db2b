package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
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

	io     io.ReadWriter
	buf    []byte // what has come and is not used
	skip   int    // bytes of empty lines that may come before the next head
	served bool   // one request at least
	like   likeness
	req    *http.Request // of like; handlers get copies, of which Header and URL are this one's
	length []string      // of req: what Header has as Content-Length
	read   lastRead
	ctx    context.Context
	body   plainBody
	w      plainAnswer
	late   bool // for room to write was waited, under a deadline of the connection's

	until time.Time // deadline of reads that await has set; zero: there is another one
	whole bool      // the body of the request has come with its head
}

// request is a head that was read.
type request struct {
	*http.Request       // of which the handler gets a copy
	length        int64 // of the body
	head          int   // bytes of the head. 0: it is not for a plainServer
}

// lastRead is what the last read said, but for its first line.
type lastRead struct {
	lines  []byte // of its header, from the end of the first line on
	req    *http.Request
	length int64
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
	c.due(c.server.ReadHeaderTimeout)
	for requests := 1; ; requests++ {
		if requests%yieldEvery == 0 {
			runtime.Gosched()
		}
		r, err := c.readHead()
		if err != nil {
			_ = c.Close()
			return true
		}
		if r.head == 0 {
			c.limitedConn.ahead = c.buf
			return false
		}
		if !c.active(true) {
			_ = c.Close()
			return true
		}
		connState(c.limitedConn, http.StateActive)
		if !c.answer(r) || !c.active(false) {
			_ = c.Close()
			return true
		}
		connState(c.limitedConn, http.StateIdle)
		c.served = true
		if c.skip = 0; r.Method == http.MethodPost {
			c.skip = maxSkip
		}
		c.await()
	}
}

// await bounds how long the next request may take to begin: by what the server says, and
// up to a sixteenth of that more, so that not each request moves a timer.
func (c *plainConn) await() {
	least, now := c.server.IdleTimeout, time.Now()
	if c.until.Sub(now) < least {
		c.until = now.Add(least + least/16)
		_ = c.SetReadDeadline(c.until)
	}
}

// due bounds how long what is read from now on may take.
func (c *plainConn) due(within time.Duration) {
	c.until = time.Time{}
	_ = c.SetReadDeadline(time.Now().Add(within))
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

// readHead reads until there is a whole head in buf, and returns what it says. No
// head is longer than what is free of admission (heads.go).
func (c *plainConn) readHead() (request, error) {
	for begun := false; ; {
		c.skipEmptyLines()
		if len(c.buf) > 0 {
			b := c.buf[:min(len(c.buf), freeHeadBytes)]
			if r := c.matched(b); r.head > 0 {
				return r, nil
			}
			if end := bytes.Index(b, headEnd); end >= 0 {
				return c.parse(b[:end+len(headEnd)]), nil
			}
			tells := !c.served || len(c.buf) >= minNext
			if len(c.buf) >= freeHeadBytes || tells && !c.mayBecomePlain() {
				return request{}, nil
			}
			if !begun { // the rest of it is due
				begun = true
				c.due(c.server.ReadHeaderTimeout)
			}
		}
		n, err := c.io.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if n == 0 && err == io.EOF && len(c.buf) > 0 && (!c.served || len(c.buf) >= minNext) {
			return request{}, nil // net/http says what it misses
		}
		if n == 0 && err != nil {
			return request{}, err
		}
	}
}

// matched is the request whose head b begins with, if it is like the last one.
func (c *plainConn) matched(b []byte) request {
	length, value, head := c.like.match(b)
	if head == 0 {
		return request{}
	}
	if value != nil {
		c.req.Header[c.server.varies][0] = string(value)
	}
	if length != c.req.ContentLength {
		c.req.ContentLength, c.length[0] = length, strconv.FormatInt(length, 10)
	}
	return request{c.req, length, head}
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

// minNext bytes tell of a request that follows another. Who sends fewer, and then no
// more, is not told what they lack, nor is he by net/http.
const minNext = 4

// maxSkip bytes of empty lines are taken behind a POST, as net/http does it.
const maxSkip = 4

var (
	headEnd    = []byte("\r\n\r\n")
	hostLine   = []byte("\r\nhost:") // in lower case, as the next
	lengthLine = []byte("\r\ncontent-length:")
)

// mayBecomePlain reports whether buf begins as a plain request does, as far as it goes.
func (c *plainConn) mayBecomePlain() bool {
	b, reads := c.buf, c.server.reads
	return reads != "" && (mayBegin(b, "GET ", reads) || mayBegin(b, "POST ", reads)) ||
		slices.ContainsFunc(c.server.writes, func(line string) bool { return mayBegin(b, line) })
}

// mayBegin reports whether b begins with texts, as far as it goes.
func mayBegin(b []byte, texts ...string) bool {
	for _, text := range texts {
		n := min(len(text), len(b))
		if string(b[:n]) != text[:n] {
			return false
		}
		b = b[n:]
	}
	return true
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

// parse looks whether head, which is whole, is plain, and keeps it for those to come.
func (c *plainConn) parse(head []byte) request {
	if !c.mayBecomePlain() || !areLines(head) {
		return request{}
	}
	end := bytes.Index(head, headEnd[:2])
	line := head[:end]
	isWrite := slices.Contains(c.server.writes, string(head[:end+2]))
	if !isWrite && bytes.Equal(head[end:], c.read.lines) {
		if r := c.again(line, len(head)); r.head > 0 {
			return r
		}
	}
	head = bytes.Clone(head)
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil || !isPlainRequest(r) || bytes.Count(bytes.ToLower(head), hostLine) != 1 {
		return request{}
	}
	at, ok := lengthIn(head, r.ContentLength)
	if !ok || at == 0 && r.Method == http.MethodPost {
		return request{}
	}
	if c.ctx == nil {
		c.ctx = context.WithValue(context.WithValue(context.Background(), http.ServerContextKey, c.server.Server), http.LocalAddrContextKey, c.LocalAddr())
	}
	r.RemoteAddr = c.RemoteAddr().String()
	if isWrite {
		digits := len(strconv.FormatInt(r.ContentLength, 10))
		c.like = likeness{before: head[:at:at], between: head[at+digits:]}
		c.like.split(bytes.ToLower(head[at+digits:]), c.server.varies, r.Header)
		c.req, c.length = r, r.Header["Content-Length"]
	} else {
		if method, uri, ok := requestLine(line); !ok || method != r.Method || uri != r.RequestURI {
			return request{}
		}
		c.read = lastRead{head[end:], r, r.ContentLength}
	}
	return request{r, r.ContentLength, len(head)}
}

// again is a read of which all but the first line is as before.
func (c *plainConn) again(line []byte, head int) request {
	method, uri, ok := requestLine(line)
	if !ok || (method == http.MethodPost) != (c.read.length > 0) {
		return request{}
	}
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		return request{}
	}
	r := *c.read.req
	r.Method, r.RequestURI, r.URL = method, uri, u
	return request{&r, c.read.length, head}
}

// requestLine takes apart the first line of a read, which begins with a method that
// is plain, and the slash of a path.
func requestLine(line []byte) (method, uri string, ok bool) {
	method, uri, _ = strings.Cut(string(line), " ")
	uri, ok = strings.CutSuffix(uri, " HTTP/1.1")
	return method, uri, ok && strings.IndexByte(uri, ' ') < 0
}

// isPlainRequest reports whether nothing in r says how the connection or the body
// are to be taken, but for what is the rule.
func isPlainRequest(r *http.Request) bool {
	if len(r.TransferEncoding) > 0 || r.Close || !isPlain(r.Host, ".-_:[]") {
		return false
	}
	for name, values := range r.Header {
		if len(values) != 1 || !isPlain(name, "-_") || slices.Contains(connectionHeaders, name) {
			return false
		}
		if name == "Connection" && !strings.EqualFold(values[0], "keep-alive") {
			return false
		}
	}
	return true
}

// lengthIn is where the digits of the Content-Length are in a head, or 0 if there is
// none. It reports false if they are not those of length alone, or not of a body.
func lengthIn(head []byte, length int64) (at int, ok bool) {
	lower := bytes.ToLower(head)
	switch bytes.Count(lower, lengthLine) {
	case 0:
		return 0, length == 0
	case 1:
	default:
		return 0, false
	}
	at = bytes.Index(lower, lengthLine) + len(lengthLine)
	if head[at] == ' ' {
		at++
	}
	digits := strconv.FormatInt(length, 10)
	return at, length > 0 && len(digits) <= maxLengthDigits && bytes.HasPrefix(head[at:], []byte(digits+"\r\n"))
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

// connectionHeaders say something of the connection, or of how the body comes; so
// does Connection.
var connectionHeaders = []string{"Expect", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings"}

// isPlain reports whether text is letters, digits and what else is given.
func isPlain(text, others string) bool {
	for _, b := range []byte(text) {
		if (b < '0' || b > '9') && (b|0x20 < 'a' || b|0x20 > 'z') && strings.IndexByte(others, b) < 0 {
			return false
		}
	}
	return text != ""
}
