package query

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/schema"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// steps are the times of a range query.
type steps struct {
	start, interval int64 // unix ms, ms
	n               int
	lookback        int64 // ms
}

// none stands for a step without a result. No result has these bits: samples
// that have them are none, and arithmetic makes quiet NaNs only.
var none = math.Float64frombits(value.StaleNaN)

func isNone(f float64) bool { return math.Float64bits(f) == value.StaleNaN }

// room is memory that one query after the other uses: what a query over a
// hundred series needs is a quarter of a megabyte, and to have the collector
// find that out took as long as to compute the answer.
type room struct {
	workers sync.Pool // *worker
	slabs   sync.Pool // *[maxSlab]float64
}

func (r *room) worker() *worker {
	if w, ok := r.workers.Get().(*worker); ok {
		return w
	}
	return &worker{}
}

func (r *room) keep(w *worker) {
	poison(w.rows)
	poison(w.values)
	poison(w.lost)
	poison(w.low)
	if !w.large() {
		w.plan, w.it.series = nil, nil // of the query that ends
		r.workers.Put(w)
	}
}

func (r *room) slab() *[maxSlab]float64 {
	if s, ok := r.slabs.Get().(*[maxSlab]float64); ok {
		return s
	}
	return new([maxSlab]float64)
}

// computer carries out plans for one request.
type computer struct {
	steps
	maxSamples int // that the query may hold at once, as the engine counts them
	plans      []*plan
	room       *room

	// held is more than, or as much as, what the engine would have held at once
	// for any of the plans that were carried out: see exceeds.
	held int
	// failed is the error of a plan, in the engine's words: the engine, which
	// takes it for one of the storage, puts words of its own before it.
	failed error
}

// exceeds reports that the engine might have found more samples than it may
// hold, had there been no plans: while it works on one of them, it holds what
// it takes for that beside what it holds of the rest of the expression, which
// is at most peak. It has to be asked then.
func (c *computer) exceeds(peak int) bool { return c != nil && c.held > c.maxSamples-peak }

// newComputer returns a computer for a range query, or nil if its times are not
// ones to compute with: the engine then does what it does.
func newComputer(start, end time.Time, step, lookback time.Duration, maxSamples int, r *room) *computer {
	const maxSeconds = math.MaxInt64 / int64(time.Second) // what nanoseconds can count
	if step < time.Millisecond || max(-start.Unix(), end.Unix()) >= maxSeconds-int64(365*24*time.Hour/time.Second) {
		return nil
	}
	// The engine's conversions, which are not those of package time before 1970.
	from, to := start.UnixNano()/int64(time.Millisecond), end.UnixNano()/int64(time.Millisecond)
	return &computer{maxSamples: maxSamples, room: r, steps: steps{
		start:    from,
		interval: step.Milliseconds(),
		n:        int((to-from)/step.Milliseconds()) + 1,
		lookback: lookback.Milliseconds(),
	}}
}

// own is the error of a plan, if that is what the engine tells of.
func (c *computer) own(err error) error {
	if c != nil && c.failed != nil && errors.Is(err, c.failed) {
		return c.failed
	}
	return err
}

func (c *computer) planOf(matchers []*labels.Matcher) *plan {
	if c == nil || len(matchers) != 1 {
		return nil
	}
	for _, p := range c.plans {
		if p.matcher == matchers[0] {
			return p
		}
	}
	return nil
}

// errUnplanned says that there are histograms among the samples of a plan, far
// more steps than results, or nearly as many samples as a query may hold. The
// query has to be given to the engine as it was.
var errUnplanned = errors.New("this is for the engine")

// errSameLabels is Prometheus' error for series that differ in name only.
var errSameLabels = errors.New("vector cannot contain metrics with the same labelset")

// hintsOf is the time that a plan looks at.
func (c *computer) hintsOf(p *plan) *storage.SelectHints {
	offset, window := p.offsetMs(), c.lookback
	if p.rangeMs > 0 {
		window = p.rangeMs
	}
	last := c.start + int64(c.n-1)*c.interval
	return &storage.SelectHints{Start: c.start - offset - window + 1, End: last - offset}
}

// selectFor finds the series of a plan.
func (c *computer) selectFor(ctx context.Context, q *Queryable, p *plan) (*seriesSet, error) {
	hints := c.hintsOf(p)
	qr := querier{q: q, mint: hints.Start, maxt: hints.End}
	set := qr.Select(ctx, false, hints, slices.Clone(p.selector.LabelMatchers)...) // which orders them
	if found, ok := set.(*seriesSet); ok {
		return found, nil
	}
	return nil, set.Err()
}

// run carries out a plan for the engine.
func (c *computer) run(ctx context.Context, q *Queryable, p *plan) storage.SeriesSet {
	var ofSelect error
	found, notes, err := c.carryOut(ctx, q, p, func(err error) error { ofSelect = err; return err })
	if err != nil {
		if ofSelect == nil {
			c.failed = err
		}
		return storage.ErrSeriesSet(err)
	}
	// The engine copies them.
	if q.loan != nil {
		if err := q.loan.Take(ctx, product(int64(len(found.groups)), seriesBytes+product(stepBytes, int64(c.n)))); err != nil {
			return storage.ErrSeriesSet(err)
		}
	}
	return &computedSet{steps: c.steps, rows: found.rows(), at: -1, notes: notes}
}

// carryOut carries out a plan: elsewhere, if its series are, and if that can be
// done. ofSelect gives an error of finding them the engine's words.
func (c *computer) carryOut(ctx context.Context, q *Queryable, p *plan, ofSelect func(error) error) (*collector, annotations.Annotations, error) {
	// Members know rates and plain series.
	if d, ok := q.source.(distributor); ok && (p.rangeMs == 0 || p.ofCounters()) {
		out, notes, ok, err := d.distribute(ctx, q, c, p)
		switch {
		case errors.Is(err, errUnplanned), errors.As(err, new(promql.ErrTooManySamples)), ctx.Err() != nil:
			return nil, nil, engineError(err)
		case err != nil:
			return nil, nil, ofSelect(err)
		case ok:
			return out, notes, nil
		}
	}
	if source := q.results.of(q, c); source != nil && p.op != 0 {
		rows, notes, err := q.results.carryOut(ctx, q, c, source, &work{
			expr: p.expr, plans: []*plan{p}, ordered: p.ordered,
			compute: func(ctx context.Context, c *computer, q *Queryable) ([]computedRow, annotations.Annotations, error) {
				found, notes, err := c.find(ctx, q, p, ofSelect)
				if err != nil {
					return nil, nil, err
				}
				return found.rows(), notes, nil
			},
		})
		return collectorOf(c, rows), notes, err
	}
	return c.find(ctx, q, p, ofSelect)
}

// find carries out a plan on the series that it finds.
func (c *computer) find(ctx context.Context, q *Queryable, p *plan, ofSelect func(error) error) (*collector, annotations.Annotations, error) {
	set, err := c.selectFor(ctx, q, p)
	if err != nil {
		return nil, nil, ofSelect(err)
	}
	return c.compute(ctx, q, p, set)
}

// compute carries out a plan on the series that were found for it. Its errors
// have the engine's words.
func (c *computer) compute(ctx context.Context, q *Queryable, p *plan, set *seriesSet) (*collector, annotations.Annotations, error) {
	out := newCollector(c.steps, p.aggregate, len(set.series))
	out.room = c.room
	if err := out.lendAll(ctx, q.loan); err != nil {
		return nil, nil, err
	}
	notes, err := c.addTo(ctx, q, p, set.series, out, nil)
	if err != nil {
		return nil, nil, err
	}
	return out, notes, nil
}

// addTo adds what a plan makes of some series to what it made of others. Digests,
// if there are any, are those of the series.
func (c *computer) addTo(ctx context.Context, q *Queryable, p *plan, list []series, out *collector, digests []digest) (notes annotations.Annotations, err error) {
	// Series of one name remain different without it.
	var seen map[uint64]struct{}
	if p.rangeMs > 0 && slices.ContainsFunc(list, func(s series) bool { return typed(s.labels) }) {
		q.typed.Store(true)
		seen = make(map[uint64]struct{}, len(list))
	}
	team := crew{
		series:  list,
		digests: digests,
		hire:    func() *worker { return c.room.worker().reuse(c.steps, p) },
		dismiss: c.room.keep,
	}
	team.handOver = func(s *series, row []float64, n, samples int) error {
		held := out.points + n
		if p.rangeMs > 0 {
			held += samples // of which the engine holds those of one window
		}
		c.held = max(c.held, held)
		if n == 0 {
			return nil
		}
		ls := s.labels
		if p.rangeMs > 0 {
			if out.points == 0 && p.ofCounters() {
				p.noteName(&notes)
			}
			ls = ls.DropReserved(schema.IsMetadataLabel)
			if seen != nil {
				hash := ls.Hash()
				if _, ok := seen[hash]; ok {
					return errSameLabels
				}
				seen[hash] = struct{}{}
			}
		}
		out.add(ls, row)
		if err := out.lend(ctx, q.loan); err != nil {
			return err
		}
		if out.points += n; out.points > c.maxSamples {
			return promql.ErrTooManySamples("query execution")
		}
		if out.size > c.maxSamples {
			return errUnplanned // steps without results take room here and none there
		}
		return nil
	}
	samples, err := team.run(ctx, c.n)
	if err != nil {
		return nil, engineError(err)
	}
	q.computed.Add(int64(samples))
	return notes, nil
}

// engineError is what the engine makes of the end of a context.
func engineError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return promql.ErrQueryCanceled("expression evaluation")
	case errors.Is(err, context.DeadlineExceeded):
		return promql.ErrQueryTimeout("expression evaluation")
	}
	return err
}

// typed reports whether there are labels beside the name that a rate loses.
func typed(ls labels.Labels) bool {
	return ls.Has(model.MetricTypeLabel) || ls.Has(model.MetricUnitLabel)
}

// noteName adds Prometheus' remark on rates of what is no counter by its name,
// which is that of all series of the plan.
func (p *plan) noteName(notes *annotations.Annotations) {
	for _, m := range p.selector.LabelMatchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != "" && !countersName(m.Value) {
			notes.Add(annotations.NewPossibleNonCounterInfo(m.Value, p.position))
			return
		}
	}
}

// countersName reports that a name ends as those of counters do.
func countersName(name string) bool {
	return slices.ContainsFunc([]string{"_total", "_sum", "_count", "_bucket"}, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}
