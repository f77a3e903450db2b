package query

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strconv"
	"unsafe"
)

// recordEncoder makes extents of text. It belongs to one goroutine.
type recordEncoder struct {
	c        *recall
	pieces   []*piece // in order of their steps
	expected separators

	// Of a series, by steps of the query: floats are either numerals or points.
	steps              []int
	numerals           []numeral
	points, histograms []stepText
	at                 extentSeries
	scratch            []byte
	times              timeTexts
}

// piece is the part of a recording that is in one extent.
type piece struct {
	number   int64
	from, to int // steps of the query
	extentWriter
}

// size is how much memory it takes.
func (e *recordEncoder) size() (bytes int64) {
	bytes = separatorBytes*int64(cap(e.expected.list)) + stepTextBytes*int64(cap(e.points)+cap(e.histograms)) + 8*int64(cap(e.steps)+cap(e.numerals))
	for _, p := range e.pieces {
		bytes += int64(cap(p.body))
	}
	return bytes
}

// add encodes a parcel. It reports false if times are not written as they are here.
func (e *recordEncoder) add(b *parcel) (ok bool) {
	text := b.text
	for _, s := range b.series {
		e.points = e.points[:0]
		floats := text[:s.floats]
		if !e.asNumerals(floats) {
			e.steps, e.numerals = e.steps[:0], e.numerals[:0]
			if e.points, ok = e.split(e.points, floats); !ok {
				return false
			}
		}
		if e.histograms, ok = e.split(e.histograms[:0], text[s.floats:s.floats+s.histograms]); !ok {
			return false
		}
		text = text[s.floats+s.histograms:]
		steps, numerals, points, histograms := e.steps, e.numerals, e.points, e.histograms
		for _, p := range e.pieces {
			if p.body == nil {
				p.body = e.c.u.spareExtent()
			}
			e.at = extentSeries{labels: s.labels, values: e.at.values[:0], text: floats}
			steps, numerals = e.numeralsIn(p, steps, numerals)
			points, histograms = e.textsIn(p, points, histograms)
			p.add(&e.at)
		}
	}
	return true
}

// numeralsIn takes for a piece those that are in it, and returns those behind.
func (e *recordEncoder) numeralsIn(p *piece, steps []int, numerals []numeral) ([]int, []numeral) {
	from, n := 0, 0
	for from < len(steps) && steps[from] < p.from {
		from++
	}
	_, base := e.c.place(p.from)
	for n = from; n < len(steps) && steps[n] < p.to; n++ {
		steps[n] += base - p.from
	}
	e.at.steps, e.at.numerals = steps[from:n], numerals[from:n]
	return steps[n:], numerals[n:]
}

// textsIn takes for a piece the points that are in it, and returns those behind.
func (e *recordEncoder) textsIn(p *piece, points, histograms []stepText) (_, _ []stepText) {
	_, base := e.c.place(p.from)
	in := func(list []stepText) (mine, rest []stepText) {
		for len(list) > 0 && list[0].step < p.from {
			list = list[1:]
		}
		n := 0
		for n < len(list) && list[n].step < p.to {
			list[n].step += base - p.from
			n++
		}
		return list[:n], list[n:]
	}
	e.at.texts, points = in(points)
	e.at.histograms, histograms = in(histograms)
	if len(e.at.texts) > 0 && e.asValues(&e.at) {
		e.at.texts = nil
	}
	return points, histograms
}

// asValues makes floats of them, if those are written as they are here.
func (e *recordEncoder) asValues(at *extentSeries) bool {
	at.steps = at.steps[:0]
	for _, t := range at.texts {
		text := t.text[1 : len(t.text)-1] // without quotes
		v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), len(text)), 64)
		if e.scratch = appendFloat(e.scratch[:0], v); err != nil || !bytes.Equal(e.scratch, text) {
			at.steps, at.values = at.steps[:0], at.values[:0]
			return false
		}
		at.steps, at.values = append(at.steps, t.step), append(at.values, v)
	}
	return true
}

// asNumerals reads the text of floats, which the reader has found sound, if all of
// them are numerals: nearly all are.
func (e *recordEncoder) asNumerals(text []byte) bool {
	steps, numerals := e.steps[:0], e.numerals[:0] // not in e point by point: that costs a write barrier each
	var last numeral
	for p, next := 0, 0; p < len(text); {
		at, step, ok := e.pointAt(text, p, &next)
		if !ok {
			return false
		}
		for {
			if !last.again(text, at+1) {
				last = numeral{uint32(at + 1), uint32(numeralSize(text, at+1))}
			}
			if last.size == 0 {
				return false
			}
			steps, numerals = append(steps, step), append(numerals, last)
			end := at + 1 + int(last.size)
			step++
			s := e.following(text[end:], step)
			if s == nil {
				p = end + len(`"],`)
				break
			}
			at = end + int(s.n) - 1
		}
	}
	e.steps, e.numerals = steps, numerals
	return true
}

// pointAt is where the value of the point at p stands, and its step. It is not ok if
// the time is not written as it is here. next is where the time probably is in times.
func (e *recordEncoder) pointAt(text []byte, p int, next *int) (at, step int, ok bool) {
	n, ms := timeText(text[p:])
	if e.scratch, *next = e.times.append(append(e.scratch[:0], '['), ms, *next); n == 0 || !bytes.HasPrefix(text[p:], e.scratch) || text[p+len(e.scratch)] != ',' {
		return 0, 0, false
	}
	return p + len(e.scratch) + 1, int((ms - e.c.grid.start) / e.c.grid.step), true
}

// following is the separator behind a value, if the point of a step follows it as it
// is expected; or nil.
func (e *recordEncoder) following(end []byte, step int) *separator {
	if len(end) < longSeparator {
		return nil
	}
	if s := e.expected.of(step); s.stands(end) {
		return s
	}
	return nil
}

// quoteAt is where the next quote is. There must be one.
func quoteAt(b []byte, p int) int {
	for ; len(b)-p >= 8; p += 8 {
		if z := zeros(binary.LittleEndian.Uint64(b[p:]) ^ '"'*ones); z != 0 {
			return p + bits.TrailingZeros64(z)/8
		}
	}
	return p + bytes.IndexByte(b[p:], '"')
}

// split cuts the text of points, which the reader has found sound. It is not ok
// if times are not written as they are here.
func (e *recordEncoder) split(dst []stepText, text []byte) (_ []stepText, ok bool) {
	for p, next := 0, 0; p < len(text); p++ { // behind the comma
		var step int
		if p, step, ok = e.pointAt(text, p, &next); !ok {
			return dst, false
		}
		if text[p] == '{' {
			end := p + endOfHistogram(text[p:])
			dst = append(dst, stepText{step, text[p:end:end]})
			p = end + 1
			continue
		}
		for {
			end := quoteAt(text, p+1)
			dst = append(dst, stepText{step, text[p : end+1 : end+1]})
			p = end + 2
			step++
			s := e.following(text[end:], step)
			if s == nil {
				break
			}
			p = end + int(s.n) - 1
		}
	}
	return dst, true
}

// stepTextBytes is what a stepText takes.
const stepTextBytes = 32

// endOfHistogram is where the object at the beginning of b ends.
func endOfHistogram(b []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++ // what is escaped
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(b) - 1
}
