package index

import (
	"strings"
	"unsafe"
)

// answers is what an index remembers of regular expressions: which pairs each
// matches. Dashboards ask with the same ones again and again, and to ask an
// expression about every value of a label is most of the price of a select.
//
// Pairs are only added, and numbered in order, until the index is written anew:
// what came after an expression was asked is all that is left to look at.
type answers struct {
	of   map[question]*answer
	kept int // pairs in all
}

// question is a Matcher that says what it depends on.
type question struct {
	syntax, name, value string
	kind                MatchType
}

type answer struct {
	pairs []uint32 // that match, live or not
	seen  int      // pairs looked at: all with lower numbers
}

// Bounds of what an index remembers, 64 KiB of it on the heap: at most 4 MiB for
// 64 shards, which no default exceeds.
const (
	maxAnswers     = 64
	maxAnswerPairs = 16 << 10
)

// remembered lists the live pairs of a name that a regular expression matches.
func (x *Index) remembered(name uint32, m *Matcher) []uint32 {
	q := question{m.Syntax, m.Name, m.Value, m.Type}
	a := x.answers.of[q]
	if a == nil {
		a = &answer{}
		for p := x.names.At(name).firstPair; p != None; p = x.pairs.At(p).nextPair {
			if x.matchesPair(m, p) {
				a.pairs = append(a.pairs, p)
			}
		}
		x.answers.keep(q, a)
	} else {
		before := len(a.pairs)
		for p := a.seen; p < x.pairs.Len(); p++ {
			if x.pairs.At(uint32(p)).name == name && x.matchesPair(m, uint32(p)) {
				a.pairs = append(a.pairs, uint32(p))
			}
		}
		if x.answers.kept += len(a.pairs) - before; x.answers.kept > maxAnswerPairs {
			x.answers = answers{}
		}
	}
	a.seen = x.pairs.Len()
	var live []uint32
	for _, p := range a.pairs {
		if x.pairs.At(p).live > 0 {
			live = append(live, p)
		}
	}
	return live
}

// keep remembers an answer. When there are too many, all are forgotten: those
// that are asked again soon are back soon.
func (as *answers) keep(q question, a *answer) {
	if len(a.pairs) > maxAnswerPairs/4 {
		return
	}
	if as.of == nil || len(as.of) == maxAnswers || as.kept+len(a.pairs) > maxAnswerPairs {
		*as = answers{of: make(map[question]*answer)}
	}
	// The strings may be parts of a request.
	q.syntax, q.name, q.value = strings.Clone(q.syntax), strings.Clone(q.name), strings.Clone(q.value)
	as.of[q] = a
	as.kept += len(a.pairs)
}

// matchesPair reports whether m matches the value of a pair.
func (x *Index) matchesPair(m *Matcher, p uint32) bool {
	v := x.Value(p)
	return m.hasPrefix(v) && m.Decide(unsafe.String(unsafe.SliceData(v), len(v)))
}
