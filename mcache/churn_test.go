package mcache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"mcached/kvcache"
)

// churn is a load of series that come and go beside some that stay.
type churn struct {
	budget   int64
	roomy    int // times the budget that there is until three quarters of the waves are over
	maxBytes int64
	blobs    bool
	waves    int
	pods     int // that are new with each wave
	living   int // series that are written in every wave
	samples  int // of each series in a wave
	ended    int // waves after which as many series as are living end
}

// left is what is there of a shard at the end.
type left struct {
	living   float64 // samples of each that is written still
	ended    float64 // of each that ended
	podsFrom int     // the first wave of which half of the pods have a sample
}

func churnLabels(kind string, i int) []Label {
	return []Label{{"__name__", "http_requests_total"}, {"cluster", "eu-west-1"}, {"job", kind}, {"namespace", fmt.Sprint("team-", i%50)}, {"pod", fmt.Sprintf("%s-%08x-%05x", kind, uint32(i)*2654435761, i)}}
}

func (w churn) run(t testing.TB) (shards []left) {
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: w.budget * int64(w.roomy), ReadyRegions: -1}) // no helper, whose turn is chance
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c, err := New(Options{Memory: m, Shards: 2, Blobs: w.blobs, MaxBytes: w.maxBytes})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b Batch
	const step = 15_000
	value := func(i, at int) uint64 { return math.Float64bits(float64(i%100*at) + float64((i*7+at*13)%29)) }
	write := func(all [][]Label, at int) {
		b.Reset("default")
		for i, ls := range all {
			b.Series(c.Fingerprint(ls))
			b.Sample(int64(at)*step, value(i, at))
		}
		if _, err := c.Append(&b); err != nil {
			t.Fatal(err)
		}
		for _, i := range b.Missing() {
			if _, err := c.AppendNew(&b, i, all[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	set := func(kind string, from, n int) (all [][]Label) {
		for i := range n {
			all = append(all, churnLabels(kind, from+i))
		}
		return all
	}
	living, ended := set("living", 0, w.living), set("ended", 0, w.living)
	for wave := range w.waves {
		if wave == w.waves*3/4 { // at once, when no generation has been looked at yet
			m.SetBudget(w.budget)
		}
		pods := set("pod", wave*w.pods, w.pods)
		for k := range w.samples {
			at := wave*w.samples + k
			write(living, at)
			if wave < w.ended {
				write(ended, at)
			}
			for p := pods; len(p) > 0; {
				n := min(len(p), 1000)
				write(p[:n], at)
				p = p[n:]
			}
			c.Maintain()
		}
	}
	bk := c.findBucket("default")
	for _, sh := range c.shards {
		here := func(ls []Label) bool { return c.shardOf(c.Fingerprint(ls).in(bk)) == sh }
		kept := func(all [][]Label) float64 {
			n, of := 0, 0
			for _, ls := range all {
				if here(ls) {
					of++
					n += len(readAll(t, c, "default", ls, math.MinInt64, math.MaxInt64))
				}
			}
			return float64(n) / float64(max(of, 1))
		}
		l := left{living: kept(living), ended: kept(ended)}
		for ; l.podsFrom < w.waves; l.podsFrom++ {
			n, of := 0, 0
			for i := 0; i < w.pods; i += 4 {
				ls := churnLabels("pod", l.podsFrom*w.pods+i)
				if !here(ls) {
					continue
				}
				if of++; len(readAll(t, c, "default", ls, math.MinInt64, math.MaxInt64)) > 0 {
					n++
				}
			}
			if 2*n >= of {
				break
			}
		}
		shards = append(shards, l)
	}
	return shards
}

// TestChurn holds what survives churn to the rule, shard by shard: whatever the
// budget, how long series live and how many there are, those that are still
// written keep more of their recent past than series of the same size that ended
// before, and nothing that ended is kept for much longer than they are.
func TestChurn(t *testing.T) {
	t.Parallel()
	cells, shards, lossy, endedLess := 8, 0, 0, 0
	if testing.Short() {
		cells = 4
	}
	for seed := range uint64(cells) {
		rnd := rand.New(rand.NewPCG(seed, 14))
		w := churn{
			blobs: seed%2 == 0, roomy: 1 + int(seed%4/2)*3, waves: 20 + rnd.IntN(30), living: 20 + rnd.IntN(300),
			samples: []int{1, 3, 10, 30}[rnd.IntN(4)], budget: int64(8+rnd.IntN(16)) << 20,
		}
		if testing.Short() {
			w.budget /= 3
			w.living /= 3
		}
		w.ended = 1 + rnd.IntN(w.waves*3/4)
		// A series that ends takes some 350 bytes, and 2 a sample beyond the 20th.
		all := float64(w.budget) * (1.3 + 2*rnd.Float64())
		w.pods = int(all) / (350 + 2*max(w.samples-20, 0)) / w.waves
		if seed%3 == 0 {
			w.maxBytes = w.budget / int64(2+rnd.IntN(4))
		}
		of := w.waves * w.samples
		for k, l := range w.run(t) {
			shards++
			t.Logf("seed %d, shard %d: %+v: living keep %.1f of %d, ended %.1f of %d, pods from wave %d of %d", seed, k, w, l.living, of, l.ended, w.ended*w.samples, l.podsFrom, w.waves)
			if l.living < float64(of) {
				lossy++
			}
			if l.ended < float64(w.ended*w.samples)/2 {
				endedLess++
			}
			if l.living < min(l.ended, float64(of)) {
				t.Errorf("seed %d, shard %d: of %d samples the living keep %.1f, of %d those that ended keep %.1f", seed, k, of, l.living, w.ended*w.samples, l.ended)
			}
			// What is moved to a blob is as old as the move, which comes up to two turns
			// after its samples: half of what the shard holds. So blobs outlive blocks of
			// their time, by no more than that, and by the wave that is in between.
			if least := 0.9 * (float64(w.waves-l.podsFrom)/2 - 1) * float64(w.samples); l.living < least {
				t.Errorf("seed %d, shard %d: the living keep %.1f samples, those that ended before as many are there, want %.1f", seed, k, l.living, least)
			}
		}
	}
	t.Logf("the living lost something in %d of %d, those that ended half of theirs in %d", lossy, shards, endedLess)
	if endedLess < shards/4 {
		t.Errorf("only in %d of %d was there too little memory", endedLess, shards)
	}
}
