package route

import (
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
	slot     uint16
	metadata bool
}

// extent is a piece of the body.
type extent struct{ from, to uint32 }

// pair is a label of the series before, by its place among the labels.
type pair struct {
	size uint32 // bytes in the body
	hash uint64
}

// cutter finds the items of a request and their slots. It is used again for
// the next request, and belongs to one at a time.
type cutter struct {
	hash                              Hash
	maxSeries, maxSymbols, maxSamples int
	body                              []byte
	bucket                            uint64
	items                             []item
	series                            int           // how many of items are that
	sent                              wire.Elements // of all series
	symbols                           []extent
	head                              []byte // of every frame: all symbols, of the body or in spell
	spell                             []byte
	before                            []byte // labels of the series before, as they lie in the body
	pairs                             []pair // of them
	sum                               uint64 // of pairs
	refs                              []uint32
}

// reset forgets the request before.
func (c *cutter) reset() {
	c.body, c.head, c.before = nil, nil, nil
	c.items, c.symbols, c.pairs = c.items[:0], c.symbols[:0], c.pairs[:0]
	c.series, c.sent, c.sum = 0, wire.Elements{}, 0
}

// bytes is what the tables take.
func (c *cutter) bytes() int {
	return cap(c.items)*int(unsafe.Sizeof(item{})) + cap(c.symbols)*int(unsafe.Sizeof(extent{})) + cap(c.spell)
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
	return ok && c.sent.Samples+c.sent.Histograms+c.sent.Exemplars <= c.maxSamples
}

func (c *cutter) add(it item) bool {
	if !it.metadata {
		c.series++
	}
	if len(c.items) >= c.maxSeries {
		return false
	}
	c.items = append(c.items, it)
	return true
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
			it := item{from: uint32(start), to: uint32(to), metadata: t == wire.TagV1Metadata}
			var sum uint64
			ok := true
			if it.metadata {
				sum = c.metadataV1(b[from:to])
			} else {
				sum, ok = c.seriesV1(b[:to], from)
			}
			if it.slot = c.hash.Slot(c.bucket + sum); !ok || !c.add(it) {
				return false
			}
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

// seriesV1 sums up the labels of the TimeSeries message at b[i:] and counts
// what it holds.
func (c *cutter) seriesV1(b []byte, i int) (sum uint64, ok bool) {
	from, n := i, 0
	before := c.before // from the place on that b[i:] is like
	for {
		same := uint32(wire.CommonPrefix(before, b[i:]))
		passed := uint32(0)
		for n < len(c.pairs) && c.pairs[n].size <= same-passed {
			passed += c.pairs[n].size
			n++
		}
		i, before = i+int(passed), before[passed:]
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
		before = c.replace(n, pair{uint32(end - i), h}, before)
		i = end
		n++
	}
	c.keep(n, b[from:i])
	sum = c.sum
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

// replace puts p in the place n of the series before, and returns what there is
// of before behind what it stands for.
func (c *cutter) replace(n int, p pair, before []byte) []byte {
	if n == len(c.pairs) {
		c.pairs = append(c.pairs, p)
	} else {
		c.sum -= c.pairs[n].hash
		before = before[c.pairs[n].size:]
		c.pairs[n] = p
	}
	c.sum += p.hash
	return before
}

// keep makes the first n pairs, which are spelt so, those of the series before.
func (c *cutter) keep(n int, spelt []byte) {
	for _, p := range c.pairs[n:] {
		c.sum -= p.hash
	}
	c.pairs, c.before = c.pairs[:n], spelt
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
				if !c.add(item{from: uint32(start), to: uint32(to)}) {
					return false
				}
			} else {
				if len(c.symbols) == c.maxSymbols {
					return false
				}
				c.symbols = append(c.symbols, extent{uint32(from), uint32(to)})
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
	_, i := wire.Uvarint(b, int(it.from)) // the tag, which was read before
	i, _ = wire.Bytes(b, i)
	from, lists, odd := i, 0, false
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
	before, n, i := c.before, 0, 0
	for {
		same := uint32(wire.CommonPrefix(before, raw[i:]))
		passed := uint32(0)
		for n < len(c.pairs) && c.pairs[n].size <= same-passed {
			passed += c.pairs[n].size
			n++
		}
		i, before = i+int(passed), before[passed:]
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
		before = c.replace(n, pair{uint32(j - i), h}, before)
		i = j
		n++
	}
	if i < len(raw) {
		c.pairs, c.sum, c.before = c.pairs[:0], 0, nil
		return 0, false
	}
	c.keep(n, raw)
	return c.sum, true
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
