package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"mcached/mcache"
)

// answerSink takes what a member has to say: frames send it, a localSink keeps it
// where this member is the one that asks. What is put is the caller's again
// afterwards.
type answerSink interface {
	putMissing(Missing) error
	putSeries(labels.Labels, *mcache.Snapshot) error
	putText(string) error
	putGroup(*group) error
	putDigests(list []digest, from int64) error
	putJSON(any) error
	putExemplars(exemplarsOfSeries) error
}

// localSink collects without a wire between.
type localSink struct{ *collected }

func (l localSink) putMissing(m Missing) error { l.missing = m; return nil }

func (l localSink) putSeries(ls labels.Labels, s *mcache.Snapshot) error {
	c := collectedSeries{labels: ls}
	if s != nil {
		c.snapshot = s.Clone()
	}
	l.series = append(l.series, c)
	return nil
}

func (l localSink) putText(s string) error { l.texts = append(l.texts, s); return nil }

func (l localSink) putJSON(v any) (err error) {
	l.json, err = json.Marshal(v)
	return err
}

func (f *frames) putJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f.frame = append(f.frame, b...)
	return f.end(frameJSON)
}

// serveAsk answers a member. Whoever is not one gets 403, and nothing is read
// for him but what it takes to know that.
func (a *API) serveAsk(w http.ResponseWriter, r *http.Request) {
	f := a.o.FanOut
	body, err := io.ReadAll(lentBody{http.MaxBytesReader(w, r.Body, maxQuestionBytes), r.Context()})
	if err == nil {
		err = f.members.Verify(r, body)
	}
	if err != nil {
		f.counts.refused.Add(1)
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	var q question
	if err := json.Unmarshal(body, &q); err != nil {
		f.counts.refused.Add(1)
		http.Error(w, "not a question: "+err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.limits.Load().timeout)
	defer cancel()
	w.Header().Set("Content-Type", "application/octet-stream")
	out := newFrames(deadlineWriter{w, a})
	if err := a.asked.enter(ctx); err != nil {
		_ = out.fail(errorOther, err) // whoever asked may have gone
		return
	}
	defer a.asked.leave()
	err = f.answer(ctx, &q, out)
	if err != nil {
		err = out.fail(kindOf(err), err)
	} else {
		err = out.finish()
	}
	f.counts.served.Add(1)
	f.counts.sent.Add(uint64(out.bytes))
	if err == nil {
		err = finish(w)
	}
	if err != nil {
		a.o.Logger.Debug("A member did not take the answer.", "err", err)
		panic(http.ErrAbortHandler)
	}
}

// deadlineWriter gives whoever reads a while for each part, but no longer.
type deadlineWriter struct {
	http.ResponseWriter
	api *API
}

func (d deadlineWriter) Write(b []byte) (int, error) {
	_ = http.NewResponseController(d.ResponseWriter).SetWriteDeadline(time.Now().Add(d.api.o.Timeout))
	return d.ResponseWriter.Write(b)
}

// errNotSpoken says that a question is one of another version.
var errNotSpoken = errors.New("this member does not speak that")

func kindOf(err error) byte {
	switch {
	case errors.Is(err, ErrMaxSeries):
		return errorSeries
	case errors.As(err, new(promql.ErrTooManySamples)):
		return errorSamples
	case errors.Is(err, errUnplanned), errors.Is(err, errSameLabels):
		return errorNotPlan
	case errors.Is(err, errNotSpoken):
		return errorNotSpoken
	}
	return errorOther
}

// answer answers a question from this member's own cache.
func (f *FanOut) answer(ctx context.Context, q *question, out answerSink) error {
	if q.Version != wireVersion {
		return fmt.Errorf("%w: version %d, it knows %d", errNotSpoken, q.Version, wireVersion)
	}
	ms, err := fromWire(q.Matchers)
	if err != nil {
		return err
	}
	s := Selection{Bucket: string(q.Bucket), Matchers: ms, From: q.From, To: q.To}
	switch q.What {
	case askSamples, askSeries:
		return f.answerSeries(ctx, q, &s, out)
	case askNames:
		t, err := f.local.LabelNames(ctx, s, q.Limit)
		return f.putTexts(out, t, err)
	case askValues:
		t, err := f.local.LabelValues(ctx, string(q.Name), s, q.Limit)
		return f.putTexts(out, t, err)
	case askPlan:
		return f.answerPlan(ctx, q, &s, out)
	case askCardinality:
		return out.putJSON(f.local.Cardinality(s.Bucket, q.Limit))
	case askChunkStats:
		return out.putJSON(f.local.ChunkStats(s.Bucket))
	case askChunkStatsByMetric:
		return out.putJSON(f.local.ChunkStatsByMetric(s.Bucket))
	case askMetadata:
		return f.answerMetadata(q, out)
	case askClaims:
		return f.answerClaims(q, out)
	case askExemplars:
		return f.answerExemplars(ctx, q, out)
	case askCoverage:
		return f.answerCoverage(s.Bucket, out)
	case askKeys:
		if f.keys == nil {
			return nil
		}
		return f.keys(q.Name, out.putText)
	}
	return fmt.Errorf("%w: %.40q", errNotSpoken, q.What)
}

func (f *FanOut) putTexts(out answerSink, t Texts, err error) error {
	if err != nil {
		return err
	}
	if err := out.putMissing(f.own(t.Missing)); err != nil {
		return err
	}
	for _, text := range t.List {
		if err := out.putText(text); err != nil {
			return err
		}
	}
	return nil
}

// answerSeries answers with series, and their samples if they are wanted.
func (f *FanOut) answerSeries(ctx context.Context, q *question, s *Selection, out answerSink) error {
	queryable := f.here(ctx, s.Bucket)
	hints := &storage.SelectHints{Start: s.From, End: s.To, Limit: q.Limit}
	if q.What == askSeries {
		hints.Func = "series"
	}
	found := (&querier{q: queryable, mint: s.From, maxt: s.To}).Select(ctx, false, hints, s.Matchers...)
	set, ok := found.(*seriesSet)
	if !ok {
		return found.Err()
	}
	lacks := set.found.Missing()
	if q.What == askSeries { // what single series lack has been noted, too
		lacks.Gone = max(lacks.Gone, queryable.completeFrom.Load())
	}
	if err := out.putMissing(lacks); err != nil {
		return err
	}
	var snapshot mcache.Snapshot
	for i := range set.series {
		if i%checkReads == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		x := &set.series[i]
		if q.Only != nil {
			if _, ok := slices.BinarySearch(q.Only, x.labels.Hash()); !ok {
				continue
			}
		}
		var samples *mcache.Snapshot
		if q.What == askSamples {
			samples = &snapshot
			if q.Last {
				f.readLast(set.found, x.place, s, samples)
			} else {
				f.read(set.found, x.place, s, samples)
			}
		}
		if err := out.putSeries(x.labels, samples); err != nil {
			return err
		}
	}
	return nil
}

// here reads this member's cache alone.
func (f *FanOut) here(ctx context.Context, bucket string) *Queryable {
	q := NewQueryable(ownSource{f.local, f}, bucket, QueryableOptions{MaxSeries: f.limits.Load().maxSeries})
	q.loan = loanOf(ctx)
	return q
}

// ownSource is this member's cache, which says what it lacks in the words that
// members use for it.
type ownSource struct {
	Source
	f *FanOut
}

func (o ownSource) Select(ctx context.Context, s Selection) (Found, error) {
	found, err := o.Source.Select(ctx, s)
	if err != nil {
		return nil, err
	}
	return ownFound{found, o.f.own(found.Missing())}, nil
}

type ownFound struct {
	Found
	missing Missing
}

func (o ownFound) Missing() Missing { return o.missing }

// read copies what a series has in the time of a selection. What has histograms
// is read from a while before on: see histogramBefore.
func (f *FanOut) read(found Found, place int, s *Selection, to *mcache.Snapshot) {
	ok := found.Snapshot(place, s.From, s.To, to)
	if ok && to.HasRecords() && s.From > minTime.UnixMilli()+maxBeforeMs {
		ok = found.Snapshot(place, s.From-maxBeforeMs, s.To, to)
	}
	if !ok { // it has gone since it was selected
		to.Lost(s.To)
	}
}

// lastWindowsMs are how far back from now a series is searched for its newest
// sample, before all of it is.
var lastWindowsMs = [...]int64{10 * 60_000, 24 * 3_600_000, math.MaxInt64}

// readLast is read for the newest sample that says no end of a series. If there
// is none, or a newer one has been lost, all are copied.
func (f *FanOut) readLast(found Found, place int, s *Selection, to *mcache.Snapshot) {
	now := f.o.Now().UnixMilli()
	for _, window := range lastWindowsMs {
		if !found.Snapshot(place, max(s.From, now-window), s.To, to) {
			to.Lost(s.To)
			return
		}
		var last mcache.Sample
		some := false
		for it := to.Iterator(); it.Next(); {
			if !it.OnRecord() && it.At().V != value.StaleNaN {
				last, some = it.At(), true
			}
		}
		if some && to.CompleteFrom() <= last.T {
			to.Hold(last)
			return
		}
	}
}
