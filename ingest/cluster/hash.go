package cluster

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// SeriesHash gives each series its slot: by a keyed sum over its label pairs,
// so that the order of labels does not matter and a writer need not sort them,
// and so that a pair that many series have in common is hashed once. Strangers
// do not have the key, so they cannot choose labels that all go to one member.
//
// The buckets of a histogram and the quantiles of a summary stay together: le
// and quantile are left out, as are the labels that are to be ignored, which is
// meant for those that tell the replicas of a pair of Prometheis apart.
//
// In a large cluster a request should not be cut into a part for each member.
// So the series of one target can be kept to a few slots: then a slot is made
// of two parts, which of 16384/s groups, by the bucket, job and instance alone,
// and which of s slots in it, by all pairs. The table knows nothing of it. For
// that the sum has two fields, which do not run into each other with up to 128
// labels, and do no harm beyond:
//
//	63       48 47                            0
//	┌──────────┬─────────────────────────────┐
//	│ target   │ series: pairs of 41 bits    │
//	└──────────┴─────────────────────────────┘
//
// It is immutable and safe for concurrent use.
type SeriesHash struct {
	text        [3]uint64 // keys of every text's hash
	name, value uint64    // keys of a pair's
	bucket      uint64
	within      uint64 // slots of one target; 1: any
	ignore      []string
	place       uint32
}

const (
	pairBits   = 41
	targetBits = 16
	pairMask   = 1<<pairBits - 1
	targetPart = 64 - targetBits
)

// alwaysIgnored would tear histograms and summaries apart.
var alwaysIgnored = []string{"le", "quantile"}

// NewSeriesHash makes the hash of a cluster's key, of 32 bytes (Keys.Series),
// that leaves out le, quantile and the labels to ignore. The series of one
// target are in as many slots as TargetSlots says; 0 is for all of them.
func NewSeriesHash(key []byte, ignore []string, targetSlots int) *SeriesHash {
	if len(key) != 32 {
		panic("cluster: a series hash needs 32 bytes of key")
	}
	text := binary.LittleEndian.Uint64(key)
	h := &SeriesHash{
		text: [3]uint64{text, mix(text + 1), mix(text + 2)}, name: binary.LittleEndian.Uint64(key[8:]),
		value: binary.LittleEndian.Uint64(key[16:]), bucket: binary.LittleEndian.Uint64(key[24:]), within: uint64(max(targetSlots, 1)),
	}
	h.ignore = append(slices.Clone(alwaysIgnored), ignore...)
	slices.Sort(h.ignore)
	h.ignore = slices.Compact(h.ignore)
	sum := h.bucket ^ h.within
	for _, name := range h.ignore {
		sum = mix(sum + h.Text(name))
	}
	h.place = uint32(mix(sum) >> 32)
	return h
}

// MaxSpread bounds what TargetSlots is asked for.
const MaxSpread = 1024

// TargetSlots is in how many slots the series of one target have to be so that
// they are on at most spread members, each slot having that many copies: a
// power of two. 0 means that they need not keep together.
func TargetSlots(spread, copies int) int {
	if spread <= 0 {
		return 0
	}
	return 1 << (bits.Len(uint(max(1, min(spread, MaxSpread)/max(copies, 1)))) - 1)
}

// Place tells hashes that place series alike from others.
func (h *SeriesHash) Place() uint32 { return h.place }

// Text hashes a label's name or value, for PairOf. A writer that meets the same
// text again and again can keep the hash. It folds 16 bytes at a time, as wyhash
// does: most texts are shorter than that, and xxhash took three times as long.
func (h *SeriesHash) Text(s string) uint64 { return textHash(&h.text, s) }

func textHash(key *[3]uint64, s string) uint64 {
	x := key[0] + uint64(len(s))
	for ; len(s) > 16; s = s[16:] {
		x = fold(le64(s)^key[1], le64(s[8:])^x)
	}
	var a, b uint64 // all that is left: its first and its last bytes
	switch n := len(s); {
	case n >= 8:
		a, b = le64(s), le64(s[n-8:])
	case n >= 4:
		a, b = le32(s), le32(s[n-4:])
	case n > 0:
		a = uint64(s[0]) | uint64(s[n/2])<<8 | uint64(s[n-1])<<16
	}
	return fold(fold(a^key[1], b^x), key[2])
}

func le64(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func le32(s string) uint64 {
	_ = s[3]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}

// Ignores says whether a label is left out: it adds 0 to the sum.
func (h *SeriesHash) Ignores(name string) bool {
	for _, n := range h.ignore {
		if n == name {
			return true
		}
	}
	return false
}

// PairOf is what a pair that is not left out adds to the sum, from the hashes
// of its name and value. OfTarget says that the name is job or instance.
func (h *SeriesHash) PairOf(name, value uint64, ofTarget bool) uint64 {
	return h.part(fold(name^h.name, value^h.value), ofTarget)
}

// part is a hash as an addend.
func (h *SeriesHash) part(x uint64, ofTarget bool) uint64 {
	if h.within == 1 {
		return x
	}
	sum := x & pairMask
	if ofTarget {
		sum |= x >> (64 - targetBits) << targetPart
	}
	return sum
}

// OfTarget says whether a label names the target that a series is from.
func OfTarget(name string) bool { return name == "job" || name == "instance" }

// Pair is what a label pair adds to the sum: 0 for one that is left out.
func (h *SeriesHash) Pair(name, value string) uint64 {
	if h.Ignores(name) {
		return 0
	}
	return h.PairOf(h.Text(name), h.Text(value), OfTarget(name))
}

// Bucket is what the bucket adds to the sum.
func (h *SeriesHash) Bucket(bucket string) uint64 {
	return h.part(fold(h.Text(bucket)^h.bucket, h.bucket|1), true)
}

// Slot is that of a series whose Bucket and Pairs have that sum.
func (h *SeriesHash) Slot(sum uint64) uint16 {
	if h.within == 1 {
		return uint16(mix(sum) % Slots)
	}
	groups := Slots / h.within
	group := mix(sum>>targetPart) % groups
	return uint16(group*h.within + mix(sum<<targetBits)%h.within)
}

// fold multiplies two numbers and folds the product (as in wyhash and the
// hashes of Go's runtime).
func fold(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	return hi ^ lo
}
