package route

import "slices"

// What owners do not know. A node that is passed over, because it did not answer, is
// suspect or had too many new series, owns items that it was not sent or did not
// take. If it goes on to say that it has all it was sent, and the node that took its
// place dies, a hole is not told. So the cluster is told, before the request is
// answered, who has the items instead: those who would own them if some nodes were
// gone. It remembers that as it remembers who owned what when, and what is missed is
// handed over as after a change of the table.

// tellPassed tells the cluster of those of items that not all owners were sent, or took.
// f.mu is held, or the flight not yet launched.
func (f *flight) tellPassed(items []int32) {
	// Of most items the same nodes are passed over, or would be if they came first.
	var some []bool
	for _, k := range items {
		if s := &f.state[k]; !s.passed() {
			continue
		}
		if some == nil {
			some = make([]bool, f.table.Nodes())
		}
		if !f.hasAny(k, some) {
			f.withoutOf(k, some)
		}
	}
	if some == nil {
		return
	}
	// Not of those that one of these nodes has nevertheless.
	for _, k := range items {
		if f.state[k].passed() && f.hasAny(k, some) {
			own := make([]bool, len(some))
			f.withoutOf(k, own)
			f.passOver(own)
		}
	}
	f.passOver(some)
}

// passed reports whether others than the owners have an item, or are sent it; not if
// nobody is, so that it is not acknowledged.
func (s *state) passed() bool {
	return (s.failed != 0 || s.tried != 1<<s.want-1) && s.tried != s.failed
}

func (f *flight) passOver(without []bool) {
	if !slices.Contains(without, true) {
		return
	}
	f.r.o.Cluster.PassedOver(f.table, func(node int) bool { return !without[node] })
}

// hasAny reports whether any of these nodes has an item, or is sent it.
func (f *flight) hasAny(k int32, of []bool) bool {
	held := f.state[k].held()
	for i, o := range f.orderOf(f.cut.items[k].slot) {
		if held&(1<<i) != 0 && of[o] {
			return true
		}
	}
	return false
}

// withoutOf marks more nodes, until those that have an item, or are sent it, would
// be its owners without all that are marked. None of these is one of them.
func (f *flight) withoutOf(k int32, without []bool) {
	slot, held := f.cut.items[k].slot, f.state[k].held()
	order := f.orderOf(slot)
	for more := true; more; {
		more = false
		f.chosen = f.table.OwnersWithout(slot, without, f.chosen[:0])
		for _, o := range f.chosen {
			if i := slices.Index(order, o); i < 0 || held&(1<<i) == 0 {
				without[o], more = true, true
			}
		}
	}
}

// held are the places of a slot's order that have the item, or are sent it.
func (s *state) held() uint32 { return s.tried &^ s.failed }
