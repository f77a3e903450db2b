package mcache

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sort"

	"mcached/mcache/index"
)

// LabelNamesIn returns the names that the selected series have that have a
// point from from to to, both inclusive, in ms; else it is LabelNames. complete
// is the time from which on it is known that none is missing: a series that has
// lost what it had before may have been there, math.MinInt64 when there is none.
func (c *Cache) LabelNamesIn(bucket string, ms []Matcher, from, to int64, limit int) (names []string, complete int64, err error) {
	w := window{from: from, to: to, complete: math.MinInt64}
	names, err = c.texts(bucket, ms, limit, func(s *shard, l *textList, _ bool, _ func() index.Set) {
		x := &s.index
		seen := index.NewSet(x.Names())
		w.wanted = x.Names() - 1 // the first is the bucket's
		s.eachInLocked(bucket, ms, &w, func(pairs []uint32) bool {
			for _, p := range pairs {
				if !seen.Has(x.NameOf(p)) {
					return true
				}
			}
			return false
		}, func(pairs []uint32) {
			for _, p := range pairs {
				if n := x.NameOf(p); !seen.Has(n) {
					seen.Add(n)
					w.wanted--
				}
			}
		})
		seen.Each(func(n uint32) {
			l.add(x.NameText(n))
		})
	})
	return names, w.complete, err
}

// LabelValuesIn does the same for the values of a label.
func (c *Cache) LabelValuesIn(bucket, name string, ms []Matcher, from, to int64, limit int) (values []string, complete int64, err error) {
	if name == bucketName || name == rawName {
		return nil, math.MinInt64, fmt.Errorf("%w: name %q", ErrLabels, name)
	}
	h := c.HashString(name)
	w := window{from: from, to: to, complete: math.MinInt64}
	values, err = c.texts(bucket, ms, limit, func(s *shard, l *textList, _ bool, _ func() index.Set) {
		x := &s.index
		only := x.FindName(h, name)
		if only == noID {
			return
		}
		w.wanted = 0
		for p := range x.EachOf(only) {
			if x.Live(p) > 0 {
				w.wanted++
			}
		}
		seen, at, value := index.NewSet(x.Pairs()), 0, uint32(0)
		s.eachInLocked(bucket, ms, &w, func(pairs []uint32) bool {
			// Where the last series had it is where most have it.
			if at >= len(pairs) || x.NameOf(pairs[at]) != only {
				at = slices.IndexFunc(pairs, func(p uint32) bool { return x.NameOf(p) == only })
				if at < 0 {
					at = 0
					return false
				}
			}
			value = pairs[at]
			return !seen.Has(value)
		}, func([]uint32) {
			seen.Add(value)
			w.wanted--
			l.add(x.Value(value))
		})
	})
	return values, w.complete, err
}

// window is a time, and what turns out about series in it.
type window struct {
	from, to int64 // ms, inclusive
	// complete is the latest time before which a series has lost points that
	// might have been in the window and was found without any: that is, the
	// time from which on the answer is complete.
	complete int64
	wanted   int      // how many names or values the shard has that were not found; none: the rest does not matter
	snap     Snapshot // for the series whose blocks have to be read
}

// eachInLocked calls found with the pairs of each selected series that has a
// point in the window, of those of which useful says that they matter: most
// labels are shared by many series, and one of them is enough.
func (s *shard) eachInLocked(bucket string, ms []Matcher, w *window, useful func(pairs []uint32) bool, found func(pairs []uint32)) {
	b := s.cache.findBucket(bucket)
	if b == nil {
		return
	}
	set := s.matchLocked(b, ms, &index.Picker{})
	for i, word := range set {
		for ; word != 0 && w.wanted > 0; word &= word - 1 {
			r := s.recs.At(uint32(i<<6 + bits.TrailingZeros64(word)))
			if r.flags&(flagRaw|flagShadow) != 0 || s.lastTimeLocked(r) < w.from { // nor was anything it lost later
				continue
			}
			if pairs := s.index.Set(r.pairs, int(r.nPairs))[1:]; useful(pairs) && s.hasPointInLocked(r, w) {
				found(pairs)
			}
		}
	}
}

// hasPointInLocked reports whether the series, which did not end before the
// window, has a point in it. For nearly all, the descriptor and the times at
// which blocks begin tell.
func (s *shard) hasPointInLocked(r *series, w *window) bool {
	if r.head != 0 && r.headLen() > 0 {
		if t := r.headLast(); t >= w.from && t <= w.to && s.hot.Live(r.head) {
			return true
		}
	}
	records := s.recordDirLocked(r).entries()
	if s.beginsInLocked(s.dirOfLocked(r), w) || s.beginsInLocked(records, w) {
		return true
	}
	if r.flags&flagBlob == 0 && r.completeFrom == math.MinInt64 && s.beginsAfterLocked(r, records, w.to) {
		return false
	}
	s.snapshotLocked(r, w.from, w.to, &w.snap)
	if w.snap.HasPoint() {
		return true
	}
	if w.snap.completeFrom > w.from {
		w.complete = max(w.complete, w.snap.completeFrom)
	}
	return false
}

// beginsInLocked reports whether one of the entries' blocks is there and begins
// in the window.
func (s *shard) beginsInLocked(dir []dirEntry, w *window) bool {
	for k := sort.Search(len(dir), func(i int) bool { return dir[i].start >= w.from }); k < len(dir) && dir[k].start <= w.to; k++ {
		if s.blockLocked(dir[k]) != nil {
			return true
		}
	}
	return false
}

// beginsAfterLocked reports whether all that the series has in blocks is after t.
// What is in the head is after its blocks; without any the head is looked into.
func (s *shard) beginsAfterLocked(r *series, records []dirEntry, t int64) bool {
	dir := s.dirOfLocked(r)
	if len(dir) == 0 && len(records) == 0 {
		return false
	}
	return (len(dir) == 0 || dir[0].start > t) && (len(records) == 0 || records[0].start > t) && (len(dir) > 0 || r.headLen() == 0)
}
