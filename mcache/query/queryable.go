package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"mcached/mcache"
)

// ErrMaxSeries says that a selector matched more series than one select may.
var ErrMaxSeries = errors.New("too many series selected")

// checkEverySeries is how many series are walked between two looks at the
// context: a look costs some 5 ns, a series some 100.
const checkEverySeries = 128

// QueryableOptions configure a Queryable; the zero value of a field means its default.
type QueryableOptions struct {
	// MaxSeries bounds what one select may match. Default: no bound.
	MaxSeries int
	// Labels keeps the label sets of series between queries. Default: none is kept.
	Labels *LabelCache
}

// Queryable reads one bucket of a cache as Prometheus' PromQL engine wants to.
//
// It is made for one query and remembers what that query could not see: ask
// CompleteFrom when the results have been read. It is safe for concurrent use.
type Queryable struct {
	cache  *mcache.Cache
	bucket string
	o      QueryableOptions

	// completeFrom is the latest time, in unix ms, before which samples of a
	// series that was read may be missing; math.MinInt64 when none is known to be.
	completeFrom atomic.Int64
	// uncovered is that of those times before which samples never came, or came
	// to a process before this one.
	uncovered atomic.Int64
	selected  atomic.Int64 // series
	computed  atomic.Int64 // samples that plans read

	loan      Loan      // of the request that this is for; may be nil
	computer  *computer // of the range query that this is for; may be nil
	unplanned bool      // the query must not have a computer
}

// NewQueryable returns a Queryable of bucket, which need not exist.
func NewQueryable(c *mcache.Cache, bucket string, o QueryableOptions) *Queryable {
	q := &Queryable{cache: c, bucket: bucket, o: o}
	q.completeFrom.Store(math.MinInt64)
	q.uncovered.Store(math.MinInt64)
	return q
}

// Querier returns a Querier of the time from mint to maxt, both in unix ms and inclusive.
func (q *Queryable) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{q: q, mint: mint, maxt: maxt}, nil
}

// CompleteFrom reports the time, in unix ms, from which on the samples read so
// far are complete. False means that nothing is known to be missing.
func (q *Queryable) CompleteFrom() (int64, bool) {
	t := q.completeFrom.Load()
	return t, t != math.MinInt64
}

// noteMissing remembers that a read which began at from lacks samples before complete.
func (q *Queryable) noteMissing(from, complete int64) {
	if complete > from {
		raise(&q.completeFrom, complete)
	}
}

// noteUncovered is noteMissing of what was not received.
func (q *Queryable) noteUncovered(from, complete int64) {
	raise(&q.uncovered, complete)
	q.noteMissing(from, complete)
}

// raise makes a at least v.
func raise(a *atomic.Int64, v int64) {
	for old := a.Load(); v > old && !a.CompareAndSwap(old, v); {
		old = a.Load()
	}
}

// missingReason says why samples before the time of CompleteFrom may be missing.
func (q *Queryable) missingReason() string {
	if q.uncovered.Load() == q.completeFrom.Load() {
		return reasonUncovered
	}
	return reasonEvicted
}

// Reasons why samples are missing, as answers and counters name them.
const (
	reasonEvicted   = "evicted"
	reasonUncovered = "uncovered"
)

// querier is a Queryable narrowed to a time. It holds nothing that must be released.
type querier struct {
	q          *Queryable
	mint, maxt int64 // unix ms, inclusive
}

func (*querier) Close() error { return nil }

// Select finds the series; their samples are copied out of the cache when an
// iterator is asked for, one series at a time, so that a select of a million
// series holds the samples of one.
func (qr *querier) Select(ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	if p := qr.q.computer.planOf(matchers); p != nil {
		return qr.q.computer.run(ctx, qr.q, p)
	}
	mint, maxt, limit := qr.mint, qr.maxt, 0
	seriesOnly, allTimes := false, false
	if hints != nil {
		mint, maxt, limit = hints.Start, hints.End, hints.Limit
		allTimes = ofAllTimes(mint, maxt)
		seriesOnly = hints.Func == "series" && !allTimes
	}
	if err := ctx.Err(); err != nil {
		return storage.ErrSeriesSet(err)
	}
	q := qr.q
	orderMatchers(matchers)
	converted := convertMatchers(matchers)
	ids, err := q.cache.Select(q.bucket, converted, nil)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	// After the select, so that what leaves between the two is told of. Who
	// asks of all times asks for what there is.
	if until, ok := q.cache.GoneUntil(q.bucket, converted); ok && !allTimes {
		q.noteMissing(mint, until)
	}
	if complete, ok := q.cache.CoveredFrom(q.bucket, mint, maxt); ok && !allTimes {
		q.noteUncovered(mint, complete)
	}
	if q.o.MaxSeries > 0 && len(ids) > q.o.MaxSeries {
		return storage.ErrSeriesSet(fmt.Errorf("%w: %d, at most %d", ErrMaxSeries, len(ids), q.o.MaxSeries))
	}
	window, step := int64(0), int64(0)
	if hints != nil {
		if window, step = hints.Range, hints.Step; window == 0 {
			window = defaultWindowMs / 12
		}
	}
	if err := q.takeSeries(ctx, len(ids), mint, maxt, window, step); err != nil {
		return storage.ErrSeriesSet(err)
	}
	// Ids in order are the same order every time, which sums of floats and
	// ties want, and they read each shard's tables from front to back.
	slices.Sort(ids)

	set := &seriesSet{series: make([]series, 0, len(ids)), at: -1}
	reader := labelReader{cache: q.cache, kept: q.o.Labels}
	for i, id := range ids {
		if i%checkEverySeries == checkEverySeries-1 {
			if err := ctx.Err(); err != nil {
				return storage.ErrSeriesSet(err)
			}
		}
		if ls, ok := reader.read(id); ok { // else it was evicted since
			set.series = append(set.series, series{q: q, id: id, labels: ls, mint: mint, maxt: maxt})
		}
	}
	if sortSeries {
		slices.SortFunc(set.series, func(a, b series) int { return labels.Compare(a.labels, b.labels) })
	}
	if seriesOnly {
		if err := set.keepOverlapping(ctx, limit); err != nil {
			return storage.ErrSeriesSet(err)
		}
	}
	if limit > 0 && len(set.series) > limit {
		set.series = set.series[:limit]
	}
	q.selected.Add(int64(len(set.series)))
	return set
}

// LabelValues are those of the series that have a sample in the querier's time,
// as a select of series has it; of all times, of all series that there are.
func (qr *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	q, ms := qr.q, convertMatchers(matchers)
	settle, err := q.takeTexts(ctx)
	if err != nil {
		return nil, nil, err
	}
	if ofAllTimes(qr.mint, qr.maxt) {
		values, err := q.cache.LabelValues(q.bucket, name, ms, labelLimit(hints))
		settle(values)
		return values, nil, err
	}
	values, complete, err := q.cache.LabelValuesIn(q.bucket, name, ms, qr.mint, qr.maxt, labelLimit(hints))
	qr.noteLabelsMissing(ms, complete)
	settle(values)
	return values, nil, err
}

// LabelNames are of the same series.
func (qr *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	q, ms := qr.q, convertMatchers(matchers)
	settle, err := q.takeTexts(ctx)
	if err != nil {
		return nil, nil, err
	}
	if ofAllTimes(qr.mint, qr.maxt) {
		names, err := q.cache.LabelNames(q.bucket, ms, labelLimit(hints))
		settle(names)
		return names, nil, err
	}
	names, complete, err := q.cache.LabelNamesIn(q.bucket, ms, qr.mint, qr.maxt, labelLimit(hints))
	qr.noteLabelsMissing(ms, complete)
	settle(names)
	return names, nil, err
}

// noteLabelsMissing tells of series that may have been in the time: of those
// that are there, before complete, and of those that have gone.
func (qr *querier) noteLabelsMissing(ms []mcache.Matcher, complete int64) {
	qr.q.noteMissing(qr.mint, complete)
	if until, ok := qr.q.cache.GoneUntil(qr.q.bucket, ms); ok {
		qr.q.noteMissing(qr.mint, until)
	}
}

// ofAllTimes reports that a request says nothing of time: every series has a
// sample in it.
func ofAllTimes(mint, maxt int64) bool {
	return mint <= minTime.UnixMilli() && maxt >= maxTime.UnixMilli()
}

func labelLimit(hints *storage.LabelHints) int {
	if hints == nil {
		return 0
	}
	return hints.Limit
}

// orderMatchers puts first what series must have, as Prometheus' storage does to
// the list in the expression: absent() makes labels of that list and goes by
// its order.
func orderMatchers(ms []*labels.Matcher) {
	if len(ms) < 2 {
		return
	}
	var (
		names [8]string // room on the stack, for most lists
		rest  [8]*labels.Matcher
	)
	mustBeSet, subtracting, n := names[:0], rest[:0], 0
	for _, m := range ms {
		if !m.Matches("") {
			mustBeSet = append(mustBeSet, m.Name)
		}
	}
	for _, m := range ms {
		negative := m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp
		if !slices.Contains(mustBeSet, m.Name) || negative && m.Matches("") {
			subtracting = append(subtracting, m)
		} else {
			ms[n] = m
			n++
		}
	}
	copy(ms[n:], subtracting)
}

var matchTypes = [...]mcache.MatchType{
	labels.MatchEqual:     mcache.MatchEqual,
	labels.MatchNotEqual:  mcache.MatchNotEqual,
	labels.MatchRegexp:    mcache.MatchRegexp,
	labels.MatchNotRegexp: mcache.MatchNotRegexp,
}

// convertMatchers hands Prometheus' compiled matchers on, together with what
// their analysis found: a fixed prefix, or the whole set of values.
func convertMatchers(ms []*labels.Matcher) []mcache.Matcher {
	out := make([]mcache.Matcher, len(ms))
	for i, m := range ms {
		out[i] = mcache.Matcher{Type: matchTypes[m.Type], Name: m.Name, Value: m.Value}
		if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
			out[i].Matches = m.Matches
			out[i].Prefix = m.Prefix()
			out[i].Set = m.SetMatches()
			out[i].Syntax = "PromQL"
		}
	}
	return out
}
