package query

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// A jsonWriter writes the JSON of Prometheus' API, byte for byte, as it comes:
// what has been written leaves through flush whenever there is a good deal of it.
type jsonWriter struct {
	buf   []byte
	flush func([]byte) error // takes what was written; called by more only
	err   error              // of the first flush that failed: writing is in vain
}

// flushBytes is how much is gathered before it is sent. Half of it is 7 % more
// work for both ends of a large answer; twice as much saves nothing.
const flushBytes = 64 << 10

// more makes room, between two elements. False means that nobody reads any more.
func (w *jsonWriter) more() bool {
	if len(w.buf) < flushBytes {
		return true
	}
	if w.err == nil {
		w.err = w.flush(w.buf)
	}
	w.buf = w.buf[:0]
	return w.err == nil
}

// brokenOff says that what is to be written is not to be had any more.
type brokenOff struct{ why error }

func (e *brokenOff) Error() string { return e.why.Error() }

// fail ends an answer of which there is no more.
func (w *jsonWriter) fail(err error) {
	if w.err == nil {
		w.err = &brokenOff{err}
	}
}

func (w *jsonWriter) raw(s string) { w.buf = append(w.buf, s...) }

// comma separates elements: write it before element i.
func (w *jsonWriter) comma(i int) {
	if i > 0 {
		w.buf = append(w.buf, ',')
	}
}

// any writes what no query's speed depends on. Like Prometheus, it escapes <, > and &.
func (w *jsonWriter) any(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		// All values come from this package: one that has no JSON is a bug.
		panic("query: " + err.Error())
	}
	w.buf = append(w.buf, b...)
}

// strings writes an array of strings, each escaped as any does.
func (w *jsonWriter) strings(ss []string) {
	w.raw("[")
	for i, s := range ss {
		w.comma(i)
		w.escaped(s)
		if !w.more() {
			return
		}
	}
	w.raw("]")
}

// escaped writes a string as Prometheus writes all but those of labels: safe
// inside HTML and scripts, and valid UTF-8 whatever it was.
func (w *jsonWriter) escaped(s string) {
	b := append(w.buf, '"')
	start := 0
	for i := safeBytes(s); i < len(s); {
		c := s[i]
		size, special := 1, c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&'
		r := rune(c)
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			special = r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029'
		}
		if !special {
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		i += size
		start = i
		switch r {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u')
			for shift := 12; shift >= 0; shift -= 4 {
				b = append(b, hexDigits[r>>shift&15])
			}
		}
	}
	b = append(b, s[start:]...)
	w.buf = append(b, '"')
}

const hexDigits = "0123456789abcdef"

// label writes a string as Prometheus writes those of labels: only what must be
// escaped is, and bytes that are no UTF-8 pass through.
func (w *jsonWriter) label(s string) {
	b := append(w.buf, '"')
	start := 0
	for i := plainBytes(s); i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', '0'+c>>4, hexDigits[c&15])
		}
	}
	b = append(b, s[start:]...)
	w.buf = append(b, '"')
}

// plainBytes is how many bytes of s, from the first on, are surely neither
// control characters, quotes nor backslashes.
func plainBytes(s string) int {
	i := 0
	for ; i+8 <= len(s) && plainWord(load8(s, i)); i += 8 {
	}
	if i+8 > len(s) && len(s) >= 8 && plainWord(load8(s, len(s)-8)) {
		return len(s)
	}
	return i
}

// safeBytes is how many of them are, beside that, ASCII and nothing to HTML.
func safeBytes(s string) int {
	i := 0
	for ; i+8 <= len(s) && safeWord(load8(s, i)); i += 8 {
	}
	if i+8 > len(s) && len(s) >= 8 && safeWord(load8(s, len(s)-8)) {
		return len(s)
	}
	return i
}

const (
	ones    = 0x0101010101010101
	highest = 0x8080808080808080
)

// load8 is eight bytes of s, as one load.
func load8(s string, i int) uint64 {
	t := s[i : i+8]
	return uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 | uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
}

// zeros has the highest bit of bytes set where x has a zero byte, or a one
// behind such; without a zero byte it is zero.
func zeros(x uint64) uint64 { return (x - ones) &^ x & highest }

func plainWord(x uint64) bool {
	return (x-' '*ones)&^x&highest|zeros(x^'"'*ones)|zeros(x^'\\'*ones) == 0
}

func safeWord(x uint64) bool {
	return plainWord(x) && zeros(x^'<'*ones)|zeros(x^'>'*ones)|zeros(x^'&'*ones)|x&highest == 0
}

func (w *jsonWriter) labels(ls labels.Labels) {
	w.raw("{")
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			w.raw(",")
		}
		first = false
		w.label(l.Name)
		w.raw(":")
		w.label(l.Value)
	})
	w.raw("}")
}

// listing writes an array of elements that have their text.
func (w *jsonWriter) listing(text []byte) {
	w.raw("[")
	w.buf = append(w.buf, text...)
	w.raw("]")
}

func (w *jsonWriter) quotedFloat(f float64) {
	w.buf = append(w.buf, '"')
	w.buf = appendFloat(w.buf, f)
	w.buf = append(w.buf, '"')
}

func (w *jsonWriter) vector(v promql.Vector) {
	w.raw("[")
	for i := range v {
		s := &v[i]
		w.comma(i)
		w.raw(`{"metric":`)
		w.labels(s.Metric)
		if s.H == nil {
			w.raw(`,"value":[`)
		} else {
			w.raw(`,"histogram":[`)
		}
		w.buf = appendTime(w.buf, s.T)
		w.raw(",")
		if s.H == nil {
			w.quotedFloat(s.F)
		} else {
			w.histogram(s.H)
		}
		w.raw("]}")
		if !w.more() {
			return
		}
	}
	w.raw("]")
}

func (w *jsonWriter) matrix(m promql.Matrix) {
	var times timeTexts
	w.raw("[")
	for i := range m {
		s := &m[i]
		w.comma(i)
		w.raw(`{"metric":`)
		w.labels(s.Metric)
		if len(s.Floats) > 0 {
			w.raw(`,"values":[`)
			if !w.floats(s.Floats, &times) {
				return
			}
			w.raw("]")
		}
		if len(s.Histograms) > 0 {
			w.raw(`,"histograms":[`)
			if !w.histograms(s.Histograms) {
				return
			}
			w.raw("]")
		}
		w.raw("}")
		if !w.more() {
			return
		}
	}
	w.raw("]")
}

// histograms writes points.
func (w *jsonWriter) histograms(points []promql.HPoint) bool {
	for i, p := range points {
		w.comma(i)
		w.raw("[")
		w.buf = appendTime(w.buf, p.T)
		w.raw(",")
		w.histogram(p.H)
		w.raw("]")
		if !w.more() {
			return false
		}
	}
	return true
}

// floats writes points. Those of a range query stand at the same times in every
// series, so the text of a time is made once and copied from then on.
func (w *jsonWriter) floats(points []promql.FPoint, times *timeTexts) bool {
	// 2 KiB of room for a block of points, checked once a block.
	const block = 64
	next := 0
	for start := 0; start < len(points); start += block {
		b := w.buf
		for j, p := range points[start:min(start+block, len(points))] {
			if start+j > 0 {
				b = append(b, ',')
			}
			b = append(b, '[')
			b, next = times.append(b, p.T, next)
			b = append(b, ',', '"')
			b = appendFloat(b, p.F)
			b = append(b, '"', ']')
		}
		w.buf = b
		if !w.more() {
			return false
		}
	}
	return true
}

// timeTexts remembers the texts of ascending times.
type timeTexts struct {
	times []int64
	text  []byte // of all times, without separators
	ends  []int32
}

// append appends the text of t to b. next is where t probably is: the result
// of the call before, or 0 at the start of a series.
func (x *timeTexts) append(b []byte, t int64, next int) ([]byte, int) {
	for next < len(x.times) && x.times[next] < t {
		next++
	}
	if next < len(x.times) {
		if x.times[next] != t {
			return appendTime(b, t), next // not one of the first series' times
		}
		start := int32(0)
		if next > 0 {
			start = x.ends[next-1]
		}
		return append(b, x.text[start:x.ends[next]]...), next + 1
	}
	// 11,000 times of a range query fit well; a matrix of raw samples may go on.
	const maxTimes = 1 << 15
	if len(x.times) == maxTimes {
		return appendTime(b, t), next
	}
	x.times = append(x.times, t)
	start := len(x.text)
	x.text = appendTime(x.text, t)
	x.ends = append(x.ends, int32(len(x.text)))
	return append(b, x.text[start:]...), next + 1
}

// Which ends of a bucket belong to it, as Prometheus numbers them.
const (
	openLeft  = 0 // the upper end only
	openRight = 1 // the lower end only
	openBoth  = 2
	closed    = 3
)

func (w *jsonWriter) histogram(h *histogram.FloatHistogram) {
	w.raw(`{"count":`)
	w.quotedFloat(h.Count)
	w.raw(`,"sum":`)
	w.quotedFloat(h.Sum)
	n := 0
	for it := h.AllBucketIterator(); it.Next(); {
		bucket := it.At()
		if bucket.Count == 0 {
			continue
		}
		if n == 0 {
			w.raw(`,"buckets":[`)
		}
		w.comma(n)
		n++
		ends := openBoth
		switch {
		case bucket.LowerInclusive && bucket.UpperInclusive:
			ends = closed
		case bucket.LowerInclusive:
			ends = openRight
		case bucket.UpperInclusive:
			ends = openLeft
		}
		w.raw("[")
		w.buf = strconv.AppendInt(w.buf, int64(ends), 10)
		for _, f := range [...]float64{bucket.Lower, bucket.Upper, bucket.Count} {
			w.raw(",")
			w.quotedFloat(f)
		}
		w.raw("]")
	}
	if n > 0 {
		w.raw("]")
	}
	w.raw("}")
}

func (w *jsonWriter) exemplars(results []exemplar.QueryResult) {
	w.raw("[")
	for i, r := range results {
		w.comma(i)
		w.raw(`{"seriesLabels":`)
		w.labels(r.SeriesLabels)
		w.raw(`,"exemplars":[`)
		for j, e := range r.Exemplars {
			w.comma(j)
			w.raw(`{"labels":`)
			w.labels(e.Labels)
			w.raw(`,"value":`)
			w.quotedFloat(e.Value)
			w.raw(`,"timestamp":`)
			w.buf = appendTime(w.buf, e.Ts)
			w.raw("}")
			if !w.more() {
				return
			}
		}
		w.raw("]}")
	}
	w.raw("]")
}
