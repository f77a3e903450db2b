package index

import (
	"fmt"
	"strings"
	"testing"
)

func mustMatcher(t testing.TB, kind MatchType, name, value string) Matcher {
	t.Helper()
	m, err := NewMatcher(kind, name, value)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestKnowledge holds what NewMatcher knows of expressions to the
// expressions themselves.
func TestKnowledge(t *testing.T) {
	for value, want := range map[string]string{
		"a|b|c": "[a b c] ", "ab.*": "[] ab", "a[bc]": "[ab ac] ", "(a|b)c": "[ac bc] ", "": "[] ", "abc": "[abc] ",
		"(?i)abc": "[] ", ".*": "[] ", "a+": "[] ", "x(y|z.*)": "[] x", "[a-z]{3}": "[] ",
	} {
		m := mustMatcher(t, MatchRegexp, "n", value)
		if got := fmt.Sprint(m.Set, " ", m.Prefix); strings.TrimSpace(got) != strings.TrimSpace(want) && value != "" {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
		for _, v := range m.Set {
			if !m.Matches(v) {
				t.Errorf("%q does not match %q of its set", value, v)
			}
		}
	}
	if _, err := NewMatcher(MatchRegexp, "n", "("); err == nil {
		t.Error("a broken expression is taken")
	}
}
