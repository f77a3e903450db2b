package remotewrite

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"mcached/mcache"
)

// Series is what the sender writes: points of one label set. Labels are sorted
// by name and points by time, as receivers want them.
type Series struct {
	Labels  []mcache.Label
	Samples []mcache.Sample
	// Starts are the start times of the first samples in ms, 0 for none.
	// Protocol 1.0 has no words for them.
	Starts []int64
	// Records are native histograms as the cache keeps them: messages
	// io.prometheus.write.v2.Histogram.
	Records []mcache.Record
	// Metadata of the metric. It goes with protocol 2.0 only: in 1.0 it is not
	// a matter of series.
	Metadata Metadata
}

// points is how many samples and histograms s has.
func (s *Series) points() int { return len(s.Samples) + len(s.Records) }

// AppendV1 appends series to dst as a prometheus.WriteRequest, not compressed.
func AppendV1(dst []byte, series []Series) []byte {
	for i := range series {
		s := &series[i]
		n := 0
		for _, l := range s.Labels {
			n += 1 + sized(labelBytes(l))
		}
		for _, x := range s.Samples {
			n += 1 + sized(sampleBytes(x))
		}
		for _, r := range s.Records {
			n += 1 + sized(recordBytesV1(r.Value))
		}
		dst = appendHead(dst, tagV1Series, n)
		for _, l := range s.Labels {
			dst = appendHead(dst, tagV1SeriesLabel, labelBytes(l))
			dst = appendString(dst, tagLabelName, l.Name)
			dst = appendString(dst, tagLabelValue, l.Value)
		}
		dst = appendSamples(dst, s.Samples)
		for _, r := range s.Records {
			dst = appendRecordV1(appendHead(dst, tagV1SeriesHistogram, recordBytesV1(r.Value)), r.Value)
		}
	}
	return dst
}

// EncoderV2 writes requests of protocol 2.0. It keeps its table of symbols
// between requests to save allocations; the zero value is ready.
type EncoderV2 struct {
	index   map[string]uint32
	symbols []string
	refs    []uint32

	// seen finds strings by where they lie, which a label that many series
	// share is often known by without being hashed.
	seen  [seenSymbols]seenSymbol
	round uint32 // what of seen is valid
}

type seenSymbol struct {
	at            uintptr // of its first byte, while the series are encoded
	length, round uint32
	ref           uint32
}

const (
	seenBits    = 10
	seenSymbols = 1 << seenBits
)

// Append appends series to dst as an io.prometheus.write.v2.Request, not
// compressed.
func (e *EncoderV2) Append(dst []byte, series []Series) []byte {
	clear(e.index)
	if e.index == nil {
		e.index = make(map[string]uint32)
	}
	e.symbols, e.refs = append(e.symbols[:0], ""), e.refs[:0]
	e.index[""] = 0
	e.round++
	var before []mcache.Label // of the series before: most labels are what they were
	at := 0                   // where its references begin
	for i := range series {
		ls := series[i].Labels
		mine := len(e.refs)
		for k, l := range ls {
			if k < len(before) && before[k].Name == l.Name {
				e.refs = append(e.refs, e.refs[at+2*k])
			} else {
				e.refs = append(e.refs, e.symbol(l.Name))
			}
			if k < len(before) && before[k].Value == l.Value {
				e.refs = append(e.refs, e.refs[at+2*k+1])
			} else {
				e.refs = append(e.refs, e.symbol(l.Value))
			}
		}
		if m := &series[i].Metadata; *m != (Metadata{}) {
			e.symbol(m.Help)
			e.symbol(m.Unit)
		}
		before, at = ls, mine
	}
	for _, s := range e.symbols {
		dst = appendHead(dst, tagV2Symbol, len(s))
		dst = append(dst, s...)
	}
	refs := e.refs
	for i := range series {
		s := &series[i]
		mine := refs[:2*len(s.Labels)]
		refs = refs[len(mine):]
		dst = e.appendSeries(dst, s, mine)
	}
	clear(e.symbols) // so that it does not keep the strings of this request alive
	return dst
}

func (e *EncoderV2) appendSeries(dst []byte, s *Series, refs []uint32) []byte {
	packed := 0
	for _, r := range refs {
		packed += uvarintBytes(uint64(r))
	}
	n := 1 + sized(packed)
	if len(s.Starts) == 0 {
		for _, x := range s.Samples {
			n += 1 + sized(sampleBytes(x))
		}
	} else {
		for i, x := range s.Samples {
			n += 1 + sized(sampleBytes(x)+startBytes(s.Starts, i))
		}
	}
	for _, r := range s.Records {
		n += 1 + sized(len(r.Value))
	}
	var kind, help, unit uint64
	meta := 0
	if s.Metadata != (Metadata{}) {
		kind = uint64(metricTypeNumber(s.Metadata.Type))
		help, unit = uint64(e.index[s.Metadata.Help]), uint64(e.index[s.Metadata.Unit])
		meta = 3 + uvarintBytes(kind) + uvarintBytes(help) + uvarintBytes(unit)
		n += 1 + sized(meta)
	}
	dst = appendHead(dst, tagV2Series, n)
	dst = appendHead(dst, tagV2SeriesRefs, packed)
	for _, r := range refs {
		dst = binary.AppendUvarint(dst, uint64(r))
	}
	if len(s.Starts) == 0 {
		dst = appendSamples(dst, s.Samples)
	} else {
		dst = appendStarted(dst, s.Samples, s.Starts)
	}
	for _, r := range s.Records {
		dst = append(appendHead(dst, tagV2SeriesHistogram, len(r.Value)), r.Value...)
	}
	if meta > 0 {
		dst = appendHead(dst, tagV2SeriesMetadata, meta)
		dst = binary.AppendUvarint(append(dst, tagV2MetadataType), kind)
		dst = binary.AppendUvarint(append(dst, tagV2MetadataHelp), help)
		dst = binary.AppendUvarint(append(dst, tagV2MetadataUnit), unit)
	}
	return dst
}

func (e *EncoderV2) symbol(s string) uint32 {
	if s == "" {
		return 0
	}
	at := uintptr(unsafe.Pointer(unsafe.StringData(s)))
	k := &e.seen[(uint64(at)*0x9e3779b97f4a7c15)>>(64-seenBits)]
	if k.at == at && k.length == uint32(len(s)) && k.round == e.round {
		return k.ref
	}
	n, ok := e.index[s]
	if !ok {
		n = uint32(len(e.symbols))
		e.index[s] = n
		e.symbols = append(e.symbols, s)
	}
	*k = seenSymbol{at, uint32(len(s)), e.round, n}
	return n
}

// appendSamples appends Sample messages, which are the same field of a series
// and the same message in both protocols. A value is left out only if all its
// bits are zero: -0 equals 0, but is another value.
func appendSamples(dst []byte, samples []mcache.Sample) []byte {
	for _, x := range samples {
		dst = appendSample(appendHead(dst, tagV1SeriesSample, sampleBytes(x)), x)
	}
	return dst
}

// appendStarted is appendSamples for those that have start times.
func appendStarted(dst []byte, samples []mcache.Sample, starts []int64) []byte {
	for i, x := range samples {
		start := startBytes(starts, i)
		dst = appendSample(appendHead(dst, tagV2SeriesSample, sampleBytes(x)+start), x)
		if start > 0 {
			dst = binary.AppendUvarint(append(dst, tagSampleStart), uint64(starts[i]))
		}
	}
	return dst
}

func appendSample(dst []byte, x mcache.Sample) []byte {
	if x.V != 0 {
		dst = append(dst, tagSampleValue)
		dst = binary.LittleEndian.AppendUint64(dst, x.V)
	}
	if x.T != 0 {
		dst = append(dst, tagSampleTime)
		dst = binary.AppendUvarint(dst, uint64(x.T))
	}
	return dst
}

func sampleBytes(x mcache.Sample) int {
	n := 0
	if x.V != 0 {
		n += 1 + 8
	}
	if x.T != 0 {
		n += 1 + uvarintBytes(uint64(x.T))
	}
	return n
}

// startBytes is what the start time of sample i takes.
func startBytes(starts []int64, i int) int {
	if i >= len(starts) || starts[i] == 0 {
		return 0
	}
	return 1 + uvarintBytes(uint64(starts[i]))
}

// The Histogram of protocol 1.0 is that of 2.0 without the start timestamp.

func recordBytesV1(value []byte) int {
	n := 0
	for len(value) > 0 {
		var before []byte
		before, value = cutStart(value)
		n += len(before)
	}
	return n
}

func appendRecordV1(dst, value []byte) []byte {
	for len(value) > 0 {
		var before []byte
		before, value = cutStart(value)
		dst = append(dst, before...)
	}
	return dst
}

// cutStart returns what is before and behind the first start timestamp of a
// Histogram message. What is malformed, which no record is, stays as it is.
func cutStart(b []byte) (before, after []byte) {
	for i := 0; i < len(b); {
		t, next := tag(b, i)
		if next < 0 {
			return b, nil
		}
		if next = skip(b, t, next); next < 0 {
			return b, nil
		}
		if t == tagHistogramStart {
			return b[:i], b[next:]
		}
		i = next
	}
	return b, nil
}

func labelBytes(l mcache.Label) int { return 1 + sized(len(l.Name)) + 1 + sized(len(l.Value)) }

// sized is n and the length before it.
func sized(n int) int { return uvarintBytes(uint64(n)) + n }

func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func appendHead(dst []byte, tag byte, n int) []byte {
	return binary.AppendUvarint(append(dst, tag), uint64(n))
}

func appendString(dst []byte, tag byte, s string) []byte {
	return append(appendHead(dst, tag, len(s)), s...)
}
