package send

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// Series is what the sender writes: points of one label set. Labels are sorted
// by name and points by time, as receivers want them.
type Series struct {
	Labels []mcache.Label
	// Numbers, if there are any, say what the labels are in place of Labels:
	// places in Table, which all such series of a request share. A label that
	// many of them have is then encoded once.
	Numbers []uint32
	Table   []mcache.Label

	Samples []mcache.Sample
	// Starts are the start times of the first samples in ms, 0 for none.
	// Protocol 1.0 has no words for them.
	Starts []int64
	// Records are native histograms as the cache keeps them: messages
	// io.prometheus.write.v2.Histogram.
	Records []mcache.Record
	// Blocks hold more samples, which none of Samples lies between. Only nodes of a cluster
	// take them (wire.Blocks): forwarding and protocol 1.0 have none.
	Blocks []mcache.Block
	// Metadata of the metric. It goes with protocol 2.0 only: in 1.0 it is not
	// a matter of series.
	Metadata wire.Metadata
}

// Points is how many samples and histograms s has.
func (s *Series) Points() int {
	n := len(s.Samples) + len(s.Records)
	for _, b := range s.Blocks {
		n += b.Len()
	}
	return n
}

// count is how many labels s has.
func (s *Series) count() int { return len(s.Labels) + len(s.Numbers) }

func (s *Series) label(k int) mcache.Label {
	if len(s.Numbers) > 0 {
		return s.Table[s.Numbers[k]]
	}
	return s.Labels[k]
}

// all yields the names and values of the labels.
func (s *Series) all(yield func(name, value string) bool) {
	for k := range s.count() {
		if l := s.label(k); !yield(l.Name, l.Value) {
			return
		}
	}
}

// tableLen is the length of the table that those of series share which have one.
func tableLen(series []Series) int {
	for i := range series {
		if n := len(series[i].Table); n > 0 {
			return n
		}
	}
	return 0
}

// zeroed is n zeros, in the memory of s if they fit.
func zeroed[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// AppendV1 appends series to dst as a prometheus.WriteRequest, not compressed.
func AppendV1(dst []byte, series []Series) []byte {
	for i := range series {
		s := &series[i]
		shape := shapeOf(s.Samples)
		n := s.pointsV1(shape)
		for k := range s.count() {
			n += 1 + sized(labelBytes(s.label(k)))
		}
		dst = appendHead(dst, wire.TagV1Series, n)
		for k := range s.count() {
			dst = appendLabelV1(dst, s.label(k))
		}
		dst = appendRecordsV1(appendSamples(dst, s.Samples, nil, shape), s.Records)
	}
	return dst
}

// packV1 makes p the block of what AppendV1 appends. A label with a number that
// was packed before is copied from where it was last.
func packV1(p *packer, series []Series) {
	p.reset()
	p.numbered = zeroed(p.numbered, tableLen(series))
	for i := range series {
		s := &series[i]
		shape := p.shapeOf(s.Samples)
		bytes := s.pointsV1(shape)
		for _, l := range s.Labels {
			bytes += 1 + sized(labelBytes(l))
		}
		for _, n := range s.Numbers {
			l := &p.numbered[n]
			if l.bytes == 0 {
				l.bytes = 1 + sized(labelBytes(s.Table[n]))
			}
			bytes += l.bytes
		}
		p.text = appendHead(p.text, wire.TagV1Series, bytes)
		for _, l := range s.Labels {
			p.text = appendLabelV1(p.text, l)
		}
		for _, n := range s.Numbers {
			l, from := &p.numbered[n], p.here()
			if l.to == 0 || !p.again(l.stretch) {
				p.text = appendLabelV1(p.text, s.Table[n])
			}
			l.stretch = stretch{from, p.here()}
		}
		p.text = appendRecordsV1(p.samples(s.Samples, nil, shape), s.Records)
	}
}

// pointsV1 is what the points of s take in protocol 1.0.
func (s *Series) pointsV1(shape shape) (n int) {
	n += samplesBytes(s.Samples, nil, shape)
	for _, r := range s.Records {
		n += 1 + sized(recordBytesV1(r.Value))
	}
	return n
}

func appendLabelV1(dst []byte, l mcache.Label) []byte {
	dst = appendHead(dst, wire.TagV1SeriesLabel, labelBytes(l))
	return appendString(appendString(dst, wire.TagLabelName, l.Name), wire.TagLabelValue, l.Value)
}

func appendRecordsV1(dst []byte, records []mcache.Record) []byte {
	for _, r := range records {
		dst = appendRecordV1(appendHead(dst, wire.TagV1SeriesHistogram, recordBytesV1(r.Value)), r.Value)
	}
	return dst
}

// EncoderV2 writes requests of protocol 2.0. It keeps its table of symbols
// between requests to save allocations; the zero value is ready.
type EncoderV2 struct {
	index   map[string]uint32
	symbols []string
	refs    []uint32 // of series that do not number their labels

	numbered  []numberedRefs // by the numbers of labels
	described []described
	last      lastMessage // of runs

	// seen finds strings by where they lie, which a label that many series
	// share is often known by without being hashed.
	seen  [seenSymbols]seenSymbol
	round uint32 // what of seen is valid
}

// numberedRefs are the references to a label's name and value, as they are written.
type numberedRefs struct {
	text      uint64
	bytes     uint32 // of it; 0: they are not known yet
	described uint32 // place in EncoderV2.described, counted from 1, if it is the name of a metric
}

// maxRefsBytes is what numberedRefs.text holds.
const maxRefsBytes = 8

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
	dst = e.appendTable(dst, series)
	refs := e.refs
	for i := range series {
		s := &series[i]
		m := e.measure(s, refs[:2*len(s.Labels)], shapeOf(s.Samples))
		refs = refs[len(m.refs):]
		dst = m.appendEnd(appendSamples(e.appendBegin(dst, &m, s.Numbers), s.Samples, s.Starts, m.shape), s)
	}
	return dst
}

// pack makes p the block of what Append appends.
func (e *EncoderV2) pack(p *packer, series []Series) {
	p.reset()
	p.text = e.appendTable(p.text, series)
	p.flush()
	refs := e.refs
	for i := range series {
		s := &series[i]
		e.packSeries(p, s, refs[:2*len(s.Labels)])
		refs = refs[2*len(s.Labels):]
	}
}

// packSeries packs one series, of which Labels have these references.
func (e *EncoderV2) packSeries(p *packer, s *Series, refs []uint32) {
	m := e.measure(s, refs, p.shapeOf(s.Samples))
	p.text = e.appendBegin(p.text, &m, s.Numbers)
	p.text = m.appendEnd(p.samples(s.Samples, s.Starts, m.shape), s)
}

// appendTable appends the symbols of series, and notes the references to them.
func (e *EncoderV2) appendTable(dst []byte, series []Series) []byte {
	e.beginTable(tableLen(series))
	var before []mcache.Label // of the series before: most labels are what they were
	at := 0                   // where its references begin
	for i := range series {
		for _, n := range series[i].Numbers {
			if e.numbered[n].bytes == 0 {
				l := series[i].Table[n]
				e.numbered[n] = refsOf(e.symbol(l.Name), e.symbol(l.Value))
			}
		}
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
		if m := &series[i].Metadata; *m != (wire.Metadata{}) {
			e.symbol(m.Help)
			e.symbol(m.Unit)
		}
		before, at = ls, mine
	}
	return e.endTable(dst)
}

// beginTable begins a table of symbols, for labels that have so many numbers.
func (e *EncoderV2) beginTable(numbers int) {
	clear(e.index)
	if e.index == nil {
		e.index = make(map[string]uint32)
	}
	e.symbols, e.refs = append(e.symbols[:0], ""), e.refs[:0]
	e.index[""] = 0
	e.round++
	e.numbered = zeroed(e.numbered, numbers)
	clear(e.described)
	e.described = e.described[:0]
}

// endTable appends the symbols.
func (e *EncoderV2) endTable(dst []byte) []byte {
	for _, s := range e.symbols {
		dst = appendString(dst, wire.TagV2Symbol, s)
	}
	clear(e.symbols) // so that it does not keep the strings of this request alive
	return dst
}

// messageV2 is what has to be known of a series before it is written.
type messageV2 struct {
	refs      []uint32
	bytes     int // of the whole message
	refsBytes int
	shape     shape // of its samples
	metadataV2
}

// metadataV2 is what has to be known of metadata before they are written.
type metadataV2 struct {
	metadataBytes int // 0: there are none
	kind          uint64
	help, unit    uint64 // references
}

func (e *EncoderV2) measureMetadata(d wire.Metadata) (m metadataV2) {
	m.kind = uint64(wire.MetricTypeNumber(d.Type))
	m.help, m.unit = uint64(e.index[d.Help]), uint64(e.index[d.Unit])
	m.metadataBytes = 3 + wire.UvarintBytes(m.kind) + wire.UvarintBytes(m.help) + wire.UvarintBytes(m.unit)
	return m
}

func (m *metadataV2) appendMetadata(dst []byte) []byte {
	if m.metadataBytes == 0 {
		return dst
	}
	dst = appendHead(dst, wire.TagV2SeriesMetadata, m.metadataBytes)
	dst = binary.AppendUvarint(append(dst, wire.TagV2MetadataType), m.kind)
	dst = binary.AppendUvarint(append(dst, wire.TagV2MetadataHelp), m.help)
	return binary.AppendUvarint(append(dst, wire.TagV2MetadataUnit), m.unit)
}

func (e *EncoderV2) measure(s *Series, refs []uint32, shape shape) (m messageV2) {
	m.refs = refs
	for _, r := range refs {
		m.refsBytes += wire.UvarintBytes(uint64(r))
	}
	for _, n := range s.Numbers {
		m.refsBytes += int(e.numbered[n].bytes)
	}
	if len(s.Starts) == 0 {
		m.shape = shape // start times make it irregular
	}
	m.bytes = 1 + sized(m.refsBytes) + samplesBytes(s.Samples, s.Starts, m.shape)
	for _, r := range s.Records {
		m.bytes += 1 + sized(len(r.Value))
	}
	for _, b := range s.Blocks {
		m.bytes += wire.BlockBytes(b.First, b.Bytes)
	}
	if s.Metadata != (wire.Metadata{}) {
		m.metadataV2 = e.measureMetadata(s.Metadata)
		m.bytes += 1 + sized(m.metadataBytes)
	}
	return m
}

// appendBegin appends what is before the samples.
func (e *EncoderV2) appendBegin(dst []byte, m *messageV2, numbers []uint32) []byte {
	dst = appendHead(dst, wire.TagV2Series, m.bytes)
	dst = appendHead(dst, wire.TagV2SeriesRefs, m.refsBytes)
	for _, r := range m.refs {
		dst = binary.AppendUvarint(dst, uint64(r))
	}
	for _, n := range numbers {
		r := &e.numbered[n]
		dst = binary.LittleEndian.AppendUint64(dst, r.text)[:len(dst)+int(r.bytes)]
	}
	return dst
}

// refsOf is the text of two references, each of which has at most four bytes:
// a request of that many symbols would be too long by far.
func refsOf(name, value uint32) numberedRefs {
	var b [2 * binary.MaxVarintLen32]byte
	n := binary.PutUvarint(b[:], uint64(name))
	n += binary.PutUvarint(b[n:], uint64(value))
	if n > maxRefsBytes {
		panic("remotewrite: a table of more than 2^28 symbols")
	}
	return numberedRefs{text: binary.LittleEndian.Uint64(b[:]), bytes: uint32(n)}
}

// appendEnd appends what is behind the samples.
func (m *messageV2) appendEnd(dst []byte, s *Series) []byte {
	for _, r := range s.Records {
		dst = append(appendHead(dst, wire.TagV2SeriesHistogram, len(r.Value)), r.Value...)
	}
	for _, b := range s.Blocks {
		dst = wire.AppendBlock(dst, b.First, b.Bytes)
	}
	return m.appendMetadata(dst)
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

// samplesBytes is what appendSamples appends.
func samplesBytes(ss []mcache.Sample, starts []int64, shape shape) (n int) {
	if shape != irregular {
		return regularBytes * len(ss)
	}
	for i, x := range ss {
		n += 1 + sized(sampleBytes(x)+startBytes(starts, i))
	}
	return n
}

// appendSamples appends Sample messages, which are the same field of a series
// and the same message in both protocols, but for start times, of which 1.0 has
// none. A value is left out only if all its bits are zero: -0 equals 0, but is
// another value.
func appendSamples(dst []byte, ss []mcache.Sample, starts []int64, shape shape) []byte {
	if shape != irregular {
		for _, x := range ss {
			dst = appendRegular(dst, x)
		}
		return dst
	}
	for i, x := range ss {
		start := startBytes(starts, i)
		dst = appendSample(appendHead(dst, wire.TagV1SeriesSample, sampleBytes(x)+start), x)
		if start > 0 {
			dst = binary.AppendUvarint(append(dst, wire.TagSampleStart), uint64(starts[i]))
		}
	}
	return dst
}

// AppendSample appends a sample as a field of its series, which is the same in both
// protocols.
func AppendSample(dst []byte, x mcache.Sample) []byte {
	one := [1]mcache.Sample{x}
	return appendSamples(dst, one[:], nil, shapeOf(one[:]))
}

func appendSample(dst []byte, x mcache.Sample) []byte {
	if x.V != 0 {
		dst = append(dst, wire.TagSampleValue)
		dst = binary.LittleEndian.AppendUint64(dst, x.V)
	}
	if x.T != 0 {
		dst = append(dst, wire.TagSampleTime)
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
		n += 1 + wire.UvarintBytes(uint64(x.T))
	}
	return n
}

// startBytes is what the start time of sample i takes.
func startBytes(starts []int64, i int) int {
	if i >= len(starts) || starts[i] == 0 {
		return 0
	}
	return 1 + wire.UvarintBytes(uint64(starts[i]))
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
		t, next := wire.Tag(b, i)
		if next < 0 {
			return b, nil
		}
		if next = wire.Skip(b, t, next); next < 0 {
			return b, nil
		}
		if t == wire.TagHistogramStart {
			return b[:i], b[next:]
		}
		i = next
	}
	return b, nil
}

func labelBytes(l mcache.Label) int { return 1 + sized(len(l.Name)) + 1 + sized(len(l.Value)) }

// sized is n and the length before it.
func sized(n int) int { return wire.UvarintBytes(uint64(n)) + n }

func appendHead(dst []byte, tag byte, n int) []byte {
	return binary.AppendUvarint(append(dst, tag), uint64(n))
}

func appendString(dst []byte, tag byte, s string) []byte {
	return append(appendHead(dst, tag, len(s)), s...)
}
