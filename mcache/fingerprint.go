package mcache

import (
	"hash/maphash"
	"math/bits"
)

// Hash is a keyed 128-bit hash of one string, for Fingerprint.Add.
type Hash struct{ a, b uint64 }

// Fingerprint identifies a label set by the sum of a keyed 128-bit hash of
// each of its pairs. The order of pairs does not matter, so front doors need
// not sort; a pair that is there twice counts twice, so a set with a
// duplicate never looks like one without. The zero value is the empty set.
//
// Two sets share a fingerprint with a chance of 2^-128 a pair of sets; the
// key is drawn anew by each Cache, so nobody can look for them outside it.
type Fingerprint struct{ hi, lo uint64 }

// hasher holds the keys of a Cache.
type hasher struct{ a, b maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed(), maphash.MakeSeed()} }

// Hash hashes a label name or value. It may be kept as long as the Cache.
func (c *Cache) Hash(s []byte) Hash {
	return Hash{maphash.Bytes(c.hasher.a, s), maphash.Bytes(c.hasher.b, s)}
}

// HashString is Hash for a string.
func (c *Cache) HashString(s string) Hash {
	return Hash{maphash.String(c.hasher.a, s), maphash.String(c.hasher.b, s)}
}

// Add adds a pair. Pairs with an empty value are no part of a label set:
// callers leave them out.
func (f *Fingerprint) Add(name, value Hash) {
	f.hi += fold(name.a^0x9e3779b97f4a7c15, value.a^0xd1b54a32d192ed03)
	f.lo += fold(name.b^0x8cb92ba72f3d8dd7, value.b^0xaef17502108ef2d9)
}

// Remove takes out a pair that was added.
func (f *Fingerprint) Remove(name, value Hash) {
	f.hi -= fold(name.a^0x9e3779b97f4a7c15, value.a^0xd1b54a32d192ed03)
	f.lo -= fold(name.b^0x8cb92ba72f3d8dd7, value.b^0xaef17502108ef2d9)
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
	return Fingerprint{f.hi ^ b.salt.a, f.lo ^ b.salt.b}
}

// tag is what lookup keeps of it; shards are chosen by other bits.
func (f Fingerprint) tag() uint32 { return uint32(f.lo >> 32) }
