package query

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"unsafe"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"mcached/mcache"
)

// An extent is what the store said of extentSteps neighbouring steps, or of a
// run of them. As a blob:
//
//	CRC-32C of all that follows (4) | version (1) | first step, and the one behind
//	the last, that are known (1, 1) | infos: count, then length and text of each |
//	snappy of the series, in the order of their labels
//
//	series      labels: count, then length and text of each name and value |
//	            floats | histograms
//	floats      0 (1): none
//	            1 (1): length, an XOR chunk whose times are numbers of steps
//	            2 (1): texts, of numbers that Prometheus would write otherwise
//	            3 (1): steps | length, as many numbers as they are written
//	            (upstream_digits.go)
//	steps       count | the first (1) | 0 (1) if one follows the other, else
//	            1 (1) and a bit for each step of the extent (16)
//	histograms  texts
//	texts       count, then for each: step (1), length, text
//
// Counts and lengths are uvarints. An extent without series is knowledge, too.

const (
	extentSteps   = 128
	extentVersion = 2

	maxExtentInfos     = 20
	maxExtentInfoBytes = 8 << 10
)

const (
	noFloats = iota
	xorFloats
	textFloats
	numeralFloats
)

// extent is one that was read.
type extent struct {
	lo, hi int // of its steps, those that it knows; hi exclusive
	infos  []string
	body   []byte // series
}

// has reports whether it knows a step, which is one of its numbers.
func (x *extent) has(step int) bool { return x != nil && x.lo <= step && step < x.hi }

// errExtent says that a blob is none.
var errExtent = errors.New("not an extent")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendBlob appends it as a blob.
func (x *extent) appendBlob(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, extentVersion, byte(x.lo), byte(x.hi))
	dst = binary.AppendUvarint(dst, uint64(len(x.infos)))
	for _, info := range x.infos {
		dst = appendSized(dst, info)
	}
	n := len(dst)
	dst = slices.Grow(dst, snappy.MaxEncodedLen(len(x.body)))
	dst = dst[:n+len(snappy.Encode(dst[n:cap(dst)], x.body))]
	binary.LittleEndian.PutUint32(dst[start:], crc32.Checksum(dst[start+4:], castagnoli))
	return dst
}

// maxExtentBytes bounds the series of an extent: 64 bytes each of the points of
// 4,000 series, labels included.
const maxExtentBytes = 32 << 20

// MaxRememberedBytes is more than a value takes that is put into a Remembers.
const MaxRememberedBytes = maxExtentBytes + maxExtentBytes/6 + 2*maxExtentInfoBytes

// openExtent reads a blob. It makes no use of it later. Series are read into room, if
// that has enough.
func openExtent(b, room []byte) (*extent, error) {
	if len(b) < 7 || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) || b[4] != extentVersion {
		return nil, errExtent
	}
	x := &extent{lo: int(b[5]), hi: int(b[6])}
	r := textReader{b[7:], nil}
	for range r.count(maxExtentInfos) {
		x.infos = append(x.infos, string(r.text()))
	}
	if n, err := snappy.DecodedLen(r.b); r.err != nil || err != nil || n > maxExtentBytes || x.lo >= x.hi || x.hi > extentSteps {
		return nil, errExtent
	}
	var err error
	x.body, err = snappy.Decode(room[:cap(room)], r.b)
	return x, err
}

func appendSized[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// textReader reads counts and texts. Behind an error it reads nothing.
type textReader struct {
	b   []byte
	err error
}

func (r *textReader) count(most int) int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(most) {
		r.b, r.err = nil, errExtent
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// text is a view of what is read.
func (r *textReader) text() []byte {
	n := r.count(len(r.b))
	if n > len(r.b) { // without the count itself
		r.b, r.err = nil, errExtent
		return nil
	}
	t := r.b[:n:n]
	r.b = r.b[n:]
	return t
}

func (r *textReader) byte() byte {
	if len(r.b) == 0 {
		r.err = errExtent
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// stepText is a point: its step in the extent, and its value as JSON.
type stepText struct {
	step int
	text []byte
}

// extentSeries is a series of an extent.
type extentSeries struct {
	labels     labels.Labels
	steps      []int     // of floats
	values     []float64 // as many, if they are not one of the next two
	numerals   []numeral // as many, of text
	text       []byte
	packed     packed // numerals, without steps, until they are unpacked
	texts      []stepText
	histograms []stepText
}

// extentReader reads the series of an extent. What it returns is valid until
// the next; texts and labels are as long as the extent.
type extentReader struct {
	r       textReader
	at      extentSeries
	builder labels.ScratchBuilder
	points  chunkenc.Iterator
}

func newExtentReader(x *extent) *extentReader { return &extentReader{r: textReader{x.body, nil}} }

// next reports false behind the last.
func (x *extentReader) next() (bool, error) {
	more, err := x.nextPacked()
	if more && x.at.packed.n > 0 {
		if err = x.at.unpack(); err != nil {
			x.r.b, x.r.err = nil, err
		}
	}
	return more && err == nil, err
}

// nextPacked is next, but for numerals: it leaves them packed.
func (x *extentReader) nextPacked() (bool, error) {
	if len(x.r.b) == 0 {
		return false, x.r.err
	}
	x.builder.Reset()
	for range x.r.count(len(x.r.b)) {
		name, value := x.r.text(), x.r.text()
		x.builder.Add(unsafe.String(unsafe.SliceData(name), len(name)), unsafe.String(unsafe.SliceData(value), len(value)))
	}
	x.at.labels = x.builder.Labels()
	x.at.steps, x.at.values, x.at.numerals, x.at.texts = x.at.steps[:0], x.at.values[:0], x.at.numerals[:0], x.at.texts[:0]
	x.at.packed.n = 0
	switch x.r.byte() {
	case noFloats:
	case xorFloats:
		x.chunk(x.r.text())
	case textFloats:
		x.at.texts = x.texts(x.at.texts)
	case numeralFloats:
		x.packed()
	default:
		x.r.err = errExtent
	}
	x.at.histograms = x.texts(x.at.histograms[:0])
	return x.r.err == nil, x.r.err
}

func (x *extentReader) chunk(b []byte) {
	if len(b) < 2 { // its count
		x.r.b, x.r.err = nil, errExtent
		return
	}
	c, err := chunkenc.FromData(chunkenc.EncXOR, b)
	if err != nil {
		x.r.err = err
		return
	}
	x.points = c.Iterator(x.points)
	for x.points.Next() == chunkenc.ValFloat {
		t, v := x.points.At()
		x.at.steps, x.at.values = append(x.at.steps, int(t)), append(x.at.values, v)
	}
	if err := x.points.Err(); err != nil {
		x.r.err = err
	}
}

func (x *extentReader) texts(dst []stepText) []stepText {
	for range x.r.count(extentSteps) {
		dst = append(dst, stepText{int(x.r.byte()), x.r.text()})
	}
	return dst
}

// extentWriter writes the series of an extent, which come in the order of their labels.
type extentWriter struct {
	body []byte
	xor  xorEncoder
}

// add writes a series, if it has points.
func (w *extentWriter) add(s *extentSeries) {
	if len(s.steps)+len(s.texts)+len(s.histograms) == 0 {
		return
	}
	w.body = binary.AppendUvarint(w.body, uint64(s.labels.Len()))
	s.labels.Range(func(l labels.Label) {
		w.body = appendSized(appendSized(w.body, l.Name), l.Value)
	})
	switch {
	case len(s.texts) > 0:
		w.body = append(w.body, textFloats)
		w.texts(s.texts)
	case len(s.numerals) > 0:
		w.body = append(w.body, numeralFloats)
		w.numerals(s)
	case len(s.values) > 0:
		w.xor.reset()
		for i, v := range s.values {
			w.xor.append(mcache.Sample{T: int64(s.steps[i]), V: math.Float64bits(v)})
		}
		w.body = appendSized(append(w.body, xorFloats), w.xor.bytes())
	default:
		w.body = append(w.body, noFloats)
	}
	w.texts(s.histograms)
}

func (w *extentWriter) numerals(s *extentSeries) {
	n := len(s.steps)
	w.body = binary.AppendUvarint(w.body, uint64(n))
	if w.body = append(w.body, byte(s.steps[0])); s.steps[n-1]-s.steps[0] == n-1 {
		w.body = append(w.body, 0)
	} else {
		var bits [extentSteps / 8]byte
		for _, step := range s.steps {
			bits[step/8] |= 1 << (step % 8)
		}
		w.body = append(append(w.body, 1), bits[:]...)
	}
	at := len(w.body)
	w.body = appendNumerals(append(w.body, 0, 0), s.text, s.numerals)
	size := len(w.body) - at - 2 // as a uvarint of two bytes, whatever it is
	w.body[at], w.body[at+1] = byte(size)|0x80, byte(size>>7)
}

const _ = uint(1<<14 - 1 - extentSteps*numeralBytes)

func (w *extentWriter) texts(list []stepText) {
	w.body = binary.AppendUvarint(w.body, uint64(len(list)))
	for _, t := range list {
		w.body = appendSized(append(w.body, byte(t.step)), t.text)
	}
}

// unite is what either of two extents knows, of which young counts where both
// do; nil if together they are no run of steps.
func unite(old, young *extent) (*extent, error) {
	if young.hi < old.lo || old.hi < young.lo {
		return nil, nil
	}
	both := &extent{lo: min(old.lo, young.lo), hi: max(old.hi, young.hi), infos: slices.Clone(young.infos)}
	for _, info := range old.infos {
		if !slices.Contains(both.infos, info) {
			both.infos = append(both.infos, info)
		}
	}
	var w extentWriter
	a, b := newExtentReader(old), newExtentReader(young)
	moreA, err := a.next()
	if err != nil {
		return nil, err
	}
	moreB, err := b.next()
	for err == nil && (moreA || moreB) {
		order := 0
		switch {
		case !moreB:
			order = -1
		case !moreA:
			order = 1
		default:
			order = labels.Compare(a.at.labels, b.at.labels)
		}
		if order <= 0 {
			a.at.outside(young.lo, young.hi)
		}
		switch {
		case order < 0:
			w.add(&a.at)
		case order > 0:
			w.add(&b.at)
		default:
			w.add(a.at.with(&b.at))
		}
		if order <= 0 {
			if moreA, err = a.next(); err != nil {
				break
			}
		}
		if order >= 0 {
			moreB, err = b.next()
		}
	}
	both.body = w.body
	return both, err
}

// outside drops the points of the steps from lo to hi, which is exclusive.
func (s *extentSeries) outside(lo, hi int) {
	n := 0
	for i, step := range s.steps {
		if step < lo || step >= hi {
			s.steps[n] = step
			if len(s.numerals) > 0 {
				s.numerals[n] = s.numerals[i]
			} else {
				s.values[n] = s.values[i]
			}
			n++
		}
	}
	s.steps, s.values, s.numerals = s.steps[:n], s.values[:min(n, len(s.values))], s.numerals[:min(n, len(s.numerals))]
	inside := func(t stepText) bool { return t.step >= lo && t.step < hi }
	s.texts, s.histograms = slices.DeleteFunc(s.texts, inside), slices.DeleteFunc(s.histograms, inside)
}

// with is a series with the points of both, which have none of the same step.
func (s *extentSeries) with(o *extentSeries) *extentSeries {
	both := &extentSeries{labels: s.labels}
	first, second := s, o
	if len(s.steps) > 0 && len(o.steps) > 0 && s.steps[0] > o.steps[0] {
		first, second = o, s
	}
	// Points of one may be on both sides of the other's.
	cut, _ := slices.BinarySearch(first.steps, second.firstStep())
	both.steps = slices.Concat(first.steps[:cut], second.steps, first.steps[cut:])
	switch {
	case len(s.values)+len(o.values)+len(s.texts)+len(o.texts) == 0:
		both.text = slices.Concat(first.text, second.text)
		moved := slices.Clone(second.numerals)
		for i := range moved {
			moved[i].at += uint32(len(first.text))
		}
		both.numerals = slices.Concat(first.numerals[:cut], moved, first.numerals[cut:])
	case len(s.numerals)+len(o.numerals)+len(s.texts)+len(o.texts) == 0:
		both.values = slices.Concat(first.values[:cut], second.values, first.values[cut:])
	default:
		both.steps, both.texts = nil, byStep(slices.Concat(s.asTexts(), o.asTexts()))
	}
	both.histograms = byStep(slices.Concat(s.histograms, o.histograms))
	return both
}

func (s *extentSeries) firstStep() int {
	if len(s.steps) == 0 {
		return extentSteps
	}
	return s.steps[0]
}

// asTexts are its floats as texts.
func (s *extentSeries) asTexts() []stepText {
	if len(s.texts) > 0 {
		return s.texts
	}
	var list []stepText
	for i, step := range s.steps {
		b := make([]byte, 1, 1+numberBytes+1)
		b[0] = '"'
		list = append(list, stepText{step, append(s.appendValue(b, i), '"')})
	}
	return list
}

// appendValue appends one of its floats, of those that are no texts.
func (s *extentSeries) appendValue(b []byte, i int) []byte {
	if len(s.numerals) > 0 {
		x := s.numerals[i]
		return append(b, s.text[x.at:x.at+x.size]...)
	}
	return appendFloat(b, s.values[i])
}

func byStep(list []stepText) []stepText {
	slices.SortFunc(list, func(a, b stepText) int { return a.step - b.step })
	return list
}
