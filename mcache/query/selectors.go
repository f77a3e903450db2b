package query

import (
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
)

// keptSelectors remembers what selectors of lookups have been parsed to: a dashboard
// asks for the same again and again, and compiling a regular expression takes as long
// as finding a hundred series. It holds two generations, as LabelCache does: what is
// found in the old one moves to the young one, which takes its place when it is full.
// It is safe for concurrent use.
type keptSelectors struct {
	mu         sync.Mutex
	young, old map[string][]*labels.Matcher
	youngBytes int
}

const (
	// keptSelectorBytes is what a generation may have: some hundred selectors.
	keptSelectorBytes = 2 << 20
	// A longer selector is not kept, nor is one that bytesOf can not tell the size of.
	maxKeptSelector = 256
	// What is compiled has an instruction for about each byte of an expression, of 40
	// bytes and of twice that for where there is one way only. A class has more than that.
	bytesOfPatternByte = 256
	bytesOfSelector    = 1 << 10
)

// get returns the matchers of a selector, for the caller to order.
func (k *keptSelectors) get(text string) ([]*labels.Matcher, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ms, ok := k.young[text]
	if !ok {
		if ms, ok = k.old[text]; ok {
			k.putLocked(text, ms)
		}
	}
	return slices.Clone(ms), ok
}

// put keeps a selector, which must be no view of a buffer, and its matchers, which
// remain the caller's to order.
func (k *keptSelectors) put(text string, ms []*labels.Matcher) {
	if len(text) > maxKeptSelector || slices.ContainsFunc(ms, swells) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.putLocked(text, slices.Clone(ms))
}

// swells reports that few bytes of a regular expression may be many when it is compiled:
// those of repetitions and of classes of Unicode.
func swells(m *labels.Matcher) bool {
	regexp := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp
	return regexp && (strings.Contains(m.Value, "{") || strings.Contains(m.Value, `\p`) || strings.Contains(m.Value, `\P`))
}

func (k *keptSelectors) putLocked(text string, ms []*labels.Matcher) {
	if _, ok := k.young[text]; ok {
		return
	}
	size := bytesOfSelector + bytesOfPatternByte*len(text)
	if k.youngBytes+size > keptSelectorBytes || k.young == nil {
		k.old, k.young, k.youngBytes = k.young, map[string][]*labels.Matcher{}, 0
	}
	k.young[text] = ms
	k.youngBytes += size
}
