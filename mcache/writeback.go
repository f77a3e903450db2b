package mcache

import (
	"errors"
	"math"
	"sort"
	"unsafe"
)

// Write-back is the cache's part in handing every labelled point on to a
// downstream store. A point is dirty from when it was accepted until it was
// acknowledged; this file knows which are, and keeps them from being reclaimed
// or evicted; outgoing.go gives them out as long runs. Who sends them, how often
// and over what, is the caller's.
//
//	            sent                       newest
//	─────────────┼───────────────────────────▶ time
//	  clean   ▲▲ │  dirty: in order
//	     outOfOrder.from…to
//	     dirty: out of order, or written again
//
// A series needs no list of its dirty points: those after sent are, and so is
// all between outOfOrder.from and outOfOrder.to, where points were written at
// or before sent. Some there may be clean; they are sent twice, which changes
// nothing, since the last write to a time wins.
//
// # Pinning
//
// The caller sets a tick from time to time, and everything is dated by it: a
// series with the tick at which its oldest dirty point came, a region with the
// one at which it was last written to. A region that was last written to
// before the oldest dirty point of its shard came holds no dirty point. So one
// pass over the dirt of a shard, as Collect makes it, tells Settle for all
// regions at once which may go, and whoever asks for a region compares two numbers. This pins
// more than is dirty, never less: heads are written all the time, so that
// regions of class Hot are clean only after a pass that found a shard at rest.
//
// That regions become clean shard by shard is also the order in which they are
// worked off: within MaxDirtyAge of the sender all that a shard held is. To
// send by region instead would give away what write-back is for, long runs.
//
// # Cost
//
// For caches that write back 41 bytes a series, of which 16 are read once a
// batch; nothing for others. A pass costs some 40 ns for a series that it
// collects and 7 for each of its samples: 12 ns a sample in runs of 8, 8 in runs of
// 32 (collect-ns of -bench WriteBack). The note of what is dirty takes 3 to 7 ns a
// sample in whoever writes.

// ErrDirty says that the points not yet acknowledged by the downstream store
// are as many as there may be. A sender should try again later.
var ErrDirty = errors.New("mcache: too many points wait for the downstream store")

// dirt is what write-back knows of one series, as far as most writes need it;
// shard.dirt[id].
type dirt struct {
	sent   int64  // in order: up to this time all was acknowledged or is in flight; math.MinInt64 if nothing was
	since  uint32 // tick at which the oldest dirty point that is not in flight came; 0: there is none
	points uint32 // written since they were last collected; may count a time twice
}

// mark says of one series what seldom is; shard.marks[id].
type mark uint8

const (
	markFlying     mark = 1 << iota // it has points in shard.flight
	markOutOfOrder                  // shard.outOfOrder has a range
	markBusy                        // there are writes that have let go of the lock half way
)

// outOfOrder is the rest of it: the range of out-of-order points;
// shard.outOfOrder[id].
type outOfOrder struct {
	from, to int64  // empty if from > to; both at or before dirt.sent
	writing  uint32 // writes that have let go of the lock half way
	_        uint32
}

// Four series share a cache line of dirt: ids that are written one after the
// other are neighbours.
const dirtBytes = 16 + 24 + 1

var _ [dirtBytes]byte = [unsafe.Sizeof(dirt{}) + unsafe.Sizeof(outOfOrder{}) + unsafe.Sizeof(mark(0))]byte{}

// AllTicks is a Due.Since that every dirty series is due by.
const AllTicks = math.MaxUint32

// SetTick dates what is written from now on. Ticks begin at 1 and never go
// back; a caller that writes back counts seconds with them.
func (c *Cache) SetTick(now uint32) { c.tick.Store(now) }

// SetMaxDirty bounds the points that are dirty; 0 is no bound. Beyond it
// writes of labelled points fail with ErrDirty.
func (c *Cache) SetMaxDirty(points int64) { c.maxDirty.Store(points) }

// Kick receives when it cannot wait that dirty points become clean: regions or
// keys were to go and could not, or half of the bound is dirty.
func (c *Cache) Kick() <-chan struct{} { return c.kick }

func (c *Cache) kickNow() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Shards is the number of shards, which Collect and Settle work on one by one.
func (c *Cache) Shards() int { return len(c.shards) }

// DirtyStats is a reading of what is dirty.
type DirtyStats struct {
	Points     int64  // in flight or waiting; a time written twice may count twice
	MaxPoints  int64  // the bound, 0 if there is none
	OldestTick uint32 // at which the oldest of them came, as of the last Settle; 0 if there was none
	Refused    uint64 // writes that failed with ErrDirty
}

// Dirty reads what is dirty. It takes no lock.
func (c *Cache) Dirty() DirtyStats {
	st := DirtyStats{Points: c.dirtyPoints(), MaxPoints: c.maxDirty.Load(), Refused: c.dirtyRefused.Load()}
	for _, s := range c.shards {
		if t := s.oldestDirty.Load(); t != 0 && (st.OldestTick == 0 || t < st.OldestTick) {
			st.OldestTick = t
		}
	}
	return st
}

func (c *Cache) dirtyPoints() (n int64) {
	for _, s := range c.shards {
		n += s.dirtyPublished.Load()
	}
	return n
}

// admitDirty reports whether more may become dirty.
func (c *Cache) admitDirty() error {
	most := c.maxDirty.Load()
	if !c.writeBack || most == 0 {
		return nil
	}
	n := c.dirtyPoints()
	if n >= most/2 {
		c.kickNow()
	}
	if n >= most {
		c.dirtyRefused.Add(1)
		return ErrDirty
	}
	return nil
}

// beginWriteLocked notes, before they are written, that points become dirty.
func (s *shard) beginWriteLocked(id uint32, what content) {
	tick := s.stampLocked()
	d := s.dirt.At(id)
	if d.since == 0 {
		d.since = tick
	}
	for i := range what.samples {
		s.noteOutOfOrderLocked(id, what.samples[i].T, what.samples[i].T)
	}
	for i := range what.records {
		s.noteOutOfOrderLocked(id, what.records[i].T, what.records[i].T)
	}
	n := len(what.samples) + len(what.records)
	d.points += uint32(n)
	s.dirty += int64(n)
	s.outOfOrder.At(id).writing++
	*s.marks.At(id) |= markBusy
}

// wroteLocked is beginWriteLocked and endWriteLocked of samples in order that
// were written at once, under the stamp of tick: their series is not dated
// later than their region.
func (s *shard) wroteLocked(id uint32, ss []Sample, tick uint32) {
	d := s.dirt.At(id)
	if d.since == 0 {
		d.since = tick
	}
	if ss[0].T <= d.sent {
		s.noteOutOfOrderLocked(id, ss[0].T, ss[len(ss)-1].T)
	}
	d.points += uint32(len(ss))
	s.dirty += int64(len(ss))
}

// endWriteLocked is called when all of beginWriteLocked's points were written,
// or refused.
func (s *shard) endWriteLocked(id uint32) {
	l := s.outOfOrder.At(id)
	if l.writing > 0 { // not if the series was removed meanwhile
		l.writing--
	}
	if l.writing == 0 {
		*s.marks.At(id) &^= markBusy
	}
}

// wroteLocalLocked is called when points were written that are not handed on.
// While nothing of the series is dirty they move the line after which all is,
// so that the next write that is handed on does not take them along.
func (s *shard) wroteLocalLocked(id uint32, what content) {
	if !s.isCleanLocked(id) {
		return
	}
	d := s.dirt.At(id)
	for i := range what.samples {
		if t := what.samples[i].T; t <= MaxTime {
			d.sent = max(d.sent, t)
		}
	}
}

// noteOutOfOrderLocked notes points from from to to if they are out of order,
// not after what was sent.
func (s *shard) noteOutOfOrderLocked(id uint32, from, to int64) {
	if sent := s.dirt.At(id).sent; from <= sent {
		l := s.outOfOrder.At(id)
		l.from, l.to = min(l.from, from), max(l.to, min(to, sent))
		*s.marks.At(id) |= markOutOfOrder
	}
}

// noDirt and noOutOfOrder are those of a new series.
var (
	noDirt       = dirt{sent: math.MinInt64}
	noOutOfOrder = outOfOrder{from: math.MaxInt64, to: math.MinInt64}
)

// reserveDirtLocked makes room for what write-back knows of n series.
func (s *shard) reserveDirtLocked(n int) error {
	for s.cache.writeBack && s.dirt.Len() < n {
		if s.marks.Len() == s.dirt.Len() {
			if _, err := s.marks.Append(0); err != nil {
				return err
			}
		}
		if s.outOfOrder.Len() == s.dirt.Len() {
			if _, err := s.outOfOrder.Append(noOutOfOrder); err != nil {
				return err
			}
		}
		if _, err := s.dirt.Append(noDirt); err != nil {
			return err
		}
	}
	return nil
}

// isCleanLocked reports whether nothing of a series is dirty or in flight.
func (s *shard) isCleanLocked(id uint32) bool {
	return s.dirt.At(id).since == 0 && *s.marks.At(id)&markFlying == 0
}

// isDirtyLocked reports whether a series, or that whose start times it holds,
// must not be evicted.
func (s *shard) isDirtyLocked(id uint32) bool {
	if !s.cache.writeBack {
		return false
	}
	if r := s.recs.At(id); r.flags&flagShadow != 0 {
		if id = s.findLocked(shadowOf(r.fp)); id == noID {
			return false
		}
	}
	return !s.isCleanLocked(id)
}

// forgetDirtLocked is part of removing a series. What it has in flight is dirty
// until that has landed.
func (s *shard) forgetDirtLocked(id uint32) {
	if s.cache.writeBack {
		d := s.dirt.At(id)
		s.dirty -= int64(d.points)
		s.flightHoles = s.flightHoles || *s.marks.At(id)&markFlying != 0
		*d, *s.outOfOrder.At(id), *s.marks.At(id) = noDirt, noOutOfOrder, 0
	}
}

// pinnedLocked reports whether a region last written to at that tick may hold
// dirty points.
func (s *shard) pinnedLocked(written uint32) bool {
	if !s.cache.writeBack || written < s.cleanBefore {
		return false
	}
	s.cache.kickNow()
	return true
}

// Settle finds which regions of the shard hold nothing dirty any more, and
// gives up those that were asked for. p is a pass over the shard that ended,
// and what it collected has landed. Without one, nil, Settle looks by itself.
func (c *Cache) Settle(shard int, p *Pass) {
	s := c.shards[shard]
	s.mu.Lock()
	if p == nil || !p.ended || p.returns != s.returns {
		p = s.emptyPassLocked()
	}
	clean := p.began
	oldest := p.oldest
	for i := range s.flight { // as a rule there is nothing when this is called
		if oldest == 0 || s.flight[i].since < oldest {
			oldest = s.flight[i].since
		}
	}
	if oldest != 0 {
		clean = min(clean, oldest)
	}
	if p.returns == s.returns {
		s.cleanBefore = max(s.cleanBefore, clean)
		s.oldestDirty.Store(oldest)
	}
	s.mu.Unlock()
	c.memory.Unpin()
}

// emptyPassLocked is a pass that collects nothing. It lets go of the lock from
// time to time.
func (s *shard) emptyPassLocked() *Pass {
	p := &Pass{began: max(s.cache.tick.Load(), 1), returns: s.returns}
	for id := 0; id < s.dirt.Len(); id++ {
		if id%scanPiece == scanPiece-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		if id >= s.dirt.Len() {
			break
		}
		if since := s.dirt.At(uint32(id)).since; since != 0 && (p.oldest == 0 || since < p.oldest) {
			p.oldest = since
		}
	}
	return p
}

// unsentFromLocked is the least time of a series that may be dirty, if any is:
// what a snapshot has to say of it.
func (s *shard) unsentFromLocked(id uint32) (t int64, dirty bool) {
	if !s.cache.writeBack {
		return 0, false
	}
	t = s.outOfOrder.At(id).from
	if *s.marks.At(id)&markFlying != 0 {
		i := sort.Search(len(s.flight), func(i int) bool { return s.flight[i].id >= id })
		t = min(t, s.flight[i].first)
	}
	if d := s.dirt.At(id); d.since != 0 {
		t = min(t, max(d.sent, -MaxTime-1)+1)
	}
	return t, !s.isCleanLocked(id)
}

// noteLoadedLocked notes what a snapshot has said of a series that was loaded
// from it: that all of it is clean, or all before unsentFrom.
func (s *shard) noteLoadedLocked(id uint32, unsentFrom int64, dirty bool) {
	if !s.cache.writeBack {
		return
	}
	r, d := s.recs.At(id), s.dirt.At(id)
	if s.isCleanLocked(id) && d.sent == noDirt.sent {
		d.sent = s.newestLocked(r)
	}
	if !dirty {
		return
	}
	// The points were written under the stamps of now, and are dated by them.
	if d.since == 0 {
		d.since = max(s.cache.tick.Load(), 1)
	}
	s.noteOutOfOrderLocked(id, unsentFrom, math.MaxInt64)
	var snap Snapshot
	s.snapshotLocked(r, unsentFrom, math.MaxInt64, &snap)
	n := 0
	for it := snap.Iterator(); it.Next(); {
		n++
	}
	d.points += uint32(n)
	s.dirty += int64(n)
}

// newestLocked is the time of the last point of r; math.MinInt64 if it has none.
func (s *shard) newestLocked(r *series) int64 {
	t := r.sealedEnd
	if r.headLen() > 0 {
		t = max(t, r.headLast())
	}
	if d := s.recordDirLocked(r); d != nil {
		t = max(t, d.end)
	}
	return t
}

// stampLocked dates what is written from here on, under the lock.
func (s *shard) stampLocked() (tick uint32) {
	tick = max(s.cache.tick.Load(), 1)
	s.hot.SetStamp(tick)
	s.log.SetStamp(tick)
	return tick
}
