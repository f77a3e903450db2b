package index

import (
	"math"
	"math/bits"
	"slices"
	"unsafe"
)

// The pairs of a series lie in one of two forms, as words of four bytes. Most series
// have nearly the pairs of one that was made shortly before, the other series of a
// target: of these only what differs is stored.
//
//	whole    pair │ pair │ … │ pair                      n words, n the caller knows
//
//	derived  back (12) mask (20) │ pair │ … │ pair       1 + d words
//	          │         └─ bit i: pair i differs, and is the next of the d behind
//	          └─ words back from here to the base: a whole set, of n pairs, too
//
// Of twelve pairs, two of which differ, that is 12 bytes in place of 48.
//
// A derived set has the names of its base, in the same places. A base is always whole,
// so that two places are read at the most, and never more than 16 KiB away. Nothing is taken out of an index but by Free: a base is there for
// as long as what was derived from it, whether or not its series is. Who writes an
// index anew puts each set as a whole, and bases are chosen again.
//
// Which sets are bases: the last ones that were stored whole (bases), in the order of
// their last use. The first that differs in at most a sixth is taken, else the one that
// differs the least, up to half. But where sets keep differing less from the ones that were
// stored just before than from any base, as those of the next target do, the next is
// stored whole: as soon as what would have been spared is half a set. If there is no base,
// too, the set is stored whole, and is one.

// Place is where the pairs of a series are: a unit of four bytes, and in the lowest bit
// whether that is a derived set.
type Place uint32

// NoPlace is where nothing is.
const NoPlace Place = math.MaxUint32

const (
	derivedBit = 1

	maskBits = 20
	differs  = 1<<maskBits - 1
	maxBack  = 1<<(32-maskBits) - 1

	// keptBases are as many as there are senders whose series are made by turns, and
	// sets of labels that these have; lastSets are compared with what comes, to see
	// whether another base would be better.
	keptBases = 8
	lastSets  = 8
	// wholeWords are so few that nothing could be spared.
	wholeWords = 2
)

// bases are what sets are derived from.
type bases struct {
	of    group // keptBases
	units [keptBases]uint32
	order [keptBases]uint8 // numbers in of, the one that was used last first

	last   group    // lastSets
	next   uint     // of last, modulo lastSets
	stored []uint32 // the set stored last
	// regret is how many words would have been spared since the last whole set, had
	// what was stored before been bases.
	regret int
	set    [maskBits]uint32 // what Set returns, if it is derived
}

func newBases() (b bases) {
	for i := range b.order {
		b.order[i] = uint8(i)
	}
	return b
}

// group is eight sets that were stored, and in how many places each differs from the set
// that was stored last. That changes where the one stored last differs from the one
// before, which is in few places; and there all eight are compared at once, two in a word.
type group struct {
	pairs   [maskBits][8]uint32 // pair i of each: of set k in column(k)
	differ  [maskBits]uint64    // byte k: 1 if pair i of set k is not that of the set stored last
	sum     uint64              // of differ
	unlike  uint64              // byte k: moreThanAll if set k has not as many pairs, of the same names in the same places
	lengths [8]int              // in pairs; 0: there is none
}

const (
	_ = uint(8-keptBases) + uint(keptBases-8) // a group is eight
	_ = uint(8-lastSets) + uint(lastSets-8)

	moreThanAll = 0x80
)

func column(k int) int { return k%4*2 + k/4 }

// compare compares pair i of all with that of the set stored last.
func (g *group) compare(i int, pair uint32) {
	at, p := (*[4]uint64)(unsafe.Pointer(&g.pairs[i])), uint64(pair)<<32|uint64(pair)
	differ := unequal(at[0]^p) | unequal(at[1]^p)<<8 | unequal(at[2]^p)<<16 | unequal(at[3]^p)<<24
	g.sum += differ - g.differ[i]
	g.differ[i] = differ
}

// unequal is 1 in each half that is not 0.
func unequal(x uint64) uint64 {
	const ones, most = 1<<32 | 1, math.MaxInt32<<32 | math.MaxInt32
	return (x | (x&most + most)) >> 31 & ones
}

// distances says of each set in how many places it differs from the set stored last: in
// moreThanAll, or some more, if that cannot be derived from it.
func (g *group) distances() (d [8]uint8) {
	le.PutUint64(d[:], g.sum|g.unlike)
	return d
}

// put makes pairs, the set stored last, set k of the group.
func (g *group) put(k int, pairs []uint32) {
	c, others := column(k), ^(uint64(0xff) << (8 * k & 63))
	for i, p := range pairs {
		g.pairs[i][c] = p
		g.differ[i] &= others
	}
	g.sum &= others
	g.unlike &= others
	g.lengths[k] = len(pairs)
}

// PutSet stores the pairs of a series, none of them twice, and returns where they are.
// On an error nothing has changed.
func (x *Index) PutSet(pairs []uint32) (Place, error) {
	if err := x.sets.Reserve(4 * len(pairs)); err != nil {
		return 0, err
	}
	n := len(pairs)
	if n <= wholeWords || n > maskBits {
		return x.putWhole(pairs), nil
	}
	b := &x.bases
	x.compare(pairs)
	k := x.nearest(n)
	var p Place
	if k < 0 || b.regret >= n/2 {
		p = x.putWhole(pairs)
		at := b.use(keptBases - 1) // the one that was not used for longest gives way
		b.units[at] = uint32(p >> 1)
		b.of.put(at, pairs)
		b.regret = 0
	} else {
		unit := b.units[b.use(k)]
		p = x.putDerived(pairs, unit, difference(x.words()[unit:][:n], pairs))
	}
	b.last.put(int(b.next%lastSets), pairs)
	b.next++
	return p, nil
}

// use makes the base that is number k in order the first, and returns its number.
func (b *bases) use(k int) int {
	at := b.order[k]
	copy(b.order[1:k+1], b.order[:k])
	b.order[0] = at
	return int(at)
}

func (x *Index) putWhole(pairs []uint32) Place {
	unit := uint32(x.sets.Len() / 4)
	copy(x.takeWords(len(pairs)), pairs)
	return Place(unit << 1)
}

func (x *Index) putDerived(pairs []uint32, base, mask uint32) Place {
	unit := uint32(x.sets.Len() / 4)
	words := x.takeWords(1 + bits.OnesCount32(mask))
	words[0] = (unit-base)<<maskBits | mask
	for i := 1; mask != 0; mask &= mask - 1 {
		words[i] = pairs[bits.TrailingZeros32(mask)]
		i++
	}
	return Place(unit<<1 | derivedBit)
}

// compare makes pairs the set stored last.
func (x *Index) compare(pairs []uint32) {
	b := &x.bases
	changed, same := uint32(0), len(b.stored) == len(pairs)
	if same {
		changed = difference(b.stored, pairs)
		same = x.sameNames(b.stored, pairs, changed)
	}
	b.stored = append(b.stored[:0], pairs...)
	if !same {
		changed = 1<<len(pairs) - 1
		x.begin(&b.of)
		x.begin(&b.last)
	}
	for ; changed != 0; changed &= changed - 1 {
		i := bits.TrailingZeros32(changed)
		b.of.compare(i, pairs[i])
		b.last.compare(i, pairs[i])
	}
}

// begin finds out which sets of a group have the names of the set stored last, and
// forgets in which pairs they differ.
func (x *Index) begin(g *group) {
	g.sum, g.unlike, g.differ = 0, 0, [maskBits]uint64{}
	pairs := x.bases.stored
	for k := range g.lengths {
		alike := g.lengths[k] == len(pairs)
		for i := 0; i < len(pairs) && alike; i++ {
			p := g.pairs[i][column(k)]
			alike = p == pairs[i] || x.NameOf(p) == x.NameOf(pairs[i])
		}
		if !alike {
			g.unlike |= moreThanAll << (8 * k)
		}
	}
}

// nearest chooses the base to derive a set of n pairs from, which was compared: a number
// in order, or −1 for none. It adds to the regret.
func (x *Index) nearest(n int) (k int) {
	b, next := &x.bases, uint32(x.sets.Len()/4)
	k = -1
	least, distances := n/2+1, b.of.distances()
	for i, at := range b.order {
		if d := int(distances[at%8]); d < least && next-b.units[at%8] <= maxBack {
			if k, least = i, d; d <= max(n/6, 1) {
				return k
			}
		}
	}
	if k >= 0 {
		near := least
		distances = b.last.distances()
		for i := uint(1); i <= lastSets && near > n/6; i++ { // the youngest first
			near = min(near, int(distances[(b.next-i)%lastSets]))
		}
		b.regret += least - near
	}
	return k
}

// difference says where two sets of as many pairs differ.
func difference(a, b []uint32) (mask uint32) {
	b = b[:len(a)]
	for i, p := range a {
		if p != b[i] {
			mask |= 1 << i
		}
	}
	return mask
}

// sameNames reports whether pairs that differ have the same names.
func (x *Index) sameNames(a, b []uint32, differ uint32) bool {
	for ; differ != 0; differ &= differ - 1 {
		if i := bits.TrailingZeros32(differ); x.NameOf(a[i]) != x.NameOf(b[i]) {
			return false
		}
	}
	return true
}

// Set is the pairs of a series that has n; a view, valid until the next call of Set,
// too.
func (x *Index) Set(p Place, n int) []uint32 {
	w, unit := x.words(), p>>1
	if p&derivedBit == 0 {
		return w[unit:][:n]
	}
	head := w[unit]
	set := x.bases.set[:n]
	copy(set, w[uint32(unit)-head>>maskBits:][:n])
	for m := head & differs; m != 0; m &= m - 1 {
		unit++
		set[bits.TrailingZeros32(m)] = w[unit]
	}
	return set
}

// Base is the place of the set that a series' pairs were derived from, or, if they
// were not, of these: a set of as many pairs, which have the same names in the same
// places. Bit i of differ says that pair i is not that of the base.
func (x *Index) Base(p Place) (base Place, differ uint32) {
	if p&derivedBit == 0 {
		return p, 0
	}
	unit := uint32(p >> 1)
	head := x.words()[unit]
	return Place(unit-head>>maskBits) << 1, head & differs
}

// PairAt is number i of the pairs of a series that has more.
func (x *Index) PairAt(p Place, i int) uint32 {
	w, unit := x.words(), uint32(p>>1)
	if p&derivedBit == 0 {
		return w[int(unit)+i]
	}
	head := w[unit]
	if head>>i&1 != 0 {
		return w[unit+1+uint32(bits.OnesCount32(head&(1<<i-1)))]
	}
	return w[int(unit-head>>maskBits)+i]
}

// Touch reads what Set begins with, so that it is in the processor's cache. It needs
// a set that was put.
func (x *Index) Touch(p Place) uint32 { return x.words()[p>>1] }

// finder finds one pair in many sets. Of a base it looks for it once for all
// that follow one another.
type finder struct {
	pair uint32
	base uint32
	at   int // of the pair in that; −1: it has not got it
}

func newFinder(pair uint32) finder { return finder{pair: pair, base: None} }

// in reports whether a series has the pair.
func (f *finder) in(x *Index, p Place, n int) bool {
	w, unit := x.words(), uint32(p>>1)
	if p&derivedBit == 0 {
		return slices.Contains(w[unit:][:n], f.pair)
	}
	head := w[unit]
	if base := unit - head>>maskBits; base != f.base {
		f.base, f.at = base, slices.Index(w[base:][:n], f.pair)
	}
	if f.at >= 0 {
		return head>>f.at&1 == 0 // else it has another of the same name
	}
	for m := head & differs; m != 0; m &= m - 1 {
		if unit++; w[unit] == f.pair {
			return true
		}
	}
	return false
}

// words are all words of the sets; a view.
func (x *Index) words() []uint32 { return asWords(x.sets.From(0)) }

// takeWords returns n words that were reserved.
func (x *Index) takeWords(n int) []uint32 {
	_, b := x.sets.Take(4 * n)
	return asWords(b)
}

func asWords(b []byte) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
