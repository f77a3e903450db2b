package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// SeriesPrints names series among members by 128 bits: two sums over all label pairs
// and the bucket, each by keys of its own, so that what two series have in common in
// one they do not have in the other. Strangers do not have the keys, so they cannot
// make a series that has the print of another. Of n series two have the same one by
// chance with a probability of n²/2^129, for 10^9 of them 10^-21.
//
// The first sum is of the products that give a series its slot, before those are cut
// to what a spread needs and labels are left out of them: it costs little more.
//
// It is immutable and safe for concurrent use.
type SeriesPrints struct {
	h           *SeriesHash
	text        [3]uint64
	name, value uint64
	a, b        uint64 // of buckets
	check       string
}

// NewSeriesPrints makes the prints of a cluster's key, of 32 bytes (Keys.Prints), for
// series that h places.
func NewSeriesPrints(key []byte, h *SeriesHash) *SeriesPrints {
	if len(key) != 32 {
		panic("cluster: prints need 32 bytes of key")
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(key[8*i:]) }
	p := &SeriesPrints{h: h, text: [3]uint64{word(0), mix(word(0) + 1), mix(word(0) + 2)}, name: word(1), value: word(2), a: mix(word(3)), b: word(3)}
	// The first sum is by keys of h.
	check := sha256.Sum256(binary.LittleEndian.AppendUint64(append([]byte("check of prints\x00"), key...), h.text[0]^h.name^h.value^h.bucket))
	p.check = hex.EncodeToString(check[:8])
	return p
}

// Check is the same for prints by the same keys, and tells nothing of them.
func (p *SeriesPrints) Check() string { return p.check }

// Of a label's name: what it adds to the slot of a series.
const (
	ofSeries = iota
	ofTarget
	ofNone // it is left out
)

// Name hashes a label's name for Pair. A writer that meets it again and again can keep
// what it returns.
func (p *SeriesPrints) Name(name string) (a, b uint64, kind uint8) {
	switch {
	case p.h.Ignores(name):
		kind = ofNone
	case OfTarget(name):
		kind = ofTarget
	}
	return p.h.Text(name) ^ p.h.name, textHash(&p.text, name) ^ p.name, kind
}

// Pair is what a pair of a name, which was hashed, and a value adds to the sum of the slot,
// as SeriesHash.Pair has it, and to the sums of the print.
func (p *SeriesPrints) Pair(nameA, nameB uint64, kind uint8, value string) (slot, a, b uint64) {
	a = fold(nameA, p.h.Text(value)^p.h.value)
	b = fold(nameB, textHash(&p.text, value)^p.value)
	if kind == ofNone {
		return 0, a, b
	}
	return p.h.part(a, kind == ofTarget), a, b
}

// BucketPrint is what the bucket adds to the sums of the print.
func (p *SeriesPrints) BucketPrint(bucket string) (a, b uint64) {
	return fold(p.h.Text(bucket)^p.a, p.h.bucket|1), fold(textHash(&p.text, bucket)^p.b, p.a|1)
}
