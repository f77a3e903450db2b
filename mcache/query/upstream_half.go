package query

import (
	"context"
	"io"

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
	ahead  ahead
	reader *matrixReader
	list   []matrixSeries // of one that does not come in order
	at     *matrixSeries
	last   labels.Labels
	store  *learner
	ctx    context.Context // of the client's request, whose loan has lent bytes of a series
	lent   int64
	record *recording // nil: nothing of it is kept
}

// here is a part that was computed.
type here struct {
	span
	computed
	from    int64 // its first step that counts
	samples int64 // that were read
	matrix  promql.Matrix
	rows    *computedMatrix
	at      int
	floats  []promql.FPoint
	times   timeTexts
}

// Of the store's part:

func (p *asked) next() (bool, error) {
	more, err := p.read()
	if more && err == nil {
		p.record.add(p.at)
	}
	return more, err
}

func (p *asked) read() (bool, error) {
	if p.list != nil {
		p.at = &p.list[0]
		if p.list = p.list[1:]; len(p.list) == 0 {
			p.list = nil
		}
		return true, nil
	}
	s, err := p.reader.next()
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if p.at != nil && labels.Compare(p.last, s.labels) >= 0 {
		p.store.disorder()
		return false, errUnsorted
	}
	if n := int64(cap(s.floats) + cap(s.histograms)); n > p.lent {
		if err := loanOf(p.ctx).Take(p.ctx, n-p.lent); err != nil {
			return false, err
		}
		p.lent = n
	}
	p.at, p.last = s, s.labels
	return true, nil
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
		h.floats = h.floats[:0]
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
		return w.floats(h.floatsOf(), &h.times)
	}
	return w.histograms(h.histogramsOf())
}
