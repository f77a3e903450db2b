package kvcache

import (
	"math/bits"
	"unsafe"
)

// place numbers one region of a shard. An index has 32 bits for an address;
// counting a shard's own regions rather than all of the Memory's, those reach
// 32 GiB a shard:
//
//	31                            0
//	┌───────────────┬──────────────┐
//	│ place         │ unit         │  the border depends on the region size
//	└───────────────┴──────────────┘
//
// An address has no epoch. It is kept from reading another region's bytes by
// one rule: a place whose region is gone is empty, reads as a miss, and is
// given to another region only after a pass over all of the shard's indexes
// has erased every address in it.
type places struct {
	m           *Memory
	unitBits    uint8
	regionShift uint8
	max         int // places that 32-bit addresses can have

	region []uint32 // by place: the region plus 1, or 0 if it is gone
	expiry []int64  // by place: no record of it expires before this (Unix ms); 0 if none expires
	opened []int64  // by place: when its region was begun (Unix ms)
	free   []uint32 // places without a region and without an address to them
	gone   []uint32 // places without a region; addresses to them may exist

	swept int // of gone, these were there when the pass under way began
}

// minGone is how many places a shard keeps waiting for a pass at least, so
// that a pass is worth its time.
const minGone = 16

func newPlaces(m *Memory) places {
	unitBits := bits.TrailingZeros(uint(m.regionBytes / unitBytes))
	return places{
		m:           m,
		unitBits:    uint8(unitBits),
		regionShift: uint8(bits.TrailingZeros(uint(m.regionBytes))),
		max:         min(1<<(32-unitBits), maxRegions),
	}
}

// at is the address of the record's header, or nil if its region is gone.
func (p *places) at(ref uint32) unsafe.Pointer {
	r := p.region[ref>>p.unitBits]
	if r == 0 {
		return nil
	}
	return unsafe.Add(p.m.base, uintptr(r-1)<<p.regionShift+uintptr(ref&(1<<p.unitBits-1))*unitBytes)
}

// live reports whether the region of ref still exists.
func (p *places) live(ref uint32) bool { return p.region[ref>>p.unitBits] != 0 }

// long is the epoch-checked address of a live ref.
func (p *places) long(ref uint32) Ref {
	r := Region(p.region[ref>>p.unitBits] - 1)
	return makeRef(p.m.regions[r].epoch.Load(), r, ref&(1<<p.unitBits-1))
}

// short is the 32-bit form of an address in a region that has a place.
func (p *places) short(ref Ref) uint32 {
	return p.m.tables[ref.region()].place<<p.unitBits | ref.unit()
}

// full reports that a region cannot be given a place before a pass.
func (p *places) full() bool { return len(p.free) == 0 && len(p.region) == p.max }

// add gives the region a place. There is one; see full.
func (p *places) add(r Region, nowMs int64) {
	var n uint32
	if last := len(p.free) - 1; last >= 0 {
		n, p.free = p.free[last], p.free[:last]
	} else {
		n = uint32(len(p.region))
		p.region, p.expiry, p.opened = append(p.region, 0), append(p.expiry, 0), append(p.opened, 0)
	}
	if p.region[n] != 0 {
		panic("kvcache: place in use given away")
	}
	p.region[n], p.expiry[n], p.opened[n] = uint32(r)+1, 0, nowMs
	p.m.tables[r].place = n
}

// retire empties the place of a region that is about to be released.
func (p *places) retire(r Region) {
	n := p.m.tables[r].place
	p.region[n] = 0
	p.gone = append(p.gone, n)
}

// due reports that enough places wait for a pass to begin one.
func (p *places) due() bool {
	return len(p.gone) >= max(minGone, (len(p.region)-len(p.gone)-len(p.free))/4)
}

// beginPass notes which places are empty now. Addresses to them cannot be
// made any more, so that one pass finds all there are.
func (p *places) beginPass() { p.swept = len(p.gone) }

// endPass makes the places noted available again.
func (p *places) endPass() {
	p.free = append(p.free, p.gone[:p.swept]...)
	p.gone = append(p.gone[:0], p.gone[p.swept:]...)
	p.swept = 0
}

// clear forgets everything; no index holds an address any more.
func (p *places) clear() {
	p.region, p.expiry, p.opened, p.free, p.gone, p.swept = nil, nil, nil, nil, nil, 0
}

// expires notes that a record at ref expires at ms.
func (p *places) expires(ref uint32, ms int64) {
	if e := &p.expiry[ref>>p.unitBits]; *e == 0 || ms < *e {
		*e = ms
	}
}
