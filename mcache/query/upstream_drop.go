package query

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// dropping is a Source whose series lack some labels: those that senders add on
// their way, as external_labels are, and that the store behind has not. With
// them no series here would be the same as one there.
type dropping struct {
	Source
	names []string
}

// without is a selection as it reads where nothing has these labels. False means
// that it is of nothing.
func (d dropping) without(s Selection) (Selection, bool) {
	var rest []*labels.Matcher
	for _, m := range s.Matchers {
		if !slices.Contains(d.names, m.Name) {
			rest = append(rest, m)
		} else if !m.Matches("") {
			return s, false
		}
	}
	s.Matchers = rest
	return s, true
}

// Select implements Source.
func (d dropping) Select(ctx context.Context, s Selection) (Found, error) {
	rest, some := d.without(s)
	if !some {
		return nothingFound{}, nil
	}
	found, err := d.Source.Select(ctx, rest)
	if err != nil {
		return nil, err
	}
	return &droppingFound{Found: found, names: d.names, builder: labels.NewBuilder(labels.EmptyLabels())}, nil
}

// LabelNames implements Source.
func (d dropping) LabelNames(ctx context.Context, s Selection, limit int) (Texts, error) {
	rest, some := d.without(s)
	if !some {
		return Texts{Missing: nothingMissing}, nil
	}
	if limit > 0 {
		limit += len(d.names)
	}
	t, err := d.Source.LabelNames(ctx, rest, limit)
	t.List = slices.DeleteFunc(t.List, func(name string) bool { return slices.Contains(d.names, name) })
	if limit > 0 && len(t.List) > limit-len(d.names) {
		t.List = t.List[:limit-len(d.names)]
	}
	return t, err
}

// LabelValues implements Source.
func (d dropping) LabelValues(ctx context.Context, name string, s Selection, limit int) (Texts, error) {
	rest, some := d.without(s)
	if !some || slices.Contains(d.names, name) {
		return Texts{Missing: nothingMissing}, nil
	}
	return d.Source.LabelValues(ctx, name, rest, limit)
}

// Coverage is that of the source, if it knows.
func (d dropping) Coverage(bucket string) []mcache.Interval {
	if c, ok := d.Source.(coverer); ok {
		return c.Coverage(bucket)
	}
	return nil
}

// CoveredFrom is that of the source, if it knows.
func (d dropping) CoveredFrom(bucket string, from, to int64) (complete int64, ok bool) {
	if c, ok := d.Source.(interface {
		CoveredFrom(bucket string, from, to int64) (complete int64, ok bool)
	}); ok {
		return c.CoveredFrom(bucket, from, to)
	}
	return 0, false
}

// droppingFound is a Found whose series lack some labels.
type droppingFound struct {
	Found
	names   []string
	builder *labels.Builder
}

// Labels implements Found.
func (f *droppingFound) Labels(i int) (labels.Labels, bool) {
	ls, ok := f.Found.Labels(i)
	if !ok {
		return ls, false
	}
	f.builder.Reset(ls)
	return f.builder.Del(f.names...).Labels(), true
}

// CompleteFrom is that of the series, as far as it is known.
func (f *droppingFound) CompleteFrom(i int) int64 { return knownComplete(f.Found, i) }

// nothingFound is what a selection of nothing finds.
type nothingFound struct{}

func (nothingFound) Len() int                                          { return 0 }
func (nothingFound) Missing() Missing                                  { return nothingMissing }
func (nothingFound) Labels(int) (labels.Labels, bool)                  { return labels.EmptyLabels(), false }
func (nothingFound) Snapshot(int, int64, int64, *mcache.Snapshot) bool { return false }
