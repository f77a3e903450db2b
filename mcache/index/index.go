package index

import (
	"encoding/binary"
	"errors"
	"iter"
	"unsafe"

	"mcached/kvcache/offheap"
)

// Index is the index of one shard.
type Index struct {
	hasher Hasher

	text   offheap.Arena // bytes of names and values
	sets   offheap.Arena // pairs of series: pairs.go
	chunks offheap.Arena // of postings; 8-byte aligned

	names  offheap.Vector[nameRec]
	pairs  offheap.Vector[pairRec]
	byName offheap.Lookup
	byPair offheap.Lookup

	bases   bases
	pending pending
	answers answers
}

// None stands for no series, pair or name.
const None = offheap.NoID

// Names that are no labels.
const (
	BucketName = ""
	RawName    = "\xff"
)

type nameRec struct {
	text, textLen uint32
	firstPair     uint32 // None if none
	pairs         uint32
}

type pairRec struct {
	name          uint32
	text, textLen uint32 // of the value
	nextPair      uint32 // of the same name
	live          uint32 // series that have it and are not dead
	n             uint32 // ids in the posting, dead ones too
	first, last   uint32 // ids
	head, tail    uint32 // chunks: offset in units of 8 bytes, 0 none
	own           uint32 // what each set with it begins with; None if they differ
}

// New returns an empty Index, whose texts are hashed by h.
func New(m *offheap.Memory, h Hasher) Index {
	return Index{
		hasher: h, text: offheap.NewArena(m, 0), sets: offheap.NewArena(m, 0), chunks: offheap.NewArena(m, 8),
		names: offheap.NewVector[nameRec](m), pairs: offheap.NewVector[pairRec](m),
		byName: offheap.NewLookup(m), byPair: offheap.NewLookup(m),
		bases: newBases(),
	}
}

// Free gives its memory back. It is empty then, and not to be used again.
func (x *Index) Free() {
	x.text.Free()
	x.sets.Free()
	x.bases, x.pending = newBases(), pending{}
	x.chunks.Free()
	x.names.Free()
	x.pairs.Free()
	x.byName.Free()
	x.byPair.Free()
}

// Bytes is the memory that it takes.
func (x *Index) Bytes() int64 {
	return int64(x.text.Bytes() + x.sets.Bytes() + x.chunks.Bytes() + x.names.Bytes() + x.pairs.Bytes() +
		x.byName.Bytes() + x.byPair.Bytes())
}

// FindName returns the name's id or None.
func (x *Index) FindName(h Hash, name string) uint32 {
	return x.byName.Find(uint32(h.A>>32), func(id uint32) bool {
		r := x.names.At(id)
		return string(x.text.At(r.text, r.textLen)) == name
	})
}

// FindPair returns the pair's id or None.
func (x *Index) FindPair(name uint32, h Hash, value string) uint32 {
	return x.findTagged(PairTag(name, h), name, value)
}

func (x *Index) findTagged(tag, name uint32, value string) uint32 {
	return x.byPair.Find(tag, func(id uint32) bool {
		r := x.pairs.At(id)
		return r.name == name && string(x.text.At(r.text, r.textLen)) == value
	})
}

// PairTag is 32 bits of a hash of a pair of a name and a value of the hash h.
func PairTag(name uint32, h Hash) uint32 {
	return uint32((h.B ^ uint64(name)*0x9e3779b97f4a7c15) * 0xd1b54a32d192ed03 >> 32)
}

// AddName returns the id of a name, of which the hash is given, and makes it if
// it is new. On an error nothing that counts has changed.
func (x *Index) AddName(h Hash, text string) (uint32, error) {
	if name := x.FindName(h, text); name != None {
		return name, nil
	}
	at, err := x.text.Put(text)
	if err != nil {
		return 0, err
	}
	if err := x.byName.Reserve(1); err != nil {
		return 0, err
	}
	name, err := x.names.Append(nameRec{text: at, textLen: uint32(len(text)), firstPair: None})
	if err != nil {
		return 0, err
	}
	x.byName.Add(uint32(h.A>>32), name)
	return name, nil
}

// AddPair returns the id of a pair and makes it if it is new; h is the hash of the
// value. On an error nothing that counts has changed.
func (x *Index) AddPair(name uint32, h Hash, value string) (uint32, error) {
	tag := PairTag(name, h)
	if id := x.findTagged(tag, name, value); id != None {
		return id, nil
	}
	text, err := x.text.Put(value)
	if err != nil {
		return 0, err
	}
	if err := x.byPair.Reserve(1); err != nil {
		return 0, err
	}
	id, err := x.pairs.Append(pairRec{name: name, text: text, textLen: uint32(len(value)), nextPair: x.names.At(name).firstPair})
	if err != nil {
		return 0, err
	}
	x.byPair.Add(tag, id)
	n := x.names.At(name)
	n.firstPair = id
	n.pairs++
	return id, nil
}

// Copy is the id in x of pair p of another index.
func (x *Index) Copy(other *Index, p uint32) (uint32, error) {
	name, value := other.Name(p), other.Value(p)
	id, err := x.AddName(x.hasher.Hash(name), string(name))
	if err != nil {
		return 0, err
	}
	return x.AddPair(id, x.hasher.Hash(value), string(value))
}

// Value is the text of a pair's value; a view.
func (x *Index) Value(pair uint32) []byte {
	r := x.pairs.At(pair)
	return x.text.At(r.text, r.textLen)
}

// Name is the text of a pair's name; a view.
func (x *Index) Name(pair uint32) []byte {
	r := x.names.At(x.pairs.At(pair).name)
	return x.text.At(r.text, r.textLen)
}

// NameOf is the name of a pair.
func (x *Index) NameOf(pair uint32) uint32 { return x.pairs.At(pair).name }

// NameText is the text of a name; a view.
func (x *Index) NameText(name uint32) []byte {
	r := x.names.At(name)
	return x.text.At(r.text, r.textLen)
}

// Live is how many series have the pair.
func (x *Index) Live(pair uint32) int {
	x.settle()
	return int(x.pairs.At(pair).live)
}

// Own is the pair that the sets of all series with this pair begin with, dead ones, too:
// that of their bucket. It is None if they are of several, or there are none.
func (x *Index) Own(pair uint32) uint32 {
	x.settle()
	if p := x.pairs.At(pair); p.n > 0 {
		return p.own
	}
	return None
}

// Names and Pairs are how many there are: their numbers are all below. Some may
// be of no series any more.
func (x *Index) Names() int { return x.names.Len() }
func (x *Index) Pairs() int { return x.pairs.Len() }

// PairsOf is how many pairs the name has.
func (x *Index) PairsOf(name uint32) int { return int(x.names.At(name).pairs) }

// EachOf yields the pairs of a name, the youngest first.
func (x *Index) EachOf(name uint32) iter.Seq[uint32] {
	return func(yield func(pair uint32) bool) {
		for p := x.names.At(name).firstPair; p != None && yield(p); p = x.pairs.At(p).nextPair {
		}
	}
}

// Sizes says how much an Index holds: pairs by number, all else in bytes.
type Sizes struct{ Sets, Text, Pairs, Postings int }

// Sizes is what it holds.
func (x *Index) Sizes() Sizes {
	x.settle()
	return Sizes{Sets: x.sets.Len(), Text: x.text.Len(), Pairs: x.pairs.Len(), Postings: x.chunks.Len()}
}

// PairBytes is what a pair takes beside its text and its posting.
const PairBytes = int(unsafe.Sizeof(pairRec{})) + offheap.LookupEntryBytes

// Reserve makes room for as much more. The error is kvcache.ErrNoMemory.
func (x *Index) Reserve(z Sizes) error {
	return errors.Join(x.sets.Reserve(z.Sets), x.text.Reserve(z.Text), x.pairs.Reserve(z.Pairs), x.byPair.Reserve(z.Pairs), x.chunks.Reserve(z.Postings))
}

// Answers is how many answers of regular expressions it remembers.
func (x *Index) Answers() int { return len(x.answers.of) }

// le is the byte order of everything outside the heap.
var le = binary.LittleEndian
