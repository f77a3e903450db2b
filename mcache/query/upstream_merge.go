package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// Merging: series of all parts in the order of their labels, points in the order
// of the parts, and notes of both sides as one list.

// merge writes the series of all parts. limit bounds how many.
func (j *joint) merge(w *jsonWriter) (truncated bool, err error) {
	parts := j.parts()
	live := make([]bool, len(parts))
	for i, p := range parts {
		if live[i], err = p.next(); err != nil {
			return false, err
		}
	}
	var now []int
	for n := 0; ; n++ {
		now = now[:0]
		for i, p := range parts {
			if !live[i] {
				continue
			}
			order := -1
			if len(now) > 0 {
				order = labels.Compare(p.series(), parts[now[0]].series())
			}
			if order < 0 {
				now = now[:0]
			}
			if order <= 0 {
				now = append(now, i)
			}
		}
		if len(now) == 0 {
			return truncated, nil
		}
		if truncated = j.limit > 0 && n >= j.limit; !truncated {
			w.comma(n)
			if !writeSeries(w, parts, now) {
				return false, w.err
			}
		}
		for _, i := range now {
			if live[i], err = parts[i].next(); err != nil {
				return truncated, err
			}
		}
		if truncated {
			return true, j.finish()
		}
	}
}

// finish reads the rest of the store's answers, for its notes.
func (j *joint) finish() error {
	for _, p := range j.askeds {
		for p.reading != nil && !p.read {
			if _, err := p.nextParcel(); err != nil {
				return err
			}
		}
	}
	return nil
}

// parts are the halves in the order of their steps.
func (j *joint) parts() (parts []half) {
	type placed struct {
		half
		from int
	}
	var all []placed
	for _, h := range j.heres {
		all = append(all, placed{h, h.span.from})
	}
	for _, p := range j.askeds {
		all = append(all, placed{p, p.from})
	}
	for _, p := range j.recalls {
		all = append(all, placed{p, p.from})
	}
	slices.SortFunc(all, func(a, b placed) int { return a.from - b.from })
	for _, p := range all {
		parts = append(parts, p.half)
	}
	return parts
}

// writeSeries writes a series that some of the parts have.
func writeSeries(w *jsonWriter, parts []half, of []int) bool {
	w.raw(`{"metric":`)
	w.labels(parts[of[0]].series())
	for kind := range pointKeys {
		k, n := pointKind(kind), 0
		for _, i := range of {
			if !parts[i].has(k) {
				continue
			}
			if n == 0 {
				w.raw(`,"` + pointKeys[k] + `":[`)
			}
			w.comma(n)
			n++
			if !parts[i].write(w, k) {
				return false
			}
		}
		if n > 0 {
			w.raw("]")
		}
	}
	w.raw("}")
	return w.more()
}

// uniteNotes adds what the store notes to what memory does: a note of the same
// kind about the same place is one.
func (j *joint) uniteNotes(ours, theirs []string) []string {
	for _, note := range theirs {
		note = originalPosition(note, j.d.at)
		if !slices.ContainsFunc(ours, func(our string) bool { return sameNote(our, note) }) {
			ours = append(ours, note)
		}
	}
	const more = " annotations omitted"
	if n := len(ours) - maxNotes; n > 0 && !strings.HasSuffix(ours[len(ours)-1], more) {
		kind := "warning"
		if strings.HasPrefix(ours[0], promqlInfo) {
			kind = "info"
		}
		ours = append(ours[:maxNotes], fmt.Sprintf("%d more %s%s", n, kind, more))
	}
	return ours
}

const promqlInfo = "PromQL info"

// sameNote reports that two notes are of the same kind and place: what they say
// of numbers may differ with the steps that they are about.
func sameNote(a, b string) bool {
	if a == b {
		return true
	}
	// input to histogram_quantile needed to be fixed…, from buckets … over … (1:20)
	cutA, _, okA := strings.Cut(a, ", from buckets ")
	cutB, _, okB := strings.Cut(b, ", from buckets ")
	return okA && okB && cutA == cutB && a[strings.LastIndex(a, " ("):] == b[strings.LastIndex(b, " ("):]
}
