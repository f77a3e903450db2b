package query

import (
	"encoding/binary"
	"slices"
	"sync"
)

// pointText is what stands between the values of two steps: the end of a point,
// and the beginning of the next up to its value, `"],[1795208700,"`. It has a
// fixed size so that copying it takes two instructions.
type pointText struct {
	text [pointTextBytes]byte
	n    int
}

const (
	pointTextBytes = 32
	endOfPoint     = `"],`
	startOfValue   = `,"`
)

// usedTexts are *[]pointText for the next answer: as large as an answer about one
// series, and as much garbage as all else of its query.
var usedTexts sync.Pool

// maxKeptTexts is how many are kept together.
const maxKeptTexts = 4 * bufferBytes / pointTextBytes

// pointTexts writes those of all steps to texts, or to larger ones. Of whole
// seconds, as most are, only the last eight digits are written anew while all before
// these stay.
func (s *steps) pointTexts(texts []pointText) []pointText {
	texts = slices.Grow(texts[:0], s.n)[:s.n]
	whole := s.start%1000 == 0 && s.interval%1000 == 0
	b := make([]byte, 0, 2*pointTextBytes)
	before := int64(0)
	for i := range texts {
		t := s.start + int64(i)*s.interval
		high := t / (1000 * 1e8)
		if whole && high > 0 && high == before {
			texts[i] = texts[i-1]
			texts[i].setLastDigits(uint32(t/1000 - high*1e8))
			continue
		}
		before = high
		b = append(append(b[:0], endOfPoint...), '[')
		b = appendTime(b, t) // 21 bytes at most
		b = append(b, startOfValue...)
		texts[i].n = copy(texts[i].text[:], b)
	}
	return texts
}

// setLastDigits makes the last eight digits of the time those of u.
func (x *pointText) setLastDigits(u uint32) {
	at := x.n - len(startOfValue) - 8
	binary.LittleEndian.PutUint64(x.text[at:], eightDigits(u)|asciiZeros)
}

// computed writes the result of a plan, as matrix writes that of the engine.
func (w *jsonWriter) computed(m *computedMatrix) {
	var texts []pointText
	if len(m.rows) > 0 {
		used, _ := usedTexts.Get().(*[]pointText)
		if used == nil {
			used = new([]pointText)
		}
		*used = m.pointTexts(*used)
		if texts = *used; cap(texts) <= maxKeptTexts {
			defer usedTexts.Put(used)
		}
	}
	w.raw("[")
	for i := range m.rows {
		r := &m.rows[i]
		w.comma(i)
		w.raw(`{"metric":`)
		w.labels(r.labels)
		w.raw(`,"values":[`)
		if !w.points(r.values, texts[r.first:]) {
			return
		}
		w.raw(`"]]}`)
		if !w.more() {
			return
		}
	}
	w.raw("]")
}

// points writes the values that are there, all but the end of the last. The
// first of them is.
func (w *jsonWriter) points(values []float64, texts []pointText) bool {
	// 4 KiB of room for a block of points, made and checked once a block.
	const block = 64
	skip := len(endOfPoint)
	for start := 0; start < len(values); start += block {
		vs := values[start:min(start+block, len(values))]
		ts := texts[start:][:len(vs)]
		n := len(w.buf)
		w.buf = slices.Grow(w.buf, block*(pointTextBytes+numberBytes))
		b := w.buf[:cap(w.buf)]
		for i, f := range vs {
			if isNone(f) {
				continue
			}
			if skip > 0 { // no point ends before the first
				n += copy(b[n:], ts[i].text[skip:ts[i].n])
				skip = 0
			} else {
				*(*[pointTextBytes]byte)(b[n:]) = ts[i].text
				n += ts[i].n
			}
			n += putFloat(b[n:n+numberBytes], f)
		}
		w.buf = b[:n]
		if !w.more() {
			return false
		}
	}
	return true
}
