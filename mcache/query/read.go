package query

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// maxReadRequestBytes bounds a request to read, compressed or not. It carries
// matchers and a time; Prometheus sends some hundred bytes.
const maxReadRequestBytes = 1 << 20

// remoteRead answers Prometheus' remote read protocol in whichever of its two
// forms the client likes better: all samples in one message, or XOR chunks, a
// series a frame.
func (a *API) remoteRead(w http.ResponseWriter, r *http.Request) {
	a.counts.reads.Add(1)
	arrived := a.o.Now()
	ctx, cancel := context.WithTimeout(r.Context(), a.limits.Load().timeout)
	defer cancel()
	if err := a.reads.enter(ctx); err != nil {
		a.readError(w, asAPIError(err))
		return
	}
	leave := sync.OnceFunc(a.reads.leave)
	defer leave()
	waited := a.o.Now().Sub(arrived)
	request, err := a.decodeReadRequest(w, r)
	if errors.As(err, new(refusal)) {
		a.readError(w, asAPIError(err))
		return
	} else if err != nil {
		a.readError(w, badData(err))
		return
	}
	streamed, err := negotiate(request.AcceptedResponseTypes)
	if err != nil {
		a.readError(w, badData(err))
		return
	}
	from, done := a.readBehind(w, r, request)
	if done {
		return
	}
	rd := &reader{api: a, w: w, q: a.queryable(r), request: request, evaluated: leave}
	if from != nil {
		rd.q.source = from
	}
	rd.base = rd.q.loan.Held()
	if streamed {
		err = rd.stream(ctx)
	} else {
		err = rd.samples(ctx)
	}
	a.counts.series.Add(uint64(rd.q.selected.Load()))
	a.counts.samples.Add(uint64(rd.read))
	a.tell(r, slow{kind: "read", queries: request.Queries, arrived: arrived, waited: waited, samples: int64(rd.read), read: rd.q, err: err})
	switch {
	case err == nil:
	case !rd.begun:
		a.readError(w, asAPIError(err))
	default:
		// Half of an answer must not pass for a whole one.
		a.counts.errors.Add(1)
		panic(http.ErrAbortHandler)
	}
}

// readError answers as text: this protocol has no other form for errors.
func (a *API) readError(w http.ResponseWriter, e *apiError) {
	a.counts.errors.Add(1)
	setRetryAfter(w.Header(), e)
	w.Header().Del("Content-Encoding")
	http.Error(w, e.err.Error(), e.typ.status)
}

// readFactor is how much of a request to read is held for each of its bytes, at
// most: an empty matcher takes two bytes, and with pointers some 150 as Prometheus'
// message and as a labels.Matcher.
const readFactor = 80

func (a *API) decodeReadRequest(w http.ResponseWriter, r *http.Request) (*prompb.ReadRequest, error) {
	body, err := io.ReadAll(lentBody{http.MaxBytesReader(w, r.Body, maxReadRequestBytes), r.Context()})
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, fmt.Errorf("a remote read of more than %d bytes%s", maxReadRequestBytes, a.o.flag("MaxReadBytes"))
	}
	if err != nil {
		return nil, err
	}
	n, err := snappy.DecodedLen(body)
	if err != nil {
		return nil, err
	}
	if n > maxReadRequestBytes {
		return nil, fmt.Errorf("a remote read of %d bytes when decompressed, at most %d%s", n, maxReadRequestBytes, a.o.flag("MaxReadBytes"))
	}
	if err := loanOf(r.Context()).Take(r.Context(), readFactor*int64(n)); err != nil {
		return nil, err
	}
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, err
	}
	var request prompb.ReadRequest
	if err := request.Unmarshal(raw); err != nil {
		return nil, err
	}
	if n := len(request.Queries); n > a.o.MaxReadQueries {
		return nil, fmt.Errorf("too many queries in one remote read: %d, at most %d%s: ask in several", n, a.o.MaxReadQueries, a.o.flag("MaxReadQueries"))
	}
	return &request, nil
}

// negotiate reports whether the first type of the list that exists here is the streamed one.
func negotiate(accepted []prompb.ReadRequest_ResponseType) (streamed bool, err error) {
	for _, t := range accepted {
		switch t {
		case prompb.ReadRequest_SAMPLES:
			return false, nil
		case prompb.ReadRequest_STREAMED_XOR_CHUNKS:
			return true, nil
		}
	}
	if len(accepted) > 0 {
		return false, fmt.Errorf("server does not support any of the requested response types: %v", accepted)
	}
	return false, nil
}

// reader answers one remote read.
type reader struct {
	api     *API
	w       http.ResponseWriter
	q       *Queryable
	request *prompb.ReadRequest
	it      iterator
	read    int  // samples
	begun   bool // something has been sent

	base      int64  // what the loan held before anything was selected
	evaluated func() // ends the turn: what is left is the client's to take
}

// seriesOrder is that in which series are read.
type seriesOrder bool

const (
	asFound  seriesOrder = false
	byLabels seriesOrder = true
)

// selectSeries finds the series of a query.
func (rd *reader) selectSeries(ctx context.Context, query *prompb.Query, order seriesOrder) ([]series, error) {
	matchers, err := fromLabelMatchers(query.Matchers)
	if err != nil {
		return nil, badData(err)
	}
	hints := &storage.SelectHints{Start: query.StartTimestampMs, End: query.EndTimestampMs}
	if h := query.Hints; h != nil && h.StartMs <= h.EndMs && h.EndMs != 0 {
		hints.Start, hints.End = max(hints.Start, h.StartMs), min(hints.End, h.EndMs)
	}
	querier := querier{q: rd.q, mint: hints.Start, maxt: hints.End}
	set := querier.Select(ctx, bool(order), hints, matchers...)
	if found, ok := set.(*seriesSet); ok {
		return found.series, nil
	}
	return nil, set.Err()
}

func fromLabelMatchers(in []*prompb.LabelMatcher) ([]*labels.Matcher, error) {
	types := map[prompb.LabelMatcher_Type]labels.MatchType{
		prompb.LabelMatcher_EQ:  labels.MatchEqual,
		prompb.LabelMatcher_NEQ: labels.MatchNotEqual,
		prompb.LabelMatcher_RE:  labels.MatchRegexp,
		prompb.LabelMatcher_NRE: labels.MatchNotRegexp,
	}
	out := make([]*labels.Matcher, len(in))
	for i, m := range in {
		t, ok := types[m.Type]
		if !ok {
			return nil, errors.New("invalid matcher type")
		}
		var err error
		if out[i], err = labels.NewMatcher(t, m.Name, m.Value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkReads is how many series are written between two looks at the context.
const checkReads = 64

// messageBuffers hold an answer in one message, before and after compression.
type messageBuffers struct{ message, body []byte }

// maxKeptMessageBytes is what buffers may hold to be used again: some 100
// series for half a day.
const maxKeptMessageBytes = 8 << 20

// samples answers with all samples in one message.
func (rd *reader) samples(ctx context.Context) error {
	b, _ := rd.api.messages.Get().(*messageBuffers)
	if b == nil {
		b = new(messageBuffers)
	}
	defer func() {
		poison(b.message)
		poison(b.body)
		if cap(b.message)+cap(b.body) <= maxKeptMessageBytes {
			rd.api.messages.Put(b)
		}
	}()
	loan := rd.q.loan
	if err := loan.Take(ctx, int64(cap(b.message)+cap(b.body))); err != nil {
		return err
	}
	message := b.message[:0]
	for _, query := range rd.request.Queries {
		start, before := len(message), cap(message)
		held := loan.Held()
		found, err := rd.selectSeries(ctx, query, asFound)
		if err != nil {
			return err
		}
		for i := range found {
			if i%checkReads == 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			if message, err = rd.appendSeries(ctx, message, &found[i]); err != nil {
				return err
			}
		}
		message = wrap(message, start, fieldResults)
		loan.Keep(held + int64(cap(message)-before)) // the series have been read
		rd.it.lent = 0
	}
	rd.api.noteMissing(rd.w.Header(), rd.q)
	if n := snappy.MaxEncodedLen(len(message)); n > cap(b.body) {
		if err := loan.Take(ctx, int64(n-cap(b.body))); err != nil {
			return err
		}
		b.body = make([]byte, n)
	}
	body := snappy.Encode(b.body[:cap(b.body)], message)
	rd.api.counts.bytes.Add(uint64(len(message)))
	if b.message = message; cap(message) > maxKeptMessageBytes {
		b.message = nil
	}
	message = nil
	loan.Keep(rd.base + int64(cap(b.message)+cap(b.body)))
	rd.evaluated()
	h := rd.w.Header()
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("Content-Encoding", "snappy")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	for part := range slices.Chunk(body, flushBytes) {
		if err := rd.send(part); err != nil {
			return err
		}
	}
	return finish(rd.w)
}

// maxSampleBytes is more than a sample takes: two keys, a length, a value and a time.
const maxSampleBytes = 32

// room returns b with room for n bytes more. The loan has what it grows by, and
// for a moment what it was as well.
func (rd *reader) room(ctx context.Context, b []byte, n int) ([]byte, error) {
	if n <= cap(b)-len(b) {
		return b, nil
	}
	old, want := int64(cap(b)), max(2*cap(b), len(b)+n, flushBytes)
	if limit := rd.api.o.MaxResponseBytes; int64(len(b)+n) > limit {
		return b, badData(fmt.Errorf("the answer is too large: more than %d bytes", limit))
	}
	if err := rd.q.loan.Take(ctx, int64(want)); err != nil {
		return b, err
	}
	b = append(make([]byte, 0, want), b...)
	rd.q.loan.Keep(rd.q.loan.Held() - old)
	return b, nil
}

// appendSeries appends a TimeSeries, unless it has no samples.
func (rd *reader) appendSeries(ctx context.Context, b []byte, s *series) (_ []byte, err error) {
	it := &rd.it
	it.reset(s)
	if it.Next() == chunkenc.ValNone {
		return b, it.Err()
	}
	if b, err = rd.room(ctx, b, labelBytes(s.labels)); err != nil {
		return b, err
	}
	start := len(b)
	b = appendLabels(b, s.labels)
	n := 0
	for ok := true; ok; ok = it.it.Next() {
		if it.it.OnRecord() {
			// What is stored is the message of remote write 2.0, whose fields
			// are those of the one that is wanted here.
			v := it.it.Record().Value
			if b, err = rd.room(ctx, b, len(v)+2*maxSampleBytes); err != nil {
				return b, err
			}
			b = binary.AppendUvarint(append(b, fieldHistograms), uint64(len(v)))
			b = append(b, v...)
		} else {
			if 2*maxSampleBytes > cap(b)-len(b) {
				if b, err = rd.room(ctx, b, 2*maxSampleBytes); err != nil {
					return b, err
				}
			}
			at := it.it.At()
			b = appendSample(b, at.T, at.V)
		}
		n++
	}
	rd.read += n
	if limit := rd.api.limits.Load().maxSamples; rd.read > limit {
		return b, badData(fmt.Errorf("exceeded sample limit (%d)", limit))
	}
	if limit := rd.api.o.MaxResponseBytes; int64(len(b)) > limit {
		return b, badData(fmt.Errorf("the answer is too large: more than %d bytes", limit))
	}
	return wrap(b, start, fieldTimeseries), nil
}

// labelBytes is more than labels take as messages.
func labelBytes(ls labels.Labels) int {
	n := 0
	ls.Range(func(l labels.Label) { n += len(l.Name) + len(l.Value) + maxSampleBytes })
	return n + 2*maxSampleBytes
}

// stream answers with XOR chunks, a series a frame, in the order of their labels.
func (rd *reader) stream(ctx context.Context) error {
	h := rd.w.Header()
	h.Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
	// What is missing turns out while it is sent.
	h.Set("Trailer", completeFromHeader)
	buf := rd.api.buffer()
	defer func() { rd.api.release(buf, *buf) }()
	fw := frameWriter{rd: rd, out: *buf, crc: crc32.MakeTable(crc32.Castagnoli)}
	for i, query := range rd.request.Queries {
		found, err := rd.selectSeries(ctx, query, byLabels)
		if err != nil {
			return err
		}
		for j := range found {
			if j%checkReads == 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			if err := fw.series(ctx, &found[j], i); err != nil {
				return err
			}
		}
		rd.q.loan.Keep(rd.base + fw.lent)
		rd.it.lent = 0
	}
	err := fw.flush()
	*buf = fw.out
	rd.api.noteMissing(h, rd.q)
	if err == nil {
		err = finish(rd.w)
	}
	return err
}

// send hands a part of an answer to the client, which may take a while but no longer.
func (rd *reader) send(b []byte) error {
	rd.begun = true
	rd.api.counts.bytes.Add(uint64(len(b)))
	_ = http.NewResponseController(rd.w).SetWriteDeadline(time.Now().Add(rd.api.o.Timeout))
	_, err := rd.w.Write(b)
	return err
}
