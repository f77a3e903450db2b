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
)

// Quote quotes the beginning of s.
func Quote(s string) string {
	if len(s) <= maxQuotedBytes {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:maxQuotedBytes]) + "…"
}

// Describe copies the names and values of a label set into a line of text.
func Describe(labels iter.Seq2[string, string]) string {
	var s strings.Builder
	s.WriteString("{")
	n := 0
	for name, value := range labels {
		if n > 0 {
			s.WriteString(", ")
		}
		if n == maxQuotedLabels {
			s.WriteString("…")
			break
		}
		s.WriteString(Quote(name))
		s.WriteString("=")
		s.WriteString(Quote(value))
		n++
	}
	s.WriteString("}")
	return s.String()
}
