package query

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
)

// matrixReader reads a range query's answer series by series, as it comes. What
// it hands on of points is their text, which it has checked and not translated:
// to parse the numbers of 95 MB costs what the split saves.
//
// It reads what servers of Prometheus' API write: any order of the members,
// white space between them, none within points.
type matrixReader struct {
	r    io.Reader
	grid gridOf
	span span

	buf      []byte
	pos, end int
	err      error // of r

	at       matrixSeries
	expected separators // of the span
	anyTime  bool       // points are of no steps: there may be any number, and no runs of them
	// grown is told how much room the text of a series has, histogram by histogram,
	// and of points of any time float by float.
	grown    func(room int) error
	most     int // of the text that value appends to
	builder  labels.ScratchBuilder
	inData   bool // the list of series stands in an object that has more members
	begun    bool
	done     bool
	warnings []string
	infos    []string
}

// matrixSeries is one of an answer's. It is valid until the next is read.
type matrixSeries struct {
	labels     labels.Labels
	floats     []byte // [1,"2"],[3,"4"]
	histograms []byte
}

const (
	readBytes = 64 << 10
	// storeLabelBytes are more than a label takes beside its text, until it is one of a set.
	storeLabelBytes = 32
	// maxNesting of what is skipped.
	maxNesting = 100
	// maxStoreNotes bounds the warnings and infos of an answer.
	maxStoreNotes = 1000
	// maxStoreText bounds what is held before it is taken from a loan: the labels of
	// a series, a histogram, all warnings, all infos.
	maxStoreText = 1 << 20
)

// errLongText is of an answer in which one of these has more.
var errLongText = notMatrix(fmt.Sprintf("labels, a histogram or notes of more than %d bytes", maxStoreText))

// grownBy has taken what the text of a series grows by.
func grownBy(take func(bytes int64) error) func(room int) error {
	taken := 0
	return func(room int) (err error) {
		if room > taken {
			err = take(int64(room - taken))
			taken = room
		}
		return err
	}
}

// errNotMatrix is why an answer is not one.
var errNotMatrix = errors.New("its answer is not JSON as Prometheus writes it")

func notMatrix(what string) error { return fmt.Errorf("%w: %s", errNotMatrix, what) }

func newMatrixReader(r io.Reader, g gridOf, s span) *matrixReader {
	return &matrixReader{r: r, grid: g, span: s, expected: separators{grid: g, from: s.from}, buf: make([]byte, readBytes)}
}

// fill reads more behind what is not consumed. False means that there is no more.
func (m *matrixReader) fill() bool {
	if m.err != nil {
		return false
	}
	if m.pos > 0 {
		copy(m.buf, m.buf[m.pos:m.end])
		m.end -= m.pos
		m.pos = 0
	}
	if m.end == len(m.buf) {
		return false // a token as long as the buffer is none
	}
	for {
		n, err := m.r.Read(m.buf[m.end:])
		m.end += n
		m.err = err
		if n > 0 || err != nil {
			return n > 0
		}
	}
}

// drain reads what is behind an answer: the connection is kept for others if there
// is no more.
func (m *matrixReader) drain() {
	for m.err == nil {
		m.pos = m.end
		m.fill()
	}
}

// peek is the next byte, 0 at the end.
func (m *matrixReader) peek() byte {
	if m.pos == m.end && !m.fill() {
		return 0
	}
	return m.buf[m.pos]
}

// skip is peek behind white space.
func (m *matrixReader) skip() byte {
	for {
		switch c := m.peek(); c {
		case ' ', '\n', '\r', '\t':
			m.pos++
		default:
			return c
		}
	}
}

// broken is what is wrong where the next byte is not what it should be.
func (m *matrixReader) broken(what string) error {
	if m.pos == m.end && m.err != nil {
		if m.err == io.EOF {
			return fmt.Errorf("its answer breaks off: %w", io.ErrUnexpectedEOF)
		}
		return fmt.Errorf("its answer breaks off: %w", m.err)
	}
	return notMatrix(what)
}

func (m *matrixReader) want(c byte) error {
	if m.skip() != c {
		return m.broken(fmt.Sprintf("there is no %q where it should be", c))
	}
	m.pos++
	return nil
}

// text appends the string that stands next to dst.
func (m *matrixReader) text(dst []byte) ([]byte, error) {
	if err := m.want('"'); err != nil {
		return nil, err
	}
	start, escaped := len(dst), false
	for {
		if m.pos == m.end && !m.fill() {
			return nil, m.broken("a string")
		}
		b := m.buf[m.pos:m.end]
		n := bytes.IndexAny(b, `"\`)
		if n >= 0 {
			b = b[:n]
		}
		dst = append(dst, b...)
		m.pos += len(b)
		if len(dst)-start > maxStoreText {
			return nil, errLongText
		}
		if n < 0 {
			continue
		}
		m.pos++
		if m.buf[m.pos-1] == '"' {
			break
		}
		escaped = true
		c := m.peek()
		if c == 0 {
			return nil, m.broken("a string")
		}
		dst = append(dst, '\\', c)
		m.pos++
	}
	if slices.ContainsFunc(dst[start:], func(c byte) bool { return c < ' ' }) { // each is escaped in JSON
		return nil, notMatrix("a string")
	}
	if !escaped {
		return dst, nil
	}
	// Bytes that are no UTF-8 pass through, as Prometheus writes them.
	if !utf8.Valid(dst[start:]) {
		return nil, notMatrix("an escaped string that is not UTF-8")
	}
	var s string
	if err := json.Unmarshal([]byte(`"`+string(dst[start:])+`"`), &s); err != nil {
		return nil, notMatrix("a string")
	}
	return append(dst[:start], s...), nil
}

// members calls f with each member of an object, whose value f reads. f may stop
// it for now; moreMembers goes on then.
func (m *matrixReader) members(f func(key string) (stop bool, err error)) (stopped bool, err error) {
	if err := m.want('{'); err != nil {
		return false, err
	}
	if m.skip() == '}' {
		m.pos++
		return false, nil
	}
	if stop, err := m.oneMember(f); stop || err != nil {
		return stop, err
	}
	return m.moreMembers(f)
}

// moreMembers is members from behind a member on.
func (m *matrixReader) moreMembers(f func(key string) (stop bool, err error)) (stopped bool, err error) {
	for {
		switch m.skip() {
		case '}':
			m.pos++
			return false, nil
		case ',':
			m.pos++
		default:
			return false, m.broken("an object")
		}
		if stop, err := m.oneMember(f); stop || err != nil {
			return stop, err
		}
	}
}

func (m *matrixReader) oneMember(f func(key string) (stop bool, err error)) (stop bool, err error) {
	m.skip()
	key, err := m.text(nil)
	if err != nil {
		return false, err
	}
	if err := m.want(':'); err != nil {
		return false, err
	}
	return f(string(key))
}

// keptValue appends the text of any value to dst, which is not nil.
func (m *matrixReader) keptValue(dst []byte) (_ []byte, err error) {
	m.most = len(dst) + maxStoreText
	if dst, err = m.value(dst, 0); err == nil && len(dst) == m.most {
		err = errLongText
	}
	return dst, err
}

// value skips any value, and appends its text to dst if that is not nil, as far as
// there is room.
func (m *matrixReader) value(dst []byte, depth int) ([]byte, error) {
	if depth > maxNesting {
		return nil, notMatrix("too deep")
	}
	keep := dst != nil
	put := func(c byte) {
		if keep && len(dst) < m.most {
			dst = append(dst, c)
		}
		m.pos++
	}
	var err error
	switch c := m.skip(); c {
	case '{', '[':
		put(c)
		closing := c + 2 // in ASCII
		for n := 0; ; n++ {
			next := m.skip()
			if next == closing {
				put(next)
				return dst, nil
			}
			if n > 0 {
				if next != ',' {
					return nil, m.broken("a list")
				}
				put(next)
				m.skip()
			}
			if c == '{' {
				if dst, err = m.value(dst, depth+1); err != nil {
					return nil, err
				}
				if m.skip() != ':' {
					return nil, m.broken("an object")
				}
				put(':')
			}
			if dst, err = m.value(dst, depth+1); err != nil {
				return nil, err
			}
		}
	case '"':
		put(c)
		for {
			switch c := m.peek(); {
			case c < ' ':
				return nil, m.broken("a string")
			case c == '"':
				put(c)
				return dst, nil
			case c == '\\':
				put(c)
				if m.peek() == 0 {
					return nil, m.broken("a string")
				}
				put(m.buf[m.pos])
			default:
				put(c)
			}
		}
	default:
		n := 0
		for ; literalByte[m.peek()]; n++ {
			put(m.buf[m.pos])
		}
		if n == 0 {
			return nil, m.broken("a value")
		}
		return dst, nil
	}
}

// literalByte has the bytes of numbers, of true, false and null, of NaN and Inf.
var literalByte = func() (t [256]bool) {
	for _, c := range "0123456789+-.eEtrufalsnINf" {
		t[c] = true
	}
	return t
}()

// begin reads up to the first series.
func (m *matrixReader) begin() error {
	m.begun = true
	stopped, err := m.members(m.member)
	if err == nil && !stopped {
		err = notMatrix("there is no list of series")
	}
	return err
}

// member reads a member of the answer. It stops at the list of series.
func (m *matrixReader) member(key string) (stop bool, err error) {
	switch key {
	case "status":
		return false, m.wantText("success")
	case "data":
		m.inData = true
		stop, err := m.members(m.dataMember)
		m.inData = stop
		return stop, err
	case "warnings":
		m.warnings, err = m.notes()
	case "infos":
		m.infos, err = m.notes()
	default:
		_, err = m.value(nil, 0)
	}
	return false, err
}

func (m *matrixReader) dataMember(key string) (stop bool, err error) {
	switch key {
	case "resultType":
		return false, m.wantText("matrix")
	case "result":
		if m.done {
			return false, notMatrix("two lists of series")
		}
		return true, m.want('[')
	default:
		_, err = m.value(nil, 0)
		return false, err
	}
}

func (m *matrixReader) wantText(want string) error {
	m.skip()
	got, err := m.text(nil)
	if err == nil && string(got) != want {
		err = notMatrix(fmt.Sprintf("%.30q where %q should be", got, want))
	}
	return err
}

// notes reads a list of strings, or null.
func (m *matrixReader) notes() ([]string, error) {
	raw, err := m.keptValue([]byte{})
	if err != nil {
		return nil, err
	}
	var notes []string
	if err := json.Unmarshal(raw, &notes); err != nil {
		return nil, notMatrix("its warnings")
	}
	return notes[:min(len(notes), maxStoreNotes)], nil
}

// next reads a series. It returns io.EOF behind the last, when the rest of the
// answer has been read as well.
func (m *matrixReader) next() (*matrixSeries, error) {
	if m.done {
		return nil, io.EOF
	}
	first := !m.begun
	if first {
		if err := m.begin(); err != nil {
			return nil, err
		}
	}
	switch c := m.skip(); {
	case c == ']':
		m.pos++
		return nil, m.finish()
	case !first && c == ',':
		m.pos++
	case !first:
		return nil, m.broken("the list of series")
	}
	m.at = matrixSeries{floats: m.at.floats[:0], histograms: m.at.histograms[:0]}
	poison(m.at.floats)
	poison(m.at.histograms)
	if _, err := m.members(m.seriesMember); err != nil {
		return nil, err
	}
	return &m.at, nil
}

// finish reads what comes behind the series.
func (m *matrixReader) finish() error {
	m.done = true
	if m.inData {
		if _, err := m.moreMembers(m.dataMember); err != nil {
			return err
		}
	}
	if stopped, err := m.moreMembers(m.member); stopped || err != nil {
		if err == nil {
			err = notMatrix("two lists of series")
		}
		return err
	}
	return io.EOF
}

func (m *matrixReader) seriesMember(key string) (stop bool, err error) {
	switch key {
	case "metric":
		m.builder.Reset()
		size := 0
		_, err = m.members(func(name string) (bool, error) {
			m.skip()
			value, err := m.text(nil)
			m.builder.Add(name, string(value))
			if size += len(name) + len(value) + storeLabelBytes; err == nil && size > maxStoreText {
				err = errLongText
			}
			return false, err
		})
		m.builder.Sort()
		m.at.labels = m.builder.Labels()
	case "values":
		m.at.floats, err = m.points(m.at.floats[:0], floatPoints)
	case "histograms":
		m.at.histograms, err = m.points(m.at.histograms[:0], histogramPoints)
	default:
		_, err = m.value(nil, 0)
	}
	return false, err
}
