package mcache

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"unsafe"

	"mcached/mcache/index"
)

// LabelNames returns the names that the selected series have, sorted; all of
// the bucket if there are no matchers. At most limit are returned, if it is
// above zero.
func (c *Cache) LabelNames(bucket string, ms []Matcher, limit int) ([]string, error) {
	return c.texts(bucket, ms, limit, func(s *shard, l *textList) { s.namesInLocked(bucket, ms, nil, l) })
}

// LabelValues returns the values of a label that the selected series have,
// sorted; all of the bucket if there are no matchers. At most limit are
// returned, if it is above zero.
func (c *Cache) LabelValues(bucket, name string, ms []Matcher, limit int) ([]string, error) {
	if name == bucketName || name == rawName {
		return nil, fmt.Errorf("%w: name %q", ErrLabels, name)
	}
	h := c.HashString(name)
	return c.texts(bucket, ms, limit, func(s *shard, l *textList) {
		if only := s.index.FindName(h, name); only != noID {
			s.valuesInLocked(only, bucket, ms, nil, l)
		}
	})
}

// chainShare: the pairs of a name that has less than this part of all are
// found by their chain, which jumps about, and not by a walk over all pairs.
const chainShare = 8

// pairsOf yields the pairs of a name: by their chain or, where they are many, by their
// numbers, which is how they lie in memory, and so do their texts and postings.
func pairsOf(x *index.Index, name uint32) iter.Seq[uint32] {
	if x.PairsOf(name) < x.Pairs()/chainShare {
		return x.EachOf(name)
	}
	return func(yield func(pair uint32) bool) {
		for p := range uint32(x.Pairs()) {
			if x.NameOf(p) == name && !yield(p) {
				return
			}
		}
	}
}

// texts sorts what pick finds in each shard.
func (c *Cache) texts(bucket string, ms []Matcher, limit int, pick func(s *shard, l *textList)) ([]string, error) {
	b, err := c.selectable(bucket, ms)
	if b == nil || err != nil {
		return []string{}, err
	}
	// What many series share is in most shards, and is left out at once; of
	// what one series has alone, a set would only cost time.
	var l textList
	alike := true
	for _, s := range c.shards {
		before := len(l.ends)
		l.skipped, l.next = 0, 0
		s.mu.Lock()
		pick(s, &l)
		s.mu.Unlock()
		alike = alike && (before == 0 || len(l.ends)-before <= l.skipped)
		if l.known = 0; alike {
			l.known = len(l.ends)
		}
	}
	return l.sorted(limit), nil
}

// textList is texts in one string, so that there are two allocations
// and not one for each, and nothing that the collector must follow.
type textList struct {
	text    []byte
	ends    []int
	known   int            // so many, the first, are left out
	seen    map[string]int // the first of them with their positions, as far as that was needed
	skipped int            // how many were left out
	next    int            // position of the one behind that: the next to come, mostly
}

// skips reports that a text is left out.
func (l *textList) skips(text []byte) bool {
	at := l.next
	if at >= l.known || !bytes.Equal(l.at(at), text) {
		if l.known == 0 {
			return false
		}
		if l.seen == nil {
			l.seen = make(map[string]int, l.known)
		}
		for k := len(l.seen); k < l.known; k++ {
			l.seen[l.view(k)] = k // text that is moved stays where it was, too
		}
		var ok bool
		if at, ok = l.seen[string(text)]; !ok {
			return false
		}
	}
	l.next = at + 1
	l.skipped++
	return true
}

func (l *textList) add(text []byte) {
	if !l.skips(text) {
		l.put(text)
	}
}

// put adds a text that is not left out.
func (l *textList) put(text []byte) {
	if len(text) > cap(l.text)-len(l.text) {
		l.text = slices.Grow(l.text, len(l.text)+len(text)) // append alone would copy four times as much
	}
	l.text = append(l.text, text...)
	l.ends = append(l.ends, len(l.text))
}

// at is a text; a view.
func (l *textList) at(i int) []byte {
	start := 0
	if i > 0 {
		start = l.ends[i-1]
	}
	return l.text[start:l.ends[i]]
}

func (l *textList) view(i int) string {
	text := l.at(i)
	return unsafe.String(unsafe.SliceData(text), len(text))
}

// sorted returns the texts in order, one of each, at most limit if that is
// above zero. They share the list's memory, which must not be used after.
//
// Values of a label often begin alike, so what they are sorted by first is the
// eight bytes behind what all have in common, as one number.
func (l *textList) sorted(limit int) []string {
	keys := l.keys()
	sortKeys(keys)
	for i := 0; i < len(keys); {
		end := i + 1
		for end < len(keys) && keys[end].key == keys[i].key {
			end++
		}
		if end > i+1 {
			slices.SortFunc(keys[i:end], func(a, b textKey) int { return bytes.Compare(l.at(int(a.place)), l.at(int(b.place))) })
		}
		i = end
	}
	once := make([]string, 0, len(keys))
	var last []byte
	for i, k := range keys {
		text := l.at(int(k.place))
		if i > 0 && k.key == keys[i-1].key && bytes.Equal(text, last) {
			continue
		}
		if limit > 0 && len(once) == limit {
			break
		}
		once, last = append(once, l.view(int(k.place))), text
	}
	return once
}

// textKey is a text to be sorted.
type textKey struct {
	key   uint64
	place uint32 // position in the list
}

func (l *textList) keys() []textKey {
	if len(l.ends) == 0 {
		return nil
	}
	first := l.at(0)
	common := len(first)
	for i := range l.ends {
		s := l.at(i)
		if bytes.HasPrefix(s, first[:common]) {
			continue
		}
		common = min(common, len(s))
		for k := range common {
			if s[k] != first[k] {
				common = k
				break
			}
		}
	}
	keys := make([]textKey, len(l.ends))
	for i := range keys {
		s := l.at(i)[common:]
		var key uint64
		if len(s) >= 8 {
			key = binary.BigEndian.Uint64(s)
		} else {
			var b [8]byte
			copy(b[:], s)
			key = binary.BigEndian.Uint64(b[:])
		}
		keys[i] = textKey{key, uint32(i)}
	}
	return keys
}

// minRadix is how many keys are sorted by their bytes; fewer, by comparing.
const minRadix = 1 << 10

// sortKeys sorts by key: byte by byte from the last, each time without changing
// the order of what is alike, which takes eight walks and no comparison.
func sortKeys(keys []textKey) {
	if len(keys) < minRadix {
		slices.SortFunc(keys, func(a, b textKey) int { return cmp.Compare(a.key, b.key) })
		return
	}
	var counts [8][256]uint32
	for _, k := range keys {
		for b := range counts {
			counts[b][byte(k.key>>(8*b))]++
		}
	}
	from, to := keys, make([]textKey, len(keys))
	for b := range counts {
		count := &counts[b]
		if count[byte(keys[0].key>>(8*b))] == uint32(len(keys)) {
			continue // all are alike
		}
		sum := uint32(0)
		for i, n := range count {
			count[i], sum = sum, sum+n
		}
		for _, k := range from {
			at := &count[byte(k.key>>(8*b))]
			to[*at] = k
			*at++
		}
		from, to = to, from
	}
	if &from[0] != &keys[0] {
		copy(keys, from)
	}
}
