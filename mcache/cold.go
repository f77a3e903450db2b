package mcache

import "sync/atomic"

// This file says when series go into blobs besides by eviction: when they are
// cold and room is little, and when there is none and nothing else to drop.

// overflowHot puts series into blobs when there is no memory and nothing in logs
// to drop, until n bytes are free. It takes all that have something in the
// oldest Hot region of a shard, which then is free, for about a third of it in
// blobs; one region to begin with is enough, that which is kept for what is
// moved. The coldest series would leave dead bytes in all regions, and none
// free. It returns how many it has moved.
func (c *Cache) overflowHot(n int64) (moved int) {
	n += int64(c.memory.RegionBytes()) // which is kept
	for idle := 0; idle < len(c.shards) && c.memory.Room() < n; {
		s := c.shards[c.cursor.Add(1)%uint64(len(c.shards))]
		if k := s.overflowRegion(); k > 0 {
			moved, idle = moved+k, 0
		} else {
			idle++
		}
	}
	return moved
}

// overflowRegion puts the series with something in the shard's oldest Hot
// region into blobs, but for dirty ones.
func (s *shard) overflowRegion() (moved int) {
	s.mu.Lock()
	defer func() {
		s.publishLocked()
		s.mu.Unlock()
	}()
	ids := s.hot.OldestOwners(nil)
	for k, id := range ids {
		if k%hotPiece == hotPiece-1 {
			s.publishLocked()
			s.mu.Unlock()
			s.mu.Lock()
		}
		// While the lock was free another series may have come to the id: it goes, too.
		if int(id) >= s.recs.Len() {
			break
		}
		r := s.recs.At(id)
		if r.flags&flagInUse == 0 || r.bytes == seriesBytes || s.isDirtyLocked(id) {
			continue
		}
		b := s.cache.bucket(r.bucket)
		if !s.toBlobLocked(id, ofReserve) {
			break
		}
		s.evictions++
		b.evictions.Add(1)
		moved++
	}
	return moved
}

// evictCold makes n bytes free of the heads of generation 3, for as long as heads
// take more regions than all that is sealed. Were the oldest of that dropped
// first, series that are written would lose the history that they have sealed
// to heads that nobody writes to any more. With blobs these go there, as many
// as it takes; without, as many as evictKeys evicts at once, so that an index
// can be rebuilt in what becomes free. It reports whether there is room.
func (c *Cache) evictCold(n int64) bool {
	if !c.blobs {
		if c.mostlyHeads() {
			c.evictOf(3, c.allocated()*3/4, (*shard).evictOne)
			c.compactShards()
		}
		return c.memory.Room() >= n
	}
	for idle := 0; idle < len(c.shards) && c.memory.Room() < n; {
		s := c.shards[c.cursor.Add(1)%uint64(len(c.shards))]
		if s.overflowColdHeads() {
			idle = 0
		} else {
			idle++
		}
	}
	return c.memory.Room() >= n
}

// mostlyHeads reports whether heads take more regions than all that is sealed.
func (c *Cache) mostlyHeads() bool {
	heads, sealed := 0, 0
	for _, s := range c.shards {
		s.mu.Lock()
		heads, sealed = heads+s.headRegionsLocked(), sealed+s.log.Stats().Regions+s.blobs.Stats().Regions
		s.mu.Unlock()
	}
	return heads > sealed
}

// headRegionsLocked is how many regions heads take, with the partial blocks
// before them.
func (s *shard) headRegionsLocked() int { return s.hot.Stats().Regions + s.partials.Stats().Regions }

// overflowColdHeads puts series of generation 3 into blobs until that has freed
// a region. It reports false if there are none, if what is sealed takes more
// regions than heads, or if blobs find no room.
func (s *shard) overflowColdHeads() bool {
	s.mu.Lock()
	heads, sealed := s.headRegionsLocked(), s.log.Stats().Regions+s.blobs.Stats().Regions
	s.mu.Unlock()
	for before := s.cache.memory.Room(); heads > sealed; {
		if done, _ := s.tryColdestToBlob(3, ofReserve); !done {
			return false
		}
		if s.cache.memory.Room() > before {
			return true
		}
	}
	return false
}

// hotPiece is how many series overflowRegion moves under one hold of the lock:
// half a millisecond.
const hotPiece = 512

// Series that are cold cost less in a blob, about a byte a sample in place of
// a head, a partial block and a directory. Maintain moves them when the Memory
// has little room left.
const (
	// coldRoom is the part of the budget below which the room is little.
	coldRoom = 8
	// coldPerMaintain series are moved in one Maintain at most: at 5 to 10 µs
	// each, some 5 % of a processor at one Maintain a second.
	coldPerMaintain = 8192
	// coldPiece of them under one hold of a lock.
	coldPiece = 64
	// coldRounds of points for each series are enough to tell that one which got
	// none is cold (turn.go). Where there are more series than points in an age
	// cycle, a series can be in generation 3 between two scrapes.
	coldRounds = 16
)

// overflowCold moves cold series into blobs while less than an eighth of the
// budget is free, the smallest first: they save the most for each byte moved.
func (c *Cache) overflowCold() {
	c.noteRest()
	left := coldPerMaintain
	for range c.shards {
		s := c.shards[c.coldNext.Add(1)%uint64(len(c.shards))]
		for more := true; more && left > 0 && c.memory.Room() < c.memory.Budget()/coldRoom; {
			var moved int
			var short bool
			s.mu.Lock()
			moved, more, short = s.overflowPieceLocked(min(left, coldPiece))
			s.publishLocked()
			s.mu.Unlock()
			left -= moved
			if short {
				more = moved > 0 && c.memory.EvictLog(int64(c.memory.RegionBytes()))
			}
		}
	}
}

// overflowPieceLocked moves up to most cold series. It says how many it moved,
// whether there may be more, and whether it stopped for want of memory.
func (s *shard) overflowPieceLocked(most int) (moved int, more, short bool) {
	for class := range sizeClasses {
		for b := range s.lists {
			bucket := s.cache.bucket(uint16(b))
			for {
				id, relisting := s.oldestColdLocked(bucket, class)
				if relisting {
					return moved, true, false
				}
				if id == noID {
					break
				}
				if moved == most {
					return moved, true, false
				}
				if !s.toBlobLocked(id, ofBudget) {
					return moved, true, true
				}
				moved++
			}
		}
	}
	return moved, false, false
}

// oldestColdLocked is the first series of a list that is cold and not dirty, or
// noID; more is as of oldestLocked.
func (s *shard) oldestColdLocked(b *bucket, class int) (id uint32, more bool) {
	last := 3
	if b.rest.long.Load() {
		last = 1
	}
	for gen := 3; gen >= last; gen-- {
		if id, more = s.oldestLocked(int(b.id), class, gen); id != noID || more {
			break
		}
	}
	if id != noID && !s.coldLocked(b, s.recs.At(id).touched) {
		id = noID
	}
	return id, more
}

// rest says for how long nobody has written to a bucket. It ages by what it
// takes, so that its series would never be cold when it takes nothing any more.
type rest struct {
	inserts atomic.Uint64 // that the bucket had the last time
	since   atomic.Uint64 // coldSeen when it had more than the time before
	long    atomic.Bool   // all its series are cold
}

// noteRest looks which buckets have rested while the others took as many points
// as make a series cold in a bucket that takes all of them.
func (c *Cache) noteRest() {
	buckets := *c.byID.Load()
	var series, came uint64
	for _, b := range buckets {
		if b != nil {
			series += uint64(max(b.series.Load(), 0))
			n := b.inserts.Load()
			came += n - b.rest.inserts.Load()
		}
	}
	seen := c.coldSeen.Add(came)
	for _, b := range buckets {
		if b == nil {
			continue
		}
		if n := b.inserts.Load(); n != b.rest.inserts.Swap(n) {
			b.rest.since.Store(seen)
		}
		rested := seen - b.rest.since.Load()
		b.rest.long.Store(rested >= 2*c.ageCycle && rested >= coldRounds*series)
	}
}

// coldestBlobLocked is the series that has had nothing but a blob for the longest
// time, of the bucket in which it was written the longest ago, or noID.
func (s *shard) coldestBlobLocked() uint32 {
	best, most := uint32(noID), uint32(0)
	for b := range s.lists {
		if id := s.oldestBlobLocked(b); id != noID {
			if age := s.ageLocked(s.cache.bucket(uint16(b))) - s.recs.At(id).touched; best == noID || age > most {
				best, most = id, age
			}
		}
	}
	return best
}

// oldestBlobLocked is the first series of a bucket's list of those that have
// nothing but a blob and are not dirty, or noID.
func (s *shard) oldestBlobLocked(bucket int) uint32 {
	id := s.lists[bucket][classBlob].gens[2].oldest
	for range maxDirtyLooks {
		if id == noID || !s.isDirtyLocked(id) {
			return id
		}
		id = s.recs.At(id).newer
	}
	return noID
}
