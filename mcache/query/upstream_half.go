package query

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// The halves of a query that is split: what the store was asked for, and what was
// computed here; what is remembered is in upstream_remember.go. upstream_merge.go
// merges them.

// half is a part of an answer, as it is merged.
type half interface {
	// next moves to the next series. False means that there is none, or an error.
	next() (bool, error)
	series() labels.Labels
	has(k pointKind) bool
	// write writes the points of the series, without brackets. False means that
	// nobody reads any more.
	write(w *jsonWriter, k pointKind) bool
}

// pointKind is one of the two that a series can have.
type pointKind int

const (
	floatPoints pointKind = iota
	histogramPoints
)

var pointKeys = [...]string{floatPoints: "values", histogramPoints: "histograms"}

// asked is a part that the store was asked for.
type asked struct {
	span
	probe  bool // a seam
	res    *storeAnswer
	err    error
	ctx    context.Context // of the client's request
	record *recording      // nil: nothing of it is kept

	reader  *matrixReader // of another goroutine until reading has ended
	reading *reading      // nil: list is all of the answer
	list    []matrixSeries
	ahead   []*parcel // that come before those of reading
	current *parcel   // with the series at
	nth     int       // series in it, behind at
	offset  int       // of their text
	at      matrixSeries
	read    bool // all of it
}

// here is a part that was computed.
type here struct {
	span
	*computed
	from   int64 // its first step that counts
	matrix promql.Matrix
	rows   *computedMatrix
	at     int
	times  timeTexts

	floats   []promql.FPoint // of rows: those of series floatsAt
	floatsAt int

	text written
}

// Of the store's part:

func (p *asked) next() (bool, error) {
	if p.reading == nil {
		if p.read = len(p.list) == 0; p.read {
			return false, nil
		}
		p.at, p.list = p.list[0], p.list[1:]
		return true, nil
	}
	if p.current == nil || p.nth == len(p.current.series) {
		if more, err := p.nextParcel(); !more {
			return false, err
		}
	}
	s, text := &p.current.series[p.nth], p.current.text[p.offset:]
	p.at = matrixSeries{s.labels, text[:s.floats], text[s.floats : s.floats+s.histograms]}
	p.nth, p.offset = p.nth+1, p.offset+s.floats+s.histograms
	return true, nil
}

// nextParcel moves to the next parcel of series.
func (p *asked) nextParcel() (more bool, err error) {
	if p.read {
		return false, nil
	}
	if p.current != nil {
		p.done(p.current)
	}
	p.current, p.nth, p.offset = nil, 0, 0
	if len(p.ahead) > 0 {
		p.current, p.ahead = p.ahead[0], p.ahead[1:]
		return true, nil
	}
	p.current, err = p.reading.next(p.ctx)
	p.read = p.current == nil && err == nil
	return p.current != nil, err
}

// end ends the request, and the reading of its answer.
func (p *asked) end() {
	p.record.abandon()
	if p.res == nil {
		return
	}
	if p.res.stop(errVisitOver); p.reading != nil {
		for _, b := range append(p.ahead, p.current) {
			if b != nil {
				p.reading.spare.put(b)
			}
		}
		p.ahead, p.current = nil, nil
		p.reading.end()
	}
	p.res.Close()
}

// notes are those of the answer, once all of it was read.
func (p *asked) notes() (warnings, infos []string) {
	if p.reading != nil && !p.read {
		return nil, nil // another goroutine may be about to write them
	}
	return p.reader.warnings, p.reader.infos
}

func (p *asked) series() labels.Labels { return p.at.labels }

func (p *asked) text(k pointKind) []byte {
	if k == histogramPoints {
		return p.at.histograms
	}
	return p.at.floats
}

func (p *asked) has(k pointKind) bool { return len(p.text(k)) > 0 }

func (p *asked) write(w *jsonWriter, k pointKind) bool { return writeText(w, p.text(k)) }

// writeText writes what may be long.
func writeText(w *jsonWriter, text []byte) bool {
	for len(text) > 0 {
		n := min(len(text), flushBytes)
		w.buf = append(w.buf, text[:n]...)
		text = text[n:]
		if !w.more() {
			return false
		}
	}
	return true
}

// Of memory's part:

// count is how many series it has.
func (h *here) count() int {
	if h.rows != nil {
		return len(h.rows.rows)
	}
	return len(h.matrix)
}

func (h *here) next() (bool, error) {
	for {
		if h.at++; h.at >= h.count() {
			return false, nil
		}
		if h.has(floatPoints) || h.has(histogramPoints) {
			return true, nil // else what it had was taken away
		}
	}
}

func (h *here) series() labels.Labels {
	if h.rows != nil {
		return h.rows.rows[h.at].labels
	}
	return h.matrix[h.at].Metric
}

func (h *here) has(k pointKind) bool {
	if k == floatPoints {
		return len(h.floatsOf()) > 0
	}
	return len(h.histogramsOf()) > 0
}

// floatsOf are the points of the series that count.
func (h *here) floatsOf() []promql.FPoint {
	if h.rows != nil {
		if h.floatsAt == h.at {
			return h.floats
		}
		h.floats, h.floatsAt = h.floats[:0], h.at
		r := &h.rows.rows[h.at]
		for i, v := range r.values {
			if t := h.rows.start + int64(r.first+i)*h.rows.interval; !isNone(v) && t >= h.from {
				h.floats = append(h.floats, promql.FPoint{T: t, F: v})
			}
		}
		return h.floats
	}
	points := h.matrix[h.at].Floats
	for len(points) > 0 && points[0].T < h.from {
		points = points[1:]
	}
	return points
}

func (h *here) histogramsOf() []promql.HPoint {
	if h.rows != nil {
		return nil
	}
	points := h.matrix[h.at].Histograms
	for len(points) > 0 && points[0].T < h.from {
		points = points[1:]
	}
	return points
}

func (h *here) write(w *jsonWriter, k pointKind) bool {
	if k == floatPoints {
		if text := h.text.of(h.at); text != nil {
			return writeText(w, text)
		}
		return w.floats(h.floatsOf(), &h.times)
	}
	return w.histograms(h.histogramsOf())
}
