package kvcache

import (
	"errors"
	"runtime"
	"testing"
	"time"
)

func TestMemoryOptions(t *testing.T) {
	for _, o := range []MemoryOptions{
		{},
		{BudgetBytes: -1},
		{BudgetBytes: 4095, RegionBytes: 4096},
		{BudgetBytes: 1 << 20, RegionBytes: 4095},
		{BudgetBytes: 1 << 20, RegionBytes: 2048},
		{BudgetBytes: 1 << 30, RegionBytes: 2 * MaxRegionBytes},
		{BudgetBytes: 1 << 30, RegionBytes: -4096},
	} {
		m, err := NewMemory(o)
		if err == nil {
			t.Errorf("%+v was taken", o)
			m.Close()
		}
	}
	// The kernel refuses what the reservation asks for: it gets smaller.
	m, err := NewMemory(MemoryOptions{BudgetBytes: 1 << 30, RegionBytes: MaxRegionBytes, ReserveBytes: 1 << 62})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.regions); n == 0 || n > maxRegions {
		t.Errorf("%d regions", n)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if _, err := NewCache(CacheOptions{}); err == nil {
		t.Error("a cache without memory")
	}
	for _, shards := range []int{-1, MaxShards + 1} {
		if _, err := NewCache(CacheOptions{Memory: m, Shards: shards}); err == nil {
			t.Errorf("%d shards", shards)
		}
	}
}

// TestBooks: what is known of each region lies outside the heap, where it would
// count, touched or not, towards the next collection.
func TestBooks(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := NewMemory(MemoryOptions{BudgetBytes: 1 << 20, RegionBytes: MinRegionBytes, ReserveBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 && !raceDetector { // which sees the heap only
		t.Errorf("a reservation of %d regions takes %d bytes of the heap", len(m.regions), grown)
	}
	if last := &m.tables[len(m.tables)-1]; *last != (table{}) {
		t.Errorf("a region that was never used has %+v", *last)
	}
}

// TestDefaultRegionBytes: a cache has from some hundreds of regions to some ten thousands.
func TestDefaultRegionBytes(t *testing.T) {
	for _, c := range []struct {
		budget int64
		want   int
	}{
		{4 << 10, 4 << 10}, {1 << 20, 16 << 10}, {64 << 20, 256 << 10}, {256<<20 - 1, 256 << 10},
		{256 << 20, 512 << 10}, {2 << 30, 512 << 10}, {2<<30 + 1, 1 << 20}, {32 << 30, 1 << 20},
		{64 << 30, 2 << 20}, {64<<30 + 1, 4 << 20},
	} {
		if got := defaultRegionBytes(c.budget); got != c.want {
			t.Errorf("of %d bytes: regions of %d, want %d", c.budget, got, c.want)
		}
	}
}

// TestSupplier fills a cache of many small regions: most writers find theirs ready.
func TestSupplier(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 2048 * MinRegionBytes, RegionBytes: MinRegionBytes}, CacheOptions{Shards: 2, SweepEvery: -1})
	// It works beside the writer, who may be faster: fill it until it was seen to.
	deadline := time.Now().Add(time.Minute)
	n := 0
	for m.Stats().RegionsPrepared < 20 && time.Now().Before(deadline) {
		c.Clear()
		for range 12_000 {
			n++
			if err := c.Put(key(n), make([]byte, 500), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := m.Stats()
	if s.RegionsPrepared < 20 || s.UsedBytes > s.BudgetBytes {
		t.Errorf("after %d puts: %+v", n, s)
	}
	// Full: now regions are aged ahead of the writers.
	for range 40_000 {
		n++
		if err := c.Put(key(n), make([]byte, 500), 0); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.Stats(); s.RegionsReclaimed == 0 || s.UsedBytes > s.BudgetBytes {
		t.Errorf("full: %+v", s)
	}
	m.SetBudget(256 * MinRegionBytes)
	if m.Used() > m.Budget() {
		t.Errorf("%d used of %d", m.Used(), m.Budget())
	}
}

// TestSpareIsTaken leaves regions to the next writer rather than to the kernel,
// and Trim gives them up.
func TestSpareIsTaken(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 64 * MinRegionBytes, RegionBytes: MinRegionBytes}, CacheOptions{Shards: 1, SweepEvery: -1})
	fill := func() {
		for n := range 300 {
			if err := c.Put(key(n), make([]byte, 500), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill()
	used := m.Used()
	for n := range 300 {
		c.Delete(key(n))
	}
	if s := m.Stats(); s.RegionsSpare < 30 || s.UsedBytes != used {
		t.Errorf("%+v", s)
	}
	fill()
	if s := m.Stats(); s.UsedBytes > used+MinRegionBytes || s.RegionsReturned != 0 {
		t.Errorf("%+v, %d used before", s, used)
	}
	c.Clear()
	if s := m.Stats(); s.UsedBytes != 0 || s.BytesReturned == 0 {
		t.Errorf("%+v", s)
	}
}

// TestResident holds MemoryStats to what the kernel says: what is given back
// is gone from the process.
func TestResident(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 128 << 20}, CacheOptions{SweepEvery: -1})
	base := resident(t)
	for n := range 100_000 {
		if err := c.Put(key(n), make([]byte, 1000), 0); err != nil {
			t.Fatal(err)
		}
	}
	full := resident(t)
	m.SetBudget(16 << 20)
	cut := resident(t)
	if full-base < 90<<20 || cut-base > 32<<20 {
		t.Errorf("resident: %d MiB at first, %d full, %d cut to 16", base>>20, full>>20, cut>>20)
	}
}

// TestTrimIdle: a spare region that nobody takes from one TrimIdle to the next
// goes back to the kernel; those that are taken in between stay.
func TestTrimIdle(t *testing.T) {
	m, err := NewMemory(MemoryOptions{BudgetBytes: 64 * MinRegionBytes, RegionBytes: MinRegionBytes, ReadyRegions: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	owner := m.Register(nil)
	take := func(n int) (held []Region) {
		for range n {
			r, ok := m.acquire(owner, Log, noRegion, forNew)
			if !ok {
				t.Fatal("no region")
			}
			held = append(held, r)
		}
		return held
	}
	release := func(held []Region) {
		for _, r := range held {
			m.release(r)
		}
	}
	release(take(10))
	if n := m.TrimIdle(); n != 0 {
		t.Errorf("%d regions were returned that were in use since the call before", n)
	}
	release(take(4))
	if n, st := m.TrimIdle(), m.Stats(); n != 6 || st.RegionsSpare != 4 || st.UsedBytes != 4*MinRegionBytes {
		t.Errorf("%d of 10 regions were returned and %d are spare, of %d bytes, after 4 were taken and released", n, st.RegionsSpare, st.UsedBytes)
	}
	held := take(4)
	if n, st := m.TrimIdle(), m.Stats(); n != 0 || st.UsedBytes != 4*MinRegionBytes {
		t.Errorf("%d regions were returned, %d bytes are held by who has 4 regions", n, st.UsedBytes)
	}
	release(held)
	m.TrimIdle()
	if n, st := m.TrimIdle(), m.Stats(); n != 4 || st.UsedBytes != 0 || st.RegionsReturned != 10 {
		t.Errorf("%d regions were returned, %d in all, and %d bytes are left of what nobody wants", n, st.RegionsReturned, st.UsedBytes)
	}
}
