package kvcache

import (
	"sync"
	"unsafe"
)

// shard is one partition of a Cache: the records whose hash ends in its
// number, under one lock. It is an Owner of regions of class Log.
type shard struct {
	c *Cache
	m *Memory

	mu     sync.Mutex
	logs   [2]*Tables // the records, see logs.go; see recordWeight for what their sums count
	policy policy
	places places
	dir    directory
	count  counters

	sweepNext uint32 // the next segment of the pass under way
	sweeping  bool   // a pass is under way

	expireNext int // where in the list of regions the next sweep begins

	touched uint32 // keeps what hold reads from being optimised away
}

// counters of one shard; all only grow. CacheStats says what they are.
type counters struct {
	hits, misses               uint64
	puts, inPlace, deletes     uint64
	evicted, expired, regions  uint64
	reinserted, compacted      uint64
	promoted, returned, spared uint64
	waited, refused            uint64
	grown, shrunk, stayed      uint64
	passes                     uint64
}

// hash says where a record is:
//
//	63               32 31    25 24  22 21         10 9         0
//	┌──────────────────┬────────┬──────┬─────────────┬──────────┐
//	│ home (in header) │ tag    │      │ segment     │ shard    │
//	└──────────────────┴────────┴──────┴─────────────┴──────────┘
type hash uint64

const (
	shardBits = 10
	tagShift  = 25
)

func (h hash) home() uint32    { return uint32(h >> 32) }
func (h hash) tag() uint8      { return max(uint8(h>>tagShift)&tagMask, 1) }
func (h hash) segment() uint32 { return uint32(h) >> shardBits & (segments - 1) }

// found is where a record is; p is nil if it is nowhere.
type found struct {
	x    *index
	i    uint32
	slot int
	p    unsafe.Pointer
}

func (f *found) line() *line { return &f.x.lines[f.i] }
func (f *found) ref() uint32 { return f.line().refs[f.slot] }

func (s *shard) segmentLocked(h hash) *index {
	return s.dir.at(h.segment())
}

// findLocked looks a key up, expired or not. It reads one line of the index
// for most misses, and one line and one record for most hits.
func (s *shard) findLocked(h hash, key []byte) found {
	x := s.segmentLocked(h)
	f := found{x: x}
	if len(x.lines) == 0 {
		return f
	}
	home, tag := h.home(), h.tag()
	i := x.home(home)
	for try := 0; ; try++ {
		l := &x.lines[i]
		for set := l.match(tag); set != 0; set &= set - 1 {
			slot := slotOf(set)
			p := s.places.at(l.refs[slot])
			if p == nil || (*(*header)(p)).owner() != home || string(recordKey(p)) != string(key) {
				continue
			}
			f.i, f.slot, f.p = i, slot, p
			return f
		}
		if try == 1 || l.displaced() == 0 {
			return f
		}
		i = x.other(i, tag)
	}
}

// getLocked is findLocked for callers that want no expired record; it removes one.
func (s *shard) getLocked(h hash, key []byte) found {
	f := s.findLocked(h, key)
	if f.p != nil && s.expiredLocked(f.p) {
		s.count.expired++
		s.removeLocked(&f)
	}
	return f
}

func (s *shard) expiredLocked(p unsafe.Pointer) bool {
	ms := recordExpiry(p)
	return ms != 0 && ms <= s.c.nowMs()
}

// removeLocked takes a record out of index and table.
func (s *shard) removeLocked(f *found) {
	ref := s.places.long(f.ref())
	weight := weightOf(f.p)
	s.abandonLocked(f.p)
	f.x.erase(f.i, f.slot)
	s.logOfLocked(ref).Free(ref, weight)
	f.p = nil
}

// abandonLocked makes orphans of a record's parts, if it has any.
func (s *shard) abandonLocked(p unsafe.Pointer) {
	if isManifest(p) {
		s.c.orphan(readManifest(recordValue(p)))
	}
}

// storeLocked writes a record over the one found, or anew. It returns 0, or
// how many bytes must be evicted for it to succeed; then nothing has changed.
// The value may be a view of the record found.
func (s *shard) storeLocked(f *found, h hash, key []byte, e *Entry) (needBytes int64) {
	if f.p == nil {
		return s.writeLocked(f, h, key, e)
	}
	if s.replaceLocked(f, e) {
		return 0
	}
	if !isManifest(f.p) {
		return s.writeLocked(f, h, key, e)
	}
	was := readManifest(recordValue(f.p))
	needBytes = s.writeLocked(f, h, key, e)
	if needBytes == 0 && (e.Kind != kindManifest || readManifest(e.Value) != was) {
		s.c.orphan(was)
	}
	return needBytes
}

// replaceLocked writes the value of the record found anew if that is all that
// changes: a string over a string, both with an expiry or both without, in the
// same units. It is what most writes to a full cache are. The key stands already.
func (s *shard) replaceLocked(f *found, e *Entry) bool {
	old := *(*header)(f.p)
	aux := old.aux()
	keyLen := int(aux & auxKeyLen)
	if keyLen == 0 || e.Kind != String || aux&auxExpires != 0 != (e.ExpiresMs != 0) {
		return false // zero: the length and perhaps a kind stand in the record
	}
	first := headerBytes + keyLen
	if e.ExpiresMs != 0 {
		first += expiryBytes
	}
	units := unitsOf(first - headerBytes + len(e.Value))
	if units != old.units() {
		return false
	}
	copy(unsafe.Slice((*byte)(unsafe.Add(f.p, first)), len(e.Value)), e.Value)
	if e.ExpiresMs != 0 {
		*(*int64)(unsafe.Add(f.p, headerBytes)) = e.ExpiresMs
		s.places.expires(f.ref(), e.ExpiresMs)
	}
	if pad := padOf(first - headerBytes + len(e.Value)); pad != old.pad() {
		ref := s.places.long(f.ref())
		s.logOfLocked(ref).repad(ref, pad)
		*(*header)(f.p) = makeHeader(units, pad, aux, old.owner())
	}
	f.line().touch(f.slot)
	s.count.inPlace++
	return true
}

// writeLocked is storeLocked, whatever becomes of the parts of what was there.
func (s *shard) writeLocked(f *found, h hash, key []byte, e *Entry) (needBytes int64) {
	n := recordBytes(len(key), len(e.Value), e.Kind, e.ExpiresMs != 0)
	aux := recordAux(len(key), e.Kind, e.ExpiresMs != 0)
	var t *Tables
	if f.p != nil {
		if old := (*header)(f.p); old.aux() == aux && old.units() >= unitsOf(n) {
			s.overwriteLocked(f, h, key, e, n)
			return 0
		}
		t = s.logOfLocked(s.places.long(f.ref()))
	} else if need := s.growLocked(f.x); need > 0 && f.x.used >= f.x.slots() {
		return need
	} else {
		f.x = s.segmentLocked(h) // it may have been split
		t = s.admitLocked(f.x, h, n)
	}
	regions := s.regionsLocked()
	weight := recordWeight(e.Kind, e.ExpiresMs != 0)
	ref, b, ok := t.Alloc(n, aux, h.home(), weight)
	if !ok {
		return int64(s.m.regionBytes)
	}
	writeRecord(b, key, e)
	short := s.places.short(ref)
	switch {
	case f.p != nil:
		old, oldWeight := s.places.long(f.ref()), weightOf(f.p)
		f.line().refs[f.slot] = short
		f.line().touch(f.slot)
		t.Free(old, oldWeight)
	case !s.insertLocked(f.x, h, short):
		t.Free(ref, weight)
		return int64(f.x.span.Len())*5/4 + MinRegionBytes
	}
	s.noteExpiryLocked(short, e.ExpiresMs)
	if s.regionsLocked() > regions {
		s.beginCompactionLocked()
		s.passLocked(1 + len(s.dir.indexes)/minGone)
	}
	s.compactLocked(compactPart * (headerBytes + n))
	return 0
}

// overwriteLocked writes a record of n bytes, no more than the one found has, in its
// place: no address changes, and the log does not grow. What is left over is
// dead. The record stays as old as it was, so the write counts as a read does.
func (s *shard) overwriteLocked(f *found, h hash, key []byte, e *Entry, n int) {
	ref, old := s.places.long(f.ref()), (*header)(f.p)
	writeRecord(unsafe.Slice((*byte)(unsafe.Add(f.p, headerBytes)), n), key, e)
	if unitsOf(n) < old.units() {
		s.logOfLocked(ref).shorten(ref, n)
	} else if pad := padOf(n); pad != old.pad() {
		s.logOfLocked(ref).repad(ref, pad)
	}
	*old = makeHeader(unitsOf(n), padOf(n), old.aux(), h.home())
	s.noteExpiryLocked(f.ref(), e.ExpiresMs)
	f.line().touch(f.slot)
	s.count.inPlace++
}

// compactPart is how many bytes a write moves, for each that it adds, while
// there is something to compact: a region that is worth it is a quarter dead,
// so that three are moved for each that is freed, and one is for progress.
const compactPart = 4

// compactLocked goes on with a compaction, if there is one. It reports whether
// there is more to do.
func (s *shard) compactLocked(maxBytes int) (more bool) {
	for _, t := range s.logs {
		if !t.compacting() {
			continue
		}
		if !t.compactSome(maxBytes) {
			more = t.compacting() || more
			continue
		}
		s.count.compacted++
		more = t.beginCompaction() || more
	}
	return more
}

// beginCompactionLocked reports whether there is something to compact.
func (s *shard) beginCompactionLocked() (begun bool) {
	for _, t := range s.logs {
		begun = t.beginCompaction() || begun
	}
	return begun
}

func (s *shard) noteExpiryLocked(ref uint32, ms int64) {
	if ms != 0 {
		s.places.expires(ref, ms)
	}
}

func (s *shard) insertLocked(x *index, h hash, ref uint32) bool {
	if x.insert(h.home(), h.tag(), ref, 0, &s.places) {
		return true
	}
	// Hardly ever: both lines of all the records in a full line are full.
	if x.resize(len(x.lines)+len(x.lines)/4, &s.places) != nil {
		s.count.stayed++
		return false
	}
	s.count.grown++
	return x.insert(h.home(), h.tag(), ref, 0, &s.places)
}

// stayInserts is how often an index that could not grow is written before it
// tries again, which takes a look at all of it.
const stayInserts = 512

// growLocked makes room in an index that is nearly full. It returns the bytes
// that were refused it, if any: the index is then fuller than it should be.
func (s *shard) growLocked(x *index) (needBytes int64) {
	limit := x.slots() * maxLoadPercent / 100
	if x.used < limit {
		return 0
	}
	if x.stay > 0 && x.used < x.slots() {
		x.stay--
		return 0
	}
	if len(x.lines) > 0 {
		x.sweep(&s.places)
		if x.used < limit*7/8 {
			return 0
		}
	}
	n := len(x.lines) + max(len(x.lines)/4, 1)
	var err error
	if s.dir.splits(x) {
		err = s.dir.split(x, &s.places, func(record unsafe.Pointer) uint32 { return s.c.hash(recordKey(record)).segment() })
	} else {
		err = x.resize(n, &s.places)
	}
	if err != nil {
		s.count.stayed++
		x.stay = stayInserts
		return int64(pagesOf(n)+2) * MinRegionBytes
	}
	s.count.grown++
	return 0
}

// passLocked goes on with, or begins, a pass over the indexes that erases the
// addresses in places whose regions are gone.
func (s *shard) passLocked(indexes int) {
	if !s.sweeping {
		if !s.places.due() {
			return
		}
		s.places.beginPass()
		s.sweeping, s.sweepNext = true, 0
	}
	// An index that is split meanwhile loses what vanished by that, and its
	// halves have the same segments: none is missed.
	for ; indexes > 0 && s.sweepNext < segments; indexes-- {
		x := s.dir.at(s.sweepNext)
		x.sweep(&s.places)
		s.sweepNext = x.end()
	}
	if s.sweepNext == segments {
		s.places.endPass()
		s.sweeping = false
		s.count.passes++
	}
}

// openedLocked is called by Tables when a region begins.
func (s *shard) openedLocked(r Region) {
	if s.places.full() {
		// A pass may be under way that noted too little: end it, and make another.
		for s.places.full() {
			if !s.sweeping {
				s.places.beginPass()
				s.sweeping, s.sweepNext = true, 0
			}
			s.passLocked(segments)
		}
	}
	s.places.add(r, s.c.nowMs())
	s.policy.single = s.regionsLocked() < minLogRegions
}

// movedLocked is called by Tables when compaction moved a record.
func (s *shard) movedLocked(_ uint16, home uint32, from, to Ref) int {
	h := s.c.hash(recordKey(s.m.at(to)))
	x := s.segmentLocked(h)
	i, slot, ok := x.findRef(home, h.tag(), s.places.short(from))
	if !ok {
		panic("kvcache: a live record that is not in the index")
	}
	short := s.places.short(to)
	x.lines[i].refs[slot] = short
	s.noteExpiryLocked(short, recordExpiry(s.m.at(to)))
	return weightOf(s.m.at(to))
}
