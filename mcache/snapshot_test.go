package mcache

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestRuns reads any part of a series by runs and by samples, and asks whether
// there is one at all.
func TestRuns(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	c := newTestCache(t, Options{Shards: 1})
	var all []Sample
	at := int64(1_700_000_000_000)
	for i := range 1500 {
		if at += 15_000; rnd.IntN(50) == 0 {
			at += rnd.Int64N(1e6)
		}
		all = append(all, Sample{T: at, V: math.Float64bits(float64(i) / 8)})
	}
	if err := c.AppendSamples("default", name("m"), all...); err != nil {
		t.Fatal(err)
	}
	id := mustSelect(t, c, name("m"))[0]
	var s Snapshot
	var it Iterator
	runs, none := 0, 0
	for range 2000 {
		from := all[0].T + rnd.Int64N(at-all[0].T+200_000) - 100_000
		to := from + rnd.Int64N(int64(1)<<(14+rnd.IntN(12)))
		c.Snapshot(id, from, to, &s)
		var want []Sample
		for it.Reset(&s); it.Next(); {
			want = append(want, it.At())
		}
		var got []Sample
		it.Reset(&s)
		if len(want) > 1 && rnd.IntN(2) == 0 { // a run goes on where a sample was
			it.Next()
			got = append(got, it.At())
		}
		for run := it.Run(); len(run) > 0; run = it.Run() {
			got = append(got, run...)
			runs++
		}
		if it.Run() != nil || it.Next() {
			t.Fatal("there is more behind the end")
		}
		if !slices.Equal(got, want) || s.HasPoint() != (len(want) > 0) {
			t.Fatalf("from %d to %d: %d samples by runs, %d one by one; any: %t", from, to, len(got), len(want), s.HasPoint())
		}
		if len(want) == 0 {
			none++
		}
	}
	if none < 20 || runs < 2500 {
		t.Errorf("%d times nothing, %d runs: that shows too little", none, runs)
	}
}
