package remotewrite

import (
	"encoding/binary"
	"math/bits"

	"mcached/mcache"
)

// Series is what the sender writes: samples of one label set. Labels are
// sorted by name and samples by time, as receivers want them.
type Series struct {
	Labels  []mcache.Label
	Samples []mcache.Sample
}

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
		dst = appendHead(dst, tagV1Series, n)
		for _, l := range s.Labels {
			dst = appendHead(dst, tagV1SeriesLabel, labelBytes(l))
			dst = appendString(dst, tagLabelName, l.Name)
			dst = appendString(dst, tagLabelValue, l.Value)
		}
		dst = appendSamples(dst, s.Samples)
	}
	return dst
}

// EncoderV2 writes requests of protocol 2.0. It keeps its table of symbols
// between requests to save allocations; the zero value is ready.
type EncoderV2 struct {
	index   map[string]uint32
	symbols []string
	refs    []uint32
}

// Append appends series to dst as an io.prometheus.write.v2.Request, not
// compressed.
func (e *EncoderV2) Append(dst []byte, series []Series) []byte {
	clear(e.index)
	if e.index == nil {
		e.index = make(map[string]uint32)
	}
	clear(e.symbols) // so that it does not keep the strings of the last request alive
	e.symbols, e.refs = append(e.symbols[:0], ""), e.refs[:0]
	e.index[""] = 0
	for i := range series {
		for _, l := range series[i].Labels {
			e.refs = append(e.refs, e.symbol(l.Name), e.symbol(l.Value))
		}
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
		packed := 0
		for _, r := range mine {
			packed += uvarintBytes(uint64(r))
		}
		n := 1 + sized(packed)
		for _, x := range s.Samples {
			n += 1 + sized(sampleBytes(x))
		}
		dst = appendHead(dst, tagV2Series, n)
		dst = appendHead(dst, tagV2SeriesRefs, packed)
		for _, r := range mine {
			dst = binary.AppendUvarint(dst, uint64(r))
		}
		dst = appendSamples(dst, s.Samples)
	}
	return dst
}

func (e *EncoderV2) symbol(s string) uint32 {
	if n, ok := e.index[s]; ok {
		return n
	}
	n := uint32(len(e.symbols))
	e.index[s] = n
	e.symbols = append(e.symbols, s)
	return n
}

// appendSamples appends Sample messages, which are the same field of a series
// and the same message in both protocols. A value is left out only if all its
// bits are zero: -0 equals 0, but is another value.
func appendSamples(dst []byte, samples []mcache.Sample) []byte {
	for _, x := range samples {
		dst = appendHead(dst, tagV1SeriesSample, sampleBytes(x))
		if x.V != 0 {
			dst = append(dst, tagSampleValue)
			dst = binary.LittleEndian.AppendUint64(dst, x.V)
		}
		if x.T != 0 {
			dst = append(dst, tagSampleTime)
			dst = binary.AppendUvarint(dst, uint64(x.T))
		}
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
