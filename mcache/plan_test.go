package mcache

import (
	"fmt"
	"testing"

	"mcached/mcache/block"
)

// TestPlanSmallWorld tries planTake and planPlace on every directory of up to
// three blocks and every run within eight times.
func TestPlanSmallWorld(t *testing.T) {
	const world = 8
	worlds, joins, apart := 0, 0, 0
	for starts := range 1 << world {
		dir := bitsOf(starts)
		if len(dir) > 3 {
			continue
		}
		start := func(i int) int64 { return dir[i] }
		for times := 1; times < 1<<world; times++ {
			var run []Sample
			for _, at := range bitsOf(times) {
				run = append(run, Sample{T: at})
			}
			worlds++
			in := fmt.Sprintf("blocks at %v, run %v", dir, bitsOf(times))
			k, take := planTake(len(dir), start, run)
			if take < 1 || take > len(run) {
				t.Fatalf("%s: takes %d", in, take)
			}
			if len(dir) == 0 {
				if k != 0 || take != len(run) {
					t.Fatalf("%s: block %d, takes %d", in, k, take)
				}
				continue
			}
			for i, x := range run[:take] {
				if k > 0 && x.T < dir[k] {
					t.Fatalf("%s: sample %d goes to block %d but is before it", in, i, k)
				}
				if k+1 < len(dir) && x.T >= dir[k+1] {
					t.Fatalf("%s: sample %d goes to block %d but belongs behind it", in, i, k)
				}
			}
			if take < len(run) && run[take].T < dir[k+1] {
				t.Fatalf("%s: sample %d belongs to block %d and was not taken", in, take, k)
			}
			// The block may end anywhere before the next one begins.
			limit := int64(world + 1)
			if k+1 < len(dir) {
				limit = dir[k+1]
			}
			for last := dir[k]; last < limit; last++ {
				if p := planPlace(k, 1, dir[k], last, run[:take]); p != (place{k, true}) {
					t.Fatalf("%s: a block with room is left: %v", in, p)
				}
				p := planPlace(k, block.MaxSamples, dir[k], last, run[:take])
				inside := run[take-1].T >= dir[k] && run[0].T <= last
				if p.join != inside {
					t.Fatalf("%s: full block %d to %d: %v", in, dir[k], last, p)
				}
				switch {
				case p.join:
					joins++
				case run[0].T > last && p.block != k+1, run[0].T <= last && p.block != k:
					t.Fatalf("%s: full block %d to %d: out of order at %d", in, dir[k], last, p.block)
				default:
					apart++
				}
			}
		}
	}
	if worlds < 20_000 || joins == 0 || apart == 0 {
		t.Errorf("too little happened: %d worlds, %d joins, %d apart", worlds, joins, apart)
	}
	for n := 1; n <= 2*block.MaxSamples; n++ {
		first := min(planSplit(n), n)
		if first < 1 || first > block.MaxSamples || n-first > block.MaxSamples {
			t.Errorf("%d samples are split at %d", n, first)
		}
	}
	for n := 1; n <= 64; n++ {
		if s := planSeal(n); s < 1 || s > n || n-s > n/4 {
			t.Errorf("of %d samples %d are sealed", n, s)
		}
		all := map[int]bool{}
		for id := range uint32(64) {
			s := planFirst(n, id)
			if all[s] = true; s < 1 || s > planSeal(n) {
				t.Errorf("of %d samples of a first head %d are sealed", n, s)
			}
		}
		if len(all) != max(n*2/3, 1) {
			t.Errorf("of %d samples of a first head as many as %v are sealed", n, all)
		}
	}
}

func bitsOf(n int) (all []int64) {
	for i := range 62 {
		if n>>i&1 != 0 {
			all = append(all, int64(i))
		}
	}
	return all
}
