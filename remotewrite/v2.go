package remotewrite

import (
	"errors"
	"fmt"
	"iter"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// symbol is an entry of the request's table of strings.
type symbol struct {
	raw    []byte
	hash   mcache.Hash
	hashed bool
	// described says that the metadata of the metric with this name was
	// looked at in this request.
	described bool
}

// decodeV2 puts an io.prometheus.write.v2.Request into the batch. Symbols come
// before series from every sender, but protobuf allows any order: series are
// noted in a first pass over the request and read in a second.
func (in *intake) decodeV2() error {
	b := in.decoded
	for i := 0; i < len(b); {
		start := i
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return malformed("request", start)
		}
		switch t {
		case wire.TagV2Symbol, wire.TagV2Series:
			from, to := wire.Bytes(b, i2)
			if from < 0 {
				return malformed("request", start)
			}
			if to >= in.lookAt {
				if err := in.look(to, 0); err != nil {
					return err
				}
			}
			if t == wire.TagV2Symbol {
				if len(in.syms) == in.o.MaxSymbols {
					return in.o.tooMany("symbols", in.o.MaxSymbols, "MaxSymbols")
				}
				in.syms = append(in.syms, symbol{raw: b[from:to]})
			} else {
				if len(in.series) == in.o.MaxSeries {
					return in.o.tooMany("series", in.o.MaxSeries, "MaxSeries")
				}
				in.series = append(in.series, piece{uint32(from), uint32(to)})
			}
			i = to
		case wire.TagV1Series, wire.TagV1Metadata:
			return errOtherProtocol{claimed: wire.V2, got: wire.V1}
		default:
			known := uint64(wire.LastV2Request)
			if t>>3 < 4 {
				known = 0 // 1 to 3 are reserved
			}
			if i = wire.SkipUnknown(b, t, i2, known); i < 0 {
				return malformed("request", start)
			}
		}
	}
	if len(in.syms) > 0 && len(in.syms[0].raw) > 0 {
		return fmt.Errorf("the first symbol must be the empty string, got %s", wire.Quote(wire.View(in.syms[0].raw)))
	}
	in.lookAt = lookBytes // of the second pass
	for k, e := range in.series {
		if in.shared && in.passes(k) {
			continue
		}
		if int(e.to) >= in.lookAt {
			if err := in.look(int(e.from), int(e.to-e.from)); err != nil {
				return err
			}
		}
		if err := in.seriesV2(e); err != nil {
			return err
		}
	}
	return nil
}

// seriesV2 puts one TimeSeries message into the batch.
func (in *intake) seriesV2(e piece) error {
	b := in.decoded[:e.to]
	in.beginSeries()
	var f mcache.Fingerprint
	var suspect bool
	var bad error // what is wrong with the labels
	parts := 0    // fields that hold references
	var meta metadataRefs
	samples, odd := in.batch.Samples(), false
	first := len(samples)
	i := int(e.from)
	if len(in.names) > 0 {
		var x wire.Named
		if x, f = in.named(); x.Rest > 0 {
			i, b, parts = int(x.Rest), b[:x.End], 1
		}
	}
	if at, end := wire.ShortBytes(b, i, wire.TagV2SeriesRefs); at > 0 && end < in.lookAt { // from nearly all senders
		if f, suspect, bad = in.refsLikeBefore(b[at:end]); bad == errMalformed {
			return malformed("references", at)
		}
		i, parts = end, 1
	}
	for i < len(b) {
		if b[i] == wire.TagV2SeriesSample {
			if x, end := usualSample(b, i); end > 0 { // nearly all
				if len(samples)-first >= in.left {
					return in.o.tooMany("samples", in.o.MaxSamples, "MaxSamples")
				}
				odd = odd || uint64(x.T-earlyMs) >= in.usual
				samples, i = append(samples, x), end
				continue
			}
		} else if len(b)-i == 2 && b[i] == wire.TagV2SeriesMetadata && b[i+1] == 0 {
			break // it ends with an empty description, as nearly all do
		}
		start := i
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return malformed("series", start)
		}
		if t == wire.TagV2SeriesRef {
			if _, i = wire.Uvarint(b, i2); i < 0 {
				return malformed("series", start)
			}
			parts += 2 // a pair has two of them
			continue
		}
		if t > wire.TagV2SeriesMetadata || t&7 != wire.TypeBytes {
			if t == wire.TagV2SeriesBlock && in.takesBlocks {
				at, end := wire.Bytes(b, i2)
				if at < 0 {
					return malformed("series", start)
				}
				var far bool
				var err error
				if samples, far, err = in.block(b[at:end], end, samples); err != nil {
					return err
				}
				i, odd = end, odd || far
				continue
			}
			if i = wire.SkipUnknown(b, t, i2, wire.LastV2Series); i < 0 {
				return malformed("series", start)
			}
			continue
		}
		at, end := wire.Bytes(b, i2)
		if at < 0 {
			return malformed("series", start)
		}
		i = end
		if t != wire.TagV2SeriesRefs && t != wire.TagV2SeriesMetadata && in.handFull(len(samples)-first) {
			return in.o.tooMany("samples", in.o.MaxSamples, "MaxSamples")
		}
		if end >= in.lookAt {
			in.batch.SetSamples(samples)
			if err := in.look(end, len(b)-end); err != nil {
				return err
			}
		}
		switch t {
		case wire.TagV2SeriesRefs:
			if parts++; parts == 1 {
				f, suspect, bad = in.refsLikeBefore(b[at:end])
			} else if !validRefs(b[at:end]) {
				bad = errMalformed
			}
			if bad == errMalformed {
				return malformed("references", at)
			}
		case wire.TagV2SeriesSample:
			x, startTime, ok := decodeSample(b[at:end], wire.LastV2Sample)
			if !ok {
				return malformed("sample", at)
			}
			if odd = odd || uint64(x.T-earlyMs) >= in.usual; startTime != 0 {
				in.start(len(samples)-first, startTime)
			}
			samples = append(samples, x)
		case wire.TagV2SeriesExemplar:
			if !in.exemplar(b[at:end]) {
				return malformed("exemplar", at)
			}
		case wire.TagV2SeriesHistogram:
			if !in.histogram(b[at:end]) {
				return malformed("histogram", at)
			}
		case wire.TagV2SeriesMetadata:
			// Messages that come in parts are merged, says protobuf.
			if at < end && !meta.decode(b[at:end]) {
				return malformed("metadata", at)
			}
		}
	}
	if parts != 1 {
		f, suspect, bad = in.refsInParts(b[e.from:])
	}
	described := meta != (metadataRefs{})
	if described && bad == nil && int(max(meta.help, meta.unit)) >= len(in.syms) {
		bad = fmt.Errorf("metadata refers to symbols %d and %d of %d", meta.help, meta.unit, len(in.syms))
	}
	if bad != nil {
		in.refused += in.badHistograms
		in.refuseLabels(e, bad, samples, first)
		return nil
	}
	if described {
		in.describeV2(meta)
	}
	in.endSeries(f, e, suspect, samples, first, odd)
	return nil
}

// start notes the start time of sample i of the series in hand.
func (in *intake) start(i int, startTime int64) {
	for len(in.starts) < i {
		in.starts = append(in.starts, 0)
	}
	in.starts = append(in.starts, startTime)
}

// metadataRefs is a Metadata message.
type metadataRefs struct {
	kind       int32
	help, unit uint32
}

func (m *metadataRefs) decode(b []byte) bool {
	for i := 0; i < len(b); {
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return false
		}
		var v uint64
		switch t {
		case wire.TagV2MetadataType:
			v, i = wire.Uvarint(b, i2)
			m.kind = int32(v)
		case wire.TagV2MetadataHelp:
			v, i = wire.Uvarint(b, i2)
			m.help = uint32(v)
		case wire.TagV2MetadataUnit:
			v, i = wire.Uvarint(b, i2)
			m.unit = uint32(v)
		default:
			i = wire.SkipReserved(b, t, i2, wire.LastV2Metadata, 2)
		}
		if i < 0 {
			return false
		}
	}
	return true
}

// refPair is a label of the series before, by its place among the labels.
type refPair struct {
	name, value       uint32
	nameHash, valHash mcache.Hash
	empty             bool // the value is
}

// refsLikeBefore sums up the pairs of a packed list of references. It passes
// over those of the series before as labelsLikeBefore does, which see.
func (in *intake) refsLikeBefore(raw []byte) (f mcache.Fingerprint, suspect bool, err error) {
	if in.onlyRefChanged(raw) {
		return in.sum, in.empty > 0, nil
	}
	if in.refsBefore == nil {
		in.forgetRefs()
	}
	before, n, i := in.refsBefore, 0, 0
	for {
		ends, limit := in.ends, uint32(i+wire.CommonPrefix(before, raw[i:]))
		for n < len(ends) && ends[n] <= limit {
			n++
		}
		if n > 0 {
			passed := int(ends[n-1]) - i
			i, before = i+passed, before[passed:]
		}
		if i == len(raw) {
			break
		}
		name, j := wire.Uvarint(raw, i)
		if j < 0 {
			return f, false, errMalformed
		}
		if j == len(raw) {
			in.forgetRefs()
			return f, false, errOddRefs
		}
		value, j := wire.Uvarint(raw, j)
		if j < 0 {
			return f, false, errMalformed
		}
		if n == len(in.refPairs) {
			in.refPairs, in.ends = append(in.refPairs, refPair{}), append(in.ends, uint32(j))
		} else {
			in.takeOutRef(&in.refPairs[n])
			before = before[int(in.ends[n])-i:]
			moveEnds(in.ends[n:], j)
		}
		in.changed = n
		if err := in.pair(&in.refPairs[n], uint32(name), uint32(value), n); err != nil {
			in.forgetRefs()
			if !validRefs(raw[j:]) {
				err = errMalformed
			}
			return f, false, err
		}
		i = j
		n++
	}
	for k := n; k < len(in.refPairs); k++ {
		in.takeOutRef(&in.refPairs[k])
	}
	in.refPairs, in.ends, in.refsBefore = in.refPairs[:n], in.ends[:n], raw
	return in.sum, in.empty > 0, nil
}

// onlyRefChanged does it where the list is that of the series before but for one label,
// the one that changed last, which is as long. It reports false, and has done nothing,
// where it is otherwise.
func (in *intake) onlyRefChanged(raw []byte) bool {
	before, ends, n := in.refsBefore, in.ends, in.changed
	if len(raw) != len(before) || uint(n) >= uint(len(ends)) {
		return false
	}
	from, to := 0, int(ends[n])
	if n > 0 {
		from = int(ends[n-1])
	}
	if string(raw[:from]) != string(before[:from]) || string(raw[to:]) != string(before[to:]) {
		return false
	}
	p := &in.refPairs[n]
	name, i := wire.Uvarint(raw, from)
	if i < 0 || p.empty || uint64(p.name) != name {
		return false
	}
	value, i := wire.Uvarint(raw, i)
	if i != to || value >= uint64(len(in.syms)) || len(in.syms[value].raw) == 0 {
		return false
	}
	v := &in.syms[value]
	in.sum.Remove(p.nameHash, p.valHash)
	p.value, p.valHash = uint32(value), in.hash(v)
	in.sum.Add(p.nameHash, p.valHash)
	in.refsBefore = raw
	return true
}

// forgetRefs leaves no series before to compare with.
func (in *intake) forgetRefs() {
	in.refPairs, in.ends, in.refsBefore = in.refPairs[:0], in.ends[:0], nil
	in.sum, in.empty = mcache.Fingerprint{}, 0
}

// takeOutRef takes a label of the series before out of the sum.
func (in *intake) takeOutRef(p *refPair) {
	if p.empty {
		in.empty--
	} else {
		in.sum.Remove(p.nameHash, p.valHash)
	}
}

var errOddRefs = errors.New("a series has an odd number of label references")

// pair fills p in, as the label in place n, and puts it into the sum.
func (in *intake) pair(p *refPair, name, value uint32, n int) error {
	switch {
	case n == in.o.MaxLabels:
		return errTooManyLabels
	case int(name) >= len(in.syms) || int(value) >= len(in.syms):
		return fmt.Errorf("a label refers to symbols %d and %d of %d", name, value, len(in.syms))
	}
	v := &in.syms[value]
	*p = refPair{name: name, value: value, empty: len(v.raw) == 0}
	if p.empty {
		in.empty++
		return nil
	}
	p.nameHash, p.valHash = in.hash(&in.syms[name]), in.hash(v)
	in.sum.Add(p.nameHash, p.valHash)
	return nil
}

func (in *intake) hash(s *symbol) mcache.Hash {
	if !s.hashed {
		s.hash, s.hashed = in.cache.Hash(s.raw), true
	}
	return s.hash
}

// refsInParts sums up the pairs of a series whose references are not one
// packed list. No sender writes them so, but protobuf allows it.
func (in *intake) refsInParts(series []byte) (f mcache.Fingerprint, suspect bool, err error) {
	// The series after has no list to compare its own with.
	in.forgetRefs()
	if in.collectRefs(series); len(in.refs)%2 != 0 {
		return f, false, errOddRefs
	}
	for i := 0; i+1 < len(in.refs); i += 2 {
		var p refPair
		if err := in.pair(&p, in.refs[i], in.refs[i+1], i/2); err != nil {
			return f, false, err
		}
		in.refPairs = append(in.refPairs, p)
	}
	return in.sum, in.empty > 0, nil
}

// validRefs tells whether b is a packed list of numbers.
func validRefs(b []byte) bool {
	for i := 0; i < len(b); {
		if _, i = wire.Uvarint(b, i); i < 0 {
			return false
		}
	}
	return true
}

// describeV2 keeps the metadata of the series in hand, which many series of a
// request share: only the first of a metric name is looked at.
func (in *intake) describeV2(m metadataRefs) {
	for i := range in.refPairs {
		if string(in.syms[in.refPairs[i].name].raw) != wire.MetricName {
			continue
		}
		name := &in.syms[in.refPairs[i].value]
		if name.described {
			return
		}
		name.described = true
		in.meta.put(in.bucket, wire.View(name.raw), wire.Metadata{
			Type: wire.MetricType(m.kind), Help: wire.View(in.syms[m.help].raw), Unit: wire.View(in.syms[m.unit].raw),
		})
		return
	}
}

// labelsV2 appends the labels of a TimeSeries message that seriesV2 has found
// good, as views into the body.
func (in *intake) labelsV2(b []byte, dst []mcache.Label) ([]mcache.Label, error) {
	in.collectRefs(b)
	for i := 0; i+1 < len(in.refs); i += 2 {
		n, v := in.refs[i], in.refs[i+1]
		if int(n) >= len(in.syms) || int(v) >= len(in.syms) {
			return dst, errMalformed
		}
		dst = append(dst, mcache.Label{Name: wire.View(in.syms[n].raw), Value: wire.View(in.syms[v].raw)})
	}
	return dst, nil
}

// collectRefs sets refs to the references of a well-formed TimeSeries message;
// to no more than show that there are too many.
func (in *intake) collectRefs(b []byte) {
	in.refs = in.refs[:0]
	limit := 2*in.o.MaxLabels + 2
	for ref := range eachRef(b) {
		if len(in.refs) == limit {
			break
		}
		in.refs = append(in.refs, ref)
	}
}

// eachRef yields the references of a TimeSeries message as far as it is well-formed.
func eachRef(b []byte) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i := 0; i >= 0 && i < len(b); {
			var t, v uint64
			switch t, i = wire.Tag(b, i); t {
			case wire.TagV2SeriesRef:
				if v, i = wire.Uvarint(b, i); !yield(uint32(v)) {
					return
				}
			case wire.TagV2SeriesRefs:
				at, end := wire.Bytes(b, i)
				for at >= 0 && at < end {
					if v, at = wire.Uvarint(b[:end], at); !yield(uint32(v)) {
						return
					}
				}
				i = end
			default:
				i = wire.Skip(b, t, i)
			}
		}
	}
}

// eachLabelV2 yields the labels of a TimeSeries message, but for those whose
// references lead nowhere, as views into the body.
func (in *intake) eachLabelV2(b []byte) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		name, isValue := uint32(0), false
		for ref := range eachRef(b) {
			if isValue = !isValue; isValue {
				name = ref
				continue
			}
			if max(int(name), int(ref)) < len(in.syms) && !yield(wire.View(in.syms[name].raw), wire.View(in.syms[ref].raw)) {
				return
			}
		}
	}
}
