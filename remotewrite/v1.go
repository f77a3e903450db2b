package remotewrite

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/prometheus/prometheus/prompb"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// pair is a label of the series before, by its place among the labels.
type pair struct {
	text        []byte // of the name
	name, value mcache.Hash
	bytes       int  // of the value, if the label ends with it; else 0
	empty       bool // the value is
}

// decodeV1 puts a prometheus.WriteRequest into the batch.
func (in *intake) decodeV1() error {
	b := in.decoded
	series := 0
	for i := 0; i < len(b); {
		start := i
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return malformed("request", start)
		}
		switch t {
		case wire.TagV1Series:
			from, to := wire.Bytes(b, i2)
			if from < 0 {
				return malformed("request", start)
			}
			if series++; series > in.o.MaxSeries {
				return in.o.tooMany("series", in.o.MaxSeries, "MaxSeries")
			}
			if in.shared && in.passes(series-1) {
				i = to
				continue
			}
			if to >= in.lookAt {
				if err := in.look(from, to-from); err != nil {
					return err
				}
			}
			if err := in.seriesV1(from, to); err != nil {
				return err
			}
			i = to
		case wire.TagV1Metadata:
			from, to := wire.Bytes(b, i2)
			if from < 0 {
				return malformed("request", start)
			}
			var m prompb.MetricMetadata
			if err := m.Unmarshal(b[from:to]); err != nil {
				return malformed("metadata", from)
			}
			in.meta.put(in.bucket, m.MetricFamilyName, wire.Metadata{Type: wire.MetricType(int32(m.Type)), Help: m.Help, Unit: m.Unit})
			i = to
		case wire.TagV2Symbol, wire.TagV2Series:
			return errOtherProtocol{claimed: wire.V1, got: wire.V2}
		default:
			if i = wire.SkipReserved(b, t, i2, wire.LastV1Request, 2); i < 0 {
				return malformed("request", start)
			}
		}
	}
	return nil
}

// seriesV1 puts the TimeSeries message at decoded[from:to] into the batch.
func (in *intake) seriesV1(from, to int) error {
	b := in.decoded[:to]
	i, f, suspect := 0, mcache.Fingerprint{}, false
	if len(in.names) > 0 {
		var x wire.Named
		x, f = in.named()
		i = int(x.Rest)
	}
	if i == 0 {
		err := error(nil)
		if i, f, suspect, err = in.labelsLikeBefore(b, from); err != nil {
			return err
		}
	}
	in.beginSeries()
	samples, moreLabels, odd := in.batch.Samples(), 0, false
	first := len(samples)
	for i < to {
		start := i
		if x, end := usualSample(b, i); end > 0 { // nearly all
			if len(samples)-first >= in.left {
				return in.o.tooMany("samples", in.o.MaxSamples, "MaxSamples")
			}
			odd = odd || uint64(x.T-earlyMs) >= in.usual
			samples, i = append(samples, x), end
			continue
		}
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return malformed("series", start)
		}
		if t > wire.TagV1SeriesHistogram || t&7 != wire.TypeBytes {
			if i = wire.SkipUnknown(b, t, i2, wire.LastV1Series); i < 0 {
				return malformed("series", start)
			}
			continue
		}
		at, end := wire.Bytes(b, i2)
		if at < 0 {
			return malformed("series", start)
		}
		if t != wire.TagV1SeriesSample && in.through.reads() {
			in.through.giveUp()
			return nil
		}
		i = end
		if t != wire.TagV1SeriesLabel && in.handFull(len(samples)-first) {
			return in.o.tooMany("samples", in.o.MaxSamples, "MaxSamples")
		}
		if at := in.through.base + end; at >= in.lookAt {
			in.batch.SetSamples(samples)
			if err := in.look(at, to-end); err != nil {
				return err
			}
		}
		switch t {
		case wire.TagV1SeriesLabel:
			// It comes behind a sample, which no sender does, or is one too many.
			name, value, ok := label(b[at:end])
			if !ok {
				return malformed("label", at)
			}
			if moreLabels++; moreLabels > in.o.MaxLabels || len(in.pairs) == in.o.MaxLabels || len(value) == 0 {
				suspect = true
				continue
			}
			f.Add(in.cache.Hash(name), in.cache.Hash(value))
		case wire.TagV1SeriesSample:
			x, _, ok := decodeSample(b[at:end], wire.LastV1Sample)
			if !ok {
				return malformed("sample", at)
			}
			odd = odd || uint64(x.T-earlyMs) >= in.usual
			samples = append(samples, x)
		case wire.TagV1SeriesExemplar:
			if !in.exemplar(b[at:end]) {
				return malformed("exemplar", at)
			}
		case wire.TagV1SeriesHistogram:
			if !in.histogram(b[at:end]) {
				return malformed("histogram", at)
			}
		}
	}
	base := in.through.base
	in.endSeries(f, piece{uint32(base + from), uint32(base + to)}, suspect, samples, first, odd)
	return nil
}

// handFull reports whether the series in hand, with so many samples, has all
// that a request may have.
func (in *intake) handFull(samples int) bool {
	return samples+len(in.histograms)+len(in.exemplars)-in.hand >= in.left
}

// labelsLikeBefore sums up the labels at b[i:] and returns the index behind
// the last of them. Most are those of the series before:
//
//	before  │__name__=a│cluster=x│handler=/1│instance=y│job=z│
//	now     │__name__=a│cluster=x│handler=/22│instance=y│job=z│
//	        └─ the same: passed ─┘└─ hashed ─┘└ the same: passed┘
//
// So it looks for how far the bytes agree, passes over the labels that lie
// within, puts the next in the place of the one before, and goes on from there.
// The sum is that of the series before, less what went, plus what came.
func (in *intake) labelsLikeBefore(b []byte, i int) (behind int, f mcache.Fingerprint, suspect bool, err error) {
	if n := in.onlyValueChanged(b[i:]); n > 0 {
		return i + n, in.sum, in.empty > 0, nil
	}
	from, n, changed := i, 0, in.changed
	before := in.before // from the place on that b[i:] is like
	for {
		passed := 0
		n, passed = in.alike(before, b[i:], n, i-from)
		i, before = i+passed, before[passed:]
		if i >= len(b) || b[i] != wire.TagV1SeriesLabel || n == in.o.MaxLabels {
			break
		}
		at, end := wire.Bytes(b, i+1)
		if at < 0 {
			return 0, f, false, malformed("series", i)
		}
		name, value, ok := label(b[at:end])
		if !ok {
			return 0, f, false, malformed("label", at)
		}
		if n == len(in.pairs) {
			in.pairs, in.ends = append(in.pairs, pair{}), append(in.ends, uint32(end-from))
		} else {
			in.takeOut(&in.pairs[n])
			before = before[int(in.ends[n])-(i-from):]
			moveEnds(in.ends[n:], end-from)
		}
		p, v := &in.pairs[n], in.cache.Hash(value)
		if p.text == nil || !bytes.Equal(p.text, name) { // a changed label mostly has another value only
			p.name, changed = in.cache.Hash(name), n
		}
		if v != p.value {
			changed = n
		}
		p.text, p.value, p.bytes, p.empty = name, v, 0, len(value) == 0
		if cap(b)-cap(value)+len(value) == end { // it ends where the label does
			p.bytes = len(value)
		}
		if p.empty {
			in.empty++
		} else {
			in.sum.Add(p.name, p.value)
		}
		i = end
		n++
	}
	for k := n; k < len(in.pairs); k++ {
		in.takeOut(&in.pairs[k])
	}
	in.pairs, in.ends, in.before, in.changed = in.pairs[:n], in.ends[:n], b[from:i], changed
	return i, in.sum, in.empty > 0, nil
}

// onlyValueChanged does it where the labels at b are those of the series before but for the
// value of one, the one that changed last, which is as long. It returns how many bytes they
// have; 0, and nothing is done, where it is otherwise.
func (in *intake) onlyValueChanged(b []byte) int {
	before, n := in.before, in.changed
	if uint(n) >= uint(len(in.pairs)) || len(b) <= len(before) || b[len(before)] == wire.TagV1SeriesLabel {
		return 0
	}
	p, to := &in.pairs[n], int(in.ends[n])
	from := to - p.bytes
	if p.bytes == 0 || string(b[:from]) != string(before[:from]) || string(b[to:len(before)]) != string(before[to:]) {
		return 0
	}
	in.sum.Remove(p.name, p.value)
	p.value = in.cache.Hash(b[from:to])
	in.sum.Add(p.name, p.value)
	in.before = b[:len(before)]
	return len(before)
}

// alike is how many labels before b are those of the series before, from the n-th
// on, which is at b and at before, and how many bytes these have. at is where that
// is from the beginning of the first.
//
// Where one label is another in each series, as handler above, it is expected to be
// again, and no other: to compare with that takes half of the time that it takes to
// look for how far bytes agree. That the label itself is another is not looked at.
func (in *intake) alike(before, b []byte, n, at int) (labels, bytesOf int) {
	ends, expected := in.ends, len(in.ends)
	if n <= in.changed {
		expected = min(in.changed, expected)
	}
	if expected == n {
		return n, 0
	}
	if length := int(ends[expected-1]) - at; length <= len(b) && string(before[:length]) == string(b[:length]) {
		return expected, length
	}
	first, limit := n, uint32(at+wire.CommonPrefix(before, b))
	for n < len(ends) && ends[n] <= limit {
		n++
	}
	if n == first {
		return n, 0
	}
	return n, int(ends[n-1]) - at
}

// moveEnds makes the first of ends be at end, and keeps the distances to the others.
func moveEnds(ends []uint32, end int) {
	if d := uint32(end) - ends[0]; d != 0 {
		for k := range ends {
			ends[k] += d
		}
	}
}

// takeOut takes a label of the series before out of the sum.
func (in *intake) takeOut(p *pair) {
	if p.empty {
		in.empty--
	} else {
		in.sum.Remove(p.name, p.value)
	}
}

// usualSample decodes a field of a series at b[i:] that is a sample as every
// sender writes it who leaves out what is zero: the value, then the time.
//
//	12 len 09 v0 v1 v2 v3 v4 v5 v6 v7 10 t0 t1 t2 t3 t4 t5
//
// It returns the index behind it, or 0 if it is none.
func usualSample(b []byte, i int) (x mcache.Sample, end int) {
	const head, most = 12, 22 // bytes before the time, and of all at the most
	if len(b)-i <= head || b[i] != wire.TagV1SeriesSample || b[i+2] != wire.TagSampleValue || b[i+11] != wire.TagSampleTime {
		return x, 0
	}
	end = i + 2 + int(b[i+1])
	if end > len(b) || end > i+most {
		return x, 0
	}
	x.V = binary.LittleEndian.Uint64(b[i+3:])
	if t := i + head; end-t == 6 && t+8 <= cap(b) { // as from 1971 to 2109
		if six := binary.LittleEndian.Uint64(b[t : t+8]); six&0x8080_8080_8080 == 0x0080_8080_8080 {
			x.T = int64(six&0x7f | six>>1&(0x7f<<7) | six>>2&(0x7f<<14) | six>>3&(0x7f<<21) | six>>4&(0x7f<<28) | six>>5&(0x7f<<35))
			return x, end
		}
	}
	t, behind := wire.Uvarint(b, i+head)
	if behind != end {
		return x, 0
	}
	x.T = int64(t)
	return x, end
}

// decodeSample decodes a Sample message with any fields, of either protocol,
// since they differ in one that 1.0 skips: the start time, 0 if there is none.
func decodeSample(b []byte, last uint64) (x mcache.Sample, startTime int64, ok bool) {
	for i := 0; i < len(b); {
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return x, 0, false
		}
		var v uint64
		switch {
		case t == wire.TagSampleValue:
			x.V, i = wire.Fixed64(b, i2)
		case t == wire.TagSampleTime:
			v, i = wire.Uvarint(b, i2)
			x.T = int64(v)
		case t == wire.TagSampleStart && last == wire.LastV2Sample:
			v, i = wire.Uvarint(b, i2)
			startTime = int64(v)
		default:
			i = wire.SkipUnknown(b, t, i2, last)
		}
		if i < 0 {
			return x, 0, false
		}
	}
	return x, startTime, true
}

// label decodes a Label message; both are views into b.
func label(b []byte) (name, value []byte, ok bool) {
	// As every sender writes it: the name, then the value, and mostly short.
	if len(b) >= 4 && b[0] == wire.TagLabelName && b[1] < 0x80 {
		at := 2 + int(b[1]) // of the value's field
		if at+2 <= len(b) && b[at] == wire.TagLabelValue && b[at+1] < 0x80 && at+2+int(b[at+1]) == len(b) {
			return b[2:at], b[at+2:], true
		}
	}
	for i := 0; i < len(b); {
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return nil, nil, false
		}
		switch t {
		case wire.TagLabelName, wire.TagLabelValue:
			from, to := wire.Bytes(b, i2)
			if from < 0 {
				return nil, nil, false
			}
			if t == wire.TagLabelName {
				name = b[from:to]
			} else {
				value = b[from:to]
			}
			i = to
		default:
			if i = wire.SkipUnknown(b, t, i2, wire.LastLabel); i < 0 {
				return nil, nil, false
			}
		}
	}
	return name, value, true
}

// eachLabelV1 yields the labels of a TimeSeries message as far as it is
// well-formed, as views into b.
func eachLabelV1(b []byte) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for i := 0; i >= 0 && i < len(b); {
			t, i2 := wire.Tag(b, i)
			if i2 < 0 {
				return
			}
			if t != wire.TagV1SeriesLabel {
				i = wire.Skip(b, t, i2)
				continue
			}
			from, to := wire.Bytes(b, i2)
			if from < 0 {
				return
			}
			name, value, ok := label(b[from:to])
			if !ok || !yield(wire.View(name), wire.View(value)) {
				return
			}
			i = to
		}
	}
}

// labelsV1 appends the labels of a TimeSeries message that seriesV1 has read.
// They are views into b. Those with an empty value are among them. Labels
// beyond limit are left out.
func labelsV1(b []byte, limit int, dst []mcache.Label) ([]mcache.Label, error) {
	for i := 0; i < len(b) && len(dst) < limit; {
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return dst, errMalformed
		}
		if t != wire.TagV1SeriesLabel {
			if i = wire.Skip(b, t, i2); i < 0 {
				return dst, errMalformed
			}
			continue
		}
		from, to := wire.Bytes(b, i2)
		if from < 0 {
			return dst, errMalformed
		}
		name, value, ok := label(b[from:to])
		if !ok {
			return dst, errMalformed
		}
		dst = append(dst, mcache.Label{Name: wire.View(name), Value: wire.View(value)})
		i = to
	}
	return dst, nil
}
