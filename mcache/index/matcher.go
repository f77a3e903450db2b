package index

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// MatchType says how a Matcher compares.
type MatchType uint8

// The four kinds of PromQL.
const (
	MatchEqual     MatchType = iota // =
	MatchNotEqual                   // !=
	MatchRegexp                     // =~
	MatchNotRegexp                  // !~
)

func (t MatchType) String() string { return [...]string{"=", "!=", "=~", "!~"}[t&3] }

// Matcher selects series by one label. A series without the label has the
// empty value. For regular expressions Matches is required; it is the whole
// decision, negation included, as Prometheus' labels.Matcher.Matches is; it must
// not keep the value, which is valid only while it runs. Set
// and Prefix are optional knowledge about the expression: if Set is not empty
// it matches exactly these values; all that it matches begins with Prefix.
// Syntax, if not empty, names the language of Value and promises that Matches
// depends on nothing else: matchers of the same Syntax, Type, Name and Value
// decide alike, and the cache may remember what was decided.
type Matcher struct {
	Type        MatchType
	Name, Value string
	Matches     func(value string) bool
	Prefix      string
	Set         []string
	Syntax      string
}

// NewMatcher makes a Matcher; regular expressions are RE2, anchored at both
// ends, and their dot matches newlines, as in PromQL.
func NewMatcher(t MatchType, name, value string) (Matcher, error) {
	m := Matcher{Type: t, Name: name, Value: value}
	if t > MatchNotRegexp {
		return Matcher{}, fmt.Errorf("mcache: unknown kind of matcher: %d", t)
	}
	if t == MatchEqual || t == MatchNotEqual {
		return m, nil
	}
	re, err := regexp.Compile("^(?s:" + value + ")$")
	if err != nil {
		return Matcher{}, fmt.Errorf("mcache: matcher %s%s%q: %w", name, t, value, err)
	}
	m.Matches = func(v string) bool { return re.MatchString(v) == (t == MatchRegexp) }
	m.Set, m.Prefix = knowledge(value)
	m.Syntax = "RE2"
	return m, nil
}

// maxSet bounds how many literals an alternation is taken apart into.
const maxSet = 256

// knowledge detects whether an expression is an alternation of literals, or
// begins with one.
func knowledge(value string) (set []string, prefix string) {
	re, err := syntax.Parse(value, syntax.Perl|syntax.DotNL)
	if err != nil {
		return nil, ""
	}
	re = re.Simplify()
	if set, ok := literals(re); ok {
		return set, ""
	}
	if re.Op == syntax.OpConcat && re.Sub[0].Op == syntax.OpLiteral && re.Sub[0].Flags&syntax.FoldCase == 0 {
		return nil, string(re.Sub[0].Rune)
	}
	return nil, ""
}

// literals lists all strings that re matches, if they are few.
func literals(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpLiteral:
		return []string{string(re.Rune)}, re.Flags&syntax.FoldCase == 0
	case syntax.OpCapture:
		return literals(re.Sub[0])
	case syntax.OpCharClass:
		var all []string
		for i := 0; i < len(re.Rune); i += 2 {
			if int(re.Rune[i+1]-re.Rune[i])+len(all) >= maxSet {
				return nil, false
			}
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				all = append(all, string(r))
			}
		}
		return all, true
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			s, ok := literals(sub)
			if !ok || len(all)+len(s) > maxSet {
				return nil, false
			}
			all = append(all, s...)
		}
		return all, true
	case syntax.OpConcat:
		all := []string{""}
		for _, sub := range re.Sub {
			s, ok := literals(sub)
			if !ok || len(all)*len(s) > maxSet {
				return nil, false
			}
			var next []string
			for _, a := range all {
				for _, b := range s {
					next = append(next, a+b)
				}
			}
			all = next
		}
		return all, true
	}
	return nil, false
}

// Decide is the decision for any kind.
func (m *Matcher) Decide(value string) bool {
	switch m.Type {
	case MatchEqual:
		return value == m.Value
	case MatchNotEqual:
		return value != m.Value
	}
	return m.Matches(value)
}

// maxRemembered is how many values a matcher remembers its answer for.
const maxRemembered = 4096

// Remembering is ms with regular expressions that remember what they said:
// every shard asks about nearly the same values.
func Remembering(ms []Matcher) []Matcher {
	ms = slices.Clone(ms)
	for i := range ms {
		m := &ms[i]
		if _, ok := m.Candidates(); m.Type < MatchRegexp || ok && m.Positive() {
			continue // it is not asked
		}
		matches, known := m.Matches, map[string]bool{}
		m.Matches = func(v string) bool {
			yes, ok := known[v]
			if !ok {
				if yes = matches(v); len(known) < maxRemembered {
					known[strings.Clone(v)] = yes
				}
			}
			return yes
		}
	}
	return ms
}

// Positive reports whether m says which values match, not which do not.
func (m *Matcher) Positive() bool { return m.Type == MatchEqual || m.Type == MatchRegexp }

// inverse is the condition that m denies.
func (m *Matcher) inverse() Matcher {
	n := *m
	n.Type ^= 1
	if m.Matches != nil {
		n.Matches = func(v string) bool { return !m.Matches(v) }
	}
	return n
}

// Candidates are the literal values that a positive matcher can match, if they are known.
func (m *Matcher) Candidates() ([]string, bool) {
	if m.Type == MatchEqual {
		return []string{m.Value}, true
	}
	return m.Set, len(m.Set) > 0
}

// Check rejects what Match cannot answer.
func (m *Matcher) Check() error {
	if m.Type > MatchNotRegexp || m.Type >= MatchRegexp && m.Matches == nil {
		return fmt.Errorf("mcache: matcher %q of kind %d without a function", m.Name, m.Type)
	}
	if m.Name == BucketName || m.Name == RawName {
		return fmt.Errorf("mcache: matcher of the name %q", m.Name)
	}
	return nil
}

func (m *Matcher) hasPrefix(value []byte) bool { return strings.HasPrefix(string(value), m.Prefix) }
