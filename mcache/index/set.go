package index

import (
	"math/bits"
	"slices"
)

// Set is a set of ids of one shard: of series, pairs or names. It has a bit for
// each that there may be.
type Set []uint64

// Add puts id into the set.
func (b Set) Add(id uint32) { b[id>>6] |= 1 << (id & 63) }

// Each calls f with every id, in order. It may take out the one it is called with.
func (b Set) Each(f func(id uint32)) {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			f(uint32(i<<6 + bits.TrailingZeros64(w)))
		}
	}
}

// Count is how many ids are in the set.
func (b Set) Count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// Has reports whether id is in the set.
func (b Set) Has(id uint32) bool { return b[id>>6]>>(id&63)&1 != 0 }

// Remove takes id out of the set.
func (b Set) Remove(id uint32) { b[id>>6] &^= 1 << (id & 63) }

// NewSet returns an empty Set of ids below n.
func NewSet(n int) Set { return make(Set, (n+63)/64) }

// empty makes b a set of no series.
func (b Set) empty(words int) Set {
	b = slices.Grow(b[:0], words)[:words]
	clear(b)
	return b
}
