package cluster

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// An Era is a time in which the members that own slots were the same: what was
// written then went to the owners that these members make. It is immutable,
// and safe for concurrent use.
type Era struct {
	From  int64 // Unix ms
	Until int64 // Unix ms; 0: it is in force
	// Doubt is by how many ms From and Until may be wrong, either way: this member's
	// clock was set since.
	Doubt int64
	// Members that were there, with what the owners depend on; addresses are
	// empty. Without any nothing is known of the time.
	Members []Member
	Layout  Layout

	// used is whether a request was routed by a table of the era. Where it is not
	// nil the era counts only if one was: see history.
	used *atomic.Bool

	once  sync.Once
	table *Table
}

// ID is the same for all eras of the same owners; 0 if nothing is known of them.
func (e *Era) ID() uint64 {
	if len(e.Members) == 0 {
		return 0
	}
	var b []byte
	for i := range e.Members {
		m := &e.Members[i]
		b = append(append(append(append(b, m.ID...), 0), m.Zone...), 0)
		b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, uint32(m.Weight)), m.Place)
	}
	return max(1, xxhash.Sum64(append(b, byte(e.Layout.Copies))))
}

// counts reports whether anything was written in the era, as far as is known.
func (e *Era) counts() bool { return e.used == nil || e.used.Load() }

// Table is that of the era, made when it is first asked for: a ms or two for
// ten members, and Slots times as many copies times 2 bytes.
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
	slices.SortFunc(own, byID)
	return own
}

const (
	// maxEras bounds the history. A rolling restart makes two for each member.
	maxEras = 512
	// sameEraMs is how far apart what two members saw of one era may be: one
	// gossip round, a detection, and clocks that differ somewhat.
	sameEraMs = 30_000
	// maxHistoryBytes bounds what is taken from another member: many times what
	// maxEras of 300 members are (see the package comment).
	maxHistoryBytes = 4 << 20

	// A member that was passed over may have been for passedBefore when that is
	// said, which is once in passedEvery: a request waits for it, in an outbox
	// and under way.
	passedBefore = 1500   // ms
	passedEvery  = 100    // ms
	forgetUnused = 60_000 // ms: routing a request takes no longer

	// What ended before newsMs all members have told each other when they exchanged
	// histories; at the end of an era it may have been written in for lagMs more (mcache/query).
	newsMs = 60_000
	lagMs  = 2000
)

// history is all that is known of eras: what this member saw itself, and what
// others tell. Merging only ever adds to it, so that a member that lies can
// cause warnings, and not take any away.
//
// Only the era that this member sees now is in force (Until is 0). What others
// say is in force was so when they said it: whoever is not heard of any more has
// no eras that last.
//
// Nobody but its members routes by the table of an era. A member that starts sees,
// for some milliseconds, tables that nobody else does: it is alone, or has met some
// of the others and not yet all. Such eras would be a false memory, which nobody
// else could have had handed over. They count if this member routed a request by
// them. The same goes for any era of this member alone. All others count: who
// routed by them may have died since.
//
// Members that are passed over make eras, too: see passOver.
type history struct {
	mu      sync.Mutex
	eras    []*Era // by From, then Until with the one in force last
	now     *Era   // the one of them that is in force, or nil
	settled bool   // this member has met all others
}

// same says whether two eras have the same owners for all slots.
func (e *Era) same(o *Era) bool {
	return e.Layout.Copies == o.Layout.Copies && slices.EqualFunc(e.Members, o.Members, func(a, b Member) bool {
		return a.ID == b.ID && a.Zone == b.Zone && a.Weight == b.Weight && a.Place == b.Place
	})
}

func (e *Era) end() int64 {
	if e.Until == 0 {
		return 1<<63 - 1
	}
	return e.Until
}

// lasts reports whether an era may have lasted at a time, or begins later.
func (e *Era) lasts(ms int64) bool { return e.Until == 0 || e.Until+e.Doubt >= ms }

// observe says that from now on the table is that of these members. What it returns
// is set when a request is routed by it; nil if that does not matter.
func (h *history) observe(nowMs int64, members []Member, l Layout) (used *atomic.Bool) {
	next := &Era{From: nowMs, Members: owning(members), Layout: l}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now != nil {
		if h.now.same(next) {
			return h.now.used
		}
		h.replaceLocked(h.now, &Era{From: h.now.From, Until: max(nowMs, h.now.From), Doubt: h.now.Doubt, Members: h.now.Members, Layout: h.now.Layout, used: h.now.used})
	}
	if !h.settled || len(next.Members) == 1 {
		next.used = new(atomic.Bool)
	}
	// What others said of it may be here already.
	for _, e := range h.eras {
		if e.Until != 0 && e.same(next) && e.Until+sameEraMs >= nowMs {
			next.From, next.Doubt, next.used = min(next.From, e.From), e.Doubt, e.used
			h.eras = slices.DeleteFunc(h.eras, func(o *Era) bool { return o == e })
			break
		}
	}
	h.now = next
	h.eras = slices.DeleteFunc(append(h.eras, next), func(e *Era) bool { return e != next && !e.counts() && e.Until+forgetUnused < nowMs })
	h.tidyLocked()
	return next.used
}

// settle says that this member has met all others.
func (h *history) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settled = true
	if h.now != nil && h.now.used != nil && len(h.now.Members) > 1 {
		h.replaceLocked(h.now, &Era{From: h.now.From, Doubt: h.now.Doubt, Members: h.now.Members, Layout: h.now.Layout})
	}
}

// passOver notes that this member routes, or did so just now, as if these members
// were all there are: others did not take what they own. To those who read it is an
// era like any other, of which the ones who were passed over have nothing, and those
// who took their place have all.
func (h *history) passOver(nowMs int64, members []Member, l Layout) *Era {
	e := &Era{From: nowMs - passedBefore, Until: nowMs + passedEvery, Members: owning(members), Layout: l}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(e)
	h.tidyLocked()
	return e
}

// replaceLocked puts another value in an era's place: readers keep the one they have.
func (h *history) replaceLocked(old, by *Era) {
	for i, e := range h.eras {
		if e == old {
			h.eras[i] = by
		}
	}
	if h.now == old {
		h.now = by
	}
}

// merge adds what another member said, just now, of eras. It returns those that ended
// lately and that this member did not know: others may not know them either.
func (h *history) merge(nowMs int64, told []*Era) (news []*Era) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range told {
		if t.Until == 0 || t.Until > nowMs {
			t.Until = nowMs
		}
		if t.From > t.Until {
			continue // by a clock that is ahead: it will last longer the next time
		}
		if t.Until+newsMs >= nowMs && !h.knownLocked(t) {
			news = append(news, t)
		}
		h.addLocked(t)
	}
	h.tidyLocked()
	return news
}

// knownLocked reports whether an era is known, but for some of its end in which it may
// still have been written in anyway.
func (h *history) knownLocked(t *Era) bool {
	return slices.ContainsFunc(h.eras, func(e *Era) bool {
		return e.same(t) && e.From <= t.From+lagMs && t.Until-lagMs <= e.end()
	})
}

// addLocked adds an era, to one that is the same if there is one.
func (h *history) addLocked(t *Era) {
	for _, e := range h.eras {
		if !e.same(t) || t.From > e.end() && t.From-e.end() > sameEraMs || e.From > t.Until+sameEraMs {
			continue
		}
		if t.From < e.From || t.Until > e.end() || e.used != nil {
			union := &Era{From: min(e.From, t.From), Until: max(e.Until, t.Until), Doubt: e.Doubt, Members: e.Members, Layout: e.Layout}
			if e.Until == 0 {
				union.Until = 0
			}
			h.replaceLocked(e, union)
		}
		return
	}
	h.eras = append(h.eras, t)
}

// tidyLocked sorts the eras, and makes of the oldest that are too many one of
// which nothing is known.
func (h *history) tidyLocked() {
	slices.SortFunc(h.eras, func(a, b *Era) int {
		switch {
		case a.From != b.From:
			return int(max(-1, min(1, a.From-b.From)))
		case a.end() < b.end():
			return -1
		case a.end() > b.end():
			return 1
		}
		return 0
	})
	over := len(h.eras) - maxEras
	if over <= 0 {
		return
	}
	unknown := &Era{From: h.eras[0].From}
	kept := h.eras[:0]
	for _, e := range h.eras {
		if over >= 0 && e != h.now { // one more than are too many: the unknown one takes a place
			unknown.Until, unknown.Doubt = max(unknown.Until, e.Until), max(unknown.Doubt, e.Doubt)
			over--
			continue
		}
		kept = append(kept, e)
	}
	h.eras = append([]*Era{unknown}, kept...)
}

// since are the eras that lasted at a time or began later, by From: that in force,
// and all that count.
func (h *history) since(ms int64) []*Era {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []*Era
	for _, e := range h.eras {
		if e.lasts(ms) && (e == h.now || e.counts()) {
			all = append(all, e)
		}
	}
	return all
}

// told is what others are told: all that counts.
func (h *history) told() []*Era {
	return slices.DeleteFunc(h.since(0), func(e *Era) bool { return !e.counts() })
}
