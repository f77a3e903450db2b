package query

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// Source is what queries read: the engine's selects, plans, lookups and remote
// reads alike. The cache of this process is one (FromCache); several of its
// buckets read as one are another; what asks other daemons can be a third.
//
// It is asked in bulk: for the series of a selector, which it can have fetched
// as a whole by the time Select returns, then once for each series. Nothing asks
// for single samples. It must be safe for concurrent use.
type Source interface {
	// Select finds series. Those of the same selection come in the same order
	// each time, as long as they are there: sums of floats depend on it.
	Select(ctx context.Context, s Selection) (Found, error)
	// LabelNames lists the names that the selected series have, sorted, and at
	// most limit if that is above zero.
	LabelNames(ctx context.Context, s Selection, limit int) (Texts, error)
	// LabelValues does the same for the values of a label.
	LabelValues(ctx context.Context, name string, s Selection, limit int) (Texts, error)

	// SeriesOf is about how many series a bucket has.
	SeriesOf(bucket string) int
	// ChunkStats says of what time a bucket has samples.
	ChunkStats(bucket string) mcache.ChunkStats
	// ChunkStatsByMetric says by name of metric as well what it takes.
	ChunkStatsByMetric(bucket string) mcache.ChunkStats
	// Cardinality says where the series of a bucket come from.
	Cardinality(bucket string, limit int) mcache.Cardinality
}

// Selection says which series of a bucket are wanted, and of what time: those
// that all matchers match. A bucket need not exist.
type Selection struct {
	Bucket   string
	Matchers []*labels.Matcher
	From, To int64 // unix ms, inclusive

	// LabelsOnly says that no samples are going to be read, only whether there are any.
	LabelsOnly bool
	// LastOnly says that of each series the newest sample alone is wanted: others
	// may be left out.
	LastOnly bool
}

// ofAllTimes reports that a selection says nothing of time: every series has a
// sample in it.
func (s *Selection) ofAllTimes() bool {
	return s.From <= minTime.UnixMilli() && s.To >= maxTime.UnixMilli()
}

// Missing says of what time it is known that something of a selection may be
// missing: from when on nothing is, in unix ms; math.MinInt64 if nothing is.
type Missing struct {
	Gone      int64 // for series that were there as a whole, and were evicted or reclaimed
	Uncovered int64 // for what never came, or came to a process before this one
}

// nothingMissing is what a Source says that has all.
var nothingMissing = Missing{math.MinInt64, math.MinInt64}

// and is what is missing of two answers.
func (m Missing) and(o Missing) Missing {
	return Missing{max(m.Gone, o.Gone), max(m.Uncovered, o.Uncovered)}
}

// Texts are names or values, and what may be missing among them.
type Texts struct {
	List    []string
	Missing Missing
	Notes   []error // warnings for the answer
}

// Found is what a Select has found, some of which may go at any time.
type Found interface {
	// Len is how many series there are.
	Len() int
	// Missing is what may be missing of the selection as a whole. What one
	// series lacks its Snapshot says.
	Missing() Missing
	// Labels are those of series i. False means that it has gone. It is called
	// by one goroutine, for each series once.
	Labels(i int) (labels.Labels, bool)
	// Snapshot copies the samples of series i from from to to, both inclusive,
	// still encoded. False means that it has gone. It may be called by any
	// number of goroutines, and for a time outside of the selection.
	Snapshot(i int, from, to int64, s *mcache.Snapshot) bool
}

// noted is a Found that has warnings for the answer.
type noted interface{ Notes() []error }

// cacheSource is the Source of this process' cache.
type cacheSource struct {
	*mcache.Cache
	kept *LabelCache // may be nil
}

// FromCache reads c, and keeps the label sets of series in kept, which may be nil.
func FromCache(c *mcache.Cache, kept *LabelCache) Source { return cacheSource{c, kept} }

// Select implements Source.
func (c cacheSource) Select(_ context.Context, s Selection) (Found, error) {
	ms := convertMatchers(s.Matchers)
	ids, err := c.Cache.Select(s.Bucket, ms, nil)
	if err != nil {
		return nil, err
	}
	// Ids in order are the same order every time, and read each shard's tables
	// from front to back.
	slices.Sort(ids)
	f := &cacheFound{ids: ids, labelReader: labelReader{cache: c.Cache, kept: c.kept.forSeries(len(ids))}}
	// After the select, so that what leaves between the two is told of.
	f.missing = c.missing(&s, ms)
	return f, nil
}

// missing is what the cache knows to lack. Who asks of all times asks for what
// there is, since the bucket was first written to: what was evicted is not of it,
// what came while the daemon was down is.
func (c cacheSource) missing(s *Selection, ms []mcache.Matcher) Missing {
	m := Missing{math.MinInt64, c.uncovered(s)}
	if until, ok := c.GoneUntil(s.Bucket, ms); ok && !s.ofAllTimes() {
		m.Gone = until
	}
	return m
}

// uncovered is what never came, as missing has it.
func (c cacheSource) uncovered(s *Selection) int64 {
	since := s.From
	if s.ofAllTimes() {
		covered := c.Coverage(s.Bucket)
		if len(covered) == 0 {
			return math.MinInt64
		}
		since = covered[0].From
	}
	if from, ok := c.CoveredFrom(s.Bucket, since, s.To); ok {
		return from
	}
	return math.MinInt64
}

// LabelNames implements Source.
func (c cacheSource) LabelNames(_ context.Context, s Selection, limit int) (t Texts, err error) {
	ms := convertMatchers(s.Matchers)
	complete := int64(math.MinInt64)
	if s.ofAllTimes() {
		t.List, err = c.Cache.LabelNames(s.Bucket, ms, limit)
	} else {
		t.List, complete, err = c.LabelNamesIn(s.Bucket, ms, s.From, s.To, limit)
	}
	t.Missing = c.missing(&s, ms).and(Missing{complete, math.MinInt64})
	return t, err
}

// LabelValues implements Source.
func (c cacheSource) LabelValues(_ context.Context, name string, s Selection, limit int) (t Texts, err error) {
	ms := convertMatchers(s.Matchers)
	complete := int64(math.MinInt64)
	if s.ofAllTimes() {
		t.List, err = c.Cache.LabelValues(s.Bucket, name, ms, limit)
	} else {
		t.List, complete, err = c.LabelValuesIn(s.Bucket, name, ms, s.From, s.To, limit)
	}
	t.Missing = c.missing(&s, ms).and(Missing{complete, math.MinInt64})
	return t, err
}

// cacheFound is the Found of a cache.
type cacheFound struct {
	ids     []mcache.SeriesID
	missing Missing
	labelReader
}

func (f *cacheFound) Len() int         { return len(f.ids) }
func (f *cacheFound) Missing() Missing { return f.missing }

func (f *cacheFound) Labels(i int) (labels.Labels, bool) { return f.read(f.ids[i]) }

// CompleteFrom is from when on series i is complete, as far as that is known
// without reading it.
func (f *cacheFound) CompleteFrom(i int) int64 { return f.cache.CompleteFrom(f.ids[i]) }

func (f *cacheFound) Snapshot(i int, from, to int64, s *mcache.Snapshot) bool {
	return f.cache.Snapshot(f.ids[i], from, to, s)
}
