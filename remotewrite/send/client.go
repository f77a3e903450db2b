package send

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mcached/remotewrite/wire"
)

// ErrRejected says that the receiver found fault with the content of a
// request: to send the same again would not help. What was valid may have been
// written.
var ErrRejected = errors.New("rejected by the receiver")

// ErrUnavailable says that the receiver did not take a request for reasons
// that are not in it: the same may be taken later.
var ErrUnavailable = errors.New("the receiver is not available")

// RedirectError is the reason of an ErrUnavailable: the receiver answered that
// requests should go elsewhere. They do not: a POST that is redirected becomes
// a GET as a rule, and what answers that has not taken anything.
type RedirectError struct {
	Status int
	// To is where it points to, without user, password and query, which may be
	// secrets. Empty if it does not say.
	To string
}

// Error implements error.
func (e *RedirectError) Error() string {
	if e.To == "" {
		return fmt.Sprintf("it redirects (%d) and does not say where", e.Status)
	}
	return fmt.Sprintf("it redirects (%d) to %s", e.Status, e.To)
}

// ClientOptions configure a Client. The zero value of a field means its default.
type ClientOptions struct {
	// URL of the receiver. Required.
	URL string
	// Protocol to speak. Default: 2.0, and 1.0 when the receiver is found not
	// to understand it; 2.0 is tried again after an hour, and after it was away.
	Protocol wire.Protocol
	// HTTP sends the requests; its CheckRedirect is not used, because redirects
	// are never followed. Default: a client with a time-out of 30 s.
	HTTP *http.Client
	// Header is added to every request.
	Header http.Header
	// MaxRetryAfter bounds what a receiver can ask for. Default 1 minute.
	MaxRetryAfter time.Duration
	// Now is the clock; only distances between its times matter. Default time.Now.
	Now func() time.Time
}

// tryV2Again is after how long a receiver that spoke protocol 1.0 only is
// asked anew: one request an hour is nothing, and it may have been upgraded.
const tryV2Again = time.Hour

// Client sends series to one receiver. It is safe for concurrent use.
type Client struct {
	o    ClientOptions
	only wire.Protocol // if the options say so
	pool sync.Pool     // of *buffers

	lacksV2  atomic.Pointer[time.Time] // when the receiver was found to speak 1.0 only; nil while it is unknown
	speaksV1 atomic.Bool               // it has accepted a request of 1.0
}

type buffers struct {
	v2     EncoderV2
	packer packer
}

// NewClient returns a Client. It sends nothing yet.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("URL must be http://… or https://…, got %q", u.Redacted())
	}
	hc := http.Client{Timeout: 30 * time.Second}
	if o.HTTP != nil {
		hc = *o.HTTP
	}
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTP = &hc
	o.MaxRetryAfter = cmp.Or(o.MaxRetryAfter, time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Client{o: o, only: o.Protocol}
	c.pool.New = func() any { return new(buffers) }
	return c, nil
}

// Result tells how a Send went.
type Result struct {
	Protocol wire.Protocol // of the last request
	Status   int           // that it was answered with; 0 if it was not
	Requests int           // two, when it fell back to another protocol
	Bytes    int           // of bodies, compressed
	// Written is how many samples and histograms the receiver says to have
	// written. In protocol 1.0 it does not say: then it is all, or 0 if Send
	// failed.
	Written int
	// RetryAfter is what the receiver asked for, if it was not available.
	RetryAfter time.Duration
}

// Send writes series in one request. The error, if the receiver did not take
// them all, is ErrRejected or ErrUnavailable; header is added to that of the
// options. Send keeps nothing of its arguments.
func (c *Client) Send(ctx context.Context, series []Series, header http.Header) (Result, error) {
	return c.send(ctx, seriesList(series), header)
}

func (c *Client) send(ctx context.Context, what parcel, header http.Header) (Result, error) {
	b := c.pool.Get().(*buffers)
	defer func() { c.putBack(b) }()
	points := what.points()
	var r Result
	for {
		r.Protocol = c.Protocol()
		if r.Protocol == wire.V2 {
			what.packV2(&b.v2, &b.packer)
		} else {
			what.packV1(&b.packer)
		}
		body := b.packer.block()
		r.Requests++
		r.Bytes += len(body)
		a, free := c.post(ctx, r.Protocol, body, header)
		if !free { // the transport still reads the body, to an end that nobody waits for
			b = new(buffers)
		}
		if c.only == 0 && c.learn(r.Protocol, a, points) {
			continue
		}
		r.Status, r.Written, r.RetryAfter = a.status, a.written, a.retryAfter
		err := a.verdict(r.Protocol, points)
		if err == nil && r.Protocol == wire.V1 {
			r.Written = points
		}
		return r, err
	}
}

// keepSendBytes is the largest buffer that is kept for the next request.
const keepSendBytes = 16 << 20

func (c *Client) putBack(b *buffers) {
	poison(b.packer.out)
	poison(b.packer.text)
	if b.packer.cap() <= keepSendBytes {
		c.pool.Put(b)
	}
}

// Protocol is what the next request is going to speak.
func (c *Client) Protocol() wire.Protocol {
	switch {
	case c.only != 0:
		return c.only
	case c.only == 0:
		if found := c.lacksV2.Load(); found != nil {
			if d := c.o.Now().Sub(*found); d >= 0 && d < tryV2Again {
				return wire.V1
			}
		}
	}
	return wire.V2
}

// learn draws conclusions from an answer, and reports whether the request has
// to be made again, in protocol 1.0.
func (c *Client) learn(p wire.Protocol, a answer, points int) (again bool) {
	switch {
	case a.away() || p == wire.V1 && a.foreign() != "":
		c.lacksV2.Store(nil) // another receiver may be there now
	case p == wire.V1 && a.status/100 == 2:
		c.speaksV1.Store(true)
	case p == wire.V2 && a.counted && a.written <= points:
		c.lacksV2.Store(nil)
	case p == wire.V2 && (a.counted || a.lacksV2() || c.speaksV1.Load() && !isTenants(a.status)):
		// It counts what it was not sent, or says that it does not know 2.0, or
		// may answer so because of that.
		now := c.o.Now()
		c.lacksV2.Store(&now)
		return true
	}
	return false
}

// answer is what came back for one request.
type answer struct {
	status     int
	text       string // the beginning of the body
	page       bool   // the body is one for people: HTML
	counted    bool   // the receiver said how many points it wrote
	written    int
	retryAfter time.Duration
	err        error // no answer came, or a RedirectError
}

// away says whether nobody was there, or only one who stands before the receiver.
func (a answer) away() bool {
	switch a.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return a.err != nil
}

// lacksV2 says whether this is the answer to protocol 2.0 of one who does not
// know it: one who does counts what he wrote. He may take the body for one of
// 1.0 without anything in it, and be content.
func (a answer) lacksV2() bool {
	return a.err == nil && !a.counted &&
		(a.status/100 == 2 || a.status == http.StatusUnsupportedMediaType || a.status == http.StatusBadRequest)
}

// foreign says in what an answer is not one that a receiver of protocol 1.0
// gives, though its status is one of a receiver's; empty if it is. A status
// alone proves little: a login page is 200, and a server that wants TLS is 400.
//
// The specification wants clients to ignore the body of an answer, and
// receivers to send none. Those in use keep to the latter, so a body with a
// success is the work of somebody else.
func (a answer) foreign() string {
	switch {
	case a.status == http.StatusRequestEntityTooLarge:
		return "" // a proxy says that in HTML, and a smaller request helps
	case a.page:
		return "a page for people"
	case a.status/100 == 2 && a.text != "":
		return "a body, which a receiver does not send"
	case a.status == http.StatusBadRequest && strings.Contains(a.text, wantsTLS):
		return "a demand for https"
	}
	return ""
}

// wantsTLS is in what Go's server answers to HTTP on a port for HTTPS, with 400.
const wantsTLS = "HTTP request to an HTTPS server"

// verdict says whether the answer to so many points is success, a fault of
// theirs, or trouble of the receiver's. Only what is about the content is the
// second: a wrong password or path refuses good data and bad alike, and can be
// mended while the data waits. Success is what a receiver of the protocol
// answers when it has everything: in 2.0 its counts say so, point for point.
func (a answer) verdict(p wire.Protocol, points int) error {
	switch {
	case a.err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, a.err)
	case a.status/100 == 2 && !slices.Contains(successes, a.status):
		return fmt.Errorf("%w: it answers %d, which no receiver does", ErrUnavailable, a.status)
	case a.status/100 == 2 && p == wire.V2 && !a.counted:
		return fmt.Errorf("%w: it answers %d to protocol 2.0 without saying what it wrote%s", ErrUnavailable, a.status, a.quoted())
	case a.status/100 == 2 && p == wire.V2 && a.written != points:
		return fmt.Errorf("%w: it answers %d, and that it wrote %d of %d samples", ErrUnavailable, a.status, a.written, points)
	case a.status/100 == 2 && p == wire.V2:
		return nil
	}
	if why := a.foreign(); why != "" && !a.counted {
		return fmt.Errorf("%w: it answers %d with %s%s", ErrUnavailable, a.status, why, a.quoted())
	}
	switch a.status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %d %s", ErrRejected, a.status, a.text)
	}
	if a.status/100 == 2 {
		return nil
	}
	return fmt.Errorf("%w: %d %s", ErrUnavailable, a.status, a.text)
}

// successes are what receivers answer when they have taken a request:
// Prometheus and VictoriaMetrics 204, Mimir and Thanos 200, Metricbeat 202.
var successes = []int{http.StatusOK, http.StatusAccepted, http.StatusNoContent}

// quoted is the beginning of the body, for an error.
func (a answer) quoted() string {
	if a.text == "" {
		return ""
	}
	return ": " + wire.Quote(a.text)
}

// maxAnswerBytes is what is read of an answer: the rest is not for us.
const maxAnswerBytes = 1 << 10

// outgoing is a body on its way. A transport may go on reading it after the
// answer is there, so its buffer is free only when all readers are closed.
type outgoing struct {
	body    []byte
	readers atomic.Int32
}

func (o *outgoing) reader() (io.ReadCloser, error) {
	o.readers.Add(1)
	return &outgoingReader{Reader: bytes.NewReader(o.body), of: o}, nil
}

type outgoingReader struct {
	*bytes.Reader
	of     *outgoing
	closed atomic.Bool
}

// Close implements io.Closer. It may be called more than once.
func (r *outgoingReader) Close() error {
	if !r.closed.Swap(true) {
		r.of.readers.Add(-1)
	}
	return nil
}

// post sends body and reports what came of it, and whether the body is free to
// be used again.
func (c *Client) post(ctx context.Context, p wire.Protocol, body []byte, header http.Header) (a answer, free bool) {
	o := outgoing{body: body}
	a = c.postFrom(ctx, p, &o, header)
	return a, o.readers.Load() == 0
}

func (c *Client) postFrom(ctx context.Context, p wire.Protocol, o *outgoing, header http.Header) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.o.URL, nil)
	if err != nil {
		return answer{err: err}
	}
	req.ContentLength, req.GetBody = int64(len(o.body)), o.reader
	req.Body, _ = o.reader()
	wire.SetHeaders(req.Header, p)
	for _, h := range []http.Header{c.o.Header, header} {
		for k, v := range h {
			req.Header[k] = v
		}
	}
	if h := c.o.Header.Get("Host"); h != "" {
		req.Host = h
	}
	resp, err := c.o.HTTP.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 3 {
		return answer{status: resp.StatusCode, err: &RedirectError{resp.StatusCode, place(resp)}}
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return answer{err: err} // what was written once is written again
	}
	a := answer{status: resp.StatusCode, text: strings.TrimSpace(string(text))}
	a.page = strings.HasPrefix(a.text, "<") ||
		a.text != "" && strings.HasPrefix(strings.ToLower(resp.Header.Get("Content-Type")), "text/html")
	samples, counted := count(resp.Header, wire.HeaderSamplesWritten)
	histograms, _ := count(resp.Header, wire.HeaderHistogramsWritten)
	a.written, a.counted = samples+histograms, counted
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		a.retryAfter = min(time.Duration(min(s, 1<<30))*time.Second, c.o.MaxRetryAfter)
	}
	return a
}

// place is where a redirect points to, as far as it may be shown.
func place(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil {
		return ""
	}
	to.User, to.RawQuery, to.Fragment, to.RawFragment = nil, "", "", ""
	s := to.String()
	return s[:min(len(s), maxPlaceBytes)]
}

// maxPlaceBytes is what is shown of the place that a redirect points to.
const maxPlaceBytes = 256

// count reads a header that is a number, if it is there.
func count(h http.Header, name string) (n int, ok bool) {
	n, err := strconv.Atoi(h.Get(name))
	return max(n, 0), err == nil && n >= 0
}
