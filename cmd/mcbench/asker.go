package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// asker asks one server over a connection that it keeps, as http.Client does but
// for what takes longer than a small answer: http.Client hands each request and
// each answer from goroutine to goroutine. Both are the same for all servers: the
// head is prepared before the clock starts, gzip is accepted and decompressed.
// It belongs to one goroutine.
type asker struct {
	timeout time.Duration // of an answer

	host string // of conn
	conn net.Conn
	in   *bufio.Reader
	gzip *gzip.Reader
	body bytes.Buffer
}

// reply is an answer, whole.
type reply struct {
	status int
	header http.Header
	body   []byte // valid until the next is asked for
	took   time.Duration
}

// do sends r, whose body must be one that http.NewRequest knows, and reads the answer.
func (a *asker) do(ctx context.Context, r *http.Request) (reply, error) {
	var out bytes.Buffer
	if r.Header.Get("Accept-Encoding") == "" {
		r.Header.Set("Accept-Encoding", "gzip")
	}
	if err := r.Write(&out); err != nil {
		return reply{}, err
	}
	if err := a.connect(ctx, r.URL); err != nil {
		return reply{}, err
	}
	c := a.conn
	if err := c.SetDeadline(time.Now().Add(a.timeout)); err != nil {
		return reply{}, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	began := time.Now()
	got, err := a.exchange(r, out.Bytes())
	got.took = time.Since(began)
	if err != nil {
		a.close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	return got, err
}

// exchange writes a request and reads what is answered to it.
func (a *asker) exchange(r *http.Request, raw []byte) (reply, error) {
	if _, err := a.conn.Write(raw); err != nil {
		return reply{}, err
	}
	resp, err := http.ReadResponse(a.in, r)
	if err != nil {
		return reply{}, err
	}
	var body io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if a.gzip == nil {
			a.gzip = new(gzip.Reader)
		}
		if err := a.gzip.Reset(body); err != nil {
			return reply{}, err
		}
		body = a.gzip
	}
	a.body.Reset()
	if _, err := a.body.ReadFrom(body); err != nil {
		return reply{}, err
	}
	// Behind what was compressed the last chunk may still have to be read.
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return reply{}, err
	}
	if resp.Close {
		a.close()
	}
	return reply{status: resp.StatusCode, header: resp.Header, body: a.body.Bytes()}, nil
}

// connect sees to it that there is a connection to the host of u.
func (a *asker) connect(ctx context.Context, u *url.URL) error {
	if a.conn != nil && a.host == u.Host {
		return nil
	}
	a.close()
	dialer := net.Dialer{Timeout: a.timeout}
	dial, port := dialer.DialContext, "80"
	switch u.Scheme {
	case "http":
	case "https":
		dial, port = (&tls.Dialer{NetDialer: &dialer}).DialContext, "443"
	default:
		return fmt.Errorf("%s: a scheme other than http and https", u.Redacted())
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), port)
	}
	c, err := dial(ctx, "tcp", host)
	if err != nil {
		return err
	}
	a.host, a.conn, a.in = u.Host, c, bufio.NewReaderSize(c, 64<<10)
	return nil
}

func (a *asker) close() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}
