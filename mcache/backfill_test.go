package mcache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Samples that come in order before what a series has, one by one or a few at
// a time, with some written twice, some out of order and some in between, are
// all there in the end, each with what was written last.
func TestBackfill(t *testing.T) {
	for _, writeBack := range []bool{false, true} {
		t.Run(fmt.Sprint("write-back ", writeBack), func(t *testing.T) {
			const seed = 5
			rng := rand.New(rand.NewPCG(seed, 1))
			c := newTestCache(t, Options{WriteBack: writeBack})
			const series, have, missing, step = 6, 300, 700, 15_000
			want := make([]map[int64]uint64, series)
			write := func(i int, ss ...Sample) {
				if want[i] == nil {
					want[i] = map[int64]uint64{}
				}
				for _, s := range ss {
					want[i][s.T] = s.V
				}
				if err := c.AppendSamples("default", name(fmt.Sprint("s", i)), ss...); err != nil {
					t.Fatal(err)
				}
			}
			at := func(i, k int) int64 {
				if i%2 == 1 { // not on a grid
					return int64(k)*step + int64(k*k%977)
				}
				return int64(k) * step
			}
			for k := range have {
				for i := range series {
					write(i, Sample{T: at(i, k), V: rng.Uint64N(100)})
				}
			}
			sealed := c.Stats()
			for k := -missing; k < 0; k++ {
				for i := range series {
					switch rng.IntN(60) {
					case 0: // one that is there
						write(i, Sample{T: at(i, -missing+rng.IntN(missing+k+1)), V: rng.Uint64()})
					case 1: // it does not come at all
						continue
					case 2: // behind the blocks that were filled
						write(i, Sample{T: at(i, k) + 7, V: 1})
					case 3:
						write(i, Sample{T: at(i, k), V: 1}, Sample{T: at(i, k) + 1, V: 2}, Sample{T: at(i, k) + 2, V: 3})
						continue
					}
					write(i, Sample{T: at(i, k), V: rng.Uint64N(100)})
				}
			}
			if mended := c.Stats().Mended - sealed.Mended; mended < series*missing*9/10 {
				t.Errorf("only %d samples were late", mended)
			}
			for i := range series {
				var all []Sample
				for at, v := range want[i] {
					all = append(all, Sample{T: at, V: v})
				}
				slices.SortFunc(all, func(a, b Sample) int { return int(a.T - b.T) })
				if got := readAll(t, c, "default", name(fmt.Sprint("s", i)), -MaxTime, MaxTime); !slices.Equal(got, all) {
					t.Errorf("seed %d, series %d: %d samples are read of %d, or others", seed, i, len(got), len(all))
				}
			}
			checkCache(t, c)
		})
	}
}

// A block that is filled from behind is made anew as a whole a few times only.
func TestBackfillIsAppended(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1})
	write := func(k int) {
		if err := c.AppendSamples("default", name("s"), Sample{T: int64(k) * 15_000, V: uint64(k * k)}); err != nil {
			t.Fatal(err)
		}
	}
	for k := range 300 {
		write(k)
	}
	s := c.shards[0]
	anew := 0
	for k := -120; k < 0; k++ {
		before := 0
		if d := s.dirOfLocked(s.recs.At(0)); k > -120 {
			before = len(s.blockLocked(d[0]))
		}
		write(k)
		d := s.dirOfLocked(s.recs.At(0))
		if d[0].start != -120*15_000 {
			t.Fatalf("sample %d went elsewhere", k)
		}
		if len(s.blockLocked(d[0])) < before-8 { // several sections became one
			anew++
		}
	}
	if anew == 0 || anew > 3 {
		t.Errorf("the block was made anew %d times for 120 samples", anew)
	}
	checkCache(t, c)
}
