package index

import "math/bits"

// Set is a set of ids of one shard: of series, pairs or names. It has a bit for
// each that there may be, and another for each word of these that may not be zero,
// so that to walk or to empty a set takes as long as what is in it, and not as the
// shard is large.
type Set struct {
	words []uint64
	some  []uint64 // bit i: words[i] may have ids. Of all other words none has
}

// NewSet returns an empty Set of ids below n.
func NewSet(n int) Set {
	words := wordsOf(n)
	return Set{make([]uint64, words), make([]uint64, wordsOf(words))}
}

// wordsOf is how many words have n bits.
func wordsOf(n int) int { return (n + 63) / 64 }

// Add puts id into the set.
func (b Set) Add(id uint32) {
	b.words[id>>6] |= 1 << (id & 63)
	b.some[id>>12] |= 1 << (id >> 6 & 63)
}

// mayGet says that ids from one to another, both inclusive, are put into words.
func (b Set) mayGet(from, to uint32) { markRange(b.some, from>>6, to>>6) }

// markRange sets the bits from one to another, both inclusive.
func markRange(words []uint64, from, to uint32) {
	first, last := ^uint64(0)<<(from&63), ^uint64(0)>>(63-to&63)
	i, end := from>>6, to>>6
	if i == end {
		words[i] |= first & last
		return
	}
	words[i] |= first
	for i++; i < end; i++ {
		words[i] = ^uint64(0)
	}
	words[end] |= last
}

// mayHave reports whether any of the ids from one to another, both inclusive, may be in
// the set.
func (b Set) mayHave(from, to uint32) bool {
	from, to = from>>6, to>>6 // words
	first, last := ^uint64(0)<<(from&63), ^uint64(0)>>(63-to&63)
	i, end := from>>6, to>>6
	if i == end {
		return b.some[i]&first&last != 0
	}
	if b.some[i]&first != 0 {
		return true
	}
	for i++; i < end; i++ {
		if b.some[i] != 0 {
			return true
		}
	}
	return b.some[end]&last != 0
}

// Each calls f with every id, in order. It may take out the one it is called with.
func (b Set) Each(f func(id uint32)) {
	for i, s := range b.some {
		for ; s != 0; s &= s - 1 {
			at := i<<6 + bits.TrailingZeros64(s)
			for w := b.words[at]; w != 0; w &= w - 1 {
				f(uint32(at<<6 + bits.TrailingZeros64(w)))
			}
		}
	}
}

// Count is how many ids are in the set.
func (b Set) Count() (n int) {
	for i, s := range b.some {
		for ; s != 0; s &= s - 1 {
			n += bits.OnesCount64(b.words[i<<6+bits.TrailingZeros64(s)])
		}
	}
	return n
}

// Has reports whether id is in the set.
func (b Set) Has(id uint32) bool { return b.words[id>>6]>>(id&63)&1 != 0 }

// Remove takes id out of the set.
func (b Set) Remove(id uint32) { b.words[id>>6] &^= 1 << (id & 63) }

// retain takes out what is not in o, or with not what is. Both have room for the same ids.
func (b Set) retain(o Set, not bool) {
	for i, s := range b.some {
		for ; s != 0; s &= s - 1 {
			at := i<<6 + bits.TrailingZeros64(s)
			w := b.words[at] & o.words[at]
			if not {
				w ^= b.words[at]
			}
			if b.words[at] = w; w == 0 {
				b.some[i] &^= s & -s
			}
		}
	}
}

// empty makes b a set of no id, with room for those below n. Its memory is used
// again: what is behind a slice's length is zero, too.
func (b Set) empty(n int) Set {
	for i, s := range b.some {
		for ; s != 0; s &= s - 1 {
			b.words[i<<6+bits.TrailingZeros64(s)] = 0
		}
		b.some[i] = 0
	}
	words := wordsOf(n)
	some := wordsOf(words)
	if words > cap(b.words) || some > cap(b.some) {
		b = NewSet(n + n/4) // a shard's numbers grow
	}
	return Set{b.words[:words], b.some[:some]}
}
