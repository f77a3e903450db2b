package mcache

import (
	"errors"
	"math"
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
//	  clean   ▲▲ │  dirty: came in order
//	     lateFrom…lateTo
//	     dirty: came late, or anew
//
// A series needs no list of its dirty points: those after sent are, and so is
// all between lateFrom and lateTo, where points were written at or before
// sent. Some there may be clean; they are sent twice, which changes nothing,
// since the last write to a time wins.
//
// # Pinning
//
// The caller sets a tick from time to time, and everything is dated by it: a
// series with the tick at which its oldest dirty point came, a region with the
// one at which it was last written to. A region that was last written to
// before the oldest dirty point of its shard came holds no dirty point. So
// Settle, one pass over the dirt of a shard, says for all regions at once
// which may go, and whoever asks for a region compares two numbers. This pins
// more than is dirty, never less: heads are written all the time, so that
// regions of class Hot are clean only after a pass that found a shard at rest.
//
// That regions become clean shard by shard is also the order in which they are
// worked off: within MaxDirtyAge of the sender all that a shard held is. To
// send by region instead would give away what write-back is for, long runs.
//
// # Cost
//
// For caches that write back 56 bytes a series, of which 16 are read once a
// batch; nothing for others. A pass costs some 100 ns a series, half of it for
// the labels, and what decoding its samples does: 13 ns a sample in runs of 8, 5
// in runs of 32 (collect-ns of -bench WriteBack). The note of what is dirty is a
// cache miss in whoever writes, which a machine without other work hides.

// ErrDirty says that the points not yet acknowledged by the downstream store
// are as many as there may be. A sender should try again later.
var ErrDirty = errors.New("mcache: too many points wait for the downstream store")

// dirt is what write-back knows of one series, as far as most writes need it;
// shard.dirt[id].
type dirt struct {
	sent   int64  // in order: up to this time all was acknowledged or is in flight; math.MinInt64 if nothing was
	since  uint32 // tick at which the oldest dirty point that is not in flight came; 0: there is none
	points uint32 // written since they were last collected; may count a time twice. With flight.points 0 only if clean
}

// flight is the rest of it; shard.flights[id].
type flight struct {
	lateFrom, lateTo int64  // late: empty if lateFrom > lateTo; both at or before sent
	from             int64  // least time in flight
	since            uint32 // that of what is in flight; 0: nothing is
	points           uint32 // in flight
	writing          uint32 // writes that have let go of the lock half way
	_                uint32
}

// Four series share a cache line of dirt: ids that are written one after the
// other are neighbours.
const dirtBytes = 16 + 40

var _ [dirtBytes]byte = [unsafe.Sizeof(dirt{}) + unsafe.Sizeof(flight{})]byte{}

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

// beginWrite notes, before they are written, that points become dirty.
func (s *shard) beginWrite(id uint32, what content) {
	tick := s.stampNow()
	d := &s.dirt.view[id]
	if d.since == 0 {
		d.since = tick
	}
	for i := range what.samples {
		s.late(id, what.samples[i].T, what.samples[i].T)
	}
	for i := range what.records {
		s.late(id, what.records[i].T, what.records[i].T)
	}
	n := len(what.samples) + len(what.records)
	d.points += uint32(n)
	s.dirty += int64(n)
	s.flights.view[id].writing++
}

// wrote is beginWrite and endWrite of samples in order that were written at
// once, under the stamp of tick: their series is not dated later than their region.
func (s *shard) wrote(id uint32, ss []Sample, tick uint32) {
	d := &s.dirt.view[id]
	if d.since == 0 {
		d.since = tick
	}
	if ss[0].T <= d.sent {
		s.late(id, ss[0].T, ss[len(ss)-1].T)
	}
	d.points += uint32(len(ss))
	s.dirty += int64(len(ss))
}

// endWrite is called when all of beginWrite's points were written, or refused.
func (s *shard) endWrite(id uint32) {
	if f := &s.flights.view[id]; f.writing > 0 { // not if the series was removed meanwhile
		f.writing--
	}
}

// late takes note of points from from to to if they are not after what was sent.
func (s *shard) late(id uint32, from, to int64) {
	if sent := s.dirt.view[id].sent; from <= sent {
		f := &s.flights.view[id]
		f.lateFrom, f.lateTo = min(f.lateFrom, from), max(f.lateTo, min(to, sent))
	}
}

// noDirt and noFlight are those of a new series.
var (
	noDirt   = dirt{sent: math.MinInt64}
	noFlight = flight{lateFrom: math.MaxInt64, lateTo: math.MinInt64}
)

// reserveDirt makes room for what write-back knows of n series.
func (s *shard) reserveDirt(n int) error {
	for s.cache.writeBack && s.flights.n < n {
		if s.dirt.n == s.flights.n {
			if _, err := s.dirt.add(noDirt); err != nil {
				return err
			}
		}
		if _, err := s.flights.add(noFlight); err != nil {
			return err
		}
	}
	return nil
}

// isClean reports whether nothing of a series is dirty or in flight.
func (s *shard) isClean(id uint32) bool { return s.dirt.view[id].since|s.flights.view[id].since == 0 }

// isDirty reports whether a series, or that whose start times it holds, must not be evicted.
func (s *shard) isDirty(id uint32) bool {
	if !s.cache.writeBack {
		return false
	}
	if r := &s.recs.view[id]; r.flags&flagShadow != 0 {
		if id = s.find(shadowOf(r.fp)); id == noID {
			return false
		}
	}
	return !s.isClean(id)
}

// forgetDirt is part of removing a series.
func (s *shard) forgetDirt(id uint32) {
	if s.cache.writeBack {
		d, f := &s.dirt.view[id], &s.flights.view[id]
		s.dirty -= int64(d.points) + int64(f.points)
		if f.since != 0 {
			s.flying--
		}
		*d, *f = noDirt, noFlight
	}
}

// pinned reports whether a region last written to at that tick may hold dirty points.
func (s *shard) pinned(written uint32) bool {
	if !s.cache.writeBack || written < s.cleanBefore {
		return false
	}
	s.cache.kickNow()
	return true
}

// Settle finds out which regions of the shard hold nothing dirty any more, and
// lets them go if they were asked for. It is called after a pass of Collect and
// Acknowledge over the shard.
func (c *Cache) Settle(shard int) {
	s := c.shards[shard]
	s.mu.Lock()
	// Nothing that becomes dirty while the lock is free is older than this.
	clean := max(c.tick.Load(), 1)
	oldest := uint32(0)
	note := func(tick uint32) {
		if tick != 0 {
			clean = min(clean, tick)
			if oldest == 0 || tick < oldest {
				oldest = tick
			}
		}
	}
	for id := 0; id < s.flights.n; id++ {
		if id%scanPiece == scanPiece-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		if id >= s.flights.n {
			break
		}
		note(s.dirt.view[id].since)
		if s.flying > 0 { // as a rule nothing is when this is called
			note(s.flights.view[id].since)
		}
	}
	s.cleanBefore = max(s.cleanBefore, clean)
	s.oldestDirty.Store(oldest)
	s.mu.Unlock()
	c.memory.Unpin()
}

// unsentFrom is the least time of a series that may be dirty, if any is: what a
// snapshot has to say of it.
func (s *shard) unsentFrom(id uint32) (t int64, dirty bool) {
	if !s.cache.writeBack {
		return 0, false
	}
	d, f := &s.dirt.view[id], &s.flights.view[id]
	t = f.lateFrom
	if f.since != 0 {
		t = min(t, f.from)
	}
	if d.since != 0 {
		t = min(t, max(d.sent, -MaxTime-1)+1)
	}
	return t, !s.isClean(id)
}

// loaded notes what a snapshot has said of a series that was loaded from it:
// that all of it is clean, or all before unsentFrom.
func (s *shard) loaded(id uint32, unsentFrom int64, dirty bool) {
	if !s.cache.writeBack {
		return
	}
	r, d := &s.recs.view[id], &s.dirt.view[id]
	if s.isClean(id) && d.sent == noDirt.sent {
		d.sent = s.newest(r)
	}
	if !dirty {
		return
	}
	// The points were written under the stamps of now, and are dated by them.
	if d.since == 0 {
		d.since = max(s.cache.tick.Load(), 1)
	}
	s.late(id, unsentFrom, math.MaxInt64)
	var snap Snapshot
	s.snapshot(r, unsentFrom, math.MaxInt64, &snap)
	n := 0
	for it := snap.Iterator(); it.Next(); {
		n++
	}
	d.points += uint32(n)
	s.dirty += int64(n)
}

// newest is the time of the last point of r; math.MinInt64 if it has none.
func (s *shard) newest(r *series) int64 {
	t := r.sealedEnd
	if r.headLen() > 0 {
		t = max(t, r.headLast())
	}
	if d := s.recordDir(r); d != nil {
		t = max(t, d.end)
	}
	return t
}

// stampNow dates what is written from here on, under the lock.
func (s *shard) stampNow() (tick uint32) {
	tick = max(s.cache.tick.Load(), 1)
	s.hot.SetStamp(tick)
	s.log.SetStamp(tick)
	return tick
}
