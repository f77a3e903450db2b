package kvcache

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func key(n int) []byte { return fmt.Appendf(nil, "key-%08d", n) }

// TestRecency writes several times what fits while some keys are read: those
// live on, others go.
func TestRecency(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 32 << 10}, CacheOptions{Shards: 2, SweepEvery: -1})
	const hot, cold, valueBytes = 2000, 120_000, 100
	value := make([]byte, valueBytes)
	for n := range cold {
		if n%4 == 0 && n/4 < hot {
			if err := c.Put(key(n/4), value, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Put(key(hot+n), value, 0); err != nil {
			t.Fatal(err)
		}
		if n%4 == 0 {
			c.Touch(key(n / 4 % hot))
		}
	}
	kept, old := 0, 0
	for n := range hot {
		if c.Has(key(n)) {
			kept++
		}
		if c.Has(key(hot + n)) {
			old++
		}
	}
	s := c.Stats()
	if kept < hot*95/100 || old > 0 || s.Reinserted < uint64(kept) {
		t.Errorf("%d of %d read keys kept, %d of the oldest others, %d reinserted", kept, hot, old, s.Reinserted)
	}
	if used := m.Used(); used < m.Budget()*9/10 {
		t.Errorf("%d used of %d", used, m.Budget())
	}
}

// TestPressureKeepsNothing holds the other half: what SetBudget takes is not
// copied, however often it was read.
func TestPressureKeepsNothing(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 32 << 10}, CacheOptions{Shards: 2, SweepEvery: -1})
	for n := range 20_000 {
		_ = c.Put(key(n), make([]byte, 100), 0)
		c.Touch(key(n))
	}
	before := c.Stats()
	m.SetBudget(1 << 20)
	after := c.Stats()
	if after.Reinserted != before.Reinserted || after.Evicted == before.Evicted || m.Used() > 1<<20 {
		t.Errorf("before %+v, after %+v, used %d", before, after, m.Used())
	}
	if c.Has(key(0)) || !c.Has(key(19_999)) {
		t.Error("not the oldest went")
	}
}

func TestExpiry(t *testing.T) {
	now := &clock{ms: 1_000_000}
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20}, CacheOptions{SweepEvery: -1, Now: now.now})
	for n := range 1000 {
		if err := c.Put(key(n), []byte("v"), time.Duration(n+1)*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if ms, ok := c.Expiry(key(9)); !ok || ms != 1_010_000 {
		t.Fatalf("expires at %d, %v", ms, ok)
	}
	now.ms += 500_000
	if c.Has(key(499)) || !c.Has(key(500)) {
		t.Error("the last moment of a key is wrong")
	}
	if n, s := c.Len(), c.Stats(); n != 999 || s.Expiring != 999 { // the one that Has found
		t.Errorf("%d entries before a sweep, %d of them expire", n, s.Expiring)
	}
	if n := c.Sweep(); n != 499 {
		t.Errorf("%d removed by a sweep", n)
	}
	if n := c.Sweep(); n != 0 || c.Len() != 500 {
		t.Errorf("%d removed by a second, %d left", n, c.Len())
	}
	// The times of what stayed must have been noted again.
	now.ms += 250_000
	if n := c.Sweep(); n != 250 {
		t.Errorf("%d removed by a third", n)
	}
	if s := c.Stats(); s.Expired != 750 {
		t.Errorf("%+v", s)
	}
	// A key that lost its time stays.
	if err := c.Update(key(999), func(old Entry, ok bool) (Entry, Op) { return Entry{Value: old.Value}, Store }); err != nil {
		t.Fatal(err)
	}
	now.ms += 1 << 40
	if c.Sweep(); c.Len() != 1 || !c.Has(key(999)) || c.Stats().Expiring != 0 {
		t.Errorf("%d left, %d of them expire", c.Len(), c.Stats().Expiring)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestMeanTTL looks at all keys of a small cache, and at a sample of a large one.
func TestMeanTTL(t *testing.T) {
	now := &clock{ms: 1_000_000}
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 16 << 20}, CacheOptions{SweepEvery: -1, Now: now.now})
	mean := func(want, most int64) {
		t.Helper()
		if ms := c.MeanTTL(); ms < want-most || ms > want+most {
			t.Errorf("the mean time to live is %d ms, want %d ± %d", ms, want, most)
		}
	}
	mean(0, 0)
	_ = c.Put(nil, nil, 0)
	mean(0, 0)
	for n := range 100 {
		_ = c.Put(key(n), nil, time.Duration(n+1)*time.Second)
		_ = c.Put(key(1_000_000+n), nil, 0)
	}
	mean(50_500, 0)
	now.ms += 10_000 // ten have gone, the rest has less left
	mean(45_500, 0)
	for n := range 20_000 {
		_ = c.Put(key(n), nil, time.Duration(1+n%1000)*time.Second)
	}
	mean(500_500, 60_000) // σ is 9 s for a thousand
	// What ends in a thousand years is no overflow.
	_ = c.Update(key(0), func(Entry, bool) (Entry, Op) { return Entry{ExpiresMs: math.MaxInt64}, Store })
	c.Clear()
	for n := range 3 {
		_ = c.Update(key(n), func(Entry, bool) (Entry, Op) { return Entry{ExpiresMs: math.MaxInt64}, Store })
	}
	if ms := c.MeanTTL(); ms < math.MaxInt64/2 {
		t.Errorf("the mean of the longest times is %d ms", ms)
	}
}

// TestExpiryGoesRound reads one region a time while all have something to
// expire, always: none may wait for good.
func TestExpiryGoesRound(t *testing.T) {
	now := &clock{ms: 1_000_000}
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: MinRegionBytes}, CacheOptions{Shards: 1, SweepEvery: -1, Now: now.now})
	const keys = 2000
	for n := range keys {
		if err := c.Put(key(n), make([]byte, 80), time.Duration(1+n*7%500)*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	regions := len(c.shards[0].logs[probation].list)
	if regions < 40 {
		t.Fatalf("only %d regions", regions)
	}
	for range 4 * regions {
		now.ms += 500 * 1000 / int64(4*regions)
		c.shards[0].expire(m.RegionBytes())
	}
	// A round takes 125 s. Regions that empty change the order, so one may miss a round.
	late := 0
	for n := range keys {
		if expires := 1_000_000 + int64(1+n*7%500)*1000; expires < now.ms-250_000 {
			h := c.hash(key(n))
			if f := c.shard(h).findLocked(h, key(n)); f.p != nil {
				late++
			}
		}
	}
	if late > 0 || c.Stats().Expired < keys/2 {
		t.Errorf("%d records expired two rounds ago and are there; %d expired", late, c.Stats().Expired)
	}
}

func TestUpdate(t *testing.T) {
	now := &clock{ms: 1_000_000}
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 1 << 20, RegionBytes: MinRegionBytes}, CacheOptions{Shards: 1, SweepEvery: -1, Now: now.now})
	k := []byte("k")
	update := func(e Entry, op Op, wantOld string, wantOK bool) {
		t.Helper()
		err := c.Update(k, func(old Entry, ok bool) (Entry, Op) {
			if string(old.Value) != wantOld || ok != wantOK {
				t.Errorf("old %q, %v, want %q, %v", old.Value, ok, wantOld, wantOK)
			}
			return e, op
		})
		if err != nil {
			t.Error(err)
		}
	}
	update(Entry{Value: []byte("x")}, Keep, "", false)
	update(Entry{}, Remove, "", false)
	update(Entry{Value: []byte("one"), ExpiresMs: 2_000_000}, Store, "", false)
	update(Entry{}, Keep, "one", true)
	update(Entry{Value: []byte("other")}, Store, "one", true)
	update(Entry{}, Remove, "other", true)
	update(Entry{Value: []byte("late"), ExpiresMs: 1_000_000}, Store, "", false)
	update(Entry{Value: []byte("two")}, Store, "", false)
	if err := c.Update(k, func(Entry, bool) (Entry, Op) { return Entry{ExpiresMs: -1}, Store }); !errors.Is(err, ErrTTL) {
		t.Error(err)
	}
	if err := c.Update(k, func(Entry, bool) (Entry, Op) { return Entry{Value: make([]byte, c.MaxValue()+1)}, Store }); !errors.Is(err, ErrValueSize) {
		t.Error(err)
	}
	if err := c.Update(make([]byte, c.MaxKey()+1), nil); !errors.Is(err, ErrKeySize) {
		t.Error(err)
	}
	// The entry stored may be any part of the old one, moved or in place.
	for size := range 60 {
		whole := bytes.Repeat([]byte("abcdefgh"), 8)[:size]
		for from := range size + 1 {
			for _, ms := range []int64{0, 5_000_000} {
				if err := c.Put(k, whole, 0); err != nil {
					t.Fatal(err)
				}
				update(Entry{}, Keep, string(whole), true)
				if err := c.Update(k, func(old Entry, _ bool) (Entry, Op) {
					return Entry{Value: old.Value[from:], ExpiresMs: ms, Kind: Kind(size & 1)}, Store
				}); err != nil {
					t.Fatal(err)
				}
				update(Entry{}, Keep, string(whole[from:]), true)
			}
		}
	}
	// f must not write over what lies behind the value.
	_ = c.Update(k, func(old Entry, _ bool) (Entry, Op) {
		if cap(old.Value) != len(old.Value) {
			t.Errorf("a value of %d bytes has capacity %d", len(old.Value), cap(old.Value))
		}
		return old, Keep
	})
	// With no memory at all the key is gone rather than old.
	if err := c.Put(k, []byte("old"), 0); err != nil {
		t.Fatal(err)
	}
	m.SetBudget(2 * MinRegionBytes)
	_ = c.Put(k, []byte("old"), 0)
	m.SetBudget(MinRegionBytes)
	err := c.Put(k, make([]byte, 1000), 0)
	if v, ok := c.Get(nil, k); !errors.Is(err, ErrNoMemory) || ok {
		t.Errorf("%v; reads %q, %v", err, v, ok)
	}
	m.SetBudget(1 << 20)
	if err := c.Put(k, []byte("new"), 0); err != nil {
		t.Error(err)
	}
}

// TestScan iterates while records come, go, move between lines, and indexes
// grow and shrink: what is there throughout is seen.
func TestScan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for _, shards := range []int{1, 4} {
		c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 64 << 20}, CacheOptions{Shards: shards, SweepEvery: -1})
		for i := range c.shards {
			c.shards[i].dir.maxLines = 4 * pageLines // so that indexes split, too
		}
		const stable = 3000
		for n := range stable {
			_ = c.Put(key(n), []byte("stays"), 0)
		}
		for round := range 6 {
			seen := map[string]int{}
			cursor, calls, others := uint64(0), 0, stable
			for {
				cursor = c.Scan(cursor, 1+rnd.IntN(20), func(k []byte, e Entry) { seen[string(k)]++ })
				calls++
				if cursor == 0 {
					break
				}
				switch round % 3 {
				case 0: // grow
					for range 30 {
						_ = c.Put(key(others), make([]byte, 10), 0)
						others++
					}
				case 1: // shrink
					for range 60 {
						c.Delete(key(stable + rnd.IntN(60_000)))
					}
					if calls%20 == 0 {
						c.Sweep()
					}
				case 2: // move and rewrite
					_ = c.Put(key(rnd.IntN(stable)), make([]byte, rnd.IntN(100)), 0)
				}
			}
			missed := 0
			for n := range stable {
				if seen[string(key(n))] == 0 {
					missed++
				}
			}
			if missed > 0 {
				t.Errorf("%d shards, round %d: %d of %d missed", shards, round, missed, stable)
			}
			if calls < 50 {
				t.Errorf("only %d calls", calls)
			}
			if round%3 == 2 && len(seen) < stable {
				t.Errorf("saw %d", len(seen))
			}
			if err := c.Check(); err != nil {
				t.Fatal(err)
			}
		}
		if s := c.Stats(); s.Indexes < 2*shards || s.IndexesGrown == 0 || s.IndexesShrunk == 0 {
			t.Errorf("nothing grew or shrank: %+v", s)
		}
	}
}

func TestScanAnyCursor(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20}, CacheOptions{Shards: 2, SweepEvery: -1})
	for n := range 5000 {
		_ = c.Put(key(n), nil, 0)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		from := rnd.Uint64() >> rnd.IntN(64)
		if next := c.Scan(from, rnd.IntN(50)-5, func([]byte, Entry) {}); next != 0 && next <= from {
			t.Fatalf("cursor %d goes on with %d", from, next)
		}
	}
	// One call that asks for everything ends the iteration.
	n := 0
	if next := c.Scan(0, math.MaxInt, func([]byte, Entry) { n++ }); next != 0 || n != 5000 {
		t.Errorf("%d seen, next %d", n, next)
	}
}

func TestRandomKey(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20}, CacheOptions{Shards: 2, SweepEvery: -1})
	if _, ok := c.RandomKey(nil); ok {
		t.Error("a key of nothing")
	}
	_ = c.Put(key(1), nil, 0)
	if k, ok := c.RandomKey([]byte("x")); !ok || string(k) != "x"+string(key(1)) {
		t.Errorf("%q, %v", k, ok)
	}
	for n := range 1000 {
		_ = c.Put(key(n), nil, 0)
	}
	seen := map[string]bool{}
	for range 20_000 {
		k, ok := c.RandomKey(nil)
		if !ok {
			t.Fatal("none")
		}
		seen[string(k)] = true
	}
	if len(seen) < 990 {
		t.Errorf("only %d of 1000 drawn", len(seen))
	}
}

// TestClear gives everything back, and the cache works on.
func TestClear(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 16 << 20}, CacheOptions{SweepEvery: -1})
	for range 3 {
		for n := range 10_000 {
			if err := c.Put(key(n), make([]byte, 500), 0); err != nil {
				t.Fatal(err)
			}
		}
		c.Clear()
		if c.Len() != 0 || m.Used() != 0 || c.Has(key(1)) {
			t.Errorf("%d entries, %d bytes used", c.Len(), m.Used())
		}
	}
}

// TestDeadSpace deletes most of what there is: sweeping gives the memory back.
func TestDeadSpace(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 64 << 20, RegionBytes: 64 << 10}, CacheOptions{Shards: 2, SweepEvery: -1})
	for n := range 100_000 {
		_ = c.Put(key(n), make([]byte, 200), 0)
	}
	full := c.Stats()
	for n := range 100_000 {
		if n%10 != 0 {
			c.Delete(key(n))
		}
	}
	for range 20 {
		c.Sweep()
	}
	m.Trim(0)
	s := c.Stats()
	if s.DeadBytes > s.LiveBytes/2 || s.IndexBytes > full.IndexBytes/3 || m.Used() > full.LiveBytes/5 || s.Compacted == 0 || s.IndexesShrunk == 0 {
		t.Errorf("used %d, full %+v, after %+v", m.Used(), full, s)
	}
	for n := range 100_000 {
		if c.Has(key(n)) != (n%10 == 0) {
			t.Fatalf("key %d", n)
		}
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}
