package query

import (
	"bytes"
	"strconv"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
)

// recordEncoder makes extents of text. It belongs to one goroutine.
type recordEncoder struct {
	c        *recall
	pieces   []*piece // in order of their steps
	expected separators

	points, histograms []stepText // of a series, by steps of the query
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
	bytes = separatorBytes*int64(cap(e.expected.list)) + stepTextBytes*int64(cap(e.points)+cap(e.histograms))
	for _, p := range e.pieces {
		bytes += int64(cap(p.body))
	}
	return bytes
}

// add encodes a parcel. It reports false if times are not written as they are here.
func (e *recordEncoder) add(b *parcel) (ok bool) {
	text := b.text
	for _, s := range b.series {
		if e.points, ok = e.split(e.points[:0], text[:s.floats]); ok {
			e.histograms, ok = e.split(e.histograms[:0], text[s.floats:s.floats+s.histograms])
		}
		if !ok {
			return false
		}
		text = text[s.floats+s.histograms:]
		points, histograms := e.points, e.histograms
		for _, p := range e.pieces {
			points, histograms = e.addTo(p, s.labels, points, histograms)
		}
	}
	return true
}

// addTo adds to a piece the points that are in it and returns those behind.
func (e *recordEncoder) addTo(p *piece, ls labels.Labels, points, histograms []stepText) (_, _ []stepText) {
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
	at := &e.at
	at.labels = ls
	at.texts, points = in(points)
	at.histograms, histograms = in(histograms)
	if e.asDecimals(at) || e.asValues(at) {
		at.texts = nil
	}
	p.add(at)
	return points, histograms
}

// asDecimals makes decimals of the texts of a series, if they are all such: nearly
// all are.
func (e *recordEncoder) asDecimals(at *extentSeries) bool {
	at.steps, at.values, at.decimals = at.steps[:0], at.values[:0], at.decimals[:0]
	for _, t := range at.texts {
		d, ok := parseDecimal(t.text[1 : len(t.text)-1]) // without quotes
		if !ok {
			return false
		}
		at.steps, at.decimals = append(at.steps, t.step), append(at.decimals, d)
	}
	return true
}

// asValues makes floats of them, if those are written as they are here.
func (e *recordEncoder) asValues(at *extentSeries) bool {
	at.steps, at.decimals = at.steps[:0], at.decimals[:0]
	for _, t := range at.texts {
		text := t.text[1 : len(t.text)-1]
		v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), len(text)), 64)
		if e.scratch = appendFloat(e.scratch[:0], v); err != nil || !bytes.Equal(e.scratch, text) {
			at.steps, at.values = at.steps[:0], at.values[:0]
			return false
		}
		at.steps, at.values = append(at.steps, t.step), append(at.values, v)
	}
	return true
}

// split cuts the text of points, which the reader has found sound. It is not ok
// if times are not written as they are here.
func (e *recordEncoder) split(dst []stepText, text []byte) (_ []stepText, ok bool) {
	g, next := e.c.grid, 0
	for p := 0; p < len(text); p++ { // behind the comma
		n, ms := timeText(text[p:])
		if e.scratch, next = e.times.append(append(e.scratch[:0], '['), ms, next); n == 0 || !bytes.HasPrefix(text[p:], e.scratch) || text[p+len(e.scratch)] != ',' {
			return dst, false
		}
		p += len(e.scratch) + 1
		step := int((ms - g.start) / g.step)
		if text[p] == '{' {
			end := p + endOfHistogram(text[p:])
			dst = append(dst, stepText{step, text[p:end:end]})
			p = end + 1
			continue
		}
		for {
			end := p + 1 + bytes.IndexByte(text[p+1:], '"')
			dst = append(dst, stepText{step, text[p : end+1 : end+1]})
			p = end + 2
			if step++; len(text)-end < longSeparator {
				break
			}
			s := e.expected.of(step)
			if !s.stands(text[end:]) {
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
