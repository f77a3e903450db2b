package cluster

import (
	"slices"
	"sync"
)

// An Era is a time in which the members that own slots were the same: what was
// written then went to the owners that these members make. It is immutable,
// and safe for concurrent use.
type Era struct {
	From  int64 // Unix ms
	Until int64 // Unix ms; 0: it is in force
	// Members that were there, with what the owners depend on; addresses are
	// empty. Without any nothing is known of the time.
	Members []Member
	Layout  Layout

	once  sync.Once
	table *Table
}

// Table is that of the era, made when it is first asked for: about 1 ms for
// ten members, and 16384 times as many copies times 2 bytes.
func (e *Era) Table() *Table {
	e.once.Do(func() { e.table = NewTable(0, "", e.Members, e.Layout) })
	return e.table
}

// Owners of a slot of series in the era, as numbers of Members. It is empty
// if nothing is known of the time.
func (e *Era) Owners(slot uint16) []uint16 { return e.Table().Owners(slot) }

// owning is what of the members decides about owners of series.
func owning(members []Member) []Member {
	own := make([]Member, 0, len(members))
	allLeave := !slices.ContainsFunc(members, func(m Member) bool { return m.State != Leaving })
	for _, m := range members {
		if m.State != Leaving || allLeave {
			own = append(own, Member{ID: m.ID, Name: m.Name, Zone: m.Zone, Weight: m.Weight, Place: m.Place, State: Ready})
		}
	}
	slices.SortFunc(own, func(a, b Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return own
}
