package kvcache

import "unsafe"

// ageChunk bounds how many records of an ageing region are looked at under
// one lock: at some 100 ns each, a tenth of a millisecond.
const ageChunk = 1024

// walk is a pass over the records of one region, in pieces under the lock.
type walk struct {
	r     Region
	epoch uint32
	unit  uint32 // where it goes on
}

func (s *shard) walkOf(r Region) walk {
	return walk{r: r, epoch: s.m.regions[r].epoch.Load()}
}

// AgeRegion makes Memory's Evict kinder than its SetBudget: of the region that
// the shard values least, records that were read are written again, up to
// three quarters of its bytes; the rest vanishes.
func (s *shard) AgeRegion(asked Region, epoch uint32) bool {
	s.mu.Lock()
	if !s.ownsLocked(asked, epoch) {
		s.mu.Unlock()
		return false
	}
	w := s.walkOf(asked)
	if v := s.victimLocked(); v != noRegion {
		w = s.walkOf(v)
	}
	s.closeLocked(w.r)
	s.mu.Unlock()

	kept := uint32(0)
	for more := true; more; {
		s.mu.Lock()
		more = s.ownsLocked(w.r, w.epoch) && s.ageLocked(&w, &kept)
		if !more && s.ownsLocked(w.r, w.epoch) {
			s.giveUpLocked(asked, epoch, w.r)
		}
		s.mu.Unlock()
	}
	return true
}

// closeLocked sees to it that nothing is written to a region any more that is
// about to go, unless what is kept of it has nowhere else to go.
func (s *shard) closeLocked(r Region) {
	t := s.logs[s.m.tables[r].log]
	if t == s.keepLogLocked() {
		return
	}
	if t.cur == r {
		t.cur = noRegion
	}
	if t.old == r {
		t.old = noRegion
	}
}

// victimLocked is the region to age, or noRegion if the shard is too small to
// choose. It lets go of the lock while it walks.
func (s *shard) victimLocked() Region {
	l := s.logs[lasting]
	look := s.policy.hot && s.policy.turnedAway >= s.m.regionBytes
	t := s.leastLocked()
	if (t == l || look) && !s.policy.single && l.oldest() != noRegion {
		s.policy.turnedAway = 0
		v := l.oldest()
		if s.policy.hot = s.hotLocked(v); !s.policy.hot {
			if v = l.oldest(); v != noRegion {
				return v
			}
		}
		// At most one second chance an eviction: then something has to go.
		if p := s.logs[probation]; p.oldest() != noRegion {
			t = p
		}
	}
	return s.firstLocked(t)
}

// hotLocked gives a region a second chance if it was nearly all read: each
// record's frequency falls by one, and the region is the youngest again. It
// reports whether it did. It lets go of the lock between pieces.
func (s *shard) hotLocked(r Region) bool {
	want := uint32(s.m.regionBytes / 4 * keepQuarters)
	w := s.walkOf(r)
	// What is not yet known to be unread could still have been read.
	could, read := s.m.tables[r].fill, uint32(0)
	for read < want {
		if could < want || !s.eachLocked(&w, func(l *line, slot int, h header, _ unsafe.Pointer) bool {
			if l.frequency(slot) > 0 {
				read += h.bytes()
			} else {
				could -= h.bytes()
			}
			return read < want && could >= want
		}) {
			break
		}
	}
	if read < want {
		return false
	}
	for w = s.walkOf(r); s.eachLocked(&w, func(l *line, slot int, _ header, _ unsafe.Pointer) bool {
		if f := l.frequency(slot); f > 0 {
			l.setFrequency(slot, f-1)
		}
		return true
	}); {
	}
	if s.logs[lasting].Owns(r, w.epoch) {
		s.logs[lasting].renew(r)
		s.count.spared++
	}
	return true
}

// eachLocked calls f for the next live records of the region that have not
// expired, and lets go of the lock for a moment. It reports whether there are more.
func (s *shard) eachLocked(w *walk, f func(l *line, slot int, h header, p unsafe.Pointer) bool) (more bool) {
	nowMs := s.c.nowMs()
	for range ageChunk {
		if w.unit*unitBytes >= s.m.tables[w.r].fill {
			return false
		}
		from, p, ok := s.step(w, nowMs)
		if !ok {
			continue
		}
		hd := *(*header)(p)
		l, slot := s.slotLocked(s.c.hash(recordKey(p)), from)
		if !f(l, slot, hd, p) {
			return false
		}
	}
	s.mu.Unlock()
	s.mu.Lock()
	return s.ownsLocked(w.r, w.epoch)
}

// step steps over the next record of the region. It is not ok if the record
// is dead or has expired.
func (s *shard) step(w *walk, nowMs int64) (_ Ref, p unsafe.Pointer, ok bool) {
	from := makeRef(w.epoch, w.r, w.unit)
	p = s.m.at(from)
	hd := *(*header)(p)
	w.unit += hd.units()
	if !hd.live() {
		return from, p, false
	}
	ms := recordExpiry(p)
	return from, p, ms == 0 || ms > nowMs
}

// slotLocked is where the index has a record that lives, of a key with that hash.
func (s *shard) slotLocked(h hash, ref Ref) (*line, int) {
	x := s.segmentLocked(h)
	i, slot, ok := x.findRef(h.home(), h.tag(), s.places.short(ref))
	if !ok {
		panic("kvcache: a live record that is not in the index")
	}
	return &x.lines[i], slot
}

// ageLocked writes records again from where w is on. It reports whether there
// are more.
func (s *shard) ageLocked(w *walk, kept *uint32) bool {
	onProbation := s.m.tables[w.r].log == probation
	t, to := s.logs[s.m.tables[w.r].log], s.keepLogLocked()
	if t == to && (w.r == t.cur || w.r == t.old) {
		return false // the youngest is the oldest: there is no place to write to
	}
	nowMs := s.c.nowMs()
	for range ageChunk {
		if w.unit*unitBytes >= s.m.tables[w.r].fill {
			return false
		}
		from, p, ok := s.step(w, nowMs)
		if !ok {
			continue
		}
		hd := *(*header)(p)
		h := s.c.hash(recordKey(p))
		l, slot := s.slotLocked(h, from)
		if l.frequency(slot) == 0 || *kept+hd.bytes() > uint32(s.m.regionBytes/4*keepQuarters) {
			if onProbation && !s.policy.single {
				s.segmentLocked(h).addGhost(h)
			}
			s.abandonLocked(p)
			continue
		}
		weight := weightOf(p)
		ref, dst, ok := to.AllocMoved(int(hd.value()), hd.aux(), hd.owner(), weight)
		if !ok {
			return false
		}
		copy(dst, t.Value(from))
		l.refs[slot] = s.places.short(ref)
		if frequency := l.frequency(slot); onProbation && !s.policy.single {
			l.setFrequency(slot, 0)
			s.count.promoted++
		} else {
			l.setFrequency(slot, frequency-1)
		}
		s.noteExpiryLocked(l.refs[slot], recordExpiry(s.m.at(ref)))
		*kept += hd.bytes()
		s.count.reinserted++
		t.Free(from, weight)
		if !t.Owns(w.r, w.epoch) {
			return false
		}
	}
	return true
}
