package cluster

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// some are members n0, n1, … as a cluster of pods has them.
func some(n int) []Member {
	members := make([]Member, n)
	for i := range members {
		name := fmt.Sprintf("mcached-%d", i)
		members[i] = Member{ID: MemberID(name, 1_700_000_000_000+int64(i)), Name: name, HTTP: "http://10.0.0.1:9201", RESP: "10.0.0.1:6379", State: Ready}
	}
	return members
}

func table(members []Member, l Layout) *Table { return NewTable(1, "", members, l) }

// names are the owners of a slot by name, which means the same in any table.
func names(t *Table, owners []uint16) []string {
	var n []string
	for _, o := range owners {
		n = append(n, t.Members()[o].Name)
	}
	return n
}

// naive is the definition of a rendezvous, with floating point and sorting: the
// owners of a slot by name. It shares the hash with the table and nothing else.
func naive(members []Member, slot, copies int) []string {
	type scored struct {
		name  string
		zone  string
		score float64
	}
	var all []scored
	for _, m := range members {
		if m.State == Leaving {
			continue
		}
		u := 1 - (float64(mix(seedOf(m.Name)^mix(uint64(slot)+uint64(ofSlot))))+0.5)/(1<<64)
		all = append(all, scored{m.Name, m.Zone, math.Pow(2, float64(m.Weight)/2) / -math.Log(u)})
	}
	slices.SortFunc(all, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	var picked, zones []string
	for _, distinct := range []bool{true, false} {
		for _, s := range all {
			if len(picked) < copies && !slices.Contains(picked, s.name) && (!distinct || !slices.Contains(zones, s.zone)) {
				picked, zones = append(picked, s.name), append(zones, s.zone)
			}
		}
	}
	return picked
}

func TestTableIsARendezvous(t *testing.T) {
	for _, c := range []struct {
		name   string
		n      int
		copies int
		change func(i int, m *Member)
	}{
		{"three", 3, 2, nil},
		{"one", 1, 2, nil},
		{"ten at three copies", 10, 3, nil},
		{"zones", 9, 3, func(i int, m *Member) { m.Zone = string(rune('a' + i%3)) }},
		{"fewer zones than copies", 9, 3, func(i int, m *Member) { m.Zone = string(rune('a' + i%2)) }},
		{"uneven zones", 7, 2, func(i int, m *Member) { m.Zone = string(rune('a' + min(i, 1))) }},
		{"weights", 10, 2, func(i int, m *Member) { m.Weight = i }},
		{"weights and zones", 10, 2, func(i int, m *Member) { m.Weight, m.Zone = i/2, string(rune('a'+i%3)) }},
		{"some leave", 6, 2, func(i int, m *Member) {
			if i%3 == 0 {
				m.State = Leaving
			}
		}},
		{"a hundred", 100, 2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			members := some(c.n)
			for i := range members {
				if c.change != nil {
					c.change(i, &members[i])
				}
			}
			tab := table(members, Layout{Copies: c.copies})
			differ := 0
			for slot := 0; slot < Slots; slot += 1 + c.n/3 {
				if got, want := names(tab, tab.Owners(uint16(slot))), naive(members, slot, c.copies); !slices.Equal(got, want) {
					differ++
					if differ > 1 { // one close race may go otherwise by the rounding of floats
						t.Fatalf("slot %d: owners %v, want %v", slot, got, want)
					}
				}
			}
		})
	}
}

// The figures of the design, for the first copy.
func TestTableBalance(t *testing.T) {
	for _, c := range []struct {
		n    int
		most float64 // max/mean
	}{{3, 1.02}, {10, 1.08}, {100, 1.28}, {300, 1.55}} {
		tab := table(some(c.n), Layout{Copies: 2})
		first, all := tab.Owns()
		got := float64(slices.Max(first)) * float64(c.n) / Slots
		t.Logf("%d members: max/mean %.3f of first copies, %.3f of all", c.n, got, float64(slices.Max(all))*float64(c.n)/2/Slots)
		if got > c.most {
			t.Errorf("%d members: max/mean of first copies %.3f, want at most %.2f", c.n, got, c.most)
		}
	}
}

func TestTableWeights(t *testing.T) {
	members := some(6)
	for i := range members {
		members[i].Weight = 2 * (i / 2) // 1, 1, 2, 2, 4, 4
	}
	first, _ := table(members, Layout{Copies: 1}).Owns()
	for i, n := range first {
		want := float64(Slots) * []float64{1, 1, 2, 2, 4, 4}[i] / 14
		if math.Abs(float64(n)-want) > want*0.12 {
			t.Errorf("member %d owns %d slots, want about %.0f", i, n, want)
		}
	}
	if WeightOf(0) != 0 || WeightOf(64<<20) != 0 || WeightOf(2<<30) != 10 || WeightOf(3<<30) != 11 || WeightOf(1<<60) != maxWeight {
		t.Error("weights are not half powers of two above 64 MiB:", WeightOf(0), WeightOf(64<<20), WeightOf(2<<30), WeightOf(3<<30), WeightOf(1<<60))
	}
}

func TestNegLog(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	before := uint64(0)
	for i := range 200_000 {
		v := r.Uint64() >> (i % 60)
		if got, want := float64(negLog(v))/(1<<56), -math.Log1p(-float64(v)/(1<<64)); math.Abs(got-want) > 1e-6*want+1e-15 {
			t.Fatalf("negLog(%#x) = %v, want %v", v, got, want)
		}
	}
	for v := uint64(0); v < 1<<63; v += 1 << 48 { // it never falls by more than its error
		if got := negLog(v); got+before/1e6 < before {
			t.Fatalf("negLog falls at %#x", v)
		} else {
			before = got
		}
	}
}

// A member that goes takes its own slots with it and moves nobody else's, and
// the second owner becomes the first.
func TestNoNeedlessMoves(t *testing.T) {
	for _, l := range []Layout{{Copies: 2, BlobCopies: 2}, {Copies: 3, BlobCopies: 1}} {
		for _, n := range []int{3, 4, 16, 40, 100} {
			members := some(n)
			gone := members[n/2].Name
			whole := table(members, l)
			rest := table(slices.Delete(slices.Clone(members), n/2, n/2+1), l)
			moved, taken := 0, 0
			check := func(slot int, before, after []string) {
				at := slices.Index(before, gone)
				if at < 0 {
					if !slices.Equal(before, after) {
						moved++
					}
					return
				}
				taken++
				if kept := slices.Delete(slices.Clone(before), at, at+1); !slices.Equal(after[:len(kept)], kept) {
					moved++
				}
			}
			for slot := range Slots {
				s := uint16(slot)
				check(slot, names(whole, whole.Owners(s)), names(rest, rest.Owners(s)))
				if whole.KeyGroup() == rest.KeyGroup() {
					check(slot, names(whole, whole.KeyOwners(s)), names(rest, rest.KeyOwners(s)))
				}
			}
			if moved != 0 || taken == 0 {
				t.Errorf("%d members, %+v: %d slots moved that need not, %d had to", n, l, moved, taken)
			}
		}
	}
}

func TestTableIsPure(t *testing.T) {
	members := some(20)
	for i := range members {
		members[i].Zone, members[i].Weight = string(rune('a'+i%3)), i%4
	}
	l := Layout{Copies: 3, BlobCopies: 2}
	a := table(members, l)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	b := NewTable(99, members[7].ID, append(members, members[3]), l)
	if !slices.Equal(a.owners, b.owners) || !slices.Equal(a.keyOwners, b.keyOwners) {
		t.Error("the order of members, or one that is listed twice, changes owners")
	}
	if b.Self() < 0 || b.Members()[b.Self()].ID != members[7].ID || a.Self() != -1 {
		t.Errorf("Self is %d and %d", b.Self(), a.Self())
	}
}

// Of a name that is there twice, the life that began last owns.
func TestTableLaterLife(t *testing.T) {
	members := some(3)
	again := members[1]
	again.ID = MemberID(again.Name, 1_900_000_000_000)
	tab := table(append(members, again), Layout{Copies: 2, BlobCopies: 2})
	before := table(members, Layout{Copies: 2, BlobCopies: 2})
	for slot := range Slots {
		for k, o := range tab.Owners(uint16(slot)) {
			m := tab.Members()[o]
			if m.ID == members[1].ID {
				t.Fatalf("slot %d has an owner of an earlier life", slot)
			}
			if m.Name != before.Members()[before.Owners(uint16(slot))[k]].Name {
				t.Fatalf("slot %d moved because a member was started again", slot)
			}
		}
	}
}

func TestTableStates(t *testing.T) {
	members := some(3)
	members[0].State, members[1].State, members[1].RESP = Leaving, Joining, ""
	tab := table(members, Layout{Copies: 2, BlobCopies: 2})
	for slot := range Slots {
		if o := tab.Owners(uint16(slot)); len(o) != 2 || slices.Contains(o, 0) {
			t.Fatalf("slot %d: owners %v of one that leaves, one that joins and one that is ready", slot, o)
		}
		if o := tab.KeyOwners(uint16(slot)); !slices.Equal(o, []uint16{2}) {
			t.Fatalf("slot %d: owners of keys %v, but only 2 stays and serves Redis clients", slot, o)
		}
	}
	for i := range members {
		members[i].State = Leaving
	}
	if o := table(members, Layout{Copies: 2}).Owners(5); len(o) != 2 {
		t.Error("when all leave, nobody owns:", o)
	}
	if none := table(nil, Layout{}); len(none.Owners(16383)) != 0 || len(none.KeyOwners(16383)) != 0 || len(none.OwnsKeys()) != 0 {
		t.Error("a table without members has owners")
	}
}

// What a member that joins will serve of keys it is promised, by who serves it until
// then; when it is ready the table is as if it had always been.
func TestTablePromises(t *testing.T) {
	l := Layout{Copies: 2, BlobCopies: 2}
	of := func(n, joining int, change func(m []Member)) *Table {
		members := some(n)
		for i := range members {
			members[i].Fills = true
		}
		members[joining].State = Joining
		if change != nil {
			change(members)
		}
		return table(members, l)
	}
	for name, change := range map[string]func(m []Member){
		"it does not know of that":        func(m []Member) { m[1].Fills = false },
		"the others do not know of that":  func(m []Member) { m[0].Fills, m[2].Fills, m[3].Fills = false, false, false },
		"all join":                        func(m []Member) { m[0].State, m[2].State, m[3].State = Joining, Joining, Joining },
		"there are not enough for copies": func(m []Member) { m[2].RESP, m[3].RESP = "", "" },
	} {
		tab := of(4, 1, change)
		for slot := range Slots {
			if tab.Promised(uint16(slot)) {
				t.Errorf("%s: slot %d is promised", name, slot)
				break
			}
		}
	}
	joins, ready, promised := of(4, 1, nil), table(some(4), l), 0
	for slot := range Slots {
		s := uint16(slot)
		got, then := joins.KeyOwners(s), ready.KeyOwners(s)
		if joins.Promised(s) {
			promised++
			got = []uint16{got[1], got[0]}
		}
		if joins.Promised(s) != (then[0] == 1) || !slices.Equal(got, then) {
			t.Fatalf("slot %d: owners %v, promised %t, and then %v", slot, joins.KeyOwners(s), joins.Promised(s), then)
		}
		if !slices.Equal(joins.Owners(s), ready.Owners(s)) {
			t.Fatalf("slot %d of series has other owners", slot)
		}
	}
	if promised < Slots/5 {
		t.Error("only", promised, "slots are promised")
	}
}

func TestTableOrder(t *testing.T) {
	for _, l := range []Layout{{Copies: 2}, {Copies: 3}} {
		members := some(12)
		members[3].State = Leaving
		tab := table(members, l)
		leaves := uint16(slices.IndexFunc(tab.Members(), func(m Member) bool { return m.State == Leaving }))
		for slot := 0; slot < Slots; slot += 97 {
			order := tab.Order(uint16(slot), []uint16{77})
			if order[0] != 77 || len(order) != 13 || order[12] != leaves || !slices.Equal(order[1:][:l.Copies], tab.Owners(uint16(slot))) {
				t.Fatalf("slot %d: order %v of owners %v", slot, order, tab.Owners(uint16(slot)))
			}
			// Without the first three the fourth is the first owner.
			var rest []Member
			for i, m := range tab.Members() {
				if m.State != Leaving && !slices.Contains(order[1:4], uint16(i)) {
					rest = append(rest, m)
				}
			}
			if without := table(rest, l); names(without, without.Owners(uint16(slot)))[0] != tab.Members()[order[4]].Name {
				t.Fatalf("slot %d: the heir of three is not the fourth in order", slot)
			}
			sorted := slices.Sorted(slices.Values(order[1:]))
			if len(slices.Compact(sorted)) != 12 {
				t.Fatalf("slot %d: order %v names a member twice", slot, order)
			}
		}
	}
}

// Who would own a slot is who owns it in a table without those who are gone, also in
// zones, where that is often not the next in order.
func TestTableOwnersWithout(t *testing.T) {
	for _, copies := range []int{1, 2, 3} {
		members := some(9)
		for i := range members {
			members[i].Zone, members[i].Weight = string(rune('a'+i%3)), i/4
		}
		members[3].State = Leaving
		tab := table(members, Layout{Copies: copies})
		for _, gone := range [][]int{nil, {0}, {1, 5}, {2, 5, 8}, {0, 1, 2, 4, 5, 6, 7, 8}, {0, 1, 2, 3, 4, 5, 6, 7, 8}} {
			marks := make([]bool, len(members))
			var rest []Member
			for i, m := range tab.Members() {
				if marks[i] = slices.Contains(gone, i); !marks[i] {
					rest = append(rest, m)
				}
			}
			without, others := table(rest, Layout{Copies: copies}), 0
			for slot := uint16(0); slot < Slots; slot += 97 {
				got, want := names(tab, tab.OwnersWithout(slot, marks, nil)), names(without, without.Owners(slot))
				if !slices.Equal(got, want) {
					t.Fatalf("slot %d without %v: %v, want %v", slot, gone, got, want)
				}
				order := slices.DeleteFunc(tab.Order(slot, nil), func(o uint16) bool { return marks[o] })
				if !slices.Equal(got, names(tab, order[:min(copies, len(order))])) {
					others++
				}
			}
			if copies == 2 && len(gone) == 2 && others == 0 {
				t.Error("they are the next in order of each slot: no test of zones")
			}
		}
	}
}

func TestKeyGroups(t *testing.T) {
	for _, c := range []struct{ n, group int }{{3, 16}, {64, 16}, {65, 4}, {300, 4}} {
		tab := table(some(c.n), Layout{BlobCopies: 1})
		if tab.KeyGroup() != c.group {
			t.Errorf("%d members: groups of %d slots, want %d", c.n, tab.KeyGroup(), c.group)
		}
		total := 0
		for _, n := range tab.OwnsKeys() {
			total += n
		}
		if total != Slots {
			t.Errorf("%d members own %d slots of keys", c.n, total)
		}
	}
}

// From Redis' own documentation and tests.
func TestKeySlot(t *testing.T) {
	for key, want := range map[string]uint16{
		"123456789": 0x31c3 % Slots, "": 0, "foo": 12182, "bar": 5061, "hello": 866,
		"{user1000}.following": KeySlot([]byte("user1000")), "foo{}{bar}": KeySlot([]byte("foo{}{bar}")),
		"foo{{bar}}zap": KeySlot([]byte("{bar")), "foo{bar}{zap}": 5061, "foo{bar": KeySlot([]byte("foo{bar")),
	} {
		if got := KeySlot([]byte(key)); got != want {
			t.Errorf("KeySlot(%q) = %d, want %d", key, got, want)
		}
	}
	if KeySlot([]byte("foo{}{bar}")) == 5061 {
		t.Error("an empty tag is one")
	}
}

func BenchmarkNewTable(b *testing.B) {
	for _, n := range []int{3, 10, 100, 300} {
		members := some(n)
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table(members, Layout{Copies: 2, BlobCopies: 1})
			}
		})
	}
	members := some(300)
	for i := range members {
		members[i].Zone, members[i].Weight = string(rune('a'+i%3)), i%4
	}
	b.Run("members=300/zones-and-weights", func(b *testing.B) {
		for b.Loop() {
			table(members, Layout{Copies: 2, BlobCopies: 1})
		}
	})
}

// BenchmarkOrder is what a series costs whose owner does not answer.
func BenchmarkOrder(b *testing.B) {
	for _, n := range []int{3, 10, 100} {
		tab := table(some(n), Layout{Copies: 2})
		gone := make([]bool, n)
		gone[1] = true
		var buf []uint16
		b.Run(fmt.Sprint("Order/", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				buf = tab.Order(uint16(i%Slots), buf[:0])
			}
		})
		b.Run(fmt.Sprint("OwnersWithout/", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				buf = tab.OwnersWithout(uint16(i%Slots), gone, buf[:0])
			}
		})
	}
}
