package query

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql"

	"mcached/mcache"
)

var withStats = regexp.MustCompile(`,"stats":\{.*?\}\}`)

// TestBucketsOfOneBound: histograms have bounds of several spellings, and counts that come to
// something else in another order, as of gauges that are named as buckets: quantiles of them are
// the engine's, whose sort leaves those of one bound in an order of its own.
func TestBucketsOfOneBound(t *testing.T) {
	const (
		histograms = 200
		steps      = 8
		interval   = 15_000
	)
	rnd := rand.New(rand.NewPCG(3, 5))
	c := newCache(t)
	inOtherOrder := 0
	for g := range histograms {
		// They are found in the order in which they are made here.
		all, at := randomBuckets(rnd), promql.Buckets{}
		rnd.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
		for _, b := range all {
			var samples []mcache.Sample
			for k := range int64(steps) {
				if rnd.IntN(8) > 0 || k == 0 {
					samples = append(samples, mcache.Sample{T: t0 + k*interval, V: math.Float64bits(b.counts[rnd.IntN(len(b.counts))])})
				}
			}
			if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "b", "le", b.le, "g", fmt.Sprint(g)}), samples...); err != nil {
				t.Fatal(err)
			}
			bound, err := strconv.ParseFloat(b.le, 64)
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, promql.Bucket{UpperBound: bound, Count: math.Float64frombits(samples[0].V)})
		}
		backwards := slices.Clone(at)
		slices.Reverse(backwards)
		one, _, _, _, _, _ := promql.BucketQuantile(0.4, at)
		other, _, _, _, _, _ := promql.BucketQuantile(0.4, backwards)
		if math.Float64bits(one) != math.Float64bits(other) {
			inOtherOrder++
		}
	}
	a := NewAPI(c, testOptions())
	for g := range histograms {
		for _, q := range []string{"0", "0.4", "0.99", "1"} {
			for _, of := range []string{`b{g="%d"}`, `sum by (le) (b{g="%d"})`} {
				params := []string{"query", "histogram_quantile(" + q + ", " + fmt.Sprintf(of, g) + ")", "start", seconds(t0), "end", seconds(t0 + (steps-1)*interval), "step", seconds(interval), "lookback_delta", "1s"}
				got := get(t, a, "query_range", params...).Body.String()
				want := withStats.ReplaceAllString(get(t, a, "query_range", append(params, "stats", "true")...).Body.String(), "")
				if got != want {
					t.Errorf("%v\ngot  %.400s\nwant %.400s", params[1], got, want)
				}
			}
		}
	}
	if inOtherOrder < histograms/10 {
		t.Errorf("only %d histograms come to something else in another order", inOtherOrder)
	}
}

type randomBucket struct {
	le     string
	counts []float64 // of which each sample is one
}

// randomBuckets are those of a histogram, some of which have the same bound.
func randomBuckets(rnd *rand.Rand) (all []randomBucket) {
	most := 1 + rnd.IntN(4) // of a bound
	for bound := range 3 + rnd.IntN(30) {
		of := 1 + rnd.IntN(most)
		for i := range of {
			counts := []float64{float64(10 * bound), float64(10*bound + 3)}
			if of > 2 && i < 2 { // one cancels the other, and what was added in between goes with them
				counts = []float64{math.Ldexp(1-2*float64(i), 60)}
			}
			le := fmt.Sprint(bound, ".", strings.Repeat("0", i))
			if bound == 0 && i == 1 {
				le = "-0" // which of the zeros is the first shows in quantiles
			}
			all = append(all, randomBucket{le, counts})
		}
	}
	return append(all, randomBucket{"+Inf", []float64{300, 400}})
}
