package remotewrite

import (
	"fmt"

	"mcached/mcache"
)

// Tags of io.prometheus.write.v2.Request and what it holds.
const (
	tagV2Symbol   = 4<<3 | wireBytes
	tagV2Series   = 5<<3 | wireBytes
	lastV2Request = 5

	tagV2SeriesRef       = 1<<3 | wireVarint // one reference
	tagV2SeriesRefs      = 1<<3 | wireBytes  // packed references
	tagV2SeriesSample    = 2<<3 | wireBytes
	tagV2SeriesHistogram = 3<<3 | wireBytes
	tagV2SeriesExemplar  = 4<<3 | wireBytes
	tagV2SeriesMetadata  = 5<<3 | wireBytes
	lastV2Series         = 5

	tagV2MetadataType = 1<<3 | wireVarint
	tagV2MetadataHelp = 3<<3 | wireVarint
	tagV2MetadataUnit = 4<<3 | wireVarint
	lastV2Metadata    = 4
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
		t, i2 := tag(b, i)
		if i2 < 0 {
			return malformed("request", start)
		}
		switch t {
		case tagV2Symbol, tagV2Series:
			from, to := span(b, i2)
			if from < 0 {
				return malformed("request", start)
			}
			if t == tagV2Symbol {
				if len(in.syms) == in.o.MaxSymbols {
					return tooMany("symbols", in.o.MaxSymbols)
				}
				in.syms = append(in.syms, symbol{raw: b[from:to]})
			} else {
				if len(in.series) == in.o.MaxSeries {
					return tooMany("series", in.o.MaxSeries)
				}
				in.series = append(in.series, extent{uint32(from), uint32(to)})
			}
			i = to
		case tagV1Series, tagV1Metadata:
			return errOtherProtocol{claimed: V2, got: V1}
		default:
			known := uint64(lastV2Request)
			if t>>3 < 4 {
				known = 0 // 1 to 3 are reserved
			}
			if i = skipUnknown(b, t, i2, known); i < 0 {
				return malformed("request", start)
			}
		}
	}
	if len(in.syms) > 0 && len(in.syms[0].raw) > 0 {
		return fmt.Errorf("the first symbol must be the empty string, got %s", clip(view(in.syms[0].raw)))
	}
	for _, e := range in.series {
		if err := in.seriesV2(e); err != nil {
			return err
		}
	}
	return nil
}

// seriesV2 puts one TimeSeries message into the batch.
func (in *intake) seriesV2(e extent) error {
	b := in.decoded[:e.to]
	in.beginSeries()
	in.refs = in.refs[:0]
	var meta metadataRefs
	tooManyRefs := false
	for i := int(e.from); i < len(b); {
		start := i
		t, i2 := tag(b, i)
		if i2 < 0 {
			return malformed("series", start)
		}
		if t == tagV2SeriesRef {
			var v uint64
			if v, i = uvarint(b, i2); i < 0 {
				return malformed("series", start)
			}
			in.refs = append(in.refs, uint32(v))
			if len(in.refs) > 2*in.o.MaxLabels {
				// What is kept of them is bounded; the series is refused below.
				in.refs, tooManyRefs = in.refs[:0], true
			}
			continue
		}
		if t > tagV2SeriesMetadata || t&7 != wireBytes {
			if i = skipUnknown(b, t, i2, lastV2Series); i < 0 {
				return malformed("series", start)
			}
			continue
		}
		at, end := span(b, i2)
		if at < 0 {
			return malformed("series", start)
		}
		i = end
		switch t {
		case tagV2SeriesRefs:
			for at < end {
				v := uint64(b[at])
				if v < 0x80 {
					at++
				} else if v, at = uvarint(b[:end], at); at < 0 {
					return malformed("references", start)
				}
				in.refs = append(in.refs, uint32(v))
				if len(in.refs) > 2*in.o.MaxLabels {
					in.refs, tooManyRefs = in.refs[:0], true
				}
			}
		case tagV2SeriesSample:
			if len(in.samples) >= in.left {
				return tooMany("samples", in.o.MaxSamples)
			}
			if !in.sample(b[at:end], lastV2Sample) {
				return malformed("sample", at)
			}
		case tagV2SeriesExemplar, tagV2SeriesHistogram:
			if len(in.samples)+len(in.histograms)+len(in.exemplars)-in.hand >= in.left {
				return tooMany("samples", in.o.MaxSamples)
			}
			if t == tagV2SeriesExemplar && !in.exemplar(b[at:end]) {
				return malformed("exemplar", at)
			}
			if t == tagV2SeriesHistogram && !in.histogram(b[at:end]) {
				return malformed("histogram", at)
			}
		case tagV2SeriesMetadata:
			// Messages that come in parts are merged, says protobuf.
			if !meta.decode(b[at:end]) {
				return malformed("metadata", at)
			}
		}
	}
	f, suspect, err := in.fingerprintV2()
	switch {
	case tooManyRefs:
		err = fmt.Errorf("a series has more than %d labels", in.o.MaxLabels)
	case err == nil && meta != (metadataRefs{}) && int(max(meta.help, meta.unit)) >= len(in.syms):
		err = fmt.Errorf("metadata refers to symbols %d and %d of %d", meta.help, meta.unit, len(in.syms))
	}
	if err != nil {
		in.problems.add(reasonLabels, err)
		in.exemplars = in.exemplars[:in.hand]
		return nil
	}
	if meta != (metadataRefs{}) {
		in.describeV2(meta)
	}
	in.endSeries(f, e, suspect)
	return nil
}

// metadataRefs is a Metadata message.
type metadataRefs struct {
	kind       int32
	help, unit uint32
}

func (m *metadataRefs) decode(b []byte) bool {
	for i := 0; i < len(b); {
		t, i2 := tag(b, i)
		if i2 < 0 {
			return false
		}
		var v uint64
		switch t {
		case tagV2MetadataType:
			v, i = uvarint(b, i2)
			m.kind = int32(v)
		case tagV2MetadataHelp:
			v, i = uvarint(b, i2)
			m.help = uint32(v)
		case tagV2MetadataUnit:
			v, i = uvarint(b, i2)
			m.unit = uint32(v)
		default:
			i = skipReserved(b, t, i2, lastV2Metadata, 2)
		}
		if i < 0 {
			return false
		}
	}
	return true
}

// refPair is a label of the series before, by its place among the labels.
type refPair struct {
	name, value uint32
	// Of all labels up to this one:
	sum     mcache.Fingerprint
	suspect bool // one has an empty value
}

// fingerprintV2 sums the pairs of refs up. The first of them are often those
// of the series before, whose sum is known.
func (in *intake) fingerprintV2() (f mcache.Fingerprint, suspect bool, err error) {
	refs := in.refs
	if len(refs)%2 != 0 {
		return f, false, fmt.Errorf("a series has %d label references: an odd number", len(refs))
	}
	n := 0
	for ; n < len(in.refPairs) && 2*n < len(refs); n++ {
		if p := &in.refPairs[n]; p.name != refs[2*n] || p.value != refs[2*n+1] {
			break
		}
	}
	in.refPairs = in.refPairs[:n]
	if n > 0 {
		f, suspect = in.refPairs[n-1].sum, in.refPairs[n-1].suspect
	}
	for i := 2 * n; i+1 < len(refs); i += 2 {
		n, v := refs[i], refs[i+1]
		if int(n) >= len(in.syms) || int(v) >= len(in.syms) {
			return f, false, fmt.Errorf("a label refers to symbols %d and %d of %d", n, v, len(in.syms))
		}
		name, value := &in.syms[n], &in.syms[v]
		if len(value.raw) == 0 {
			suspect = true
		} else {
			if !name.hashed {
				name.hash, name.hashed = in.cache.Hash(name.raw), true
			}
			if !value.hashed {
				value.hash, value.hashed = in.cache.Hash(value.raw), true
			}
			f.Add(name.hash, value.hash)
		}
		in.refPairs = append(in.refPairs, refPair{n, v, f, suspect})
	}
	return f, suspect, nil
}

// describeV2 keeps the metadata of the series in hand, which many series of a
// request share: only the first of a metric name is looked at.
func (in *intake) describeV2(m metadataRefs) {
	for i := 0; i+1 < len(in.refs); i += 2 {
		if string(in.syms[in.refs[i]].raw) != metricName {
			continue
		}
		name := &in.syms[in.refs[i+1]]
		if name.described {
			return
		}
		name.described = true
		in.meta.put(in.bucket, view(name.raw), Metadata{
			metricType(m.kind), view(in.syms[m.help].raw), view(in.syms[m.unit].raw),
		})
		return
	}
}

// labelsV2 appends the labels of a TimeSeries message that seriesV2 has found
// good, as views into the body.
func (in *intake) labelsV2(b []byte, dst []mcache.Label) ([]mcache.Label, error) {
	in.refs = in.refs[:0]
	for i := 0; i < len(b); {
		t, i2 := tag(b, i)
		if i2 < 0 {
			return dst, errMalformed
		}
		switch t {
		case tagV2SeriesRef:
			var v uint64
			if v, i = uvarint(b, i2); i >= 0 {
				in.refs = append(in.refs, uint32(v))
			}
		case tagV2SeriesRefs:
			var at, end int
			for at, end = span(b, i2); at >= 0 && at < end; {
				var v uint64
				v, at = uvarint(b[:end], at)
				in.refs = append(in.refs, uint32(v))
			}
			i = at
		default:
			i = skip(b, t, i2)
		}
		if i < 0 {
			return dst, errMalformed
		}
	}
	for i := 0; i+1 < len(in.refs); i += 2 {
		dst = append(dst, mcache.Label{
			Name:  view(in.syms[in.refs[i]].raw),
			Value: view(in.syms[in.refs[i+1]].raw),
		})
	}
	return dst, nil
}
