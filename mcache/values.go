package mcache

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// LabelNames returns the names that the selected series have, sorted; all of
// the bucket if there are no matchers. At most limit are returned, if it is
// above zero.
func (c *Cache) LabelNames(bucket string, ms []Matcher, limit int) ([]string, error) {
	return c.texts(bucket, ms, limit, func(s *shard, l *textList, _ bool, found func() bitset) {
		x := &s.index
		names := make(bitset, (x.names.n+63)/64)
		found().each(func(p uint32) { names.set(x.pairs.view[p].name) })
		names.each(func(n uint32) {
			r := &x.names.view[n]
			if text := x.text.at(r.text, r.textLen); string(text) != bucketName && string(text) != rawName {
				l.add(text)
			}
		})
	})
}

// LabelValues returns the values of a label that the selected series have,
// sorted; all of the bucket if there are no matchers. At most limit are
// returned, if it is above zero.
func (c *Cache) LabelValues(bucket, name string, ms []Matcher, limit int) ([]string, error) {
	if name == bucketName || name == rawName {
		return nil, fmt.Errorf("%w: name %q", ErrLabels, name)
	}
	h := c.HashString(name)
	return c.texts(bucket, ms, limit, func(s *shard, l *textList, alone bool, found func() bitset) {
		x := &s.index
		only := x.findName(h, name)
		if only == noID {
			return
		}
		if n := &x.names.view[only]; alone && int(n.pairs) < x.pairs.n/chainShare {
			for p := n.firstPair; p != noID; p = x.pairs.view[p].nextPair {
				if r := &x.pairs.view[p]; r.live > 0 {
					l.add(x.text.at(r.text, r.textLen))
				}
			}
			return
		}
		found().each(func(p uint32) {
			if r := &x.pairs.view[p]; r.name == only {
				l.add(x.text.at(r.text, r.textLen))
			}
		})
	})
}

// chainShare: the pairs of a name that has less than this part of all are
// found by their chain, which jumps about, and not by a walk over all pairs.
const chainShare = 8

// texts sorts what pick finds in each shard. pick is told whether every pair
// counts, which is where there is one bucket and no condition, and can ask for
// the set of those that count.
func (c *Cache) texts(bucket string, ms []Matcher, limit int, pick func(s *shard, l *textList, alone bool, found func() bitset)) ([]string, error) {
	b, err := c.selectable(bucket, ms)
	if b == nil || err != nil {
		return []string{}, err
	}
	alone := len(ms) == 0 && len(*c.byID.Load()) == 1
	var all []string
	// What many series share is in most shards, and is left out at once; of
	// what one series has alone, a set would only cost time.
	seen := map[string]bool{}
	for i, s := range c.shards {
		l := textList{seen: seen}
		s.mu.Lock()
		pick(s, &l, alone, func() bitset { return s.pairsFound(b, ms, alone) })
		s.mu.Unlock()
		before := len(all)
		all = l.appendTo(all)
		switch {
		case seen == nil:
		case i > 0 && before > 0 && len(l.ends) > l.skipped:
			seen = nil
		default:
			for _, text := range all[before:] {
				seen[text] = true
			}
		}
	}
	all = sortedTexts(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, nil
}

// pairsFound is the set of the pairs that a selected series has. Pairs are
// walked by number, which is how they lie in memory, and so do their texts.
func (s *shard) pairsFound(b *bucket, ms []Matcher, alone bool) bitset {
	x := &s.index
	found := make(bitset, (x.pairs.n+63)/64)
	if alone {
		for p := range x.pairs.view[:x.pairs.n] {
			if x.pairs.view[p].live > 0 {
				found.set(uint32(p))
			}
		}
		return found
	}
	s.match(b, ms, &picker{}).each(func(id uint32) {
		r := &s.recs.view[id]
		if r.flags&(flagRaw|flagShadow) != 0 {
			return
		}
		for _, p := range x.set(r.pairs, int(r.nPairs))[1:] {
			found.set(p)
		}
	})
	return found
}

// textList is texts one behind the other, so that there are two allocations
// and not one for each.
type textList struct {
	text    []byte
	ends    []int
	seen    map[string]bool // are left out; may be nil
	skipped int             // how many were
}

func (l *textList) add(text []byte) {
	if l.seen[string(text)] {
		l.skipped++
		return
	}
	l.text = append(l.text, text...)
	l.ends = append(l.ends, len(l.text))
}

// appendTo appends the texts to dst. The list must not be used after.
func (l *textList) appendTo(dst []string) []string {
	text, at := unsafe.String(unsafe.SliceData(l.text), len(l.text)), 0
	dst = slices.Grow(dst, len(l.ends))
	for _, end := range l.ends {
		dst = append(dst, text[at:end])
		at = end
	}
	return dst
}

// sortedTexts sorts all and leaves one of each. Values of a label often begin
// alike, so what is compared first is the eight bytes behind what all have in
// common, as one number.
func sortedTexts(all []string) []string {
	if len(all) == 0 {
		return []string{}
	}
	common := len(all[0])
	for _, s := range all[1:] {
		common = min(common, len(s))
		for i := range common {
			if s[i] != all[0][i] {
				common = i
				break
			}
		}
	}
	type keyed struct {
		key   uint64
		place uint32 // in all
	}
	keys := make([]keyed, len(all))
	for i, s := range all {
		var b [8]byte
		copy(b[:], s[common:])
		keys[i] = keyed{binary.BigEndian.Uint64(b[:]), uint32(i)}
	}
	slices.SortFunc(keys, func(a, b keyed) int {
		if a.key != b.key {
			return cmp.Compare(a.key, b.key)
		}
		return strings.Compare(all[a.place], all[b.place])
	})
	once := make([]string, 0, len(all))
	for i, k := range keys {
		if text := all[k.place]; i == 0 || k.key != keys[i-1].key || text != once[len(once)-1] {
			once = append(once, text)
		}
	}
	return once
}
