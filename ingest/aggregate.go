package ingest

import (
	"math"
	"slices"
)

// aggregators are the names of AGGREGATION and REDUCE, in no order that matters.
var aggregators = [...]string{"avg", "sum", "min", "max", "range", "count", "first", "last", "std.p", "std.s", "var.p", "var.s", "twa"}

func parseAggregator(b []byte) (string, bool) {
	for _, a := range aggregators {
		if equalFold(b, a) {
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
	n                          int
	sum, min, max, first, last float64
	mean, m2                   float64 // Welford's: no cancellation where the mean is large
}

func (s *summary) add(v float64) {
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

// result is one aggregator's; the summary is not empty.
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
	empty    bool // report buckets without samples between those with some
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

func (a *aggregation) needsTWA() bool { return slices.Contains(a.kinds, "twa") }

// rows are results: values holds width of them for each time.
type rows struct {
	times  []int64
	values []float64
	width  int
}

func (r *rows) len() int               { return len(r.times) }
func (r *rows) row(i int) []float64    { return r.values[i*r.width : (i+1)*r.width] }
func (r *rows) add(t int64, v float64) { r.times = append(r.times, t); r.values = append(r.values, v) }

// limit cuts what is behind the first n rows, or reverses before that.
func (r *rows) limit(n int, reverse bool) {
	if reverse {
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

// aggregate makes buckets of points in order of time. before and after, where
// they exist, are the neighbours of the points, to which twa draws its lines.
// It reports false when there would be more than most rows.
func (a *aggregation) aggregate(points []point, before, after *point, most int) (r rows, ok bool) {
	r.width = len(a.kinds)
	points = slices.DeleteFunc(points, func(p point) bool { return p.v != p.v })
	var prev *summary // of the bucket before
	for i := 0; i < len(points); {
		start := a.start(points[i].t)
		j := i
		var s summary
		for ; j < len(points) && points[j].t < start+a.bucketMs; j++ {
			s.add(points[j].v)
		}
		if prev != nil && a.empty {
			for gap := a.start(points[i-1].t) + a.bucketMs; gap < start; gap += a.bucketMs {
				if len(r.times) >= most {
					return r, false
				}
				r.times = append(r.times, a.time(gap))
				for _, k := range a.kinds {
					r.values = append(r.values, a.emptyResult(k, gap, prev, points[i-1], points[i]))
				}
			}
		}
		if len(r.times) >= most {
			return r, false
		}
		r.times = append(r.times, a.time(start))
		for _, k := range a.kinds {
			if k == "twa" {
				left, right := before, after
				if i > 0 {
					left = &points[i-1]
				}
				if j < len(points) {
					right = &points[j]
				}
				r.values = append(r.values, timeWeighted(points[i:j], left, right, start, start+a.bucketMs))
			} else {
				r.values = append(r.values, s.result(k))
			}
		}
		prev, i = &s, j
	}
	return r, true
}

func (a *aggregation) emptyResult(kind string, start int64, prev *summary, left, right point) float64 {
	switch kind {
	case "sum", "count":
		return 0
	case "last":
		return prev.last
	case "twa":
		return timeWeighted(nil, &left, &right, start, start+a.bucketMs)
	}
	return math.NaN()
}

// timeWeighted is the mean over time of the line through points, from from to
// to where its neighbours left and right let it be known, and over the points
// themselves where not.
func timeWeighted(points []point, left, right *point, from, to int64) float64 {
	line := make([]point, 0, len(points)+2)
	edge := func(a, b point, t int64) point {
		return point{t, a.v + (b.v-a.v)*(float64(t-a.t)/float64(b.t-a.t))}
	}
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
		line = append(line, edge(*left, *next, from))
	}
	line = append(line, points...)
	if right != nil && last != nil && last.t < to {
		line = append(line, edge(*last, *right, to))
	}
	area := 0.0
	for i := 1; i < len(line); i++ {
		area += (line[i].v + line[i-1].v) / 2 * float64(line[i].t-line[i-1].t)
	}
	width := line[len(line)-1].t - line[0].t
	if width == 0 {
		return line[0].v
	}
	return area / float64(width)
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
			if v := cells[i].v; v == v {
				s.add(v)
			}
		}
		if s.n > 0 {
			out.add(t, s.result(reducer))
		} else {
			out.add(t, math.NaN())
		}
	}
	return out
}
