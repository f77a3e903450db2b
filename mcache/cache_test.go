package mcache

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mcached/kvcache"
)

// newTestMemory is a Memory of tiny regions.
func newTestMemory(t testing.TB, budget int64, region int) *kvcache.Memory {
	t.Helper()
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: budget, RegionBytes: region, ReserveBytes: 2 * budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func newTestCache(t testing.TB, o Options) *Cache {
	t.Helper()
	if o.Memory == nil {
		o.Memory = newTestMemory(t, 256<<20, 64<<10)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// readAll is all samples of the one series with these labels.
func readAll(t testing.TB, c *Cache, bucket string, labels []Label, from, to int64) []Sample {
	t.Helper()
	ms := make([]Matcher, len(labels))
	for i, l := range labels {
		ms[i] = Matcher{Type: MatchEqual, Name: l.Name, Value: l.Value}
	}
	ids, err := c.Select(bucket, ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []Sample
	for _, id := range ids {
		ls, ok := c.Labels(id, nil)
		if !ok || len(ls) != len(labels) {
			continue
		}
		var s Snapshot
		if !c.Snapshot(id, from, to, &s) {
			t.Fatal("series is gone")
		}
		for it := s.Iterator(); it.Next(); {
			out = append(out, it.At())
		}
	}
	return out
}

func name(s string) []Label { return []Label{{"__name__", s}} }

// TestTimesExact writes series whose times arrive in every manner that senders
// know, and reads back exactly what went in.
func TestTimesExact(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for kind, next := range map[string]func(i int, at int64) int64{
		"aligned":  func(i int, at int64) int64 { return at + 15000 },
		"jittered": func(i int, at int64) int64 { return at + 14995 + rnd.Int64N(11) },
		"late now and then": func(i int, at int64) int64 {
			if i%37 == 5 {
				return at + 15123
			}
			return at + 15000 - (at % 15000)
		},
		"missing now and then": func(i int, at int64) int64 { return at + 15000*(1+rnd.Int64N(8)/7) },
		"changed interval": func(i int, at int64) int64 {
			if i > 500 {
				return at + 60000
			}
			return at + 15000
		},
		"irregular": func(i int, at int64) int64 { return at + 1 + rnd.Int64N(1e6) },
		"far apart": func(i int, at int64) int64 { return at + 1<<40 + rnd.Int64N(9) },
	} {
		c := newTestCache(t, Options{Shards: 1})
		var want []Sample
		at := int64(1_700_000_000_000)
		for i := range 1500 {
			at = next(i, at)
			want = append(want, Sample{T: at, V: math.Float64bits(float64(i) / 8)})
		}
		for round := range 2 {
			if err := c.AppendSamples("b", name(kind), want[round*750:(round+1)*750]...); err != nil {
				t.Fatal(err)
			}
		}
		if got := readAll(t, c, "b", name(kind), math.MinInt64, math.MaxInt64); !slices.Equal(got, want) {
			t.Errorf("%s: %d samples read, %d written, or they differ", kind, len(got), len(want))
		}
		for range 200 {
			i, j := rnd.IntN(len(want)), rnd.IntN(len(want))
			i, j = min(i, j), max(i, j)
			if got := readAll(t, c, "b", name(kind), want[i].T, want[j].T); !slices.Equal(got, want[i:j+1]) {
				t.Fatalf("%s: range %d to %d reads %d samples, want %d", kind, want[i].T, want[j].T, len(got), j-i+1)
			}
		}
	}
}

// modelKey is what the model knows of one key.
type modelKey struct {
	bucket string
	key    string
	points map[int64]uint64
}

// TestSeriesModel runs random operations on a tiny cache against maps: whatever the
// cache still has is what the model has, and every point is accounted for.
// Eviction, ageing, mending, region loss and compaction all happen.
func TestSeriesModel(t *testing.T) {
	t.Parallel()
	seeds := 6
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { modelRun(t, uint64(seed), false, 160<<10) })
		// Of keys in blobs 8 KiB hold no more than the records.
		t.Run(fmt.Sprint("blobs,seed=", seed), func(t *testing.T) { modelRun(t, uint64(seed), true, []int64{8, 32, 128}[seed%3]<<10) })
	}
}

func modelRun(t *testing.T, seed uint64, blobs bool, maxBytes int64) {
	rnd := rand.New(rand.NewPCG(seed, 99))
	m := newTestMemory(t, 4<<20, 16<<10)
	model := map[string]*modelKey{}
	evicted := 0
	c := newTestCache(t, Options{Memory: m, Shards: 1 << (seed % 3), MaxBytes: maxBytes, AgeCycle: 2000, Blobs: blobs,
		Evicted: func(o Evicted) {
			id := o.Bucket + "/" + string(o.Key)
			k := model[id]
			if k == nil {
				t.Errorf("overflow of a key that is not there: %s", id)
				return
			}
			for _, s := range o.Samples {
				if v, ok := k.points[s.T]; !ok || v != s.V {
					t.Errorf("overflow of %s: offset %d has %x, want %x %v", id, s.T, s.V, v, ok)
				}
			}
			evicted += len(o.Samples)
			delete(model, id)
		}})
	shrunk, partial, written := 0, 0, 0
	drop := 4 // regions at most, at a time
	if blobs {
		drop = 12
	}
	for op := range 20_000 {
		bucket := []string{"values", "pairs"}[rnd.IntN(2)]
		key := fmt.Sprint("key", rnd.IntN(60))
		id := bucket + "/" + key
		switch x := rnd.IntN(1000); {
		case x < 700:
			if model[id] == nil {
				model[id] = &modelKey{bucket, key, map[int64]uint64{}}
			}
			k := model[id]
			n := 1 + rnd.IntN(40)
			if rnd.IntN(3) == 0 {
				n = 1
			}
			at := int64(op/20) + rnd.Int64N(300)
			if rnd.IntN(20) == 0 {
				at += rnd.Int64N(100000) - 50000
			}
			var b []byte
			for i := range n {
				v := rnd.Uint64()
				if rnd.IntN(4) > 0 {
					v = math.Float64bits(float64(rnd.IntN(1000)))
				}
				if bucket == "pairs" {
					at += rnd.Int64N(4)
					b = le.AppendUint64(b, uint64(at))
					k.points[at] = v
				} else {
					k.points[at+int64(i)] = v
				}
				b = le.AppendUint64(b, v)
			}
			var err error
			if bucket == "pairs" {
				err = c.InsertHPTS(bucket, []byte(key), b)
			} else {
				err = c.Insert(bucket, []byte(key), at, b)
			}
			if err != nil {
				t.Fatalf("op %d: %v", op, err)
			}
			written += n
		case x < 950:
			from := int64(op/20) + rnd.Int64N(600) - 300
			to := from + rnd.Int64N(500)
			if x < 850 {
				from, to = math.MinInt64, math.MaxInt64
			}
			runs, err := c.Range(bucket, []byte(key), from, to)
			if err != nil {
				t.Fatal(err)
			}
			got := points(bucket, runs)
			want := 0
			if k := model[id]; k != nil {
				for at := range k.points {
					if at >= from && at <= to {
						want++
					}
				}
				for at, v := range got {
					if w, ok := k.points[at]; !ok || v != w {
						t.Fatalf("op %d: %s offset %d reads %x, want %x %v", op, id, at, v, w, ok)
					}
				}
			} else if len(got) > 0 {
				t.Fatalf("op %d: %s reads %d points of a key that is not there", op, id, len(got))
			}
			if len(got) < want {
				// Only a vanished region explains it; then the model forgets too.
				if c.Stats().Reclaimed == 0 {
					t.Fatalf("op %d: %s reads %d points, want %d, and nothing was reclaimed", op, id, len(got), want)
				}
				partial++
				all, _ := c.Get(bucket, []byte(key))
				model[id].points = points(bucket, all)
			}
		case x < 970:
			runs, err := c.Take(bucket, []byte(key))
			if err != nil {
				t.Fatal(err)
			}
			if k := model[id]; k != nil {
				for at, v := range points(bucket, runs) {
					if k.points[at] != v {
						t.Fatalf("op %d: take of %s: offset %d", op, id, at)
					}
				}
				delete(model, id)
			}
		case x < 975:
			if b, key, runs, ok := c.Pop(); ok {
				if len(runs) > 0 && model[b+"/"+string(key)] == nil {
					t.Fatalf("op %d: popped a key that is not there", op)
				}
				delete(model, b+"/"+string(key))
			}
		case x < 985:
			c.Age(bucket)
		case x < 990:
			m.SetBudget(m.Used() - int64(rnd.IntN(drop)*m.RegionBytes()))
			m.SetBudget(4 << 20)
			shrunk++
		case x < 991 && rnd.IntN(8) == 0:
			c.RemoveBucket(bucket)
			maps.DeleteFunc(model, func(_ string, k *modelKey) bool { return k.bucket == bucket })
		default:
			c.Maintain()
		}
		if op%500 == 0 {
			checkCache(t, c)
		}
	}
	st := checkCache(t, c)
	if got := st.Inserted + st.Overwritten; got != uint64(written) {
		t.Errorf("%d points inserted and %d overwritten, which is %d; %d were written", st.Inserted, st.Overwritten, got, written)
	}
	if st.Evicted != uint64(evicted) {
		t.Errorf("evicted %d points, the function saw %d", st.Evicted, evicted)
	}
	if blobs && (st.BlobsWritten < 100 || st.BlobsRead < 100 || st.BlobsRestored < 20 || st.BlobsLost == 0 || (maxBytes <= 8<<10 && evicted == 0)) {
		t.Errorf("too little happened with blobs: %d evicted, %+v", evicted, st)
	}
	if st.Evictions < 20 || st.Mended < 100 || st.Reclaimed == 0 || st.Overwritten == 0 || shrunk == 0 || partial == 0 || st.Taken == 0 || st.Popped == 0 || (seed%3 == 0 && st.Rebuilds == 0) {
		t.Errorf("too little happened: %+v, %d partial", st, partial)
	}
}

func points(bucket string, runs []Run) map[int64]uint64 {
	got := map[int64]uint64{}
	for _, r := range runs {
		for i := 0; i < len(r.Values); {
			at := r.Offset + int64(i/8)
			if bucket == "pairs" {
				at = int64(le.Uint64(r.Values[i:]))
				i += 8
			}
			got[at] = le.Uint64(r.Values[i:])
			i += 8
		}
	}
	return got
}

// checkCache checks every invariant and the conservation of points.
func checkCache(t *testing.T, c *Cache) Stats {
	t.Helper()
	series := int64(0) // but for those that hold start times, which no bucket counts
	for _, s := range c.shards {
		s.mu.Lock()
		err := s.checkLocked()
		for id := range s.recs.All() {
			if r := s.recs.At(uint32(id)); r.flags&flagInUse != 0 && r.flags&flagShadow == 0 {
				series++
			}
		}
		s.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	st := c.Stats()
	counted := int64(0)
	for _, b := range *c.byID.Load() {
		counted += b.series.Load()
	}
	if series != counted {
		t.Fatalf("%d series, buckets count %d", series, counted)
	}
	if sum := st.Points + st.Evicted + st.Taken + st.Popped + st.Removed + st.Erased + st.Reclaimed; sum != st.Inserted {
		t.Fatalf("inserted %d points, accounted for %d: %+v", st.Inserted, sum, st)
	}
	return st
}

// TestErrors holds bad input to its sentinels.
func TestErrors(t *testing.T) {
	c := newTestCache(t, Options{MaxBuckets: 3})
	must := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	v := make([]byte, 16)
	must(c.Insert("v", []byte("k"), 0, v), nil)
	must(c.InsertHPTS("v", []byte("k"), v), ErrDataSize)
	must(c.Insert("v", nil, 0, v), ErrKeySize)
	must(c.Insert("v", make([]byte, MaxKey+1), 0, v), ErrKeySize)
	must(c.Insert("v", []byte("k"), 0, nil), ErrValues)
	must(c.Insert("v", []byte("k"), 0, v[:7]), ErrValues)
	must(c.InsertHPTS("p", []byte("k"), v[:8]), ErrValues)
	must(c.Insert("v", []byte("k"), MaxTime, v), ErrTime)
	must(c.Insert("v", []byte("k"), math.MaxInt64, v), ErrTime)
	must(c.Insert("v", []byte("k"), math.MinInt64, v), ErrTime)
	must(c.AppendSamples("l", []Label{{"a", ""}}, Sample{}), ErrLabels)
	must(c.AppendSamples("l", []Label{{"a", "1"}, {"a", "2"}}, Sample{}), ErrLabels)
	must(c.AppendSamples("l", []Label{{"", "1"}}, Sample{}), ErrLabels)
	must(c.AppendSamples("l", name("x"), Sample{T: math.MaxInt64}), ErrTime)
	must(c.AppendSamples("v", name("x"), Sample{}), ErrDataSize)
	must(c.Insert("third", []byte("k"), 0, v), nil)
	must(c.Insert("fourth", []byte("k"), 0, v), ErrBuckets)
	if runs, err := c.Get("none", []byte("k")); runs != nil || err != nil {
		t.Errorf("an unknown bucket reads %v, %v", runs, err)
	}
	c.Close()
	must(c.Insert("v", []byte("k"), 0, v), ErrClosed)
	_, err := c.Get("v", []byte("k"))
	must(err, ErrClosed)
	must(c.Close(), ErrClosed)
}

// TestLongSeries writes more blocks than a directory has places: the oldest
// make way, are accounted for, and reads say from when on they are complete.
func TestLongSeries(t *testing.T) {
	c := newTestCache(t, Options{Memory: newTestMemory(t, 64<<20, 4<<10), Shards: 1})
	const samples = 50_000 // of which 254 entries hold some 32,000
	at := int64(0)
	for from := 0; from < samples; from += 500 {
		ss := make([]Sample, 500)
		for i := range ss {
			at += 15000
			ss[i] = Sample{T: at, V: math.Float64bits(float64(from + i))}
		}
		if err := c.AppendSamples("default", name("long"), ss...); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := c.Select("default", nil, nil)
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	var s Snapshot
	c.Snapshot(ids[0], 0, math.MaxInt64, &s)
	n, first := 0, int64(0)
	for it := s.Iterator(); it.Next(); n++ {
		if n == 0 {
			first = it.At().T
		}
	}
	st := checkCache(t, c)
	if n < 20_000 || n >= samples || uint64(n) != st.Points || s.CompleteFrom() != first {
		t.Errorf("%d samples left of %d, from %d on, complete from %d, %+v", n, samples, first, s.CompleteFrom(), st)
	}
}
