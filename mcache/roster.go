package mcache

import (
	"math/bits"

	"mcached/kvcache"
	"mcached/kvcache/offheap"
)

// roster says which series a shard has: their descriptors by id, the lookup
// from fingerprint to id, the lists that eviction goes by, and the ids that are
// free or tombstones.
type roster struct {
	recs  offheap.Vector[series]
	after offheap.Vector[uint8] // by id: how far behind the next id is what is written next, see guessLocked
	ids   offheap.Lookup        // by fingerprint
	live  int                   // series in use
	free  uint32                // first id that may be given again, chained by newer; noID if none
	tombs uint32                // first id that is dead in postings, chained by newer
	dead  int                   // how many are
	// rebuildAt is the number of dead series below which a rebuild that found
	// no memory is not tried again.
	rebuildAt int
	lists     [][sizeClasses + 1]list // by bucket id; the last is classBlob
}

func newRoster(m *kvcache.Memory) roster {
	return roster{recs: offheap.NewVector[series](m), after: offheap.NewVector[uint8](m), ids: offheap.NewLookup(m), free: noID, tombs: noID}
}

// findLocked returns the id of the series with the fingerprint f, or noID.
func (s *roster) findLocked(f Fingerprint) uint32 {
	id := s.ids.First(f.tag())
	if id == noID || s.recs.At(id).fp == f {
		return id
	}
	// Another series has the same tag.
	return s.ids.Find(f.tag(), func(id uint32) bool { return s.recs.At(id).fp == f })
}

// The generation of a series is how many times its bucket has aged since the
// last write to it,
//
//	generation = 1 + min(2, age − touched)
//
// so that ageing is one addition, and to write is to store the age. Every series
// is in one list, that of its bucket and its size class, and there in the queue
// of the generation in which it was listed. A write does not move it: eviction
// does, when it finds the series first in a queue that is none of its generation
// any more (oldestLocked). It moves each at most once in two ages, and none
// while there is memory.

// sizeClasses are powers of two of the bytes a series has allocated.
const sizeClasses = 24

func sizeClass(n uint32) uint8 { return uint8(min(bits.Len32(n), sizeClasses-1)) }

// generation of a series that was written last at age touched.
func generation(age, touched uint32) int { return 1 + int(min(2, age-touched)) }

// list is the series of one bucket and class. Those in a queue are of its
// generation as of the age, or of a younger one if they were written since they
// were put there. classBlob has only the last queue.
type list struct {
	age  uint32
	gens [3]queue // of generation 1, 2 and 3
}

// queue is a number of series in the order in which they were put there.
type queue struct{ oldest, newest uint32 }

var (
	noSeries = queue{noID, noID}
	noList   = list{gens: [3]queue{noSeries, noSeries, noSeries}}
)

// firstSeries is one of the list's series, or noID.
func (l *list) firstSeries() uint32 {
	for _, q := range l.gens {
		if q.oldest != noID {
			return q.oldest
		}
	}
	return noID
}

// queueEndingAt is the queue that the series is the first or the last of.
func (l *list) queueEndingAt(id uint32) *queue {
	for k := range l.gens {
		if q := &l.gens[k]; q.oldest == id || q.newest == id {
			return q
		}
	}
	panic("mcache: a series at the end of no queue")
}

// arrangeLocked makes the queues those of the generations at that age.
func (s *roster) arrangeLocked(l *list, age uint32) {
	if l.firstSeries() == noID {
		l.age = age // a bucket whose place is used again begins anew
		return
	}
	if int32(age-l.age) <= 0 {
		return
	}
	hot, warm, cold := l.gens[0], l.gens[1], &l.gens[2]
	s.joinLocked(cold, warm)
	if l.gens[0], l.gens[1] = noSeries, hot; age-l.age > 1 {
		l.gens[1] = noSeries
		s.joinLocked(cold, hot)
	}
	l.age = age
}

// joinLocked puts all of the queue behind those of q.
func (s *roster) joinLocked(q *queue, behind queue) {
	switch {
	case behind == noSeries:
	case *q == noSeries:
		*q = behind
	default:
		s.recs.At(q.newest).newer = behind.oldest
		s.recs.At(behind.oldest).older = q.newest
		q.newest = behind.newest
	}
}

func (s *roster) listOfLocked(r *series) *list {
	for len(s.lists) <= int(r.bucket) {
		var none [sizeClasses + 1]list
		for i := range none {
			none[i] = noList
		}
		s.lists = append(s.lists, none)
	}
	return &s.lists[r.bucket][r.class]
}

// listLocked puts a series last in the queue of its class and its generation.
func (s *roster) listLocked(id uint32) {
	r := s.recs.At(id)
	r.class = listClass(r)
	l := s.listOfLocked(r)
	s.arrangeLocked(l, r.touched)
	q := &l.gens[2]
	if r.class != classBlob {
		q = &l.gens[generation(l.age, r.touched)-1]
	}
	r.older, r.newer = q.newest, noID
	if q.newest != noID {
		s.recs.At(q.newest).newer = id
	} else {
		q.oldest = id
	}
	q.newest = id
}

func (s *roster) unlistLocked(id uint32) {
	r := s.recs.At(id)
	if r.older != noID {
		s.recs.At(r.older).newer = r.newer
	} else {
		s.listOfLocked(r).queueEndingAt(id).oldest = r.newer
	}
	if r.newer != noID {
		s.recs.At(r.newer).older = r.older
	} else {
		s.listOfLocked(r).queueEndingAt(id).newest = r.older
	}
}

// relistLocked moves a series whose size changed to its class.
func (s *roster) relistLocked(id uint32) {
	if r := s.recs.At(id); r.class != listClass(r) {
		s.unlistLocked(id)
		s.listLocked(id)
	}
}

// touchLocked marks a series as written at that age of its bucket. Who let go
// of the lock on the way comes with an age that others may have left behind.
func (s *roster) touchLocked(id uint32, age uint32) {
	r := s.recs.At(id)
	r.touched = max(r.touched, age)
	if r.flags&flagBlob != 0 && r.class == classBlob { // which is by time
		s.unlistLocked(id)
		s.listLocked(id)
	}
}
