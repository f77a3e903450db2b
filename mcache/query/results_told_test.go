package query

import (
	"fmt"
	"math"
	"net/http"
	"testing"
	"time"

	"mcached/mcache"
)

// What results are told with is not what they depend on, and is no less as if they were
// computed: what never came, that there is nothing of a selector, and bounds.

// A gap opens and moves without a point that changes.
func TestResultsTellOfGaps(t *testing.T) {
	now := t0
	c := newCacheOf(t, mcache.Options{Now: func() int64 { return now }})
	a := remembersAll(t, c)
	write := func(i int, at int64) {
		if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "m", "i", fmt.Sprint(i)}), mcache.Sample{T: at, V: math.Float64bits(1)}); err != nil {
			t.Fatal(err)
		}
	}
	told := map[string]bool{}
	ask := func(end int64) {
		t.Helper()
		params := []string{"query", "sum(m)", "start", seconds(t0 - 60_000), "end", seconds(end), "step", "15s"}
		sameAsComputed(t, a, 2, params...)
		told[get(t, a, "query_range", params...).Header().Get(completeFromHeader)] = true
	}
	for range 20 {
		now += 15_000
		for i := range 4 {
			write(i, now)
		}
	}
	early := now
	ask(early)
	write(4, now+300) // its clock is ahead: so much may have come before
	ask(early)
	c.Maintain()
	now += 3_600_000
	c.Maintain()
	ask(early)
	write(0, now)
	ask(now)
	ask(early)
	if len(told) != 3 {
		t.Errorf("answers told of %v", told)
	}
	if s := a.Stats(); s.ResultsRecalled < 4 {
		t.Errorf("%+v", s)
	}
}

// A store behind is asked for what a selector does not find here, each time.
func TestResultsOfNothing(t *testing.T) {
	a, asked, _ := storeBehind(t, UpstreamOptions{}, answerJSON(http.StatusOK, storesAnswer))
	a.results = newResults(resultMemory(t))
	a.results.minSamples = 1
	for i := range 3 {
		w := get(t, a, "query_range", "query", "sum(m or job:recorded)", "start", seconds(t0+400_000), "end", seconds(t0+600_000), "step", "15s")
		if w.Body.String() != storesAnswer || asked.Load() != int64(i+1) {
			t.Errorf("asked %d times: %s", asked.Load(), w.Body)
		}
	}
	if s := a.Stats(); s.ResultsRecalled != 2 {
		t.Errorf("%+v", s)
	}
}

// A bound that was lowered is one for what is remembered, too.
func TestResultsKeepToLimits(t *testing.T) {
	c := newCache(t)
	a := remembersAll(t, c)
	for i := range 10 {
		fill(t, c, "default", 15_000, ramp(100, 1, 1), "__name__", "m", "i", fmt.Sprint(i))
	}
	for _, lower := range []Options{{}, {}, {MaxSeries: 9}, {MaxSamples: 50}, {LookbackDelta: time.Second}, {}} {
		lower.Timeout = patience
		a.SetLimits(lower)
		sameAsComputed(t, a, 1, "query", "sum(m)", "start", seconds(t0), "end", seconds(t0+1_500_000), "step", "7s")
	}
	if s := a.Stats(); s.ResultsRecalled < 2 {
		t.Errorf("%+v", s)
	}
}

// What comes to one bucket, be it of long ago, leaves what is remembered of another.
func TestResultsOfAnotherBucket(t *testing.T) {
	c := newCache(t)
	a := remembersAll(t, c)
	for _, bucket := range []string{"default", "other"} {
		for k := range int64(200) {
			for i := range 5 { // of fewer samples it is not worth it
				if err := c.AppendSamples(bucket, pairsToLabels([]string{"__name__", "m", "i", fmt.Sprint(i)}), mcache.Sample{T: t0 + k*15_000}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	look := func() Stats {
		sameAsComputed(t, a, 1, "query", "sum(m)", "start", seconds(t0), "end", seconds(t0+3_000_000), "step", "15s")
		return a.Stats()
	}
	was := look()
	for k := range int64(10) {
		if err := c.AppendSamples("other", pairsToLabels([]string{"__name__", "m"}), mcache.Sample{T: t0 + k*15_000 + 1, V: 1}); err != nil {
			t.Fatal(err)
		}
		if is := look(); is.ResultsRecalled != was.ResultsRecalled+uint64(k)+1 || is.ResultsComputed != was.ResultsComputed {
			t.Fatalf("%+v after %+v", is, was)
		}
	}
	if !c.RemoveBucket("other") || look().ResultsRecalled != was.ResultsRecalled+11 {
		t.Errorf("a bucket that is removed takes what is remembered of another with it")
	}
}

// A panel that moves on has all that it needs remembered again, once what is remembered
// counts for too many samples.
func TestResultsBeginAnew(t *testing.T) {
	const series, steps = 50, 100
	c := newCache(t)
	o := testOptions()
	o.Results, o.MaxSamples = resultMemory(t), 2*steps*series*maxHeldShare
	a := NewAPI(c, o)
	a.results.minSamples = 1
	most, before := uint64(0), a.Stats()
	for n := range int64(1000) {
		at := t0 + n*15_000
		for i := range series {
			ls := pairsToLabels([]string{"__name__", "m", "i", fmt.Sprint(i)})
			if err := c.AppendSamples("default", ls, mcache.Sample{T: at, V: math.Float64bits(1)}); err != nil {
				t.Fatal(err)
			}
		}
		get(t, a, "query_range", "query", "sum(m)", "start", seconds(at-steps*15_000), "end", seconds(at), "step", "15s")
		s := a.Stats()
		if s.ResultsExtended > before.ResultsExtended {
			most = max(most, s.Samples-before.Samples)
		}
		before = s
	}
	if most == 0 || most > 25*series { // a lookback is 20 steps
		t.Errorf("the rest of a range was up to %d samples", most)
	}
	if n := before.ResultsComputed; n < 3 || n > 100 {
		t.Errorf("%d ranges were computed as a whole", n)
	}
}
