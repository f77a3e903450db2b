package route

import (
	"mcached/remotewrite/wire"
	"unsafe"
)

// scanV2 notes symbols and series in a first pass, because protobuf allows them
// in any order, and sums up series in a second.
func (c *cutter) scanV2() bool {
	b := c.body
	for i := 0; i < len(b); {
		start := i
		t, i2 := uint64(b[i]), i+1
		if t != wire.TagV2Symbol && t != wire.TagV2Series { // nearly all are
			if t, i2 = wire.Tag(b, i); i2 < 0 {
				return false
			}
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
	if lists == 1 && !odd && c.restV2(it, b, i) {
		return true
	}
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

// restV2 is what seriesV2 does for a series that, behind its labels, at b[i:], has a sample
// and mostly metadata, and nothing else: it reports false for any other.
func (c *cutter) restV2(it *item, b []byte, i int) bool {
	if i+1 >= len(b) || b[i] != wire.TagV2SeriesSample || b[i+1] > maxSample {
		return false
	}
	end := i + 2 + int(b[i+1])
	if end != len(b) {
		if end+1 >= len(b) || b[end] != wire.TagV2SeriesMetadata || b[end+1] >= 0x80 || end+2+int(b[end+1]) != len(b) {
			return false
		}
		it.usual = it.usual && c.describe(it, b[end+2:])
		it.end = uint32(end)
	}
	c.sent.Samples++
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
	if ref, behind := l.anotherRef(raw); behind > 0 && int(ref) < len(c.symbols) {
		if value := c.symbol(ref); len(value) > 0 {
			h := c.pairOf(&l.varied.name, value)
			l.take(raw, behind, &h)
			*sum = l.sum
			return true
		}
	}
	had, changed := len(l.ends), false
	varies := 0 // where the value of the label that changed last is
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
		at := j
		value, j := wire.Uvarint(raw, at)
		if j < 0 || uint64(uint32(name)) >= uint64(len(c.symbols)) || uint64(uint32(value)) >= uint64(len(c.symbols)) {
			break
		}
		h := c.pairHash(c.symbol(uint32(name)), c.symbol(uint32(value)))
		before = l.replace(n, i, j, &h, before)
		changed = true
		if varies = at; c.symbols[value].from == c.symbols[value].to {
			varies = 0 // it has none
		}
		n, before = l.passMore(n+1, before, raw)
	}
	if i < len(raw) {
		l.forget()
		return false
	}
	l.keep(n, raw)
	switch {
	case varies > 0:
		l.varyRefs(&c.name, varies)
	case changed || n != had: // else it is the one before
		l.varied.there = false
	}
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
