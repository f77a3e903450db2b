package remotewrite

import (
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang/snappy"

	"mcached/mcache"
)

// Handler is the receiver of remote write. It is safe for concurrent use.
type Handler struct {
	o     Options
	cache *mcache.Cache
	meta  metadata
	ring  ring
	fresh allowance
	pool  sync.Pool // of *intake

	counters counters
	loggedS  atomic.Int64 // unix seconds of the last line in the log
}

// NewHandler returns a receiver that writes into c, which stays the caller's to close.
func NewHandler(c *mcache.Cache, o Options) *Handler {
	h := &Handler{o: o.withDefaults(), cache: c}
	h.meta.max, h.meta.maxBytes = h.o.MaxMetadata, h.o.MaxMetadataBytes
	h.fresh.perSecond = float64(h.o.MaxNewSeriesPerSecond)
	h.fresh.burst = h.fresh.perSecond * burstSeconds
	h.ring.max, h.ring.maxBytes = h.o.MaxExemplars, h.o.MaxExemplarBytes
	h.pool.New = func() any { return &intake{o: &h.o, cache: c, meta: &h.meta, ring: &h.ring, fresh: &h.fresh} }
	return h
}

// ServeHTTP answers one request. It reads method, Content-Type,
// Content-Encoding, size, snappy and protobuf in this order, and answers for
// the first that is wrong.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.counters.requests.Add(1)
	p, bucket, err := h.accept(r)
	if err != nil {
		if p := refusedAs(err); p.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		h.refuse(w, r, err)
		return
	}
	in := h.pool.Get().(*intake)
	defer h.putBack(in)
	release, err := h.load(w, r, in)
	defer func() {
		for _, f := range release {
			if f != nil {
				f()
			}
		}
	}()
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	in.reset(p, bucket, h.o.Now().Add(h.o.MaxAhead).UnixMilli())
	if err := in.write(r.Context()); err != nil {
		if p == V2 {
			setWritten(w.Header(), 0, 0, 0)
		}
		if errors.Is(err, errTooLarge) {
			h.refuse(w, r, refused{http.StatusRequestEntityTooLarge, 0, err})
		} else {
			h.refuse(w, r, refused{http.StatusBadRequest, 0, err})
		}
		return
	}
	h.answer(w, r, in)
}

// answer reports on a request that was processed.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, in *intake) {
	h.counters.add(in)
	if in.protocol == V2 {
		setWritten(w.Header(), in.written, in.writtenHistograms, in.writtenExemplars)
	}
	switch {
	case in.problems.retry != nil:
		h.refuse(w, r, refused{http.StatusServiceUnavailable, h.o.RetryAfter, in.problems.retry})
	case in.problems.total() > 0:
		h.refuse(w, r, refused{http.StatusBadRequest, 0, errors.New(in.problems.text())})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// setWritten says what was written, as protocol 2.0 demands. The keys are
// canonical, so they need not be made so for every answer.
func setWritten(header http.Header, samples, histograms, exemplars int) {
	header["X-Prometheus-Remote-Write-Samples-Written"] = []string{strconv.Itoa(samples)}
	header["X-Prometheus-Remote-Write-Histograms-Written"] = []string{strconv.Itoa(histograms)}
	header["X-Prometheus-Remote-Write-Exemplars-Written"] = []string{strconv.Itoa(exemplars)}
}

// accept looks at the method and the headers.
func (h *Handler) accept(r *http.Request) (Protocol, string, error) {
	if r.Method != http.MethodPost {
		return 0, "", refused{http.StatusMethodNotAllowed, 0, fmt.Errorf("remote write is a POST, got %s", clip(r.Method))}
	}
	p, err := protocolOf(r.Header.Get("Content-Type"))
	if err != nil {
		return 0, "", refused{http.StatusUnsupportedMediaType, 0, err}
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "snappy" && !strings.EqualFold(e, "snappy") {
		return 0, "", refused{http.StatusUnsupportedMediaType, 0, fmt.Errorf("Content-Encoding must be snappy, got %s", clip(e))}
	}
	bucket := h.o.DefaultBucket
	if h.o.TenancyHeader != "" {
		if v := r.Header.Get(h.o.TenancyHeader); v != "" {
			bucket = v
		}
		if len(bucket) > h.o.MaxBucketBytes {
			return 0, "", refused{http.StatusBadRequest, 0, fmt.Errorf("%s has %d bytes, more than %d", h.o.TenancyHeader, len(bucket), h.o.MaxBucketBytes)}
		}
	}
	return p, bucket, nil
}

// Content types by which senders name the protocols.
const (
	ContentTypeV1 = "application/x-protobuf"
	ContentTypeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"

	protoV1 = "prometheus.WriteRequest"
	protoV2 = "io.prometheus.write.v2.Request"
)

func protocolOf(contentType string) (Protocol, error) {
	switch contentType { // as senders write them; parsing takes longer
	case "", ContentTypeV1:
		return V1, nil
	case ContentTypeV2:
		return V2, nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err == nil && media == "application/x-protobuf" {
		switch params["proto"] {
		case "", protoV1:
			return V1, nil
		case protoV2:
			return V2, nil
		}
	}
	return 0, fmt.Errorf("Content-Type must be application/x-protobuf with proto=%s or %s, got %s", protoV1, protoV2, clip(contentType))
}

// load reads and decompresses the body into in. The functions it returns give
// back what admission has lent; they are due however it ends.
func (h *Handler) load(w http.ResponseWriter, r *http.Request, in *intake) (release [2]func(), err error) {
	size := r.ContentLength
	if size > int64(h.o.MaxBodyBytes) {
		return release, refused{http.StatusRequestEntityTooLarge, 0, fmt.Errorf("%w: a body of %d bytes, more than %d", errTooLarge, size, h.o.MaxBodyBytes)}
	}
	lent := size
	if lent < 0 {
		lent = int64(h.o.MaxBodyBytes) // it has not said
	}
	if release[0], err = h.admit(lent); err != nil {
		return release, err
	}
	if err = h.read(w, r, in); err != nil {
		return release, err
	}
	n, err := snappy.DecodedLen(in.body)
	if err != nil {
		return release, refused{http.StatusBadRequest, 0, fmt.Errorf("snappy: %w", err)}
	}
	if n > h.o.MaxDecodedBytes {
		return release, refused{http.StatusRequestEntityTooLarge, 0, fmt.Errorf("%w: a body of %d bytes when decompressed, more than %d", errTooLarge, n, h.o.MaxDecodedBytes)}
	}
	// A block of snappy expands by at most 64 bytes for each 3: a body that
	// claims more lies, and gets no memory for it.
	if n > maxSnappyRatio*len(in.body) {
		return release, refused{http.StatusBadRequest, 0, fmt.Errorf("snappy: %d bytes cannot hold %d", len(in.body), n)}
	}
	if release[1], err = h.admit(int64(n)); err != nil {
		return release, err
	}
	if cap(in.decoded) < n {
		in.decoded = make([]byte, n+n/8)
	}
	in.decoded, err = snappy.Decode(in.decoded[:cap(in.decoded)], in.body)
	if err != nil {
		return release, refused{http.StatusBadRequest, 0, fmt.Errorf("snappy: %w", err)}
	}
	return release, nil
}

// maxSnappyRatio is above what snappy can compress: a copy of 64 bytes takes 3 bytes, or 2.
const maxSnappyRatio = 32

func (h *Handler) admit(n int64) (release func(), err error) {
	if h.o.Admission == nil {
		return nil, nil
	}
	release, ok, after := h.o.Admission.Acquire(n)
	if !ok {
		h.counters.notAdmitted.Add(1)
		return nil, refused{http.StatusServiceUnavailable, max(after, time.Second), fmt.Errorf("too many bytes in flight to take %d more", n)}
	}
	return release, nil
}

// read reads the body, which must be whole within BodyTimeout.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, in *intake) (err error) {
	// Not every ResponseWriter has a deadline to set, those of tests have none.
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Now().Add(h.o.BodyTimeout)) == nil {
		defer func() {
			if err == nil {
				rc.SetReadDeadline(time.Time{})
				return
			}
			// The server would read on to save the connection. The deadline,
			// and this, keep it from waiting for the same slow sender.
			w.Header().Set("Connection", "close")
		}()
	}
	in.body = in.body[:0]
	if want := int(r.ContentLength); want >= 0 {
		if cap(in.body) < want {
			// The sender has to deliver before it gets all it has announced.
			in.body = make([]byte, 0, min(want, firstBodyBytes))
		}
		in.body, err = readAll(in.body, r.Body, want)
		if err == nil && len(in.body) < want {
			err = io.ErrUnexpectedEOF
		}
	} else {
		in.body, err = readAll(in.body, r.Body, h.o.MaxBodyBytes+1)
		if err == nil && len(in.body) > h.o.MaxBodyBytes {
			return refused{http.StatusRequestEntityTooLarge, 0, fmt.Errorf("%w: a body of more than %d bytes", errTooLarge, h.o.MaxBodyBytes)}
		}
	}
	h.counters.bodyBytes.Add(uint64(len(in.body)))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		// A stalled network is no fault of the request: it may come again.
		h.counters.slowBodies.Add(1)
		return refused{http.StatusServiceUnavailable, h.o.RetryAfter, fmt.Errorf("%d bytes of the body came within %v", len(in.body), h.o.BodyTimeout)}
	default:
		return refused{http.StatusBadRequest, 0, fmt.Errorf("reading the body, after %d bytes: %w", len(in.body), err)}
	}
}

const firstBodyBytes = 1 << 20

// readAll appends to b until the end, or until it has limit bytes.
func readAll(b []byte, r io.Reader, limit int) ([]byte, error) {
	for len(b) < limit {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(max(2*len(b), 64<<10), limit)), b...)
		}
		n, err := r.Read(b[len(b):min(cap(b), limit)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

// Buffers that grew for a request beyond these are not kept for the next.
const (
	keepBytes   = 8 << 20
	keepSeries  = 64 << 10
	keepSamples = 256 << 10
)

func (h *Handler) putBack(in *intake) {
	if cap(in.body)+cap(in.decoded) > keepBytes || cap(in.series)+cap(in.at)+cap(in.syms) > 3*keepSeries ||
		cap(in.samples) > keepSamples || in.batch.Len() > keepSeries || h.o.MaxSamples-in.left > keepSamples {
		return
	}
	h.pool.Put(in)
}

// refused is an answer other than 204.
type refused struct {
	status     int
	retryAfter time.Duration
	error
}

func (r refused) Unwrap() error { return r.error }

func refusedAs(err error) refused {
	var r refused
	if errors.As(err, &r) {
		return r
	}
	return refused{http.StatusInternalServerError, 0, err}
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	a := refusedAs(err)
	h.counters.refused(a.status)
	if a.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(a.retryAfter.Seconds()))))
	}
	now := h.o.Now().Unix()
	if last := h.loggedS.Load(); last != now && h.loggedS.CompareAndSwap(last, now) {
		h.o.Logger.Warn("remote write refused", "status", a.status, "from", r.RemoteAddr, "reason", a.Error())
	}
	http.Error(w, a.Error(), a.status)
}
