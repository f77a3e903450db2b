package ingest

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"mcached/mcache"
)

// A key as a selector of PromQL, and a selector as a key.

// metricName is the value of __name__ that a key implies: the key, or what Go
// quotes it as where no label may have that value, as "" and "\xff".
func metricName(key string) string {
	if key == "" || !utf8.ValidString(key) {
		return strconv.Quote(key)
	}
	return key
}

// selector writes a label set as PromQL does: name{a="b"}, or the name alone.
func selector(labels []mcache.Label) string {
	var b strings.Builder
	i := slices.IndexFunc(labels, func(l mcache.Label) bool { return l.Name == nameLabel })
	named := i >= 0 && !strings.ContainsAny(labels[i].Value, "{\"")
	if named {
		b.WriteString(labels[i].Value)
		if len(labels) == 1 {
			return b.String()
		}
	}
	sep := "{"
	for j, l := range labels {
		if named && j == i {
			continue
		}
		b.WriteString(sep)
		sep = ","
		if identifier(l.Name) {
			b.WriteString(l.Name)
		} else {
			b.WriteString(strconv.Quote(l.Name))
		}
		b.WriteString("=" + strconv.Quote(l.Value))
	}
	b.WriteString("}")
	return b.String()
}

// parseSelector reads what selector writes, if there are braces in it.
func parseSelector(s string) ([]mcache.Label, bool) {
	i := strings.IndexByte(s, '{')
	if i < 0 || s[len(s)-1] != '}' {
		return nil, false
	}
	var labels []mcache.Label
	if i > 0 {
		labels = append(labels, mcache.Label{Name: nameLabel, Value: s[:i]})
	}
	for rest := s[i+1:]; rest != "}"; {
		var l mcache.Label
		if q, err := strconv.QuotedPrefix(rest); err == nil {
			l.Name, _ = strconv.Unquote(q)
			rest = rest[len(q):]
		} else if eq := strings.IndexByte(rest, '='); eq > 0 && identifier(rest[:eq]) {
			l.Name, rest = rest[:eq], rest[eq:]
		} else {
			return nil, false
		}
		value, ok := strings.CutPrefix(rest, "=")
		q, err := strconv.QuotedPrefix(value)
		if !ok || err != nil || q[0] != '"' {
			return nil, false
		}
		l.Value, _ = strconv.Unquote(q)
		labels = append(labels, l)
		rest = value[len(q):]
		if next, ok := strings.CutPrefix(rest, ","); ok && next != "}" {
			rest = next
		} else if rest != "}" {
			return nil, false
		}
	}
	return labels, len(labels) > 0
}

func identifier(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}
