package mcache

import (
	"hash/crc32"
	"math"
	"sync/atomic"
)

// A series that leaves as a whole takes its completeFrom with it, and if it is
// written again it begins anew, as if it had never had a past. So its bucket
// remembers until when there was something that is no longer there: one time
// for each of a few hundred groups of metric names, so that what a metric lost
// is not held against the others. Only time goes into it, nothing of the
// series, and it never shrinks: 2 KiB for a bucket that lost anything at all.

// goneGroups is how many groups of names a bucket tells apart.
const goneGroups = 256

// gone is, by group, the time in ms from which on nothing is missing of the
// series that left whole; notGone if none did.
type gone [goneGroups]atomic.Int64

const notGone = math.MinInt64

// note remembers that series of group lack everything before complete.
func (b *bucket) note(group int, complete int64) {
	g := b.gone.Load()
	if g == nil {
		fresh := new(gone)
		for i := range fresh {
			fresh[i].Store(notGone)
		}
		if !b.gone.CompareAndSwap(nil, fresh) {
			fresh = b.gone.Load()
		}
		g = fresh
	}
	raise(&g[group], complete)
}

// raise makes a at least v.
func raise(a *atomic.Int64, v int64) {
	for old := a.Load(); v > old && !a.CompareAndSwap(old, v); {
		old = a.Load()
	}
}

// nameGroup is where series of a metric name are noted. It is the same in every
// cache, since snapshots carry what is noted. A client that chooses names to
// fall into one group gets warnings that belong to another of its metrics.
func nameGroup(name []byte) int { return int(crc32.Checksum(name, castagnoli) % goneGroups) }

// noteGoneLocked is called just before a labelled series is removed although
// nobody asked for that.
func (s *shard) noteGoneLocked(r *series) {
	if r.flags&(flagRaw|flagShadow) != 0 {
		return
	}
	name := s.metricNameLocked(r)
	if last := s.lastTimeLocked(r); last > notGone {
		s.cache.bucket(r.bucket).note(nameGroup(name), last+1)
	}
}

// noteLostLocked is called just before a labelled series, which is pruned, is
// removed by who asked for that, or who has it elsewhere now: what it had lost
// before is missing all the same.
func (s *shard) noteLostLocked(r *series) {
	if r.flags&(flagRaw|flagShadow) == 0 && r.completeFrom > notGone {
		s.cache.bucket(r.bucket).note(nameGroup(s.metricNameLocked(r)), r.completeFrom)
	}
}

// metricName names the label that holds a series' name.
const metricName = "__name__"

// metricNameLocked is the value of __name__, nil if there is none; a view.
func (s *shard) metricNameLocked(r *series) []byte {
	x := &s.index
	for _, p := range x.Set(r.pairs, int(r.nPairs))[1:] { // the first is the bucket
		if string(x.Name(p)) == metricName {
			return x.Value(p)
		}
	}
	return nil
}

// noteAllGoneLocked is noteGoneLocked of every series. It reads descriptors
// only, and knows of no names: that must be quick, the machine wants the
// memory.
func (s *shard) noteAllGoneLocked() {
	last := map[uint16]int64{} // by bucket
	for id := range s.recs.All() {
		r := s.recs.At(uint32(id))
		if r.flags&flagInUse == 0 || r.flags&(flagRaw|flagShadow) != 0 {
			continue
		}
		if t, ok := last[r.bucket]; !ok || t < s.lastTimeLocked(r) {
			last[r.bucket] = s.lastTimeLocked(r)
		}
	}
	for id, t := range last {
		if t == notGone {
			continue
		}
		for group := range goneGroups {
			s.cache.bucket(id).note(group, t+1)
		}
	}
}

// lastTimeLocked is the time of the newest point the series holds or has lost.
func (s *shard) lastTimeLocked(r *series) int64 {
	last := r.sealedEnd
	if r.completeFrom > notGone {
		last = max(last, r.completeFrom-1)
	}
	if r.head != 0 && r.headLen() > 0 {
		last = max(last, r.headLast())
	}
	if d := s.recordDirLocked(r); d != nil {
		last = max(last, d.end)
	}
	return last
}

// GoneUntil reports the time in ms from which on nothing is missing of the
// labelled series that were evicted, or whose memory was reclaimed, as a whole:
// of those that the matchers could have selected, as far as the metric's name
// tells, and of some others. ok is false when there are none. What a series
// that is still there has lost is Snapshot.CompleteFrom; what was handed to
// Options.Evicted is not gone.
func (c *Cache) GoneUntil(bucket string, ms []Matcher) (complete int64, ok bool) {
	b := c.findBucket(bucket)
	if b == nil { // or it was replaced by another
		until := c.displaced.Load()
		return until, until != notGone
	}
	g := b.gone.Load()
	if g == nil {
		return 0, false
	}
	until := int64(notGone)
	if groups, ok := c.groupsOf(ms); ok {
		for _, group := range groups {
			until = max(until, g[group].Load())
		}
	} else {
		for i := range g {
			until = max(until, g[i].Load())
		}
	}
	return until, until != notGone
}

// goneUntil is GoneUntil of all of the bucket's series.
func (b *bucket) goneUntil() int64 {
	until := int64(notGone)
	if g := b.gone.Load(); g != nil {
		for i := range g {
			until = max(until, g[i].Load())
		}
	}
	return until
}

// groupsOf lists the groups of the names that the matchers allow, unless that is any.
func (c *Cache) groupsOf(ms []Matcher) (groups []int, ok bool) {
	for i := range ms {
		m := &ms[i]
		if m.Name != "__name__" || !m.Positive() {
			continue
		}
		names, ok := m.Candidates()
		if !ok || len(names) > goneGroups {
			continue
		}
		for _, n := range names {
			groups = append(groups, nameGroup([]byte(n)))
		}
		return groups, true
	}
	return nil, false
}
