package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("l%02d", i), "v")
	}
	for want, pairs := range map[string][]string{
		`{}`:                   nil,
		`up{}`:                 {"__name__", "up"},
		`up{job="a", x="b"}`:   {"job", "a", "__name__", "up", "x", "b"},
		`{"a.b", job="a"}`:     {"__name__", "a.b", "job", "a"},
		`{job="a", "a.b"="c"}`: {"job", "a", "a.b", "c"},
		`up{__name__="other"}`: {"__name__", "up", "__name__", "other"},
		`{"", job="a"}`:        {"__name__", "", "job", "a"},
		`up{x="` + strings.Repeat("y", 64) + `"…}`: {"__name__", "up", "x", strings.Repeat("y", 65)},
		`last{l00="v", l01="v", l02="v", l03="v", l04="v", l05="v", l06="v", l07="v", l08="v", l09="v", l10="v", l11="v", …}`: append(many, "__name__", "last"),
	} {
		got := Describe(func(yield func(string, string) bool) {
			for i := 0; i < len(pairs); i += 2 {
				if !yield(pairs[i], pairs[i+1]) {
					return
				}
			}
		})
		if got != want {
			t.Errorf("%q is described as\n%s\nwant\n%s", pairs, got, want)
		}
	}
}
