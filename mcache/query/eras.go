package query

import (
	"math"
	"slices"
)

// Completeness of what several members have together. Who a series belongs to
// changes when members come and go; each table of owners holds for a time, an
// era. What was written in an era is at the owners of that era, whoever owns the
// series now.
//
// Each member says from when on it has all that it was sent, c: the time it
// began, if it began empty; later, if it lost something since; never, while it
// does not answer. Then an answer is complete from
//
//	the least T such that for every era that ends after T, and every slot:
//	the least c of the slot's owners in that era ≤ max(T, start of the era)
//
// For one era and one set of owners the condition holds for every T from some
// time on: from the least c of the owners, or from the end of the era if that
// comes first; from the beginning if the least c is not after the start of the
// era. The answer is complete from the latest of these times. Slots that have the
// same owners are looked at once, so that it costs some nanoseconds for each set
// of owners, in their order, and not for each of 16,384 slots: of 3 members with 2
// copies there are 6.

// never is the c of a member that does not answer.
const never = math.MaxInt64

// Era is a time in which each slot had the same owners.
type Era struct {
	From, To int64  // unix ms, From inclusive; To is math.MaxInt64 while it lasts
	ID       uint64 // for SlotClaim; 0: nobody claims anything of it
	began    int64  // From, as it was given
	owners   *Owners
}

// NewEra returns an era of a table, which can be that of several. id is that of its
// owners: the same for all members, and for eras of the same owners at other times.
func NewEra(id uint64, from, to int64, o *Owners) Era { return Era{from, to, id, from, o} }

// Owners says which members own which slot in a table. It does not change, and
// can be made once for each table.
type Owners struct {
	names []string
	sets  [][]uint16 // different ones; places in names
	set   []uint16   // of each slot, its place in sets
}

// NewOwners reads a table of so many slots. names are those that its members keep
// over their lives: what a member that was restarted has saved is still what it had.
func NewOwners(names []string, slots int, owners func(slot uint16) []uint16) *Owners {
	o := &Owners{names: slices.Clone(names), set: make([]uint16, slots)}
	places := map[string]uint16{}
	var key []byte
	for slot := range slots {
		own := owners(uint16(slot))
		key = key[:0]
		for _, m := range own {
			key = append(key, byte(m>>8), byte(m))
		}
		place, ok := places[string(key)]
		if !ok {
			place = uint16(len(o.sets))
			places[string(key)] = place
			o.sets = append(o.sets, slices.Clone(own))
		}
		o.set[slot] = place
	}
	return o
}

// of are the owners of a slot, in order of preference.
func (o *Owners) of(slot uint16) []uint16 { return o.sets[o.set[int(slot)%len(o.set)]] }

// claims is from when on members have all that they were sent, by name.
type claims map[string]int64

// of is the claim of a member.
func (c claims) of(name string) int64 {
	if t, ok := c[name]; ok {
		return t
	}
	return never
}

// completeFrom is from when on everything is there; math.MinInt64 if nothing is
// known to be missing, and never if that cannot be said of any time.
func completeFrom(eras []Era, c claims) int64 {
	t := int64(math.MinInt64)
	var own []int64
	for _, e := range eras {
		own = own[:0]
		for _, name := range e.owners.names {
			own = append(own, c.of(name))
		}
		for _, set := range e.owners.sets {
			t = max(t, e.completeFrom(set, own))
		}
	}
	return t
}

// slotCompleteFrom is completeFrom for the series of one slot.
func slotCompleteFrom(eras []Era, slot uint16, c claims) int64 {
	t := int64(math.MinInt64)
	for i := range eras {
		t = max(t, eras[i].slotCompleteFrom(slot, c))
	}
	return t
}

// completeFrom is that of one set of owners; own are the claims of all members.
func (e *Era) completeFrom(set []uint16, own []int64) int64 {
	least := int64(never)
	for _, m := range set {
		least = min(least, own[m])
	}
	return e.after(least)
}

func (e *Era) slotCompleteFrom(slot uint16, c claims) int64 {
	least := int64(never)
	for _, m := range e.owners.of(slot) {
		least = min(least, c.of(e.owners.names[m]))
	}
	return e.after(least)
}

// after is from when on the era leaves nothing to be desired.
func (e *Era) after(least int64) int64 {
	if least <= e.From {
		return math.MinInt64
	}
	return min(least, e.To)
}

// eraLag is for how long after the end of an era a write may still go to its
// owners: members hear of a change one after the other, and their clocks differ.
const eraLag = 2000 // ms

// since are the eras that end after a time, the first of them from the beginning:
// what was before is not known to have been elsewhere. They end as late as any
// member may have thought, whose clock is apart by so much.
func since(eras []Era, t, apart int64) []Era {
	kept := make([]Era, 0, len(eras))
	for i, e := range eras {
		if i == 0 {
			e.From = math.MinInt64
		}
		if e.To < math.MaxInt64-eraLag-apart {
			e.To += eraLag + apart
		}
		e.began -= apart
		if e.To > t {
			kept = append(kept, e)
		}
	}
	return kept
}

// current is the era that lasts; nil if none does.
func current(eras []Era) *Era {
	for i := range eras {
		if eras[i].To == math.MaxInt64 {
			return &eras[i]
		}
	}
	return nil
}
