package mcache

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// evictAll puts every series of c into a blob.
func evictAll(t testing.TB, c *Cache) {
	t.Helper()
	for _, s := range c.shards {
		for gen := 3; gen > genBlob; gen-- {
			for s.coldestToBlob(gen) {
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
	t.Parallel()
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
	saved, err := c.Save(&file, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := newTestCache(t, Options{Shards: 2})
	loaded, err := d.Load(bytes.NewReader(file.Bytes()), LoadOptions{})
	if err != nil || loaded.Saved != saved {
		t.Fatalf("saved %+v, loaded %+v, %v", saved, loaded, err)
	}
	if got := contents(t, d); !mapsEqual(got, want) {
		t.Fatal("what was loaded is not what was there")
	}
	// Loading over series in blobs writes them again, all of it late.
	if _, err := c.Load(bytes.NewReader(file.Bytes()), LoadOptions{}); err != nil {
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
		ss[i] = Sample{T: int64(from+i) * 15000, V: math.Float64bits(float64(from + i))}
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
	o, ok := s.blobOfLocked(s.recs.At(0))
	if !ok || o.Points != written || o.Blocks.Len() > written/64+1 {
		t.Errorf("%d samples in %d blocks, %d written", o.Points, o.Blocks.Len(), written)
	}
	if st := checkCache(t, c); st.Blobs.Regions > 2 || st.BlobsWritten != 40 || st.BlobsRead == 0 || st.BlobsRestored != 0 {
		t.Errorf("%+v", st)
	}
}

// TestBlobLate writes out-of-order samples and deletes in the range of a blob, at
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
		late := Sample{T: int64(at)*15000 + 7, V: 99}
		must(c.AppendSamples("default", name("a"), late, Sample{T: int64(at) * 15000, V: 98}))
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
	b := s.blobs.Value(s.recs.At(0).blobRef())
	b[len(b)/2] ^= 1
	if got := readAll(t, c, "default", name("a"), math.MinInt64, math.MaxInt64); len(got) != 0 {
		t.Errorf("%d samples read from a damaged blob", len(got))
	}
	if st := checkCache(t, c); st.Reclaimed != 300 || st.BlobsLost != 300 {
		t.Errorf("%+v", st)
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
		if k%500 == 0 {
			if st := c.Stats(); st.BlobsRead > 500 && st.BlobsWritten >= 500 && reads.Load() >= 100 {
				break
			}
		}
		i := k * 7 % series
		n := written[i].Load()
		if err := c.AppendSamples("default", kubernetesLabels(i), ramp(int(n), 6)...); err != nil {
			t.Fatal(err)
		}
		written[i].Store(n + 6)
	}
	for reads.Load() < 100 && !t.Failed() {
		runtime.Gosched()
	}
	done.Store(true)
	wg.Wait()
	if st := checkCache(t, c); st.BlobsWritten < 500 || st.Reclaimed+st.Evicted != 0 || reads.Load() < 100 {
		t.Errorf("too little happened: %d reads, %+v", reads.Load(), st)
	}
}
