package kvcache

import "math"

// compaction is one that was begun: the live entries of victim up to unit have
// been moved. The victim may vanish at any time, which its epoch tells.
type compaction struct {
	victim Region // or noRegion
	epoch  uint32
	unit   uint32
}

// Compact moves the live entries out of the region that has the most dead
// bytes and releases it, if the set as a whole has more dead bytes than
// slackBytes and a quarter of what it has filled. That region is then at least a
// quarter dead itself: each byte freed is paid for by at most three moved, and
// whoever calls until it reports false is left with no more dead bytes than
// that. It reports whether it did; the caller, who holds the lock, decides how
// often to call.
func (t *Tables) Compact() bool {
	return t.beginCompaction() && t.compactSome(math.MaxInt)
}

// beginCompaction chooses a region. It reports whether there is one, or one
// was begun before. compactSome does the work.
func (t *Tables) beginCompaction() bool {
	if t.compacting() {
		return true
	}
	dead := t.fill - t.live
	if dead <= t.slackBytes() || dead*4 < t.fill {
		return false
	}
	victim, most := noRegion, uint32(t.m.regionBytes/4-1)
	for _, r := range t.list {
		b := &t.m.tables[r]
		if r != t.cur && r != t.old && b.fill-b.live > most {
			victim, most = r, b.fill-b.live
		}
	}
	if victim == noRegion {
		return false
	}
	t.work = compaction{victim: victim, epoch: t.m.regions[victim].epoch.Load()}
	return true
}

// slackBytes of dead entries are left alone whatever their share. A log is
// written on and on, and its regions die by themselves; other sets may stay as
// they are for long, with places that nothing of their size asks for.
func (t *Tables) slackBytes() int64 {
	if t.class == Log {
		return int64(t.m.regionBytes)
	}
	return int64(t.m.regionBytes / 16)
}

// compacting reports whether a compaction was begun that can go on.
func (t *Tables) compacting() bool {
	return t.work.victim != noRegion && t.m.regions[t.work.victim].epoch.Load() == t.work.epoch
}

// compactSome moves up to about maxBytes of entries out of the region chosen,
// to t.old, whose place in age is before the victim that made it necessary. It
// reports whether it came to the end and released the region. If it has no
// memory, the compaction is given up.
func (t *Tables) compactSome(maxBytes int) bool {
	w := &t.work
	for w.unit*unitBytes < t.m.tables[w.victim].fill {
		if maxBytes <= 0 {
			return false
		}
		from := makeRef(w.epoch, w.victim, w.unit)
		h := *t.m.head(from)
		w.unit += h.units()
		maxBytes -= headerBytes
		if !h.live() {
			continue
		}
		if !t.evacuate(from, h) {
			w.victim = noRegion
			return false
		}
		maxBytes -= int(h.bytes())
	}
	victim := w.victim
	w.victim = noRegion
	t.dropRegion(victim)
	return true
}

// evacuate moves one entry.
func (t *Tables) evacuate(from Ref, h header) bool {
	to, dst, ok := t.allocInto(&t.old, from.region(), forMoved, int(h.value()), h.aux(), h.owner(), 0)
	if !ok {
		return false
	}
	copy(dst, t.Value(from))
	weight := int64(t.moved(h.aux(), h.owner(), from, to))
	*t.m.head(from) &^= liveBit
	b, into := &t.m.tables[from.region()], &t.m.tables[to.region()]
	into.weight += weight
	into.written = max(into.written, b.written)
	b.live -= h.bytes()
	b.pad -= h.pad()
	b.weight -= weight
	t.live -= int64(h.bytes())
	t.pad -= int64(h.pad())
	return true
}
