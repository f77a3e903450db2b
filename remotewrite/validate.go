package remotewrite

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// view is b as a string, valid as long as b is neither changed nor used again.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// validate sorts ls by name and removes labels with an empty value, which
// mean the same as no label. The error says why what is left is no label set.
func validate(ls []mcache.Label, o *Options) ([]mcache.Label, error) {
	if len(ls) > o.MaxLabels {
		return nil, fmt.Errorf("a series has more than %d labels: %s", o.MaxLabels, describe(ls))
	}
	byName := func(a, b mcache.Label) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(ls, byName) {
		slices.SortFunc(ls, byName)
	}
	named := false
	for i, l := range ls {
		switch {
		case l.Name == "":
			return nil, fmt.Errorf("a label without a name in %s", describe(ls))
		case len(l.Name) > o.MaxLabelNameBytes:
			return nil, fmt.Errorf("a label name has %d bytes, more than %d: %s", len(l.Name), o.MaxLabelNameBytes, wire.Quote(l.Name))
		case len(l.Value) > o.MaxLabelValueBytes:
			return nil, fmt.Errorf("the value of label %s has %d bytes, more than %d, in %s", wire.Quote(l.Name), len(l.Value), o.MaxLabelValueBytes, describe(ls))
		case !utf8.ValidString(l.Name):
			return nil, fmt.Errorf("a label name is not UTF-8: %s", wire.Quote(l.Name))
		case !utf8.ValidString(l.Value):
			return nil, fmt.Errorf("the value of label %s is not UTF-8: %s", wire.Quote(l.Name), wire.Quote(l.Value))
		case i > 0 && l.Name == ls[i-1].Name:
			return nil, fmt.Errorf("label %s occurs twice in %s", wire.Quote(l.Name), describe(ls))
		}
		named = named || l.Name == wire.MetricName && l.Value != ""
	}
	if !named {
		return nil, fmt.Errorf("a series without a metric name: %s", describe(ls))
	}
	return slices.DeleteFunc(ls, func(l mcache.Label) bool { return l.Value == "" }), nil
}

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
