package kvcache

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestKernelRefuses lets the kernel have no more for indexes while the budget
// has room: the cache gets smaller, no write fails, and it grows again later.
func TestKernelRefuses(t *testing.T) {
	budget, puts, entries := int64(64<<20), 1_000_000, 100_000 // of which some are kept
	if testing.Short() {
		budget, puts, entries = budget/4, puts/4, entries/5
	}
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: budget, RegionBytes: 64 << 10}, CacheOptions{Shards: 2, SweepEvery: -1})
	refused, refusing := 0, true
	m.mapSpan = func(mem []byte, n int) ([]byte, error) {
		if refusing && m.Stats().SpanBytes > budget/64 {
			refused++
			return nil, unix.ENOMEM
		}
		return mapSpan(mem, n)
	}
	k := make([]byte, 8)
	write := func() {
		for n := range uint64(puts) {
			le.PutUint64(k, n)
			if err := c.Put(k, nil, 0); err != nil {
				t.Fatal(err)
			}
			if n%100 == 0 && !c.Has(k) {
				t.Fatalf("%d is not there", n)
			}
		}
	}
	write()
	s := c.Stats()
	if refused == 0 || refused > puts/100 || s.IndexesStayed == 0 || s.Evicted == 0 || s.Entries < entries || m.Used() > budget/2 {
		t.Errorf("%d refused, %d bytes used of %d, %+v", refused, m.Used(), m.Budget(), s)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	refusing = false
	write()
	if n := c.Len(); n != puts {
		t.Errorf("%d entries after the kernel gave in", n)
	}
}
