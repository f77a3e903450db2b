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
	ids   offheap.Lookup // by fingerprint
	live  int            // series in use
	free  uint32         // first id that may be given again, chained by newer; noID if none
	tombs uint32         // first id that is dead in postings, chained by newer
	dead  int            // how many are
	// rebuildAt is the number of dead series below which a rebuild that found
	// no memory is not tried again.
	rebuildAt int
	lists     [][sizeClasses + 1]ends // by bucket id; the last is classBlob
}

// ends is a list of series; the coldest is the oldest.
type ends struct{ oldest, newest uint32 }

func newRoster(m *kvcache.Memory) roster {
	return roster{recs: offheap.NewVector[series](m), ids: offheap.NewLookup(m), free: noID, tombs: noID}
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

func (s *roster) listOfLocked(bucket uint16) *[sizeClasses + 1]ends {
	for len(s.lists) <= int(bucket) {
		var none [sizeClasses + 1]ends
		for i := range none {
			none[i] = ends{noID, noID}
		}
		s.lists = append(s.lists, none)
	}
	return &s.lists[bucket]
}

// listLocked puts a series at the young end of its list. It is as young as the
// one that is there, at least: who let go of the lock on the way comes back
// with an age that others may have left behind.
func (s *roster) listLocked(id uint32) {
	r := s.recs.At(id)
	r.class = listClass(r)
	l := &s.listOfLocked(r.bucket)[r.class]
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

func (s *roster) unlistLocked(id uint32) {
	r := s.recs.At(id)
	l := &s.listOfLocked(r.bucket)[r.class]
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

// relistLocked moves a series whose size changed, as it was written, to its
// class.
func (s *roster) relistLocked(id uint32) {
	if r := s.recs.At(id); r.class != listClass(r) {
		s.unlistLocked(id)
		s.listLocked(id)
	}
}

// touchLocked marks a series as written at its bucket's present age.
func (s *roster) touchLocked(id uint32, age uint32) {
	s.unlistLocked(id)
	s.recs.At(id).touched = age
	s.listLocked(id)
}
