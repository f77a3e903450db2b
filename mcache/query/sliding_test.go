package query

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// kindsOfValues make the values of a series: of which sums lose nothing, of which carries
// lose nothing, at the edge of that, beyond it, and what is no number or next to none.
var kindsOfValues = []func(rnd *rand.Rand, scale int) func() float64{
	func(rnd *rand.Rand, scale int) func() float64 { // a counter
		v := 0.0
		return func() float64 { v += float64(rnd.IntN(1000)); return math.Ldexp(v, scale) }
	},
	func(rnd *rand.Rand, _ int) func() float64 { // a gauge of decimals, of either sign
		return func() float64 { return math.Round(rnd.NormFloat64()*1e4) / 100 }
	},
	func(rnd *rand.Rand, scale int) func() float64 { // all bits, of a few magnitudes
		return func() float64 { return math.Ldexp(rnd.NormFloat64(), scale) }
	},
	func(rnd *rand.Rand, scale int) func() float64 { // as many bits as may be, and as near to powers of two
		spread := 1 + rnd.IntN(70)
		return func() float64 {
			v := math.Ldexp(2-math.Ldexp(1, -rnd.IntN(53)), scale+rnd.IntN(spread))
			return math.Copysign(v, rnd.Float64()-0.3)
		}
	},
	func(rnd *rand.Rand, _ int) func() float64 { // of all magnitudes
		return func() float64 { return math.Ldexp(rnd.NormFloat64(), rnd.IntN(2000)-1000) }
	},
	func(rnd *rand.Rand, scale int) func() float64 { // some that are odd
		odd := []float64{math.NaN(), math.Float64frombits(0x7ff0000000000001), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, math.Copysign(0, -1), 0}
		odd = odd[rnd.IntN(len(odd)):]
		return func() float64 {
			if rnd.IntN(5) == 0 {
				return odd[rnd.IntN(len(odd))]
			}
			return math.Ldexp(rnd.NormFloat64(), scale)
		}
	},
	func(rnd *rand.Rand, _ int) func() float64 { // zeros, and little else
		return func() float64 { return math.Copysign(float64(rnd.IntN(8)/7), rnd.Float64()-0.5) }
	},
}

// TestSlidingWindows compares windows that slide with each window by itself, to the last
// bit: of 0 to some hundred samples, steps smaller and larger than windows, gaps.
func TestSlidingWindows(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	var uncut, cut, refused, empty, single, apart, again int
	w := &worker{}
	rounds := 6000
	if testing.Short() {
		rounds = 1500
	}
	for range rounds {
		kind := rnd.IntN(len(kindsOfValues))
		scale := []int{0, -10, 600, -880, 890, 1000, -1070}[rnd.IntN(7)*rnd.IntN(2)]
		next := kindsOfValues[kind](rnd, scale)
		p := &plan{rangeMs: 1 + rnd.Int64N([]int64{20, 300, 600, 3000}[rnd.IntN(4)]*1000), selector: &parser.VectorSelector{}}
		w = w.reuse(steps{start: t0, interval: 1 + rnd.Int64N(60_000), n: []int{0, 1, 50, 200}[rnd.IntN(4)]}, p)
		if rnd.IntN(3) == 0 {
			w.interval = 15_000 // that of samples
		}
		if rnd.IntN(3) > 0 { // else the times are those of the series before
			at := t0 - rnd.Int64N(2*p.rangeMs)
			w.times = w.times[:0]
			for range rnd.IntN(400) {
				at += 15_000
				if rnd.IntN(30) == 0 {
					at += rnd.Int64N(900_000)
				}
				w.times = append(w.times, at-rnd.Int64N(2)*rnd.Int64N(15_000))
			}
		}
		w.values = w.values[:0]
		for range w.times {
			w.values = append(w.values, next())
		}
		if w.slide(w.n); rnd.IntN(2) == 0 { // the next series is another from some time on
			again++
			for i := rnd.IntN(len(w.times) + 1); i < len(w.times); i++ {
				w.times[i] += 20_000
			}
		}
		for name, f := range folds {
			p.fold = f
			row := make([]float64, w.n)
			got := w.compute(row)
			want := 0
			first, end := 0, 0
			for k := range row {
				to := w.start + int64(k)*w.interval
				before := end
				for end = 0; end < len(w.times) && w.times[end] <= to; end++ {
				}
				for first = 0; first < end && w.times[first] <= to-p.rangeMs; first++ {
				}
				f, ok := none, false
				switch {
				case first == end:
					empty++
				case end == first+1:
					single++
				}
				if first > before {
					apart++
				}
				if first < end {
					f, ok = p.fold.of(w.times[first:end], w.values[first:end])
				}
				if !ok {
					f = none
				} else {
					want++
				}
				if math.Float64bits(row[k]) != math.Float64bits(f) {
					t.Fatalf("seed %d: %s, kind %d, step %d of %d: got %v (%#x), want %v (%#x) of %v", seed, name, kind, k, w.n, row[k], math.Float64bits(row[k]), f, math.Float64bits(f), w.values[first:end])
				}
			}
			if got != want {
				t.Fatalf("seed %d: %s: %d results, want %d", seed, name, got, want)
			}
		}
		switch by, ok := cutFor(w.values, w.longest); {
		case !ok:
			refused++
		case by == 0:
			uncut++
		default:
			cut++
		}
	}
	if min(uncut, cut, refused, again) < rounds/20 || min(empty, single, apart) < rounds {
		t.Errorf("seed %d: of %d series %d are cut, %d need not be, %d can not be; of windows %d are empty, %d single, %d apart: that shows too little", seed, rounds, cut, uncut, refused, empty, single, apart)
	}
}
