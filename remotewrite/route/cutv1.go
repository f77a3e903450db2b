package route

import "mcached/remotewrite/wire"

func (c *cutter) scanV1() bool {
	b := c.body
	for i := 0; i < len(b); {
		if i = c.likeBefore(i); i == len(b) {
			break
		}
		start := i
		t, i2 := uint64(b[i]), i+1
		if t != wire.TagV1Series { // nearly all are
			if t, i2 = wire.Tag(b, i); i2 < 0 {
				return false
			}
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
	i, whole := c.labelsV1(b, int(it.inner))
	if i < 0 {
		return false
	}
	it.rest, it.whole = uint32(i), whole
	*sum = c.before.sum
	it.end = it.to
	it.usual = i < len(b) && b[i] == wire.TagV1SeriesSample && !c.odd
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

// likeBefore takes the series from i on each of which is the one before with another
// value of the label that varies, and with short samples behind its labels, and nothing
// else. It returns where the first begins that is not. Nearly all are like that, so that
// this is written as one loop: nothing is asked twice, and what the series before is for
// all others is noted once, for the last.
func (c *cutter) likeBefore(i int) int {
	l, b, first := &c.before, c.body, len(c.items)
	v := &l.varied
	if !v.there || c.odd || len(l.ends) > wire.MaxPackedLabels {
		return i
	}
	var h sums
	base := v.base
	base.add(&c.bucket)
	spelt, begin, value, behind, end, samples := l.spelt, v.begin, v.value, v.behind, len(l.spelt), 0
	for i+2 < len(b) && b[i] == wire.TagV1Series && len(c.items) < c.maxSeries {
		inner, size := i+2, int(b[i+1])
		if size >= 0x80 {
			if inner, size = i+3, size&0x7f|int(b[i+2])<<7; size < 0x80 || size >= 1<<14 {
				break // longer, or not as short as it can be
			}
		}
		to := inner + size
		if size <= value || to > len(b) {
			break
		}
		s := b[inner:to]
		length := int(s[begin+1])
		at := begin + 2 + length // behind the label
		rest := at + end - behind
		if length >= 0x80 || at <= value || int(s[value-1]) != at-value || rest+1 >= size || string(s[at:rest]) != string(spelt[behind:end]) {
			break
		}
		if at == behind {
			if string(s[:value]) != string(spelt[:value]) {
				break
			}
		} else if string(s[:begin+1]) != string(spelt[:begin+1]) || string(s[begin+2:value-1]) != string(spelt[begin+2:value-1]) {
			break
		}
		n, k := 1, rest+2+int(s[rest+1]) // behind the first sample
		usual := s[rest] == wire.TagV1SeriesSample && s[rest+1] <= maxSample
		for ; k+1 < size && usual; n++ {
			usual = s[k] == wire.TagV1SeriesSample && s[k+1] <= maxSample
			k += 2 + int(s[k+1])
		}
		if k != size || !usual {
			break
		}
		samples += n
		h = c.pairOf(&v.name, s[value:at])
		c.changes = append(c.changes, change{uint32(inner + begin), uint32(inner + at), uint32(v.place)})
		c.items = append(c.items, item{from: uint32(i), inner: uint32(inner), to: uint32(to), rest: uint32(inner + rest), end: uint32(to),
			changes: uint32(len(c.changes)), slot: c.hash.Slot(base.slot + h.slot), usual: true})
		if c.prints != nil {
			c.named = append(c.named, wire.Print{A: base.print.A + h.print.A, B: base.print.B + h.print.B})
		}
		i, spelt, behind, end = to, s, at, rest
	}
	if n := len(c.items) - first; n > 0 {
		c.series += n
		c.sent.Samples += samples
		l.take(spelt[:end], behind, &h)
	}
	return i
}

// labelsV1 sums up the labels of a TimeSeries message, which begins at from and which b
// ends with, and notes which have changed. It returns where they end, or -1, and whether
// the series cannot be told by changes.
func (c *cutter) labelsV1(b []byte, from int) (end int, whole bool) {
	l := &c.before
	i, had, changes := from, len(l.ends), len(c.changes)
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
			return -1, false
		}
		h, ok := c.labelV1(b[at:end])
		if !ok {
			return -1, false
		}
		before = l.replace(n, i-from, end-from, &h, before)
		c.changes = append(c.changes, change{uint32(i), uint32(end), uint32(n)})
		n, before = l.passMore(n+1, before, b[from:])
	}
	l.keep(n, b[from:i])
	switch {
	case len(c.changes) > changes:
		l.vary(&c.name)
	case n != had: // else it is the one before
		l.varied.there = false
	}
	if whole = n != had || n > wire.MaxPackedLabels; whole {
		c.changes = c.changes[:changes]
	}
	return i, whole
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
