package ingest

import (
	"math"
	"sync/atomic"

	"mcached/mcache"
)

// # Compactions
//
// A rule (TS.CREATERULE) makes one series, the destination, of another, the
// source: for each bucket of time one sample, what an aggregator says of the
// samples of the source. It is written when the first sample of a later bucket
// comes. Until then the bucket is open, and its sum is kept with the rule:
//
//	source ─── rules ──▶ compaction ◀── from ─── destination
//	                     │ open bucket: start, sum
//	 sample in order ───▶│ in the bucket: added to the sum
//	                     │ behind it: sum ──▶ destination, a new bucket opens
//	out of order, DEL ──▶│ the bucket is read again from the source
//
// Invariant: of every bucket that began after the rule was made and is closed,
// the destination has what TS.RANGE … AGGREGATION says of the source, as far as
// the source still has all of that bucket. Where it has not, because of its
// RETENTION or because memory was wanted, the destination keeps what it had: an
// out-of-order sample of such a bucket is not counted. For twa, to which the samples
// next to a bucket matter, the buckets next to one are read again, too.
//
// A source is no destination and a destination no source, so there are no chains,
// and locks are taken in one order: the source's, then the destination's. That
// holds where a destination becomes a source, too. Whoever has the old source
// locked may be about to lock the destination of a rule, unless he knows that it has
// ended; and others can end a rule meanwhile only by removing its destination, of
// which no rule is made any more.
//
// Rules are made one at a time. A key that is removed leaves its rules marked as gone,
// which the other side finds when it looks; one that is renamed or relabelled
// takes them along. Samples that come by remote write have no key, and are not
// compacted.
//
// Cost: a key without rules pays one comparison with nil. A sample in order pays
// some 10 ns a rule; one that is not after the last one reads
// its bucket.

// maxRules bounds the rules of one source. In sum they are bounded by the keys,
// as each needs a destination of its own.
const maxRules = 128

// ruleBytes is what a rule takes on the heap, counted as the keys are.
const ruleBytes = 400

// compaction is a rule. What is not constant or atomic is under the source's mu.
type compaction struct {
	source, dest atomic.Pointer[seriesKey] // as they stand in the directory now
	gone         atomic.Bool               // the rule or one of its keys was removed
	agg          aggregation               // of one kind

	open   bool  // a sample has come
	start  int64 // of the open bucket
	sum    bucketSum
	behind bool // the open bucket could not be written, and later samples were left out
}

func (r *compaction) kind() string { return r.agg.kinds[0] }
func (r *compaction) twa() bool    { return r.kind() == "twa" }

// bucketSum is what is known of the samples of a bucket, which come in order.
type bucketSum struct {
	summary
	from, to int64  // the bucket, for twa
	left     *point // the number before the bucket, if known, for twa
	line     line   // through the numbers, from the bucket's beginning if left is known
}

func (r *compaction) sumFrom(start int64, left *point) bucketSum {
	return bucketSum{from: max(start, 0), to: start + r.agg.bucketMs, left: left}
}

func (b *bucketSum) add(t int64, v float64) {
	b.summary.add(v)
	if v != v {
		return
	}
	p := point{t, v}
	if !b.line.some && b.left != nil && t > b.from {
		b.line.to(between(*b.left, p, b.from))
	}
	b.line.to(p)
}

// result is what the aggregator says, if there is something it is about. right is
// the number behind the bucket, if known.
func (b *bucketSum) result(kind string, right *point) (v float64, ok bool) {
	switch {
	case !b.has(kind):
		return 0, false
	case kind != "twa":
		return b.summary.result(kind), true
	}
	l := b.line
	if right != nil && l.last.t < b.to {
		l.to(between(l.last, *right, b.to))
	}
	return l.mean(), true
}

// inBucketLocked reports whether a sample at t, which is in order, closes no bucket.
func (k *seriesKey) inBucketLocked(t int64) bool {
	for _, r := range k.rules {
		if r.behind || !r.open || t >= r.start+r.agg.bucketMs {
			return false
		}
	}
	return true
}

// addToBucketsLocked is for a sample of which inBucketLocked holds.
func (k *seriesKey) addToBucketsLocked(t int64, v float64) {
	for _, r := range k.rules {
		r.sum.add(t, v)
	}
}

// compactLocked has the rules of k follow a sample that was written: in order, or
// not, as there was one of its time, or a younger one. k is locked.
func (c *conn) compactLocked(k *seriesKey, t int64, v float64, outOfOrder bool) {
	for _, r := range k.liveRulesLocked() {
		switch {
		case r.behind:
			if !c.replayLocked(k, r, r.start) { // its bucket is lost
				r.open, r.behind = false, false
				c.followLocked(r, t, v)
			}
		case !outOfOrder:
			c.followLocked(r, t, v)
		default:
			c.mendLocked(k, r, t)
		}
	}
}

// liveRulesLocked are the rules of k, without those whose destination has gone.
func (k *seriesKey) liveRulesLocked() []*compaction {
	live := k.rules[:0]
	for _, r := range k.rules {
		if !r.gone.Load() {
			live = append(live, r)
		}
	}
	clear(k.rules[len(live):])
	if k.rules = live; len(live) == 0 {
		k.rules = nil
	}
	return live
}

// followLocked takes the next sample in order of time.
func (c *conn) followLocked(r *compaction, t int64, v float64) {
	if v != v && r.twa() {
		return // NaN is nothing on a line, and does not end it
	}
	switch start := r.agg.start(t); {
	case !r.open:
		r.open, r.start, r.sum = true, start, r.sumFrom(start, nil)
	case start > r.start:
		var left *point
		if r.sum.line.some {
			left = &point{r.sum.line.last.t, r.sum.line.last.v}
		}
		if result, ok := r.sum.result(r.kind(), &point{t, v}); ok && !c.writeCompacted(r, r.start, result) {
			r.behind = true
			return
		}
		r.start, r.sum = start, r.sumFrom(start, left)
	}
	r.sum.add(t, v)
}

// writeCompacted writes the result of a bucket. It reports false if it could not be
// and is to be tried again.
func (c *conn) writeCompacted(r *compaction, start int64, v float64) bool {
	dest := c.lockDestination(r)
	if dest == nil {
		return true
	}
	defer dest.mu.Unlock()
	_, problem := c.addLocked(dest, max(start, 0), v, policyLast)
	c.noteCompacted(dest)
	return problem == "" || problem == errRetention
}

// lockDestination locks a rule's destination, or returns nil if it has gone. It locks
// nothing of a rule that is known to have ended: the key may be a source by now.
func (c *conn) lockDestination(r *compaction) *seriesKey {
	if r.gone.Load() {
		return nil
	}
	dest := r.dest.Load().lock()
	if !r.gone.Load() && !c.srv.series.expired(dest) {
		return dest
	}
	dest.mu.Unlock()
	c.srv.series.detach(r)
	return nil
}

// noteCompacted notes a key that was written for those who watch or track it, who
// are told when no key is locked any more.
func (c *conn) noteCompacted(dest *seriesKey) {
	if c.srv.watchers.some.Load() || c.srv.tracking.some.Load() > 0 {
		c.compacted = append(c.compacted, []byte(dest.name))
	}
}

// tellCompacted tells of the keys that were noted. None is locked.
func (c *conn) tellCompacted() {
	if len(c.compacted) > 0 {
		c.srv.wroteKeys(0, c.compacted)
		c.compacted = nil
	}
}

// mendLocked brings a rule up to date about an out-of-order sample at t.
func (c *conn) mendLocked(k *seriesKey, r *compaction, t int64) {
	openFrom := r.start
	if !r.open {
		last, _, ok := c.srv.series.lastLocked(k, c.nowMs())
		if !ok {
			return
		}
		openFrom = r.agg.start(last)
	}
	start := r.agg.start(t)
	if start < openFrom {
		c.recomputeLocked(k, r, start)
	} else {
		c.replayLocked(k, r, openFrom)
	}
	if r.twa() {
		c.mendNextLocked(k, r, start, start+r.agg.bucketMs, openFrom)
	}
}

// mendNextLocked reads the buckets again to whose lines the ends changed when
// something between from and to did.
func (c *conn) mendNextLocked(k *seriesKey, r *compaction, from, to, openFrom int64) {
	if p := c.srv.series.numberBeforeLocked(k, from, r.agg.bucketMs); p != nil && r.agg.start(p.t) < openFrom {
		c.recomputeLocked(k, r, r.agg.start(p.t))
	}
	if to > openFrom {
		return
	}
	switch p := c.srv.series.numberAfterLocked(k, to, r.agg.bucketMs); {
	case p == nil:
	case r.agg.start(p.t) < openFrom:
		c.recomputeLocked(k, r, r.agg.start(p.t))
	default:
		c.replayLocked(k, r, openFrom)
	}
}

// recomputeLocked reads a bucket that is closed from the source, and writes what is
// to be said of it to the destination.
func (c *conn) recomputeLocked(k *seriesKey, r *compaction, start int64) {
	d := c.srv.series
	var left, right *point
	if r.twa() {
		left, right = d.numberBeforeLocked(k, start, r.agg.bucketMs), d.numberAfterLocked(k, start+r.agg.bucketMs, r.agg.bucketMs)
	}
	b := r.sumFrom(start, left)
	if !d.eachLocked(k, b.from, b.to-1, func(t int64, v float64) bool { b.add(t, v); return true }) {
		return
	}
	if v, ok := b.result(r.kind(), right); ok {
		c.writeCompacted(r, start, v)
		return
	}
	c.cutCompacted(r, b.from, b.from)
}

// cutCompacted removes results.
func (c *conn) cutCompacted(r *compaction, from, to int64) {
	if dest := c.lockDestination(r); dest != nil {
		defer dest.mu.Unlock()
		// Without memory to write what stays of a block it keeps a result too many.
		_, _ = c.srv.series.cutLocked(dest, from, to, c.nowMs())
		c.noteCompacted(dest)
	}
}

// replayLocked has a rule follow again what the source has from the bucket on that
// begins at start. It does nothing and reports false if the source is known not to
// have all of that.
func (c *conn) replayLocked(k *seriesKey, r *compaction, start int64) bool {
	d := c.srv.series
	var left *point
	if r.twa() {
		left = d.numberBeforeLocked(k, start, r.agg.bucketMs)
	}
	begun := false
	begin := func() {
		if !begun {
			begun, r.open, r.behind, r.start, r.sum = true, true, false, start, r.sumFrom(start, left)
		}
	}
	whole := d.eachLocked(k, max(start, 0), mcache.MaxTime, func(t int64, v float64) bool {
		begin()
		c.followLocked(r, t, v)
		return !r.behind
	})
	if whole {
		begin()
	}
	return whole
}

// cutSourceLocked brings the rules of k up to date about samples from from to to,
// which were removed.
func (c *conn) cutSourceLocked(k *seriesKey, from, to int64) {
	from, to = max(from, 0), min(to, mcache.MaxTime)
	for _, r := range k.liveRulesLocked() {
		if !r.open {
			continue
		}
		width, openFrom := r.agg.bucketMs, r.start
		if first := r.agg.start(from); first < openFrom {
			last := min(r.agg.start(to), openFrom-width)
			c.recomputeLocked(k, r, first)
			if last > first {
				if last > first+width {
					c.cutCompacted(r, first+width, last-1)
				}
				c.recomputeLocked(k, r, last)
			}
			if r.twa() {
				c.mendNextLocked(k, r, first, last+width, openFrom)
			}
		}
		if to >= openFrom {
			c.reopenLocked(k, r)
		}
	}
}

// reopenLocked finds the bucket that is open after the youngest samples were removed:
// the last that has any, which may have been closed.
func (c *conn) reopenLocked(k *seriesKey, r *compaction) {
	var last *point
	if r.twa() {
		last = c.srv.series.numberBeforeLocked(k, math.MaxInt64, r.agg.bucketMs)
	} else if t, v, ok := c.srv.series.lastLocked(k, c.nowMs()); ok {
		last = &point{t, v}
	}
	if last == nil {
		r.open = false
		return
	}
	start, was := r.agg.start(last.t), r.start
	switch {
	case !c.replayLocked(k, r, start):
		r.open = false
	case start < was:
		c.cutCompacted(r, max(start, 0), max(start, 0))
	}
	if r.open && r.twa() {
		c.mendNextLocked(k, r, start, start+r.agg.bucketMs, start)
	}
}

// latest is what LATEST adds to a destination: the result of the bucket that is open.
func (c *conn) latest(k *seriesKey) (p point, ok bool) {
	if k.read != nil { // of all nodes; only this one's own buckets are known here
		if k, ok = c.srv.series.entry([]byte(k.name)); !ok {
			return p, false
		}
	}
	k = k.lock()
	r := k.from
	k.mu.Unlock()
	if r == nil || r.gone.Load() {
		return p, false
	}
	source := r.source.Load().lock()
	defer source.mu.Unlock()
	if r.gone.Load() || !r.open || c.srv.series.expired(source) {
		return p, false
	}
	p.t = max(r.start, 0)
	p.v, ok = r.sum.result(r.kind(), nil)
	return p, ok
}

// eachLocked is each for a key that is locked. It reports false, and calls nothing, if
// the series is known not to have all of that time any more.
func (d *directory) eachLocked(k *seriesKey, from, to int64, f func(t int64, v float64) bool) (whole bool) {
	var s mcache.Snapshot
	if !d.locate(k) || from > to || !d.cache.Snapshot(k.id, from, to, &s) {
		return true
	}
	if max(s.CompleteFrom(), d.cache.CompleteFrom(k.id)) > from {
		return false
	}
	eachSample(&s, f)
	return true
}

// numberBeforeLocked is the last number before t, nil if there is none that is known.
// stepMs is how far it may be as a rule.
func (d *directory) numberBeforeLocked(k *seriesKey, t, stepMs int64) *point {
	for _, from := range [...]int64{t - 4*min(stepMs, math.MaxInt64/8), -mcache.MaxTime} {
		var found *point
		d.eachOfLocked(k, from, t-1, func(t int64, v float64) bool {
			if v == v {
				found = &point{t, v}
			}
			return true
		})
		if found != nil {
			return found
		}
	}
	return nil
}

// numberAfterLocked is the first number at t or later.
func (d *directory) numberAfterLocked(k *seriesKey, t, stepMs int64) *point {
	for _, to := range [...]int64{t + 4*min(stepMs, math.MaxInt64/8), mcache.MaxTime} {
		var found *point
		d.eachOfLocked(k, t, to, func(t int64, v float64) bool {
			if v == v {
				found = &point{t, v}
			}
			return found == nil
		})
		if found != nil {
			return found
		}
	}
	return nil
}

// eachOfLocked calls f for what there is.
func (d *directory) eachOfLocked(k *seriesKey, from, to int64, f func(t int64, v float64) bool) {
	var s mcache.Snapshot
	if !d.locate(k) || from > to || !d.cache.Snapshot(k.id, max(from, -mcache.MaxTime), min(to, mcache.MaxTime), &s) {
		return
	}
	eachSample(&s, f)
}

// detach ends a rule.
func (d *directory) detach(r *compaction) {
	if r.gone.CompareAndSwap(false, true) {
		d.mu.Lock()
		d.bytes -= ruleBytes
		d.mu.Unlock()
	}
}

// leaveRulesLocked ends the rules of a key that is removed. k.mu is held, d.mu is not.
func (d *directory) leaveRulesLocked(k *seriesKey) {
	for _, r := range k.rules {
		d.detach(r)
	}
	if k.from != nil {
		d.detach(k.from)
	}
	k.rules, k.from = nil, nil
}

// takeRulesLocked gives n the rules of k, which becomes n. Both are locked.
func (n *seriesKey) takeRulesLocked(k *seriesKey) {
	n.rules, n.from = k.rules, k.from
	for _, r := range n.rules {
		r.source.Store(n)
	}
	if n.from != nil {
		n.from.dest.Store(n)
	}
	k.rules, k.from = nil, nil
}
