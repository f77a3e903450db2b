package query

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
)

// crewSeries is n series of which the i-th has the values i, i+1, ….
func crewSeries(t *testing.T, n, points int) (*computer, *plan, []series, *Queryable) {
	t.Helper()
	c := newCache(t)
	for i := range n {
		fill(t, c, "default", 1000, ramp(points, float64(i), 1), "__name__", "m", "i", fmt.Sprintf("%06d", i))
	}
	k := &computer{steps: steps{start: t0, interval: 1000, n: points, lookback: 300_000}, maxSamples: 1 << 30}
	expr, err := NewAPI(c, testOptions()).parser.ParseExpr("m")
	if err != nil {
		t.Fatal(err)
	}
	p, _ := wholePlanOf(expr)
	q := NewQueryable(FromCache(c, nil), "default", QueryableOptions{})
	set, err := k.selectFor(context.Background(), q, p)
	if err != nil {
		t.Fatal(err)
	}
	return k, p, set.series, q
}

// TestCrew: whoever computes them, rows are handed over once each, one at a
// time, in the order of the series, up to the first error.
func TestCrew(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	}
	const points = 200
	k, p, all, _ := crewSeries(t, 1500, points)
	errStop := errors.New("enough")
	most := int64(0)
	for round := 0; round < 40 || most < 2; round++ { // the other is hired when its turn comes
		stop := -1
		if round%4 > 0 {
			stop = rand.IntN(len(all))
		}
		var workers atomic.Int64
		var inside atomic.Int32
		handed := 0
		team := crew{series: all, dismiss: func(*worker) {}, hire: func() *worker {
			workers.Add(1)
			return &worker{steps: k.steps, plan: p}
		}}
		team.handOver = func(s *series, row []float64, n, samples int) error {
			if inside.Add(1) != 1 {
				t.Error("two hand over at a time")
			}
			defer inside.Add(-1)
			if s.place != all[handed].place || n != points || len(row) != points || s.labels.Get("i") != fmt.Sprintf("%06.0f", row[0]) {
				t.Errorf("series %d: %d results, the first %v", handed, n, row[0])
			}
			if handed++; handed == stop {
				return errStop
			}
			return nil
		}
		samples, err := team.run(context.Background(), points)
		want, wantErr := len(all), error(nil)
		if stop > 0 {
			want, wantErr = stop, errStop
		}
		if handed != want || err != wantErr || samples < want*points {
			t.Fatalf("%d of %d handed over, %d samples, %v", handed, want, samples, err)
		}
		most = max(most, workers.Load())
	}
}

// TestCrewFault: what a worker panics with reaches who asked, and all end.
func TestCrewFault(t *testing.T) {
	k, p, all, _ := crewSeries(t, 1500, 200)
	team := crew{series: all, hire: func() *worker { return &worker{steps: k.steps, plan: p} }, dismiss: func(*worker) {}}
	n := 0
	team.handOver = func(*series, []float64, int, int) error {
		if n++; n == 700 {
			panic("a broken invariant")
		}
		return nil
	}
	defer func() {
		if fault := recover(); fault != "a broken invariant" || n != 700 {
			t.Errorf("got %v after %d", fault, n)
		}
	}()
	team.run(context.Background(), 200)
	t.Error("nothing happened")
}

// TestCrewEnds when the client has gone.
func TestCrewEnds(t *testing.T) {
	k, p, all, _ := crewSeries(t, 1500, 200)
	ctx, cancel := context.WithCancel(context.Background())
	team := crew{series: all, hire: func() *worker { return &worker{steps: k.steps, plan: p} }, dismiss: func(*worker) {}}
	n := 0
	team.handOver = func(*series, []float64, int, int) error {
		if n++; n == 10 {
			cancel()
		}
		return nil
	}
	if _, err := team.run(ctx, 200); !errors.Is(err, context.Canceled) || n > len(all)/2 {
		t.Errorf("%v after %d of %d", err, n, len(all))
	}
}
