package kvcache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestManyModel holds runs of keys, with repetitions, against a plain map on
// tiny regions. A miss is always allowed, because what was stored may have been
// evicted.
func TestManyModel(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 2
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { testManyModel(t, seed) })
	}
}

func testManyModel(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	budget := int64(100 * MinRegionBytes)
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: budget, RegionBytes: MinRegionBytes}, CacheOptions{Shards: 4, SweepEvery: -1})
	model := map[string][]byte{}
	var hits, vanished, parts, rounds int
	for op := range 3000 {
		keys := make([][]byte, 1+rnd.IntN(3*manyKeys))
		for i := range keys {
			keys[i] = fmt.Appendf(nil, "k%d", rnd.IntN(2500))
		}
		if rnd.IntN(3) == 0 {
			values := make([][]byte, len(keys))
			for i := range values {
				values[i] = bytes.Repeat([]byte{byte(rnd.Uint32())}, rnd.IntN(250))
				model[string(keys[i])] = values[i]
			}
			if n, err := c.PutMany(keys, values); n != len(keys) || err != nil {
				t.Fatalf("op %d: stored %d of %d, %v", op, n, len(keys), err)
			}
		}
		rounds++
		for left := keys; len(left) > 0; {
			parts++
			next := 0
			n := c.GetMany(left, func(i int, v []byte, _ Kind, ok bool) {
				if i != next {
					t.Fatalf("op %d: called for key %d, want %d", op, i, next)
				}
				next++
				want, has := model[string(left[i])]
				switch {
				case ok && (!has || !bytes.Equal(v, want)):
					t.Fatalf("op %d: %q reads %x, want %x (%v)", op, left[i], v, want, has)
				case ok:
					hits++
				case has:
					vanished++
					delete(model, string(left[i]))
				}
			})
			if n != next || n == 0 {
				t.Fatalf("op %d: %d keys said to be done, %d were", op, n, next)
			}
			left = left[n:]
		}
		switch {
		case op%100 == 50:
			m.SetBudget(int64(20+rnd.IntN(30)) * MinRegionBytes)
		case op%100 == 60:
			m.SetBudget(budget)
		case op%100 == 70:
			if err := c.Check(); err != nil {
				t.Fatalf("op %d: %v", op, err)
			}
		}
	}
	if s := c.Stats(); hits < 10_000 || vanished < 100 || parts < rounds*3/2 || s.Waited == 0 || s.Evicted == 0 || s.IndexesGrown == 0 {
		t.Errorf("too little happened: %d hits, %d vanished, %d parts of %d, %+v", hits, vanished, parts, rounds, s)
	}
}

func TestManyLimits(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 256 << 10}, CacheOptions{SweepEvery: -1})
	a, b, long := []byte("a"), []byte("b"), make([]byte, c.MaxKey()+1)
	if n := c.GetMany(nil, func(int, []byte, Kind, bool) { t.Error("called") }); n != 0 {
		t.Errorf("of no keys %d were done", n)
	}
	if n, err := c.PutMany([][]byte{a, long, b}, [][]byte{a, a, b}); n != 1 || !errors.Is(err, ErrKeySize) {
		t.Errorf("a long key: %d were stored, %v", n, err)
	}
	if n, err := c.PutMany([][]byte{b, a}, [][]byte{b, make([]byte, c.MaxValue()+1)}); n != 1 || !errors.Is(err, ErrValueSize) {
		t.Errorf("a long value: %d were stored, %v", n, err)
	}
	// A run ends where its values are large, and goes on after that.
	large := make([]byte, manyBytes/2)
	keys, values := make([][]byte, 10), make([][]byte, 10)
	for i := range keys {
		keys[i], values[i] = fmt.Appendf(nil, "large%d", i), large
	}
	if n, err := c.PutMany(keys, values); n != len(keys) || err != nil {
		t.Fatalf("%d large values were stored, %v", n, err)
	}
	if n := c.GetMany(keys, func(i int, v []byte, _ Kind, ok bool) {
		if !ok || len(v) != len(large) {
			t.Errorf("%d: %d bytes, %v", i, len(v), ok)
		}
	}); n != 2 {
		t.Errorf("%d large values in one run, want 2", n)
	}
	var got []byte
	if n := testing.AllocsPerRun(100, func() {
		got = got[:0]
		c.GetMany([][]byte{a, b, long}, func(_ int, v []byte, _ Kind, ok bool) { got = append(got, v...) })
	}); n != 0 || string(got) != "ab" {
		t.Errorf("%v allocations, got %q", n, got)
	}
}

// BenchmarkMany holds runs of 16 keys beside as many calls.
func BenchmarkMany(b *testing.B) {
	const run = 16
	o := newOurs(b, 512<<20)
	fillStore(o)
	var block [run * benchKey]byte
	keys, values := make([][]byte, run), make([][]byte, run)
	for i := range keys {
		keys[i] = block[i*benchKey:][:benchKey]
		values[i] = make([]byte, benchValue)
	}
	rnd := rand.NewPCG(1, 1)
	dst := make([]byte, 0, run*benchValue)
	each := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			before := processorTime()
			for i := 0; i < b.N; i += run {
				for _, k := range keys {
					benchKeyAt(k, rnd.Uint64()%benchEntries)
				}
				dst = dst[:0]
				f()
			}
			b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
	each("op=get/by=1", func() {
		for _, k := range keys {
			dst, _ = o.c.Get(dst, k)
		}
	})
	each("op=get/by=16", func() {
		o.c.GetMany(keys, func(_ int, v []byte, _ Kind, ok bool) { dst = append(dst, v...) })
	})
	each("op=put/by=1", func() {
		for i, k := range keys {
			_ = o.c.Put(k, values[i], 0)
		}
	})
	each("op=put/by=16", func() { _, _ = o.c.PutMany(keys, values) })
}
