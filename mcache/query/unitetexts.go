package query

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"mcached/mcache"
)

// LabelNames implements Source.
func (f *FanOut) LabelNames(ctx context.Context, s Selection, limit int) (Texts, error) {
	q := f.questionOf(askNames, s)
	q.Limit = limit
	return f.texts(ctx, &s, &q)
}

// LabelValues implements Source.
func (f *FanOut) LabelValues(ctx context.Context, name string, s Selection, limit int) (Texts, error) {
	q := f.questionOf(askValues, s)
	q.Limit, q.Name = limit, []byte(name)
	return f.texts(ctx, &s, &q)
}

// texts are those of all members.
func (f *FanOut) texts(ctx context.Context, s *Selection, q *question) (Texts, error) {
	eras := f.relevant(s)
	claimed := f.claimed(ctx)
	all := f.judge(s, eras, claimed, f.same(ctx, q, f.enough(s, eras, claimed)))
	if err := all.err(); err != nil {
		return Texts{}, err
	}
	t := joinedTexts{Texts{Missing: all.missing()}}
	t.Notes = all.notes(nothingMissing.Gone)
	for _, r := range all.replies {
		if r.got != nil {
			t.List = append(t.List, r.got.texts...)
		}
	}
	return t.sorted(q.Limit), nil
}

// same asks all members the same.
func (f *FanOut) same(ctx context.Context, q *question, enough func([]reply) bool) []reply {
	a := f.asker(ctx)
	a.enough = enough
	return a.all(func(int) *question { return q }, func(got *collected) error {
		return f.answer(ctx, q, localSink{got})
	})
}

// anyone is enough of an answer to what nobody can say whether it is whole.
func anyone([]reply) bool { return true }

// ChunkStats implements Source. Chunks are those of all copies.
func (f *FanOut) ChunkStats(bucket string) mcache.ChunkStats {
	return f.allChunkStats(bucket, askChunkStats)
}

// ChunkStatsByMetric implements Source. Bytes are those of all copies.
func (f *FanOut) ChunkStatsByMetric(bucket string) mcache.ChunkStats {
	return f.allChunkStats(bucket, askChunkStatsByMetric)
}

func (f *FanOut) allChunkStats(bucket, what string) mcache.ChunkStats {
	q := f.questionOf(what, Selection{Bucket: bucket})
	all := mcache.ChunkStats{MinTime: math.MaxInt64, MaxTime: math.MinInt64, BytesByMetric: map[string]int64{}}
	for e := range answersAs[mcache.ChunkStats](f.same(context.Background(), &q, anyone)) {
		all.Chunks += e.Chunks
		all.MinTime, all.MaxTime = min(all.MinTime, e.MinTime), max(all.MaxTime, e.MaxTime)
		for metric, n := range e.BytesByMetric {
			all.BytesByMetric[metric] += n
		}
	}
	return all
}

// answersAs are the answers in JSON of those who gave one.
func answersAs[T any](replies []reply) func(yield func(T) bool) {
	return func(yield func(T) bool) {
		for _, r := range replies {
			var v T
			if r.got != nil && json.Unmarshal(r.got.json, &v) == nil && !yield(v) {
				return
			}
		}
	}
}

// Cardinality implements Source. A series is counted once for each copy and
// divided by the copies that it should have; of values, of which several members
// may have the same, there are at least those of the member that has most. Of
// each member its largest sources count; one that is small at each may be missing.
func (f *FanOut) Cardinality(bucket string, limit int) mcache.Cardinality {
	const wide = 1000
	q := f.questionOf(askCardinality, Selection{Bucket: bucket})
	q.Limit = max(limit, wide)
	var all mcache.Cardinality
	var sums, most [4]map[string]int
	for i := range sums {
		sums[i], most[i] = map[string]int{}, map[string]int{}
	}
	pairs := 0
	for c := range answersAs[mcache.Cardinality](f.same(context.Background(), &q, anyone)) {
		all.Series, all.Labels, all.Pairs = all.Series+c.Series, max(all.Labels, c.Labels), all.Pairs+c.Pairs
		pairs = max(pairs, c.Pairs)
		for i, list := range [...][]mcache.Count{c.ByMetric, c.ByLabel, c.ByPair, c.BytesByLabel} {
			for _, n := range list {
				sums[i][n.Name] += n.Count
				most[i][n.Name] = max(most[i][n.Name], n.Count)
			}
		}
	}
	copies := f.copies()
	for i := range sums {
		for name, n := range sums[i] {
			sums[i][name] = max(most[i][name], (n+copies/2)/copies)
		}
	}
	all.Series, all.Pairs = (all.Series+copies/2)/copies, max(pairs, (all.Pairs+copies/2)/copies)
	all.ByMetric, all.ByLabel = mcache.Top(sums[0], limit), mcache.Top(sums[1], limit)
	all.ByPair, all.BytesByLabel = mcache.Top(sums[2], limit), mcache.Top(sums[3], limit)
	return all
}

// copies is how many a series has now.
func (f *FanOut) copies() int {
	e := current(f.members.Eras(never - 1))
	if e == nil || len(e.owners.sets) == 0 {
		return 1
	}
	return max(1, len(e.owners.sets[0]))
}

// allMetadata is what any member knows of metrics.
func (f *FanOut) allMetadata(bucket, metric string) map[string][]metadata.Metadata {
	q := f.questionOf(askMetadata, Selection{Bucket: bucket})
	q.Name = []byte(metric)
	all := map[string][]metadata.Metadata{}
	for of := range answersAs[map[string][]metadata.Metadata](f.same(context.Background(), &q, anyone)) {
		for _, name := range slices.Sorted(maps.Keys(of)) {
			for _, m := range of[name] {
				if !slices.Contains(all[name], m) {
					all[name] = append(all[name], m)
				}
			}
		}
	}
	return all
}

func (f *FanOut) answerMetadata(q *question, out answerSink) error {
	if f.metadata == nil {
		return out.putJSON(nil)
	}
	return out.putJSON(f.metadata(string(q.Bucket), string(q.Name)))
}

// exemplarsOfSeries are on their way from a member.
type exemplarsOfSeries = exemplar.QueryResult

// answerExemplars answers with this member's exemplars.
func (f *FanOut) answerExemplars(ctx context.Context, q *question, out answerSink) error {
	if f.exemplars == nil {
		return nil
	}
	sets := make([][]*labels.Matcher, len(q.Selectors))
	for i, ms := range q.Selectors {
		var err error
		if sets[i], err = fromWire(ms); err != nil {
			return err
		}
	}
	querier, err := f.exemplars(ctx, string(q.Bucket))
	if err != nil {
		return err
	}
	found, err := querier.Select(q.From, q.To, sets...)
	if err != nil {
		return err
	}
	for _, x := range found {
		if err := out.putExemplars(x); err != nil {
			return err
		}
	}
	return nil
}

func (l localSink) putExemplars(x exemplarsOfSeries) error {
	l.exemplars = append(l.exemplars, x)
	return nil
}

// putExemplars writes the labels of a series; how many exemplars, uvarint; and of
// each its labels, value, eight bytes, and time, varint.
func (f *frames) putExemplars(x exemplarsOfSeries) error {
	f.appendLabels(x.SeriesLabels)
	f.frame = binary.AppendUvarint(f.frame, uint64(len(x.Exemplars)))
	for _, e := range x.Exemplars {
		f.appendLabels(e.Labels)
		f.frame = binary.LittleEndian.AppendUint64(f.frame, math.Float64bits(e.Value))
		f.frame = binary.AppendVarint(f.frame, e.Ts)
	}
	return f.end(frameExemplars)
}

func (f *frameReader) takeExemplars(b []byte) (x exemplarsOfSeries, err error) {
	if x.SeriesLabels, b, err = f.takeLabels(b); err != nil {
		return x, err
	}
	n, b, err := takeUvarint(b)
	if err != nil || n > uint64(len(b)/10) {
		return x, fmt.Errorf("%w: exemplars break off", errWire)
	}
	x.Exemplars = make([]exemplar.Exemplar, n)
	for i := range x.Exemplars {
		e := &x.Exemplars[i]
		e.HasTs = true
		var bits uint64
		if e.Labels, b, err = f.takeLabels(b); err == nil {
			if bits, b, err = takeFixed(b); err == nil {
				e.Value = math.Float64frombits(bits)
				e.Ts, b, err = takeVarint(b)
			}
		}
		if err != nil {
			return x, err
		}
	}
	return x, nil
}

// allExemplars reads those of all members.
func (f *FanOut) allExemplars(ctx context.Context, bucket string) (storage.ExemplarQuerier, error) {
	return exemplarQuerier{f, ctx, bucket}, nil
}

type exemplarQuerier struct {
	f      *FanOut
	ctx    context.Context
	bucket string
}

// Select implements storage.ExemplarQuerier. An exemplar that several members
// have is there once.
func (e exemplarQuerier) Select(from, to int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	q := e.f.questionOf(askExemplars, Selection{Bucket: e.bucket, From: from, To: to})
	for _, ms := range sets {
		q.Selectors = append(q.Selectors, toWire(ms))
	}
	replies := e.f.same(e.ctx, &q, anyone)
	if err := replies[0].err; err != nil {
		return nil, err
	}
	var all []exemplar.QueryResult
	places := map[string]int{}
	for _, r := range replies {
		if r.got == nil {
			continue
		}
		for _, x := range r.got.exemplars {
			key := string(x.SeriesLabels.Bytes(nil))
			i, ok := places[key]
			if !ok {
				i = len(all)
				places[key] = i
				all = append(all, exemplar.QueryResult{SeriesLabels: x.SeriesLabels})
			}
			all[i].Exemplars = append(all[i].Exemplars, x.Exemplars...)
		}
	}
	for i := range all {
		slices.SortStableFunc(all[i].Exemplars, exemplar.Compare)
		all[i].Exemplars = slices.CompactFunc(all[i].Exemplars, func(a, b exemplar.Exemplar) bool { return a.Equals(b) })
	}
	slices.SortFunc(all, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	return all, nil
}
