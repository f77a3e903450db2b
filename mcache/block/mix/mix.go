// Package mix is the data that benchmarks seal: values as machines expose them.
package mix

import (
	"math"
	"math/rand/v2"
)

// The data that the benchmarks seal: classes of series as machines expose
// them, in shares of 100. 40 are integer counters, 40 gauges with no, 2 or 3
// decimals, 20 constants; the names are those that the figures are reported by.
type classOf struct {
	name  string
	share int
	next  func(rnd *rand.Rand) func() float64
}

func decimals(x float64, n int) float64 { p := math.Pow10(n); return math.Round(x*p) / p }

// events is a Poisson number of events, by the normal approximation when there are many.
func events(rnd *rand.Rand, mean float64) float64 {
	if mean > 30 {
		return math.Max(0, math.Round(mean+math.Sqrt(mean)*rnd.NormFloat64()))
	}
	n, p, limit := -1.0, 1.0, math.Exp(-mean)
	for p > limit {
		p *= rnd.Float64()
		n++
	}
	return n
}

var mix = []classOf{
	{"counter of rare events", 10, func(rnd *rand.Rand) func() float64 {
		x := float64(rnd.IntN(1000))
		return func() float64 { x += events(rnd, 0.05); return x }
	}},
	{"counter of a few a scrape", 12, func(rnd *rand.Rand) func() float64 {
		x, mean := float64(rnd.IntN(1e6)), 0.5+8*rnd.Float64()
		return func() float64 { x += events(rnd, mean); return x }
	}},
	{"counter of hundreds a scrape", 11, func(rnd *rand.Rand) func() float64 {
		x, mean := float64(rnd.IntN(1e8)), 100+1900*rnd.Float64()
		i, reset := 0, rnd.IntN(6000)
		return func() float64 {
			x += events(rnd, mean*(1+0.2*math.Sin(float64(i)/200)))
			if i++; i == reset {
				x = 0
			}
			return x
		}
	}},
	{"counter of bytes", 7, func(rnd *rand.Rand) func() float64 {
		x, mean := float64(rnd.Int64N(1e12)), 1e5+2e6*rnd.Float64()
		return func() float64 { x += math.Round(mean * (1 + 0.2*rnd.NormFloat64())); return x }
	}},
	{"gauge that wanders, 2 decimals", 15, func(rnd *rand.Rand) func() float64 {
		x := 20 + 60*rnd.Float64()
		return func() float64 { x += rnd.NormFloat64() * 0.15; return decimals(x, 2) }
	}},
	{"gauge that is noise, 2 decimals", 10, func(rnd *rand.Rand) func() float64 {
		x := 5 + 80*rnd.Float64()
		return func() float64 { return decimals(x+2*rnd.NormFloat64(), 2) }
	}},
	{"gauge of latency, 3 decimals", 8, func(rnd *rand.Rand) func() float64 {
		x := 0.01 + 0.2*rnd.Float64()
		return func() float64 { return decimals(x*(1+0.15*rnd.NormFloat64()), 3) }
	}},
	{"gauge of things, integer", 7, func(rnd *rand.Rand) func() float64 {
		x := float64(50 + rnd.IntN(500))
		return func() float64 { x += math.Round(3 * rnd.NormFloat64()); return x }
	}},
	{"constant", 20, func(rnd *rand.Rand) func() float64 {
		x := []float64{0, 1, 4096, 1.7e9 + float64(rnd.IntN(1e6)), decimals(100*rnd.Float64(), 3)}[rnd.IntN(5)]
		return func() float64 { return x }
	}},
}

// Generator is the values of series i of the mix.
func Generator(i int, rnd *rand.Rand) (class string, next func() float64) {
	at := i * 37 % 100 // spreads the classes over neighbours
	for _, c := range mix {
		if at < c.share {
			return c.name, c.next(rnd)
		}
		at -= c.share
	}
	panic("shares do not add up to 100")
}
