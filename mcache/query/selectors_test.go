package query

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// TestKeptSelectors: selectors that were parsed before are what the parser makes of
// them, whatever becomes of the order of their matchers.
func TestKeptSelectors(t *testing.T) {
	p := newBoundedParser(parser.Options{})
	keeps := map[string]bool{
		`m{a="1",b=~"x.*y"}`: true, `{a!="",b!~"a|b"}`: true, `m`: true,
		`m{b=~"[0-9]{3}"}`: false, `m{b!~"\\\\pL"}`: false, `m{`: false, `m{a=~"("}`: false,
		`m{a="` + strings.Repeat("x", maxKeptSelector) + `"}`: false,
	}
	inputs := slices.Collect(maps.Keys(keeps))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 200 {
				asked := []string{inputs[i%len(inputs)], inputs[i/3%len(inputs)]}
				got, err := p.ParseMetricSelectors(asked)
				want, wantErr := p.Parser.ParseMetricSelectors(asked)
				if fmt.Sprint(got, err) != fmt.Sprint(want, wantErr) {
					t.Errorf("%q: got %v, %v, want %v, %v", asked, got, err, want, wantErr)
				}
				for _, ms := range got {
					slices.Reverse(ms)
				}
			}
		})
	}
	all.Wait()
	for input, want := range keeps {
		if _, got := p.selectors.young[input]; got != want {
			t.Errorf("%s is kept: %t", input, got)
		}
	}
}

// TestKeptSelectorsBound: one that is asked for all the time stays, and all of them are
// no more than they may be.
func TestKeptSelectorsBound(t *testing.T) {
	p := newBoundedParser(parser.Options{})
	var first *labels.Matcher
	for i := range 2000 {
		sets, err := p.ParseMetricSelectors([]string{`m{a=~"x.*"}`, fmt.Sprintf(`m{a=~"%d.*"}`, i)})
		if err != nil {
			t.Fatal(err)
		}
		if of := sets[0][0]; first == nil {
			first = of
		} else if first != of {
			t.Fatalf("after %d others it was parsed again", i)
		}
		if n := len(p.selectors.young) * bytesOfSelector; n > keptSelectorBytes || p.selectors.youngBytes > keptSelectorBytes {
			t.Fatalf("%d selectors are kept", len(p.selectors.young))
		}
	}
	if n := len(p.selectors.young) + len(p.selectors.old); n > 1500 {
		t.Errorf("%d selectors are kept", n)
	}
}
