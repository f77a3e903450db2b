package ingest

import (
	"math"
	"slices"

	"mcached/ingest/resp"
)

// aggregators are the names of AGGREGATION and REDUCE, in no order that matters.
// They are about numbers; countnan is about NaN and countall about both.
var aggregators = [...]string{"avg", "sum", "min", "max", "range", "count", "first", "last", "std.p", "std.s", "var.p", "var.s", "twa", "countnan", "countall"}

func parseAggregator(b []byte) (string, bool) {
	for _, a := range aggregators {
		if resp.EqualFold(b, a) {
			return a, true
		}
	}
	return "", false
}

// point is a sample as commands see it.
type point struct {
	t int64
	v float64
}

// summary is all that the aggregators need to know of some values, but twa.
type summary struct {
	n, nan                     int // numbers, and NaN
	sum, min, max, first, last float64
	mean, m2                   float64 // Welford's: no cancellation where the mean is large
}

func (s *summary) add(v float64) {
	if v != v {
		s.nan++
		return
	}
	if s.n == 0 {
		s.min, s.max, s.first = v, v, v
	}
	s.n++
	s.sum += v
	s.min, s.max, s.last = min(s.min, v), max(s.max, v), v
	d := v - s.mean
	s.mean += d / float64(s.n)
	s.m2 += d * (v - s.mean)
}

// has reports whether there is what the aggregator is about.
func (s *summary) has(aggregator string) bool {
	switch aggregator {
	case "countnan":
		return s.nan > 0
	case "countall":
		return s.n+s.nan > 0
	}
	return s.n > 0
}

// result is one aggregator's; there is what it is about.
func (s *summary) result(aggregator string) float64 {
	n := float64(s.n)
	sample := s.m2 / max(n-1, 1) // of one value it is 0
	switch aggregator {
	case "avg":
		return s.sum / n
	case "sum":
		return s.sum
	case "min":
		return s.min
	case "max":
		return s.max
	case "range":
		return s.max - s.min
	case "count":
		return n
	case "countnan":
		return float64(s.nan)
	case "countall":
		return float64(s.n + s.nan)
	case "first":
		return s.first
	case "last":
		return s.last
	case "var.p":
		return s.m2 / n
	case "var.s":
		return sample
	case "std.p":
		return math.Sqrt(s.m2 / n)
	case "std.s":
		return math.Sqrt(sample)
	}
	panic("ingest: no such aggregator: " + aggregator)
}

// aggregation is the AGGREGATION clause.
type aggregation struct {
	kinds    []string
	bucketMs int64
	alignMs  int64
	stamp    byte // where in its bucket the time of a result is: '-', '~' or '+'
	empty    bool // report buckets without samples as well, where there are some before and after
}

// start is the beginning of the bucket that t is in.
func (a *aggregation) start(t int64) int64 {
	r := (t - a.alignMs) % a.bucketMs
	if r < 0 {
		r += a.bucketMs
	}
	return t - r
}

func (a *aggregation) time(start int64) int64 {
	switch a.stamp {
	case '+':
		return start + a.bucketMs
	case '~':
		return start + a.bucketMs/2
	}
	return max(start, 0)
}

// needsNeighbours says that the samples next to the range matter.
func (a *aggregation) needsNeighbours() bool { return a.empty || slices.Contains(a.kinds, "twa") }

// window is the range that is asked for, and the numbers next to it, if known.
type window struct {
	from, to      int64
	before, after *point
}

// rows are results: values holds width of them for each time.
type rows struct {
	times  []int64
	values []float64
	width  int
}

func (r *rows) len() int               { return len(r.times) }
func (r *rows) row(i int) []float64    { return r.values[i*r.width : (i+1)*r.width] }
func (r *rows) add(t int64, v float64) { r.times = append(r.times, t); r.values = append(r.values, v) }

// order is that of the rows of an answer.
type order uint8

const (
	oldestFirst order = iota
	youngestFirst
)

// limit puts rows, which are the oldest first, in order, and cuts what is behind
// the first n.
func (r *rows) limit(n int, o order) {
	if o == youngestFirst {
		slices.Reverse(r.times)
		slices.Reverse(r.values)
		for i := range r.times {
			slices.Reverse(r.row(i))
		}
	}
	if n >= 0 && n < len(r.times) {
		r.times, r.values = r.times[:n], r.values[:n*r.width]
	}
}

// room is how many bytes the buckets of points may take, at most rows of them,
// with as much again while they grow.
func (a *aggregation) room(points []point, w window, most int) int64 {
	n := int64(len(points))
	if a.empty && n > 0 {
		from, to := points[0].t, points[n-1].t
		if w.before != nil {
			from = w.from
		}
		if w.after != nil {
			to = w.to
		}
		n = max(n, (to-from)/a.bucketMs+2)
	}
	return 2 * min(n, int64(most)) * int64(8+8*len(a.kinds))
}

// aggregate makes buckets of points in order of time, which are all in the
// window. With EMPTY, those without samples are reported too: between samples,
// and at the edges of the window where a neighbour lies beyond. It reports
// false when there would be more than most rows.
func (a *aggregation) aggregate(points []point, w window, most int) (rows, bool) {
	b := bucketing{aggregation: a, window: w, most: most, numbers: points, next: a.start(w.from), rows: rows{width: len(a.kinds)}}
	if slices.ContainsFunc(points, func(p point) bool { return p.v != p.v }) {
		b.numbers = slices.DeleteFunc(slices.Clone(points), func(p point) bool { return p.v != p.v })
	}
	begun := w.before != nil // empty buckets may follow
	for i := 0; i < len(points); {
		start := a.start(points[i].t)
		var s summary
		for ; i < len(points) && points[i].t < start+a.bucketMs; i++ {
			s.add(points[i].v)
		}
		if !a.empty && !slices.ContainsFunc(a.kinds, s.has) {
			continue
		}
		if a.empty && begun && !b.gap(start) || !b.bucket(start, &s) {
			return b.rows, false
		}
		begun = true
	}
	if a.empty && begun && w.after != nil && !b.gap(a.start(w.to)+a.bucketMs) {
		return b.rows, false
	}
	return b.rows, true
}

// bucketing is an aggregation under way.
type bucketing struct {
	*aggregation
	window
	most    int
	numbers []point // the points that are no NaN
	done    int     // of numbers, these are in the buckets so far
	next    int64   // where the bucket after those begins
	rows
}

// neighbours are the numbers next to numbers[b.done:to].
func (b *bucketing) neighbours(to int) (left, right *point) {
	left, right = b.before, b.after
	if b.done > 0 {
		left = &b.numbers[b.done-1]
	}
	if to < len(b.numbers) {
		right = &b.numbers[to]
	}
	return left, right
}

// bucket adds the row of the bucket that begins at start and has what s says.
func (b *bucketing) bucket(start int64, s *summary) bool {
	if b.len() >= b.most {
		return false
	}
	b.times = append(b.times, b.time(start))
	to := b.done + s.n
	left, right := b.neighbours(to)
	for _, k := range b.kinds {
		switch {
		case !s.has(k):
			b.values = append(b.values, b.emptyResult(k, start, left, right))
		case k == "twa":
			b.values = append(b.values, timeWeighted(b.numbers[b.done:to], left, right, max(start, b.from), min(start+b.bucketMs, b.to)))
		default:
			b.values = append(b.values, s.result(k))
		}
	}
	b.done, b.next = to, start+b.bucketMs
	return true
}

// gap adds rows of empty buckets up to that which begins at to.
func (b *bucketing) gap(to int64) bool {
	for start := b.next; start < to; start += b.bucketMs {
		if !b.bucket(start, &summary{}) {
			return false
		}
	}
	return true
}

// emptyResult is what there is to say of a bucket without samples.
func (b *bucketing) emptyResult(kind string, start int64, left, right *point) float64 {
	switch {
	case kind == "sum", kind == "count", kind == "countnan", kind == "countall":
		return 0
	case kind == "last" && left != nil:
		return left.v
	case kind == "twa" && left != nil && right != nil:
		return timeWeighted(nil, left, right, max(start, b.from), min(start+b.bucketMs, b.to))
	}
	return math.NaN()
}

// timeWeighted is the mean over time of the line through points, from from to
// to where its neighbours left and right let it be known, and over the points
// themselves where not.
func timeWeighted(points []point, left, right *point, from, to int64) float64 {
	var l line
	ends := func(i int) *point {
		if len(points) > 0 {
			return &points[i]
		}
		return nil
	}
	next, last := ends(0), ends(len(points)-1)
	if next == nil {
		next, last = right, left
	}
	if left != nil && next != nil && next.t > from {
		l.to(between(*left, *next, from))
	}
	for _, p := range points {
		l.to(p)
	}
	if right != nil && last != nil && last.t < to {
		l.to(between(*last, *right, to))
	}
	return l.mean()
}

// between is the point at t of the line from a to b.
func between(a, b point, t int64) point {
	return point{t, a.v + (b.v-a.v)*(float64(t-a.t)/float64(b.t-a.t))}
}

// line goes from point to point, in order of time.
type line struct {
	some        bool
	first, last point
	area        float64 // below it
}

func (l *line) to(p point) {
	if l.some {
		l.area += (p.v + l.last.v) / 2 * float64(p.t-l.last.t)
	} else {
		l.some, l.first = true, p
	}
	l.last = p
}

// mean is the mean over time.
func (l *line) mean() float64 {
	width := l.last.t - l.first.t
	if width == 0 {
		return l.first.v
	}
	return l.area / float64(width)
}

// reduce joins the rows of several series: at each time that any has, the
// reducer over all that have it. NaN is no value.
func reduce(reducer string, all []rows) rows {
	type cell struct {
		t int64
		v float64
	}
	var cells []cell
	for _, r := range all {
		for i, t := range r.times {
			cells = append(cells, cell{t, r.values[i]})
		}
	}
	slices.SortStableFunc(cells, func(a, b cell) int {
		switch {
		case a.t < b.t:
			return -1
		case a.t > b.t:
			return 1
		}
		return 0
	})
	out := rows{width: 1}
	for i := 0; i < len(cells); {
		t := cells[i].t
		var s summary
		for ; i < len(cells) && cells[i].t == t; i++ {
			s.add(cells[i].v)
		}
		switch {
		case s.has(reducer):
			out.add(t, s.result(reducer))
		case reducer == "count" || reducer == "countnan":
			out.add(t, 0)
		default:
			out.add(t, math.NaN())
		}
	}
	return out
}
