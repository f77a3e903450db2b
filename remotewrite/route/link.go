package route

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"mcached/remotewrite/rawio"
)

// links is the transport of bundles: HTTP/1.1 by the goroutine that sends, in one
// system call with all pieces where they lie. net/http has two goroutines for
// each connection, which the bundle and the answer pass through, and copies the
// body into a buffer piece by piece: that cost as much as cutting it. Nor is the
// scheduler told of system calls (package rawio). What is no bundle, or goes by TLS,
// goes by net/http.
type links struct {
	other *http.Transport
	dial  net.Dialer

	mu   sync.Mutex
	idle map[string][]*link // by host and port, the one that was used last at the end
}

// link is a connection to a node. It belongs to one request at a time.
type link struct {
	conn   net.Conn
	io     *rawio.Conn // of conn
	r      *bufio.Reader
	answer io.LimitedReader // of io, below r: what an answer may still have
	host   string
	head   bytes.Buffer
	pieces [][]byte    // of the request under way
	expiry *time.Timer // of an idle one
}

const (
	// linkIdle is how long a connection is kept that nobody uses.
	linkIdle = 90 * time.Second
	// maxIdleLinks to a node: bundles under way, and as many of a handover.
	maxIdleLinks = 2 * maxUnderWay
)

// Transport is one for requests between nodes.
func Transport() http.RoundTripper {
	const buffer = 64 << 10
	d := net.Dialer{Timeout: defaultTimeout, KeepAlive: 15 * time.Second}
	return &links{
		dial: d, idle: make(map[string][]*link),
		other: &http.Transport{
			DialContext:         d.DialContext,
			MaxIdleConnsPerHost: maxUnderWay,
			IdleConnTimeout:     linkIdle,
			DisableCompression:  true,
			WriteBufferSize:     buffer,
			ReadBufferSize:      buffer,
		},
	}
}

// RoundTrip implements http.RoundTripper. When it returns, nothing of the body
// is read any more.
func (t *links) RoundTrip(req *http.Request) (*http.Response, error) {
	body, ok := req.Body.(*bundleReader)
	if !ok || req.URL.Scheme != "http" {
		return t.other.RoundTrip(req)
	}
	defer body.Close()
	for {
		l, used, err := t.take(req.Context(), req.URL.Host)
		if err != nil {
			return nil, err
		}
		resp, answered, err := l.exchange(req, body.pieces)
		if err == nil && !resp.Close && l.r.Buffered() == 0 { // or what follows would be the next answer
			t.keep(l)
			return resp, nil
		}
		_ = l.conn.Close()
		// A node may have closed a connection while nobody used it.
		if err == nil || answered || !used || req.Context().Err() != nil {
			return resp, err
		}
	}
}

// take is a link to a host: one that is idle, or a new one.
func (t *links) take(ctx context.Context, host string) (l *link, used bool, err error) {
	if l = t.takeIdle(host); l != nil {
		return l, true, nil
	}
	conn, err := t.dial.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, false, err
	}
	raw, err := rawio.New(conn.(*net.TCPConn))
	if err != nil {
		_ = conn.Close()
		return nil, false, err
	}
	l = &link{conn: conn, io: raw, host: host, answer: io.LimitedReader{R: raw}}
	l.r = bufio.NewReader(&l.answer)
	return l, false, nil
}

func (t *links) takeIdle(host string) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.idle[host]
	for len(all) > 0 {
		l := all[len(all)-1]
		all = all[:len(all)-1]
		t.setIdleLocked(host, all)
		if l.expiry.Stop() { // or it is being closed
			return l
		}
	}
	return nil
}

func (t *links) setIdleLocked(host string, all []*link) {
	if len(all) == 0 {
		delete(t.idle, host)
		return
	}
	t.idle[host] = all
}

// keep has a link wait for the next request.
func (t *links) keep(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.idle[l.host]
	if len(all) >= maxIdleLinks {
		_ = l.conn.Close()
		return
	}
	t.idle[l.host] = append(all, l)
	if l.expiry == nil {
		l.expiry = time.AfterFunc(linkIdle, func() { t.expire(l) })
	} else {
		l.expiry.Reset(linkIdle)
	}
}

// expire closes a link that was idle for too long.
func (t *links) expire(l *link) {
	_ = l.conn.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	var rest []*link
	for _, other := range t.idle[l.host] {
		if other != l {
			rest = append(rest, other)
		}
	}
	t.setIdleLocked(l.host, rest)
}

// CloseIdleConnections closes those that nobody uses.
func (t *links) CloseIdleConnections() {
	t.other.CloseIdleConnections()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, all := range t.idle {
		for _, l := range all {
			l.expiry.Stop()
			_ = l.conn.Close()
		}
	}
	clear(t.idle)
}

var errLongAnswer = errors.New("a node's answer is longer than any to a bundle")

// exchange sends a request with a body in pieces, and reads the answer whole.
// answered says that some of it has come.
func (l *link) exchange(req *http.Request, pieces [][]byte) (resp *http.Response, answered bool, err error) {
	ctx := req.Context()
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() { // the connection has a deadline now
			resp, err = nil, context.Cause(ctx)
		}
	}()
	l.head.Reset()
	l.head.WriteString(req.Method + " " + req.URL.RequestURI() + " HTTP/1.1\r\nHost: " + req.URL.Host + "\r\nContent-Length: " + strconv.FormatInt(req.ContentLength, 10) + "\r\n")
	_ = req.Header.Write(&l.head) // a buffer takes everything
	l.head.WriteString("\r\n")
	all := append(l.pieces[:0], l.head.Bytes())
	all = append(all, pieces...)
	l.pieces = all
	err = l.io.WriteBuffers(all)
	clear(l.pieces) // they are no longer ours
	if err != nil {
		return nil, false, err
	}
	l.answer.N = maxAnswerBytes
	if _, err = l.r.Peek(1); err != nil {
		return nil, false, err
	}
	resp, err = l.read(req)
	if l.answer.N == 0 { // it ends where it was cut off
		resp, err = nil, errLongAnswer
	}
	return resp, true, err
}

// read reads an answer with its body, and passes by what announces one.
func (l *link) read(req *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(l.r, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < http.StatusOK {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(text))
		return resp, nil
	}
}
