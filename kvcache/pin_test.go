package kvcache

import (
	"slices"
	"testing"
)

// pinOwner is an owner of one Log table set that refuses what was written at
// stamp `from` or later.
type pinOwner struct {
	t       *Tables
	from    uint32
	dropped []Region
}

func (o *pinOwner) DropRegion(r Region, epoch uint32) bool {
	if !o.t.Owns(r, epoch) || o.t.Written(r) >= o.from {
		return false
	}
	o.dropped = append(o.dropped, r)
	o.t.Drop(r)
	return true
}

func (o *pinOwner) DropAll() {}

// TestPinned fills regions under growing stamps and has them reclaimed: what
// is pinned stays, over the budget if need be, and goes in order of age once
// it is unpinned.
func TestPinned(t *testing.T) {
	m, err := NewMemory(MemoryOptions{BudgetBytes: 64 * MinRegionBytes, RegionBytes: MinRegionBytes, ReadyRegions: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	o := &pinOwner{from: 1 << 31}
	o.t = NewTables(m, m.Register(o), Log, func(uint16, uint32, Ref, Ref) int { panic("moved") })
	const regions = 20
	for i := range uint32(regions) {
		o.t.SetStamp(i)
		if _, _, ok := o.t.Alloc(o.t.MaxValue(), 0, 0, 1); !ok {
			t.Fatal("no memory")
		}
	}
	all := slices.Clone(o.t.list)

	o.from = 5
	m.SetBudget(8 * MinRegionBytes)
	if !slices.Equal(o.dropped, all[:5]) {
		t.Fatalf("dropped %v, want the first 5 of %v", o.dropped, all)
	}
	if s := m.Stats(); s.RegionsPinned != regions-5 || s.UsedBytes != (regions-5)*MinRegionBytes {
		t.Fatalf("after a squeeze with pins: %+v", s)
	}
	// A write in a pinned region moves nothing; a pinned region that its owner
	// lets go of is pinned no more.
	o.t.Drop(all[5])
	o.from = 9
	m.Unpin()
	if !slices.Equal(o.dropped, append(slices.Clone(all[:5]), all[6:9]...)) {
		t.Fatalf("dropped %v of %v", o.dropped, all)
	}
	o.from = 1 << 31
	m.Unpin()
	if s := m.Stats(); s.UsedBytes > s.BudgetBytes || s.RegionsPinned != 0 {
		t.Fatalf("unpinned: %+v", s)
	}
	if !slices.IsSortedFunc(o.dropped, func(a, b Region) int { return slices.Index(all, a) - slices.Index(all, b) }) {
		t.Fatalf("dropped out of order: %v of %v", o.dropped, all)
	}
}
