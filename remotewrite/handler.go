package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mcached/mcache"
	"mcached/remotewrite/prints"
	"mcached/remotewrite/wire"
)

// Handler is the receiver of remote write. It is safe for concurrent use.
type Handler struct {
	opts   atomic.Pointer[Options] // immutable, see SetLimits
	cache  *mcache.Cache
	meta   metadata
	ring   ring
	fresh  allowance
	prints prints.Trail[mcache.Fingerprint]

	bodies  sync.Pool     // of *[]byte, for bodies before decompression
	intakes sync.Pool     // of *intake
	working chan struct{} // as many as there are intakes in use

	counters counters
	loggedS  atomic.Int64 // unix seconds of the last line in the log about what was refused
	noticedS atomic.Int64 // and about what was taken all the same
}

// NewHandler returns a receiver that writes into c, which stays the caller's to close.
func NewHandler(c *mcache.Cache, o Options) *Handler {
	h := &Handler{cache: c}
	h.ring.seed = maphash.MakeSeed()
	h.setOptions(o)
	h.bodies.New = func() any { return new([]byte) }
	h.intakes.New = func() any {
		in := &intake{cache: c, meta: &h.meta, ring: &h.ring, fresh: &h.fresh}
		in.through.piece = pieceBytes
		return in
	}
	h.working = make(chan struct{}, h.o().MaxConcurrent)
	return h
}

// SetLimits replaces those bounds that may change while requests come in:
// MaxBodyBytes, MaxDecodedBytes, MaxSamples, MaxLabels, MaxLabelNameBytes,
// MaxLabelValueBytes, MaxMetadata, MaxMetadataBytes, MaxExemplars,
// MaxExemplarBytes, MaxNewSeriesPerSecond and MaxAhead. As in Options, zero means
// the default; the other fields of limits are ignored. A request under way may
// still be held to what was. Beyond a bound that was lowered, exemplars go when
// the next one comes; metadata stays, and nothing is added to it.
func (h *Handler) SetLimits(limits Options) {
	o := *h.o()
	o.MaxBodyBytes, o.MaxDecodedBytes, o.MaxSamples = limits.MaxBodyBytes, limits.MaxDecodedBytes, limits.MaxSamples
	o.MaxLabels, o.MaxLabelNameBytes, o.MaxLabelValueBytes = limits.MaxLabels, limits.MaxLabelNameBytes, limits.MaxLabelValueBytes
	o.MaxMetadata, o.MaxMetadataBytes = limits.MaxMetadata, limits.MaxMetadataBytes
	o.MaxExemplars, o.MaxExemplarBytes = limits.MaxExemplars, limits.MaxExemplarBytes
	o.MaxNewSeriesPerSecond, o.MaxAhead = limits.MaxNewSeriesPerSecond, limits.MaxAhead
	h.setOptions(o)
}

func (h *Handler) setOptions(o Options) {
	o = o.withDefaults()
	h.meta.bound(o.MaxMetadata, o.MaxMetadataBytes)
	h.ring.bound(o.MaxExemplars, o.MaxExemplarBytes)
	h.fresh.bound(o.MaxNewSeriesPerSecond)
	h.prints.Forget()
	h.opts.Store(&o)
}

// o are the options in force.
func (h *Handler) o() *Options { return h.opts.Load() }

// intake takes one from the pool, with the options in force.
func (h *Handler) intake() *intake {
	in := h.intakes.Get().(*intake)
	in.o = h.o()
	return in
}

// ServeHTTP answers one request. It reads method, Content-Type,
// Content-Encoding, size, snappy and protobuf in this order, and answers for
// the first that is wrong.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.counters.requests.Add(1)
	fromNode := h.o().Router != nil && h.o().Router.Claims(r)
	if fromNode && r.Header.Get("Content-Type") == wire.ContentTypeBundle {
		h.serveBundle(w, r)
		return
	}
	p, e, bucket, err := h.accept(r)
	if err != nil {
		if p := refusedAs(err); p.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		h.refuse(w, r, err)
		return
	}
	l := h.lease()
	defer l.release()
	raw := h.bodies.Get().(*[]byte)
	defer h.putBackBody(raw)
	if err := h.read(w, r, raw, l); err != nil {
		h.refuse(w, r, err)
		return
	}
	if fromNode {
		if err := h.o().Router.Verify(r, *raw); err != nil {
			h.refuse(w, r, refused{http.StatusForbidden, 0, err})
			return
		}
	}
	// From here on nothing waits for the sender any more.
	if err := l.begin(); err != nil {
		h.refuse(w, r, err)
		return
	}
	n, err := h.decodedLen(e, *raw, l)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	if err := h.turn(r.Context()); err != nil {
		h.refuse(w, r, err)
		return
	}
	in := h.intake()
	if h.o().Router != nil && !fromNode {
		h.route(w, r, &routed{h: h, in: in, ctx: r.Context()}, func() error {
			defer in.reset(p, bucket, l)
			return in.decompress(h, e, *raw, n, l)
		})
		return
	}
	defer func() { <-h.working }()
	defer h.putBack(in)
	in.reset(p, bucket, l)
	if !in.readThrough(e, *raw, n) {
		if err := in.decompress(h, e, *raw, n, l); err != nil {
			h.refuse(w, r, err)
			return
		}
	}
	if err := in.write(r.Context()); err != nil {
		if p == wire.V2 {
			setWritten(w.Header(), 0, 0, 0)
		}
		h.refuse(w, r, wrong(err))
		return
	}
	h.answer(w, r, in)
}

// wrong is the answer to a request of which nothing can be written.
func wrong(err error) error {
	switch {
	case errors.As(err, new(refused)):
		return err
	case errors.Is(err, errTooLarge):
		return refused{http.StatusRequestEntityTooLarge, 0, err}
	}
	return refused{http.StatusBadRequest, 0, err}
}

// turn waits until the request may be worked on: not long, because what is
// worked on waits for nobody and what waits is bounded by admission.
func (h *Handler) turn(ctx context.Context) error {
	select {
	case h.working <- struct{}{}:
		return nil
	default:
	}
	select {
	case h.working <- struct{}{}:
		return nil
	case <-ctx.Done():
		return refused{http.StatusServiceUnavailable, h.o().RetryAfter, ctx.Err()}
	}
}

// answer reports on a request that was processed.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, in *intake) {
	h.counters.add(in)
	if in.protocol == wire.V2 {
		setWritten(w.Header(), in.written, in.writtenHistograms, in.writtenExemplars)
	}
	if in.problems.retry == nil && in.problems.failed == 0 {
		w.WriteHeader(http.StatusNoContent)
		if in.problems.notice != "" && h.maySay(&h.noticedS, noticeGapS) {
			h.o().Logger.Warn("remote write taken, but", "from", r.RemoteAddr, "bucket", in.bucket, "reason", plain(in.problems.notice))
		}
		return
	}
	all := in.sent.samples + in.sent.histograms + in.refused
	why := errors.New(in.problems.text(all-in.written-in.writtenHistograms, all))
	if in.problems.retry != nil {
		h.refuse(w, r, refused{http.StatusServiceUnavailable, h.o().RetryAfter, why})
		return
	}
	h.refuse(w, r, refused{http.StatusBadRequest, 0, why})
}

// noticeGapS is the least time in seconds between two lines in the log about
// what is taken all the same.
const noticeGapS = 60

// maySay reports whether a line may be logged, of a kind that was logged at
// *last, in unix seconds, and notes that it was.
func (h *Handler) maySay(last *atomic.Int64, gapS int64) bool {
	now, was := h.o().Now().Unix(), last.Load()
	return (was == 0 || now-was >= gapS || now < was) && last.CompareAndSwap(was, now)
}

// setWritten says what was written, as protocol 2.0 demands. The keys are
// canonical, so they need not be made so for every answer.
func setWritten(header http.Header, samples, histograms, exemplars int) {
	all := []string{strconv.Itoa(samples), strconv.Itoa(histograms), strconv.Itoa(exemplars)}
	header[wire.HeaderSamplesWritten] = all[0:1:1]
	header[wire.HeaderHistogramsWritten] = all[1:2:2]
	header[wire.HeaderExemplarsWritten] = all[2:3:3]
}

// first is Get for a key that is canonical.
func first(header http.Header, key string) string {
	if v := header[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// accept looks at the method and the headers.
func (h *Handler) accept(r *http.Request) (p wire.Protocol, e encoding, bucket string, err error) {
	if r.Method != http.MethodPost {
		return 0, 0, "", refused{http.StatusMethodNotAllowed, 0, fmt.Errorf("remote write is a POST, got %s", wire.Quote(r.Method))}
	}
	p, err = wire.ProtocolOf(first(r.Header, "Content-Type"))
	if err != nil {
		return 0, 0, "", refused{http.StatusUnsupportedMediaType, 0, err}
	}
	if e, err = encodingOf(first(r.Header, "Content-Encoding")); err != nil {
		return 0, 0, "", refused{http.StatusUnsupportedMediaType, 0, err}
	}
	bucket = h.o().DefaultBucket
	if h.o().TenancyHeader != "" {
		if v := r.Header.Get(h.o().TenancyHeader); v != "" {
			bucket = v
		}
		if strings.Contains(bucket, "|") {
			return 0, 0, "", refused{http.StatusBadRequest, 0, fmt.Errorf("%s names several tenants, which only reads can: %s", h.o().TenancyHeader, wire.Quote(bucket))}
		}
		if len(bucket) > h.o().MaxBucketBytes {
			return 0, 0, "", refused{http.StatusBadRequest, 0, fmt.Errorf("%s has %d bytes, more than %d%s", h.o().TenancyHeader, len(bucket), h.o().MaxBucketBytes, h.o().flag("MaxBucketBytes"))}
		}
	}
	return p, e, bucket, nil
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
	if h.maySay(&h.loggedS, 1) {
		h.o().Logger.Warn("remote write refused", "status", a.status, "from", r.RemoteAddr, "reason", a.Error())
	}
	http.Error(w, a.Error(), a.status)
}
