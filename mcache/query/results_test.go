package query

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/kvcache"
	"mcached/mcache"
)

// resultMemory is memory for results.
func resultMemory(t testing.TB) Remembers {
	t.Helper()
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20, ReserveBytes: 128 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	c, err := kvcache.NewCache(kvcache.CacheOptions{Memory: memory, MaxLargeBytes: 2 * maxResultBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// remembersAll is an API of c that remembers what takes no time, too.
func remembersAll(t testing.TB, c *mcache.Cache) *API {
	o := testOptions()
	o.Results = resultMemory(t)
	a := NewAPI(c, o)
	a.results.minSamples = 1
	return a
}

// TestResultsAreTheEngine: with results that are remembered, answers are those of the
// engine, bit by bit, whatever is written and deleted between two looks, and hidden by
// the retention of series.
func TestResultsAreTheEngine(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	now := t0
	// It knows what it was not there to receive, and tells of it.
	c := newCacheOf(t, mcache.Options{Now: func() int64 { return now }})
	a := remembersAll(t, c)
	const series = 24
	pick := func(ss ...string) string { return ss[rnd.IntN(len(ss))] }
	labelsOf := func(i int) []mcache.Label {
		return pairsToLabels([]string{"__name__", []string{"m", "n_total"}[i%2], "i", fmt.Sprint(i), "a", fmt.Sprint(i / 2 % 3), "b", fmt.Sprint(i % 5), "le", []string{"1", "2.5", "0", "+Inf", "10"}[i%5]})
	}
	const retained = 4 // of r, half of which have a retention, all the time
	retainedLabels := func(i int) []mcache.Label { return pairsToLabels([]string{"__name__", "r", "i", fmt.Sprint(i)}) }
	for i := range retained / 2 {
		c.SetRetention("default", c.Fingerprint(retainedLabels(i)), 900_000)
	}
	var held []mcache.Label // of another that has one
	values := make([]float64, series)
	write := func(i int, at int64) {
		s := mcache.Sample{T: at, V: math.Float64bits(values[i])}
		switch rnd.IntN(200) {
		case 0:
			s.V = value.StaleNaN
		case 1:
			s.V = math.Float64bits(math.Inf(1))
		}
		if err := c.AppendSamples("default", labelsOf(i), s); err != nil {
			t.Fatal(err)
		}
	}
	expressions := []string{
		"sum(r)", "count by (i) (r)", "sum(m) + sum(r)", "count({__name__=~\"m|r\"})", "max(max_over_time(r[90s]))",
		"sum(m)", "sum by (a) (rate(n_total[2m]))", "avg by (b) (m offset 1m)", "max without (i) (n_total)", "count(m)", "min by (i) (m)",
		"sum by (a) (m offset -2m)", "avg(avg_over_time(m[90s]))", "sum by (a) (m) / on (a) sum by (a) (n_total)", "sum by (b) (m * 2)", "sum(m and on (i) max by (i) (m > 3))", "avg by (a) (rate(n_total[1m]) / on (i) rate(n_total[5m]))", "sum(-m) / count(-m)", "count(m == on (a, i) group_right () m)", "max by (a) (m offset 3m - m)", "sum(sum by (a) (-m))", "sum(sum by (a) (m))",
		"sum by (a) (increase(n_total[2m]))", "sum by (a) (irate(n_total[2m]))",
		"sum by (a) (round(m, 0.1))", "max by (a) (time() - m)", "count(m or vector(1))", "sum(clamp_min(m, 3) or vector(time()))", "sum(sum by (a) (rate(n_total[2m]))) or vector(0)",
		"topk(2, sum by (b) (m))", "quantile(0.5, sum by (b) (m))", "sin(sum by (b) (m))", "sum by (nothing) (increase(m[3m]))", "group by (i) (m{a!=\"1\"})",
		"sum by (a) ({__name__=\"m\"})", "sum by (b) (n_total{i=~\"1.*\"}) > 2", "histogram_quantile(0.9, sum by (a, b) (m))", "histogram_quantile(0.9, sum by (le) (rate(n_total[2m])))", "max(histogram_quantile(0.5, sum by (le, a) (m)))", "sum by (a) (label_replace(sum by (a, b) (m), \"c\", \"$1\", \"a\", \"(.*)\"))",
	}
	type view struct {
		e            string
		step, length int64
	}
	var views []view
	for _, e := range expressions {
		views = append(views, view{e, []int64{15_000, 60_000, 7_000, 37}[rnd.IntN(4)], 0})
		views[len(views)-1].length = views[len(views)-1].step * (10 + rnd.Int64N(200))
	}
	ids := func() []mcache.SeriesID {
		list, err := c.Select("default", []mcache.Matcher{{Type: mcache.MatchEqual, Name: "i", Value: fmt.Sprint(rnd.IntN(series))}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	rounds := 400
	if testing.Short() {
		rounds = 100
	}
	// What is drawn decides how much of each there is: it goes on until there is enough.
	enough := func() bool {
		s, n := a.Stats(), uint64(rounds)
		return s.ResultsRecalled >= n/2 && s.ResultsExtended >= n/2 && s.ResultsComputed >= n/2
	}
	for round := 0; round < rounds || round < 10*rounds && !enough(); round++ {
		// A scrape, of which some series have no part, or all of a while.
		for range 1 + rnd.IntN(3) {
			now += 15_000
			for i := range series {
				if (now/600_000+int64(i))%4 == 0 && i%3 == 0 {
					continue // series come and go
				}
				if values[i] += rnd.NormFloat64() + 1; i%2 == 1 {
					values[i] = max(values[i], 0)
				}
				write(i, now+int64(i%3)*100)
			}
			for i := range retained {
				if (now/400_000+int64(i))%3 == 0 {
					continue
				}
				if err := c.AppendSamples("default", retainedLabels(i), mcache.Sample{T: now, V: math.Float64bits(float64(now / 1000))}); err != nil {
					t.Fatal(err)
				}
			}
		}
		switch rnd.IntN(12) {
		case 0: // out of order
			write(rnd.IntN(series), now-rnd.Int64N(1_000_000))
		case 1:
			for _, id := range ids() {
				from := now - rnd.Int64N(1_000_000)
				if _, err := c.Delete(id, from, from+rnd.Int64N(200_000)); err != nil {
					t.Fatal(err)
				}
			}
		case 2:
			if rnd.IntN(10) == 0 {
				c.RemoveBucket("default")
			}
		case 3: // also of a series that the bucket has, for some rounds: nothing of its metric is kept then
			if held != nil {
				c.SetRetention("default", c.Fingerprint(held), 0)
				held = nil
			} else if rnd.IntN(4) == 0 {
				held = labelsOf(rnd.IntN(4))
				c.SetRetention("default", c.Fingerprint(held), 600_000)
			}
		}
		for range 6 {
			v := &views[rnd.IntN(len(views))]
			// What ends now moves on with the time; others look at a time of their own.
			end := now + rnd.Int64N(3)*v.step
			if rnd.IntN(4) == 0 {
				end = now - rnd.Int64N(1_500_000)
			}
			if rnd.IntN(8) > 0 {
				end -= end % v.step
			}
			start := end - v.length
			if rnd.IntN(5) == 0 {
				start += rnd.Int64N(3) * v.step
			}
			params := []string{"query", v.e, "start", seconds(start), "end", seconds(end), "step", fmt.Sprintf("%dms", v.step)}
			if rnd.IntN(20) == 0 {
				params = append(params, "lookback_delta", pick("20s", "1m"))
			}
			for range 1 + rnd.IntN(2) {
				if is, was := asComputed(t, a, params); is != was {
					t.Fatalf("seed %d, round %d: %q\nis  %s\nwas %s", seed, round, params, is, was)
				}
			}
		}
	}
	s := a.Stats()
	t.Logf("%d recalled, %d extended, %d computed", s.ResultsRecalled, s.ResultsExtended, s.ResultsComputed)
	if !enough() {
		t.Errorf("seed %d: %d recalled, %d extended, %d computed in %d rounds", seed, s.ResultsRecalled, s.ResultsExtended, s.ResultsComputed, 10*rounds)
	}
}

// sameAsComputed asks so many times, and has each answer be what computing it is.
func sameAsComputed(t testing.TB, a *API, times int, params ...string) {
	t.Helper()
	for range times {
		if is, was := asComputed(t, a, params); is != was {
			t.Fatalf("%.300q\nis  %.2000s\nwas %.2000s", params, is, was)
		}
	}
}

// asComputed is what a range query is answered, and what it is without results that
// are remembered.
func asComputed(t testing.TB, a *API, params []string) (is, was string) {
	t.Helper()
	return asComputedOf(t, a, "", params)
}

// asComputedOf is asComputed for a tenant, if one is named.
func asComputedOf(t testing.TB, a *API, tenant string, params []string) (is, was string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+form(params), nil)
	if tenant != "" {
		r.Header.Set(a.o.TenancyHeader, tenant)
	}
	got := send(t, a, r.Clone(t.Context()))
	r.Header.Set("Cache-Control", "no-store")
	want := send(t, a, r)
	text := func(w *httptest.ResponseRecorder) string {
		body, notes, _ := strings.Cut(w.Body.String(), `"warnings":[`)
		list := strings.Split(strings.TrimSuffix(notes, "]}")+",", `",`) // in any order
		slices.Sort(list)
		return fmt.Sprint(w.Code, w.Header(), body, list)
	}
	return text(got), text(want)
}

// Groups stand in the order of the first series that has a result in the range: sums
// of them, and which of equal ones is among the first, depend on it.
func TestResultsKeepTheOrder(t *testing.T) {
	c := newCache(t)
	a := remembersAll(t, c)
	// Of the group x the first series ends; then that of y is the first, by a
	// series that stands before the second one of x.
	var early, late []float64
	for i := range 200 {
		early, late = append(early, 0.1), append(late, 0.1)
		if i >= 100 {
			early[i] = math.Float64frombits(absent)
		}
	}
	of := func(step int) mcache.Sample {
		return mcache.Sample{T: t0 + int64(step)*15_000, V: math.Float64bits(0.1)}
	}
	first := pairsToLabels([]string{"__name__", "m", "g", "w", "i", "first"})
	if err := c.AppendSamples("default", first, of(-100)); err != nil {
		t.Fatal(err)
	}
	fill(t, c, "default", 15_000, early, "__name__", "m", "g", "x", "i", "0")
	fill(t, c, "default", 15_000, late, "__name__", "m", "g", "y", "i", "1")
	fill(t, c, "default", 15_000, late, "__name__", "m", "g", "x", "i", "2")
	fill(t, c, "default", 15_000, late, "__name__", "m", "g", "z", "i", "3")
	at := func(step int) string { return seconds(t0 + int64(step)*15_000) }
	for _, e := range []string{"topk(1, sum by (g) (m))", "bottomk(2, max by (g) (m))", "topk by (i) (1, count by (g) (m))"} {
		for _, from := range []int{0, 0, 150, 150, 20} {
			is, was := asComputed(t, a, []string{"query", e, "start", at(from), "end", at(199), "step", "30s"})
			if is != was {
				t.Errorf("%s from %d on\nis  %s\nwas %s", e, from, is, was)
			}
		}
	}
	// The first series of all has samples again, behind what is remembered.
	if err := c.AppendSamples("default", first, of(190), of(199)); err != nil {
		t.Fatal(err)
	}
	if is, was := asComputed(t, a, []string{"query", "topk(1, sum by (g) (m))", "start", at(150), "end", at(199), "step", "30s"}); is != was {
		t.Errorf("is  %s\nwas %s", is, was)
	}
	// So does it in a sum that is finite in one order alone, of what operators make.
	huge := func(name, g string, v float64, from int) {
		var samples []mcache.Sample
		for i := from; i < 200; i++ {
			samples = append(samples, mcache.Sample{T: of(i).T, V: math.Float64bits(v)})
		}
		if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", name, "g", g}), samples...); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []string{"sum(sum by (g) (o) * 1)", "sum(o * 1 or p)", "sum(sum by (g) (o))", "sum(sum by (g) (o + 0))"} {
		name := "o" + fmt.Sprint(len(e))
		e = strings.NewReplacer("(o", "("+name, "or p", "or p"+name).Replace(e)
		huge(name, "w", -math.MaxFloat64, -100)
		if ids, _ := c.Select("default", []mcache.Matcher{{Type: mcache.MatchEqual, Name: "g", Value: "w"}, {Type: mcache.MatchEqual, Name: "__name__", Value: name}}, nil); len(ids) == 1 {
			if _, err := c.Delete(ids[0], of(-99).T, of(200).T); err != nil {
				t.Fatal(err)
			}
		}
		huge(name, "x", math.MaxFloat64, 0)
		huge(name, "y", math.MaxFloat64, 0)
		params := []string{"query", e, "start", at(100), "end", at(199), "step", "60s"}
		for range 2 {
			if is, was := asComputed(t, a, params); is != was {
				t.Errorf("%s\nis  %s\nwas %s", e, is, was)
			}
			huge(name, "w", -math.MaxFloat64, 180)
		}
	}
	if s := a.Stats(); s.ResultsRecalled != 6 || s.ResultsExtended > 0 {
		t.Errorf("%+v", s)
	}
}

// A native histogram makes a query one for the engine, and samples that are written
// over what was remembered, too.
func TestResultsSeeHistograms(t *testing.T) {
	c := newCache(t)
	a := remembersAll(t, c)
	for i := range 3 {
		fill(t, c, "default", 15_000, ramp(100, 1, 1), "__name__", "m", "i", fmt.Sprint(i))
	}
	params := []string{"query", "sum(m)", "start", seconds(t0), "end", seconds(t0 + 1_500_000), "step", "15s"}
	sameAsComputed(t, a, 2, params...)
	var b mcache.Batch
	b.Reset("default")
	ls := pairsToLabels([]string{"__name__", "m", "i", "1"})
	b.Series(c.Fingerprint(ls))
	h := countsOf(histogram.UnknownCounterReset, 0, 1, 2)
	b.Record(t0+750_000, marshalHistogram(t, writev2.FromIntHistogram(0, t0+750_000, h)))
	if _, err := c.Append(&b); err != nil {
		t.Fatal(err)
	}
	sameAsComputed(t, a, 1, params...)
	if s := a.Stats(); s.ResultsRecalled != 1 {
		t.Errorf("%d recalled", s.ResultsRecalled)
	}
}

// A panel of a day, of 80 series at 15 s by steps of a minute: as a whole; what was
// remembered; and a minute more than that, which a scrape came in between.
func BenchmarkResults(b *testing.B) {
	const series, points = 80, 24 * 240
	c := newCache(b)
	for i := range series {
		fill(b, c, "default", benchStep, ramp(points, float64(i), 1.5), "__name__", "m_total", "g", fmt.Sprint(i%4), "i", fmt.Sprint(i))
	}
	end := t0 + (points-1)*benchStep
	end -= end % 60_000
	o := testOptions()
	o.Results = resultMemory(b)
	a := NewAPI(c, o)
	ask := func(b *testing.B, a *API, end int64) {
		if w := get(b, a, "query_range", "query", "sum by (g) (rate(m_total[5m]))", "start", seconds(end-86_400_000), "end", seconds(end), "step", "1m"); w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
	b.Run("computed", func(b *testing.B) {
		a := NewAPI(c, testOptions())
		for b.Loop() {
			ask(b, a, end)
		}
	})
	b.Run("recalled", func(b *testing.B) {
		for b.Loop() {
			ask(b, a, end)
		}
	})
	b.Run("extended", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			end += 60_000
			for i := range series {
				s := mcache.Sample{T: end, V: math.Float64bits(float64(end))}
				if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "m_total", "g", fmt.Sprint(i % 4), "i", fmt.Sprint(i)}), s); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
			ask(b, a, end)
		}
	})
	b.Logf("%+v", a.Stats())
}

// Series that are the same but for their types are an error of a rate, also where one
// of them comes behind what is remembered; and such are computed once for each look.
func TestResultsSeeTypes(t *testing.T) {
	c := newCache(t)
	a := remembersAll(t, c)
	fill(t, c, "default", 15_000, ramp(100, 1, 1), "__name__", "m_total", "i", "1")
	params := []string{"query", "", "start", seconds(t0), "end", seconds(t0 + 1_800_000), "step", "60s"}
	queries := []string{"sum by (i) (rate(m_total[1m]))", "sum by (i) (rate(m_total[1m]) * 2)"}
	for _, params[1] = range slices.Repeat(queries, 2) {
		if is, was := asComputed(t, a, params); is != was || !strings.HasPrefix(is, "200") {
			t.Fatalf("is  %s\nwas %s", is, was)
		}
	}
	typed := []string{"__name__", "m_total", "i", "1", "__type__", "counter"}
	late := mcache.Sample{T: t0 + 1_501_000}
	if err := c.AppendSamples("default", pairsToLabels(typed), late, mcache.Sample{T: late.T + 15_000}); err != nil {
		t.Fatal(err)
	}
	for _, params[1] = range queries {
		if is, was := asComputed(t, a, params); is != was || !strings.Contains(is, "same labelset") {
			t.Fatalf("is  %s\nwas %s", is, was)
		}
	}
	if s := a.Stats(); s.ResultsRecalled != 2 {
		t.Errorf("%+v", s)
	}
	fill(t, c, "default", 15_000, ramp(100, 1, 1), "__name__", "n_total", "__type__", "counter")
	params[1] = "sum(rate(n_total[1m]))"
	before := a.Stats().ResultsComputed
	for range 2 {
		get(t, a, "query_range", params...)
	}
	if n := a.Stats().ResultsComputed - before; n != 2 {
		t.Errorf("of 2 answers %d were computed at once and as a whole", n)
	}
}

// largest is memory that knows what it was given.
type largest struct {
	Remembers
	bytes, puts int
}

func (l *largest) Put(key, value []byte, ttl time.Duration) error {
	l.bytes, l.puts = max(l.bytes, len(value)), l.puts+1
	return l.Remembers.Put(key, value, ttl)
}

// TestResultsBound: what is remembered of one expression is no more than it may be,
// also where groups come to what was remembered.
func TestResultsBound(t *testing.T) {
	c := newCache(t)
	m := &largest{Remembers: resultMemory(t)}
	o := testOptions()
	o.Results = m
	a := NewAPI(c, o)
	const steps, groups = 10_000, 10
	for g := range groups {
		fill(t, c, "default", 7_000, ramp(steps*15/7, 1, 1), "__name__", "m", "g", fmt.Sprint(g))
	}
	ask := func(n int64) {
		end := t0 + n*15_000
		sameAsComputed(t, a, 1, "query", "sum by (g) (m)", "start", seconds(end-(steps-1)*15_000), "end", seconds(end), "step", "15s")
	}
	ask(steps - 1)
	ask(steps)
	if m.puts != 2 {
		t.Fatalf("it was remembered %d times", m.puts)
	}
	for g := range groups {
		if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "m", "g", fmt.Sprint("new", g)}), mcache.Sample{T: t0 + steps*15_000}); err != nil {
			t.Fatal(err)
		}
	}
	ask(steps + 1)
	if m.bytes < 8*steps*groups || m.bytes > maxResultBytes+1000 {
		t.Errorf("%d bytes were remembered, of at most %d", m.bytes, maxResultBytes)
	}
}
