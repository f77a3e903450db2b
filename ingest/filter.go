package ingest

import (
	"fmt"
	"slices"
	"strings"

	"mcached/mcache"
)

// A filter is one expression behind FILTER: l=v, l!=v, l=, l!=, l=(a,b), l!=(a,b).
type filter struct {
	label string
	set   []string // what the label has to be, or not, sorted; "" is a label that is not there
	not   bool
}

// positive says that the filter narrows the search: at least one has to.
func (f *filter) positive() bool { return !f.not && !slices.Equal(f.set, []string{""}) }

func (f *filter) matches(labels []mcache.Label) bool {
	value := ""
	for _, l := range labels {
		if l.Name == f.label {
			value = l.Value
		}
	}
	return f.has(value) != f.not
}

// has reports whether value is in the list, which may be as long as a command is.
func (f *filter) has(value string) bool {
	_, found := slices.BinarySearch(f.set, value)
	return found
}

func (f *filter) matcher() mcache.Matcher {
	m := mcache.Matcher{Name: f.label}
	switch {
	case len(f.set) == 1 && f.not:
		m.Type, m.Value = mcache.MatchNotEqual, f.set[0]
	case len(f.set) == 1:
		m.Type, m.Value = mcache.MatchEqual, f.set[0]
	case f.not:
		m.Type, m.Matches = mcache.MatchNotRegexp, func(v string) bool { return !f.has(v) }
	default:
		m.Type, m.Set, m.Matches = mcache.MatchRegexp, f.set, f.has
	}
	return m
}

// parseFilter reads one expression.
func parseFilter(b []byte) (f filter, ok bool) {
	i := strings.IndexByte(string(b), '=')
	if i <= 0 {
		return f, false
	}
	label, value := string(b[:i]), string(b[i+1:])
	if f.label, f.not = strings.CutSuffix(label, "!"); f.label == "" {
		return f, false
	}
	inner, list := strings.CutPrefix(value, "(")
	if !list {
		f.set = []string{unquote(value)}
		return f, true
	}
	if inner, list = strings.CutSuffix(inner, ")"); !list {
		return f, false
	}
	for more := true; more; {
		var v string
		if strings.HasPrefix(inner, `"`) {
			end := strings.IndexByte(inner[1:], '"')
			if end < 0 {
				return f, false
			}
			v, inner = inner[1:1+end], inner[end+2:]
			if inner != "" && inner[0] != ',' {
				return f, false
			}
			inner, more = strings.CutPrefix(inner, ",")
		} else {
			v, inner, more = strings.Cut(inner, ",")
		}
		if v = strings.TrimSpace(v); v == "" {
			return f, false // as in (a,) and (a,,b)
		}
		f.set = append(f.set, v)
	}
	slices.Sort(f.set)
	f.set = slices.Compact(f.set)
	return f, true
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// maxFilters bounds the filters of a command: each looks at all series that those
// before it have left.
const maxFilters = 1024

// parseFilters reads all of them, or says what is wrong.
func parseFilters(args [][]byte) (fs []filter, problem string) {
	if len(args) > maxFilters {
		return nil, fmt.Sprintf("%d filters are too many, the limit is %d, which no setting changes", len(args), maxFilters)
	}
	positive := false
	for _, a := range args {
		f, ok := parseFilter(a)
		if !ok {
			return nil, "failed parsing labels"
		}
		positive = positive || f.positive()
		fs = append(fs, f)
	}
	if !positive {
		return nil, "please provide at least one matcher"
	}
	return fs, ""
}
