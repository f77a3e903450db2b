package query

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"mcached/mcache"
)

// TestDivide looks at each step by itself.
func TestDivide(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	divided, joined := 0, 0
	for range 5000 {
		g := gridOf{rnd.Int64N(1000), 1 + rnd.Int64N(50), 1 + rnd.IntN(60)}
		w := windows{grid: g, first: window{g.start - rnd.Int64N(100), g.start + rnd.Int64N(50) - 20}}
		var list []mcache.Interval
		for at := rnd.Int64N(500); len(list) < rnd.IntN(9); {
			list = append(list, mcache.Interval{From: at, To: at + rnd.Int64N(400)})
			at = list[len(list)-1].To + 1 + rnd.Int64N(100)
		}
		complete := int64(math.MinInt64)
		if rnd.IntN(3) == 0 {
			complete = rnd.Int64N(1500)
		}
		spans := divide(&w, list, complete, nil)
		here, covered, asked, next := 0, 0, 0, 0
		for _, s := range spans {
			if s.from != next || s.to <= s.from {
				t.Fatalf("%v: not in order", spans)
			}
			next = s.to
			if s.by == fromStore {
				asked++
			}
			for i := s.from; i < s.to && s.by == fromMemory; i++ {
				here++
			}
		}
		for i := range g.n {
			at := w.of(i)
			in := false
			for _, x := range list {
				in = in || at.from >= complete && x.From <= at.from && at.to <= x.To
			}
			if in {
				covered++
			}
			for _, s := range spans {
				if s.by == fromMemory && s.from <= i && i < s.to && !in {
					t.Fatalf("step %d is not covered: %v", i, spans)
				}
			}
		}
		if spans != nil && next != g.n || asked > maxAsked || here > covered {
			t.Fatalf("%d steps: %v", g.n, spans)
		}
		if spans == nil && covered > g.n/2 && len(list) <= maxAsked {
			t.Fatalf("%d of %d steps are covered, and are not used", covered, g.n)
		}
		if spans != nil {
			divided++
			if here < covered {
				joined++
			}
		}
	}
	if divided < 1000 || joined < 50 {
		t.Errorf("%d queries were divided, %d into fewer parts than there are", divided, joined)
	}
}

// TestIndivisible: what picks from, or joins, series of all of a range is not
// divided, wherever in an expression it stands; its neighbours are.
func TestIndivisible(t *testing.T) {
	p := newBoundedParser((&Features{ExperimentalFunctions: true}).parserOptions())
	for expr, divisible := range map[string]bool{
		`info(m)`:                             false,
		`sum(rate(n[5m])) + info(m, {a="b"})`: false,
		`limitk(1, m)`:                        false,
		`max(limitk by (a) (2, m))`:           false,
		`limit_ratio(0.5, m)`:                 false,
		`rate({__name__=~"a|b"}[5m])`:         false,
		`rate({a="b"}[5m])`:                   false,
		`topk(1, m)`:                          true,
		`sort_by_label(m, "a")`:               true,
		`rate({__name__="a"}[5m])`:            true,
		`{__name__=~"a|b"}`:                   true,
	} {
		parsed, err := p.ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		if why := indivisible(parsed); (why == "") != divisible {
			t.Errorf("%s: %q", expr, why)
		}
	}
}

// TestWindowsOf is what the engine itself would look at.
func TestWindowsOf(t *testing.T) {
	p := newBoundedParser(new(Features).parserOptions())
	g := gridOf{1_000_000, 10_000, 5}
	for expr, want := range map[string]string{
		"m":                        "{700001 1000000} {740001 1040000}",
		"m offset 1m":              "{640001 940000} {680001 980000}",
		"m[1m] offset -1m":         "{1000001 1060000} {1040001 1100000}",
		"sum(m) + rate(n[1h])":     "{-2599999 1000000} {-2559999 1040000}",
		"m @ start()":              "{700001 1000000} {700001 1000000}",
		"m @ 5 + n":                "{-294999 1000000} {-294999 1040000}",
		"rate(m[range()])":         "{960001 1000000} {1000001 1040000}",
		"max_over_time(m[10m:1m])": "{100001 1000000} {140001 1040000}",
	} {
		parsed, err := p.ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		resolved, err := resolve(parsed, time.UnixMilli(g.start), time.UnixMilli(g.time(4)), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		w := windowsOf(resolved, g, 5*time.Minute)
		if got := fmt.Sprint(w.of(0), w.of(4)); got != want {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
}
