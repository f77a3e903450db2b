package query

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"mcached/mcache"
)

// randomSeries appends series of all kinds under the name m: with resets, gaps,
// ends, numbers that are none, and times off the grid.
func randomSeries(t *testing.T, rnd *rand.Rand, c *mcache.Cache, name string, series int) {
	t.Helper()
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 0, math.MaxFloat64, -math.MaxFloat64, math.Float64frombits(0x7ff0000000000001)}
	for i := range series {
		step := []int64{15_000, 1000, 60_000, 37}[rnd.IntN(4)]
		jitter, odds, gaps, ends := rnd.Int64N(2)*rnd.Int64N(step), rnd.IntN(8) == 0, rnd.IntN(3) == 0, rnd.IntN(3) == 0
		at, v := t0+whole(rnd, rnd.Int64N(600_000)), rnd.NormFloat64()*100
		var samples []mcache.Sample
		for range rnd.IntN(300) {
			at += step
			switch {
			case gaps && rnd.IntN(20) == 0:
				at += rnd.Int64N(40) * step
			case ends && rnd.IntN(20) == 0:
				samples = append(samples, mcache.Sample{T: at, V: value.StaleNaN})
				continue
			case rnd.IntN(30) == 0:
				v = rnd.NormFloat64()
			case i%3 > 0:
				v += rnd.Float64() * 10
			}
			f := v
			if i%4 == 1 {
				f = math.Round(v)
			}
			if odds && rnd.IntN(4) == 0 {
				f = odd[rnd.IntN(len(odd))]
			}
			samples = append(samples, mcache.Sample{T: at + rnd.Int64N(jitter+1), V: math.Float64bits(f)})
		}
		if len(samples) == 0 {
			continue
		}
		err := c.AppendSamples("default", pairsToLabels([]string{"__name__", name, "i", fmt.Sprint(i), "a", fmt.Sprint(i % 3), "b", fmt.Sprint(i % 2)}), samples...)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// whole makes every other time one of whole seconds: what lies at the edge of a
// window must be met.
func whole(rnd *rand.Rand, ms int64) int64 {
	if rnd.IntN(2) == 0 {
		return ms - ms%1000
	}
	return ms
}

// TestPlansAreTheEngine asks with statistics, which the engine computes all by
// itself, and without, and compares results to the last bit.
func TestPlansAreTheEngine(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := newCache(t)
	randomSeries(t, rnd, c, "m", 60)
	randomSeries(t, rnd, c, "n_total", 20)
	a := NewAPI(c, testOptions())
	pick := func(ss ...string) string { return ss[rnd.IntN(len(ss))] }
	offset := func() string {
		if rnd.IntN(3) > 0 {
			return ""
		}
		return fmt.Sprintf(" offset %s%dms", pick("", "-"), whole(rnd, 1000+rnd.Int64N(400_000)))
	}
	operand := func() string {
		selector := pick("m", "n_total", `m{a="1"}`, `n_total{a!="1"}`, `m{i=~"1.*"}`)
		if rnd.IntN(2) == 0 {
			return selector + offset()
		}
		return fmt.Sprintf("%s(%s[%dms]%s)", pick("rate", "increase", "rate", "increase", "delta", "irate", "idelta", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "count_over_time", "present_over_time"), selector, max(whole(rnd, rnd.Int64N(600_000)), 1), offset())
	}
	aggregate := func() string {
		return fmt.Sprintf(pick("%s by (a) (%s)", "%s without (i) (%s)", "%s(%s)", "%s by (a, b) ((%s))", "%s by (nothing) (%s)", "%s without (a, b, __name__) (%s)"),
			pick("sum", "avg", "min", "max", "count", "group"), operand())
	}
	expression := func() string {
		switch rnd.IntN(6) {
		case 0:
			return operand()
		case 1:
			return fmt.Sprintf("%s / on() group_left() %s", aggregate(), pick("sum(m)", "count(rate(n_total[5m]))", "2"))
		case 2:
			return fmt.Sprintf("%s(%s)", pick("-", "abs", "sin", "sort", "absent", "timestamp", "scalar", "topk(2, ", "quantile(0.5, ", "sum")+"(", aggregate()) + ")"
		case 3:
			return fmt.Sprintf("max_over_time(%s[5m:1m])", aggregate())
		default:
			return aggregate()
		}
	}
	planned, points := 0, 0
	rounds := 600
	if testing.Short() {
		rounds = 200
	}
	for range rounds {
		e := expression()
		expr, err := a.parser.ParseExpr(e)
		if err != nil {
			e = aggregate()
			if expr, err = a.parser.ParseExpr(e); err != nil {
				t.Fatal(e, err)
			}
		}
		_, plans := rewrite(expr)
		if len(plans) > 0 {
			planned++
		}
		start := t0 - 100_000 + whole(rnd, rnd.Int64N(3_000_000))
		params := []string{"query", e, "start", seconds(start), "end", seconds(start + rnd.Int64N(4_000_000)), "step", fmt.Sprintf("%dms", whole(rnd, 1000+rnd.Int64N(120_000)))}
		if rnd.IntN(3) == 0 {
			params = append(params, "lookback_delta", fmt.Sprintf("%dms", max(whole(rnd, rnd.Int64N(200_000)), 1)))
		}
		path := "query_range"
		if rnd.IntN(3) == 0 {
			path, params = "query", append(params, "time", seconds(start))
		}
		got := get(t, a, path, params...).Body.String()
		want := get(t, a, path, append(params, "stats", "true")...).Body.String()
		points += strings.Count(got, "],[")
		if from := strings.Index(want, `,"stats":`); from >= 0 {
			to := from + strings.Index(want[from:], `}}`) + 2
			want = want[:from] + want[to:]
		}
		if got != want {
			at := 0
			for at < min(len(got), len(want)) && got[at] == want[at] {
				at++
			}
			t.Fatalf("seed %d: %v\ngot  …%.400s\nwant …%.400s", seed, params, got[max(0, at-100):], want[max(0, at-100):])
		}
	}
	sameAsParsed(t, a)
	if planned < rounds/3 || planned == rounds || points < 20*rounds {
		t.Errorf("seed %d: %d of %d planned, %d points: that shows too little", seed, planned, rounds, points)
	}
}

// TestPlanned lists what is planned and what is not.
func TestPlanned(t *testing.T) {
	for _, c := range []struct{ query, rewritten string }{
		{`sum(up)`, `{plan="0"}`},
		{`sum by (job) (rate(up[5m] offset 1m))`, `{plan="0"}`},
		{`rate(up[5m]) / increase(up[5m])`, `{plan="0"} / {plan="1"}`},
		{`histogram_quantile(0.9, sum by (le) (rate(up[5m])))`, `histogram_quantile(0.9, {plan="0"})`},
		{`topk(3, -(avg without (a) ((up))) + 1)`, `topk(3, -({plan="0"}) + 1)`},
		{`up`, `up`},
		{`irate(up[5m])`, `{plan="0"}`},
		{`max by (job) (avg_over_time(up[5m])) / delta(up[1h] offset 5m)`, `{plan="0"} / {plan="1"}`},
		{`last_over_time(up[5m])`, `last_over_time(up[5m])`},
		{`quantile_over_time(0.5, up[5m])`, `quantile_over_time(0.5, up[5m])`},
		{`rate({job="a"}[5m])`, `rate({job="a"}[5m])`},
		{`rate({__name__=~"a|b"}[5m])`, `rate({__name__=~"a|b"}[5m])`},
		{`sum({job="a"})`, `{plan="0"}`},
		{`rate(up[5m:1m])`, `rate(up[5m:1m])`},
		{`sum_over_time(sum(up)[5m:1m])`, `sum_over_time(sum(up)[5m:1m])`},
		{`sum(up @ 1)`, `sum(up @ 1.000)`},
		{`sum(rate(up[5m] @ end()))`, `sum(rate(up[5m] @ end()))`},
		{`absent(sum(up))`, `absent(sum(up))`},
		{`timestamp(sum(up))`, `timestamp(sum(up))`},
		{`quantile(0.5, up)`, `quantile(0.5, up)`},
		{`count_values("a", up)`, `count_values("a", up)`},
	} {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(c.query)
		if err != nil {
			t.Fatal(c.query, err)
		}
		if got, _ := rewrite(expr); got.String() != c.rewritten {
			t.Errorf("%s became %s, want %s", c.query, got, c.rewritten)
		}
	}
}

// TestWhole lists what needs no engine at all.
func TestWhole(t *testing.T) {
	for query, want := range map[string]bool{
		`up`:                              true,
		`((up offset 5m))`:                true,
		`{job="a"}`:                       true,
		`rate(up[5m])`:                    true,
		`(increase(up[5m] offset -5m))`:   true,
		`sum(rate(up[5m]))`:               true,
		`(avg without (a) (up))`:          true,
		`up @ 1`:                          false,
		`sum(up) + 1`:                     false,
		`-up`:                             false,
		`topk(3, up)`:                     false,
		`rate({__name__=~"a|b"}[5m])`:     false,
		`absent(up)`:                      false,
		`sum(topk(3, up))`:                false,
		`1`:                               false,
		`sum_over_time(sum(up)[5m:1m])`:   false,
		`histogram_count(rate(up[5m]))`:   false,
		`sum by (a) (sum by (a, b) (up))`: false,
	} {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
		if err != nil {
			t.Fatal(query, err)
		}
		if _, got := wholePlanOf(expr); got != want {
			t.Errorf("%s: %t, want %t", query, got, want)
		}
	}
}

// TestSparseIsForTheEngine: steps without results take room in a plan and none
// in the engine, which the bound on samples is for.
func TestSparseIsForTheEngine(t *testing.T) {
	o := testOptions()
	o.MaxSamples = 300
	c := newCache(t)
	for i, name := range []string{"a", "b"} {
		if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "m", "i", name}), mcache.Sample{T: t0}, mcache.Sample{T: t0 + 3_000_000 + int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	a := NewAPI(c, o)
	ask := func(query string, more ...string) string {
		return get(t, a, "query_range", append(more, "query", query, "start", seconds(t0), "end", seconds(t0+4_000_000), "step", "15", "lookback_delta", "30s")...).Body.String()
	}
	for _, query := range []string{"m", "sum by (i) (m)"} {
		got, want := ask(query), ask(query, "stats", "true")
		if before, _, ok := strings.Cut(want, `,"stats"`); !ok || got != before+"}}" || strings.Count(got, "],[") != 6 {
			t.Errorf("%s: got %s\nwant %s", query, got, want)
		}
	}
}

func TestPlanBounds(t *testing.T) {
	o := testOptions()
	o.MaxSamples = 100
	a := smallAPI(t, o)
	w := get(t, a, "query_range", "query", "sum(requests_total)", "start", seconds(t0), "end", seconds(t0+600_000), "step", "1")
	wantBody(t, w, 422, failure("execution", "query processing would load too many samples into memory in query execution"))
	w = get(t, a, "query_range", "query", "sum(requests_total)", "start", seconds(t0), "end", seconds(t0+600_000), "step", "15")
	if w.Code != 200 {
		t.Error(w.Body)
	}
	if n := len(a.handoff.exprs); n != 0 {
		t.Errorf("%d expressions were left behind", n)
	}
	if s := a.Stats(); s.Samples == 0 {
		t.Error("the samples that a plan read are not counted")
	}
	// Times at the ends of time are left to the engine.
	for _, p := range [][]string{
		{"start", "-9e15", "end", "9e15", "step", "9e9"},
		{"start", "-9223372036.854775", "end", "0", "step", "1e6"},
		{"start", "9e15", "end", "9e15", "step", "1"},
		{"start", "0", "end", "0", "step", "0.0001"},
		{"start", "-1.5", "end", "1.5", "step", "0.5"},
	} {
		get(t, a, "query_range", append(p, "query", "sum(rate(requests_total[5m]))")...)
	}
}

// TestSelectorRangeAsTheEngine: a range that is not whole seconds divides a
// rate by the very number that the engine divides by.
func TestSelectorRangeAsTheEngine(t *testing.T) {
	differ := 0
	for ms := int64(1); ms < 100_000; ms++ {
		p := plan{rangeMs: ms}
		if got, want := p.selectorRange(), (time.Duration(ms) * time.Millisecond).Seconds(); got != want {
			t.Fatalf("%d ms: %v, want %v", ms, got, want)
		}
		if float64(ms)/1000 != p.selectorRange() {
			differ++
		}
	}
	if differ == 0 {
		t.Error("no range tells the two ways of rounding apart")
	}
}

// TestRoomIsNotShared asks many things at a time that use the same memory one
// after the other.
func TestRoomIsNotShared(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	c := newCache(t)
	randomSeries(t, rnd, c, "m", 300)
	a := NewAPI(c, testOptions())
	queries := []string{`m`, `m{a="1"}`, `rate(m[5m])`, `sum by (a) (m)`, `avg without (i) (increase(m{b="1"}[3m]))`, `-m{a="2"}`, `rate(m{a="0"}[1m]) + 1`}
	ask := func(i int, more ...string) string {
		step := []string{"15", "7"}[i%2]
		return get(t, a, "query_range", append(more, "query", queries[i%len(queries)], "start", seconds(t0), "end", seconds(t0+3_000_000), "step", step)...).Body.String()
	}
	want := make([]string, 2*len(queries))
	for i := range want {
		want[i], _, _ = strings.Cut(ask(i, "stats", "true"), `,"stats":`)
	}
	var all sync.WaitGroup
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for g := range 6 {
		all.Go(func() {
			for k := range rounds {
				i := (g*5 + k) % len(want)
				if got := ask(i); !strings.HasPrefix(got, want[i]) || len(got) > len(want[i])+300 {
					t.Errorf("%s: another answer than before", queries[i%len(queries)])
				}
			}
		})
	}
	all.Wait()
}

// TestPlanErrorsAreTheEngines: what goes wrong inside a plan reads as if there
// were none, also where the engine tells of it.
func TestPlanErrorsAreTheEngines(t *testing.T) {
	c := newCache(t)
	for i, typ := range []string{"counter", "gauge"} {
		fill(t, c, "default", 15_000, ramp(41, float64(i), 1), "__name__", "m_total", "__type__", typ)
	}
	o := testOptions()
	a := NewAPI(c, o)
	ask := func(query string, more ...string) *httptest.ResponseRecorder {
		return get(t, a, "query_range", append(more, "query", query, "start", seconds(t0), "end", seconds(t0+600_000), "step", "15")...)
	}
	for _, query := range []string{"rate(m_total[5m])", "topk(1, rate(m_total[5m]))", "1 + rate(m_total[5m])"} {
		got, want := ask(query), ask(query, "stats", "true") // the second has no plans
		if got.Body.String() != want.Body.String() || got.Code != 422 {
			t.Errorf("%s: got %d %s\nwant %d %s", query, got.Code, got.Body, want.Code, want.Body)
		}
	}
	// A client that goes away in the middle of a plan.
	k := newComputer(time.UnixMilli(t0), time.UnixMilli(t0+600_000), 15*time.Second, 5*time.Minute, 1e6, &a.room)
	expr, err := a.parser.ParseExpr("1 + sum(m_total)")
	if err != nil {
		t.Fatal(err)
	}
	_, k.plans = rewrite(expr)
	for want, cause := range map[error]error{promql.ErrQueryCanceled("expression evaluation"): context.Canceled, promql.ErrQueryTimeout("expression evaluation"): context.DeadlineExceeded} {
		q := NewQueryable(FromCache(c, nil), "default", QueryableOptions{})
		found, err := k.selectFor(t.Context(), q, k.plans[0])
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = k.compute(endedContext{t.Context(), cause}, q, k.plans[0], found)
		k.failed = err
		if err != want || k.own(fmt.Errorf("expanding series: %w", err)) != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// endedContext has ended, for a cause.
type endedContext struct {
	context.Context
	err error
}

func (c endedContext) Err() error { return c.err }
