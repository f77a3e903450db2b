package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
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
	// MaxSeriesFlag is said of that bound in the error, as " (--the-flag)". Default: nothing is.
	MaxSeriesFlag string
}

// Queryable reads one bucket of a Source as Prometheus' PromQL engine wants to.
//
// It is made for one query and remembers what that query could not see: ask
// CompleteFrom when the results have been read. It is safe for concurrent use.
type Queryable struct {
	source Source
	bucket string
	o      QueryableOptions

	// completeFrom is the latest time, in unix ms, before which samples of a
	// series that was read may be missing; math.MinInt64 when none is known to be.
	completeFrom atomic.Int64
	// gone is that of those times before which samples were here, and uncovered that
	// of those before which they never came, or came to a process before this one.
	gone      atomic.Int64
	uncovered atomic.Int64
	selected  atomic.Int64 // series
	most      atomic.Int64 // series that one select found
	computed  atomic.Int64 // samples that plans read
	empty     atomic.Bool  // a select found no series
	typed     atomic.Bool  // a plan lost labels that may have told series apart
	retained  atomic.Bool  // a series that was read has a retention

	notes struct { // warnings for the answer
		mu   sync.Mutex
		list []error
	}

	loan      Loan      // of the request that this is for; may be nil
	computer  *computer // of the range query that this is for; may be nil
	results   *results  // that are remembered; may be nil
	unplanned bool      // the query must not have a computer
	byLabels  bool      // series come in the order of their labels
}

// NewQueryable returns a Queryable of bucket, which need not exist.
func NewQueryable(s Source, bucket string, o QueryableOptions) *Queryable {
	q := &Queryable{source: s, bucket: bucket, o: o}
	q.completeFrom.Store(math.MinInt64)
	q.gone.Store(math.MinInt64)
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

// noteGone remembers that a read which began at from lacks samples before complete.
func (q *Queryable) noteGone(from, complete int64) {
	if complete > from {
		raise(&q.gone, complete)
		raise(&q.completeFrom, complete)
	}
}

// noteUncovered is noteGone of what was not received.
func (q *Queryable) noteUncovered(from, complete int64) {
	if complete > from {
		raise(&q.uncovered, complete)
		raise(&q.completeFrom, complete)
	}
}

// note remembers what a read which began at from lacks as a whole.
func (q *Queryable) note(from int64, m Missing) {
	q.noteGone(from, m.Gone)
	q.noteUncovered(from, m.Uncovered)
}

// warn remembers warnings that the answer is to have, each once.
func (q *Queryable) warn(notes []error) {
	q.notes.mu.Lock()
	defer q.notes.mu.Unlock()
	for _, n := range notes {
		if !slices.ContainsFunc(q.notes.list, func(o error) bool { return o.Error() == n.Error() }) {
			q.notes.list = append(q.notes.list, n)
		}
	}
}

// warnings are those that the answer is to have.
func (q *Queryable) warnings() []error {
	q.notes.mu.Lock()
	defer q.notes.mu.Unlock()
	return slices.Clone(q.notes.list)
}

// raise makes a at least v.
func raise(a *atomic.Int64, v int64) {
	for old := a.Load(); v > old && !a.CompareAndSwap(old, v); {
		old = a.Load()
	}
}

// tooManySeries says that a selector has matched n.
func (q *Queryable) tooManySeries(n int) error {
	return fmt.Errorf("%w: %d, at most %d%s: narrow the selector", ErrMaxSeries, n, q.o.MaxSeries, q.o.MaxSeriesFlag)
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
	q := qr.q
	wanted, limit, seriesOnly := qr.selection(matchers), 0, false
	window, step := int64(0), int64(0)
	if hints != nil {
		wanted.From, wanted.To, limit = hints.Start, hints.End, hints.Limit
		wanted.LabelsOnly = hints.Func == "series"
		seriesOnly = wanted.LabelsOnly && !wanted.ofAllTimes()
		if window, step = hints.Range, hints.Step; window == 0 {
			window = defaultWindowMs / 12
		}
	}
	if err := ctx.Err(); err != nil {
		return storage.ErrSeriesSet(err)
	}
	orderMatchers(matchers)
	found, err := q.source.Select(ctx, wanted)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	q.note(wanted.From, found.Missing())
	if n, ok := found.(noted); ok {
		q.warn(n.Notes())
	}
	n := found.Len()
	if raise(&q.most, int64(n)); n == 0 {
		q.empty.Store(true)
	}
	if q.o.MaxSeries > 0 && n > q.o.MaxSeries {
		return storage.ErrSeriesSet(q.tooManySeries(n))
	}
	if err := q.takeSeries(ctx, n, wanted.From, wanted.To, window, step); err != nil {
		return storage.ErrSeriesSet(err)
	}
	set := &seriesSet{q: q, found: found, mint: wanted.From, maxt: wanted.To, series: make([]series, 0, n), at: -1}
	for i := range n {
		if i%checkEverySeries == checkEverySeries-1 {
			if err := ctx.Err(); err != nil {
				return storage.ErrSeriesSet(err)
			}
		}
		if ls, ok := found.Labels(i); ok { // else it was evicted since
			set.series = append(set.series, series{set: set, place: i, labels: ls})
		}
	}
	if sortSeries || q.byLabels {
		set.sort()
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

func (qr *querier) selection(matchers []*labels.Matcher) Selection {
	return Selection{Bucket: qr.q.bucket, Matchers: matchers, From: qr.mint, To: qr.maxt}
}

// LabelValues are those of the series that have a sample in the querier's time,
// as a select of series has it; of all times, of all series that there are.
func (qr *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	settle, err := qr.takeTexts(ctx)
	if err != nil {
		return nil, nil, err
	}
	found, err := qr.q.source.LabelValues(ctx, name, qr.selection(matchers), labelLimit(hints))
	return settle(found), nil, err
}

// LabelNames are of the same series.
func (qr *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	settle, err := qr.takeTexts(ctx)
	if err != nil {
		return nil, nil, err
	}
	found, err := qr.q.source.LabelNames(ctx, qr.selection(matchers), labelLimit(hints))
	return settle(found), nil, err
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
