package mcache

import "math/bits"

// Every series is in one list: that of its bucket and its size class, in the
// order of the bucket's age at its last write. The generation of a series is
// how many times its bucket has aged since,
//
//	generation = 1 + min(2, age − touched)
//
// so that ageing is one addition, and the coldest of each class stands first.

// sizeClasses are powers of two of the bytes a series has allocated.
const sizeClasses = 24

func sizeClass(n uint32) uint8 { return uint8(min(bits.Len32(n), sizeClasses-1)) }

// generation of a series that was written last at age touched.
func generation(age, touched uint32) int { return 1 + int(min(2, age-touched)) }

func (s *shard) listOf(bucket uint16) *[sizeClasses + 1]ends {
	for len(s.lists) <= int(bucket) {
		var none [sizeClasses + 1]ends
		for i := range none {
			none[i] = ends{noID, noID}
		}
		s.lists = append(s.lists, none)
	}
	return &s.lists[bucket]
}

// list puts a series at the young end of its list. It is as young as the one
// that is there, at least: who let go of the lock on the way comes back with an
// age that others may have left behind.
func (s *shard) list(id uint32) {
	r := s.recs.At(id)
	r.class = listClass(r)
	l := &s.listOf(r.bucket)[r.class]
	r.older, r.newer = l.newest, noID
	if l.newest != noID {
		newest := s.recs.At(l.newest)
		newest.newer = id
		if r.class != classBlob {
			r.touched = max(r.touched, newest.touched)
		}
	} else {
		l.oldest = id
	}
	l.newest = id
}

func (s *shard) unlist(id uint32) {
	r := s.recs.At(id)
	l := &s.listOf(r.bucket)[r.class]
	if r.older != noID {
		s.recs.At(r.older).newer = r.newer
	} else {
		l.oldest = r.newer
	}
	if r.newer != noID {
		s.recs.At(r.newer).older = r.older
	} else {
		l.newest = r.older
	}
}

// relist moves a series whose size changed, as it was written, to its class.
func (s *shard) relist(id uint32) {
	if r := s.recs.At(id); r.class != listClass(r) {
		s.unlist(id)
		s.list(id)
	}
}

// touch marks a series as written at its bucket's present age.
func (s *shard) touch(id uint32, age uint32) {
	s.unlist(id)
	s.recs.At(id).touched = age
	s.list(id)
}

// genBlob stands, behind the generations, for the series that have nothing but
// a blob. They are the last that eviction turns to.
const genBlob = 0

// maxDirtyLooks is how many dirty series eviction steps over in one list: the
// caller of write-back is called for instead.
const maxDirtyLooks = 16

// coldest is the largest series of generation gen, by class, or noID. Series
// with points that the downstream store has not got are none.
func (s *shard) coldest(gen int) uint32 {
	if gen == genBlob {
		return s.coldestBlob()
	}
	for class := sizeClasses - 1; class >= 0; class-- {
		for b := range s.lists {
			age := s.ageLocked(s.cache.bucket(uint16(b)))
			id := s.lists[b][class].oldest
			for range maxDirtyLooks {
				if id == noID || generation(age, s.recs.At(id).touched) != gen {
					break
				}
				if !s.isDirty(id) {
					return id
				}
				s.cache.kickNow()
				id = s.recs.At(id).newer
			}
		}
	}
	return noID
}

// evict makes the cache fit its maximum: keys of generation 3, then 2, then 1
// leave, the largest first, one shard after the other. With blobs, what they
// hold stays in these, and if that was not enough, those that have nothing but
// a blob leave, which gives back little. It is called without locks.
func (c *Cache) evict() {
	if limit := c.maxBytes.Load(); limit > 0 {
		c.evictTo(limit, c.blobs)
	}
}

// evictTo evicts until no more than limit bytes are allocated. With blobs,
// they take what they can.
func (c *Cache) evictTo(limit int64, blobs bool) {
	for gen := 3; gen >= genBlob; gen-- {
		if c.evictOf(gen, limit, blobs) {
			return
		}
	}
}

// evictOf is evictTo for one generation. It reports whether that was enough.
func (c *Cache) evictOf(gen int, limit int64, blobs bool) bool {
	if c.allocated() <= limit {
		return true
	}
	for idle := 0; idle < len(c.shards); {
		s := c.shards[c.cursor.Add(1)%uint64(len(c.shards))]
		if blobs && s.overflowOne(gen) || s.evictOne(gen) {
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

// evictOne hands the coldest key of the generation to the overflow function.
func (s *shard) evictOne(gen int) bool {
	s.mu.Lock()
	id := s.coldest(gen)
	if id == noID {
		s.mu.Unlock()
		return false
	}
	var o Overflow
	overflow := s.cache.overflow
	if s.recs.At(id).flags&flagShadow != 0 {
		overflow = nil // start times alone are nothing to hand on
	}
	if overflow != nil {
		o = s.export(id)
	}
	s.overflowed += uint64(s.points(id))
	s.evictions++
	s.cache.bucket(s.recs.At(id).bucket).evictions.Add(1)
	if overflow == nil { // else it is somewhere else now
		s.noteGone(s.recs.At(id))
	}
	s.remove(id)
	s.tidy()
	s.settle()
	s.mu.Unlock()
	if overflow != nil {
		overflow(o)
	}
	return true
}

// points is how many points the series holds now, its start times included.
func (s *shard) points(id uint32) uint32 {
	r := s.recs.At(id)
	s.prune(r)
	n := r.points + uint32(s.pointsInBlob(r))
	if shadow := s.shadow(r); shadow != noID {
		n += s.points(shadow)
	}
	return n
}
