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

// Prints are 128-bit hashes of series that are the same at all nodes which have the same
// Check: sums as those of Hash. Strangers cannot make two series of one print. It is safe
// for concurrent use and keeps no string.
type Prints interface {
	Check() string
	BucketPrint(bucket string) (a, b uint64)
	// Name hashes a name for Pair, which gives what Hash.Pair does, too.
	Name(name string) (a, b uint64, kind uint8)
	Pair(nameA, nameB uint64, kind uint8, value string) (slot, a, b uint64)
}

// sums are those of a slot and of a print, or what a pair adds to them.
type sums struct {
	slot  uint64
	print wire.Print
}

func (s *sums) add(o *sums) {
	s.slot += o.slot
	s.print.A += o.print.A
	s.print.B += o.print.B
}

func (s *sums) remove(o *sums) {
	s.slot -= o.slot
	s.print.A -= o.print.A
	s.print.B -= o.print.B
}

// item is what has owners: a series, or the metadata of a metric.
type item struct {
	from, to uint32 // in the body, with tag and length
	inner    uint32 // where the message in it begins
	rest     uint32 // and where it goes on behind its labels; protocol 2.0: if usual
	end      uint32 // of the samples of one that is usual
	changes  uint32 // how many changes the items up to it have
	slot     uint16
	metadata bool
	whole    bool   // it cannot be told by changes
	known    bool   // and it was sent before
	usual    bool   // a series of labels with values, short samples, and metadata of the metric
	about    uint64 // a hash of that metadata; 0: there is none
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
	hashes []sums
	sum    sums // of hashes
	last   int  // the place of the one that changed last
}

// nameHash is a label's name with what Prints make of it.
type nameHash struct {
	text string // in the body
	set  bool
	a, b uint64
	kind uint8
}

// cutter finds the items of a request and their slots. It is used again for
// the next request, and belongs to one at a time.
type cutter struct {
	hash                  Hash
	prints                Prints // nil: there are none
	maxSeries, maxSymbols int
	body                  []byte
	bucket                sums
	odd                   bool // a label without a value has come: no series is usual any more
	items                 []item
	named                 []wire.Print  // of items, if there are prints
	name                  nameHash      // of the label that was hashed last
	meta                  []byte        // the Metadata message that came last
	about                 uint64        // see item
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
	c.body, c.head, c.meta, c.name = nil, nil, nil, nameHash{}
	c.items, c.symbols, c.changes, c.named = c.items[:0], c.symbols[:0], c.changes[:0], c.named[:0]
	c.series, c.sent, c.odd = 0, wire.Elements{}, false
	c.before.forget()
}

// bytes is what the tables take.
func (c *cutter) bytes() int {
	return cap(c.items)*int(unsafe.Sizeof(item{})) + cap(c.symbols)*int(unsafe.Sizeof(piece{})) +
		cap(c.changes)*int(unsafe.Sizeof(change{})) + cap(c.spell) + cap(c.named)*wire.PrintBytes
}

// scan finds items and slots. It reports false if the request is malformed or
// holds more than it may: a decoder will say so in better words. It looks no
// deeper than labels: what else is wrong with a series is seen where it is
// stored.
func (c *cutter) scan(p wire.Part) bool {
	c.reset()
	c.body, c.bucket = p.Body, sums{slot: c.hash.Bucket(p.Bucket)}
	if c.prints != nil {
		c.bucket.print.A, c.bucket.print.B = c.prints.BucketPrint(p.Bucket)
	}
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

// place gives an item, the next that has none, its slot and print.
func (c *cutter) place(it *item, sum *sums) {
	it.slot = c.hash.Slot(c.bucket.slot + sum.slot)
	if c.prints != nil {
		c.named = append(c.named, wire.Print{A: c.bucket.print.A + sum.print.A, B: c.bucket.print.B + sum.print.B})
	}
}

// teaching is the print of an item for its receiver to learn: zero for one that will not
// be asked for by it.
func (c *cutter) teaching(k int32) wire.Print {
	if !c.items[k].usual {
		return wire.Print{}
	}
	return c.named[k]
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
			var sum sums
			if it.metadata = t == wire.TagV1Metadata; it.metadata {
				sum.slot = c.metadataV1(b[from:to])
			} else {
				if !c.seriesV1(it, b[:to], &sum) {
					return false
				}
				it.whole = it.whole || from-start != wire.SeriesHeadBytes(to-from)
				c.series++
			}
			it.changes = uint32(len(c.changes))
			c.place(it, &sum)
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
func (c *cutter) seriesV1(it *item, b []byte, sum *sums) (ok bool) {
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
			return false
		}
		h, ok := c.labelV1(b[at:end])
		if !ok {
			return false
		}
		before = l.replace(n, i-from, end-from, &h, before)
		c.changes = append(c.changes, change{uint32(i), uint32(end), uint32(n)})
		n, before = l.passMore(n+1, before, b[from:])
	}
	l.keep(n, b[from:i])
	it.rest = uint32(i)
	if it.whole = n != had || n > wire.MaxPackedLabels; it.whole {
		c.changes = c.changes[:changes]
	}
	*sum = l.sum
	it.end, it.usual = it.to, i < len(b) && b[i] == wire.TagV1SeriesSample && !c.odd
	for i < len(b) {
		if b[i] == wire.TagV1SeriesSample && i+1 < len(b) && b[i+1] < 0x80 { // nearly all
			it.usual = it.usual && b[i+1] <= maxSample
			if i += 2 + int(b[i+1]); i > len(b) {
				return false
			}
			c.sent.Samples++
			continue
		}
		it.usual = false
		t, at := wire.Tag(b, i)
		if at < 0 {
			return false
		}
		if i = wire.Skip(b, t, at); i < 0 {
			return false
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
				return false
			}
			sum.add(&h)
		}
	}
	return true
}

// maxSample is what a sample has of value and time.
const maxSample = 1 + 8 + 1 + 10

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
func (l *labels) replace(n, at, end int, hash *sums, before []byte) []byte {
	l.last = n
	if n == len(l.ends) {
		l.ends, l.hashes = append(l.ends, uint32(end)), append(l.hashes, *hash)
		l.sum.add(hash)
		return before
	}
	before = before[int(l.ends[n])-at:]
	if d := uint32(end) - l.ends[n]; d != 0 {
		for k := range l.ends[n:] {
			l.ends[n+k] += d
		}
	}
	l.sum.remove(&l.hashes[n])
	l.sum.add(hash)
	l.hashes[n] = *hash
	return before
}

// keep makes the first n labels, which are spelt so, those of the series before.
func (l *labels) keep(n int, spelt []byte) {
	for k := n; k < len(l.hashes); k++ {
		l.sum.remove(&l.hashes[k])
	}
	l.ends, l.hashes, l.spelt = l.ends[:n], l.hashes[:n], spelt
}

// pairHash is 0 for a label without a value, which is none.
func (c *cutter) pairHash(name, value []byte) (h sums) {
	switch {
	case len(value) == 0:
		c.odd = true
	case c.prints == nil:
		h.slot = c.hash.Pair(wire.View(name), wire.View(value))
	default:
		n := &c.name
		if !n.set || string(name) != n.text { // a label that changes mostly has another value only
			n.text, n.set = wire.View(name), true
			n.a, n.b, n.kind = c.prints.Name(n.text)
		}
		h.slot, h.print.A, h.print.B = c.prints.Pair(n.a, n.b, n.kind, wire.View(value))
	}
	return h
}

// labelV1 is the hash of a Label message.
func (c *cutter) labelV1(b []byte) (h sums, ok bool) {
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
			return h, false
		}
		if i = wire.Skip(b, t, at); i < 0 {
			return h, false
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
	if len(c.symbols) > 0 && c.symbols[0].from != c.symbols[0].to {
		c.odd = true // the receiver refuses the request
	}
	for k := range c.items {
		var sum sums
		if !c.seriesV2(&c.items[k], &sum) {
			return false
		}
		c.place(&c.items[k], &sum)
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
func (c *cutter) seriesV2(it *item, sum *sums) (ok bool) {
	b := c.body[:it.to]
	i := int(it.inner)
	from, lists, odd := i, 0, false
	if i+1 < len(b) && b[i] == wire.TagV2SeriesRefs && b[i+1] < 0x80 { // nearly all begin so
		at := i + 2
		if i = at + int(b[i+1]); i > len(b) {
			return false
		}
		lists, odd = 1, !c.refsV2(b[at:i], sum)
		it.rest, it.usual = uint32(i), i < len(b) && b[i] == wire.TagV2SeriesSample && !odd && !c.odd
	}
	it.end = it.to
	for i < len(b) {
		if b[i] == wire.TagV2SeriesSample && i+1 < len(b) && b[i+1] < 0x80 { // nearly all
			it.usual = it.usual && b[i+1] <= maxSample && it.end == it.to
			if i += 2 + int(b[i+1]); i > len(b) {
				return false
			}
			c.sent.Samples++
			continue
		}
		t, at := wire.Tag(b, i)
		if at < 0 {
			return false
		}
		if t == wire.TagV2SeriesMetadata {
			from, to := wire.Bytes(b, at)
			if from < 0 {
				return false
			}
			it.usual = it.usual && it.end == it.to && c.describe(it, b[from:to])
			it.end, i = uint32(i), to
			continue
		}
		it.usual = false
		if t == wire.TagV2SeriesRefs {
			at, i = wire.Bytes(b, at)
			if at < 0 {
				return false
			}
			if lists++; lists == 1 {
				odd = !c.refsV2(b[at:i], sum) || odd
			}
			continue
		}
		if i = wire.Skip(b, t, at); i < 0 {
			return false
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
		*sum = c.oddRefsV2(b[from:])
	}
	return true
}

// describe notes what the Metadata message of a series says. It reports false if it is not as
// any sender writes it, or there are no prints.
func (c *cutter) describe(it *item, b []byte) bool {
	if len(b) == 0 || c.prints == nil {
		return c.prints != nil
	}
	if string(b) == string(c.meta) { // of the same metric, mostly
		it.about = c.about
		return true
	}
	var field [wire.TagV2MetadataUnit>>3 + 1]uint64
	for i := 0; i < len(b); {
		t, at := wire.Tag(b, i)
		if t != wire.TagV2MetadataType && t != wire.TagV2MetadataHelp && t != wire.TagV2MetadataUnit {
			return false
		}
		if field[t>>3], i = wire.Uvarint(b, at); i < 0 {
			return false
		}
	}
	help, unit := field[wire.TagV2MetadataHelp>>3], field[wire.TagV2MetadataUnit>>3]
	if max(help, unit) >= uint64(len(c.symbols)) {
		return false
	}
	nameA, nameB, kind := c.prints.Name(wire.View(c.symbol(uint32(help))))
	_, x, _ := c.prints.Pair(nameA, nameB, kind, wire.View(c.symbol(uint32(unit))))
	c.meta, c.about = b, x+field[wire.TagV2MetadataType>>3]|1
	it.about = c.about
	return true
}

// refsV2 sums up the pairs of a packed list of references. It reports false if
// they are not all pairs of symbols.
func (c *cutter) refsV2(raw []byte, sum *sums) (ok bool) {
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
		before = l.replace(n, i, j, &h, before)
		n, before = l.passMore(n+1, before, raw)
	}
	if i < len(raw) {
		l.forget()
		return false
	}
	l.keep(n, raw)
	*sum = l.sum
	return true
}

func (c *cutter) symbol(n uint32) []byte {
	e := c.symbols[n]
	return c.body[e.from:e.to]
}

// oddRefsV2 sums up the pairs of a TimeSeries message whose references are not
// one packed list, or lead nowhere. No sender writes them so. Who stores it
// says what is wrong, if anything is.
func (c *cutter) oddRefsV2(b []byte) (sum sums) {
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
			h := c.pairHash(c.symbol(name), c.symbol(value))
			sum.add(&h)
		}
	}
	return sum
}
