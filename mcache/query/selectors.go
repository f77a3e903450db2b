package query

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// keptSelectors remembers what selectors of lookups have been parsed to: a dashboard
// asks for the same again and again, and compiling a regular expression takes as long
// as finding a hundred series.
type keptSelectors struct {
	generations[string, []*labels.Matcher]
}

func newKeptSelectors() *keptSelectors {
	return &keptSelectors{generations[string, []*labels.Matcher]{maxBytes: keptSelectorBytes, size: func(text string, _ []*labels.Matcher) int {
		return bytesOfSelector + bytesOfPatternByte*len(text)
	}}}
}

const (
	// keptSelectorBytes is what a generation may have: some hundred selectors.
	keptSelectorBytes = 2 << 20
	// A longer selector is not kept, nor is one that swells.
	maxKeptSelector = 256
	// What is compiled has an instruction for about each byte of an expression, of 40
	// bytes and of twice that for where there is one way only. A class has more than that.
	bytesOfPatternByte = 256
	bytesOfSelector    = 1 << 10
)

// of returns the matchers of a selector, for the caller to order.
func (k *keptSelectors) of(text string) ([]*labels.Matcher, bool) {
	ms, ok := k.get(text)
	return slices.Clone(ms), ok
}

// keep keeps a selector, which must be no view of a buffer, and its matchers, which
// remain the caller's to order.
func (k *keptSelectors) keep(text string, ms []*labels.Matcher) {
	if len(text) <= maxKeptSelector && !slices.ContainsFunc(ms, swells) {
		k.put(text, slices.Clone(ms))
	}
}

// swells reports that few bytes of a regular expression may be many when it is compiled:
// those of repetitions and of classes of Unicode.
func swells(m *labels.Matcher) bool {
	regexp := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp
	return regexp && (strings.Contains(m.Value, "{") || strings.Contains(m.Value, `\p`) || strings.Contains(m.Value, `\P`))
}
