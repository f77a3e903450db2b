package route

import "math/bits"

// What owners do not know. A node that is passed over, because it did not answer or
// is suspect, owns items and was not sent them. If it goes on to say that it has all
// it was sent, and the node that took its place dies, a hole is not told. So the
// cluster is told, before the request is answered, who has the items instead: the
// first of their slot's order but for some nodes, as if these were gone. It remembers
// that as it remembers who owned what when, and what is missed is handed over as
// after a change of the table.

// tellPassed tells the cluster of those of n items that not all owners were sent, or took.
// f.mu is held, or the flight not yet launched.
func (f *flight) tellPassed(n int, item func(i int) int32) {
	var lack []int32
	without := make([]bool, f.table.Nodes())
	for i := range n {
		k := item(i)
		s := &f.state[k]
		if s.failed == 0 && s.tried == 1<<s.want-1 || s.tried == s.failed {
			continue // all owners, or nobody, so that it is not acknowledged
		}
		lack = append(lack, k)
		f.withoutOf(k, without)
	}
	if len(lack) == 0 {
		return
	}
	// Of most items the same nodes are passed over, or would be if they came first.
	// Not of those that one of these nodes has nevertheless.
	for _, k := range lack {
		s := &f.state[k]
		for held, order := s.tried&^s.failed, f.orderOf(f.cut.items[k].slot); held != 0; held &= held - 1 {
			if without[order[bits.TrailingZeros64(held)]] {
				of := make([]bool, len(without))
				f.withoutOf(k, of)
				f.r.o.Cluster.PassedOver(f.table, func(node int) bool { return !of[node] })
				break
			}
		}
	}
	f.r.o.Cluster.PassedOver(f.table, func(node int) bool { return !without[node] })
}

// withoutOf marks the nodes without which those that have an item, or are sent it,
// would be its owners.
func (f *flight) withoutOf(k int32, without []bool) {
	s := &f.state[k]
	held := s.tried &^ s.failed
	order := f.orderOf(f.cut.items[k].slot)
	if bits.OnesCount64(held) < int(s.want) { // all that do not have it
		has := make([]bool, len(without))
		for i, o := range order {
			has[o] = held&(1<<i) != 0
		}
		for node := range without {
			without[node] = without[node] || !has[node]
		}
		return
	}
	for i := range bits.Len64(held) {
		if held&(1<<i) == 0 {
			without[order[i]] = true
		}
	}
}
