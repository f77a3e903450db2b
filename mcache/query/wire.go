package query

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// What members say to each other. A question is JSON: it is small, and whoever
// debugs it can read it. What is not sure to be UTF-8 is bytes in it. Its answer
// is
//
//	magic    wireMagic
//	frames   kind, a byte; length, uvarint; content
//
// of these kinds:
//
//	H  what the member lacks: Gone, Uncovered, varints
//	S  series: its labels, then a Snapshot, or nothing where samples are not wanted
//	T  a text: a name or value
//	G  a group of a plan: its labels, rows, see frames.putGroup
//	D  digests of series, see frames.putDigests
//	J  JSON
//	X  exemplars of a series
//	E  an error, and the end: its kind, a byte; its text
//	Z  the end: without it, or E, the answer broke off
//
// Labels are a count, uvarint, and then names and values in turn, each of them a
// number, uvarint: 0 a text follows, which is its length, uvarint, and itself; 1
// the same, and it is kept; 2 + i the i-th that was kept in this answer.

// wireVersion is part of a question.
const wireVersion = 2

// wireMagic is how an answer begins, whatever the version of the question.
const wireMagic = "mcr\x01"

const (
	frameMissing   = 'H'
	frameSeries    = 'S'
	frameText      = 'T'
	frameGroup     = 'G'
	frameDigests   = 'D'
	frameJSON      = 'J'
	frameExemplars = 'X'
	frameError     = 'E'
	frameEnd       = 'Z'
)

const (
	// maxFrame bounds a frame: of samples that is the largest series that can be sent.
	maxFrame = 256 << 20
	// maxSymbols and maxSymbolBytes bound what is kept of labels during an answer.
	maxSymbols     = 64 << 10
	maxSymbolBytes = 256
)

// Kinds of errors that a member sends.
const (
	errorOther     = iota // the member is done without
	errorSeries           // more series than a selector may match: the query fails
	errorSamples          // more samples than a query may hold: likewise
	errorNotPlan          // the plan is for the engine
	errorNotSpoken        // the version, or what is asked, is not known
)

var errWire = errors.New("not an answer of a member")

// frames writes an answer.
type frames struct {
	w       io.Writer
	buf     []byte // frames that have not been written
	frame   []byte // the content of the one that is made
	symbols map[string]uint64
	bytes   int // written
}

func newFrames(w io.Writer) *frames {
	return &frames{w: w, buf: append(make([]byte, 0, flushBytes+4<<10), wireMagic...), symbols: map[string]uint64{}}
}

// end ends the frame that is made.
func (f *frames) end(kind byte) error {
	if len(f.frame) > maxFrame {
		return fmt.Errorf("a part of the answer is too large: %d bytes, at most %d", len(f.frame), maxFrame)
	}
	f.buf = binary.AppendUvarint(append(f.buf, kind), uint64(len(f.frame)))
	f.buf = append(f.buf, f.frame...)
	f.frame = f.frame[:0]
	if len(f.buf) >= flushBytes {
		return f.flush()
	}
	return nil
}

func (f *frames) flush() error {
	n, err := f.w.Write(f.buf)
	f.bytes += n
	f.buf = f.buf[:0]
	return err
}

func (f *frames) appendString(s string) {
	if i, ok := f.symbols[s]; ok {
		f.frame = binary.AppendUvarint(f.frame, i)
		return
	}
	kind := byte(0)
	if len(f.symbols) < maxSymbols && len(s) <= maxSymbolBytes {
		f.symbols[s] = uint64(len(f.symbols)) + 2
		kind = 1
	}
	f.frame = binary.AppendUvarint(append(f.frame, kind), uint64(len(s)))
	f.frame = append(f.frame, s...)
}

func (f *frames) appendLabels(ls labels.Labels) {
	f.frame = binary.AppendUvarint(f.frame, uint64(ls.Len()))
	ls.Range(func(l labels.Label) {
		f.appendString(l.Name)
		f.appendString(l.Value)
	})
}

func (f *frames) putMissing(m Missing) error {
	f.frame = binary.AppendVarint(f.frame, m.Gone)
	f.frame = binary.AppendVarint(f.frame, m.Uncovered)
	return f.end(frameMissing)
}

// putSeries writes a series; s is nil where samples are not wanted.
func (f *frames) putSeries(ls labels.Labels, s *mcache.Snapshot) error {
	f.appendLabels(ls)
	if s != nil {
		f.frame = s.Append(f.frame)
	}
	return f.end(frameSeries)
}

func (f *frames) putText(s string) error {
	f.frame = append(f.frame, s...)
	return f.end(frameText)
}

// fail ends the answer with an error.
func (f *frames) fail(kind byte, err error) error {
	const maxErrorBytes = 4 << 10
	text := err.Error()
	f.frame = append(append(f.frame[:0], kind), text[:min(len(text), maxErrorBytes)]...)
	if err := f.end(frameError); err != nil {
		return err
	}
	return f.flush()
}

// finish ends the answer.
func (f *frames) finish() error {
	if err := f.end(frameEnd); err != nil {
		return err
	}
	return f.flush()
}

// frameReader reads an answer.
type frameReader struct {
	r       *bufio.Reader
	left    int64 // bytes that may come
	frame   []byte
	symbols []string
	builder labels.ScratchBuilder
}

func newFrameReader(r io.Reader, maxBytes int64) (*frameReader, error) {
	f := &frameReader{r: bufio.NewReaderSize(r, 32<<10), left: maxBytes}
	var magic [len(wireMagic)]byte
	if _, err := io.ReadFull(f.r, magic[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errWire, err)
	}
	if string(magic[:]) != wireMagic {
		return nil, fmt.Errorf("%w: it begins with %q", errWire, magic[:])
	}
	return f, nil
}

// next reads a frame. Its content is valid until the next one is read.
func (f *frameReader) next() (kind byte, content []byte, err error) {
	kind, err = f.r.ReadByte()
	if err == nil {
		var n uint64
		if n, err = binary.ReadUvarint(f.r); err == nil {
			if n > maxFrame || int64(n) > f.left {
				return 0, nil, fmt.Errorf("%w: a frame of %d bytes where at most %d may come", errWire, n, min(maxFrame, f.left))
			}
			f.left -= int64(n) + 2
			if err = f.fill(int(n)); err == nil {
				return kind, f.frame, nil
			}
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, nil, fmt.Errorf("the answer breaks off: %w", err)
}

// fill reads a content, for which it has room as it comes and not as was said.
func (f *frameReader) fill(n int) error {
	const step = 1 << 20
	f.frame = f.frame[:0]
	for len(f.frame) < n {
		at, more := len(f.frame), min(step, n-len(f.frame))
		if cap(f.frame)-at < more {
			f.frame = append(make([]byte, 0, max(2*at, at+more)), f.frame...)
		}
		f.frame = f.frame[:at+more]
		if _, err := io.ReadFull(f.r, f.frame[at:]); err != nil {
			return err
		}
	}
	return nil
}

// takeUvarint takes a number from a content.
func takeUvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: a frame breaks off", errWire)
	}
	return v, b[n:], nil
}

func takeVarint(b []byte) (int64, []byte, error) {
	v, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: a frame breaks off", errWire)
	}
	return v, b[n:], nil
}

func takeFixed(b []byte) (uint64, []byte, error) {
	if len(b) < 8 {
		return 0, nil, fmt.Errorf("%w: a frame breaks off", errWire)
	}
	return binary.LittleEndian.Uint64(b), b[8:], nil
}

func (f *frameReader) takeString(b []byte) (string, []byte, error) {
	kind, b, err := takeUvarint(b)
	if err != nil {
		return "", nil, err
	}
	if kind > 1 {
		if kind-2 >= uint64(len(f.symbols)) {
			return "", nil, fmt.Errorf("%w: a text that did not come", errWire)
		}
		return f.symbols[kind-2], b, nil
	}
	n, b, err := takeUvarint(b)
	if err != nil || n > uint64(len(b)) {
		return "", nil, fmt.Errorf("%w: a text breaks off", errWire)
	}
	s := string(b[:n])
	if kind == 1 {
		if len(f.symbols) >= maxSymbols || len(s) > maxSymbolBytes {
			return "", nil, fmt.Errorf("%w: too much is kept", errWire)
		}
		f.symbols = append(f.symbols, s)
	}
	return s, b[n:], nil
}

func (f *frameReader) takeLabels(b []byte) (labels.Labels, []byte, error) {
	n, b, err := takeUvarint(b)
	if err != nil || n > uint64(len(b)/2) {
		return labels.Labels{}, nil, fmt.Errorf("%w: labels break off", errWire)
	}
	f.builder.Reset()
	for range n {
		var name, value string
		if name, b, err = f.takeString(b); err != nil {
			return labels.Labels{}, nil, err
		}
		if value, b, err = f.takeString(b); err != nil {
			return labels.Labels{}, nil, err
		}
		f.builder.Add(name, value)
	}
	f.builder.Sort()
	return f.builder.Labels(), b, nil
}

func takeMissing(b []byte) (m Missing, err error) {
	if m.Gone, b, err = takeVarint(b); err != nil {
		return m, err
	}
	m.Uncovered, _, err = takeVarint(b)
	return m, err
}

// appendFloats appends a list of floats: twice how many, and their bits, or one
// more than that and no bits if all are zero.
func appendFloats(b []byte, list []float64) []byte {
	zero := true
	for _, v := range list {
		if math.Float64bits(v) != 0 {
			zero = false
			break
		}
	}
	n := uint64(len(list))
	if zero {
		return binary.AppendUvarint(b, n<<1|1)
	}
	b = binary.AppendUvarint(b, n<<1)
	for _, v := range list {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

// takeFloats takes a list of at most so many floats, and says how many they are
// if all are zero, for which the list is nil.
func takeFloats(b []byte, most int) (list []float64, zeros int, rest []byte, err error) {
	n, b, err := takeUvarint(b)
	zero := n&1 != 0
	if n >>= 1; err != nil || n > uint64(most) || !zero && n > uint64(len(b)/8) {
		return nil, 0, nil, fmt.Errorf("%w: a list breaks off", errWire)
	}
	if zero {
		return nil, int(n), b, nil
	}
	list = make([]float64, n)
	for i := range list {
		list[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return list, 0, b[8*n:], nil
}
