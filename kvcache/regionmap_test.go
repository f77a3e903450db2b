package kvcache

import (
	"encoding/binary"
	"testing"
)

// TestRegionMap fills a cache, deletes some, gives some back, and compares the
// map with the sums that are known otherwise, at several sizes.
func TestRegionMap(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 16 << 10, ReadyRegions: -1}, CacheOptions{Shards: 2})
	if cells := m.RegionMap(nil, 100); len(cells) > 0 && m.Stats().RegionsInUse == 0 {
		t.Errorf("an empty memory has %d cells", len(cells))
	}
	var k [4]byte
	put := func(i int) {
		binary.LittleEndian.PutUint32(k[:], uint32(i))
		if err := c.Put(k[:], make([]byte, 100), 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20_000 {
		put(i)
	}
	for i := range 3000 {
		binary.LittleEndian.PutUint32(k[:], uint32(3*i))
		c.Delete(k[:])
	}
	m.SetBudget(m.Used() * 2 / 3)
	m.SetBudget(4 << 20)
	for i := range 100 {
		put(i)
	}
	st := m.Stats()
	for _, maxCells := range []int{1, 7, 64, 100_000} {
		cells := m.RegionMap([]RegionCell{{Regions: -1}}, maxCells)
		if cells[0].Regions != -1 || len(cells)-1 > maxCells {
			t.Fatalf("%d cells, at most %d", len(cells)-1, maxCells)
		}
		inUse, spare, regions := 0, 0, 0
		live, dead, oldest, youngest := 0.0, 0.0, 0.0, 1.0
		for _, c := range cells[1:] {
			inUse, spare, regions = inUse+c.InUse, spare+c.Spare, regions+c.Regions
			if c.InUse+c.Spare > c.Regions || c.Age < 0 || c.Age > 1 || c.Live+c.Dead > 1 {
				t.Errorf("%+v", c)
			}
			if (c.InUse > 0) != (c.Owner >= 0) || c.Owner >= m.Owners() || c.InUse > 0 && c.Class != Log {
				t.Errorf("%+v of %d owners", c, m.Owners())
			}
			if c.InUse > 0 {
				live, dead = live+c.Live, dead+c.Dead
				oldest, youngest = max(oldest, c.Age), min(youngest, c.Age)
			}
		}
		if inUse != st.RegionsInUse || spare != st.RegionsSpare || regions < inUse+spare {
			t.Errorf("%d cells: %d regions, %d in use, %d spare; %+v", maxCells, regions, inUse, spare, st)
		}
		if maxCells < 1000 {
			continue
		}
		// Each region is a cell: the shares add up to what the cache counts.
		sum := c.Stats()
		if got := int64(live * (16 << 10)); got/100 != sum.LiveBytes/100 {
			t.Errorf("%d bytes live, want %d", got, sum.LiveBytes)
		}
		if got := int64(dead * (16 << 10)); sum.DeadBytes == 0 || got/100 != sum.DeadBytes/100 {
			t.Errorf("%d bytes dead, want %d", got, sum.DeadBytes)
		}
		if oldest != 1 || youngest != 0 || regions == inUse+spare {
			t.Errorf("ages from %v to %v; %d regions, all of them held", youngest, oldest, regions)
		}
	}
}

// BenchmarkRegionMap is of 24 GiB in 1 MiB regions that hold one entry each.
func BenchmarkRegionMap(b *testing.B) {
	m, err := NewMemory(MemoryOptions{BudgetBytes: 24 << 30, RegionBytes: 1 << 20, ReadyRegions: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	c, err := NewCache(CacheOptions{Memory: m, Shards: 8})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for range 20 << 10 / len(c.shards) {
			if _, _, ok := s.logs[probation].Alloc(1<<20-8, 1, 0, 0); !ok {
				b.Fatal("no memory")
			}
		}
		s.mu.Unlock()
	}
	var cells []RegionCell
	b.ReportAllocs()
	for b.Loop() {
		cells = m.RegionMap(cells[:0], 1024)
	}
}
