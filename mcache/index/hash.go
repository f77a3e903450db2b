package index

import "hash/maphash"

// Hash is a keyed 128-bit hash of one string.
type Hash struct{ A, B uint64 }

// Hasher holds the keys.
type Hasher struct{ a, b maphash.Seed }

// NewHasher draws new keys.
func NewHasher() Hasher { return Hasher{maphash.MakeSeed(), maphash.MakeSeed()} }

// Hash hashes a text.
func (h *Hasher) Hash(s []byte) Hash { return Hash{maphash.Bytes(h.a, s), maphash.Bytes(h.b, s)} }

// HashString is Hash for a string.
func (h *Hasher) HashString(s string) Hash {
	return Hash{maphash.String(h.a, s), maphash.String(h.b, s)}
}
