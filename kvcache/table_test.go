package kvcache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// holder is an Owner with one Tables and a plain map of what it should hold.
type holder struct {
	t    *Tables
	refs map[uint32]Ref
	want map[uint32][]byte
	lost int64 // weight of dropped regions
	drop int
	move int
}

func newHolder(m *Memory, class Class) *holder {
	h := &holder{refs: map[uint32]Ref{}, want: map[uint32][]byte{}}
	h.t = NewTables(m, m.Register(h), class, func(aux uint16, owner uint32, from, to Ref) int {
		if h.refs[owner] != from || aux != uint16(owner%MaxAux) {
			panic(fmt.Sprintf("moved: owner %d has %x, told %x, aux %d", owner, h.refs[owner], from, aux))
		}
		h.refs[owner] = to
		h.move++
		return int(owner % 7)
	})
	return h
}

func (h *holder) DropRegion(r Region, epoch uint32) bool {
	if !h.t.Owns(r, epoch) {
		return false
	}
	h.lost += h.t.Drop(r)
	h.drop++
	return true
}

func (h *holder) DropAll() { h.lost += h.t.DropAll() }

// TestRenewOpen has two owners open a region each, one after the other. Whose
// was renewed since goes last.
func TestRenewOpen(t *testing.T) {
	for _, renewed := range []bool{false, true} {
		m, err := NewMemory(MemoryOptions{BudgetBytes: 24 * 4096, RegionBytes: 4096, ReserveBytes: 64 * 4096, ReadyRegions: -1})
		if err != nil {
			t.Fatal(err)
		}
		slow, other := newHolder(m, Log), newHolder(m, Log)
		slow.t.RenewOpen() // nothing is open yet
		for _, h := range []*holder{slow, other} {
			if _, _, ok := h.t.Alloc(64, 0, 1, 1); !ok {
				t.Fatal("no memory")
			}
		}
		if renewed {
			slow.t.RenewOpen()
		}
		if err := slow.t.Check(); err != nil {
			t.Fatal(err)
		}
		m.dropOldest(Log)
		if want := map[bool][2]int{false: {1, 0}, true: {0, 1}}[renewed]; slow.drop != want[0] || other.drop != want[1] {
			t.Errorf("renewed %v: %d of the slow owner's regions went, %d of the other's, want %v", renewed, slow.drop, other.drop, want)
		}
		m.Close()
	}
}

// TestTablesModel runs random operations on tiny regions against plain maps:
// a live entry reads back what was written, a vanished one reads as nil, the
// weights of what vanished and what is left add up.
func TestTablesModel(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		rnd := rand.New(rand.NewPCG(seed, 0))
		m, err := NewMemory(MemoryOptions{BudgetBytes: 24 * 4096, RegionBytes: 4096, ReserveBytes: 64 * 4096})
		if err != nil {
			t.Fatal(err)
		}
		hs := []*holder{newHolder(m, Log), newHolder(m, Hot)}
		freed := 0
		var full, inserted int64
		for op := range 20000 {
			h := hs[rnd.IntN(2)]
			id := uint32(rnd.IntN(300))
			switch ref, ok := h.refs[id]; {
			case !ok:
				v := make([]byte, rnd.IntN(400))
				for i := range v {
					v[i] = byte(rnd.Uint32())
				}
				ref, b, ok := h.t.Alloc(len(v), uint16(id%MaxAux), id, int(id%7))
				if !ok {
					full++
					m.Evict(int64(m.RegionBytes()))
					break
				}
				copy(b, v)
				h.refs[id], h.want[id] = ref, v
				inserted += int64(id % 7)
			case h.t.Live(ref) && rnd.IntN(2) == 0:
				h.t.Free(ref, int(id%7))
				inserted -= int64(id % 7)
				delete(h.refs, id)
				freed++
			case !h.t.Live(ref):
				if h.t.Value(ref) != nil {
					t.Fatalf("seed %d op %d: a vanished entry reads", seed, op)
				}
				delete(h.refs, id)
			default:
				if got := h.t.Value(ref); !bytes.Equal(got, h.want[id]) {
					t.Fatalf("seed %d op %d: entry %d reads %x, want %x", seed, op, id, got, h.want[id])
				}
			}
			if op%16 == 0 {
				h.t.Compact()
			}
			if op%1000 == 999 {
				m.SetBudget(8 * 4096)
				if m.Used() > 8*4096 {
					t.Fatalf("seed %d: %d used of %d", seed, m.Used(), 8*4096)
				}
				m.SetBudget(24 * 4096)
			}
			if op%200 == 0 {
				for _, h := range hs {
					if err := h.t.Check(); err != nil {
						t.Fatalf("seed %d op %d: %v", seed, op, err)
					}
					s := h.t.Stats()
					if s.LiveBytes+s.DeadBytes+s.FreeBytes != int64(s.Regions*m.RegionBytes()) {
						t.Fatalf("seed %d: identity broken: %+v", seed, s)
					}
				}
			}
		}
		have := hs[0].t.Stats().Weight + hs[1].t.Stats().Weight
		if lost := hs[0].lost + hs[1].lost; have+lost != inserted {
			t.Errorf("seed %d: inserted weight %d, have %d, lost %d", seed, inserted, have, lost)
		}
		if hs[0].drop == 0 || hs[0].move+hs[1].move == 0 || freed == 0 || full == 0 {
			t.Errorf("seed %d: too little happened: %d %d dropped, %d %d moved, %d freed, %d full",
				seed, hs[0].drop, hs[1].drop, hs[0].move, hs[1].move, freed, full)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReuseOpen frees an entry of the region that entries go to, and one of another: the
// place of the first is given to the next entry of its size in any set, that of the second
// not in one of ReuseOpen.
func TestReuseOpen(t *testing.T) {
	for _, open := range []bool{false, true} {
		m, err := NewMemory(MemoryOptions{BudgetBytes: 24 * 4096, RegionBytes: 4096, ReserveBytes: 64 * 4096, ReadyRegions: -1})
		if err != nil {
			t.Fatal(err)
		}
		tables := newHolder(m, Hot).t
		if open {
			tables.ReuseOpen()
		}
		alloc := func() Ref {
			ref, _, ok := tables.Alloc(64, 0, 1, 1)
			if !ok {
				t.Fatal("no memory")
			}
			return ref
		}
		first := alloc()
		tables.Free(first, 1)
		if again := alloc(); again != first {
			t.Errorf("open %v: %x was freed, the next entry is %x", open, first, again)
		}
		second := alloc()
		last := second
		for last.region() == first.region() {
			last = alloc()
		}
		tables.Free(second, 1)
		if next := alloc(); (next == second) == open {
			t.Errorf("open %v: %x of another region was freed, the next entry is %x behind %x", open, second, next, last)
		}
		if err := tables.Check(); err != nil {
			t.Error(err)
		}
		m.Close()
	}
}

// TestReusedRegionsAreYoung frees entries of the oldest region, whose places new ones
// take: what goes first then is the region behind it, which holds nothing so new.
func TestReusedRegionsAreYoung(t *testing.T) {
	m, err := NewMemory(MemoryOptions{BudgetBytes: 24 * 4096, RegionBytes: 4096, ReserveBytes: 64 * 4096, ReadyRegions: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	h := newHolder(m, Hot)
	owner := uint32(0)
	alloc := func() Ref {
		owner++
		ref, _, ok := h.t.Alloc(64, 0, owner, 1)
		if !ok {
			t.Fatal("no memory")
		}
		return ref
	}
	regions := []Region{alloc().region()}
	for len(regions) < 6 {
		if r := alloc().region(); r != regions[len(regions)-1] {
			regions = append(regions, r)
		}
	}
	for k, r := range regions[:2] {
		old := makeRef(m.regions[r].epoch.Load(), r, 0)
		h.t.Free(old, 1)
		if again := alloc(); again != old {
			t.Fatalf("%x of region %d was freed, the next entry is %x", old, k, again)
		}
		if owners := h.t.OldestOwners(nil); len(owners) == 0 || owners[0] != m.head(makeRef(m.regions[regions[k+1]].epoch.Load(), regions[k+1], 0)).owner() {
			t.Errorf("owners of the oldest region, after one of region %d was used again: %d", k, owners)
		}
	}
	m.dropOldest(Hot)
	if h.drop != 1 || m.regions[regions[2]].inUse {
		t.Errorf("%d regions went; the oldest that got nothing is still there: %v", h.drop, m.regions[regions[2]].inUse)
	}
	// One of the younger half stays where it is.
	young := regions[0]
	serial := m.regions[young].serial
	h.t.Free(makeRef(m.regions[young].epoch.Load(), young, 0), 1)
	if alloc(); m.regions[young].serial != serial {
		t.Error("a region of the younger half was renewed")
	}
	if err := h.t.Check(); err != nil {
		t.Error(err)
	}
}
