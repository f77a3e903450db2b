package query

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"mcached/mcache"
)

// Results: what aggregations over many samples came to is kept, so that whoever
// looks at a dashboard again, or at a minute more of it, has computed what is new.
//
//	remembered  a ├───────────────────────────────┬ ─ ─ ┤   steps of a grid; groups and their values
//	changed since                                 ├──────▶  the time of the earliest write since
//	query             ├───────────────────────────┼──────┤
//	                        recalled              computed, and remembered with all before
//
// A step looks at nothing behind itself. So of what was remembered those steps are
// still right that look at nothing as late as the earliest point that was written
// or deleted since, whichever series of the bucket it is of: mcache.Cache.ChangedSince tells.
// Senders write what is of now, so that this is the last minute of it; after a
// write of an hour ago the last hour is computed again. What is answered is to the
// last bit what computing it would have been. What was evicted since is still part
// of it, and what had been evicted then is told of again. Of which times the bucket has
// all is asked anew: gaps open, move and close without a point that changes.
//
// A series with a retention hides points as it gets others. Nothing is remembered of
// what such a series is part of. Of what is remembered none was, as a retention that is
// set changes all: what it has of later is a change from its first point on.
//
// Only plans that aggregate are remembered, of one bucket of this daemon's own
// cache, and which read many more samples than their results have values. The
// key is a SHA-256 of what results depend on: the bucket, the plan, the step and
// the phase of its grid, the lookback; and a number that each results draws anew.
//
// Groups of a part stand in another order than those of the whole, which stand by
// their first series that has a result. Where the order is more than how an
// answer is sorted (plan.ordered), the range is a part of the key, and it is all or
// nothing.
//
// Cost of a hit: a hash, a lookup in the memory, the lock of each shard, and a copy of
// the values. Of BenchmarkResults, a day of 80 series in four groups, all but a tenth
// is then JSON: 1.4 ms of processor time, where computing takes 5.
type results struct {
	memory     Remembers
	salt       [16]byte
	minSamples int       // minResultSamples
	blobs      sync.Pool // *[]byte, for what is recalled

	recalled, extended, computed atomic.Uint64 // plans
}

func newResults(m Remembers) *results {
	if m == nil {
		return nil
	}
	r := &results{memory: m, minSamples: minResultSamples}
	_, _ = rand.Read(r.salt[:]) // it never fails
	return r
}

// resultsFor are those that a request may have, which Cache-Control: no-store declines.
func (a *API) resultsFor(r *http.Request) *results {
	if asksAnew(r) {
		return nil
	}
	return a.results
}

// asksAnew reports that a request is to have nothing that is remembered.
func asksAnew(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Cache-Control"), "no-store")
}

// changing is a Source that says since when it has changed, see
// mcache.Cache.ChangedSince, and what of a selection never came.
type changing interface {
	ChangedSince(bucket string, since mcache.Stamp) (from int64, now mcache.Stamp)
	uncovered(*Selection) int64
}

const (
	// minResultSamples is how many samples a plan reads at least, and
	// minSamplesPerValue how many for each value, to be remembered: it must take
	// longer to compute than to remember.
	minResultSamples   = 4 << 10
	minSamplesPerValue = 2
	// maxResultBytes bounds the values that are remembered of one plan.
	maxResultBytes = 1 << 20
	// maxHeldShare is what the bound on the samples of a query is divided by for
	// what a plan may have held that is remembered. What is recalled counts for
	// as many as all of it held, so that nothing passes that should not.
	maxHeldShare = 8
)

// work is what is remembered: an expression that aggregates.
type work struct {
	expr    parser.Expr
	plans   []*plan // that read for it
	ordered bool    // steps depend on the range: see plan.ordered
	compute func(context.Context, *computer, *Queryable) ([]computedRow, annotations.Annotations, error)
}

// offset is by how much the samples of a step are older than it, at least, in ms.
func (w *work) offset() (ms int64) {
	ms = math.MaxInt64
	for _, p := range w.plans {
		ms = min(ms, p.offsetMs())
	}
	return ms
}

// note tells q of what the samples of all steps lack, of which so much had gone.
func (w *work) note(q *Queryable, c *computer, source changing, gone int64) {
	for _, p := range w.plans {
		at := c.hintsOf(p)
		q.note(at.Start, Missing{gone, source.uncovered(&Selection{Bucket: q.bucket, From: at.Start, To: at.End})})
	}
}

// of is the source of a query whose results may be remembered, or nil.
func (m *results) of(q *Queryable, c *computer) changing {
	if m == nil || c.n < 2 {
		return nil
	}
	source, _ := q.source.(changing)
	return source
}

// carryOut computes the rows of work, as far as they are not remembered.
func (m *results) carryOut(ctx context.Context, q *Queryable, c *computer, source changing, w *work) ([]computedRow, annotations.Annotations, error) {
	key := m.key(q, c, w)
	blob, _ := m.blobs.Get().(*[]byte)
	if blob == nil {
		blob = new([]byte)
	}
	was := m.recall(key, blob)
	changed, now := source.ChangedSince(q.bucket, was.stamp)
	first, known := was.covers(c.steps, changed, w.offset())
	if known == 0 || w.ordered && known < c.n || q.o.MaxSeries > 0 && was.most > q.o.MaxSeries {
		was, first, known = packedOutcome{}, 0, 0
		was.start, was.gone = c.start, math.MinInt64
	}
	// Of what is before the query as much is kept as there is room for.
	from := 0
	if (first+c.n)*was.groups > maxResultBytes/8 {
		from = first
	}
	is, err := was.unpack(ctx, q.loan, from, first+known, first+c.n, c.interval)
	if poison(*blob); cap(*blob) <= maxResultBytes/4 {
		m.blobs.Put(blob)
	}
	if err != nil {
		return nil, nil, engineError(err)
	}
	first -= from
	w.note(q, c, source, is.gone)
	if is.empty && known == c.n {
		q.empty.Store(true)
	}
	var notes annotations.Annotations
	if known < c.n {
		rest := *c
		rest.start, rest.n, rest.held = c.start+int64(known)*c.interval, c.n-known, 0
		part := q.apart()
		rows, ofRest, err := w.compute(ctx, &rest, part)
		// Whether typed series are the same without these labels, which is an error, is
		// seen where all of them are.
		typed := part.typed.Load()
		if typed && known > 0 {
			whole := q.apart()
			rows, notes, err = w.compute(ctx, c, whole)
			q.join(whole)
			return rows, notes, err
		}
		q.join(part)
		if err != nil {
			return nil, nil, err
		}
		notes = ofRest
		is.stamp, is.held = now, is.held+rest.held
		is.gone = max(is.gone, part.gone.Load())
		is.most, is.empty = int(part.most.Load()), part.empty.Load() // whatever the time
		if err := is.add(ctx, q.loan, rows, first+known); err != nil {
			return nil, nil, engineError(err)
		}
		fits := 8*is.values() <= maxResultBytes && is.held <= c.maxSamples/maxHeldShare
		switch {
		case typed, part.retained.Load(), known == 0 && !is.worth(int(part.computed.Load()), m.minSamples):
		case fits:
			_ = m.memory.Put(key, is.pack(), rememberFor) // else there was no room
		case known > 0: // it begins anew: less and less of what was would be of use
			_ = m.memory.Put(key, new(outcome).pack(), rememberFor)
		}
	}
	m.count(known, c.n)
	if c.held = max(c.held, is.held); c.held > c.maxSamples {
		return nil, nil, errUnplanned
	}
	rows := is.shown(first)
	if len(rows) > 0 {
		for _, p := range w.plans {
			if p.ofCounters() {
				p.noteName(&notes)
			}
		}
	}
	return rows, notes, nil
}

func (m *results) count(known, steps int) {
	switch known {
	case 0:
		m.computed.Add(1)
	case steps:
		m.recalled.Add(1)
	default:
		m.extended.Add(1)
	}
}

// apart is one to read for q, and to remember nothing of that.
func (q *Queryable) apart() *Queryable {
	part := NewQueryable(q.source, q.bucket, q.o)
	part.loan, part.byLabels = q.loan, q.byLabels
	return part
}

// join takes over what q is to know of what was read for it by another.
func (q *Queryable) join(part *Queryable) {
	raise(&q.completeFrom, part.completeFrom.Load())
	raise(&q.gone, part.gone.Load())
	raise(&q.most, part.most.Load())
	raise(&q.uncovered, part.uncovered.Load())
	q.selected.Add(part.selected.Load())
	q.computed.Add(part.computed.Load())
	if part.empty.Load() {
		q.empty.Store(true)
	}
	q.warn(part.warnings())
}

// key is that of what work came to.
func (m *results) key(q *Queryable, c *computer, w *work) []byte {
	b := append(make([]byte, 0, 512), m.salt[:]...)
	b = appendSized(appendSized(b, q.bucket), w.expr.String())
	parts := []int64{c.lookback, c.interval, c.start - floorDiv(c.start, c.interval)*c.interval, 0, 0, 0}
	if q.byLabels {
		parts[3] = 1
	}
	if w.ordered {
		parts[4], parts[5] = c.start, int64(c.n)
	}
	for _, n := range parts {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// outcome is what work came to, at steps from start on.
type outcome struct {
	stamp mcache.Stamp // before it was read
	start int64        // unix ms
	steps int
	held  int           // samples, as computer.held
	gone  int64         // as Queryable.gone, and the next two
	most  int           // series
	empty bool          // a selector matched none
	rows  []computedRow // of all steps
}

// packedOutcome is one as a blob:
//
//	stamp (8) | start (8) | steps (4) | held (8) | gone (8) | most (4) | empty (1) |
//	groups (4) | of each its labels: count, then length and text of each name and
//	value | of each its values, as floats (8 each)
//
// Counts and lengths of labels are uvarints. The body begins with the labels.
type packedOutcome struct {
	outcome // without rows
	groups  int
	body    []byte
}

const resultHeader = 8 + 8 + 4 + 8 + 8 + 4 + 1 + 4

// worth reports that a result of so many samples should be remembered.
func (r *outcome) worth(samples, least int) bool {
	return samples >= least && samples >= minSamplesPerValue*r.values()
}

func (r *outcome) values() int { return len(r.rows) * r.steps }

// pack makes a blob of it.
func (r *outcome) pack() []byte {
	b := make([]byte, 0, resultHeader+len(r.rows)*(128+8*r.steps))
	for _, n := range []int64{int64(r.stamp), r.start} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(r.steps))
	for _, n := range []int64{int64(r.held), r.gone} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(r.most))
	empty := byte(0)
	if r.empty {
		empty = 1
	}
	b = binary.LittleEndian.AppendUint32(append(b, empty), uint32(len(r.rows)))
	for i := range r.rows {
		ls := r.rows[i].labels
		b = binary.AppendUvarint(b, uint64(ls.Len()))
		ls.Range(func(l labels.Label) { b = appendSized(appendSized(b, l.Name), l.Value) })
	}
	for i := range r.rows {
		for _, v := range r.rows[i].values {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return b
}

// recall is what is remembered under a key, a view of blob, which it is read to:
// no groups if that is nothing.
func (m *results) recall(key []byte, blob *[]byte) (r packedOutcome) {
	b, ok := m.memory.Get((*blob)[:0], key)
	if *blob = b; !ok {
		return packedOutcome{}
	}
	u64 := func(at int) int64 { return int64(binary.LittleEndian.Uint64(b[at:])) }
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }
	r.stamp, r.start, r.steps, r.held = mcache.Stamp(u64(0)), u64(8), u32(16), int(u64(20))
	r.gone, r.most, r.empty = u64(28), u32(36), b[40] == 1
	r.groups, r.body = u32(41), b[resultHeader:]
	return r
}

// covers says with which of its steps a query begins, and how many from there on
// still hold if there were changes from a time on; 0 if the query does not begin
// with one of them.
func (r *packedOutcome) covers(s steps, changed, offset int64) (first, known int) {
	if r.groups == 0 || s.start < r.start {
		return 0, 0
	}
	end := int64(r.steps)
	switch last := r.start + (end-1)*s.interval - offset; {
	case changed <= r.start-offset:
		return 0, 0
	case changed <= last:
		end = (changed - (r.start - offset) + s.interval - 1) / s.interval
	}
	at := (s.start - r.start) / s.interval
	if at >= end {
		return 0, 0
	}
	return int(at), int(min(end-at, int64(s.n)))
}

// unpack makes rows of its steps from from to known, with room up to a last one.
func (r *packedOutcome) unpack(ctx context.Context, l Loan, from, known, to int, interval int64) (*outcome, error) {
	is := r.outcome
	is.start, is.steps = r.start+int64(from)*interval, to-from
	if err := is.take(ctx, l, len(r.body), r.groups); err != nil {
		return nil, err
	}
	text := textReader{r.body, nil}
	builder := labels.NewScratchBuilder(8)
	is.rows = make([]computedRow, r.groups)
	for i := range is.rows {
		builder.Reset()
		for range text.count(len(text.b)) {
			name := string(text.text())
			builder.Add(name, string(text.text()))
		}
		is.rows[i] = computedRow{labels: builder.Labels(), values: make([]float64, is.steps)}
	}
	for i := range is.rows {
		values, b := is.rows[i].values, text.b[8*(i*r.steps+from):]
		for k := range values[:known-from] {
			values[k] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*k:]))
		}
		for k := known - from; k < len(values); k++ {
			values[k] = none
		}
	}
	return &is, nil
}

// take takes from a loan what so many rows need, beside some bytes.
func (r *outcome) take(ctx context.Context, l Loan, bytes, rows int) error {
	if l == nil {
		return nil
	}
	return l.Take(ctx, int64(bytes)+product(int64(rows), 8*int64(r.steps)))
}

// add adds rows of the last steps, from one on.
func (r *outcome) add(ctx context.Context, l Loan, rows []computedRow, from int) error {
	if len(r.rows) == 0 && from == 0 {
		r.rows = rows
		return nil
	}
	places := make(map[uint64]int, len(r.rows))
	for i := range r.rows {
		places[r.rows[i].labels.Hash()] = i
	}
	for _, row := range rows {
		i, ok := places[row.labels.Hash()]
		if !ok {
			if err := r.take(ctx, l, 0, 1); err != nil {
				return err
			}
			i = len(r.rows)
			r.rows = append(r.rows, computedRow{labels: row.labels, values: slices.Repeat([]float64{none}, r.steps)})
		}
		copy(r.rows[i].values[from:], row.values)
	}
	return nil
}

// shown are the rows of the last steps, from one on, that have a result there.
func (r *outcome) shown(from int) []computedRow {
	rows := make([]computedRow, 0, len(r.rows))
	for _, row := range r.rows {
		row.values = row.values[from:]
		if slices.ContainsFunc(row.values, func(v float64) bool { return !isNone(v) }) {
			rows = append(rows, row)
		}
	}
	return rows
}
