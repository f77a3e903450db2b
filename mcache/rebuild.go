package mcache

import (
	"errors"
	"fmt"

	"mcached/kvcache"
	"mcached/mcache/index"
)

// An index does not become smaller when series are evicted: postings still list them,
// as tombstones. It is written anew without them when they are many, beside the old one
// for the time that this takes. Where indexes are nearly all that there is, as in a
// memory that is full of series of few samples, there is no room beside: then it is
// written to memory of its own first, which is given back when it has been written
// to that of the old one.

// maxAsideBytes bounds that memory, which is no part of the budget: the index of a
// shard of some half a million series, one shard at a time.
const maxAsideBytes = 64 << 20

// asideBytesLocked is how much of it the index wants: spans grow by more than they need.
func (s *shard) asideBytesLocked() int64 { return 2*s.index.Bytes() + 1<<20 }

// rebuildLocked writes the index anew without dead series, whose ids are then
// free. On an error the old one stays.
func (s *shard) rebuildLocked() error {
	places := make([]index.Place, s.recs.Len())
	fresh, err := s.copyIndexLocked(s.cache.memory, places)
	switch {
	case err == nil:
		s.adoptIndexLocked(fresh, places)
	case s.dirty > 0 || !errors.Is(err, kvcache.ErrNoMemory): // what is dirty must not be risked
		return err
	default:
		if err := s.rebuildAsideLocked(places); err != nil {
			return err
		}
	}
	for s.tombs != noID {
		id := s.tombs
		s.tombs = s.recs.At(id).newer
		s.recs.At(id).newer = s.free
		s.free = id
	}
	s.dead = 0
	s.rebuilds++
	return nil
}

// rebuildAsideLocked does it by way of other memory. If others are sooner to take what
// the old index had, the shard is left without a series.
func (s *shard) rebuildAsideLocked(places []index.Place) error {
	bytes := s.asideBytesLocked()
	if bytes > maxAsideBytes || !s.cache.asideMu.TryLock() {
		return fmt.Errorf("%w to write an index of %d bytes anew", ErrNoMemory, s.index.Bytes())
	}
	defer s.cache.asideMu.Unlock()
	aside, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: bytes, ReserveBytes: bytes, RegionBytes: kvcache.MinRegionBytes, ReadyRegions: -1})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoMemory, err)
	}
	defer aside.Close()
	fresh, err := s.copyIndexLocked(aside, places)
	if err != nil {
		return err
	}
	s.adoptIndexLocked(fresh, places)
	fresh, err = s.copyIndexLocked(s.cache.memory, places)
	if err != nil {
		s.dropAllLocked()
		return err
	}
	s.adoptIndexLocked(fresh, places)
	return nil
}

// copyIndexLocked makes an index of the living in m, and says in places where the set
// of each series is in it.
func (s *shard) copyIndexLocked(m *kvcache.Memory, places []index.Place) (fresh index.Index, err error) {
	fresh = index.New(m, s.cache.hasher)
	defer func() {
		if err != nil {
			fresh.Free()
		}
	}()
	old := &s.index
	ids := make([]uint32, 0, 16)
	for id := range s.recs.All() {
		r := s.recs.At(uint32(id))
		if r.flags&flagInUse == 0 {
			continue
		}
		ids = ids[:0]
		for _, p := range old.Set(r.pairs, int(r.nPairs)) {
			n, err := fresh.Copy(old, p)
			if err != nil {
				return fresh, err
			}
			ids = append(ids, n)
		}
		if places[id], err = fresh.PutSet(ids); err != nil {
			return fresh, err
		}
		if err = fresh.Post(uint32(id), ids); err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

// adoptIndexLocked puts an index in the place of the old one.
func (s *shard) adoptIndexLocked(fresh index.Index, places []index.Place) {
	for id := range s.recs.All() {
		if r := s.recs.At(uint32(id)); r.flags&flagInUse != 0 {
			r.pairs = places[id]
		}
	}
	s.index.Free()
	s.index = fresh
	s.forgetPairsLocked()
}

// thinOut evicts a quarter of a shard's series, the coldest, if indexes are nearly all
// there is and most of the shard's is in use, and writes that anew: what comes takes
// their places, and the index need not grow. If little of it is in use, so that the
// shard wants memory for something else, it does so with the largest of the others. It
// reports whether that was done.
//
// Those that have nothing but a blob go first here, as they are the coldest, and their
// part of the index is no smaller than that of others.
func (c *Cache) thinOut(s *shard) bool {
	if !c.mostlyIndexes(thinShare) {
		return false
	}
	most := s.denseSeries()
	if most == 0 {
		for _, other := range c.shards {
			if n := other.denseSeries(); n > most {
				s, most = other, n
			}
		}
	}
	n := 0
	for _, gen := range [...]int{genBlob, 3, 2, 1} {
		for n < most/4 && s.evictOne(gen) {
			n++
		}
	}
	if n == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead*5 > s.live && s.rebuildLocked() != nil {
		return false
	}
	s.compactAllLocked()
	s.publishLocked()
	return true
}

// denseSeries is how many series a shard has, or 0 if most of its index is unused or it
// is too large to be written anew aside.
func (s *shard) denseSeries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(s.live) <= s.recs.Len()/2 || s.asideBytesLocked() > maxAsideBytes {
		return 0
	}
	return int(s.live)
}
