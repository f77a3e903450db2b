package kvcache

import (
	"math/bits"
	"unsafe"
)

// line is one cache line of an index: the addresses of up to 12 records.
type line struct {
	// tags are 7 bits of each record's hash, never 0, and a bit that says
	// that the record is displaced: in the other one of its two lines. The
	// whole is 0 where there is no record.
	tags [lineSlots]uint8
	// meta counts in its upper 8 bits the displaced records whose home this
	// is. Below are 2 bits for each slot: how often the record was read.
	meta uint32
	refs [lineSlots]uint32
}

const (
	lineSlots = 12
	lineBytes = 64
	displaced = 0x80
	tagMask   = 0x7f

	maxFrequency  = 3
	maxDisplaced  = 255
	displacedUnit = 1 << 24
	frequencyBits = displacedUnit - 1

	pageLines = MinRegionBytes / lineBytes

	_ = uint(lineBytes-unsafe.Sizeof(line{})) + uint(unsafe.Sizeof(line{})-lineBytes)
)

// match returns a set of slots whose tag is the one given; 0 matches vacant
// ones. Bit 8k stands for slot k, bit 8k+1 for slot k+8; see slotOf.
func (l *line) match(tag uint8) uint64 {
	const low7, high = 0x7f7f7f7f7f7f7f7f, 0x8080808080808080
	t := uint64(tag) * 0x0101010101010101
	// A byte below 0x80 plus 0x7f has its high bit clear only if it was 0,
	// and carries nothing into the next.
	a := (*(*uint64)(unsafe.Pointer(&l.tags[0])) ^ t) & low7
	b := (uint64(*(*uint32)(unsafe.Pointer(&l.tags[8]))) ^ t) & (low7 >> 32)
	return ^(a+low7)&high>>7 | ^(b+low7>>32)&(high>>32)>>6
}

// slotOf is the first slot of a set that match returned.
func slotOf(set uint64) int {
	n := bits.TrailingZeros64(set)
	return n>>3 + n&1<<3
}

func (l *line) displaced() uint32         { return l.meta >> 24 }
func (l *line) frequency(slot int) uint32 { return l.meta >> (2 * uint(slot)) & 3 }
func (l *line) setFrequency(slot int, f uint32) {
	l.meta = l.meta&^(3<<(2*uint(slot))) | f<<(2*uint(slot))
}

// touch counts a read, up to maxFrequency.
func (l *line) touch(slot int) {
	if one := uint32(1) << (2 * uint(slot)); l.meta/one&3 < maxFrequency {
		l.meta += one
	}
}

// index finds the records of one segment by hash. A record is in its home
// line or, displaced, in the one other line that its home and tag give. The
// other line of the other line is the home, so that a record moves without
// being read. Homes grow with the upper half of the hash, whatever the number
// of lines, which makes that half a cursor that survives growth.
//
// An index holds addresses of records that vanished with their regions, too.
// Inserting takes their slots, and passes erase them.
type index struct {
	span  Span
	lines []line // a view of span
	// ghosts are the rest of the span; see ghostLine.
	ghosts []ghostLine
	// haunted says that there has been a ghost since these lines were made. Before,
	// as while a cache fills, they are not read: their pages are not even there.
	haunted bool
	used    int // slots taken, by vanished records, too

	// stay is how many more inserts go by before it is tried again to grow,
	// after the kernel or the budget refused.
	stay int

	depth  uint8  // how many bits of the segment it is for
	prefix uint16 // which ones
}

// An index grows when it is fuller than maxLoad and is then loaded to about
// four fifths of that; it shrinks when it is emptier than minLoad.
// 64 B / (12 × 0.92) = 5.8 B a record at best, 7.3 after growth.
const (
	maxLoadPercent = 92
	minLoadPercent = 35
)

func (x *index) slots() int { return len(x.lines) * lineSlots }

// home is the line where a record belongs.
func (x *index) home(hash uint32) uint32 {
	return uint32(uint64(hash) * uint64(len(x.lines)) >> 32)
}

// other is the second line of a record that has i as its first or, the other
// way round, the first if i is the second.
func (x *index) other(i uint32, tag uint8) uint32 {
	n := uint32(len(x.lines))
	k := uint32(uint64(uint32(tag)*0x9E3779B1) * uint64(n) >> 32)
	if k >= i {
		return k - i
	}
	return k + n - i
}

// insert adds an address that is not there yet. It reports false when there
// is no slot, and then the index must grow.
func (x *index) insert(hash uint32, tag uint8, ref, frequency uint32, p *places) bool {
	if len(x.lines) == 0 {
		return false
	}
	home := x.home(hash)
	if slot := x.vacancy(home, p); slot >= 0 {
		x.set(home, slot, tag, ref, frequency)
		return true
	}
	other := x.other(home, tag)
	if other != home && x.lines[home].displaced() < maxDisplaced {
		if slot := x.vacancy(other, p); slot >= 0 {
			x.set(other, slot, tag|displaced, ref, frequency)
			x.lines[home].meta += displacedUnit
			return true
		}
	}
	if slot := x.makeRoom(home, p); slot >= 0 {
		x.set(home, slot, tag, ref, frequency)
		return true
	}
	if other != home && x.lines[home].displaced() < maxDisplaced {
		if slot := x.makeRoom(other, p); slot >= 0 {
			x.set(other, slot, tag|displaced, ref, frequency)
			x.lines[home].meta += displacedUnit
			return true
		}
	}
	if slot := x.makeRoomFar(home, p); slot >= 0 {
		x.set(home, slot, tag, ref, frequency)
		return true
	}
	return false
}

// makeRoom moves one record of a full line to its other one, and returns the
// slot, or -1. Near maxLoad more than half of the lines are full, and those of
// the records in them that are displaced have full homes.
func (x *index) makeRoom(i uint32, p *places) int {
	for slot := range lineSlots {
		if to, ok := x.movable(i, slot); ok {
			if free := x.vacancy(to, p); free >= 0 {
				x.move(i, slot, to, free)
				return slot
			}
		}
	}
	return -1
}

// makeRoomFar is makeRoom over one more line, for the one in ten thousand
// inserts for which both lines could not make room.
func (x *index) makeRoomFar(i uint32, p *places) int {
	for slot := range lineSlots {
		if to, ok := x.movable(i, slot); ok {
			if free := x.makeRoom(to, p); free >= 0 {
				x.move(i, slot, to, free)
				return slot
			}
		}
	}
	return -1
}

// movable is where a record would move to.
func (x *index) movable(i uint32, slot int) (to uint32, ok bool) {
	l := &x.lines[i]
	tag := l.tags[slot]
	to = x.other(i, tag&tagMask)
	return to, to != i && (tag&displaced != 0 || l.displaced() < maxDisplaced)
}

func (x *index) move(i uint32, slot int, to uint32, free int) {
	l := &x.lines[i]
	tag, ref, frequency := l.tags[slot], l.refs[slot], l.frequency(slot)
	x.erase(i, slot)
	x.set(to, free, tag^displaced, ref, frequency)
	if tag&displaced == 0 {
		l.meta += displacedUnit
	}
}

// vacancy is a free slot of the line or -1. In a full line, a record that
// vanished makes one.
func (x *index) vacancy(i uint32, p *places) int {
	l := &x.lines[i]
	if set := l.match(0); set != 0 {
		return slotOf(set)
	}
	for slot, ref := range l.refs {
		if !p.live(ref) {
			x.erase(i, slot)
			return slot
		}
	}
	return -1
}

func (x *index) set(i uint32, slot int, tag uint8, ref, frequency uint32) {
	l := &x.lines[i]
	l.tags[slot], l.refs[slot] = tag, ref
	l.setFrequency(slot, frequency)
	x.used++
}

// erase empties a slot that is taken.
func (x *index) erase(i uint32, slot int) {
	l := &x.lines[i]
	if tag := l.tags[slot]; tag&displaced != 0 {
		x.lines[x.other(i, tag&tagMask)].meta -= displacedUnit
	}
	l.tags[slot] = 0
	l.setFrequency(slot, 0)
	x.used--
}

// findRef is the slot that holds the address given.
func (x *index) findRef(hash uint32, tag uint8, ref uint32) (i uint32, slot int, ok bool) {
	if len(x.lines) == 0 {
		return 0, 0, false
	}
	i = x.home(hash)
	for range 2 {
		l := &x.lines[i]
		for set := l.match(tag); set != 0; set &= set - 1 {
			if slot = slotOf(set); l.refs[slot] == ref {
				return i, slot, true
			}
		}
		i = x.other(i, tag)
	}
	return 0, 0, false
}

// sweep erases the addresses of vanished records.
func (x *index) sweep(p *places) {
	for i := range x.lines {
		for slot, tag := range x.lines[i].tags {
			if tag != 0 && !p.live(x.lines[i].refs[slot]) {
				x.erase(uint32(i), slot)
			}
		}
	}
}

// pagesOf is how many pages an index of at least n lines takes, with its ghosts.
func pagesOf(n int) int {
	const each = pageLines * (ghostWhole - ghostParts)
	return (n*ghostWhole + each - 1) / each
}

// grow makes the span of an empty index n pages long.
func (x *index) grow(pages int) error {
	if err := x.span.Grow(pages * MinRegionBytes); err != nil {
		return err
	}
	all := View[line](&x.span)
	n := len(all) - ghostLines(len(all))
	x.lines, x.ghosts, x.haunted = all[:n:n], View[ghostLine](&x.span)[n:], false
	return nil
}

// resize moves the addresses of what lives to an index of about n lines, more
// if it must. The error is ErrNoMemory; the index is then as it was.
func (x *index) resize(n int, p *places) error {
	for {
		to := index{span: p.m.NewSpanFor(x.span.account), depth: x.depth, prefix: x.prefix}
		if err := to.grow(pagesOf(n)); err != nil {
			return err
		}
		if x.moveTo(p, func(unsafe.Pointer) *index { return &to }) {
			to.inheritGhosts(x)
			x.span.Free()
			*x = to
			return nil
		}
		to.span.Free()
		n += n/4 + 1
	}
}

// moveTo inserts what lives into the indexes that to chooses. It reports false
// if one of them is full.
func (x *index) moveTo(p *places, to func(record unsafe.Pointer) *index) bool {
	var homes [lineSlots]uint32
	var records [lineSlots]unsafe.Pointer
	for i := range x.lines {
		l := &x.lines[i]
		// All headers first: most are not in the processor's cache, and reads
		// that do not wait for one another take a tenth of the time.
		taken := 0
		for slot, tag := range l.tags {
			if tag == 0 {
				continue
			}
			if at := p.at(l.refs[slot]); at != nil {
				homes[slot], records[slot] = (*(*header)(at)).owner(), at
				taken |= 1 << slot
			}
		}
		for slot, tag := range l.tags {
			if taken>>slot&1 != 0 && !to(records[slot]).insert(homes[slot], tag&tagMask, l.refs[slot], l.frequency(slot), p) {
				return false
			}
		}
	}
	return true
}

// clear gives the lines back.
func (x *index) clear() {
	x.span.Free()
	x.lines, x.ghosts, x.haunted, x.used = nil, nil, false, 0
}
