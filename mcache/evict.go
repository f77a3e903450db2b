package mcache

// genBlob stands, behind the generations, for the series that have nothing but
// a blob. They are the last that eviction turns to, as that gives back little but
// their part of the index (see thinOut).
const genBlob = 0

// maxDirtyLooks is how many dirty series eviction steps over in one list: the
// caller of write-back is called for instead.
const maxDirtyLooks = 16

// relistPiece is how many series eviction moves to other queues under one hold of
// the lock: a tenth of a millisecond.
const relistPiece = 1024

// coldestLocked is the largest series of generation gen, by class, or noID.
// Series with points that the downstream store has not got are none. It lets go
// of the lock when it has moved many series to other queues.
func (s *shard) coldestLocked(gen int) uint32 {
	if gen == genBlob {
		return s.coldestBlobLocked()
	}
	for class := sizeClasses - 1; class >= 0; class-- {
		for b := 0; b < len(s.lists); b++ {
			id, more := s.oldestLocked(b, class, gen)
			for more {
				s.publishLocked()
				s.mu.Unlock()
				s.mu.Lock()
				id, more = s.oldestLocked(b, class, gen)
			}
			if b < len(s.lists) && s.lists[b][class].gens[gen-1].oldest != id {
				s.cache.kickNow() // those before it are dirty
			}
			if id != noID {
				return id
			}
		}
	}
	return noID
}

// oldestLocked is the first series of a list that is of generation gen and not
// dirty, or noID. It moves those that it finds to be younger, as they were
// written since they were listed, to the queue of their generation; more says
// that it has moved so many that others should have the lock.
func (s *shard) oldestLocked(bucket, class, gen int) (id uint32, more bool) {
	if bucket >= len(s.lists) { // all was dropped while the lock was free
		return noID, false
	}
	l := &s.lists[bucket][class]
	s.arrangeLocked(l, s.ageLocked(s.cache.bucket(uint16(bucket))))
	id = l.gens[gen-1].oldest
	for moved, looks := 0, 0; id != noID && looks < maxDirtyLooks; {
		r := s.recs.At(id)
		next := r.newer
		switch {
		case generation(l.age, r.touched) != gen:
			if moved == relistPiece {
				return noID, true
			}
			s.unlistLocked(id)
			s.listLocked(id)
			moved++
		case !s.isDirtyLocked(id):
			return id, false
		default:
			looks++
		}
		id = next
	}
	return noID, false
}

// evict makes the cache fit its maximum: keys of generation 3, then 2, then 1
// leave, the largest first, one shard after the other. With blobs, what they
// hold stays in these, and if that was not enough, those that have nothing but
// a blob leave, which gives back little. It is called without locks.
func (c *Cache) evict() {
	if limit := c.maxBytes.Load(); limit > 0 {
		how := (*shard).evictOne
		if c.blobs {
			how = (*shard).demoteOne
		}
		c.evictTo(limit, how)
	}
}

// evictHow evicts the coldest key of a generation of a shard. It reports false if
// there is none.
type evictHow func(s *shard, gen int) bool

// evictTo evicts until no more than limit bytes are allocated.
func (c *Cache) evictTo(limit int64, how evictHow) {
	for gen := 3; gen >= genBlob; gen-- {
		if c.evictOf(gen, limit, how) {
			return
		}
	}
}

// evictOf is evictTo for one generation. It reports whether that was enough.
func (c *Cache) evictOf(gen int, limit int64, how evictHow) bool {
	if c.allocated() <= limit {
		return true
	}
	for idle := 0; idle < len(c.shards); {
		s := c.shards[c.cursor.Add(1)%uint64(len(c.shards))]
		if how(s, gen) {
			idle = 0
		} else {
			idle++
		}
		if c.allocated() <= limit {
			return true
		}
	}
	return false
}

// demoteOne moves the coldest key of the generation into a blob, or evicts it
// whole if blobs have no room.
func (s *shard) demoteOne(gen int) bool { return s.coldestToBlob(gen) || s.evictOne(gen) }

// evictOne hands the coldest key of the generation to Options.Evicted.
func (s *shard) evictOne(gen int) bool {
	s.mu.Lock()
	id := s.coldestLocked(gen)
	if id == noID {
		s.mu.Unlock()
		return false
	}
	var o Evicted
	handOn := s.cache.evicted
	if s.recs.At(id).flags&flagShadow != 0 {
		handOn = nil // start times alone are nothing to hand on
	}
	if handOn != nil {
		s.pruneLocked(s.recs.At(id))
		o = s.exportLocked(id)
	}
	s.evicted += uint64(s.pointsLocked(id))
	s.evictions++
	s.cache.bucket(s.recs.At(id).bucket).evictions.Add(1)
	if handOn == nil {
		s.noteGoneLocked(s.recs.At(id))
	} else { // it is somewhere else now
		s.noteLostLocked(s.recs.At(id))
	}
	s.removeLocked(id)
	s.tidyLocked()
	s.publishLocked()
	s.mu.Unlock()
	if handOn != nil {
		handOn(o)
	}
	return true
}

// pointsLocked is how many points the series holds now, its start times included.
func (s *shard) pointsLocked(id uint32) uint32 {
	r := s.recs.At(id)
	s.pruneLocked(r)
	n := r.points + uint32(s.pointsInBlobLocked(r))
	if shadow := s.shadowLocked(r); shadow != noID {
		n += s.pointsLocked(shadow)
	}
	return n
}
