package mcache

import (
	"cmp"
	"slices"

	"mcached/mcache/index"
)

// Count is a name and how many of something it has.
type Count struct {
	Name  string
	Count int
}

// Cardinality says where the series of a bucket come from; each list is the
// longest entries first.
type Cardinality struct {
	Series       int
	Labels       int     // names
	Pairs        int     // of name and value
	ByMetric     []Count // series by value of __name__
	ByLabel      []Count // values by label name
	ByPair       []Count // series by name=value
	BytesByLabel []Count // bytes of values by label name, each value counted once
}

// Cardinality counts the series of a bucket and lists the `limit` largest
// sources of them. It walks the dictionary of each shard, or with more than one
// bucket the series of this one.
func (c *Cache) Cardinality(bucket string, limit int) Cardinality {
	type pair struct{ name, value string }
	pairs := map[pair]int{}
	var card Cardinality
	if b := c.findBucket(bucket); b != nil && !c.closed.Load() {
		alone := len(*c.byID.Load()) == 1
		for _, s := range c.shards {
			s.mu.Lock()
			add := func(x *index.Index, p uint32, series int) {
				pairs[pair{string(x.Name(p)), string(x.Value(p))}] += series
			}
			if alone {
				s.countAllPairsLocked(add)
			} else {
				s.countPairsLocked(b, add)
			}
			s.mu.Unlock()
		}
		card.Series = int(b.series.Load())
	}
	values, bytes, metrics := map[string]int{}, map[string]int{}, map[string]int{}
	byPair := map[string]int{}
	for p, n := range pairs {
		values[p.name]++
		bytes[p.name] += len(p.value)
		byPair[p.name+"="+p.value] = n
		if p.name == "__name__" {
			metrics[p.value] = n
		}
	}
	card.Labels, card.Pairs = len(values), len(pairs)
	card.ByMetric, card.ByLabel, card.ByPair, card.BytesByLabel = Top(metrics, limit), Top(values, limit), Top(byPair, limit), Top(bytes, limit)
	return card
}

// countPairsLocked calls f with every pair of the labelled series of a bucket,
// once for each of them.
func (s *shard) countPairsLocked(b *bucket, f func(x *index.Index, p uint32, series int)) {
	x := &s.index
	s.matchLocked(b, nil, &index.Picker{}).Each(func(id uint32) {
		if r := s.recs.At(id); r.flags&(flagRaw|flagShadow) == 0 {
			for _, p := range x.Set(r.pairs, int(r.nPairs))[1:] {
				f(x, p, 1)
			}
		}
	})
}

// countAllPairsLocked is countPairsLocked where no other bucket shares the
// dictionary: it calls f once for each pair, with how many series have it.
func (s *shard) countAllPairsLocked(f func(x *index.Index, p uint32, series int)) {
	x := &s.index
	for p := range uint32(x.Pairs()) {
		n := x.Name(p)
		if live := x.Live(p); live > 0 && string(n) != bucketName && string(n) != rawName {
			f(x, p, live)
		}
	}
}

// Top lists the limit largest counts, the largest first.
func Top[N int | int64](counts map[string]N, limit int) []Count {
	all := make([]Count, 0, len(counts))
	for name, n := range counts {
		all = append(all, Count{name, int(n)})
	}
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return all[:min(limit, len(all))]
}
