package remotewrite

import (
	"bytes"
	"encoding/binary"
	"iter"
	"math/bits"

	"github.com/prometheus/prometheus/prompb"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// pair is a label of the series before, by its place among the labels.
type pair struct {
	size        int    // bytes in the body, tag and length included
	text        []byte // of the name
	name, value mcache.Hash
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
	i, f, suspect, err := in.labelsLikeBefore(b, from)
	if err != nil {
		return err
	}
	in.beginSeries()
	moreLabels := 0
	for i < to {
		start := i
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
		i = end
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
			if len(in.samples) >= in.left {
				return in.o.tooMany("samples", in.o.MaxSamples, "MaxSamples")
			}
			if !in.sample(b[at:end], wire.LastV1Sample) {
				return malformed("sample", at)
			}
		case wire.TagV1SeriesExemplar, wire.TagV1SeriesHistogram:
			if len(in.samples)+len(in.histograms)+len(in.exemplars)-in.hand >= in.left {
				return in.o.tooMany("samples", in.o.MaxSamples, "MaxSamples")
			}
			if t == wire.TagV1SeriesExemplar && !in.exemplar(b[at:end]) {
				return malformed("exemplar", at)
			}
			if t == wire.TagV1SeriesHistogram && !in.histogram(b[at:end]) {
				return malformed("histogram", at)
			}
		}
	}
	in.endSeries(f, extent{uint32(from), uint32(to)}, suspect)
	return nil
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
	before, from, n := in.before, i, 0
	for {
		same := commonPrefix(before, b[i:])
		passed := 0
		for n < len(in.pairs) && in.pairs[n].size <= same-passed {
			passed += in.pairs[n].size
			n++
		}
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
			in.pairs = append(in.pairs, pair{})
		} else {
			in.takeOut(&in.pairs[n])
		}
		p := &in.pairs[n]
		before = before[p.size:]
		if p.text == nil || !bytes.Equal(p.text, name) { // a changed label mostly has another value only
			p.name = in.cache.Hash(name)
		}
		p.size, p.text, p.value, p.empty = end-i, name, in.cache.Hash(value), len(value) == 0
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
	in.pairs, in.before = in.pairs[:n], b[from:i]
	return i, in.sum, in.empty > 0, nil
}

// takeOut takes a label of the series before out of the sum.
func (in *intake) takeOut(p *pair) {
	if p.empty {
		in.empty--
	} else {
		in.sum.Remove(p.name, p.value)
	}
}

// commonPrefix is how many bytes of a and b are the same from their beginning.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	i := 0
	for ; i+32 <= n; i += 32 {
		x, y := a[i:i+32:i+32], b[i:i+32:i+32]
		if (binary.LittleEndian.Uint64(x)^binary.LittleEndian.Uint64(y))|
			(binary.LittleEndian.Uint64(x[8:])^binary.LittleEndian.Uint64(y[8:]))|
			(binary.LittleEndian.Uint64(x[16:])^binary.LittleEndian.Uint64(y[16:]))|
			(binary.LittleEndian.Uint64(x[24:])^binary.LittleEndian.Uint64(y[24:])) != 0 {
			break
		}
	}
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// sample decodes a Sample message: of either protocol, since they differ in a
// field that is skipped.
func (in *intake) sample(b []byte, last uint64) bool {
	// What every sender writes: the value, then the time, both not zero.
	if len(b) > 10 && b[0] == wire.TagSampleValue && b[9] == wire.TagSampleTime {
		if t, i := wire.Uvarint(b, 10); i == len(b) {
			in.samples = append(in.samples, mcache.Sample{T: int64(t), V: binary.LittleEndian.Uint64(b[1:])})
			return true
		}
	}
	var s mcache.Sample
	var start int64
	for i := 0; i < len(b); {
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return false
		}
		var v uint64
		switch {
		case t == wire.TagSampleValue:
			s.V, i = wire.Fixed64(b, i2)
		case t == wire.TagSampleTime:
			v, i = wire.Uvarint(b, i2)
			s.T = int64(v)
		case t == wire.TagSampleStart && last == wire.LastV2Sample:
			v, i = wire.Uvarint(b, i2)
			start = int64(v)
		default:
			i = wire.SkipUnknown(b, t, i2, last)
		}
		if i < 0 {
			return false
		}
	}
	if start != 0 {
		for len(in.starts) < len(in.samples) {
			in.starts = append(in.starts, 0)
		}
		in.starts = append(in.starts, start)
	}
	in.samples = append(in.samples, s)
	return true
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
			if !ok || !yield(view(name), view(value)) {
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
		dst = append(dst, mcache.Label{Name: view(name), Value: view(value)})
		i = to
	}
	return dst, nil
}
