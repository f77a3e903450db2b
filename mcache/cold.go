package mcache

// This file says when series go into blobs besides by eviction: when they are
// cold and room is little, and when there is none and nothing else to drop.

// overflowKeys puts the coldest quarter of each shard into blobs when there is
// no memory and nothing in logs to drop. One shard after the other is finished
// and compacted: the first may use the region that is kept for what is moved,
// and frees some for the others. It returns how many keys it has moved.
func (c *Cache) overflowKeys() (n int) {
	for _, s := range c.shards {
		s.mu.Lock()
		target := s.bytes * 3 / 4
		for gen := 3; gen > genBlob; gen-- {
			for s.bytes > target {
				id := s.coldest(gen)
				if id == noID {
					break
				}
				b := s.cache.bucket(s.recs.view[id].bucket)
				if !s.overflow(id, true) {
					gen = genBlob
					break
				}
				s.evictions++
				b.evictions.Add(1)
				if n++; n%coldPiece == 0 {
					s.settle()
					s.mu.Unlock()
					s.mu.Lock()
				}
			}
		}
		s.compactAll()
		s.settle()
		s.mu.Unlock()
	}
	return n
}

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
	// coldRounds says which series are cold besides being in generation 3:
	// since they were written last, their bucket took as many points as would
	// give this many to each of its series. Where there are more series than
	// points in an age cycle, a series can be in generation 3 between two
	// scrapes.
	coldRounds = 16
)

// overflowCold moves cold series into blobs while less than an eighth of the
// budget is free, the smallest first: they save the most for each byte moved.
func (c *Cache) overflowCold() {
	left := coldPerMaintain
	for range c.shards {
		s := c.shards[c.coldNext.Add(1)%uint64(len(c.shards))]
		for more := true; more && left > 0 && c.memory.Room() < c.memory.Budget()/coldRoom; {
			var moved int
			var short bool
			s.mu.Lock()
			moved, more, short = s.overflowPiece(min(left, coldPiece))
			s.settle()
			s.mu.Unlock()
			left -= moved
			if short {
				more = moved > 0 && c.memory.EvictLog(int64(c.memory.RegionBytes()))
			}
		}
	}
}

// overflowPiece moves up to most cold series. It says how many it moved,
// whether there may be more, and whether it stopped for want of memory.
func (s *shard) overflowPiece(most int) (moved int, more, short bool) {
	for class := range sizeClasses {
		for b := range s.lists {
			bucket := s.cache.bucket(uint16(b))
			for {
				id := s.oldestClean(b, class)
				if id == noID || !bucket.cold(s.cache.ageCycle, s.recs.view[id].touched) {
					break
				}
				if moved == most {
					return moved, true, false
				}
				if !s.overflow(id, false) {
					return moved, true, true
				}
				moved++
			}
		}
	}
	return moved, false, false
}

// oldestClean is the first series of a list that is not dirty, or noID.
func (s *shard) oldestClean(bucket, class int) uint32 {
	id := s.lists[bucket][class].oldest
	for range maxDirtyLooks {
		if id == noID || !s.isDirty(id) {
			return id
		}
		id = s.recs.view[id].newer
	}
	return noID
}

// cold reports whether a series that was written last at age touched is cold.
func (b *bucket) cold(ageCycle uint64, touched uint32) bool {
	ages := b.age.Load() - touched
	return ages >= 2 && uint64(ages)*ageCycle >= coldRounds*uint64(max(b.series.Load(), 0))
}

// coldestBlob is the series that has had nothing but a blob for the longest
// time, of the bucket in which it was written the longest ago, or noID.
func (s *shard) coldestBlob() uint32 {
	best, most := uint32(noID), uint32(0)
	for b := range s.lists {
		if id := s.oldestClean(b, classBlob); id != noID {
			if age := s.cache.bucket(uint16(b)).age.Load() - s.recs.view[id].touched; best == noID || age > most {
				best, most = id, age
			}
		}
	}
	return best
}
