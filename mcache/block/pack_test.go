package block

import (
	"math/bits"
	"math/rand/v2"
	"testing"
)

// TestPacking holds the plan to the cheapest of all widths.
func TestPacking(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	withExceptions, far := 0, 0
	for range 20_000 {
		ints := make([]int64, 1+rnd.IntN(MaxSamples))
		base, w := rnd.Int64()-rnd.Int64(), rnd.IntN(64)
		for i := range ints {
			ints[i] = base + rnd.Int64()>>(63-w)
			if rnd.IntN(40) == 0 {
				ints[i] = base + int64(rnd.Uint64()>>rnd.IntN(64)) // may wrap round
			}
		}
		var or uint64
		for _, v := range ints {
			or |= uint64(v - base)
		}
		widest := bits.Len64(or)
		plan := packing(ints, base, widest+rnd.IntN(65-widest))
		exceptions := func(w int) (n int) {
			for _, v := range ints {
				if bits.Len64(uint64(v-base)) > w {
					n++
				}
			}
			return n
		}
		if plan.exceptions != exceptions(plan.width) || plan.cost != len(ints)*plan.width+plan.exceptions*exceptionBits {
			t.Fatalf("plan %+v for %d offsets, of which %d do not fit", plan, len(ints), exceptions(plan.width))
		}
		for w := range 65 {
			if cost := len(ints)*w + exceptions(w)*exceptionBits; cost < plan.cost {
				t.Fatalf("plan %+v, width %d costs %d", plan, w, cost)
			}
		}
		if plan.exceptions > 0 {
			withExceptions++
			if widest-plan.width > 8 {
				far++
			}
		}
	}
	if withExceptions < 1000 || far < 1000 {
		t.Errorf("%d plans with exceptions, %d with far ones: too few", withExceptions, far)
	}
}
