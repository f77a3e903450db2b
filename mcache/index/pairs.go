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
	of   [keptBases]base // the one that was used last is the first
	last [lastSets]lastSet
	next uint // of last, modulo lastSets
	// regret is how many words would have been spared since the last whole set, had
	// what was stored before been bases.
	regret int
	set    [maskBits]uint32 // what Set returns, if it is derived
}

type lastSet struct {
	place Place
	n     int
}

type base struct {
	unit uint32
	n    int // pairs; 0: there is none
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
	k, mask := x.nearest(pairs)
	var p Place
	if k < 0 || x.bases.regret >= n/2 {
		p = x.putWhole(pairs)
		copy(x.bases.of[1:], x.bases.of[:])
		x.bases.of[0], x.bases.regret = base{uint32(p >> 1), n}, 0
	} else {
		b := x.bases.of[k]
		copy(x.bases.of[1:k+1], x.bases.of[:k])
		x.bases.of[0] = b
		p = x.putDerived(pairs, b.unit, mask)
	}
	x.bases.last[x.bases.next%lastSets] = lastSet{p, n}
	x.bases.next++
	return p, nil
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

// nearest chooses the base to derive a set from, and says what differs; −1 is none. It
// adds to the regret.
func (x *Index) nearest(pairs []uint32) (k int, mask uint32) {
	n, w := len(pairs), x.words()
	k = -1
	next, least := uint32(x.sets.Len()/4), n/2+1
	for i, b := range x.bases.of {
		if b.n != n || next-b.unit > maxBack {
			continue
		}
		whole := w[b.unit:][:n]
		if m, d := difference(whole, pairs, least); d < least && x.sameNames(whole, pairs, m) {
			if k, mask, least = i, m, d; d <= max(n/6, 1) {
				return k, mask
			}
		}
	}
	if k >= 0 {
		near := least
		for i := uint(1); i <= lastSets && near > n/6; i++ { // the youngest first
			if l := &x.bases.last[(x.bases.next-i)%lastSets]; l.n == n {
				set := x.Set(l.place, n)
				if m, d := difference(set, pairs, near); d < near && x.sameNames(set, pairs, m) {
					near = d
				}
			}
		}
		x.bases.regret += least - near
	}
	return k, mask
}

// difference says where two sets of as many pairs differ, and in how many; it gives up
// at most of them.
func difference(a, b []uint32, most int) (mask uint32, d int) {
	b = b[:len(a)]
	for i, p := range a {
		if p != b[i] {
			mask |= 1 << i
			if d++; d == most {
				break
			}
		}
	}
	return mask, d
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
