package mcache

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
	"strings"
	"sync"
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
	l := newTextList()
	defer l.close()
	// What many series share is in most shards, and is left out at once; of
	// what one series has alone, a set would only cost time.
	alike := true
	for _, s := range c.shards {
		before := len(l.ends)
		l.skipped, l.next = 0, 0
		s.mu.Lock()
		pick(s, l)
		s.mu.Unlock()
		alike = alike && (before == 0 || len(l.ends)-before <= l.skipped)
		if l.known = 0; alike {
			l.known = len(l.ends)
		}
	}
	return l.sorted(limit), nil
}

// textList is texts in one string, so that there is nothing that the collector
// must follow. Its memory serves one call after the other.
type textList struct {
	text    []byte
	ends    []int
	known   int // so many, the first, are left out
	skipped int // how many were left out
	next    int // position of the one behind that: the next to come, mostly

	// table has the positions, and one more, of the first texts, as many as placed says,
	// each in the first place that was free from its hash on. The rest, and what is
	// behind its length, are 0; half are free at least. Only what next does not find is
	// looked for in it, and known texts come into it then. With a map in its place values
	// of pods take 6 to 9 % longer, and its keys are views of text that has moved.
	table  []uint32
	placed int

	keys, spare []textKey // to sort by; spare is empty
}

// A list is kept that has no room for more than keptBytes of texts and keptTexts of
// them: with its table and keys two MiB at the most.
const (
	keptBytes = 256 << 10
	keptTexts = 32 << 10
)

var (
	textLists sync.Pool // of *textList
	textSeed  = maphash.MakeSeed()
)

func newTextList() *textList {
	if l, ok := textLists.Get().(*textList); ok {
		return l
	}
	return new(textList)
}

// close ends the use of a list.
func (l *textList) close() {
	if !l.small() {
		return
	}
	clear(l.table)
	*l = textList{text: l.text[:0], ends: l.ends[:0], table: l.table[:0], keys: l.keys[:0], spare: l.spare[:0]}
	textLists.Put(l)
}

// small reports that the list is kept for others.
func (l *textList) small() bool { return cap(l.text) <= keptBytes && cap(l.ends) <= keptTexts }

// skips reports that a text is left out.
func (l *textList) skips(text []byte) bool {
	at := l.next
	if at >= l.known || !bytes.Equal(l.at(at), text) {
		if l.known == 0 {
			return false
		}
		if at = l.find(text); at < 0 {
			return false
		}
	}
	l.next = at + 1
	l.skipped++
	return true
}

// find is the position of a known text, -1 if it is none.
func (l *textList) find(text []byte) int {
	if len(l.table) < 2*l.known {
		clear(l.table)
		size := 1 << bits.Len(uint(4*l.known-1))
		l.table, l.placed = slices.Grow(l.table[:0], size)[:size], 0
	}
	mask := uint64(len(l.table) - 1)
	for ; l.placed < l.known; l.placed++ {
		i := maphash.Bytes(textSeed, l.at(l.placed)) & mask
		for l.table[i] != 0 {
			i = (i + 1) & mask
		}
		l.table[i] = uint32(l.placed) + 1
	}
	for i := maphash.Bytes(textSeed, text) & mask; l.table[i] != 0; i = (i + 1) & mask {
		if at := int(l.table[i]) - 1; bytes.Equal(l.at(at), text) {
			return at
		}
	}
	return -1
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

// sorted returns the texts in order, one of each, at most limit if that is
// above zero. They are the caller's.
//
// Values of a label often begin alike, so what they are sorted by first is the
// eight bytes behind what all have in common, as one number.
func (l *textList) sorted(limit int) []string {
	l.makeKeys()
	l.keys, l.spare = sortKeys(l.keys, l.spare)
	keys := l.keys
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
	keys = slices.CompactFunc(keys, func(a, b textKey) bool {
		return a.key == b.key && bytes.Equal(l.at(int(a.place)), l.at(int(b.place)))
	})
	if limit > 0 {
		keys = keys[:min(limit, len(keys))]
	}
	once := make([]string, len(keys))
	if !l.small() { // nobody else will have it
		for i, k := range keys {
			text := l.at(int(k.place))
			once[i] = unsafe.String(unsafe.SliceData(text), len(text))
		}
		return once
	}
	size := 0
	for _, k := range keys {
		size += len(l.at(int(k.place)))
	}
	var all strings.Builder
	all.Grow(size)
	for i, k := range keys {
		from := all.Len()
		all.Write(l.at(int(k.place)))
		once[i] = all.String()[from:]
	}
	return once
}

// textKey is a text to be sorted.
type textKey struct {
	key   uint64
	place uint32 // position in the list
}

// makeKeys makes the keys of all texts.
func (l *textList) makeKeys() {
	if len(l.ends) == 0 {
		return
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
	l.keys = slices.Grow(l.keys, len(l.ends))
	for i := range l.ends {
		s := l.at(i)[common:]
		var key uint64
		if len(s) >= 8 {
			key = binary.BigEndian.Uint64(s)
		} else {
			var b [8]byte
			copy(b[:], s)
			key = binary.BigEndian.Uint64(b[:])
		}
		l.keys = append(l.keys, textKey{key, uint32(i)})
	}
}

// minRadix is how many keys are sorted by their bytes; fewer, by comparing.
const minRadix = 1 << 8

// sortKeys sorts by key: byte by byte from the last, each time without changing
// the order of what is alike, which takes eight walks and no comparison. It takes
// memory for as many, if that is to be had of spare, and returns both.
func sortKeys(keys, spare []textKey) (sorted, rest []textKey) {
	if len(keys) < minRadix {
		slices.SortFunc(keys, func(a, b textKey) int { return cmp.Compare(a.key, b.key) })
		return keys, spare
	}
	var counts [8][256]uint32
	for _, k := range keys {
		for b := range counts {
			counts[b][byte(k.key>>(8*b))]++
		}
	}
	from, to := keys, slices.Grow(spare, len(keys))[:len(keys)]
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
	return from, to[:0]
}
