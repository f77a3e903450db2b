package query

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"mcached/mcache"
)

// seriesSet is the outcome of a select: all of its series in one allocation.
type seriesSet struct {
	q          *Queryable
	found      Found
	mint, maxt int64 // unix ms, inclusive: what the series are read for
	series     []series
	at         int
}

func (s *seriesSet) Next() bool {
	s.at++
	return s.at < len(s.series)
}

func (s *seriesSet) At() storage.Series { return &s.series[s.at] }
func (*seriesSet) Err() error           { return nil }

// Warnings are none: what is missing shows when samples are read, which is
// after the engine asks here. See Queryable.CompleteFrom.
func (*seriesSet) Warnings() annotations.Annotations { return nil }

// sort brings the series into the order of their labels.
func (s *seriesSet) sort() {
	slices.SortFunc(s.series, func(a, b series) int { return labels.Compare(a.labels, b.labels) })
}

// listing is the text of the label sets, if it is one that is kept. The series come in
// the order of their ids, and are in that of their labels if there is none.
func (s *seriesSet) listing() (text []byte, ok bool) {
	found, ok := s.found.(*cacheFound)
	atLeast := uint64(0)
	for i := range s.series {
		atLeast += s.series[i].labels.ByteSize()
	}
	if !ok || found.kept == nil || atLeast > maxListingBytes {
		s.sort()
		return nil, false
	}
	ids := make([]mcache.SeriesID, len(s.series))
	for i := range s.series {
		ids[i] = found.ids[s.series[i].place]
	}
	if text, ok = found.kept.listings.of(ids); ok {
		return text, true
	}
	s.sort()
	var w jsonWriter
	for i := range s.series {
		w.comma(i)
		w.labels(s.series[i].labels)
	}
	text = slices.Clip(w.buf)
	found.kept.listings.keep(ids, text)
	return text, true
}

// keepOverlapping keeps the first series that have a sample in their time, at
// most limit of them if that is above zero.
func (s *seriesSet) keepOverlapping(ctx context.Context, limit int) error {
	kept := s.series[:0]
	var it iterator
	for i := range s.series {
		if limit > 0 && len(kept) == limit {
			break
		}
		if i%checkEverySeries == checkEverySeries-1 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		it.reset(&s.series[i])
		if it.state == exhausted {
			continue
		}
		// Of histograms it takes decoding to know whether they are sound.
		if it.snapshot.HasRecords() && it.Next() != chunkenc.ValNone || !it.snapshot.HasRecords() && it.snapshot.HasPoint() {
			kept = append(kept, s.series[i])
		}
	}
	s.series = kept
	return nil
}

// series is one selected series.
type series struct {
	set    *seriesSet
	place  int // in set.found
	labels labels.Labels
}

func (s *series) Labels() labels.Labels { return s.labels }

// Iterator copies the encoded samples out of the cache and decodes them as
// they are asked for. The memory of prev is used again if it is one of ours.
func (s *series) Iterator(prev chunkenc.Iterator) chunkenc.Iterator {
	it, ok := prev.(*iterator)
	if !ok {
		it = &iterator{}
	}
	it.reset(s)
	return it
}

// iterator walks the samples of one series in its time. It owns a
// copy of the encoded samples: nothing that happens to the cache reaches it.
type iterator struct {
	snapshot mcache.Snapshot
	it       mcache.Iterator
	at       mcache.Sample // its time is that of the histogram, on one
	state    iteratorState
	series   *series
	lent     int64 // bytes of the snapshot that the query's loan has
	histogramDecoder
}

type iteratorState uint8

const (
	fresh iteratorState = iota // before the first point
	onSample
	onHistogram
	exhausted
)

func (it *iterator) reset(s *series) {
	it.series, it.state = s, fresh
	it.at = mcache.Sample{T: math.MinInt64}
	it.histogramDecoder.reset()
	set := s.set
	if !set.found.Snapshot(s.place, set.mint, set.maxt, &it.snapshot) {
		// The series was evicted after it was selected: none of its samples
		// can be read any more, whatever their time.
		set.q.noteGone(set.mint, set.maxt)
		it.state = exhausted
		return
	}
	set.q.noteGone(set.mint, it.snapshot.CompleteFrom())
	if it.snapshot.Retained() {
		set.q.retained.Store(true)
	}
	if n := it.snapshot.Held(); n > max(it.lent, smallSnapshot) && !it.lend(n) {
		return
	}
	it.it.Reset(&it.snapshot)
}

// smallSnapshot is what a snapshot may have without asking: a day of one series.
const smallSnapshot = 16 << 10

// lend takes from the loan what the snapshot has grown to. If there is no room
// the iterator is exhausted, with an error.
func (it *iterator) lend(bytes int64) bool {
	q := it.series.set.q
	if q.loan == nil {
		return true
	}
	if err := q.loan.Take(context.Background(), bytes-it.lent); err != nil {
		it.err, it.state = err, exhausted
		return false
	}
	it.lent = bytes
	return true
}

func (it *iterator) Next() chunkenc.ValueType {
	if it.state == exhausted {
		return chunkenc.ValNone
	}
	if !it.it.Next() {
		return it.exhaust()
	}
	return it.take()
}

// unixMs is a time. The alias also keeps vet from taking Seek for io.Seeker's.
type unixMs = int64

func (it *iterator) Seek(t unixMs) chunkenc.ValueType {
	switch {
	case it.state == exhausted:
		return chunkenc.ValNone
	case it.state == onSample && it.at.T >= t:
		return chunkenc.ValFloat
	case it.state == onHistogram && it.at.T >= t:
		return it.valueType()
	}
	if it.state == onHistogram {
		it.state = fresh // what comes does not follow
	}
	if !it.it.SkipTo(t) {
		return it.exhaust()
	}
	return it.take()
}

// take takes over the point the decoder stands on.
func (it *iterator) take() chunkenc.ValueType {
	if !it.it.OnRecord() {
		it.at, it.state = it.it.At(), onSample
		return chunkenc.ValFloat
	}
	return it.takeHistogram()
}

func (it *iterator) takeHistogram() chunkenc.ValueType {
	var before *histogram.FloatHistogram
	var beforeIsFloat bool
	r := it.it.Record()
	switch it.state {
	case onHistogram:
		before, beforeIsFloat = it.inFloats(), it.float != nil
	case fresh:
		before, beforeIsFloat = it.series.histogramBefore(r.T)
	}
	if !it.decode(r.Value, before, beforeIsFloat) {
		return it.exhaust()
	}
	it.at, it.state = mcache.Sample{T: r.T}, onHistogram
	return it.valueType()
}

func (it *iterator) exhaust() chunkenc.ValueType {
	it.state = exhausted
	return chunkenc.ValNone
}

// maxBeforeMs is how far back a histogram is looked for that may be the one
// before: longer than any interval between scrapes that Prometheus can use.
const maxBeforeMs = 10 * 60_000

// histogramBefore returns the point before t if it is a histogram, in floats.
func (s *series) histogramBefore(t int64) (before *histogram.FloatHistogram, isFloat bool) {
	var snapshot mcache.Snapshot
	if !s.set.found.Snapshot(s.place, t-maxBeforeMs, t-1, &snapshot) {
		return nil, false
	}
	var record []byte
	for it := snapshot.Iterator(); it.Next(); {
		if record = nil; it.OnRecord() {
			record = it.Record().Value
		}
	}
	var d histogramDecoder
	if record == nil || !d.decode(record, nil, false) {
		return nil, false
	}
	return d.inFloats(), d.float != nil
}

func (it *iterator) At() (int64, float64) { return it.at.T, math.Float64frombits(it.at.V) }
func (it *iterator) AtT() int64           { return it.at.T }
func (it *iterator) Err() error           { return it.err }

// AtST is the time since when a counter has counted, 0 if that is not known.
func (it *iterator) AtST() int64 {
	if it.state == onHistogram {
		return it.message.StartTimestamp
	}
	return it.it.StartTime()
}

func (it *iterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return it.at.T, it.histogram(h)
}

func (it *iterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return it.at.T, it.floatHistogram(h)
}
