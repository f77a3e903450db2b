package mcache

import "mcached/mcache/index"

// rebuildLocked writes the index anew without dead series, whose ids are then
// free. On an error the old one stays.
func (s *shard) rebuildLocked() error {
	fresh := index.New(s.cache.memory, s.cache.hasher)
	old := &s.index
	ids := make([]uint32, 0, 16)
	// First all sets, so that a failure leaves the descriptors as they are.
	places := make([]uint32, s.recs.Len())
	for id := range s.recs.All() {
		r := s.recs.At(uint32(id))
		if r.flags&flagInUse == 0 {
			continue
		}
		ids = ids[:0]
		for _, p := range old.Set(r.pairs, int(r.nPairs)) {
			n, err := fresh.Copy(old, p)
			if err != nil {
				fresh.Free()
				return err
			}
			ids = append(ids, n)
		}
		place, err := fresh.PutSet(ids)
		if err == nil {
			err = fresh.Post(uint32(id), ids)
		}
		if err != nil {
			fresh.Free()
			return err
		}
		places[id] = place
	}
	for id := range s.recs.All() {
		if r := s.recs.At(uint32(id)); r.flags&flagInUse != 0 {
			r.pairs = places[id]
		}
	}
	old.Free()
	s.index = fresh
	s.forgetPairsLocked()
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
