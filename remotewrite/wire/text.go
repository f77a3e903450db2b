package wire

import (
	"iter"
	"strconv"
	"strings"
)

// Bounds of what an answer or a log line quotes of a request.
const (
	maxQuotedBytes  = 64
	maxQuotedLabels = 12
	maxMetricBytes  = 200 // of a metric's name: it is what people look for
)

// Quote quotes the beginning of s.
func Quote(s string) string {
	if len(s) <= maxQuotedBytes {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:maxQuotedBytes]) + "…"
}

// Describe copies a label set into a line of text, as PromQL writes it: the
// name of the metric first, however many labels there are and wherever it lies
// among them, then the first of the others.
func Describe(labels iter.Seq2[string, string]) string {
	var s strings.Builder
	metric, named := "", false
	for name, value := range labels {
		if name == MetricName {
			metric, named = value, true
			break
		}
	}
	plain := isPlain(metric) && len(metric) <= maxMetricBytes
	if plain {
		s.WriteString(metric)
	}
	s.WriteString("{")
	n := 0
	if named && !plain {
		s.WriteString(strconv.Quote(metric[:min(len(metric), maxMetricBytes)]))
		n++
	}
	for name, value := range labels {
		if name == MetricName && named {
			named = false // one more of that name is shown
			continue
		}
		if n > 0 {
			s.WriteString(", ")
		}
		if n == maxQuotedLabels {
			s.WriteString("…")
			break
		}
		if isPlain(name) && len(name) <= maxQuotedBytes {
			s.WriteString(name)
		} else {
			s.WriteString(Quote(name))
		}
		s.WriteString("=")
		s.WriteString(Quote(value))
		n++
	}
	s.WriteString("}")
	return s.String()
}

// isPlain reports whether PromQL takes a name without quotes.
func isPlain(name string) bool {
	for i, c := range []byte(name) {
		if c != '_' && c != ':' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
