package remotewrite

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// validate sorts ls by name and removes labels with an empty value, which
// mean the same as no label. The error says why what is left is no label set,
// but not of which series.
func validate(ls []mcache.Label, o *Options) ([]mcache.Label, error) {
	if len(ls) > o.MaxLabels {
		return nil, errTooManyLabels
	}
	byName := func(a, b mcache.Label) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(ls, byName) {
		slices.SortFunc(ls, byName)
	}
	named := false
	for i, l := range ls {
		switch {
		case l.Name == "":
			return nil, errors.New("a label without a name")
		case len(l.Name) > o.MaxLabelNameBytes:
			return nil, fmt.Errorf("a label name has %d bytes, more than %d%s: %s",
				len(l.Name), o.MaxLabelNameBytes, o.flag("MaxLabelNameBytes"), wire.Quote(l.Name))
		case len(l.Value) > o.MaxLabelValueBytes:
			return nil, fmt.Errorf("the value of label %s has %d bytes, more than %d%s",
				wire.Quote(l.Name), len(l.Value), o.MaxLabelValueBytes, o.flag("MaxLabelValueBytes"))
		case !utf8.ValidString(l.Name):
			return nil, fmt.Errorf("a label name is not UTF-8: %s", wire.Quote(l.Name))
		case !utf8.ValidString(l.Value):
			return nil, fmt.Errorf("the value of label %s is not UTF-8: %s", wire.Quote(l.Name), wire.Quote(l.Value))
		case i > 0 && l.Name == ls[i-1].Name:
			return nil, fmt.Errorf("label %s occurs twice", wire.Quote(l.Name))
		}
		named = named || l.Name == wire.MetricName && l.Value != ""
	}
	if !named {
		return nil, errors.New("a series without a metric name")
	}
	return slices.DeleteFunc(ls, func(l mcache.Label) bool { return l.Value == "" }), nil
}

// errTooManyLabels becomes a text that says how many there are when the series
// is described.
var errTooManyLabels = errors.New("too many labels")

// describe copies a label set into a line of text.
func describe(ls []mcache.Label) string {
	return wire.Describe(func(yield func(name, value string) bool) {
		for _, l := range ls {
			if !yield(l.Name, l.Value) {
				return
			}
		}
	})
}
