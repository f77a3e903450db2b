package index

import (
	"encoding/binary"
	"iter"
	"math"
	"math/bits"
)

// A posting is the ids of the series that have a pair, in the order in which they
// were made. The first is in the pairRec, each other is its distance from the one
// before, in chunks:
//
//	next (4 bytes, units of 8) │ capacity (2) │ length (2) │ first id (4), of large ones │ steps
//
// Large chunks tell of their first id, so that one can be passed over whose ids are
// not asked for. That takes ids that ascend: the lowest bit of a capacity, which is a
// multiple of 8, says that those of the chunk and the first of the next do not.
//
// A step is a zigzag varint, or a run: ids that follow one another.
//
//	id + 1    ─▶ 2              run of n   ─▶ 0 n, which are two bytes
//	id + 100  ─▶ 200 1          two that follow   2 2  ─▶  0 2
//
// No distance is 0, and no varint ends with 0, so that 0 begins a run wherever it
// stands. Most labels are those of many series that are made one after the
// other, so that most of a posting is runs, and shorter than its ids are many.
const (
	chunkHeader   = 8
	chunkFirst    = 8
	chunkMaxBytes = 1016
	chunkLarge    = 64 // bytes of capacity
	chunkID       = 4  // bytes of the first id

	disordered = 1 // of a capacity

	stepNext = 2 // to the id that follows
	stepRun  = 0 // the next byte is of how many ids
	maxRun   = math.MaxUint8
)

// pending is what was not put into postings yet. Most series have most of their pairs in
// common with the one posted before, that of their bucket always, and the id that follows
// its id: these pairs get a run of ids at once. Who reads postings, or how many series of a
// pair are live, settles first.
type pending struct {
	n     int                // pairs
	pairs [maxPending]uint32 // of the series posted last, the first of them
	from  [maxPending]uint32 // of each the first id that is not posted
	begin uint32             // the least of from
	end   uint32             // the id behind the last
}

const (
	maxPending = 32
	// pendingIDs fit in any two chunks that follow each other, and hence in one more than a posting has.
	pendingIDs = 4 * maxRun
)

// Post adds a series to the postings of its pairs, of which there is one at least: the
// first is that of its bucket. It fails before the first change or not at all.
func (x *Index) Post(id uint32, pairs []uint32) error {
	w := &x.pending
	// What is pending has room, and will have.
	if err := x.chunks.Reserve((w.n + len(pairs)) * (chunkHeader + chunkMaxBytes)); err != nil {
		return err
	}
	n := min(len(pairs), maxPending)
	if n != w.n || id != w.end || id-w.begin == pendingIDs || w.pairs[0] != pairs[0] {
		x.settle()
		w.n, w.begin = copy(w.pairs[:], pairs), id
		for i := range w.from[:n] {
			w.from[i] = id
		}
	} else {
		for m := difference(w.pairs[:n], pairs[:n]); m != 0; m &= m - 1 {
			i := bits.TrailingZeros32(m)
			x.postRun(w.pairs[i], w.from[i], id)
			w.pairs[i], w.from[i] = pairs[i], id
		}
	}
	w.end = id + 1
	for _, p := range pairs[n:] {
		x.postOne(x.pairs.At(p), pairs[0], id)
	}
	return nil
}

// settle puts what is pending into postings.
func (x *Index) settle() {
	w := &x.pending
	for i, p := range w.pairs[:w.n] {
		x.postRun(p, w.from[i], w.end)
	}
	w.n = 0
}

// postRun puts the ids from id up to end in the posting of a pair, which has room.
func (x *Index) postRun(pair, id, end uint32) {
	p := x.pairs.At(pair)
	for id < end {
		x.postOne(p, x.pending.pairs[0], id) // once or twice, until there is a run
		id++
		n := x.lengthenBy(p, end-id)
		p.live, p.n, p.last = p.live+n, p.n+n, p.last+n
		id += n
	}
}

// postOne puts an id in the posting of a pair; own is what the set of the series begins with.
func (x *Index) postOne(p *pairRec, own, id uint32) {
	p.live++
	p.n++
	if p.n == 1 {
		p.first, p.last, p.own = id, id, own
		return
	}
	if p.own != own {
		p.own = None
	}
	delta := int64(id) - int64(p.last)
	p.last = id
	if p.head == 0 {
		p.head = x.newChunk(chunkFirst)
		p.tail = p.head
	}
	c := x.chunk(p.tail)
	head := le.Uint64(c)
	capacity, length := int(head>>32&(math.MaxUint16-disordered)), int(head>>48)
	if delta < 0 {
		c[4] |= disordered
	}
	begin := 0 // of the steps
	if capacity >= chunkLarge {
		begin = chunkID
	}
	u := uint64(delta<<1) ^ uint64(delta>>63)
	if u == stepNext && length > begin && lengthen(c[chunkHeader+begin:chunkHeader+length], length < capacity) {
		return
	}
	if u < 0x80 && length < capacity { // nearly all others
		c[chunkHeader+length] = byte(u)
		le.PutUint16(c[6:], uint16(length+1))
		return
	}
	var b [binary.MaxVarintLen64]byte
	k := binary.PutVarint(b[:], delta)
	if length+k > capacity {
		// Chunks grow by half, so that a posting wastes little whatever its length.
		next := x.newChunk(min((capacity+capacity/2+7)&^7, chunkMaxBytes))
		le.PutUint32(x.chunk(p.tail), next)
		p.tail = next
		c, length = x.chunk(next), 0
		if int(le.Uint16(c[4:])) >= chunkLarge {
			k = chunkID
			le.PutUint32(b[:], id)
		}
	}
	copy(c[chunkHeader+length:], b[:k])
	le.PutUint16(c[6:], uint16(length+k))
}

// lengthen has the last of the steps, of which there are some, tell of the id that
// follows, too. It reports false if a step for that is to be put behind them: always,
// unless they end with a run that may be longer. Of a step to the id before it makes a
// run, if there is room for one byte: that which is put behind is then the length, 2.
func lengthen(steps []byte, room bool) bool {
	k := len(steps) - 1
	switch {
	case k > 0 && steps[k-1] == stepRun:
		if steps[k] < maxRun {
			steps[k]++
			return true
		}
	case room && steps[k] == stepNext && (k == 0 || steps[k-1] < 0x80): // else it is the end of a varint, or may be
		steps[k] = stepRun
	}
	return false
}

// lengthenBy has the run that a posting ends with, if it does, tell of up to n ids more
// that follow, and returns of how many it does.
func (x *Index) lengthenBy(p *pairRec, n uint32) uint32 {
	if n == 0 || p.head == 0 {
		return 0
	}
	v := x.view(p.tail)
	k := len(v.steps) - 1
	if k < 1 || v.steps[k-1] != stepRun {
		return 0
	}
	n = min(n, uint32(maxRun-v.steps[k]))
	v.steps[k] += byte(n)
	return n
}

func (x *Index) newChunk(capacity int) uint32 {
	at, b := x.chunks.Take(chunkHeader + capacity)
	le.PutUint32(b, 0)
	le.PutUint16(b[4:], uint16(capacity))
	le.PutUint16(b[6:], 0)
	return at / 8
}

func (x *Index) chunk(unit uint32) []byte { return x.chunks.From(int(unit) * 8) }

// chunkView is a chunk as those read it who walk a posting.
type chunkView struct {
	next    uint32 // unit
	first   uint32 // id, if it is large
	steps   []byte
	large   bool
	ascends bool // so that all ids are below the first of the next, which is large, too
}

func (x *Index) view(unit uint32) (v chunkView) {
	c := x.chunk(unit)
	capacity := le.Uint16(c[4:])
	v.next, v.steps = le.Uint32(c), c[chunkHeader:chunkHeader+int(le.Uint16(c[6:]))]
	if capacity >= chunkLarge {
		v.large, v.ascends = true, capacity&disordered == 0
		v.first, v.steps = le.Uint32(v.steps), v.steps[chunkID:]
	}
	return v
}

// First is the first id that Posted yields, None if there is none.
func (x *Index) First(pair uint32) uint32 {
	x.settle()
	if p := x.pairs.At(pair); p.n > 0 {
		return p.first
	}
	return None
}

// Posted yields the ids of the series that have the pair, dead ones too, in no
// set order.
func (x *Index) Posted(pair uint32) iter.Seq[uint32] {
	return func(yield func(id uint32) bool) {
		x.settle()
		p := x.pairs.At(pair)
		if p.n == 0 || !yield(p.first) {
			return
		}
		id := int64(p.first)
		for unit := p.head; unit != 0; {
			v := x.view(unit)
			if v.large {
				if id = int64(v.first); !yield(v.first) {
					return
				}
			}
			b := v.steps
			for i := 0; i < len(b); {
				u := uint64(b[i])
				i++
				if u == stepRun {
					for end := id + int64(b[i]); id < end; {
						if id++; !yield(uint32(id)) {
							return
						}
					}
					i++
					continue
				}
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
				if id += int64(u>>1) ^ -int64(u&1); !yield(uint32(id)) {
					return
				}
			}
			unit = v.next
		}
	}
}

// mark puts what Posted yields into a set, after all was settled. Of is nil, or the set
// of those that matter: others may be left out.
func (x *Index) mark(pair uint32, to Set, of *Set) {
	p := x.pairs.At(pair)
	if p.n == 0 {
		return
	}
	id := p.first
	to.Add(id)
	words := to.words
	for unit := p.head; unit != 0; {
		v := x.view(unit)
		unit = v.next
		if v.large {
			if id = v.first; of != nil && v.ascends {
				end := p.last // no id of the chunk is beyond
				if unit != 0 {
					end = le.Uint32(x.chunk(unit)[chunkHeader:])
				}
				if !of.mayHave(id, end) {
					continue
				}
			}
			words[id>>6] |= 1 << (id & 63)
		}
		from := id // of the words from its to that of id all have ids, which the set was not told of
		for b := v.steps; len(b) > 0; {
			switch u := uint32(b[0]); {
			case u == stepRun:
				end := id + uint32(b[1])
				markRange(words, id+1, end)
				id, b = end, b[2:]
				continue
			case u&0x81 == 0: // nearly all others, as in postOne: by less than a word
				id, b = id+u>>1, b[1:]
				words[id>>6] |= 1 << (id & 63)
				continue
			}
			to.mayGet(from, id)
			if u := uint32(b[0]); u < 0x80 {
				id, b = id-u>>1-1, b[1:]
			} else if b[1] < 0x80 { // nearly all others
				u = u&0x7f | uint32(b[1])<<7
				id, b = id+(u>>1^-(u&1)), b[2:]
			} else {
				delta, n := binary.Varint(b)
				id, b = uint32(int64(id)+delta), b[n:]
			}
			words[id>>6] |= 1 << (id & 63)
			from = id
		}
		to.mayGet(from, id)
	}
}

// Unpost takes a dead series off the live counts of its pairs, pending or not.
func (x *Index) Unpost(pairs []uint32) {
	for _, p := range pairs {
		x.pairs.At(p).live--
	}
}
