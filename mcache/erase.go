package mcache

import (
	"sort"

	"mcached/mcache/block"
)

// Delete removes what a series holds from from to to, both inclusive, in ms,
// and returns how many points those were. A series that has gone has none.
// The error is ErrNoMemory, when some may be left: what stays of a sealed
// block has to be written anew.
func (c *Cache) Delete(sid SeriesID, from, to int64) (points int, err error) {
	for tries := 0; ; tries++ {
		s, r, id := c.lockSeries(sid)
		if s == nil {
			return points, nil
		}
		s.changedLocked(r, from)
		// To delete is to write: what changes its size moves to the young end of its list.
		age := s.ageLocked(c.bucket(r.bucket))
		s.touchLocked(id, age)
		if shadow := s.shadowLocked(r); shadow != noID {
			s.touchLocked(shadow, age)
		}
		before := s.erased
		ok := s.eraseBlobLocked(id, from, to) && s.eraseSamplesLocked(id, from, to) && s.eraseRecordsLocked(id, from, to)
		points += int(s.erased - before)
		if shadow := s.shadowLocked(r); ok && shadow != noID {
			ok = s.eraseBlobLocked(shadow, from, to) && s.eraseSamplesLocked(shadow, from, to)
		}
		if ok && r.points == 0 && r.flags&flagBlob == 0 {
			s.erased += uint64(s.pointsLocked(id)) // start times that outlived their samples
			s.noteLostLocked(r)
			s.removeLocked(id)
		}
		s.publishLocked()
		s.mu.Unlock()
		if ok {
			return points, nil
		}
		if tries >= roomTries || !c.makeRoom(s, tries) {
			return points, ErrNoMemory
		}
	}
}

// eraseBlobLocked frees the blob if all of it goes, and restores it if a part
// does.
func (s *shard) eraseBlobLocked(id uint32, from, to int64) bool {
	r := s.recs.At(id)
	s.pruneBlobLocked(r)
	o, ok := s.blobOfLocked(r)
	if !ok || from > o.Last || to < o.First() {
		return true
	}
	if from > o.First() || to < o.Last {
		return s.restoreLocked(id)
	}
	s.erased += uint64(o.Points)
	s.freeBlobLocked(r)
	s.relistLocked(id)
	return true
}

// eraseSamplesLocked takes out the samples from from to to, both inclusive. It
// may stop half way, and report false, when there is no memory.
func (s *shard) eraseSamplesLocked(id uint32, from, to int64) bool {
	r := s.recs.At(id)
	s.pruneLocked(r)
	if r.head != 0 && r.headLen() > 0 && r.headLast() >= from {
		s.eraseHeadLocked(r, from, to)
	}
	if from > r.sealedEnd {
		return true
	}
	k := max(sort.Search(int(r.dirLen), func(i int) bool { return s.dirOfLocked(r)[i].start > from })-1, 0)
	for ; k < int(r.dirLen) && s.dirOfLocked(r)[k].start <= to; k++ {
		gone, left, ok := s.eraseBlockLocked(id, k, from, to)
		if !ok {
			return false
		}
		r.points -= uint32(gone)
		s.erased += uint64(gone)
		if left == 0 {
			k--
		}
	}
	s.relistLocked(id)
	return true
}

func (s *shard) eraseHeadLocked(r *series, from, to int64) {
	p := s.hot.Pointer(r.head)
	old := headSamples(s.samples[:0], r, p)
	kept := s.samples2[:0]
	for _, x := range old {
		if x.T < from || x.T > to {
			kept = append(kept, x)
		}
	}
	gone := len(old) - len(kept)
	if gone == 0 {
		return
	}
	l := layout{mode: modePairs, size: int(r.size) * 8}
	if len(kept) > 0 {
		var ok bool
		if l, ok = layHead(kept, r.step, l.size); !ok || l.size != int(r.size)*8 {
			panic("mcache: part of a head does not fit where the whole did")
		}
	}
	r.setHead(p, l, kept)
	s.hot.AddWeight(r.head, -gone)
	r.points -= uint32(gone)
	s.erased += uint64(gone)
}

// eraseBlockLocked takes samples out of block k and says how many went and are
// left.
func (s *shard) eraseBlockLocked(id uint32, k int, from, to int64) (gone, left int, ok bool) {
	r := s.recs.At(id)
	n := s.decodeBlockLocked(s.dirOfLocked(r)[k])
	kept := s.joined[:0]
	for _, x := range s.block1[:n] {
		if x.T < from || x.T > to {
			kept = append(kept, x)
		}
	}
	if len(kept) == n {
		return 0, n, true
	}
	last := k == int(r.dirLen)-1
	var es []dirEntry
	partial := false
	if len(kept) > 0 {
		if es, partial, ok = s.storeAllLocked(id, kept, kept[0].T, block.MaxSamples, last); !ok {
			return 0, n, false
		}
	}
	s.releaseLocked(r, k, n)
	s.dirReplaceLocked(r, k, 1, es...)
	if last {
		r.setPartial(partial)
	}
	return n - len(kept), len(kept), true
}
