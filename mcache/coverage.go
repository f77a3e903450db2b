package mcache

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Coverage says of which times a bucket has all that was written to it, or
// says what it has lost (Snapshot.CompleteFrom, GoneUntil). It is a short list of
// intervals for each bucket:
//
//	saved          crash   start  first write                      now
//	  ┌──────────────┐                 ┌───────────────────────────────
//	  │   covered    │      gap        │            covered
//	──┴──────────────┴─────────────────┴───────────────────────────────
//
// An interval begins with the first write to a bucket since it was made, or was
// loaded; until the bucket is written again after a load the gap is open. What
// was before the first interval is not known: a daemon that starts without a
// snapshot does not know what another had.
//
// Times of intervals are those at which points arrived. A point that carries a
// time at or after the beginning of an interval arrived after it, hence it is
// here; the first write also carries points whose predecessors went past.
//
// That takes a sender's clock for ours. One that is ahead by d had sent points of
// up to d after the beginning, before it: they went past. So an interval begins
// later by the most that the first write of any series since was ahead of the clock,
// which is d or, if the write was long on its way, less by no more than a step. Beyond
// maxClockMs it is no clock that is wrong: remote write refuses such samples, unless
// it is told otherwise, and whoever writes forecasts has not lost them.
//
// Where a snapshot ends an interval, points of its last moments were on their
// way: closeLagMs are left out. Points of a sender whose clock is behind are on their
// way for longer: what the first write of any series was behind the clock, if that is
// more, is left out as well. So is what a sender is behind that catches up, since
// nothing tells the two apart. Beyond maxClockMs it is old data, which somebody fills in.
//
// A bucket to which nothing was written for longer than silentMs, by anybody but the
// program itself, has a gap from then on: its sender was down, or could not
// reach this one. Maintain notes it.
//
// # Gaps that close
//
// An orderly stop loses nothing that was acknowledged, and senders of remote
// write deliver later what they could not deliver: where they do, there is no
// gap. Each series tells: at its first write after a load it goes on at the
// distance of its step, or it skips some. If all but one in a hundred go on, the
// gap is taken away, and those that skip are marked as incomplete, each by
// itself. After a crash the points between the snapshot and the crash are skipped by all.
//
// Options.Now is what makes a cache know of all this. Without it nothing is
// claimed, and nothing denied.

// Interval is a range of time in unix ms, both ends included. To is MaxTime
// while the interval is being written to.
type Interval struct{ From, To int64 }

const (
	// maxIntervals of a bucket. Beyond them the oldest are forgotten: what was
	// covered then is not known to be.
	maxIntervals = 64
	// closeLagMs is how long a sample may take from its time to its arrival: a
	// scrape interval of 15 s, the 5 s that a sender collects a batch for, and time to retry.
	closeLagMs = 60_000
	// resumeMs is how long the first writes of series are watched, from the
	// first one on, before they say whether the gap is one.
	resumeMs = 120_000
	// giveUpMs after the first write nobody is watched any more: a gap of which no
	// series tells anything stays one.
	giveUpMs = 3_600_000
	// silentMs is how long nothing may come before that is a gap: what PromQL looks
	// back by default, so that steps within a shorter silence show nothing that
	// was not there.
	silentMs = 300_000
	// maxClockMs is how far ahead a clock may be, as remotewrite.Options.MaxAhead is by
	// default, and how far behind.
	maxClockMs = 600_000
	// A gap is none if at most one in skipShare of the series skips a part of it,
	// and maxSkipped in all.
	skipShare  = 100
	maxSkipped = 4096
)

// coverage is the intervals of one bucket.
type coverage struct {
	open     atomic.Bool   // the last interval is being written to
	others   atomic.Bool   // by others than the program itself
	local    atomic.Uint64 // points that it wrote itself
	watching atomic.Bool   // the gap before it may be none
	// aheadMs is the most that a first write of a series was ahead of the clock,
	// since the interval before was ended. It grows with mu locked.
	aheadMs atomic.Int64
	// behindMs is the most that one was behind it, more than closeLagMs, since then.
	behindMs atomic.Int64

	mu      sync.Mutex
	list    []Interval // in order, disjoint
	beganMs int64      // when the first write came of the open one
	// loaded is what a snapshot said that is being loaded.
	loaded []Interval

	// Of the others' writes, when Maintain looked last:
	seen     uint64 // points
	seenAtMs int64  // when there were more than before

	// While watching:
	sinceMs       int64 // of the first series that was seen to go on, or to skip; 0 for none yet
	same, skipped int
	newestSame    int64 // last time of a series that went on
	marks         []skippedSeries
}

// skippedSeries is a series that lacks something before from.
type skippedSeries struct {
	id   SeriesID
	from int64
}

// begin opens an interval, as the bucket is written for the first time.
func (v *coverage) begin(nowMs int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open.Load() {
		return
	}
	// The clock may have been set back: no interval is in the future.
	v.list = append(endBefore(v.list, nowMs), Interval{nowMs + v.aheadMs.Load(), MaxTime})
	v.beganMs = nowMs
	v.bound()
	v.open.Store(true)
}

// firstOf notes that the first write of a series, at nowMs, begins at the time t.
func (v *coverage) firstOf(t, nowMs int64) {
	if ahead, behind := v.apart(t, nowMs); ahead || behind {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.firstOfLocked(t, nowMs)
	}
}

// apart reports whether t is further ahead of the clock, or behind it, than any before.
func (v *coverage) apart(t, nowMs int64) (ahead, behind bool) {
	d := t - nowMs
	return d > v.aheadMs.Load() && d <= maxClockMs, -d > max(v.behindMs.Load(), closeLagMs) && -d <= maxClockMs
}

func (v *coverage) firstOfLocked(t, nowMs int64) {
	ahead, behind := v.apart(t, nowMs)
	if behind {
		v.behindMs.Store(nowMs - t)
	}
	if !ahead {
		return
	}
	v.aheadMs.Store(t - nowMs)
	if !v.open.Load() {
		return
	}
	// One that was joined with those before has begun with the first of them.
	if last := &v.list[len(v.list)-1]; last.From >= v.beganMs {
		last.From = max(last.From, v.beganMs+t-nowMs)
	}
}

// lagLocked is how long points may be on their way.
func (v *coverage) lagLocked() int64 { return closeLagMs + v.behindMs.Load() }

// endBefore cuts what is at or after the time t off.
func endBefore(list []Interval, t int64) []Interval {
	for n := len(list); n > 0 && list[n-1].To >= t; n = len(list) {
		if list[n-1].From < t-closeLagMs {
			list[n-1].To = t - closeLagMs
			break
		}
		list = list[:n-1]
	}
	return list
}

func (v *coverage) bound() {
	if n := len(v.list) - maxIntervals; n > 0 {
		v.list = slices.Delete(v.list, 0, n)
	}
}

// arrivedLocal notes that n points were written to b by the program itself.
func (c *Cache) arrivedLocal(b *bucket, n int) {
	if c.now == nil {
		return
	}
	v := &b.cover
	if v.local.Add(uint64(n)); !v.open.Load() && !v.others.Load() {
		v.begin(c.now())
	}
}

// arrived notes that points were written to b by somebody else.
func (c *Cache) arrived(b *bucket) {
	if c.now == nil {
		return
	}
	v := &b.cover
	if !v.others.Load() && !v.others.Swap(true) {
		v.forgetLocal()
	}
	if !v.open.Load() {
		v.begin(c.now())
	}
}

// forgetLocal closes an interval that only the program itself has written to:
// it says nothing of what others had to write then.
func (v *coverage) forgetLocal() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open.Load() {
		v.list = v.list[:len(v.list)-1]
		v.open.Store(false)
	}
}

// noteSilence ends the interval of a bucket to which nobody writes any more.
func (c *Cache) noteSilence(b *bucket) {
	if !b.cover.fellSilent(b.inserts.Load()-b.cover.local.Load(), c.now()) {
		return
	}
	// What each series writes next tells whether its sender has caught up.
	for _, s := range c.shards {
		s.mu.Lock()
		for id := range s.recs.Len() {
			if r := s.recs.At(uint32(id)); r.flags&flagInUse != 0 && r.flags&(flagRaw|flagShadow) == 0 && r.bucket == b.id {
				r.flags |= flagLoaded
			}
		}
		s.mu.Unlock()
	}
}

// fellSilent reports that there are no more points than before, for too long.
func (v *coverage) fellSilent(points uint64, nowMs int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if points != v.seen || v.seenAtMs == 0 || nowMs < v.seenAtMs { // or the clock was set back
		v.seen, v.seenAtMs = points, nowMs
		return false
	}
	if !v.open.Load() || !v.others.Load() || nowMs-v.seenAtMs < silentMs {
		return false
	}
	last := &v.list[len(v.list)-1]
	if last.To = v.seenAtMs - v.lagLocked(); last.To < last.From {
		v.list = v.list[:len(v.list)-1]
	}
	v.open.Store(false)
	v.aheadMs.Store(0)
	v.behindMs.Store(0)
	v.watchLocked()
	return true
}

// CoveredFrom reports false if all that was written to the bucket with times
// from from to to, in unix ms and inclusive, is here or is said to be missing otherwise. Else it
// returns the time from which on that holds.
func (c *Cache) CoveredFrom(bucket string, from, to int64) (complete int64, ok bool) {
	if c.now == nil || from > to {
		return 0, false
	}
	b := c.findBucket(bucket)
	if b == nil {
		if now := c.now(); from < now {
			return now, true // nothing has come yet
		}
		return 0, false
	}
	v := &b.cover
	v.mu.Lock()
	defer v.mu.Unlock()
	next := int64(MaxTime) // where the gap ends that is before next
	if n := len(v.list); n == 0 || v.list[n-1].To != MaxTime {
		next = c.now() // nothing is known of what has not been written yet
	}
	for i := len(v.list) - 1; i >= 0; i-- {
		x := v.list[i]
		if x.To < to && next-1 > x.To && next > from {
			return next, true
		}
		if from >= x.From {
			return 0, false
		}
		next = x.From
	}
	if next > from {
		return next, true
	}
	return 0, false
}

// Coverage lists the intervals of a bucket.
func (c *Cache) Coverage(bucket string) []Interval {
	b := c.findBucket(bucket)
	if b == nil {
		return nil
	}
	return b.cover.intervals()
}

func (v *coverage) intervals() []Interval {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.list)
}

// noteResumedLocked looks at the series of a batch that are about to be written
// for the first time since a load: whether each goes on where it was, or skips
// something. The shard is locked, and found is as findAllLocked left it.
func (s *shard) noteResumedLocked(bk *bucket, b *Batch, places []batchPlace) {
	v := &bk.cover
	v.mu.Lock()
	defer v.mu.Unlock()
	seen, nowMs := v.same+v.skipped, s.cache.now()
	for k := range places {
		id := s.found[k]
		if id == noID {
			continue
		}
		r := s.recs.At(id)
		if r.flags&flagLoaded == 0 {
			continue
		}
		r.flags &^= flagLoaded
		last := s.lastTimeLocked(r)
		if r.step == 0 || last == notGone {
			continue
		}
		what := b.of(int(places[k].series))
		t, ok := what.first()
		if !ok {
			continue
		}
		v.firstOfLocked(t, nowMs)
		// One and a half steps are one step with a delay.
		if distance := t - last; distance <= int64(r.step)+int64(r.step)/2 {
			v.same++
			v.newestSame = max(v.newestSame, last)
			continue
		}
		if v.skipped++; v.skipped <= maxSkipped {
			v.marks = append(v.marks, skippedSeries{s.seriesIDLocked(id), t})
		}
	}
	if seen == 0 && v.same+v.skipped > 0 {
		v.sinceMs = nowMs
	}
}

// closeGaps takes away the gaps that turned out to be none, and notes new ones.
func (c *Cache) closeGaps() {
	if c.now == nil {
		return
	}
	for _, b := range *c.byName.Load() {
		c.noteSilence(b)
		if b.cover.watching.Load() {
			for _, x := range b.cover.judge(c.now()) {
				c.markIncomplete(x.id, x.from)
			}
		}
	}
}

// markIncomplete notes that a series lacks something before from.
func (c *Cache) markIncomplete(id SeriesID, from int64) {
	if s, r, _ := c.lockSeries(id); s != nil {
		r.completeFrom = max(r.completeFrom, from)
		s.changedLocked(r, math.MinInt64) // who computed of it was not told
		s.mu.Unlock()
	}
}

// judge decides on the gap before the open interval, once series were watched
// for long enough. If it was none, the series that skipped a part of it are to
// be marked.
func (v *coverage) judge(nowMs int64) (marks []skippedSeries) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.open.Load() || nowMs-v.beganMs < resumeMs {
		return nil
	}
	if v.same+v.skipped == 0 {
		v.watching.Store(nowMs-v.beganMs < giveUpMs)
		return nil
	}
	if nowMs-v.sinceMs < resumeMs {
		return nil
	}
	v.watching.Store(false)
	if list := v.closedLocked(); len(list) < len(v.list) {
		v.list, marks = list, v.marks
	}
	v.marks = nil
	return marks
}

// closedLocked is the list without the gaps that the series seen so far have
// no part of: from where they were last written to the open interval.
func (v *coverage) closedLocked() []Interval {
	n := len(v.list)
	if n < 2 || v.same == 0 || v.skipped*skipShare > v.same+v.skipped || v.skipped > maxSkipped {
		return v.list
	}
	k := n - 2
	for k > 0 && v.newestSame < v.list[k].From {
		k--
	}
	return append(v.list[:k:k], Interval{v.list[k].From, MaxTime})
}

// saved is the list as a snapshot of the time nowMs ends it: there, for load to leave
// closeLagMs out, or before if points are on their way for longer.
func (v *coverage) saved(nowMs int64) []Interval {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := v.list
	if v.watching.Load() && v.open.Load() && v.skipped == 0 {
		list = v.closedLocked() // the next daemon sees none of what was seen here
	}
	list = slices.Clone(list)
	if n := len(list); n > 0 && list[n-1].To == MaxTime {
		end := nowMs
		if v.behindMs.Load() > 0 {
			end -= v.lagLocked()
		}
		list[n-1].To = max(end, list[n-1].From)
	}
	return list
}

// load takes over what a snapshot of the time savedMs has said of a bucket.
// What was written meanwhile stays.
func (v *coverage) load(nowMs, savedMs int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := endBefore(v.loaded, min(savedMs, nowMs))
	v.loaded = nil
	if v.open.Load() {
		now := v.list[len(v.list)-1]
		list = append(endBefore(list, now.From), now)
	}
	v.list = list
	v.bound()
	v.watchLocked()
}

// watchLocked begins to look at whether series go on where they were.
func (v *coverage) watchLocked() {
	v.same, v.skipped, v.sinceMs, v.newestSame, v.marks = 0, 0, 0, notGone, nil
	v.watching.Store(len(v.list) > 0)
}

// forgetLoadedCoverage is for a snapshot that is not here as a whole: of it,
// nothing is known to be covered.
func (c *Cache) forgetLoadedCoverage() {
	for _, b := range *c.byName.Load() {
		b.cover.mu.Lock()
		b.cover.loaded = nil
		b.cover.mu.Unlock()
	}
}

// takeCoverage ends a load.
func (c *Cache) takeCoverage(savedMs int64) {
	if c.now == nil {
		return
	}
	now := c.now()
	for _, b := range *c.byName.Load() {
		b.cover.load(now, savedMs)
	}
}

// appendCoverage encodes the intervals of the buckets of labelled series, as
// they end with a snapshot of the time nowMs.
func (c *Cache) appendCoverage(dst []byte, nowMs int64) []byte {
	for _, b := range *c.byName.Load() {
		if b.width.Load() != widthHPTS {
			continue
		}
		list := b.cover.saved(nowMs)
		if len(list) > 0 {
			dst = appendIntervals(appendText(dst, b.name), list)
		}
	}
	return dst
}
