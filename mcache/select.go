package mcache

import (
	"slices"

	"mcached/mcache/index"
)

// SeriesID is a series as found by Select. The id of a series that has gone
// since finds nothing, even if a later series has its number.
type SeriesID uint64

func (s *shard) seriesIDLocked(id uint32) SeriesID {
	return SeriesID(s.recs.At(id).life)<<32 | SeriesID(id)<<8 | SeriesID(s.number)
}

// lockSeries returns the series of an id and its shard, which the caller unlocks.
// The shard is nil if the series has gone.
func (c *Cache) lockSeries(sid SeriesID) (*shard, *series, uint32) {
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
	ms = index.Remembering(ms)
	p, _ := c.pickers.Get().(*index.Picker)
	if p == nil {
		p = &index.Picker{}
	}
	defer c.pickers.Put(p)
	for _, s := range c.shards {
		s.mu.Lock()
		set := s.matchLocked(b, ms, p)
		dst = slices.Grow(dst, set.Count())
		set.Each(func(id uint32) {
			if s.recs.At(id).flags&(flagRaw|flagShadow) == 0 {
				dst = append(dst, s.seriesIDLocked(id))
			}
		})
		s.mu.Unlock()
	}
	return dst, nil
}

func (c *Cache) selectable(bucket string, ms []Matcher) (*bucket, error) {
	for i := range ms {
		if err := ms[i].Check(); err != nil {
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

// ownPairLocked is the pair that all series of the bucket have, or noID.
func (s *shard) ownPairLocked(b *bucket) uint32 {
	name := s.index.FindName(s.cache.HashString(bucketName), bucketName)
	if name == noID {
		return noID
	}
	return s.index.FindPair(name, s.cache.HashString(b.name), b.name)
}

// seriesOfLocked is about how many series the bucket has here.
func (s *shard) seriesOfLocked(b *bucket) int {
	if own := s.ownPairLocked(b); own != noID {
		return s.index.Live(own)
	}
	return 0
}

// matchLocked returns the series of the bucket that all matchers match. The set
// is the picker's, and good until its next use.
func (s *shard) matchLocked(b *bucket, ms []Matcher, k *index.Picker) index.Set {
	x, own := &s.index, s.ownPairLocked(b)
	if own == noID {
		return index.Set{}
	}
	have := x.Match(own, ms, s.recs.Len(), func(id uint32) (index.Place, int) {
		r := s.recs.At(id)
		return r.pairs, int(r.nPairs)
	}, k)
	// Tombstones of a series stand in its postings until a rebuild.
	have.Each(func(id uint32) {
		if r := s.recs.At(id); r.flags&flagInUse == 0 || r.bucket != b.id {
			have.Remove(id)
		}
	})
	return have
}

// Labels appends the labels of a series to dst, sorted by name. It reports
// false when the series has gone.
func (c *Cache) Labels(sid SeriesID, dst []Label) ([]Label, bool) {
	s, r, _ := c.lockSeries(sid)
	if s == nil {
		return dst, false
	}
	defer s.mu.Unlock()
	return s.appendLabelsLocked(r, dst), true
}

// keptLabelText bounds the text of a series' labels whose memory a shard keeps.
const keptLabelText = 16 << 10

// appendLabelsLocked appends the labels of r to dst. All text is one allocation.
func (s *shard) appendLabelsLocked(r *series, dst []Label) []Label {
	x := &s.index
	buf, ends := s.labelText[:0], s.labelEnds[:0]
	for _, p := range x.Set(r.pairs, int(r.nPairs))[1:] { // without the bucket
		buf = append(buf, x.Name(p)...)
		ends = append(ends, len(buf))
		buf = append(buf, x.Value(p)...)
		ends = append(ends, len(buf))
	}
	text, from := string(buf), 0
	for i := 0; i < len(ends); i += 2 {
		dst = append(dst, Label{text[from:ends[i]], text[ends[i]:ends[i+1]]})
		from = ends[i+1]
	}
	if cap(buf) <= keptLabelText {
		s.labelText, s.labelEnds = buf, ends
	}
	return dst
}
