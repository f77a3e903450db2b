package mcache

import (
	"math/bits"

	"mcached/mcache/index"
)

// Hash is a keyed 128-bit hash of one string, for Fingerprint.Add.
type Hash = index.Hash

// Fingerprint identifies a label set by the sum of a keyed 128-bit hash of
// each of its pairs. The order of pairs does not matter, so front doors need
// not sort; a pair that is there twice counts twice, so a set with a
// duplicate never looks like one without. The zero value is the empty set.
//
// Two sets share a fingerprint with a chance of 2^-128 a pair of sets; the
// key is drawn anew by each Cache, so nobody can look for them outside it.
type Fingerprint struct{ hi, lo uint64 }

// Hash hashes a label name or value. It may be kept as long as the Cache.
func (c *Cache) Hash(s []byte) Hash { return c.hasher.Hash(s) }

// HashString is Hash for a string.
func (c *Cache) HashString(s string) Hash { return c.hasher.HashString(s) }

// Add adds a pair. Pairs with an empty value are no part of a label set:
// callers leave them out.
func (f *Fingerprint) Add(name, value Hash) {
	f.hi += fold(name.A^0x9e3779b97f4a7c15, value.A^0xd1b54a32d192ed03)
	f.lo += fold(name.B^0x8cb92ba72f3d8dd7, value.B^0xaef17502108ef2d9)
}

// Remove takes out a pair that was added.
func (f *Fingerprint) Remove(name, value Hash) {
	f.hi -= fold(name.A^0x9e3779b97f4a7c15, value.A^0xd1b54a32d192ed03)
	f.lo -= fold(name.B^0x8cb92ba72f3d8dd7, value.B^0xaef17502108ef2d9)
}

// fold multiplies to 128 bits and xors the halves, as wyhash does.
func fold(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	return hi ^ lo
}

// Fingerprint is that of a whole label set.
func (c *Cache) Fingerprint(ls []Label) Fingerprint {
	var f Fingerprint
	for _, l := range ls {
		if l.Value != "" {
			f.Add(c.HashString(l.Name), c.HashString(l.Value))
		}
	}
	return f
}

// in is the fingerprint of the same label set in one bucket.
func (f Fingerprint) in(b *bucket) Fingerprint {
	return Fingerprint{f.hi ^ b.salt.A, f.lo ^ b.salt.B}
}

// tag is what lookup keeps of it; shards are chosen by other bits.
func (f Fingerprint) tag() uint32 { return uint32(f.lo >> 32) }
