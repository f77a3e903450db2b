package mcache

import (
	"errors"
	"math"
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
// batch, and 8 for each group of 32 (due.go); nothing for others. A pass costs some
// 40 ns for a series that it collects and 7 for each of its samples: 12 ns a sample
// in runs of 8, 8 in runs of 32 (collect-ns of -bench WriteBack). The note of what is
// dirty takes 3 to 7 ns a sample in whoever writes.

// ErrDirty says that the points not yet acknowledged by the downstream store
// are as many as there may be. A sender should try again later.
var ErrDirty = errors.New("mcache: too many points wait for the downstream store")

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
	Standby    int64  // of them, those that another cache hands on
	MaxPoints  int64  // the bound, 0 if there is none
	OldestTick uint32 // at which the oldest of them came that this cache hands on, as of the last Settle; 0 if there was none
	Refused    uint64 // writes that failed with ErrDirty
}

// Dirty reads what is dirty. It takes no lock.
func (c *Cache) Dirty() DirtyStats {
	st := DirtyStats{Points: c.dirtyPoints(), MaxPoints: c.maxDirty.Load(), Refused: c.dirtyRefused.Load()}
	for _, s := range c.shards {
		st.Standby += s.standbyShown.Load()
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
	s.settleLocked(p)
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
		if since := s.dirt.At(uint32(id)).since; since != 0 {
			p.leave(since, *s.marks.At(uint32(id)))
		}
	}
	return p
}

// pointsFromLocked counts the points of r from a time on.
func (s *shard) pointsFromLocked(r *series, from int64) (n int) {
	var snap Snapshot
	s.snapshotLocked(r, from, math.MaxInt64, &snap)
	for it := snap.Iterator(); it.Next(); {
		n++
	}
	return n
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
	s.partials.SetStamp(tick)
	s.log.SetStamp(tick)
	return tick
}
