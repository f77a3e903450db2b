package mcache

import (
	"fmt"
	"math"
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
	names, err = c.texts(bucket, ms, limit, func(s *shard, l *textList) {
		s.namesInLocked(bucket, ms, &w, l)
	})
	return names, w.complete, err
}

// namesInLocked lists the names that the selected series have that are in the window.
func (s *shard) namesInLocked(bucket string, ms []Matcher, w *window, l *textList) {
	x, of := &s.index, s.selectedLocked(bucket, ms)
	seen := index.NewSet(x.Names())
	if s.fewLocked(&of) {
		known := index.NoPlace // a base all names of which are seen
		s.eachInLocked(&of, w, func(r *series) bool {
			base, _ := x.Base(r.pairs)
			if base == known || slices.ContainsFunc(x.Set(base, int(r.nPairs)), func(p uint32) bool { return !seen.Has(x.NameOf(p)) }) {
				return base != known
			}
			known = base
			return false
		}, func(r *series) {
			base, _ := x.Base(r.pairs)
			for _, p := range x.Set(base, int(r.nPairs)) {
				seen.Add(x.NameOf(p))
			}
		})
	} else {
		for n := range uint32(x.Names()) {
			for p := range x.EachOf(n) {
				if s.oneInLocked(p, &of, w) {
					seen.Add(n)
					break
				}
			}
		}
	}
	seen.Each(func(n uint32) {
		if text := x.NameText(n); string(text) != bucketName && string(text) != rawName {
			l.add(text)
		}
	})
}

// LabelValuesIn does the same for the values of a label.
func (c *Cache) LabelValuesIn(bucket, name string, ms []Matcher, from, to int64, limit int) (values []string, complete int64, err error) {
	if name == bucketName || name == rawName {
		return nil, math.MinInt64, fmt.Errorf("%w: name %q", ErrLabels, name)
	}
	h := c.HashString(name)
	w := window{from: from, to: to, complete: math.MinInt64}
	values, err = c.texts(bucket, ms, limit, func(s *shard, l *textList) {
		if only := s.index.FindName(h, name); only != noID {
			s.valuesInLocked(only, bucket, ms, &w, l)
		}
	})
	return values, w.complete, err
}

// valuesInLocked lists the values of a name that the selected series have that are in
// the window.
func (s *shard) valuesInLocked(name uint32, bucket string, ms []Matcher, w *window, l *textList) {
	x, of := &s.index, s.selectedLocked(bucket, ms)
	byPair := !s.fewLocked(&of) && x.PairsOf(name) < of.n
	if of.all && w == nil { // a pair tells mostly, without its series
		byPair = x.PairsOf(name) < manyWalked*of.n
	}
	if byPair {
		s.valuesByPairLocked(name, &of, w, l)
		return
	}
	seen, at, value := index.NewSet(x.Pairs()), 0, uint32(0)
	// known is the base that has the name at the place, or not at all; old says that its
	// value is seen.
	known, old := index.NoPlace, false
	s.eachInLocked(&of, w, func(r *series) bool {
		base, differ := x.Base(r.pairs)
		if base != known {
			// Where the last base had it is where most have it.
			pairs := x.Set(base, int(r.nPairs))
			if known, old = base, false; at < 0 || at >= len(pairs) || x.NameOf(pairs[at]) != name {
				at = slices.IndexFunc(pairs, func(p uint32) bool { return x.NameOf(p) == name })
			}
		}
		other := at >= 0 && differ>>at&1 != 0
		if at < 0 || old && !other {
			return false
		}
		value = x.PairAt(r.pairs, at)
		if !seen.Has(value) {
			return true
		}
		old = old || !other
		return false
	}, func(*series) {
		seen.Add(value)
		l.add(x.Value(value))
	})
}

// pairsAtOnce is how many pairs' first series are waited for at a time.
const pairsAtOnce = 64

// valuesByPairLocked lists them by the pairs of the name. The first series of some
// pairs are read in a loop of its own, so that the processor waits for all at once.
func (s *shard) valuesByPairLocked(name uint32, of *selected, w *window, l *textList) {
	x, n := &s.index, 0
	var pairs [pairsAtOnce]uint32
	look := func() {
		if recs := s.recs.All(); w != nil { // else a pair tells mostly
			for _, p := range pairs[:n] {
				if id := x.First(p); id != noID {
					s.touched += recs[id].fp.lo + uint64(recs[id].sealedEnd)
				}
			}
		}
		for _, p := range pairs[:n] {
			if s.oneInLocked(p, of, w) {
				l.put(x.Value(p))
			}
		}
		n = 0
	}
	for p := range pairsOf(x, name) {
		// Most values are in all shards, and were found in one before.
		if l.skips(x.Value(p)) {
			continue
		}
		if n == len(pairs) {
			look()
		}
		pairs[n] = p
		n++
	}
	look()
}

// window is a time, and what turns out about series in it. All series are in one
// that is nil.
type window struct {
	from, to int64 // ms, inclusive
	// complete is the latest time before which a series has lost points that
	// might have been in the window and was found without any: that is, the
	// time from which on the answer is complete.
	complete int64
	snap     Snapshot // for the series whose blocks have to be read
}

// There are two ways to what a label has in a window. The series that are
// selected can be walked, each with its labels. Or the label's values can be,
// each with its series until one is in the window: of most values that is the
// first, and only those of series that have ended are walked whole. The second
// takes a few ns for a series that is walked, and the first some 30.

// manyWalked series of the shard are as dear in the second way as one selected
// series in the first.
const manyWalked = 8

// selected is what is selected of a shard.
type selected struct {
	bucket *bucket   // nil: nothing
	own    uint32    // its pair, noID if it has no series
	all    bool      // of the bucket; else those of set
	set    index.Set // of series
	n      int       // how many there are
}

// selectedLocked says what is selected.
func (s *shard) selectedLocked(bucket string, ms []Matcher) (of selected) {
	if of.bucket = s.cache.findBucket(bucket); of.bucket == nil {
		return of
	}
	of.own = s.ownPairLocked(of.bucket)
	if of.all = len(ms) == 0; of.all {
		of.n = s.seriesOfLocked(of.bucket)
	} else {
		of.set = s.matchLocked(of.bucket, ms, &index.Picker{})
		of.n = of.set.Count()
	}
	return of
}

// fewLocked reports whether the first way is the shorter.
func (s *shard) fewLocked(of *selected) bool { return manyWalked*of.n < int(s.live) }

// eachInLocked calls found with each selected series that has a point in the
// window, of those of which useful says that they matter: most
// labels are shared by many series, and one of them is enough.
func (s *shard) eachInLocked(of *selected, w *window, useful func(r *series) bool, found func(r *series)) {
	set := of.set
	if of.all {
		set = s.matchLocked(of.bucket, nil, &index.Picker{})
	}
	set.Each(func(id uint32) {
		r := s.recs.At(id)
		if !s.endsInLocked(r, w) {
			return
		}
		if useful(r) && s.hasPointInLocked(r, w) {
			found(r)
		}
	})
}

// oneInLocked reports whether one of the selected series that have the pair has
// a point in the window.
func (s *shard) oneInLocked(pair uint32, of *selected, w *window) bool {
	own := s.index.Own(pair)
	if of.n == 0 || s.index.Live(pair) == 0 || own != of.own && own != index.None {
		return false
	}
	if own == of.own && of.all && w == nil {
		return true
	}
	for id := range s.index.Posted(pair) {
		if !of.all && !of.set.Has(id) {
			continue
		}
		// Postings have series that are gone, and those of other buckets.
		r := s.recs.At(id)
		if r.flags&flagInUse != 0 && r.bucket == of.bucket.id && s.endsInLocked(r, w) && s.hasPointInLocked(r, w) {
			return true
		}
	}
	return false
}

// endsInLocked reports whether the series is one with labels that did not end
// before the window: what it lost is not later than what it has.
func (s *shard) endsInLocked(r *series, w *window) bool {
	return r.flags&(flagRaw|flagShadow) == 0 && (w == nil || s.lastTimeLocked(r) >= w.from)
}

// hasPointInLocked reports whether the series, which did not end before the
// window, has a point in it. For nearly all, the descriptor and the times at
// which blocks begin tell.
func (s *shard) hasPointInLocked(r *series, w *window) bool {
	if w == nil {
		return true
	}
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
