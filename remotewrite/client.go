package remotewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang/snappy"
)

// ErrRejected says that the receiver answered 4xx: to send the same again
// would not help. What was valid may have been written.
var ErrRejected = errors.New("remotewrite: rejected by the receiver")

// ErrUnavailable says that the receiver did not take a request in as many
// attempts as there are.
var ErrUnavailable = errors.New("remotewrite: the receiver is not available")

// ClientOptions configure a Client. The zero value of a field means its default.
type ClientOptions struct {
	// URL of the receiver. Required.
	URL string
	// Protocol to speak. Default: 2.0, and 1.0 from the moment the receiver
	// is found not to understand it.
	Protocol Protocol
	// HTTP sends the requests. Default: a client with a time-out of 30 s.
	HTTP *http.Client
	// Header is added to every request.
	Header http.Header
	// MaxAttempts of one Send. Default 10.
	MaxAttempts int
	// MinBackoff is slept after a first failure, and doubled for each that
	// follows, up to MaxBackoff. Defaults 30 ms and 5 s, as Prometheus has them.
	MinBackoff, MaxBackoff time.Duration
	// MaxRetryAfter bounds what a receiver can ask for. Default 1 minute.
	MaxRetryAfter time.Duration
	// Sleep waits, or returns the error of ctx when that ends first.
	// Default: a timer.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Client sends series to one receiver. It is safe for concurrent use.
type Client struct {
	o       ClientOptions
	only    Protocol    // if the options say so
	lacksV2 atomic.Bool // the receiver was found to speak 1.0 only
	pool    sync.Pool   // of *buffers
}

type buffers struct {
	v2            EncoderV2
	plain, packed []byte
}

// NewClient returns a Client. It sends nothing yet.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("remotewrite: URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("remotewrite: URL must be http://… or https://…, got %q", o.URL)
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Timeout: 30 * time.Second}
	}
	def(&o.MaxAttempts, 10)
	def(&o.MinBackoff, 30*time.Millisecond)
	def(&o.MaxBackoff, 5*time.Second)
	def(&o.MaxRetryAfter, time.Minute)
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	c := &Client{o: o, only: o.Protocol}
	c.pool.New = func() any { return new(buffers) }
	return c, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Result tells how a Send went.
type Result struct {
	Protocol Protocol // of the last attempt
	Attempts int
	// Written is how many samples the receiver says to have written. In
	// protocol 1.0 it does not say: then it is all, or 0 if Send failed.
	Written int
}

// Send writes series, in one request, and returns when the receiver has taken
// or rejected them, ctx has ended, or the attempts are used up. It keeps
// nothing of series.
func (c *Client) Send(ctx context.Context, series []Series) (Result, error) {
	b := c.pool.Get().(*buffers)
	defer c.pool.Put(b)
	samples := 0
	for i := range series {
		samples += len(series[i].Samples)
	}
	var r Result
	encoded := Protocol(0)
	backoff := c.o.MinBackoff
	for {
		r.Protocol = c.protocol()
		if r.Protocol != encoded {
			if b.plain = b.plain[:0]; r.Protocol == V2 {
				b.plain = b.v2.Append(b.plain, series)
			} else {
				b.plain = AppendV1(b.plain, series)
			}
			b.packed = snappy.Encode(b.packed[:cap(b.packed)], b.plain)
			encoded = r.Protocol
		}
		r.Attempts++
		a := c.post(ctx, r.Protocol, b.packed)
		if a.err == nil && a.status/100 == 2 {
			if r.Protocol == V1 {
				r.Written = samples
				return r, nil
			}
			if a.counted {
				if r.Written = a.written; samples > 0 && a.written == 0 {
					return r, fmt.Errorf("%w: it answers %d, and 0 of %d samples written", ErrRejected, a.status, samples)
				}
				return r, nil
			}
			// A receiver that does not know protocol 2.0 may take the body for
			// one of 1.0 without anything in it, and be content.
		}
		if r.Protocol == V2 && c.only == 0 && !a.counted &&
			(a.status/100 == 2 || a.status == http.StatusUnsupportedMediaType || a.status == http.StatusBadRequest) {
			c.lacksV2.Store(true)
			continue
		}
		switch {
		case ctx.Err() != nil:
			return r, ctx.Err()
		case a.err == nil && a.status/100 == 2:
			return r, fmt.Errorf("%w: it answers %d to protocol 2.0 without saying what it wrote", ErrRejected, a.status)
		case a.err == nil && a.status != http.StatusTooManyRequests && a.status/100 != 5:
			r.Written = a.written
			return r, fmt.Errorf("%w: %d %s", ErrRejected, a.status, a.text)
		case r.Attempts >= c.o.MaxAttempts:
			if a.err != nil {
				return r, fmt.Errorf("%w after %d attempts: %w", ErrUnavailable, r.Attempts, a.err)
			}
			return r, fmt.Errorf("%w after %d attempts: %d %s", ErrUnavailable, r.Attempts, a.status, a.text)
		}
		if err := c.o.Sleep(ctx, max(backoff, min(a.retryAfter, c.o.MaxRetryAfter))); err != nil {
			return r, err
		}
		backoff = min(2*backoff, c.o.MaxBackoff)
	}
}

func (c *Client) protocol() Protocol {
	switch {
	case c.only != 0:
		return c.only
	case c.lacksV2.Load():
		return V1
	}
	return V2
}

// answer is what came back from one attempt.
type answer struct {
	status     int
	text       string // the beginning of the body, if the status is an error
	counted    bool   // the receiver said how many samples it wrote
	written    int
	retryAfter time.Duration
	err        error // no answer came
}

// maxAnswerBytes is what is read of an answer: the rest is not for us.
const maxAnswerBytes = 1 << 10

func (c *Client) post(ctx context.Context, p Protocol, body []byte) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.o.URL, bytes.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	SetHeaders(req.Header, p)
	for k, v := range c.o.Header {
		req.Header[k] = v
	}
	resp, err := c.o.HTTP.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil && resp.StatusCode/100 != 2 {
		return answer{err: err}
	}
	if a.status/100 != 2 {
		a.text = strings.TrimSpace(string(text))
	}
	if v := resp.Header.Get("X-Prometheus-Remote-Write-Samples-Written"); v != "" {
		n, err := strconv.Atoi(v)
		a.counted, a.written = err == nil && n >= 0, max(n, 0)
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		a.retryAfter = time.Duration(min(s, int(c.o.MaxRetryAfter/time.Second)+1)) * time.Second
	}
	return a
}

// SetHeaders sets what a request of protocol p with a compressed body carries.
func SetHeaders(h http.Header, p Protocol) {
	h.Set("Content-Encoding", "snappy")
	h.Set("User-Agent", "mcached")
	if p == V2 {
		h.Set("Content-Type", ContentTypeV2)
		h.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
		return
	}
	h.Set("Content-Type", ContentTypeV1)
	h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
}
