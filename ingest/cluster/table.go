package cluster

import (
	"slices"
	"strings"
	"sync/atomic"
)

// Slots is how many there are, of series and of keys alike. It is Redis
// Cluster's number, which its clients know by heart.
const Slots = 16384

// Neighbouring slots of keys have the same owners, or CLUSTER SLOTS, which
// every client asks for again and again, would be 1.1 to 1.6 MiB. 1,024 groups
// are too few to share out evenly among hundreds of members, so beyond
// fineAbove of them there are four times as many.
const (
	keyGroup     = 16
	fineKeyGroup = 4
	fineAbove    = 64
)

const (
	// MaxCopies bounds Layout.Copies.
	MaxCopies = 8
	// MaxMembers bounds a cluster. Tables name members by 16 bits.
	MaxMembers = 4096
)

// Layout is how slots are given out. All members must have the same.
type Layout struct {
	Copies     int // owners of a slot of series; at least 1
	BlobCopies int // owners of a slot of keys; at least 1
}

// A Table says who owns which slot. It is a pure function of its input: members
// that agree about who is there agree about every owner without a word. It is
// immutable and safe for concurrent use.
type Table struct {
	Version uint64
	Layout  Layout

	members []Member // by ID
	self    int
	draw    draw // of series: for copies of it, which it lends nothing to write to
	plain   bool // who takes part in it does so whoever is gone
	copies  int
	owners  []uint16 // copies of them for each slot

	keyCopies int
	group     int      // slots of keys that have the same owners
	keyOwners []uint16 // keyCopies of them for each group
	promised  []bool   // by group

	used *atomic.Bool // that of the era, see history
}

// Use says that a request is routed by the table.
func (t *Table) Use() {
	if t.used != nil && !t.used.Load() {
		t.used.Store(true)
	}
}

// NewTable makes the table of these members, at most MaxMembers, in any order,
// on the member whose ID is self. The slice is not kept. Version only labels it.
//
// Members that leave own nothing, unless there are no others, and neither do
// earlier lives of a name that is there twice. Only members with a RESP address
// own keys. Where there are copies of keys, a member that joins owns as the second
// what it will own as the first, see Promised.
func NewTable(version uint64, self string, members []Member, l Layout) *Table {
	members = slices.Clone(members)
	slices.SortFunc(members, byID)
	members = slices.CompactFunc(members, func(a, b Member) bool { return a.ID == b.ID })
	l = Layout{Copies: clamp(l.Copies, MaxCopies), BlobCopies: clamp(l.BlobCopies, MaxCopies)}
	t := &Table{Version: version, Layout: l, members: members, self: -1}
	for i := range members {
		if members[i].ID == self {
			t.self = i
		}
	}
	mayOwn := t.mayOwn(nil)
	d := newDraw(members, mayOwn)
	t.draw, t.plain = *d, len(d.all) == len(members)
	t.fillSeries(d)
	t.fillKeys(newDraw(members, func(i int) bool { return members[i].RESP != "" && mayOwn(i) }))
	return t
}

func byID(a, b Member) int { return strings.Compare(a.ID, b.ID) }

func clamp(n, most int) int { return max(1, min(n, most)) }

// mayOwn is who takes part in the draw, if some members were gone; nil is for none.
func (t *Table) mayOwn(gone []bool) func(member int) bool {
	newest, leaving := map[string]int64{}, true
	for i := range t.members {
		if gone != nil && gone[i] {
			continue
		}
		m := &t.members[i]
		newest[m.Name] = max(newest[m.Name], m.Start())
		leaving = leaving && m.State == Leaving
	}
	return func(i int) bool {
		m := &t.members[i]
		return (gone == nil || !gone[i]) && (m.State != Leaving || leaving) && m.Start() == newest[m.Name]
	}
}

func (t *Table) fillSeries(d *draw) {
	t.copies = min(t.Layout.Copies, len(d.all))
	t.owners = make([]uint16, 0, Slots*t.copies)
	for slot := range Slots {
		for _, c := range d.winners(d.of(ofSlot, slot), t.copies) {
			t.owners = append(t.owners, c.member)
		}
	}
}

func (t *Table) fillKeys(d *draw) {
	t.group = keyGroup
	if len(d.all) > fineAbove {
		t.group = fineKeyGroup
	}
	t.keyCopies = min(t.Layout.BlobCopies, len(d.all))
	t.keyOwners = make([]uint16, 0, Slots/t.group*t.keyCopies)
	for slot := 0; slot < Slots; slot += t.group {
		at := len(t.keyOwners)
		for _, c := range d.winners(d.of(ofKey, slot), t.keyCopies) {
			t.keyOwners = append(t.keyOwners, c.member)
		}
		t.promised = append(t.promised, t.promise(len(d.all), t.keyOwners[at:]))
	}
}

// promiseMembers are the fewest that can keep copies of keys: an owner, a copy, and
// who is asked whether the copy is whole.
const promiseMembers = 3

// promise changes the order of a group's owners while the first is joining.
func (t *Table) promise(members int, owners []uint16) bool {
	if members < promiseMembers || len(owners) < 2 {
		return false
	}
	first, second := &t.members[owners[0]], &t.members[owners[1]]
	if first.State != Joining || second.State != Ready || !first.Fills || !second.Fills {
		return false
	}
	owners[0], owners[1] = owners[1], owners[0]
	return true
}

// Members are all that are there, in the order that owners are numbers in:
// that of their IDs. The slice is the table's own.
func (t *Table) Members() []Member { return t.members }

// Self is the number of the member whose table it is, -1 if it is not there.
func (t *Table) Self() int { return t.self }

// Copies is how many owners a slot of series has: Layout.Copies, or fewer if
// there are fewer members.
func (t *Table) Copies() int { return t.copies }

// Owners of a slot of series, the first of them first. The slice is the
// table's own. It is empty only if there are no members.
func (t *Table) Owners(slot uint16) []uint16 {
	return t.owners[int(slot)*t.copies:][:t.copies:t.copies]
}

// KeyOwners of a slot of Redis keys, likewise. It is empty if no member serves
// Redis clients.
func (t *Table) KeyOwners(slot uint16) []uint16 {
	return t.keyOwners[int(slot)/t.group*t.keyCopies:][:t.keyCopies:t.keyCopies]
}

// Promised says of a slot of keys that its second owner is to be the first as soon as
// it is Ready: it is joining, and is sent the keys by the first, which serves them.
func (t *Table) Promised(slot uint16) bool { return t.promised[int(slot)/t.group] }

// KeyGroup is how many neighbouring slots of keys always have the same owners.
func (t *Table) KeyGroup() int { return t.group }

// Order appends to buf every member in the order in which a slot of series
// prefers them: its owners, then those that would own it if these were gone,
// and those that are leaving at the end. It costs a draw for the slot, a sort, and
// the square of the members, less than 100 ns for three and tens of µs for a hundred
// (BenchmarkOrder): it is for when an owner does not answer.
func (t *Table) Order(slot uint16, buf []uint16) []uint16 {
	at := len(buf)
	buf = append(buf, t.Owners(slot)...)
	var room [fewMembers]candidate
	rest := t.draw.appendOf(room[:0], ofSlot, int(slot))
	slices.SortFunc(rest, compareCandidates)
	for _, c := range rest {
		if !slices.Contains(buf[at:], c.member) {
			buf = append(buf, c.member)
		}
	}
	for i := range t.members {
		if !slices.Contains(buf[at:], uint16(i)) {
			buf = append(buf, uint16(i))
		}
	}
	return buf
}

// fewMembers are drawn for without allocating.
const fewMembers = 16

// OwnersWithout appends to buf the members that would own a slot of series if some
// were gone: those that Order has next, unless there are zones. It costs as much.
func (t *Table) OwnersWithout(slot uint16, gone []bool, buf []uint16) []uint16 {
	d := t.draw
	if t.plain {
		d.without(gone)
	} else {
		d = *newDraw(t.members, t.mayOwn(gone))
	}
	var room, few [fewMembers]candidate
	best, all := few[:0], d.appendOf(room[:0], ofSlot, int(slot))
	if d.zones > 1 {
		best = d.winners(all, t.Layout.Copies)
	} else {
		best = least(best, all, min(t.Layout.Copies, len(all)))
	}
	for _, c := range best {
		buf = append(buf, c.member)
	}
	return buf
}

// Owns says how many slots of series each member owns as the first of them,
// and as any.
func (t *Table) Owns() (first, any []int) {
	first, any = make([]int, len(t.members)), make([]int, len(t.members))
	for i, m := range t.owners {
		any[m]++
		if i%t.copies == 0 {
			first[m]++
		}
	}
	return first, any
}

// OwnsKeys says how many slots of keys each member is the first owner of.
func (t *Table) OwnsKeys() []int {
	n := make([]int, len(t.members))
	for i := 0; i < len(t.keyOwners); i += t.keyCopies {
		n[t.keyOwners[i]] += t.group
	}
	return n
}
