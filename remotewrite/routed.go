package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// In a cluster a request is written by several nodes. The one that it came to
// has it cut (Router), writes what is its own, as ever, and answers for all.
// Nodes send each other bundles of such parts. A part is never routed again.

// routed is a request that others write, too. It holds a turn until done: who
// waits for other nodes must not keep them waiting for this one.
type routed struct {
	h   *Handler
	in  *intake // nil when done
	ctx context.Context
}

// store writes the series that are not skipped.
func (x *routed) store(skip []bool, standby wire.Bits, names []wire.Named) wire.Answer {
	x.in.share(skip, standby)
	x.in.find(names, &x.h.prints)
	return x.h.writeAndLearn(x.ctx, x.in)
}

// done ends the turn; body is what the intake has from now on instead of its own.
func (x *routed) done(body []byte) {
	if x.in != nil {
		x.in.decoded = body
		x.h.putBack(x.in)
		x.in = nil
		<-x.h.working
	}
}

// route answers a request that is whole, and that decode makes plain.
func (h *Handler) route(w http.ResponseWriter, r *http.Request, x *routed, decode func() error) {
	defer func() { // of what was not decoded
		if x.in != nil {
			x.done(x.in.decoded)
		}
	}()
	if err := decode(); err != nil {
		h.refuse(w, r, err)
		return
	}
	p := x.in.protocol
	a := h.o().Router.Route(r.Context(), wire.Part{Protocol: p, Bucket: x.in.bucket, Body: x.in.decoded, MaxSamples: x.in.o.MaxSamples}, x.store, x.done)
	if p == wire.V2 {
		setWritten(w.Header(), a.Written.Samples, a.Written.Histograms, a.Written.Exemplars)
	}
	switch {
	case a.Status == http.StatusNoContent:
		w.WriteHeader(http.StatusNoContent)
	case a.Status == http.StatusServiceUnavailable || a.Status == http.StatusTooManyRequests:
		h.refuse(w, r, refused{http.StatusServiceUnavailable, max(a.RetryAfter, h.o().RetryAfter), errors.New(plain(a.Retry + "; send it again"))})
	case a.Whole:
		h.refuse(w, r, refused{a.Status, 0, errors.New(strings.Join(a.Reasons, "\n"))})
	default:
		lost := a.Lost.Samples + a.Lost.Histograms
		all := a.Written.Samples + a.Written.Histograms + lost
		text := problems{messages: a.Reasons, failed: a.Failed}
		h.refuse(w, r, refused{http.StatusBadRequest, 0, errors.New(text.text(lost, all))})
	}
}

// write writes what a request holds and reports what came of it.
func (h *Handler) write(ctx context.Context, in *intake) wire.Answer {
	if err := in.write(ctx); err != nil {
		return answerOf(wrong(err))
	}
	h.counters.add(in)
	a := wire.Answer{
		Status:  http.StatusNoContent,
		Written: wire.Elements{Samples: in.written, Histograms: in.writtenHistograms, Exemplars: in.writtenExemplars},
	}
	if in.problems.notice != "" && h.maySay(&h.noticedS, noticeGapS) {
		h.o().Logger.Warn("remote write taken, but", "from", "another node", "bucket", in.bucket, "reason", plain(in.problems.notice))
	}
	if in.problems.failed > 0 {
		a.Status, a.Failed = http.StatusBadRequest, in.problems.failed
		a.Reasons = slices.Clone(in.problems.messages)
		if !in.takesBlocks { // whoever hands over does not ask
			a.Losses = in.losses()
		}
	}
	h.retry(in, &a)
	return a
}

// retry makes a the answer to what is to be sent again, if that is so.
func (h *Handler) retry(in *intake, a *wire.Answer) {
	if in.problems.retry == nil {
		return
	}
	a.Status, a.Retry, a.RetryAfter = http.StatusServiceUnavailable, in.problems.retry.Error(), h.o().RetryAfter
	if in.problems.sendersFault() {
		a.Status = http.StatusTooManyRequests
	}
}

// answerOf is the answer to a part of which nothing can be written.
func answerOf(err error) wire.Answer {
	r := refusedAs(err)
	a := wire.Answer{Status: r.status, Whole: r.status != http.StatusServiceUnavailable, RetryAfter: r.retryAfter}
	if a.Whole {
		a.Reasons = []string{r.Error()}
	} else {
		a.Retry = r.Error()
	}
	return a
}

// unpack sets decoded to the request that a packed part holds. Like storePart it does
// not hold a part to the bounds of requests.
func (in *intake) unpack(h *Handler, packed []byte, l *lease) error {
	n, err := wire.UnpackedBytes(packed)
	if err != nil {
		return err
	}
	if n > maxDecodedBytes {
		return fmt.Errorf("%w: a part of %d bytes when unpacked, more than %d", errTooLarge, n, maxDecodedBytes)
	}
	if err := l.take(n); err != nil {
		return err
	}
	in.reserve(n)
	in.decoded, err = wire.Unpack(in.decoded[:0], packed)
	return err
}

// Store writes a part of a request that came to another node. It keeps nothing of it.
func (h *Handler) Store(ctx context.Context, p wire.Part) wire.Answer {
	return h.storePart(ctx, p, nil)
}

// storePart decodes p where it lies, in a turn of its own: bundles of a busy
// cluster would keep the requests of senders out.
//
// How large a request may be, in samples and bytes, is for the node to say that it came
// to. Here those bounds may be lower, during a rolling reload, and the sender would be
// told that what was taken is too large, and drop it. What a part takes is lent by
// Admission all the same.
func (h *Handler) storePart(ctx context.Context, p wire.Part, l *lease) wire.Answer {
	if len(p.Bucket) > h.o().MaxBucketBytes {
		return wire.Answer{Status: http.StatusBadRequest, Whole: true, Reasons: []string{fmt.Sprintf("a bucket's name has %d bytes, more than %d%s", len(p.Bucket), h.o().MaxBucketBytes, h.o().flag("MaxBucketBytes"))}}
	}
	if p.Protocol == wire.Claim {
		if err := h.o().Router.Claim(p.Body); err != nil {
			return wire.Answer{Status: http.StatusBadRequest, Whole: true, Reasons: []string{err.Error()}}
		}
		return wire.Answer{Status: http.StatusNoContent}
	}
	if err := h.turn(ctx); err != nil {
		return wire.Answer{Status: http.StatusServiceUnavailable, Retry: err.Error(), RetryAfter: h.o().RetryAfter}
	}
	defer func() { <-h.working }()
	in := h.intake()
	own := in.decoded
	defer func() {
		in.decoded = own
		h.putBack(in)
	}()
	in.decoded = p.Body
	if p.Protocol == wire.PackedV1 {
		in.decoded = own
		if err := in.unpack(h, p.Body, l); err != nil {
			return answerOf(wrong(err))
		}
		p.Protocol, own = wire.V1, in.decoded
	}
	in.reset(p.Protocol, p.Bucket, l)
	in.bound(len(in.decoded)) // each takes two bytes or more
	if p.Protocol == wire.Blocks {
		in.protocol, in.takesBlocks, p.Settled = wire.V2, true, true
	}
	if p.Settled {
		in.duty = mcache.Nobodys // of all series
	} else {
		in.share(nil, p.Standby)
	}
	if p.Protocol == wire.Printed {
		return h.writePrinted(in)
	}
	in.teach(p.Prints)
	return h.writeAndLearn(ctx, in)
}

// serveBundle answers a bundle of parts, each by itself.
func (h *Handler) serveBundle(w http.ResponseWriter, r *http.Request) {
	l := h.lease()
	defer l.release()
	raw := h.bodies.Get().(*[]byte)
	defer h.putBackBody(raw)
	if err := h.readUpTo(h.o().MaxDecodedBytes+maxBundleHeads, w, r, raw, l); err != nil {
		h.refuse(w, r, err)
		return
	}
	if err := h.o().Router.Verify(r, *raw); err != nil {
		h.refuse(w, r, refused{http.StatusForbidden, 0, err})
		return
	}
	if err := l.begin(); err != nil {
		h.refuse(w, r, err)
		return
	}
	answers := wire.AppendAnswers(nil)
	err := wire.Parts(*raw, func(p wire.Part) bool {
		a := h.storePart(r.Context(), p, l)
		answers = wire.AppendAnswer(answers, &a)
		return true
	})
	if err != nil {
		h.refuse(w, r, refused{http.StatusBadRequest, 0, err})
		return
	}
	h.o().Router.Answered(w.Header())
	w.Header().Set("Content-Type", wire.ContentTypeAnswers)
	w.Header().Set(wire.HeaderPacked, "1")
	w.Header().Set(wire.HeaderBlocks, wire.BlocksForm)
	_, _ = w.Write(answers)
}

// maxBundleHeads is room for what stands before parts.
const maxBundleHeads = 1 << 20

// share says which series other nodes write, and which they forward.
func (in *intake) share(skip []bool, standby wire.Bits) {
	in.skip, in.standby = skip, standby
	in.shared = skip != nil || len(standby) > 0
}

// teach says which prints the series have.
func (in *intake) teach(prints []byte) {
	in.teaches = prints
	in.shared = in.shared || len(prints) > 0
}

// passes reports whether another node writes the series at a place of the request. If
// not, it notes who forwards it.
func (in *intake) passes(place int) bool {
	if in.skip != nil && in.skip[place] {
		return true
	}
	if in.duty = mcache.Mine; in.standby.Has(place) {
		in.duty = mcache.Standby
	}
	if in.teaches != nil {
		in.print = wire.PrintAt(in.teaches, place)
	}
	return false
}

// losses are the series of the request of which not all was written. It reads
// the request again, which is done for those with faults only.
func (in *intake) losses() (all []wire.Loss) {
	at, x := in.at, in.exemplars // in the order of the request
	place := -1
	for k, e := range in.eachSeries() {
		if in.skip != nil && in.skip[k] {
			continue
		}
		place++
		lost := wire.Count(in.protocol, in.decoded[e.from:e.to])
		sent := lost
		refused := false
		for len(at) > 0 && at[0].from < e.from {
			at = at[1:]
		}
		if len(at) > 0 && at[0].piece == e {
			if refused = at[0].refused; !refused {
				lost.Samples -= int(at[0].samples)
				lost.Histograms -= int(at[0].histograms)
			}
		}
		for len(x) > 0 && x[0].series.from <= e.from {
			if x[0].series == e && !refused {
				lost.Exemplars--
			}
			x = x[1:]
		}
		if in.protocol == wire.V1 {
			lost.Exemplars = 0 // no reason to refuse anything
		}
		if lost != (wire.Elements{}) || sent == (wire.Elements{}) && in.protocol == wire.V2 {
			all = append(all, wire.Loss{Series: place, Elements: lost})
		}
	}
	return all
}

// eachSeries yields the series of the request, by their place in it.
func (in *intake) eachSeries() func(yield func(int, piece) bool) {
	return func(yield func(int, piece) bool) {
		if in.protocol == wire.V2 {
			for k, e := range in.series {
				if !yield(k, e) {
					return
				}
			}
			return
		}
		b, k := in.decoded, 0
		for i := 0; i < len(b); {
			t, at := wire.Tag(b, i)
			if i = wire.Skip(b, t, at); i < 0 {
				return
			}
			if t == wire.TagV1Series {
				from, to := wire.Bytes(b, at)
				if !yield(k, piece{uint32(from), uint32(to)}) {
					return
				}
				k++
			}
		}
	}
}

// sendersFault reports whether what could not be written could be written
// nowhere else either.
func (p *problems) sendersFault() bool {
	return errors.Is(p.retry, errNewSeries) || errors.Is(p.retry, mcache.ErrBuckets) || errors.Is(p.retry, context.Canceled)
}
