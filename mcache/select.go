package mcache

import (
	"math/bits"
	"slices"
)

// SeriesID is a series as found by Select. The id of a series that has gone
// since finds nothing, also when another took its place.
type SeriesID uint64

func (s *shard) seriesID(id uint32) SeriesID {
	return SeriesID(s.recs.At(id).life)<<32 | SeriesID(id)<<8 | SeriesID(s.number)
}

// lookup returns the shard, locked, and the series of an id. The shard is nil
// if the series has gone.
func (c *Cache) locked(sid SeriesID) (*shard, *series, uint32) {
	if int(sid&0xff) >= len(c.shards) {
		return nil, nil, 0
	}
	s, id := c.shards[sid&0xff], uint32(sid>>8)&(maxSeriesShard-1)
	s.mu.Lock()
	if int(id) < s.recs.Len() {
		if r := s.recs.At(id); r.flags&flagInUse != 0 && r.life == uint32(sid>>32) {
			return s, r, id
		}
	}
	s.mu.Unlock()
	return nil, nil, 0
}

// Select appends the ids of the series of a bucket that all matchers match to
// dst, in no set order. Keys of the raw API are no labelled series and are
// never selected. An unknown bucket has none.
func (c *Cache) Select(bucket string, ms []Matcher, dst []SeriesID) ([]SeriesID, error) {
	b, err := c.selectable(bucket, ms)
	if b == nil || err != nil {
		return dst, err
	}
	ms = remembering(ms)
	var p picker
	for _, s := range c.shards {
		s.mu.Lock()
		set := s.match(b, ms, &p)
		set.each(func(id uint32) {
			if s.recs.At(id).flags&(flagRaw|flagShadow) == 0 {
				dst = append(dst, s.seriesID(id))
			}
		})
		s.mu.Unlock()
	}
	return dst, nil
}

func (c *Cache) selectable(bucket string, ms []Matcher) (*bucket, error) {
	for i := range ms {
		if err := ms[i].check(); err != nil {
			return nil, err
		}
	}
	if c.closed.Load() {
		return nil, ErrClosed
	}
	b := c.findBucket(bucket)
	if b == nil {
		return nil, nil
	}
	return b, nil
}

// bitset is a set of series ids of one shard.
type bitset []uint64

func (b bitset) set(id uint32) { b[id>>6] |= 1 << (id & 63) }

func (b bitset) each(f func(id uint32)) {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			f(uint32(i<<6 + bits.TrailingZeros64(w)))
		}
	}
}

func (b bitset) count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// clause is one condition that a series must meet: to have (or to lack, if
// not is set) one of the pairs.
type clause struct {
	pairs []uint32
	cost  int // ids in their postings
	not   bool
}

// picker is what match needs beside its result, used again for every shard.
type picker struct {
	have, other bitset
	clauses     []clause
}

// empty makes b a set of no series.
func (b bitset) empty(words int) bitset {
	b = slices.Grow(b[:0], words)[:words]
	clear(b)
	return b
}

// match returns the series of the bucket that all matchers match. Each matcher
// becomes a clause over pairs: one that the empty value fails says which pairs
// a series must have, any other says which it must not. The clause with the
// fewest ids begins; the others are intersected with it, or tested series by
// series once few are left. The set is
// the picker's, and good until its next use.
func (s *shard) match(b *bucket, ms []Matcher, k *picker) bitset {
	x := &s.index
	own := noID
	if name := x.findName(s.cache.HashString(bucketName), bucketName); name != noID {
		own = int(x.findPair(pairTag(name, s.cache.HashString(b.name)), name, b.name))
	}
	if own == noID {
		return nil
	}
	ofBucket := clause{pairs: []uint32{uint32(own)}, cost: int(x.pairs.At(uint32(own)).n)}
	clauses := append(k.clauses[:0], ofBucket)
	for i := range ms {
		m := &ms[i]
		c := clause{}
		if m.matches("") {
			inverse := m.inverse()
			c.not = true
			c.pairs = x.pairsOf(s.cache, &inverse)
		} else {
			c.pairs = x.pairsOf(s.cache, m)
			if len(c.pairs) == 0 {
				return nil
			}
		}
		for _, p := range c.pairs {
			c.cost += int(x.pairs.At(p).n)
		}
		clauses = append(clauses, c)
	}
	// What must be there first, and of that the rarest.
	slices.SortStableFunc(clauses, func(a, b clause) int {
		if a.not != b.not {
			if a.not {
				return 1
			}
			return -1
		}
		return a.cost - b.cost
	})
	k.clauses = clauses
	k.have = k.have.empty((s.recs.Len() + 63) / 64)
	have := k.have
	for _, p := range clauses[0].pairs {
		x.posting(x.pairs.At(p), have.set)
	}
	for i := range clauses[1:] {
		if c := &clauses[1+i]; c.not || c.pairs[0] != uint32(own) { // the bucket is looked at below
			s.narrow(k, c)
		}
	}
	// Tombstones of a series stand in its postings until a rebuild.
	have.each(func(id uint32) {
		if r := s.recs.At(id); r.flags&flagInUse == 0 || r.bucket != b.id {
			have[id>>6] &^= 1 << (id & 63)
		}
	})
	return have
}

// testCost is about how many ids of a posting are read in the time that
// testing the pairs of one series takes.
const testCost = 16

// narrow takes out what the clause excludes.
func (s *shard) narrow(k *picker, c *clause) {
	x, have := &s.index, k.have
	if c.cost > testCost*have.count() {
		wanted := make(map[uint32]bool, len(c.pairs))
		for _, p := range c.pairs {
			wanted[p] = true
		}
		have.each(func(id uint32) {
			r := s.recs.At(id)
			if slices.ContainsFunc(x.set(r.pairs, int(r.nPairs)), func(p uint32) bool { return wanted[p] }) == c.not {
				have[id>>6] &^= 1 << (id & 63)
			}
		})
		return
	}
	k.other = k.other.empty(len(have))
	other := k.other
	for _, p := range c.pairs {
		x.posting(x.pairs.At(p), other.set)
	}
	for i := range have {
		if c.not {
			have[i] &^= other[i]
		} else {
			have[i] &= other[i]
		}
	}
}

// pairsOf lists the pairs of m's name whose value m matches.
func (x *index) pairsOf(c *Cache, m *Matcher) []uint32 {
	name := x.findName(c.HashString(m.Name), m.Name)
	if name == noID {
		return nil
	}
	var pairs []uint32
	if values, ok := m.candidates(); ok && m.positive() {
		for _, v := range values {
			if v == "" {
				continue
			}
			if p := x.findPair(pairTag(name, c.HashString(v)), name, v); p != noID && x.pairs.At(p).live > 0 {
				pairs = append(pairs, p)
			}
		}
		slices.Sort(pairs)
		return slices.Compact(pairs)
	}
	if m.Syntax != "" && m.Type >= MatchRegexp {
		return x.remembered(name, m)
	}
	for p := x.names.At(name).firstPair; p != noID; p = x.pairs.At(p).nextPair {
		if x.pairs.At(p).live > 0 && x.matchesPair(m, p) {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// Labels appends the labels of a series to dst, sorted by name. It reports
// false when the series has gone.
func (c *Cache) Labels(sid SeriesID, dst []Label) ([]Label, bool) {
	s, r, _ := c.locked(sid)
	if s == nil {
		return dst, false
	}
	defer s.mu.Unlock()
	return s.labels(r, dst), true
}

// labels appends the labels of r to dst. All text is one allocation.
func (s *shard) labels(r *series, dst []Label) []Label {
	x := &s.index
	set := x.set(r.pairs, int(r.nPairs))[1:] // without the bucket
	n := 0
	for _, p := range set {
		n += len(x.name(p)) + len(x.value(p))
	}
	buf := make([]byte, 0, n)
	for _, p := range set {
		buf = append(append(buf, x.name(p)...), x.value(p)...)
	}
	text := string(buf)
	for _, p := range set {
		k, v := len(x.name(p)), len(x.value(p))
		dst = append(dst, Label{text[:k], text[k : k+v]})
		text = text[k+v:]
	}
	return dst
}
