package route

import (
	"slices"
	"unsafe"

	"mcached/remotewrite/wire"
)

// Hash gives the slot of a series: that of the sum of its bucket and its pairs
// of name and value, whose order does not matter. It is safe for concurrent use
// and keeps no string.
type Hash interface {
	Bucket(bucket string) uint64
	Pair(name, value string) uint64
	Slot(sum uint64) uint16
}

// item is what has owners: a series, or the metadata of a metric.
type item struct {
	from, to uint32 // in the body, with tag and length
	inner    uint32 // where the message in it begins
	rest     uint32 // protocol 1.0: and where it goes on behind its labels
	changes  uint32 // how many changes the items up to it have
	slot     uint16
	metadata bool
	whole    bool // it cannot be told by changes
}

// change is a label of a series in protocol 1.0 that is other than the one at
// its place in the series before.
type change struct {
	from, to uint32 // in the body, with tag and length
	place    uint32
}

// piece is a part of the body.
type piece struct{ from, to uint32 }

// labels are those of the series before.
type labels struct {
	spelt  []byte   // as they lie in the body
	ends   []uint32 // where each of them ends, from the beginning of the first
	hashes []uint64
	sum    uint64 // of hashes
	last   int    // the place of the one that changed last
}

// cutter finds the items of a request and their slots. It is used again for
// the next request, and belongs to one at a time.
type cutter struct {
	hash                  Hash
	maxSeries, maxSymbols int
	body                  []byte
	bucket                uint64
	items                 []item
	series                int           // how many of items are that
	sent                  wire.Elements // of all series
	symbols               []piece
	head                  []byte // of every frame: all symbols, of the body or in spell
	spell                 []byte
	before                labels
	changes               []change
	refs                  []uint32
}

// reset forgets the request before.
func (c *cutter) reset() {
	c.body, c.head = nil, nil
	c.items, c.symbols, c.changes = c.items[:0], c.symbols[:0], c.changes[:0]
	c.series, c.sent = 0, wire.Elements{}
	c.before.forget()
}

// bytes is what the tables take.
func (c *cutter) bytes() int {
	return cap(c.items)*int(unsafe.Sizeof(item{})) + cap(c.symbols)*int(unsafe.Sizeof(piece{})) +
		cap(c.changes)*int(unsafe.Sizeof(change{})) + cap(c.spell)
}

// scan finds items and slots. It reports false if the request is malformed or
// holds more than it may: a decoder will say so in better words. It looks no
// deeper than labels: what else is wrong with a series is seen where it is
// stored.
func (c *cutter) scan(p wire.Part) bool {
	c.reset()
	c.body, c.bucket = p.Body, c.hash.Bucket(p.Bucket)
	ok := false
	if p.Protocol == wire.V1 {
		ok = c.scanV1()
	} else {
		ok = c.scanV2()
	}
	return ok && c.sent.Samples+c.sent.Histograms+c.sent.Exemplars <= p.MaxSamples
}

// add adds an item, which lies at from to to and has its message at inner. It is
// nil if there are too many. It is valid until the next is added.
func (c *cutter) add(from, inner, to int) *item {
	n := len(c.items)
	if n >= c.maxSeries {
		return nil
	}
	if n == cap(c.items) {
		c.items = slices.Grow(c.items, 1)
	}
	c.items = c.items[:n+1]
	it := &c.items[n]
	*it = item{from: uint32(from), inner: uint32(inner), to: uint32(to)}
	return it
}

func (c *cutter) scanV1() bool {
	b := c.body
	for i := 0; i < len(b); {
		start := i
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return false
		}
		switch t {
		case wire.TagV1Series, wire.TagV1Metadata:
			from, to := wire.Bytes(b, i2)
			if from < 0 {
				return false
			}
			it := c.add(start, from, to)
			if it == nil {
				return false
			}
			var sum uint64
			if it.metadata = t == wire.TagV1Metadata; it.metadata {
				sum = c.metadataV1(b[from:to])
			} else {
				ok := false
				if sum, ok = c.seriesV1(it, b[:to]); !ok {
					return false
				}
				it.whole = it.whole || from-start != wire.SeriesHeadBytes(to-from)
				c.series++
			}
			it.slot, it.changes = c.hash.Slot(c.bucket+sum), uint32(len(c.changes))
			i = to
		case wire.TagV2Symbol, wire.TagV2Series:
			return false
		default:
			if i = wire.SkipReserved(b, t, i2, wire.LastV1Request, 2); i < 0 {
				return false
			}
		}
	}
	return true
}

// metadataV1 sums up what a MetricMetadata message is about: the name.
func (c *cutter) metadataV1(b []byte) uint64 {
	const tagFamily = 2<<3 | wire.TypeBytes
	for i := 0; i < len(b); {
		t, at := wire.Tag(b, i)
		if at < 0 {
			return 0
		}
		if i = wire.Skip(b, t, at); i < 0 {
			return 0
		}
		if t == tagFamily {
			from, to := wire.Bytes(b, at)
			return c.hash.Pair(wire.MetricName, wire.View(b[from:to]))
		}
	}
	return 0
}

// seriesV1 sums up the labels of the TimeSeries message that b ends with, notes
// which of them have changed, and counts what it holds.
func (c *cutter) seriesV1(it *item, b []byte) (sum uint64, ok bool) {
	l := &c.before
	i := int(it.inner)
	from, had, changes := i, len(l.ends), len(c.changes)
	n, before := l.pass(b[i:])
	for {
		if n > 0 {
			i = from + int(l.ends[n-1])
		}
		if i >= len(b) || b[i] != wire.TagV1SeriesLabel {
			break
		}
		at, end := wire.Bytes(b, i+1)
		if at < 0 {
			return 0, false
		}
		h, ok := c.labelV1(b[at:end])
		if !ok {
			return 0, false
		}
		before = l.replace(n, i-from, end-from, h, before)
		c.changes = append(c.changes, change{uint32(i), uint32(end), uint32(n)})
		n, before = l.passMore(n+1, before, b[from:])
	}
	l.keep(n, b[from:i])
	it.rest = uint32(i)
	if it.whole = n != had || n > wire.MaxPackedLabels; it.whole {
		c.changes = c.changes[:changes]
	}
	sum = l.sum
	for i < len(b) {
		if b[i] == wire.TagV1SeriesSample && i+1 < len(b) && b[i+1] < 0x80 { // nearly all
			if i += 2 + int(b[i+1]); i > len(b) {
				return 0, false
			}
			c.sent.Samples++
			continue
		}
		t, at := wire.Tag(b, i)
		if at < 0 {
			return 0, false
		}
		if i = wire.Skip(b, t, at); i < 0 {
			return 0, false
		}
		switch t {
		case wire.TagV1SeriesSample:
			c.sent.Samples++
		case wire.TagV1SeriesHistogram:
			c.sent.Histograms++
		case wire.TagV1SeriesExemplar:
			c.sent.Exemplars++
		case wire.TagV1SeriesLabel: // behind a sample, which no sender does
			from, to := wire.Bytes(b, at)
			h, ok := c.labelV1(b[from:to])
			if !ok {
				return 0, false
			}
			sum += h
		}
	}
	return sum, true
}

// forget is for when there is no series before.
func (l *labels) forget() {
	*l = labels{ends: l.ends[:0], hashes: l.hashes[:0]}
}

// pass is how many labels at the beginning of b are those of the series before,
// and what of these there is behind them. As a rule one label changes from
// series to series, and then the same one again: those before it are compared as
// one, and it is left to the caller.
func (l *labels) pass(b []byte) (n int, before []byte) {
	if k := l.last; 0 < k && k < len(l.ends) {
		head := int(l.ends[k-1])
		if len(b) >= head && string(b[:head]) == string(l.spelt[:head]) {
			return k, l.spelt[head:]
		}
	}
	return l.passMore(0, l.spelt, b)
}

// passMore is pass for the labels from the n-th on: before is what there is of
// the series before from there on, and b begins with the first of its labels.
func (l *labels) passMore(n int, before, b []byte) (int, []byte) {
	at := 0
	if n > 0 {
		at = int(l.ends[n-1])
	}
	rest := b[at:]
	if len(rest) >= len(before) && string(rest[:len(before)]) == string(before) {
		return len(l.ends), nil
	}
	limit := uint32(at + wire.CommonPrefix(before, rest))
	for n < len(l.ends) && l.ends[n] <= limit {
		n++
	}
	if n > 0 {
		before = before[int(l.ends[n-1])-at:]
	}
	return n, before
}

// replace puts a label, which lies from at to end, in the n-th place, and returns
// what there is of before behind the one that was there.
func (l *labels) replace(n, at, end int, hash uint64, before []byte) []byte {
	l.last = n
	if n == len(l.ends) {
		l.ends, l.hashes = append(l.ends, uint32(end)), append(l.hashes, hash)
		l.sum += hash
		return before
	}
	before = before[int(l.ends[n])-at:]
	if d := uint32(end) - l.ends[n]; d != 0 {
		for k := range l.ends[n:] {
			l.ends[n+k] += d
		}
	}
	l.sum += hash - l.hashes[n]
	l.hashes[n] = hash
	return before
}

// keep makes the first n labels, which are spelt so, those of the series before.
func (l *labels) keep(n int, spelt []byte) {
	for _, h := range l.hashes[n:] {
		l.sum -= h
	}
	l.ends, l.hashes, l.spelt = l.ends[:n], l.hashes[:n], spelt
}

// pairHash is 0 for a label without a value, which is none.
func (c *cutter) pairHash(name, value []byte) uint64 {
	if len(value) == 0 {
		return 0
	}
	return c.hash.Pair(wire.View(name), wire.View(value))
}

// labelV1 is the hash of a Label message.
func (c *cutter) labelV1(b []byte) (h uint64, ok bool) {
	// As every sender writes it: the name, then the value, and mostly short.
	if len(b) >= 4 && b[0] == wire.TagLabelName && b[1] < 0x80 {
		at := 2 + int(b[1]) // of the value's field
		if at+2 <= len(b) && b[at] == wire.TagLabelValue && b[at+1] < 0x80 && at+2+int(b[at+1]) == len(b) {
			return c.pairHash(b[2:at], b[at+2:]), true
		}
	}
	var name, value []byte
	for i := 0; i < len(b); {
		t, at := wire.Tag(b, i)
		if at < 0 {
			return 0, false
		}
		if i = wire.Skip(b, t, at); i < 0 {
			return 0, false
		}
		if t == wire.TagLabelName || t == wire.TagLabelValue {
			from, to := wire.Bytes(b, at)
			if t == wire.TagLabelName {
				name = b[from:to]
			} else {
				value = b[from:to]
			}
		}
	}
	return c.pairHash(name, value), true
}

// scanV2 notes symbols and series in a first pass, because protobuf allows them
// in any order, and sums up series in a second.
func (c *cutter) scanV2() bool {
	b := c.body
	for i := 0; i < len(b); {
		start := i
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return false
		}
		switch t {
		case wire.TagV2Symbol, wire.TagV2Series:
			from, to := wire.Bytes(b, i2)
			if from < 0 {
				return false
			}
			if t == wire.TagV2Series {
				if c.add(start, from, to) == nil {
					return false
				}
				c.series++
			} else {
				if len(c.symbols) == c.maxSymbols {
					return false
				}
				c.symbols = append(c.symbols, piece{uint32(from), uint32(to)})
				c.extendHead(start, to)
			}
			i = to
		case wire.TagV1Series, wire.TagV1Metadata:
			return false
		default:
			known := uint64(wire.LastV2Request)
			if t>>3 < 4 {
				known = 0 // 1 to 3 are reserved
			}
			if i = wire.SkipUnknown(b, t, i2, known); i < 0 {
				return false
			}
		}
	}
	for k := range c.items {
		sum, ok := c.seriesV2(&c.items[k])
		if !ok {
			return false
		}
		c.items[k].slot = c.hash.Slot(c.bucket + sum)
	}
	return true
}

// extendHead adds a symbol, which lies at body[from:to], to the head. As a rule
// all lie together, and the head is a piece of the body.
func (c *cutter) extendHead(from, to int) {
	switch n := len(c.symbols); {
	case n == 1:
		c.head = c.body[from:to:to]
		c.spell = c.spell[:0]
	case len(c.spell) == 0 && c.inBody(from):
		first := to - from + len(c.head)
		c.head = c.body[to-first : to : to]
	default:
		if len(c.spell) == 0 {
			c.spell = append(c.spell, c.head...)
		}
		c.spell = append(c.spell, c.body[from:to]...)
		c.head = c.spell
	}
}

// inBody says whether the head is a piece of the body that ends at at.
func (c *cutter) inBody(at int) bool {
	return at >= len(c.head) && unsafe.SliceData(c.body[at-len(c.head):]) == unsafe.SliceData(c.head)
}

// seriesV2 sums up the labels of a TimeSeries message and counts what it holds.
func (c *cutter) seriesV2(it *item) (sum uint64, ok bool) {
	b := c.body[:it.to]
	i := int(it.inner)
	from, lists, odd := i, 0, false
	if i+1 < len(b) && b[i] == wire.TagV2SeriesRefs && b[i+1] < 0x80 { // nearly all begin so
		at := i + 2
		if i = at + int(b[i+1]); i > len(b) {
			return 0, false
		}
		sum, ok = c.refsV2(b[at:i])
		lists, odd = 1, !ok
	}
	for i < len(b) {
		if b[i] == wire.TagV2SeriesSample && i+1 < len(b) && b[i+1] < 0x80 { // nearly all
			if i += 2 + int(b[i+1]); i > len(b) {
				return 0, false
			}
			c.sent.Samples++
			continue
		}
		t, at := wire.Tag(b, i)
		if at < 0 {
			return 0, false
		}
		if t == wire.TagV2SeriesRefs {
			at, i = wire.Bytes(b, at)
			if at < 0 {
				return 0, false
			}
			if lists++; lists == 1 {
				var good bool
				sum, good = c.refsV2(b[at:i])
				odd = odd || !good
			}
			continue
		}
		if i = wire.Skip(b, t, at); i < 0 {
			return 0, false
		}
		switch t {
		case wire.TagV2SeriesRef:
			odd = true
		case wire.TagV2SeriesSample:
			c.sent.Samples++
		case wire.TagV2SeriesHistogram:
			c.sent.Histograms++
		case wire.TagV2SeriesExemplar:
			c.sent.Exemplars++
		}
	}
	if odd || lists > 1 {
		sum = c.oddRefsV2(b[from:])
	}
	return sum, true
}

// refsV2 sums up the pairs of a packed list of references. It reports false if
// they are not all pairs of symbols.
func (c *cutter) refsV2(raw []byte) (sum uint64, ok bool) {
	l, i := &c.before, 0
	n, before := l.pass(raw)
	for {
		if n > 0 {
			i = int(l.ends[n-1])
		}
		if i == len(raw) {
			break
		}
		name, j := wire.Uvarint(raw, i)
		if j < 0 {
			break
		}
		value, j := wire.Uvarint(raw, j)
		if j < 0 || uint64(uint32(name)) >= uint64(len(c.symbols)) || uint64(uint32(value)) >= uint64(len(c.symbols)) {
			break
		}
		h := c.pairHash(c.symbol(uint32(name)), c.symbol(uint32(value)))
		before = l.replace(n, i, j, h, before)
		n, before = l.passMore(n+1, before, raw)
	}
	if i < len(raw) {
		l.forget()
		return 0, false
	}
	l.keep(n, raw)
	return l.sum, true
}

func (c *cutter) symbol(n uint32) []byte {
	e := c.symbols[n]
	return c.body[e.from:e.to]
}

// oddRefsV2 sums up the pairs of a TimeSeries message whose references are not
// one packed list, or lead nowhere. No sender writes them so. Who stores it
// says what is wrong, if anything is.
func (c *cutter) oddRefsV2(b []byte) (sum uint64) {
	c.refs = c.refs[:0]
	const most = 1 << 10 // labels; more than any node takes
	for i := 0; i < len(b) && len(c.refs) < 2*most; {
		t, at := wire.Tag(b, i)
		i = wire.Skip(b, t, at)
		switch t {
		case wire.TagV2SeriesRef:
			v, _ := wire.Uvarint(b, at)
			c.refs = append(c.refs, uint32(v))
		case wire.TagV2SeriesRefs:
			at, end := wire.Bytes(b, at)
			for at >= 0 && at < end {
				var v uint64
				if v, at = wire.Uvarint(b[:end], at); at >= 0 {
					c.refs = append(c.refs, uint32(v))
				}
			}
		}
	}
	for k := 0; k+1 < len(c.refs); k += 2 {
		if name, value := c.refs[k], c.refs[k+1]; int(max(name, value)) < len(c.symbols) {
			sum += c.pairHash(c.symbol(name), c.symbol(value))
		}
	}
	return sum
}
