package query

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// sameAsParsed wants all expressions that are kept to be what the parser makes of their
// texts, whatever was done with them, and some to be kept.
func sameAsParsed(t *testing.T, a *API) {
	t.Helper()
	kept := &a.parser.expressions.generations
	if len(kept.young) == 0 {
		t.Error("no expression is kept")
	}
	for _, of := range []map[string]parser.Expr{kept.young, kept.old} {
		for text, expr := range of {
			want, err := a.parser.ParseExpr(text)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := parser.Tree(expr), parser.Tree(want); got != want {
				t.Errorf("%s has become\n%swant\n%s", text, got, want)
			}
			// Trees print what is sorted.
			if got, want := matchersOf(expr), matchersOf(want); got != want {
				t.Errorf("%s has become one of %s, want %s", text, got, want)
			}
		}
	}
}

func matchersOf(expr parser.Expr) string { return fmt.Sprint(parser.ExtractSelectors(expr)) }

// TestKeptExpressions: what needs no engine is parsed once, and is answered as before by
// those who ask at the same time; what the engine evaluates is not kept.
func TestKeptExpressions(t *testing.T) {
	c := newCache(t)
	randomSeries(t, rand.New(rand.NewPCG(1, 1)), c, "m", 20)
	randomSeries(t, rand.New(rand.NewPCG(2, 1)), c, "n_total", 20)
	keeps := map[string]bool{
		`m`: true, `{a!="2",__name__="m"}`: true, `sum by (b, a) (rate(n_total[5m]))`: true, `m * 2 > 1`: true,
		`topk(2, m) or on (i) sum by (i) (n_total)`: true, `quantile by (a) (0.5, {b!~"x",i=~"1.*",__name__="m"})`: true,
		`absent(m)`: false, `max_over_time(sum(m)[5m:1m])`: false, `m{i=~"[0-9]{1,2}"}`: false, `m +`: false,
		`m{a!="` + strings.Repeat("x", maxKeptExpression) + `"}`: false,
	}
	a, fresh := NewAPI(c, testOptions()), NewAPI(c, testOptions())
	answer := func(a *API, query, path string) string {
		return get(t, a, path, "query", query, "start", seconds(t0), "end", seconds(t0+600_000), "time", seconds(t0+300_000), "step", "15").Body.String()
	}
	var all sync.WaitGroup
	for query := range keeps {
		for _, path := range []string{"query_range", "query"} {
			want := answer(fresh, query, path)
			fresh.parser.expressions = newKeptExpressions()
			for range 3 {
				all.Go(func() {
					for range 5 {
						if got := answer(a, query, path); got != want {
							t.Errorf("%s: got %s, want %s", query, got, want)
						}
					}
				})
			}
		}
	}
	all.Wait()
	sameAsParsed(t, a)
	for query, want := range keeps {
		if _, got := a.parser.expressions.young[query]; got != want {
			t.Errorf("%s is kept: %t", query, got)
		}
	}
}

// TestKeptExpressionsBound: one that is asked for all the time stays, and all of them are
// no more than they may be.
func TestKeptExpressionsBound(t *testing.T) {
	p := newBoundedParser(parser.Options{})
	k := p.expressions
	first := ""
	for i := range 3000 {
		text := fmt.Sprintf(`sum(rate(m_%d{a=~"x%d.*"}[5m])) / 2`, i, i)
		expr, err := p.ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		if k.keep(text, expr); first == "" {
			first = text
		}
		if _, ok := k.get(first); !ok {
			t.Fatalf("after %d others it is not kept", i)
		}
		if n := len(k.young) * bytesOfSelector; n > keptExpressionBytes || k.youngBytes > keptExpressionBytes {
			t.Fatalf("%d expressions are kept", len(k.young))
		}
	}
	if n := len(k.young) + len(k.old); n > 1500 {
		t.Errorf("%d expressions are kept", n)
	}
}
