package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// separated writes comma- or tab-separated rows: the time in Unix seconds, the
// labels in order of their names, the value. A native histogram is a row for
// each bucket, which the columns lower, upper and count tell.
func separated(out io.Writer, a answer, comma rune) error {
	list, err := a.list()
	if err != nil {
		return err
	}
	labels := map[string]bool{}
	buckets := false
	for _, s := range list {
		for name := range s.Metric {
			labels[name] = true
		}
		buckets = buckets || s.Histogram != nil || len(s.Histograms) > 0
	}
	names := slices.Sorted(maps.Keys(labels))
	w := csv.NewWriter(out)
	w.Comma = comma
	head := append(append([]string{"time"}, names...), "value")
	if buckets {
		head = append(head, "lower", "upper", "count")
	}
	_ = w.Write(head) // the error stays, and Flush finds it
	row := func(s series, seconds float64, rest ...string) {
		r := []string{strconv.FormatFloat(seconds, 'f', -1, 64)}
		for _, n := range names {
			r = append(r, s.Metric[n])
		}
		r = append(r, rest...)
		for len(r) < len(head) {
			r = append(r, "")
		}
		_ = w.Write(r)
	}
	for _, s := range list {
		if s.Histogram == nil && s.Values == nil && s.Histograms == nil {
			row(s, s.Value.seconds, s.Value.text)
		}
		for _, v := range s.Values {
			row(s, v.seconds, v.text)
		}
		all := s.Histograms
		if s.Histogram != nil {
			all = append(all, *s.Histogram)
		}
		for _, h := range all {
			for _, b := range h.Buckets {
				row(s, h.seconds, "", b.lower, b.upper, b.count)
			}
		}
	}
	w.Flush()
	return w.Error()
}

// histogramPoint is a time in seconds and a native histogram.
type histogramPoint struct {
	point
	Count, Sum string
	Buckets    []histogramBucket
}

// histogramBucket has its bounds as the API spells them.
type histogramBucket struct {
	kind                int // of bounds: 0 is (lower, upper], 1 [lower, upper), 2 (lower, upper), 3 [lower, upper]
	lower, upper, count string
}

// UnmarshalJSON reads [1700000000.123, {"count": "3", "sum": "1.5", "buckets": [[0, "0.5", "1", "3"]]}].
func (h *histogramPoint) UnmarshalJSON(b []byte) error {
	var body struct {
		Count, Sum string
		Buckets    []histogramBucket
	}
	if err := json.Unmarshal(b, &[2]any{&h.seconds, &body}); err != nil {
		return err
	}
	h.Count, h.Sum, h.Buckets = body.Count, body.Sum, body.Buckets
	return nil
}

// UnmarshalJSON reads [0, "0.5", "1", "3"].
func (b *histogramBucket) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[4]any{&b.kind, &b.lower, &b.upper, &b.count})
}

func (h *histogramPoint) summary() string {
	return fmt.Sprintf("histogram, count %s, sum %s", printable(h.Count), printable(h.Sum))
}

// maxBar is how long the bar of the fullest bucket is.
const maxBar = 40

// rows are a line for each bucket, with a bar as long as it is full.
func (h *histogramPoint) rows() string {
	var most float64
	for _, b := range h.Buckets {
		most = max(most, number(b.count))
	}
	var out strings.Builder
	for _, b := range h.Buckets {
		left, right := "(", "]"
		if b.kind == 1 || b.kind == 3 {
			left = "["
		}
		if b.kind == 1 || b.kind == 2 {
			right = ")"
		}
		bar := ""
		if n := number(b.count); most > 0 && n > 0 {
			bar = strings.Repeat("▇", max(1, int(n/most*maxBar)))
		}
		fmt.Fprintf(&out, "  %s%s, %s%s\t%s\t%s\n", left, short(number(b.lower)), short(number(b.upper)), right, printable(b.count), bar)
	}
	var highest float64
	for _, q := range plottedQuantiles {
		highest = max(highest, h.quantile(q))
	}
	for _, q := range plottedQuantiles {
		v := h.quantile(q)
		if math.IsNaN(v) {
			break // it is empty
		}
		bar := ""
		if highest > 0 && v > 0 {
			bar = strings.Repeat("─", max(1, int(v/highest*maxBar))) + "┤"
		}
		fmt.Fprintf(&out, "  p%g\t%s\t%s\n", 100*q, short(v), bar)
	}
	return out.String()
}

// plottedQuantiles are those that a histogram is shown by.
var plottedQuantiles = []float64{0.5, 0.9, 0.99}

// quantile is the value that a share q of the observations is at or below, as
// if those of a bucket were spread evenly over it; NaN of none.
func (h *histogramPoint) quantile(q float64) float64 {
	total := 0.0
	for _, b := range h.Buckets {
		total += number(b.count)
	}
	if !(total > 0) {
		return math.NaN()
	}
	rank, below := q*total, 0.0
	for _, b := range h.Buckets {
		n := number(b.count)
		if n > 0 && below+n >= rank {
			lower, upper := number(b.lower), number(b.upper)
			return lower + (upper-lower)*(rank-below)/n
		}
		below += n
	}
	return number(h.Buckets[len(h.Buckets)-1].upper)
}

func number(s string) float64 { return point{text: s}.value() }
