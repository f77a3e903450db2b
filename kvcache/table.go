package kvcache

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"
)

// Ref is an epoch-checked address of an entry: it reads as a miss once the
// entry's region was released, and stays so. Zero is no entry.
//
//	63            39 38             19 18             0
//	┌───────────────┬─────────────────┬────────────────┐
//	│ epoch (25)    │ region (20)     │ unit (19)      │  unit: 8 bytes, the entry's header
//	└───────────────┴─────────────────┴────────────────┘
type Ref uint64

func makeRef(epoch uint32, r Region, unit uint32) Ref {
	return Ref(epoch)<<(unitBits+regionBits) | Ref(r)<<unitBits | Ref(unit)
}

func (f Ref) unit() uint32   { return uint32(f) & (1<<unitBits - 1) }
func (f Ref) region() Region { return Region(f>>unitBits) & (1<<regionBits - 1) }
func (f Ref) epoch() uint32  { return uint32(f >> (unitBits + regionBits)) }

// header is the 8 bytes before each entry's value.
//
//	63                  32 31      23 22    20 19   18          0
//	┌─────────────────────┬──────────┬────────┬────┬─────────────┐
//	│ owner (32)          │ aux (9)  │ pad (3)│live│ units (19)  │
//	└─────────────────────┴──────────┴────────┴────┴─────────────┘
//
// units counts the whole entry, header included, less one; pad is how many
// bytes at its end the value does not use. owner and aux belong to the caller.
type header uint64

const (
	headerBytes = 8
	liveBit     = 1 << 19

	// MaxAux bounds the caller's small number in a header.
	MaxAux = 1<<9 - 1
)

func makeHeader(units, pad uint32, aux uint16, owner uint32) header {
	return header(owner)<<32 | header(aux)<<23 | header(pad)<<20 | liveBit | header(units-1)
}

func (h header) units() uint32 { return uint32(h)&(1<<19-1) + 1 }
func (h header) bytes() uint32 { return h.units() * unitBytes }
func (h header) live() bool    { return h&liveBit != 0 }
func (h header) pad() uint32   { return uint32(h>>20) & 7 }
func (h header) value() uint32 { return h.bytes() - headerBytes - h.pad() }
func (h header) aux() uint16   { return uint16(h>>23) & MaxAux }
func (h header) owner() uint32 { return uint32(h >> 32) }

// table is what is known of one PackedTable: a region filled from its start
// with entries. At all times live + dead + free == RegionBytes, where
// free = RegionBytes − fill and dead = fill − live. Its owner's lock guards it.
type table struct {
	fill    uint32 // bytes written, the next entry's place
	live    uint32 // bytes of entries not freed, headers included
	pad     uint32 // of those, bytes that no value uses
	weight  int64  // sum of what the caller attached to the live entries
	pos     uint32 // index in Tables.list
	place   uint32 // the blob cache's number for the region
	written uint32 // the greatest stamp under which anything in it was written
	log     uint8  // which of its owner's sets it is in: Tables.log
	order   uint64 // of age within its set: the lowest is the oldest
}

// Tables is the growing set of PackedTables of one shard. Entries are written
// in sequence into the current region; a freed entry is dead until
// its whole region dies or is compacted, which moves the live ones out. Sets
// that are no log give the place of a small dead entry to the next one of its
// size, and a region of the older half that takes one becomes the youngest.
//
// A Tables has no lock; every call is made under its owner's. Values that it
// returns are views of region memory: they are valid until the next call on
// the same Tables or until the lock is released, whichever is first.
type Tables struct {
	m     *Memory
	owner int
	class Class
	moved func(aux uint16, owner uint32, from, to Ref) (weight int)

	// opened and closed, if set, are told of each region that is begun and of
	// each that is about to be released.
	opened, closed func(r Region)

	// reuse leads to the dead entries of each size in units, the one that died
	// last first; each holds the Ref of the next. It is empty for logs, whose
	// entries are in order of time. Where a region went a list ends early: what
	// was behind it is found by compaction only.
	reuse     []Ref
	reuseOpen bool // see ReuseOpen

	stamp  uint32 // see SetStamp
	log    uint8  // the owner's number for this set, noted at each region
	order  uint64 // of the youngest region
	cur    Region // where entries go
	old    Region // where compaction puts the survivors, in age before the young
	list   []Region
	work   compaction
	live   int64 // bytes, over all regions
	fill   int64
	pad    int64
	weight int64
}

// NewTables returns an empty set for the registered owner. Compaction calls
// moved for every entry that it moves, after the bytes are in place; moved
// puts the new address where the old one was and returns the entry's weight.
func NewTables(m *Memory, owner int, class Class, moved func(aux uint16, owner uint32, from, to Ref) (weight int)) *Tables {
	t := &Tables{m: m, owner: owner, class: class, moved: moved, cur: noRegion, old: noRegion, work: compaction{victim: noRegion}}
	if class != Log {
		t.reuse = make([]Ref, reuseUnits)
	}
	return t
}

// ReuseOpen gives the place of a dead entry to another one only in the region that
// entries go to now. It is for entries that are all replaced by larger ones,
// about in the order in which they were made: their regions die as a whole, unless
// new ones come to lie between them. It is called before the first Alloc.
func (t *Tables) ReuseOpen() { t.reuseOpen = true }

// reusable reports whether a place in the region may be given to another entry.
func (t *Tables) reusable(r Region) bool { return r == t.cur || !t.reuseOpen }

// reuseUnits bounds the size of entries whose places are used again: 512 bytes and a header.
const reuseUnits = 66

// TablesStats is a reading of a Tables, in bytes. Live+Dead+Free is Regions × RegionBytes.
type TablesStats struct {
	Regions                         int
	LiveBytes, DeadBytes, FreeBytes int64
	PaddingBytes                    int64 // of the live ones: up to 7 behind each value
	Weight                          int64
}

// Stats reads the sums.
func (t *Tables) Stats() TablesStats {
	return TablesStats{
		Regions:      len(t.list),
		LiveBytes:    t.live,
		DeadBytes:    t.fill - t.live,
		FreeBytes:    int64(len(t.list))*int64(t.m.regionBytes) - t.fill,
		PaddingBytes: t.pad,
		Weight:       t.weight,
	}
}

// MaxValue is the longest value an entry can have, in bytes.
func (t *Tables) MaxValue() int { return t.m.regionBytes - headerBytes }

// Alloc makes an entry with room for n bytes and returns its address and its
// bytes, which are not cleared. weight is added to the region's.
// It reports false when there is no memory; see ErrNoMemory for what to do.
// It never moves other entries: compaction is a call of its own.
func (t *Tables) Alloc(n int, aux uint16, owner uint32, weight int) (Ref, []byte, bool) {
	return t.allocInto(&t.cur, noRegion, forNew, n, aux, owner, weight)
}

// AllocMoved is Alloc for an entry that is moved to free the rest of its
// region: it may use the region that Memory keeps for that.
func (t *Tables) AllocMoved(n int, aux uint16, owner uint32, weight int) (Ref, []byte, bool) {
	return t.allocInto(&t.cur, noRegion, forMoved, n, aux, owner, weight)
}

// unitsOf is the size in units of an entry with a value of n bytes, padOf the
// bytes at its end that the value does not use.
func unitsOf(n int) uint32 { return uint32(headerBytes+n+unitBytes-1) / unitBytes }
func padOf(n int) uint32   { return unitsOf(n)*unitBytes - headerBytes - uint32(n) }

func (t *Tables) allocInto(into *Region, before Region, what roomFor, n int, aux uint16, owner uint32, weight int) (Ref, []byte, bool) {
	if n < 0 || n > t.MaxValue() || aux > MaxAux {
		panic(fmt.Sprintf("kvcache: entry of %d bytes (limit %d), aux %d (limit %d)", n, t.MaxValue(), aux, MaxAux))
	}
	units := unitsOf(n)
	size := units * unitBytes
	if into == &t.cur && int(units) < len(t.reuse) && t.reuse[units] != 0 {
		if ref, b, ok := t.allocDead(units, n, aux, owner, weight); ok {
			return ref, b, true
		}
	}
	if *into == noRegion || t.m.tables[*into].fill+size > uint32(t.m.regionBytes) {
		r, ok := t.m.acquire(t.owner, t.class, before, what)
		if !ok {
			return 0, nil, false
		}
		full := *into
		*into = r
		t.m.tables[r] = table{pos: uint32(len(t.list)), log: t.log, order: t.orderBefore(before)}
		t.list = append(t.list, r)
		if t.opened != nil {
			t.opened(r)
		}
		if full != noRegion && t.m.tables[full].live == 0 {
			t.dropRegion(full) // it died while it was current
		}
	}
	b := &t.m.tables[*into]
	p := unsafe.Add(t.m.addr(*into), b.fill)
	*(*header)(p) = makeHeader(units, padOf(n), aux, owner)
	ref := makeRef(t.m.regions[*into].epoch.Load(), *into, b.fill/unitBytes)
	b.fill += size
	b.live += size
	b.pad += padOf(n)
	b.weight += int64(weight)
	if what == forNew {
		b.written = t.stamp
	}
	t.fill += int64(size)
	t.live += int64(size)
	t.pad += int64(padOf(n))
	t.weight += int64(weight)
	return ref, unsafe.Slice((*byte)(unsafe.Add(p, headerBytes)), n), true
}

// orderBefore is the order of a region that begins: youngest, or as old as the
// one before which it stands.
func (t *Tables) orderBefore(before Region) uint64 {
	if before != noRegion {
		return t.m.tables[before].order
	}
	t.order++
	return t.order
}

// oldest is the region of the lowest order among those that entries do not go
// to now, or noRegion.
func (t *Tables) oldest() Region {
	oldest := noRegion
	for _, r := range t.list {
		if r != t.cur && r != t.old && (oldest == noRegion || t.m.tables[r].order < t.m.tables[oldest].order) {
			oldest = r
		}
	}
	return oldest
}

// renew makes the region the youngest of the set. Its entries and their
// addresses stay as they are.
func (t *Tables) renew(r Region) { t.m.tables[r].order = t.orderBefore(noRegion) }

// RenewOpen makes the region that entries go to now the youngest of its class
// and account, as what is written last to it is: owners that fill a region
// slowly call it now and then, and the region then ages from there.
func (t *Tables) RenewOpen() {
	if t.cur != noRegion && t.m.renew(t.cur) {
		t.renew(t.cur)
	}
}

// shorten cuts a live entry to a value of n bytes and puts a dead entry where
// its rest was. The caller has written the value, and writes the header.
func (t *Tables) shorten(ref Ref, n int) {
	h := t.m.head(ref)
	units, rest := unitsOf(n), h.units()-unitsOf(n)
	p := unsafe.Add(unsafe.Pointer(h), uintptr(units)*unitBytes)
	*(*header)(p) = makeHeader(rest, 0, 0, 0) &^ liveBit
	if scrubFreed {
		scrub(unsafe.Slice((*byte)(unsafe.Add(p, headerBytes)), (rest-1)*unitBytes))
	}
	b := &t.m.tables[ref.region()]
	b.live -= rest * unitBytes
	t.live -= int64(rest) * unitBytes
	t.repad(ref, padOf(n))
}

// allocDead is alloc at the place of a dead entry of that many units.
func (t *Tables) allocDead(units uint32, n int, aux uint16, owner uint32, weight int) (Ref, []byte, bool) {
	ref := t.reuse[units]
	h := t.m.head(ref)
	if h == nil || !t.reusable(ref.region()) {
		t.reuse[units] = 0
		return 0, nil, false
	}
	p := unsafe.Add(unsafe.Pointer(h), headerBytes)
	t.reuse[units] = *(*Ref)(p)
	*h = makeHeader(units, padOf(n), aux, owner)
	b := &t.m.tables[ref.region()]
	b.live += units * unitBytes
	b.pad += padOf(n)
	b.weight += int64(weight)
	b.written = t.stamp
	t.renewReused(ref.region())
	t.live += int64(units * unitBytes)
	t.pad += int64(padOf(n))
	t.weight += int64(weight)
	return ref, unsafe.Slice((*byte)(p), n), true
}

// renewReused makes a region of the older half the youngest of its class, as a new
// entry has come to lie in it: who evicts the oldest entries one by one leaves places
// in the oldest regions, and what came last would go with these. Of the younger
// half none is renewed, so that this is done at most twice for each region in the
// time in which as many begin or are renewed as there are.
func (t *Tables) renewReused(r Region) {
	if t.order-t.m.tables[r].order > uint64(len(t.list)/2) && t.m.renew(r) {
		t.renew(r)
	}
}

// head is the entry's header, or nil when its region is gone.
func (m *Memory) head(ref Ref) *header {
	r := ref.region()
	if ref == 0 || m.regions[r].epoch.Load() != ref.epoch() {
		return nil
	}
	return (*header)(unsafe.Add(m.addr(r), uintptr(ref.unit())*unitBytes))
}

// at is head for callers that know the region to be there.
func (m *Memory) at(ref Ref) unsafe.Pointer { return unsafe.Pointer(m.head(ref)) }

// Value returns the entry's bytes, or nil when its region is gone. The entry
// must not have been freed: that, unlike a vanished region, the caller knows.
func (t *Tables) Value(ref Ref) []byte {
	h := t.m.head(ref)
	if h == nil {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerBytes)), h.value())
}

// Pointer is Value for callers that know the size: the address of the
// entry's first byte, 8-byte aligned, or nil when its region is gone.
func (t *Tables) Pointer(ref Ref) unsafe.Pointer {
	if !t.Live(ref) { // written so that callers can have it inlined
		return nil
	}
	return unsafe.Add(t.m.addr(ref.region()), uintptr(ref.unit())*unitBytes+headerBytes)
}

// Live reports whether the entry's region still exists.
func (t *Tables) Live(ref Ref) bool {
	return ref != 0 && t.m.regions[ref.region()].epoch.Load() == ref.epoch()
}

// Owns reports whether the region is still this set's, at the epoch given.
func (t *Tables) Owns(r Region, epoch uint32) bool {
	if t.m.regions[r].epoch.Load() != epoch {
		return false
	}
	pos := t.m.tables[r].pos
	return int(pos) < len(t.list) && t.list[pos] == r
}

// AddWeight changes the weight of a live entry's region. It is also how the
// caller says that it has written to the entry.
func (t *Tables) AddWeight(ref Ref, weight int) {
	b := &t.m.tables[ref.region()]
	b.weight += int64(weight)
	b.written = t.stamp
	t.weight += int64(weight)
}

// repad counts the padding of an entry whose value gets another length in the
// same room; the header is the caller's to write.
func (t *Tables) repad(ref Ref, pad uint32) {
	d := pad - t.m.head(ref).pad() // of either sign, modulo 2^32
	t.m.tables[ref.region()].pad += d
	t.pad += int64(int32(d))
}

// SetStamp sets what regions are marked with as they are written to. A stamp
// is never less than the one before it. What is moved keeps the stamp that it
// was written under, or the greater one of where it goes.
func (t *Tables) SetStamp(stamp uint32) { t.stamp = stamp }

// Written is the greatest stamp under which anything in the region was
// written. The region must be this set's.
func (t *Tables) Written(r Region) uint32 { return t.m.tables[r].written }

// Free makes the entry dead and takes its weight off. It does nothing when
// the entry's region is gone.
func (t *Tables) Free(ref Ref, weight int) {
	h := t.m.head(ref)
	if h == nil {
		return
	}
	if !h.live() {
		panic("kvcache: entry freed twice")
	}
	*h &^= liveBit
	if scrubFreed {
		scrub(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerBytes)), h.bytes()-headerBytes))
	}
	r := ref.region()
	b := &t.m.tables[r]
	size := h.bytes()
	b.live -= size
	b.pad -= h.pad()
	b.weight -= int64(weight)
	t.live -= int64(size)
	t.pad -= int64(h.pad())
	t.weight -= int64(weight)
	if b.live == 0 && r != t.cur && r != t.old {
		t.dropRegion(r)
	} else if units := size / unitBytes; units > 1 && int(units) < len(t.reuse) && t.reusable(r) {
		*(*Ref)(unsafe.Add(unsafe.Pointer(h), headerBytes)) = t.reuse[units]
		t.reuse[units] = ref
	}
}

// scrub is for builds with kvdebug. As a header it reads as an entry of 4 MiB.
func scrub(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}

// Drop forgets a region with all its entries, whatever they hold, and returns
// the weight they had. It takes the same time for any number of entries.
func (t *Tables) Drop(r Region) (weight int64) {
	weight = t.m.tables[r].weight
	t.dropRegion(r)
	return weight
}

func (t *Tables) dropRegion(r Region) {
	b := &t.m.tables[r]
	t.live -= int64(b.live)
	t.fill -= int64(b.fill)
	t.pad -= int64(b.pad)
	t.weight -= b.weight
	last := t.list[len(t.list)-1]
	t.list[b.pos] = last
	t.m.tables[last].pos = b.pos
	t.list = t.list[:len(t.list)-1]
	if t.cur == r {
		t.cur = noRegion
	}
	if t.old == r {
		t.old = noRegion
	}
	if t.closed != nil {
		t.closed(r)
	}
	if scrubFreed {
		scrub(unsafe.Slice((*byte)(t.m.addr(r)), t.m.regionBytes))
	}
	t.m.release(r)
}

// DropAll drops every region and returns the weight of all.
func (t *Tables) DropAll() (weight int64) {
	weight = t.weight
	for len(t.list) > 0 {
		t.dropRegion(t.list[len(t.list)-1])
	}
	return weight
}

// Entries calls f for every live entry, region by region in no set order,
// until f returns false. f must not call the Tables.
func (t *Tables) Entries(f func(ref Ref, aux uint16, owner uint32, value []byte) bool) {
	for _, r := range t.list {
		epoch := t.m.regions[r].epoch.Load()
		for unit := uint32(0); unit*unitBytes < t.m.tables[r].fill; {
			ref := makeRef(epoch, r, unit)
			h := *t.m.head(ref)
			unit += h.units()
			if h.live() && !f(ref, h.aux(), h.owner(), t.Value(ref)) {
				return
			}
		}
	}
}

// OldestOwners appends the owners of the live entries of the oldest region to
// dst, one for each entry. It leaves out the regions that entries go to now;
// there are none if there is no other.
func (t *Tables) OldestOwners(dst []uint32) []uint32 {
	oldest := noRegion
	t.m.mu.Lock()
	for _, r := range t.list {
		if r != t.cur && r != t.old && (oldest == noRegion || t.m.regions[r].serial < t.m.regions[oldest].serial) {
			oldest = r
		}
	}
	t.m.mu.Unlock()
	if oldest == noRegion {
		return dst
	}
	for at := uint32(0); at < t.m.tables[oldest].fill; {
		h := *(*header)(unsafe.Add(t.m.addr(oldest), at))
		at += h.bytes()
		if h.live() {
			dst = append(dst, h.owner())
		}
	}
	return dst
}

// Check walks everything and reports the first broken invariant.
func (t *Tables) Check() error {
	var live, fill, pad, weight int64
	for i, r := range t.list {
		b := &t.m.tables[r]
		if int(b.pos) != i {
			return fmt.Errorf("kvcache: region %d has place %d in the list, stands at %d", r, b.pos, i)
		}
		var l, p, at uint32
		for at < b.fill {
			h := *(*header)(unsafe.Add(t.m.addr(r), at))
			if h.live() {
				l += h.bytes()
				p += h.pad()
			}
			at += h.bytes()
		}
		if at != b.fill || b.fill > uint32(t.m.regionBytes) {
			return fmt.Errorf("kvcache: region %d: entries end at %d, fill is %d of %d", r, at, b.fill, t.m.regionBytes)
		}
		if l != b.live || p != b.pad {
			return fmt.Errorf("kvcache: region %d: %d bytes live, %d of them padding; counted %d, %d", r, l, p, b.live, b.pad)
		}
		live, fill, pad, weight = live+int64(l), fill+int64(b.fill), pad+int64(p), weight+b.weight
	}
	if live != t.live || fill != t.fill || pad != t.pad || weight != t.weight {
		return fmt.Errorf("kvcache: sums: live %d, fill %d, padding %d, weight %d; counted %d, %d, %d, %d",
			live, fill, pad, weight, t.live, t.fill, t.pad, t.weight)
	}
	if t.cur != noRegion && !slices.Contains(t.list, t.cur) {
		return fmt.Errorf("kvcache: current region %d is not in the list", t.cur)
	}
	return nil
}

// le is the byte order of everything in a region.
var le = binary.LittleEndian
