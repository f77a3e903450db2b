package mcache

import (
	"encoding/binary"
	"unsafe"

	"mcached/kvcache"
	"mcached/kvcache/offheap"
)

// index finds the series of one shard by their labels. All of it lives in
// spans: text of names and values, one record a name, one a pair, the pair
// ids of each series, and the postings.
//
//	name  ─▶ its pairs, chained          pair ─▶ name, value text, posting
//	series ─▶ its pairs (4 bytes each)   posting: first id, then zigzag deltas in chunks
//
// Two names are no labels: bucketName, whose value is the bucket, and
// rawName, whose value is a key of the raw API.
//
// A series that goes leaves its id in postings as a tombstone; no id is given
// again before rebuild wrote the postings anew without it.
type index struct {
	m *kvcache.Memory

	text   offheap.Arena // bytes of names and values
	sets   offheap.Arena // pair ids of series, 4 bytes each
	chunks offheap.Arena // of postings; 8-byte aligned

	names  offheap.Vector[nameRec]
	pairs  offheap.Vector[pairRec]
	byName offheap.Lookup
	byPair offheap.Lookup

	answers answers
}

// noID stands for no series, pair or name.
const noID = offheap.NoID

const (
	bucketName = ""
	rawName    = "\xff"
)

type nameRec struct {
	text, textLen uint32
	firstPair     uint32 // noID if none
	pairs         uint32
}

type pairRec struct {
	name          uint32
	text, textLen uint32 // of the value
	nextPair      uint32 // of the same name
	live          uint32 // series that have it and are not dead
	n             uint32 // ids in the posting, dead ones too
	first, last   uint32 // ids
	head, tail    uint32 // chunks: place in units of 8 bytes, 0 none
}

// A chunk of a posting: next (4 bytes, units of 8), capacity (2), length (2), deltas.
const (
	chunkHeader   = 8
	chunkFirst    = 8
	chunkMaxBytes = 1016
)

func newIndex(m *kvcache.Memory) index {
	return index{
		m: m, text: offheap.NewArena(m, 0), sets: offheap.NewArena(m, 0), chunks: offheap.NewArena(m, 8),
		names: offheap.NewVector[nameRec](m), pairs: offheap.NewVector[pairRec](m),
		byName: offheap.NewLookup(m), byPair: offheap.NewLookup(m),
	}
}

func (x *index) free() {
	x.text.Free()
	x.sets.Free()
	x.chunks.Free()
	x.names.Free()
	x.pairs.Free()
	x.byName.Free()
	x.byPair.Free()
}

// bytes is the memory of all its spans.
func (x *index) bytes() int64 {
	return int64(x.text.Bytes() + x.sets.Bytes() + x.chunks.Bytes() + x.names.Bytes() + x.pairs.Bytes() +
		x.byName.Bytes() + x.byPair.Bytes())
}

// findName returns the name's id or noID.
func (x *index) findName(h Hash, name string) uint32 {
	return x.byName.Find(uint32(h.a>>32), func(id uint32) bool {
		r := x.names.At(id)
		return string(x.text.At(r.text, r.textLen)) == name
	})
}

// findPair returns the pair's id or noID.
func (x *index) findPair(tag, name uint32, value string) uint32 {
	return x.byPair.Find(tag, func(id uint32) bool {
		r := x.pairs.At(id)
		return r.name == name && string(x.text.At(r.text, r.textLen)) == value
	})
}

func pairTag(name uint32, h Hash) uint32 {
	return uint32((h.b ^ uint64(name)*0x9e3779b97f4a7c15) * 0xd1b54a32d192ed03 >> 32)
}

// nameID returns the id of a name, of which the hash is given, and makes it if
// it is new. On an error nothing that counts has changed.
func (x *index) nameID(h Hash, text string) (uint32, error) {
	if name := x.findName(h, text); name != noID {
		return name, nil
	}
	at, err := x.text.Put(text)
	if err != nil {
		return 0, err
	}
	if err := x.byName.Reserve(1); err != nil {
		return 0, err
	}
	name, err := x.names.Append(nameRec{text: at, textLen: uint32(len(text)), firstPair: noID})
	if err != nil {
		return 0, err
	}
	x.byName.Add(uint32(h.a>>32), name)
	return name, nil
}

// pair returns the id of a pair and makes it if it is new; h is the hash of the
// value. On an error nothing that counts has changed.
func (x *index) pair(name uint32, h Hash, value string) (uint32, error) {
	tag := pairTag(name, h)
	if id := x.findPair(tag, name, value); id != noID {
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

// copyPair is the id in x of pair p of another index.
func (x *index) copyPair(c *Cache, other *index, p uint32) (uint32, error) {
	name, value := other.name(p), other.value(p)
	id, err := x.nameID(c.Hash(name), string(name))
	if err != nil {
		return 0, err
	}
	return x.pair(id, c.Hash(value), string(value))
}

// putSet stores the pair ids of a series and returns their place.
func (x *index) putSet(pairs []uint32) (uint32, error) {
	return x.sets.Put(unsafe.String((*byte)(unsafe.Pointer(unsafe.SliceData(pairs))), len(pairs)*4))
}

// set is the pair ids of a series; a view.
func (x *index) set(place uint32, n int) []uint32 {
	b := x.sets.At(place, uint32(n)*4)
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// post adds a series to the postings of its pairs. It fails before the first
// change or not at all.
func (x *index) post(id uint32, pairs []uint32) error {
	if err := x.chunks.Reserve(len(pairs) * (chunkHeader + chunkMaxBytes)); err != nil {
		return err
	}
	for _, p := range pairs {
		x.postOne(x.pairs.At(p), id)
	}
	return nil
}

func (x *index) postOne(p *pairRec, id uint32) {
	p.live++
	p.n++
	if p.n == 1 {
		p.first, p.last = id, id
		return
	}
	delta := int64(id) - int64(p.last)
	p.last = id
	if p.head == 0 {
		p.head = x.newChunk(chunkFirst)
		p.tail = p.head
	}
	c := x.chunk(p.tail)
	capacity, length := int(le.Uint16(c[4:])), int(le.Uint16(c[6:]))
	if u := uint64(delta<<1) ^ uint64(delta>>63); u < 0x80 && length < capacity { // nearly all
		c[chunkHeader+length] = byte(u)
		le.PutUint16(c[6:], uint16(length+1))
		return
	}
	var b [binary.MaxVarintLen64]byte
	k := binary.PutVarint(b[:], delta)
	if length+k > capacity {
		// Chunks grow by half, so that a posting wastes little whatever its length.
		next := x.newChunk(min((capacity+capacity/2+7)&^7, chunkMaxBytes))
		c = x.chunk(p.tail)
		le.PutUint32(c, next)
		p.tail = next
		c, length = x.chunk(next), 0
	}
	copy(c[chunkHeader+length:], b[:k])
	le.PutUint16(c[6:], uint16(length+k))
}

func (x *index) newChunk(capacity int) uint32 {
	at, b := x.chunks.Take(chunkHeader + capacity)
	le.PutUint32(b, 0)
	le.PutUint16(b[4:], uint16(capacity))
	le.PutUint16(b[6:], 0)
	return at / 8
}

func (x *index) chunk(unit uint32) []byte { return x.chunks.From(int(unit) * 8) }

// posting calls f with every id, dead ones too, in no set order.
func (x *index) posting(p *pairRec, f func(id uint32)) {
	if p.n == 0 {
		return
	}
	id := int64(p.first)
	f(p.first)
	for unit := p.head; unit != 0; {
		c := x.chunk(unit)
		b := c[chunkHeader : chunkHeader+int(le.Uint16(c[6:]))]
		for i := 0; i < len(b); {
			u := uint64(b[i])
			i++
			if u >= 0x80 {
				u &= 0x7f
				for s := uint(7); ; s += 7 {
					y := b[i]
					i++
					u |= uint64(y&0x7f) << s
					if y < 0x80 {
						break
					}
				}
			}
			id += int64(u>>1) ^ -int64(u&1)
			f(uint32(id))
		}
		unit = le.Uint32(c)
	}
}

// unpost takes a dead series off the live counts of its pairs.
func (x *index) unpost(pairs []uint32) {
	for _, p := range pairs {
		x.pairs.At(p).live--
	}
}

// value is the text of a pair's value; a view.
func (x *index) value(pair uint32) []byte {
	r := x.pairs.At(pair)
	return x.text.At(r.text, r.textLen)
}

// name is the text of a pair's name; a view.
func (x *index) name(pair uint32) []byte {
	r := &*x.names.At(x.pairs.At(pair).name)
	return x.text.At(r.text, r.textLen)
}

// le is the byte order of everything outside the heap.
var le = binary.LittleEndian
