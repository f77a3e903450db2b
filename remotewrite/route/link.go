package route

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"mcached/remotewrite/rawio"
	"mcached/remotewrite/wire"
)

// link is a connection to a node that bundles go over, by HTTP/1.1, one at a time. It
// has a goroutine, which waits for the answer (outbox.serve). Whoever cuts a request
// writes the bundle, in one system call with all pieces where they lie, so that nobody
// else must be woken for it.
//
// A request has the same head but for its length and proof, and the head of an answer
// says little: both are written and read here as bytes, because most of what a bundle
// costs is code that is in no cache when it is its turn. An answer that is not as usual is
// read by net/http, and is the connection's last.
type link struct {
	r       *Router
	conn    net.Conn
	in, out *rawio.Conn // of conn, for who reads and who writes
	ends    func() bool // stops the wait for the Router's end

	// Of who writes, which is one at a time:
	req    *http.Request // for proofs
	before []byte        // of a head, what comes before the length
	head   []byte
	bundle bundleBuffer
	pieces [][]byte
	sent   chan struct{} // has one when all is written, or cannot be

	// Of the goroutine:
	text    []byte // of an answer, with its head
	answers []wire.Answer
	used    bool // something was answered

	room []*frame // for those that are under way next

	frames []*frame // that are under way, under outbox.mu; nil: the link is idle

	mu      sync.Mutex
	began   time.Time // when what is under way was sent; zero: nothing is
	until   time.Time // the deadline of reads
	resting bool      // until is the end of an idle time
}

const (
	// linkIdle is how long a connection is kept that nobody uses.
	linkIdle = 90 * time.Second
	// keepAlive detects that the node is gone while nobody uses it.
	keepAlive = 15 * time.Second
	// maxAnswerHead is more than a node has to say of an answer.
	maxAnswerHead = 16 << 10
	// keepAnswerBytes of a buffer for answers are kept for the next.
	keepAnswerBytes = 64 << 10
)

var (
	errLongAnswer = errors.New("a node's answer is longer than any to a bundle")
	errIdle       = errors.New("nobody has used the connection for long")
)

// dial opens a link to a node.
func (r *Router) dial(url string) (*link, error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(r.ctx, http.MethodPost, url+r.o.Path, nil)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAlive: keepAlive}
	conn, err := d.DialContext(ctx, "tcp", hostOf(req))
	if err != nil {
		return nil, err
	}
	l := &link{r: r, conn: conn, req: req, sent: make(chan struct{}, 1)}
	var err1, err2 error
	l.in, err1 = rawio.New(conn.(*net.TCPConn))
	l.out, err2 = rawio.New(conn.(*net.TCPConn))
	if err := cmp.Or(err1, err2); err != nil {
		_ = conn.Close()
		return nil, err
	}
	r.describe(req)
	l.before = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, req.URL.RequestURI(), req.URL.Host)
	lines := bytes.NewBuffer(l.before)
	_ = req.Header.Write(lines) // a buffer takes everything
	l.before = append(lines.Bytes(), "Content-Length: "...)
	l.ends = context.AfterFunc(r.ctx, func() { _ = conn.Close() })
	return l, nil
}

// hostOf is where a request goes, with the port.
func hostOf(req *http.Request) string {
	if req.URL.Port() == "" {
		return net.JoinHostPort(req.URL.Hostname(), "80")
	}
	return req.URL.Host
}

// close ends the link. It may be called more than once.
func (l *link) close() {
	l.ends()
	_ = l.conn.Close()
}

// post sends frames. It waits for nothing: what there is no room for is written by a
// goroutine. Whoever reads detects that nothing can be written.
func (l *link) post(frames []*frame) {
	b := &l.bundle
	b.set(frames)
	c := &l.r.counters
	c.requests.Add(1)
	c.frames.Add(uint64(len(frames)))
	c.bytes.Add(uint64(b.size))
	l.expect(time.Now())
	l.write()
}

// write writes the bundle.
func (l *link) write() {
	b, header := &l.bundle, l.r.o.Header
	l.r.o.Sign(l.req, b.pieces...)
	l.head = append(strconv.AppendInt(append(l.head[:0], l.before...), int64(b.size), 10), "\r\n"...)
	for _, proof := range l.req.Header[header] {
		l.head = append(append(append(append(l.head, header...), ": "...), proof...), "\r\n"...)
	}
	l.head = append(l.head, "\r\n"...)
	l.pieces = append(append(l.pieces[:0], l.head), b.pieces...)
	n, err := l.out.WriteSome(l.pieces)
	if all := len(l.head) + b.size; err == nil && n < all {
		l.r.workers.Go(func() {
			l.written(l.out.WriteBuffers(rest(l.pieces, n)))
		})
		return
	}
	l.written(err)
}

// written ends what post has begun. The pieces are no longer the link's.
func (l *link) written(err error) {
	clear(l.pieces)
	if err != nil {
		_ = l.conn.Close()
	}
	l.sent <- struct{}{}
}

// rest is what is left of pieces behind their first n bytes.
func rest(pieces [][]byte, n int) [][]byte {
	for n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	pieces[0] = pieces[0][n:]
	return pieces
}

// expect has the answer to what is sent now be waited for no longer than Timeout. The
// deadline is left as it is if it comes sooner: when it does, it is put off
// (overdue). A link that is used all the time has a deadline to set once in Timeout.
func (l *link) expect(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began = now
	if due := now.Add(l.r.o.Timeout); l.until.IsZero() || l.until.After(due) {
		l.setDeadlineLocked(due)
	}
	l.resting = false
}

// rests says that nothing is under way any more, and how long something was.
func (l *link) rests() (took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	took, l.began = time.Since(l.began), time.Time{}
	return took
}

func (l *link) setDeadlineLocked(until time.Time) {
	l.until = until
	_ = l.conn.SetReadDeadline(until)
}

// overdue says whether the deadline was meant, and puts it off if not.
func (l *link) overdue() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.began.IsZero() {
		if l.resting {
			return errIdle
		}
		l.resting = true
		l.setDeadlineLocked(now.Add(linkIdle))
		return nil
	}
	due := l.began.Add(l.r.o.Timeout)
	if !now.Before(due) {
		return fmt.Errorf("it is silent for %v: %w", l.r.o.Timeout, context.DeadlineExceeded)
	}
	l.setDeadlineLocked(due)
	return nil
}

// linkReader reads what a node answers, by the deadlines of its link.
type linkReader struct{ *link }

// Read implements io.Reader.
func (r linkReader) Read(b []byte) (int, error) {
	for {
		n, err := r.in.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := r.overdue(); err != nil {
			return 0, err
		}
	}
}

// answer is what a node said to a bundle.
type answer struct {
	text   []byte // valid until the next is read
	packs  bool   // the node takes packed parts
	prints bool   // it takes those that this one names series by
	last   bool   // nothing can be asked over the link any more
}

// read waits for an answer and reads it. Begun says that some of it has come.
func (l *link) read() (a answer, begun bool, err error) {
	if cap(l.text) > keepAnswerBytes {
		l.text = nil
	}
	l.text = l.text[:0]
	for end, length := 0, 0; ; {
		if end == 0 {
			at := bytes.Index(l.text, headEnd)
			if at < 0 && len(l.text) > maxAnswerHead {
				return a, true, errLongAnswer
			}
			if at >= 0 {
				end = at + len(headEnd)
				if length = l.usual(&a, l.text[:end]); length < 0 {
					a, err = l.readOther()
					return a, true, err
				}
			}
		}
		if end > 0 && len(l.text) >= end+length {
			a.text, a.last = l.text[end:end+length], len(l.text) > end+length // or what follows would be the next answer
			return a, true, nil
		}
		l.text = grown(l.text, end+length)
		n, err := linkReader{l}.Read(l.text[len(l.text):cap(l.text)])
		l.text = l.text[:len(l.text)+n]
		if n == 0 && err != nil {
			return a, len(l.text) > 0, err
		}
	}
}

// grown has room for something behind what it has, and for so many bytes.
func grown(b []byte, n int) []byte {
	const least = 4 << 10
	if n = max(n, len(b)+1, least); cap(b) < n {
		b = append(make([]byte, 0, max(n, 2*len(b))), b...)
	}
	return b
}

var headEnd = []byte("\r\n\r\n")

// usual reads the head of an answer, and returns how long the rest is, or -1 if there is
// more to it than this knows.
func (l *link) usual(a *answer, head []byte) (length int) {
	line, head, _ := bytes.Cut(head, headEnd[:2])
	if string(line) != "HTTP/1.1 200 OK" {
		return -1
	}
	length, is := -1, false
	for line, head, _ = bytes.Cut(head, headEnd[:2]); len(line) > 0; line, head, _ = bytes.Cut(head, headEnd[:2]) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || line[0] == ' ' || line[0] == '\t' {
			return -1
		}
		value = bytes.TrimSpace(value)
		switch string(name) {
		case "Content-Length":
			n, err := strconv.ParseUint(string(value), 10, 31)
			if err != nil || n > maxAnswerBytes || length >= 0 {
				return -1
			}
			length = int(n)
		case "Content-Type":
			is = string(value) == wire.ContentTypeAnswers
		case wire.HeaderPacked:
			a.packs = len(value) > 0
		case wire.HeaderPrints:
			a.prints = l.r.printsBy(string(value))
		case "Date", SentHeader:
		default:
			if ofConnection(string(name)) {
				return -1
			}
		}
	}
	if !is {
		return -1
	}
	return length
}

// ofConnection reports whether a header may say how an answer is to be read.
func ofConnection(name string) bool {
	for _, other := range []string{"Connection", "Content-Length", "Transfer-Encoding", "Trailer", "Upgrade"} {
		if strings.EqualFold(strings.TrimSpace(name), other) {
			return true
		}
	}
	return strings.TrimSpace(name) == ""
}

// readOther reads an answer that is not as usual, of which some is in text, and passes
// by what announces one.
func (l *link) readOther() (a answer, err error) {
	from := io.LimitedReader{R: io.MultiReader(bytes.NewReader(l.text), linkReader{l}), N: maxAnswerBytes}
	resp, text, err := readAnswer(bufio.NewReader(&from), l.req)
	if from.N == 0 { // it ends where it was cut off
		err = errLongAnswer
	}
	if err != nil {
		return a, err
	}
	if err := refusal(resp, text); err != nil {
		return a, err
	}
	return answer{text: text, packs: resp.Header.Get(wire.HeaderPacked) != "", prints: l.r.printsBy(resp.Header.Get(wire.HeaderPrints)), last: true}, nil
}

func readAnswer(r *bufio.Reader, req *http.Request) (*http.Response, []byte, error) {
	for {
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode < http.StatusOK {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		return resp, text, err
	}
}
