package query

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Points of floats are nearly all of a long answer, and nearly all of them are
// written as Prometheus writes them, one for each step:
//
//	[1795208700,"1.25"],[1795208715,"1.5"],[1795208730,"1.5"]]
//	             ├──┤                  ├─┤
//	                 ├───────────────┤    ├───────────────┤       a separator
//
// What stands between two values is known before it comes. So a run of such
// points is checked by comparing each separator, as three words, with the one
// that the next step has, and by looking at the bytes of values eight at a time
// for one that is neither digit nor point. The run is then copied at once.
//
// Whatever is not as expected (a step without a point, a time that is written
// otherwise, the end of the buffer, what is no point at all) ends a run before
// the point that has it. That point is read byte by byte, and what it is not is
// what the answer is refused for: a run takes nothing that this would not.
//
// Cost: 15 to 35 ns a point, by the length of its number; byte by byte it is 60 to
// 130 ns (BenchmarkMatrixReader).

// separator is what stands between the value of the step before and that of a
// step: "],[1795208715," or "],[1795208715.123," with a quote at both ends. A step
// whose seconds have not ten digits has none.
type separator struct {
	a, b uint64 // the first 16 bytes
	c    uint32 // the next four, if there are as many
	n    uint32 // how many there are: 0, 16 or 20
}

const (
	shortSeparator = len(`"],[1795208715,"`)
	longSeparator  = len(`"],[1795208715.123,"`)
	// separatorBytes is what an answer of many steps has of them, for each.
	separatorBytes = 24
)

// tenDigits are the times, in ms, whose seconds have as many.
const (
	tenDigitsFrom = 1_000_000_000_000
	tenDigitsTo   = 10_000_000_000_000
)

// separatorOf is that before the value of a time.
func separatorOf(ms int64) (s separator) {
	if ms < tenDigitsFrom || ms >= tenDigitsTo {
		return s
	}
	var text [numberBytes + 8]byte
	b := append(appendTime(append(text[:0], `"],[`...), ms), `,"`...)
	s.a, s.b, s.n = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), uint32(len(b))
	if len(b) == longSeparator {
		s.c = binary.LittleEndian.Uint32(b[16:])
	}
	return s
}

// stands reports that b, which is long enough for any, begins with it.
func (s *separator) stands(b []byte) bool {
	return binary.LittleEndian.Uint64(b) == s.a && binary.LittleEndian.Uint64(b[8:]) == s.b &&
		(s.n == uint32(shortSeparator) || s.n != 0 && binary.LittleEndian.Uint32(b[16:]) == s.c)
}

// put writes it to the beginning of b, which has room for a long one, and returns how
// long it is.
func (s *separator) put(b []byte) int {
	binary.LittleEndian.PutUint64(b, s.a)
	binary.LittleEndian.PutUint64(b[8:], s.b)
	binary.LittleEndian.PutUint32(b[16:], s.c)
	return int(s.n)
}

// separators are those of the steps of a grid, made as far as they were asked for.
type separators struct {
	grid gridOf
	from int // the first step
	list []separator
}

func (x *separators) of(step int) *separator {
	if i := step - x.from; i < len(x.list) {
		return &x.list[i]
	}
	return x.upTo(step)
}

func (x *separators) upTo(step int) *separator {
	for x.from+len(x.list) <= step {
		x.list = append(x.list, separatorOf(x.grid.time(x.from+len(x.list))))
	}
	return &x.list[step-x.from]
}

// run reports how much of b is points of floats as they are expected from a step
// on, and the step behind the last of them. b begins with the last two bytes of
// the point before.
func (m *matrixReader) run(b []byte, step int) (n, next int) {
	n = 2
	for ; step < m.span.to && len(b)-n >= longSeparator; step++ {
		s := m.expected.of(step)
		if !s.stands(b[n-2 : n-2+longSeparator]) {
			break
		}
		end := valueEnd(b, n-2+int(s.n))
		if end == 0 || end+1 == len(b) || b[end+1] != ']' {
			break
		}
		n = end + 2
	}
	// The one byte that valueEnd takes for a part of a number and that is none:
	// its point is read again, and refused.
	if slash := bytes.IndexByte(b[2:n], '/'); slash >= 0 {
		n = 2 + bytes.LastIndexByte(b[2:2+slash], ']') + 1
	}
	return n - 2, step
}

// valueEnd is where the number at p ends, which is not empty and has a quote
// behind it; 0 if there is none that is short enough. A slash passes for a digit.
func valueEnd(b []byte, p int) int {
	for q := p; len(b)-q >= 8 && q-p < maxPointText/2; {
		w := binary.LittleEndian.Uint64(b[q:])
		other := outsideNumerals(w)
		if other == 0 {
			q += 8
			continue
		}
		q += bits.TrailingZeros64(other) / 8
		if b[q] == '"' {
			if q == p {
				return 0
			}
			return q
		}
		if !literalByte[b[q]] {
			return 0
		}
		q++ // a sign, an exponent, Inf or NaN
	}
	return 0
}

// outsideNumerals has the highest bit of the bytes of a word that are not from '.' to
// '9': digits, points and slashes are.
func outsideNumerals(w uint64) uint64 {
	low := w &^ highest
	return ^((low + (0x80-'.')*ones) &^ (low + (0x80-'9'-1)*ones) &^ w) & highest
}

// points appends the text of a list of points without its brackets. Their
// times must be those of the steps that were asked for.
func (m *matrixReader) points(dst []byte, k pointKind) ([]byte, error) {
	if err := m.want('['); err != nil {
		return nil, err
	}
	next, end := m.grid.time(m.span.from), m.grid.time(m.span.to-1)
	for n := 0; ; n++ {
		switch c := m.peek(); {
		case c == ']':
			m.pos++
			return dst, nil
		case n > 0 && c == ',':
			dst = append(dst, ',')
			m.pos++
		case n > 0:
			return nil, m.broken("a list of points")
		}
		var t int64
		var err error
		if k == histogramPoints {
			dst, t, err = m.histogram(dst)
		} else {
			dst, t, err = m.float(dst)
		}
		if err != nil {
			return nil, err
		}
		if t < next || t > end || t != next && (t-m.grid.start)%m.grid.step != 0 {
			return nil, &wholeError{fmt.Errorf("it answers for other steps than those that were asked for: %d", t)}
		}
		next = t + m.grid.step
		if m.grown != nil && (k == histogramPoints || m.anyTime) {
			if err := m.grown(cap(dst)); err != nil {
				return nil, err
			}
		}
		if k == floatPoints && !m.anyTime {
			run, step := m.run(m.buf[m.pos-2:m.end], int((next-m.grid.start)/m.grid.step))
			dst = append(dst, m.buf[m.pos:m.pos+run]...)
			m.pos += run
			next = m.grid.time(step)
		}
	}
}

// maxPointText is more than a point of a float takes.
const maxPointText = 128

// float appends the text of one point.
func (m *matrixReader) float(dst []byte) (_ []byte, ms int64, err error) {
	for m.end-m.pos < maxPointText && m.fill() {
	}
	b := m.buf[m.pos:min(m.end, m.pos+maxPointText)]
	n, ms := timeText(b)
	if n == 0 || n+2 >= len(b) || b[n] != ',' || b[n+1] != '"' {
		return nil, 0, m.brokenPoint(b)
	}
	i := n + 2
	for i < len(b) && literalByte[b[i]] {
		i++
	}
	if i == n+2 || i+1 >= len(b) || b[i] != '"' || b[i+1] != ']' {
		return nil, 0, m.brokenPoint(b)
	}
	m.pos += i + 2
	return append(dst, b[:i+2]...), ms, nil
}

// brokenPoint is what is wrong with a point, of which there may be a part.
func (m *matrixReader) brokenPoint(b []byte) error {
	if len(b) < maxPointText && m.err != nil {
		m.pos = m.end
		return m.broken("a point")
	}
	return notMatrix("a point")
}

// histogram appends the text of one point.
func (m *matrixReader) histogram(dst []byte) (_ []byte, ms int64, err error) {
	for m.end-m.pos < maxPointText && m.fill() {
	}
	b := m.buf[m.pos:m.end]
	n, ms := timeText(b)
	if n == 0 || n >= len(b) || b[n] != ',' {
		return nil, 0, m.brokenPoint(b)
	}
	dst = append(dst, b[:n+1]...)
	m.pos += n + 1
	if m.peek() != '{' {
		return nil, 0, m.broken("a histogram")
	}
	if dst, err = m.keptValue(dst); err != nil {
		return nil, 0, err
	}
	if m.peek() != ']' {
		return nil, 0, m.broken("a point")
	}
	m.pos++
	return append(dst, ']'), ms, nil
}

// timeText reads [1795208700.123 and returns how long that is, 0 if it is not
// that, and the time in ms.
func timeText(b []byte) (n int, ms int64) {
	if len(b) == 0 || b[0] != '[' {
		return 0, 0
	}
	i, negative := 1, false
	if i < len(b) && b[i] == '-' {
		negative = true
		i++
	}
	digits := i
	if len(b) >= i+8 {
		if v, ok := parseEightDigits(binary.LittleEndian.Uint64(b[i:])); ok {
			ms = int64(v)
			i += 8
		}
	}
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		ms = ms*10 + int64(b[i]-'0')
	}
	const maxDigits = 15
	if i == digits || i-digits > maxDigits {
		return 0, 0
	}
	ms *= 1000
	if i < len(b) && b[i] == '.' {
		i++
		for scale := int64(100); scale > 0 && i < len(b) && b[i] >= '0' && b[i] <= '9'; scale /= 10 {
			ms += int64(b[i]-'0') * scale
			i++
		}
	}
	if negative {
		ms = -ms
	}
	return i, ms
}
