package mcache

import (
	"math"
	"sort"
)

// Snapshot is a copy of the chunks of one series that overlap a range of
// time, still encoded. It is taken under the shard's lock, which is held for
// the copy only, and decoded without it. A Snapshot may be used again; its
// Iterators are then invalid.
type Snapshot struct {
	from, to     int64
	buf          []byte // blocks, each with unpackSlack bytes behind it
	blocks       []snapBlock
	head         []Sample
	completeFrom int64
}

type snapBlock struct {
	start   int64
	at, len int // in buf, slack not counted
}

// Snapshot copies what the series has from from to to, both inclusive, in ms,
// into s. It reports false when the series has gone; s is then empty.
func (c *Cache) Snapshot(id SeriesID, from, to int64, s *Snapshot) bool {
	sh, r, _ := c.locked(id)
	if sh == nil {
		*s = Snapshot{buf: s.buf[:0], blocks: s.blocks[:0], head: s.head[:0], from: from, to: to, completeFrom: math.MinInt64}
		return false
	}
	defer sh.mu.Unlock()
	sh.snapshot(r, from, to, s)
	return true
}

func (s *shard) snapshot(r *series, from, to int64, snap *Snapshot) {
	snap.from, snap.to = from, to
	snap.buf, snap.blocks, snap.head = snap.buf[:0], snap.blocks[:0], snap.head[:0]
	snap.completeFrom = r.completeFrom
	dir := s.dirOf(r)
	// Blocks that vanished say from when on nothing is missing, in range or not.
	for k, e := range dir {
		if s.log.Live(e.ref) {
			break // older ones vanish first; a hole behind is found below
		}
		snap.lost(r, dir, k)
	}
	first := max(sort.Search(len(dir), func(i int) bool { return dir[i].start > from })-1, 0)
	for k := first; k < len(dir) && dir[k].start <= to; k++ {
		b := s.block(dir[k])
		if b == nil {
			snap.lost(r, dir, k)
			continue
		}
		snap.blocks = append(snap.blocks, snapBlock{dir[k].start, len(snap.buf), len(b)})
		snap.buf = append(append(snap.buf, b...), zeros[:]...)
	}
	if p := s.hot.Pointer(r.head); p != nil {
		if r.headLen() > 0 && r.headLast() >= from {
			snap.head = headSamples(snap.head, r, p)
		}
	} else if r.head != 0 && r.headLen() > 0 {
		snap.completeFrom = max(snap.completeFrom, r.headLast()+1)
	}
}

// lost notes that block k has vanished.
func (snap *Snapshot) lost(r *series, dir []dirEntry, k int) {
	end := r.sealedEnd
	if k+1 < len(dir) {
		end = dir[k+1].start - 1
	}
	snap.completeFrom = max(snap.completeFrom, end+1)
}

// CompleteFrom is the time in ms from which on nothing of the series is known
// to be missing: math.MinInt64, or the end of what was evicted or reclaimed.
func (s *Snapshot) CompleteFrom() int64 { return s.completeFrom }

// Bytes is the size of the copied blocks.
func (s *Snapshot) Bytes() int { return len(s.buf) - len(s.blocks)*unpackSlack }

// Iterator walks the samples of a Snapshot in order of time. It decodes one
// block at a time, 4 KiB of state; it is not safe for concurrent use, but a
// Snapshot may have many.
type Iterator struct {
	snap  *Snapshot
	block int // next to decode; len(snap.blocks) is the head
	cur   []Sample
	at    int // in cur, of the sample that At returns; −1 before the first
	store *iteratorStore
}

type iteratorStore struct {
	codec codec
	out   [blockMax]Sample
}

// Iterator returns an Iterator before the first sample.
func (s *Snapshot) Iterator() Iterator { return Iterator{snap: s, at: -1} }

// Reset puts the iterator before the first sample of s and keeps its buffers.
func (it *Iterator) Reset(s *Snapshot) { *it = Iterator{snap: s, at: -1, store: it.store} }

// Next moves to the next sample and reports whether there is one.
func (it *Iterator) Next() bool {
	for {
		it.at++
		for it.at < len(it.cur) {
			if t := it.cur[it.at].T; t > it.snap.to {
				it.end()
				return false
			} else if t >= it.snap.from {
				return true
			}
			it.at++
		}
		if !it.load() {
			return false
		}
	}
}

// SkipTo moves to the first sample at or after t, never backwards, and reports
// whether there is one.
func (it *Iterator) SkipTo(t int64) bool {
	if it.at >= 0 && it.at < len(it.cur) && it.cur[it.at].T >= t {
		return true
	}
	// Blocks that end before t are those whose successor begins at or before it.
	blocks := it.snap.blocks
	if it.block < len(blocks) && (it.at >= len(it.cur) || len(it.cur) == 0 || it.cur[len(it.cur)-1].T < t) {
		next := it.block + sort.Search(len(blocks)-it.block, func(i int) bool { return blocks[it.block+i].start > t }) - 1
		if next > it.block {
			it.block, it.cur, it.at = next, nil, -1
		}
	}
	for it.Next() {
		if it.cur[it.at].T >= t {
			return true
		}
		// Within a block the rest is searched, not walked.
		rest := it.cur[it.at:]
		it.at += sort.Search(len(rest), func(i int) bool { return rest[i].T >= t }) - 1
	}
	return false
}

// At is the sample that Next or SkipTo moved to.
func (it *Iterator) At() Sample { return it.cur[it.at] }

// load decodes the next block, or takes the head.
func (it *Iterator) load() bool {
	it.at = -1
	s := it.snap
	switch {
	case it.block < len(s.blocks):
		if it.store == nil {
			it.store = new(iteratorStore)
		}
		b := s.blocks[it.block]
		n, err := it.store.codec.decode(&it.store.out, s.buf[b.at:b.at+b.len+unpackSlack], b.start)
		if err != nil {
			panic("mcache: own block: " + err.Error())
		}
		it.cur = it.store.out[:n]
	case it.block == len(s.blocks):
		it.cur = s.head
	default:
		it.end()
		return false
	}
	it.block++
	return true
}

func (it *Iterator) end() { it.cur, it.at, it.block = nil, 0, len(it.snap.blocks)+1 }
