package mcache

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"testing"

	"mcached/kvcache"
	"mcached/mcache/block/mix"
)

// TestOverflowCold fills most of the budget with series that nobody writes any
// more: Maintain moves them into blobs, which costs less than before, and
// leaves those alone that are written.
func TestOverflowCold(t *testing.T) {
	t.Parallel()
	m := newTestMemory(t, 8<<20, 16<<10)
	c := newTestCache(t, Options{Memory: m, Shards: 2, Blobs: true, AgeCycle: 1000})
	const hot = 20
	i := hot
	for ; m.Room() > m.Budget()/16; i++ {
		if err := c.AppendSamples("default", kubernetesLabels(i), ramp(i, 12)...); err != nil {
			t.Fatal(err)
		}
	}
	before := c.Stats()
	c.Maintain()
	// At once, none is cold of those that got the last turn, a quarter of what was
	// there when it began.
	moved, late := 0, 0
	for k := hot; k < i; k++ {
		for _, id := range mustSelect(t, c, kubernetesLabels(k)) {
			s, r, _ := c.lockSeries(id)
			if r.flags&flagBlob != 0 {
				if moved++; k > hot+(i-hot)*4/5 {
					late++
				}
			}
			s.mu.Unlock()
		}
	}
	if st := c.Stats(); late > 0 || moved == 0 || st.Buckets[0].Generations[2].Keys == 0 {
		t.Fatalf("%d of %d series are cold at once, %d of them of the last turn: %+v", moved, i, late, st)
	}
	const run = 100
	for at := 0; at*hot < 12*i; at += run { // two turns, with what these hold themselves
		for k := range hot {
			if err := c.AppendSamples("default", kubernetesLabels(k), ramp(at, run)...); err != nil {
				t.Fatal(err)
			}
		}
		c.Maintain()
	}
	st := checkCache(t, c)
	regions := func(st Stats) int { return st.Hot.Regions + st.Log.Regions + st.Dir.Regions + st.Blobs.Regions }
	if st.BlobsWritten < 1000 || st.Evicted+st.Reclaimed+st.BlobsRestored != 0 || m.Room() < m.Budget()/8 || regions(st) > regions(before)*7/8 {
		t.Errorf("%d series, %d regions, were %d: %+v", i, regions(st), regions(before), st)
	}
	for k := range hot {
		for _, id := range mustSelect(t, c, kubernetesLabels(k)) {
			s, r, _ := c.lockSeries(id)
			if r.flags&flagBlob != 0 {
				t.Errorf("series %d is written and was moved", k)
			}
			s.mu.Unlock()
		}
	}
}

// TestOverflowResting fills most of the budget with a bucket that nobody writes
// to any more. It does not age, and yet its series go into blobs when the others
// have taken enough, and not before.
func TestOverflowResting(t *testing.T) {
	t.Parallel()
	m := newTestMemory(t, 8<<20, 16<<10)
	c := newTestCache(t, Options{Memory: m, Shards: 2, Blobs: true, AgeCycle: 1000})
	n := 0
	for ; m.Room() > m.Budget()/16; n++ {
		if err := c.AppendSamples("resting", kubernetesLabels(n), ramp(n, 12)...); err != nil {
			t.Fatal(err)
		}
	}
	const busy, run = 20, 50
	at := 0
	write := func(points int) {
		t.Helper()
		for ; points > 0; points -= busy * run {
			for k := range busy {
				if err := c.AppendSamples("busy", kubernetesLabels(k), ramp(at, run)...); err != nil {
					t.Fatal(err)
				}
			}
			at += run
			c.Maintain()
		}
	}
	write(coldRounds * n / 4)
	if st := c.Stats(); int(st.BlobsWritten) > n*4/5 {
		t.Fatalf("%d series of %d are cold at once: %+v", st.BlobsWritten, n, st)
	}
	write(coldRounds * n * 5 / 4)
	st := checkCache(t, c)
	if st.BlobsWritten < 1000 || st.BlobsRestored != 0 || m.Room() < m.Budget()/8 {
		t.Errorf("%d series, %d bytes of room of %d: %+v", n, m.Room(), m.Budget(), st)
	}
	for k := range busy {
		if got := readAll(t, c, "busy", kubernetesLabels(k), int64(at-run)*15_000, math.MaxInt64); len(got) != run {
			t.Errorf("busy series %d has %d of its last samples", k, len(got))
		}
	}
	// Who comes back is not cold.
	if err := c.AppendSamples("resting", kubernetesLabels(0), ramp(1<<20, 1)...); err != nil {
		t.Fatal(err)
	}
	c.Maintain()
	if b := c.findBucket("resting"); b.rest.long.Load() || c.findBucket("busy").rest.long.Load() {
		t.Error("a bucket that is written to rests")
	}
}

// TestOverflowHot fills a memory with nothing but heads: when there is no room,
// those of the oldest region go into blobs and nothing is lost.
func TestOverflowHot(t *testing.T) {
	t.Parallel()
	budget := int64(4 << 20)
	if testing.Short() {
		budget /= 2
	}
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: budget, RegionBytes: 16 << 10, ReserveBytes: 2 * budget, ReadyRegions: -1}) // the supplier would age blobs
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	c := newTestCache(t, Options{Memory: m, Shards: 2, Blobs: true, AgeCycle: 1000})
	// The keys first, so that no index has to grow when it matters.
	n := 0
	for ; m.Room() > m.Budget()/6; n++ {
		if err := c.Insert("b", fmt.Append(nil, n), 0, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	points := n
	for i := 0; i < n && c.Stats().BlobsWritten == 0; i++ {
		if err := c.Insert("b", fmt.Append(nil, i), 1, make([]byte, 8*20)); err != nil {
			t.Fatal(err)
		}
		points += 20
	}
	st := checkCache(t, c)
	if st.Points != uint64(points) || st.BlobsWritten < 100 || st.Reclaimed+st.Evicted != 0 || m.Room() < int64(m.RegionBytes()) {
		t.Errorf("%d keys: %+v", n, st)
	}
}

// TestOverflowOrder holds eviction into blobs to the literal model of
// generations: whoever has a blob that had none before was in the coldest
// generation that had a live key, and at the end only keys in blobs leave.
func TestOverflowOrder(t *testing.T) {
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		model := literal{[3]map[string]bool{{}, {}, {}}} // live keys
		inBlobs := map[string]bool{}
		c := newTestCache(t, Options{Shards: 1, AgeCycle: 1 << 40, Blobs: true, Evicted: func(o Evicted) {
			if len(model.evictable()) > 0 || !inBlobs[string(o.Key)] {
				t.Fatalf("seed %d: %s was evicted whole while %d keys are live", seed, o.Key, len(model.evictable()))
			}
			delete(inBlobs, string(o.Key))
		}})
		s := c.shards[0]
		offsets := map[string]int64{}
		moved, whole, byGen := 0, 0, [3]int{}
		for range 4000 {
			if rnd.IntN(30) == 0 {
				c.Age("b")
				model.age()
			}
			key := fmt.Sprint("key", rnd.IntN(60))
			n := 1 + rnd.IntN(20)
			if err := c.Insert("b", []byte(key), offsets[key], make([]byte, 8*n)); err != nil {
				t.Fatal(err)
			}
			offsets[key] += int64(n)
			model.write(key)
			delete(inBlobs, key)
			for rnd.IntN(3) == 0 || len(model.evictable()) > 20 {
				cold := maps.Clone(model.evictable())
				before := c.allocated()
				c.evictTo(before-1, (*shard).demoteOne)
				for key := range cold {
					_, locked, id := c.lockKey("b", []byte(key))
					if locked == nil {
						t.Fatalf("seed %d: %s is gone", seed, key)
					}
					r := s.recs.At(id)
					if r.bytes == seriesBytes && r.flags&flagBlob != 0 {
						for g := range model.gen {
							if model.gen[g][key] {
								byGen[g]++
								moved++
							}
							delete(model.gen[g], key)
						}
						inBlobs[key] = true
					}
					s.mu.Unlock()
				}
				if c.allocated() >= before {
					t.Fatalf("seed %d: nothing was evicted", seed)
				}
				if len(inBlobs)+len(model.gen[0])+len(model.gen[1])+len(model.gen[2]) != c.Stats().Series {
					t.Fatalf("seed %d: %d keys in blobs, %d live, %d series: some other was moved", seed, len(inBlobs), len(model.gen[0])+len(model.gen[1])+len(model.gen[2]), c.Stats().Series)
				}
			}
		}
		// What is live goes into blobs first; then the records alone are too much.
		evictAll(t, c)
		for g := range model.gen {
			for key := range model.gen[g] {
				inBlobs[key] = true
			}
			clear(model.gen[g])
		}
		for c.Stats().Series > 0 {
			c.evictTo(c.allocated()-1, (*shard).demoteOne)
			whole++
		}
		if st := checkCache(t, c); moved < 300 || byGen[0] == 0 || byGen[1] == 0 || byGen[2] == 0 || whole < 20 || len(inBlobs) != 0 || st.BlobPoints != 0 || st.Evicted == 0 {
			t.Errorf("seed %d: too little happened: %d moved, by generation %v, %d evicted whole, %+v", seed, moved, byGen, whole, st)
		}
	}
}

// BenchmarkOverflow moves series of 150 samples of the mix into blobs.
func BenchmarkOverflow(b *testing.B) {
	const series, samples = 10_000, 150
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 256 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for range b.N {
		b.StopTimer()
		c, err := New(Options{Memory: m, Blobs: true, Shards: 8})
		if err != nil {
			b.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(1, 1))
		var ss [samples]Sample
		for i := range series {
			_, next := mix.Generator(i, rnd)
			for k := range ss {
				ss[k] = Sample{T: int64(k) * benchStep, V: math.Float64bits(next())}
			}
			if err := c.AppendSamples("default", kubernetesLabels(i), ss[:]...); err != nil {
				b.Fatal(err)
			}
		}
		live := c.Stats().AllocatedBytes - series*seriesBytes
		b.StartTimer()
		evictAll(b, c)
		b.StopTimer()
		st := c.Stats()
		b.ReportMetric(float64(live)/(series*samples), "B/sample-live")
		b.ReportMetric(float64(st.Blobs.LiveBytes)/(series*samples), "B/sample-blob")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*series), "ns/series")
		c.Close()
	}
}

// BenchmarkChurn writes a memory full three times over with series of which each
// takes 60 samples and is then written no more, as those of short-lived pods.
// It reports how many samples can still be read at the end.
func BenchmarkChurn(b *testing.B) {
	for _, blobs := range []bool{false, true} {
		b.Run(fmt.Sprint("blobs=", blobs), func(b *testing.B) {
			for range b.N {
				m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20})
				if err != nil {
					b.Fatal(err)
				}
				c, err := New(Options{Memory: m, Blobs: blobs, AgeCycle: 100_000})
				if err != nil {
					b.Fatal(err)
				}
				const active, samples, lives = 2000, 60, 100
				rnd := rand.New(rand.NewPCG(1, 1))
				var batch Batch
				for life := range lives {
					var fps []Fingerprint
					var next []func() float64
					for i := range active {
						_, f := mix.Generator(i, rnd)
						fps, next = append(fps, c.Fingerprint(kubernetesLabels(life*active+i))), append(next, f)
					}
					for k := range samples {
						batch.Reset("default")
						for i := range active {
							batch.Series(fps[i])
							batch.Sample(int64(life*samples+k)*benchStep, math.Float64bits(next[i]()))
						}
						if _, err := c.Append(&batch); err != nil {
							b.Fatal(err)
						}
						for _, i := range batch.Missing() {
							if _, err := c.AppendNew(&batch, i, kubernetesLabels(life*active+i)); err != nil {
								b.Fatal(err)
							}
						}
						if k%10 == 9 {
							c.Maintain()
						}
					}
				}
				c.Maintain()
				st := c.Stats()
				b.ReportMetric(float64(st.Points), "samples-left")
				b.ReportMetric(float64(st.Series), "series-left")
				b.ReportMetric(float64(m.Used())/float64(st.Points), "B/sample-all-in")
				c.Close()
				m.Close()
			}
		})
	}
}
