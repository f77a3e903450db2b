package query

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// A store that has no remote read can be asked for samples all the same: the
// instant query of selector[range] answers with those that the range has, as
// VictoriaMetrics and Thanos do. Its series are united with memory's: of each the
// points by time, and those of one time once, memory's. What such an answer
// cannot say is not in it either: stale markers, which PromQL hides. Of native
// histograms it has another form, which is not exact; an answer with those is
// none, and memory's stands.
//
// The answer is parsed as it comes, within the bounds of every other one, and
// held as samples (16 bytes each) until the read ends: the streamed form wants
// series in the order of their labels, which not all stores keep. Those, and the
// text of one series, are of the request's loan.

// behind is a Source of what memory has and, where it lacks something, of what
// the store answers. It is made for one remote read.
type behind struct {
	Source
	a *API
	r *http.Request // of the client
	h http.Header   // of the answer
	// lacking says that memory does not have all of the time. If it does, the
	// store is asked for selectors of which memory has no series at all.
	lacking bool
	always  bool // memory is not asked
}

// Select implements Source.
func (b *behind) Select(ctx context.Context, s Selection) (Found, error) {
	here := Found(nothingFound{})
	if !b.always {
		var err error
		if here, err = b.Source.Select(ctx, s); err != nil || !b.lacking && (here.Len() > 0 || b.nothingThere(s)) {
			return here, err
		}
	}
	both, err := b.a.readRaw(ctx, b.r, s, here)
	switch loop := new(apiError); {
	case err == nil:
		b.h.Set(sourceHeader, sourceBoth)
		if b.always || here.Len() == 0 {
			b.h.Set(sourceHeader, sourceUpstream)
		}
		return both, nil
	case errors.As(err, &loop):
		return nil, err
	}
	b.a.o.Logger.Debug("A remote read is answered from memory, as the store behind does not answer.", "err", err)
	if b.always {
		return b.Source.Select(ctx, s)
	}
	return here, nil
}

// nothingThere reports that the store has no series of a selection either, or
// does not say.
func (b *behind) nothingThere(s Selection) bool {
	if b.r.Header.Get(hopHeader) != "" || b.a.upstream.authoritative(s.Matchers) {
		return true
	}
	some, err := b.a.someThere(b.r, s.Bucket, spellSelector(s.Matchers), window{s.From, s.To})
	return err != nil || !some
}

// readRaw unites what the store has of a selection with what memory found.
func (a *API) readRaw(ctx context.Context, r *http.Request, s Selection, here Found) (Found, error) {
	both := &bothFound{here: here}
	places := map[uint64][]int{} // by the hash of labels
	for i := range here.Len() {
		if ls, ok := here.Labels(i); ok {
			places[ls.Hash()] = append(places[ls.Hash()], len(both.series))
			both.series = append(both.series, seriesOfBoth{labels: ls, here: i})
		}
	}
	err := a.askRaw(ctx, r, s, func(ls labels.Labels, samples []mcache.Sample) {
		theirs := new(mcache.Snapshot)
		theirs.Hold(samples...)
		for _, i := range places[ls.Hash()] {
			if x := &both.series[i]; labels.Equal(x.labels, ls) {
				x.theirs = theirs
				return
			}
		}
		both.series = append(both.series, seriesOfBoth{labels: ls, here: -1, theirs: theirs})
	})
	return both, err
}

// rawWindow is what of a selection's time is asked for: a range of PromQL's must
// not be longer than Go's durations, and samples are of no later time than a day
// from now, nor of before 1970.
func (a *API) rawWindow(s Selection) (w window, ok bool) {
	w = window{max(s.From, 0), min(s.To, a.o.Now().Add(24*time.Hour).UnixMilli())}
	return w, w.from <= w.to
}

// askRaw hands on the samples of the store's answer, series by series, in any order.
func (a *API) askRaw(ctx context.Context, r *http.Request, s Selection, put func(labels.Labels, []mcache.Sample)) error {
	at, ok := a.rawWindow(s)
	if !ok {
		return nil
	}
	known := a.upstream.dialect.of(ctx)
	v, err := a.visit(r)
	if err != nil {
		return err
	}
	defer v.end()
	// A range has no left end since Prometheus 3, before it had: one millisecond
	// more is asked for, and not taken.
	form := url.Values{"query": {fmt.Sprintf("%s[%dms]", spellSelector(s.Matchers), at.to-at.from+1)}, "time": {milliText(at.to)}}
	for k, value := range known.params {
		form[k] = value
	}
	res, err := v.ask("/api/v1/query", form, "identity")
	if err != nil {
		return err
	}
	defer res.Close()
	if res.refused() {
		_, err := readJSON(ctx, v, res, nil)
		return cmp.Or(err, errNotMatrix)
	}
	if err := a.takeRaw(ctx, res, at, put); err != nil {
		v.tell(err)
		return err
	}
	return nil
}

// errRawHistograms is of an answer that is right, and not enough.
var errRawHistograms = errors.New("its answer has native histograms, of which a query does not tell all")

// takeRaw reads an answer to selector[range].
func (a *API) takeRaw(ctx context.Context, res io.Reader, at window, put func(labels.Labels, []mcache.Sample)) error {
	grid := gridOf{start: at.from - 1, step: 1, n: int(at.to-at.from) + 2} // any ms
	m := newMatrixReader(res, grid, span{from: 0, to: grid.n})
	loan, limit, n := loanOf(ctx), a.limits.Load().maxSamples, 0
	m.anyTime, m.grown = true, grownBy(func(n int64) error { return loan.Take(ctx, n) })
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := m.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(s.histograms) > 0 {
			return errRawHistograms
		}
		samples, err := appendSamples(nil, s.floats, at)
		if err != nil {
			return err
		}
		if n += len(samples); n > limit {
			return badData(fmt.Errorf("exceeded sample limit (%d)", limit))
		}
		if err := loan.Take(ctx, int64(len(samples))*pointBytes+seriesBytes); err != nil {
			return err
		}
		put(s.labels, samples)
	}
}

// appendSamples appends those of a list of points, [1,"2"],[3,"4"], that are of a
// time, in order.
func appendSamples(dst []mcache.Sample, text []byte, at window) ([]mcache.Sample, error) {
	dst = slices.Grow(dst, bytes.Count(text, []byte{']'}))
	for len(text) > 0 {
		n, ms := timeText(text)
		if n == 0 || n+2 > len(text) {
			return nil, notMatrix("a point")
		}
		text = text[n+2:] // ,"
		end := bytes.IndexByte(text, '"')
		if end < 0 || end+2 > len(text) {
			return nil, notMatrix("a point")
		}
		v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), end), 64)
		if err != nil {
			return nil, notMatrix("a value")
		}
		if text = text[end+2:]; len(text) > 0 {
			text = text[1:] // the comma
		}
		if ms >= at.from && ms <= at.to {
			dst = append(dst, mcache.Sample{T: ms, V: math.Float64bits(v)})
		}
	}
	return dst, nil
}

// bothFound is the Found of a behind.
type bothFound struct {
	here   Found
	series []seriesOfBoth
}

// seriesOfBoth is a series that either of memory and the store has.
type seriesOfBoth struct {
	labels labels.Labels
	here   int              // in what memory found; -1 if it has none
	theirs *mcache.Snapshot // nil if the store has none
}

func (f *bothFound) Len() int { return len(f.series) }

// Missing implements Found: what memory lacks is the store's.
func (*bothFound) Missing() Missing { return nothingMissing }

func (f *bothFound) Labels(i int) (labels.Labels, bool) { return f.series[i].labels, true }

// Snapshot implements Found.
func (f *bothFound) Snapshot(i int, from, to int64, s *mcache.Snapshot) bool {
	x := &f.series[i]
	switch {
	case x.theirs == nil:
		return f.here.Snapshot(x.here, from, to, s)
	case x.here < 0:
		s.Union([]*mcache.Snapshot{x.theirs}, from, to, math.MinInt64)
		return true
	}
	parts, complete := []*mcache.Snapshot{new(mcache.Snapshot), x.theirs}, int64(math.MinInt64)
	if !f.here.Snapshot(x.here, from, to, parts[0]) {
		complete = to + 1 // it was evicted meanwhile
	}
	s.Union(parts, from, to, complete)
	return true
}
