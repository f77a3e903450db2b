package mcache

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"mcached/kvcache"
)

// evictAll puts every series of c into a blob.
func evictAll(t testing.TB, c *Cache) {
	t.Helper()
	for _, s := range c.shards {
		for gen := 3; gen > genBlob; gen-- {
			for s.overflowOne(gen) {
			}
		}
	}
	if st := c.Stats(); st.Points != st.BlobPoints || st.AllocatedBytes != int64(st.Series)*seriesBytes {
		t.Fatalf("not all is in blobs: %+v", st)
	}
}

// TestOverflowKeepsAll puts series of every kind into blobs: they are found as
// before and hold what they held, a copy saved and loaded too, and once more
// after they were written again and evicted again.
func TestOverflowKeepsAll(t *testing.T) {
	c := variedCache(t, true)
	want, series := contents(t, c), c.Stats().Series
	card := c.Cardinality("default", 10)
	for range 2 {
		evictAll(t, c)
		if got := contents(t, c); !mapsEqual(got, want) {
			t.Fatal("what is in blobs is not what was there")
		}
		st := checkCache(t, c)
		if st.Series != series || st.BlobsWritten == 0 || st.Blobs.Weight != int64(st.Points) || st.Hot.LiveBytes+st.Log.LiveBytes+st.Dir.LiveBytes != 0 {
			t.Fatalf("%+v", st)
		}
		if got := c.Cardinality("default", 10); fmt.Sprint(got) != fmt.Sprint(card) {
			t.Errorf("cardinality is %v, was %v", got, card)
		}
		for i := range 200 {
			if i%2 == 0 && len(mustSelect(t, c, kubernetesLabels(i))) != 1 {
				t.Fatalf("series %d is not found", i)
			}
		}
	}
	var file bytes.Buffer
	saved, err := c.Save(&file, 1)
	if err != nil {
		t.Fatal(err)
	}
	d := newTestCache(t, Options{Shards: 2})
	loaded, err := d.Load(bytes.NewReader(file.Bytes()))
	if err != nil || loaded != saved {
		t.Fatalf("saved %+v, loaded %+v, %v", saved, loaded, err)
	}
	if got := contents(t, d); !mapsEqual(got, want) {
		t.Fatal("what was loaded is not what was there")
	}
	// Loading over series in blobs writes them again, all of it late.
	if _, err := c.Load(bytes.NewReader(file.Bytes())); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, c); !mapsEqual(got, want) {
		t.Fatal("what was loaded over blobs is not what was there")
	}
	checkCache(t, c)
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// ramp is n samples 15 s apart.
func ramp(from, n int) []Sample {
	ss := make([]Sample, n)
	for i := range ss {
		ss[i] = Sample{int64(from+i) * 15000, math.Float64bits(float64(from + i))}
	}
	return ss
}

// TestBlobJoined writes, evicts, writes and evicts again: there is one blob,
// ranges over its borders read what was written, and the short blocks that
// each life leaves are joined.
func TestBlobJoined(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1, Blobs: true})
	s := c.shards[0]
	written := 0
	for life := range 40 {
		if err := c.AppendSamples("default", name("a"), ramp(written, 10)...); err != nil {
			t.Fatal(err)
		}
		written += 10
		for _, r := range [][2]int{{0, written - 1}, {written - 12, written - 3}, {written - 10, written - 1}, {3, 5}, {written - 11, written - 11}} {
			from, to := max(r[0], 0), r[1]
			got := readAll(t, c, "default", name("a"), int64(from)*15000, int64(to)*15000)
			if want := ramp(from, to-from+1); from <= to && !slices.Equal(got, want) {
				t.Fatalf("life %d: from %d to %d reads %d samples, want %d", life, from, to, len(got), len(want))
			}
		}
		evictAll(t, c)
	}
	o, ok := s.blobOf(&s.recs.view[0])
	if !ok || o.points != written || o.blocks.n > written/64+1 {
		t.Errorf("%d samples in %d blocks, %d written", o.points, o.blocks.n, written)
	}
	if st := checkCache(t, c); st.Blobs.Regions > 2 || st.BlobsWritten != 40 || st.BlobsRead == 0 || st.BlobsRestored != 0 {
		t.Errorf("%+v", st)
	}
}

// TestBlobLate writes late samples and deletes in the range of a blob, at
// every place of it.
func TestBlobLate(t *testing.T) {
	const n = 400
	for _, at := range []int{-5, 0, 1, 127, 128, 200, n - 1} {
		c := newTestCache(t, Options{Shards: 1, Blobs: true})
		want := map[int64]uint64{}
		for _, x := range ramp(0, n) {
			want[x.T] = x.V
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		check := func(what string) {
			t.Helper()
			got := readAll(t, c, "default", name("a"), math.MinInt64, math.MaxInt64)
			for _, x := range got {
				if v, ok := want[x.T]; !ok || v != x.V {
					t.Fatalf("%d, %s: %d reads %x, want %x %v", at, what, x.T, x.V, v, ok)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d, %s: %d samples, want %d", at, what, len(got), len(want))
			}
			checkCache(t, c)
		}
		must(c.AppendSamples("default", name("a"), ramp(0, n)...))
		evictAll(t, c)
		must(c.AppendSamples("default", name("a"), ramp(n, 50)...))
		for _, x := range ramp(n, 50) {
			want[x.T] = x.V
		}
		check("live again")
		late := Sample{int64(at)*15000 + 7, 99}
		must(c.AppendSamples("default", name("a"), late, Sample{int64(at) * 15000, 98}))
		want[late.T], want[int64(at)*15000] = 99, 98
		check("late")
		if st := c.Stats(); st.BlobsRestored != 1 || st.BlobPoints != 0 {
			t.Errorf("%+v", st)
		}
		evictAll(t, c)
		check("evicted again")
		points, err := c.Delete(mustSelect(t, c, name("a"))[0], int64(at)*15000, int64(at)*15000+7)
		must(err)
		if points != 2 {
			t.Errorf("%d points deleted, want 2", points)
		}
		delete(want, late.T)
		delete(want, int64(at)*15000)
		check("deleted")
		evictAll(t, c)
		points, err = c.Delete(mustSelect(t, c, name("a"))[0], math.MinInt64, math.MaxInt64)
		must(err)
		if st := checkCache(t, c); points != len(want) || st.Series != 0 || st.Erased != uint64(len(want)+2) {
			t.Errorf("%d points deleted of %d: %+v", points, len(want), st)
		}
	}
}

// TestBlobRaw takes, pops and removes keys that are in blobs.
func TestBlobRaw(t *testing.T) {
	c := newTestCache(t, Options{Blobs: true})
	for i := range 30 {
		v := le.AppendUint64(le.AppendUint64(nil, uint64(i)), 7)
		if err := c.Insert("raw", fmt.Append(nil, i), int64(i), v); err != nil {
			t.Fatal(err)
		}
	}
	evictAll(t, c)
	if c.IsEmpty("raw") {
		t.Error("a bucket of keys in blobs is said to be empty")
	}
	runs, err := c.Get("raw", []byte("3"))
	if err != nil || len(runs) != 1 || runs[0].Offset != 3 || le.Uint64(runs[0].Values) != 3 || len(runs[0].Values) != 16 {
		t.Fatal(runs, err)
	}
	if runs, err = c.Range("raw", []byte("3"), 4, 4); err != nil || len(runs) != 1 || le.Uint64(runs[0].Values) != 7 {
		t.Fatal(runs, err)
	}
	if runs, err = c.Take("raw", []byte("4")); err != nil || len(runs) != 1 || len(runs[0].Values) != 16 {
		t.Fatal(runs, err)
	}
	if runs, err = c.Take("raw", []byte("4")); err != nil || runs != nil {
		t.Fatal("taken twice", runs, err)
	}
	bucket, key, runs, ok := c.Pop()
	if !ok || bucket != "raw" || len(runs) != 1 || le.Uint64(runs[0].Values) != uint64(runs[0].Offset) {
		t.Fatal(bucket, key, runs, ok)
	}
	st := checkCache(t, c)
	if st.Taken != 2 || st.Popped != 2 || st.BlobPoints != 56 {
		t.Errorf("%+v", st)
	}
	if !c.RemoveBucket("raw") || !c.IsEmpty("raw") {
		t.Error("the bucket is still there")
	}
	if st := checkCache(t, c); st.Removed != 56 || st.Blobs.Regions > len(c.shards) || st.Blobs.LiveBytes != 0 {
		t.Errorf("%+v", st)
	}
}

// TestBlobVanishes reclaims the regions of blobs under series that have nothing
// else and under others that were written again.
func TestBlobVanishes(t *testing.T) {
	m := newTestMemory(t, 8<<20, 16<<10)
	c := newTestCache(t, Options{Memory: m, Shards: 2, Blobs: true})
	for i := range 100 {
		if err := c.AppendSamples("default", kubernetesLabels(i), ramp(0, 100)...); err != nil {
			t.Fatal(err)
		}
	}
	evictAll(t, c)
	for i := range 50 {
		if err := c.AppendSamples("default", kubernetesLabels(i), ramp(200, 5)...); err != nil {
			t.Fatal(err)
		}
	}
	// The regions of blobs are the only ones of class Log.
	budget := m.Budget()
	for c.Stats().BlobPoints > 0 {
		m.SetBudget(m.Used() - int64(m.RegionBytes()))
	}
	m.SetBudget(budget)
	st := checkCache(t, c)
	if st.BlobsLost != 100*100 || st.Reclaimed != st.BlobsLost || st.Points != 250 {
		t.Fatalf("%+v", st)
	}
	// Before anyone has noticed: no points, and from when on they are complete.
	for i := range 100 {
		id := mustSelect(t, c, kubernetesLabels(i))
		var s Snapshot
		if len(id) != 1 || !c.Snapshot(id[0], math.MinInt64, math.MaxInt64, &s) {
			t.Fatal(i, id)
		}
		n := 0
		for it := s.Iterator(); it.Next(); n++ {
		}
		if want := int64(99*15000 + 1); s.CompleteFrom() != want || (n == 5) != (i < 50) || n > 5 {
			t.Fatalf("series %d: %d samples, complete from %d, want %d", i, n, s.CompleteFrom(), want)
		}
	}
	c.Maintain()
	if st = checkCache(t, c); st.Series != 50 || st.Reclaimed != 100*100 {
		t.Errorf("after Maintain: %+v", st)
	}
	until, ok := c.GoneUntil("default", nil)
	if !ok || until != 99*15000+1 {
		t.Errorf("gone until %d %v", until, ok)
	}
}

// TestBlobTooLarge evicts more than a blob can hold: the oldest blocks go, and
// are counted.
func TestBlobTooLarge(t *testing.T) {
	c := newTestCache(t, Options{Memory: newTestMemory(t, 8<<20, 4<<10), Shards: 1, Blobs: true})
	rnd := rand.New(rand.NewPCG(1, 1))
	ss := ramp(0, 2000)
	for i := range ss {
		ss[i].V = rnd.Uint64()
	}
	if err := c.AppendSamples("default", name("a"), ss...); err != nil {
		t.Fatal(err)
	}
	evictAll(t, c)
	st := checkCache(t, c)
	var s Snapshot
	c.Snapshot(mustSelect(t, c, name("a"))[0], math.MinInt64, math.MaxInt64, &s)
	var got []Sample
	for it := s.Iterator(); it.Next(); {
		got = append(got, it.At())
	}
	n := len(got)
	if n < 300 || n > 500 || !slices.Equal(got, ss[2000-n:]) || uint64(n) != st.Points || st.Reclaimed != uint64(2000-n) || s.CompleteFrom() != got[0].T {
		t.Errorf("%d samples, complete from %d: %+v", n, s.CompleteFrom(), st)
	}
}

// TestBlobDamaged changes a byte of a blob: what it held is lost, and counted.
func TestBlobDamaged(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1, Blobs: true})
	s := c.shards[0]
	if err := c.AppendSamples("default", name("a"), ramp(0, 300)...); err != nil {
		t.Fatal(err)
	}
	evictAll(t, c)
	b := s.blobs.Value(s.recs.view[0].blobRef())
	b[len(b)/2] ^= 1
	if got := readAll(t, c, "default", name("a"), math.MinInt64, math.MaxInt64); len(got) != 0 {
		t.Errorf("%d samples read from a damaged blob", len(got))
	}
	if st := checkCache(t, c); st.Reclaimed != 300 || st.BlobsLost != 300 {
		t.Errorf("%+v", st)
	}
}

// TestOverflowCold fills most of the budget with series that nobody writes any
// more: Maintain moves them into blobs, which costs less than before, and
// leaves those alone that are written.
func TestOverflowCold(t *testing.T) {
	m := newTestMemory(t, 8<<20, 16<<10)
	c := newTestCache(t, Options{Memory: m, Shards: 2, Blobs: true, AgeCycle: 1000})
	const hot = 20
	i := hot
	for ; m.Room() > m.Budget()/16; i++ {
		if err := c.AppendSamples("default", kubernetesLabels(i), ramp(i, 12)...); err != nil {
			t.Fatal(err)
		}
	}
	c.Maintain()
	if st := c.Stats(); st.BlobsWritten > 0 || st.Buckets[0].Generations[2].Keys == 0 {
		t.Fatalf("%d of %d series are cold at once: %+v", st.BlobsWritten, i, st)
	}
	before := c.Stats()
	for range coldRounds * i / 1000 {
		c.Age("default")
	}
	for range 4 {
		for k := range hot {
			if err := c.AppendSamples("default", kubernetesLabels(k), ramp(k, 10)...); err != nil {
				t.Fatal(err)
			}
		}
		c.Maintain()
	}
	st := checkCache(t, c)
	regions := func(st Stats) int { return st.Hot.Regions + st.Log.Regions + st.Dir.Regions + st.Blobs.Regions }
	if st.BlobsWritten < 1000 || st.Overflowed+st.Reclaimed+st.BlobsRestored != 0 || m.Room() < m.Budget()/8 || regions(st) > regions(before)*7/8 {
		t.Errorf("%d series, %d regions, were %d: %+v", i, regions(st), regions(before), st)
	}
	for k := range hot {
		for _, id := range mustSelect(t, c, kubernetesLabels(k)) {
			s, r, _ := c.locked(id)
			if r.flags&flagBlob != 0 {
				t.Errorf("series %d is written and was moved", k)
			}
			s.mu.Unlock()
		}
	}
}

// TestOverflowKeys fills a memory with nothing but heads: when there is no room,
// the coldest go into blobs and nothing is lost.
func TestOverflowKeys(t *testing.T) {
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 16 << 10, ReadyRegions: -1}) // the supplier would age blobs
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
	if st.Points != uint64(points) || st.BlobsWritten < 1000 || st.Reclaimed+st.Overflowed != 0 || m.Room() < int64(m.RegionBytes()) {
		t.Errorf("%d keys: %+v", n, st)
	}
}

// TestOverflowRace reads series while others are evicted, written and evicted
// again: whoever reads finds all that was written before, at any moment.
func TestOverflowRace(t *testing.T) {
	c := newTestCache(t, Options{Shards: 2, Blobs: true, MaxBytes: 12 << 10})
	const series = 40
	var done atomic.Bool
	var written [series]atomic.Int64
	for i := range series {
		if err := c.AppendSamples("default", kubernetesLabels(i), ramp(0, 1)...); err != nil {
			t.Fatal(err)
		}
		written[i].Store(1)
	}
	var wg sync.WaitGroup
	var reads atomic.Int64
	wg.Go(func() {
		var s Snapshot
		for i := 0; !done.Load(); i = (i + 1) % series {
			want := written[i].Load()
			ids, err := c.Select("default", []Matcher{{Name: "__name__", Value: kubernetesLabels(i)[0].Value}, {Name: "pod", Value: kubernetesLabels(i)[9].Value}, {Name: "le", Value: kubernetesLabels(i)[6].Value}}, nil)
			if err != nil || len(ids) == 0 {
				t.Error("series is not found", err)
				return
			}
			for _, id := range ids {
				if ls, ok := c.Labels(id, nil); !ok || labelsKey(ls) != labelsKey(kubernetesLabels(i)) {
					continue
				}
				c.Snapshot(id, math.MinInt64, math.MaxInt64, &s)
				n := int64(0)
				for it := s.Iterator(); it.Next(); n++ {
					if it.At().T != n*15000 {
						t.Errorf("sample %d of series %d has time %d", n, i, it.At().T)
						return
					}
				}
				if n < want {
					t.Errorf("series %d reads %d samples of %d", i, n, want)
					return
				}
				reads.Add(1)
			}
		}
	})
	for k := 1; k < 100_000; k++ {
		if k%500 == 0 && c.Stats().BlobsRead > 500 {
			break
		}
		i := k * 7 % series
		n := written[i].Load()
		if err := c.AppendSamples("default", kubernetesLabels(i), ramp(int(n), 6)...); err != nil {
			t.Fatal(err)
		}
		written[i].Store(n + 6)
	}
	done.Store(true)
	wg.Wait()
	if st := checkCache(t, c); st.BlobsWritten < 500 || st.Reclaimed+st.Overflowed != 0 || reads.Load() < 100 {
		t.Errorf("too little happened: %d reads, %+v", reads.Load(), st)
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
		c := newTestCache(t, Options{Shards: 1, AgeCycle: 1 << 40, Blobs: true, Overflow: func(o Overflow) {
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
				c.evictTo(before-1, true)
				for key := range cold {
					_, locked, id := c.lockKey("b", []byte(key))
					if locked == nil {
						t.Fatalf("seed %d: %s is gone", seed, key)
					}
					r := &s.recs.view[id]
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
			c.evictTo(c.allocated()-1, true)
			whole++
		}
		if st := checkCache(t, c); moved < 300 || byGen[0] == 0 || byGen[1] == 0 || byGen[2] == 0 || whole < 20 || len(inBlobs) != 0 || st.BlobPoints != 0 || st.Overflowed == 0 {
			t.Errorf("seed %d: too little happened: %d moved, by generation %v, %d evicted whole, %+v", seed, moved, byGen, whole, st)
		}
	}
}

// FuzzBlob opens arbitrary bytes, with their checksum put right: they are a
// blob or none, and the chunks of one can be decoded or not, without a panic.
func FuzzBlob(f *testing.F) {
	c := newTestCache(f, Options{Memory: newTestMemory(f, 16<<20, 64<<10), Shards: 1, Blobs: true})
	var b Batch
	b.Reset("default")
	b.Series(c.Fingerprint(name("a")))
	for i := range 200 {
		b.Sample(int64(i)*1000, uint64(i*i))
		b.Record(int64(i)*1000+500, []byte("record"))
	}
	if _, err := c.AppendNew(&b, 0, name("a")); err != nil {
		f.Fatal(err)
	}
	evictAll(f, c)
	s := c.shards[0]
	own := slices.Clone(s.blobs.Value(s.recs.view[0].blobRef()))
	if o, ok := openBlob(own); !ok || o.points != 400 || o.first() != 0 || o.last != 199_500 {
		f.Fatal("own blob is none")
	}
	f.Add(own)
	f.Add(own[:blobHeader+2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := openBlob(b); ok && !bytes.Equal(b, own) && len(b) >= 4 && crc32.Checksum(b[4:], castagnoli) != le.Uint32(b) {
			t.Fatal("a blob with a wrong checksum")
		}
		if len(b) < 4 {
			return
		}
		b = slices.Clone(b)
		le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
		o, ok := openBlob(b)
		if !ok {
			return
		}
		points := 0
		var codec codec
		var out [blockMax]Sample
		for o.blocks.n > 0 {
			start, c := o.blocks.next()
			if n, err := codec.decode(&out, append(slices.Clone(c), zeros[:]...), start); err == nil && n != blockLen(c) {
				t.Fatalf("block of %d says %d", n, blockLen(c))
			}
			points += blockLen(c)
		}
		for o.records.n > 0 {
			start, c := o.records.next()
			points += len(appendRecords(nil, c, start))
		}
		if points != o.points {
			t.Fatalf("%d points, the header says %d", points, o.points)
		}
	})
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
			_, next := generator(i, rnd)
			for k := range ss {
				ss[k] = Sample{int64(k) * benchStep, math.Float64bits(next())}
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
						_, f := generator(i, rnd)
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
