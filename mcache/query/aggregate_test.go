package query

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/util/kahansum"
)

// plainGroup is a group as the engine has it, step by step.
type plainGroup struct{ group }

func (g *plainGroup) sum(row []float64) {
	for k, f := range row {
		switch {
		case isNone(f):
		case isNone(g.value[k]):
			g.value[k] = f
		default:
			g.value[k], g.carry[k] = kahansum.Inc(f, g.value[k], g.carry[k])
		}
	}
}

func (g *plainGroup) avg(row []float64) {
	for k, f := range row {
		if isNone(f) {
			continue
		}
		g.count[k]++
		if isNone(g.value[k]) {
			g.value[k] = f
			continue
		}
		n := g.count[k]
		if isNone(g.mean[k]) {
			sum, carry := kahansum.Inc(f, g.value[k], g.carry[k])
			if !math.IsInf(sum, 0) {
				g.value[k], g.carry[k] = sum, carry
				continue
			}
			g.mean[k] = g.value[k] / (n - 1)
			g.carry[k] /= n - 1
		}
		q := (n - 1) / n
		g.mean[k], g.carry[k] = kahansum.Inc(f/n, q*g.mean[k], q*g.carry[k])
	}
}

// TestGroupsAreTheEngines compares sums and averages of series with the engine's
// operations, to the last bit of all that is kept of them.
func TestGroupsAreTheEngines(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	const n = 16
	overflowed, carried := 0, 0
	for range 3000 {
		fresh := func(f float64) []float64 { return slices.Repeat([]float64{f}, n) }
		sum, avg := group{value: fresh(none), carry: fresh(0)}, group{value: fresh(none), carry: fresh(0), count: fresh(0)}
		plainSum := plainGroup{group{value: fresh(none), carry: fresh(0)}}
		plainAvg := plainGroup{group{value: fresh(none), carry: fresh(0), count: fresh(0), mean: fresh(none)}}
		next := kindsOfValues[rnd.IntN(len(kindsOfValues))](rnd, []int{0, 0, 1000, 1023, -1070}[rnd.IntN(5)])
		for range 1 + rnd.IntN(30) {
			row := make([]float64, n)
			for k := range row {
				if row[k] = next(); rnd.IntN(10) == 0 {
					row[k] = none
				}
			}
			sum.sum(row)
			avg.avg(row)
			plainSum.sum(row)
			plainAvg.avg(row)
		}
		mean := avg.mean
		if mean == nil {
			mean = fresh(none)
		} else {
			overflowed++
		}
		if slices.ContainsFunc(sum.carry, func(c float64) bool { return c != 0 }) {
			carried++
		}
		for _, pair := range [][2][]float64{{sum.value, plainSum.value}, {sum.carry, plainSum.carry},
			{avg.value, plainAvg.value}, {avg.carry, plainAvg.carry}, {avg.count, plainAvg.count}, {mean, plainAvg.mean}} {
			got, want := fmt.Sprintf("%x", bitsOf(pair[0])), fmt.Sprintf("%x", bitsOf(pair[1]))
			if got != want {
				t.Fatalf("seed %d: got %s\nwant %s", seed, got, want)
			}
		}
	}
	if overflowed < 100 || carried < 500 {
		t.Errorf("seed %d: %d averages overflowed, %d sums had a carry: that shows too little", seed, overflowed, carried)
	}
}

func bitsOf(values []float64) []uint64 {
	all := make([]uint64, len(values))
	for i, v := range values {
		all[i] = math.Float64bits(v)
	}
	return all
}

// TestTwoSum compares it with the engine's addition at the ends of the numbers.
func TestTwoSum(t *testing.T) {
	ends := []float64{0, math.Copysign(0, -1), 1, math.SmallestNonzeroFloat64, 0x1p-1022, math.MaxFloat64, math.Nextafter(math.MaxFloat64, 0), 0x1p970, 0x1p969, 0x1p1023, 0x1.8p1023, math.Inf(1), math.NaN()}
	untold := 0
	for _, x := range ends {
		for _, y := range ends {
			for _, f := range []struct{ a, b float64 }{{x, y}, {-x, y}, {x, -y}, {-x, -y}} {
				sum, lost := twoSum(f.a, f.b)
				wantSum, wantLost := kahansum.Inc(f.b, f.a, 0)
				if !told(lost) {
					untold++
				} else if sum != wantSum || lost != wantLost {
					t.Errorf("%v + %v: got %v, %v, want %v, %v", f.a, f.b, sum, lost, wantSum, wantLost)
				}
			}
		}
	}
	if untold < 50 {
		t.Errorf("%d sums could not be told", untold)
	}
}
