package query

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// Claims after a handover. A member that is new, or was started again, was not
// sent what owners of its slots were sent before; but if one that has it all
// handed it over, it has it all the same:
//
//	era: a and b own the slot │ a is started again
//	──────────────────────────┼────────────────┬──────────────▶ time
//	          From            │ handed over by b, from From on
//	           └────────── a claims ───────────┘ Until: when that began
//
// A claim names the eras that it is about: by their owners, and since when they
// began. Of these it counts like that of an owner, if they were over by Until. It is
// sound because whoever hands over was one of the owners itself, and was there since,
// so that it has what was sent to them even in an era that nobody has told it of; or
// it has a claim of its own, and passes that on with its times. An era that lasted
// longer than it knew ends after Until. And a claim is made only when all of the slot
// was sent and written. What the member loses afterwards it says with each answer
// (Missing.Gone), and per series, which bound its claims as they do all.
//
// An owner has everything that it was sent in an era, out-of-order samples included,
// if it was there from the start of the era on. A claim is about the time of samples
// alone: before its From it says nothing, whenever they were written.
//
// Claims of one life never become wrong, so that they are kept for a while. They
// are asked for before what they are to be applied to, so that an answer is never
// of before the handover that they are of.

// SlotClaim is what a member claims of some slots.
type SlotClaim struct {
	From  int64 // unix ms: it has everything from then on
	Until int64 // unix ms: that was sent in those of Eras that ended by then
	Slots []byte
	Eras  []ClaimedEra
}

// ClaimedEra is eras of the same owners.
type ClaimedEra struct {
	ID    uint64 // of the owners
	Since int64  // unix ms: they began then, or later
}

// Has reports whether a slot is one of those.
func (c *SlotClaim) Has(slot uint16) bool {
	return int(slot>>3) < len(c.Slots) && c.Slots[slot>>3]>>(slot&7)&1 != 0
}

// counts reports whether the claim is about an era.
func (c *SlotClaim) counts(e *Era) bool {
	return e.To <= c.Until && slices.ContainsFunc(c.Eras, func(x ClaimedEra) bool { return x.ID == e.ID && e.began >= x.Since })
}

// memberClaim is a claim and whose it is.
type memberClaim struct {
	name string
	SlotClaim
}

// claimed are those of all members.
type claimed []memberClaim

// heldClaim is from when on somebody has everything of some slots.
type heldClaim struct {
	from int64
	*SlotClaim
}

// about are those of an era, best first. lost says what members have lost since.
func (cs claimed) about(e *Era, lost claims) (held []heldClaim) {
	for i := range cs {
		c := &cs[i]
		if !c.counts(e) {
			continue
		}
		if from := max(c.From, lost.of(c.name)); from < e.To {
			held = append(held, heldClaim{from, &c.SlotClaim})
		}
	}
	slices.SortFunc(held, func(a, b heldClaim) int { return cmp.Compare(a.from, b.from) })
	return held
}

// of is from when on somebody has everything of a slot, or never.
func of(held []heldClaim, slot uint16) int64 {
	for i := range held {
		if held[i].Has(slot) {
			return held[i].from
		}
	}
	return never
}

// completeFrom is completeFrom of all slots with claims. Only slots whose owners
// do not have everything are looked at.
func (cs claimed) completeFrom(eras []Era, c, lost claims) int64 {
	t := completeFrom(eras, c)
	if t == math.MinInt64 || len(cs) == 0 {
		return t
	}
	t = math.MinInt64
	var own, at []int64
	for i := range eras {
		e := &eras[i]
		own, at = own[:0], at[:0]
		for _, name := range e.owners.names {
			own = append(own, c.of(name))
		}
		worst := int64(math.MinInt64)
		for _, set := range e.owners.sets {
			at = append(at, e.completeFrom(set, own))
			worst = max(worst, at[len(at)-1])
		}
		if worst <= t {
			continue
		}
		held := cs.about(e, lost)
		if len(held) == 0 {
			t = worst
			continue
		}
		for slot, set := range e.owners.set {
			if at := at[set]; at > t {
				t = max(t, min(at, of(held, uint16(slot))))
			}
		}
	}
	return t
}

// slotCompleteFrom is slotCompleteFrom with claims.
func (cs claimed) slotCompleteFrom(eras []Era, slot uint16, c, lost claims) int64 {
	t := slotCompleteFrom(eras, slot, c)
	if t == math.MinInt64 || len(cs) == 0 {
		return t
	}
	t = math.MinInt64
	for i := range eras {
		e := &eras[i]
		if at := e.slotCompleteFrom(slot, c); at > t {
			t = max(t, min(at, of(cs.about(e, lost), slot%uint16(len(e.owners.set)))))
		}
	}
	return t
}

// eraSlack is how much earlier than is known an era may turn out to have begun.
const eraSlack = 30_000 // ms

// Claimable says what another member can claim of slots that this one hands over to
// it: it tells of eras, from when on this one has everything that was sent in them,
// and until when they must have ended. It looks no further back than from.
//
// It is called before anything is read that is handed over, at the time until: what
// this member is handed over itself afterwards does not count. What it returns is
// called when all has been read, and asks then what has been lost: what is before gone.
func (f *FanOut) Claimable(from, until int64, gone func() int64) func(slot uint16, tell func(e ClaimedEra, from, until int64)) {
	var eras []Era
	apart, began := f.apartMs(), f.o.Began()
	until -= apart
	for _, e := range since(f.members.Eras(from-eraLag-apart), from, apart) {
		if e.To <= until && e.ID != 0 {
			eras = append(eras, e)
		}
	}
	c := claims{f.members.Self(): began + apart}
	own := slices.DeleteFunc(slices.Clone(f.ownClaims().Claims), func(x SlotClaim) bool { return x.Until < from })
	var oldest int64
	first := true
	return func(slot uint16, tell func(e ClaimedEra, from, until int64)) {
		if first {
			first, oldest = false, max(from, gone())
		}
		for i := range eras {
			e := &eras[i]
			at := e.slotCompleteFrom(slot, c)
			// since took apart off what was noted; it may have been as much later.
			since := e.began + 2*apart - eraSlack
			if at == math.MinInt64 { // it owned it from the beginning on
				since = max(since, began+apart)
			}
			if t := max(oldest, at); t < e.To {
				tell(ClaimedEra{e.ID, since}, t, until)
			}
		}
		for i := range own {
			if x := &own[i]; x.Has(slot) {
				for _, e := range x.Eras {
					tell(e, max(oldest, x.From), x.Until)
				}
			}
		}
	}
}

const (
	askClaims = "claims of eras"

	// claimsFor is for how long claims of others are taken for all that there are.
	// They may take ReadTimeout; of who is slower those are taken that were known.
	claimsFor = time.Second
)

// claimList is the answer to askClaims.
type claimList struct {
	Version uint64
	Claims  []SlotClaim
}

// claimCache has the claims of other members, by the id of their life.
type claimCache struct {
	asking sync.Mutex // held while they are asked for

	mu    sync.Mutex
	at    time.Time
	lists map[string]claimList
}

func (f *FanOut) ownClaims() (l claimList) {
	if f.o.Claims != nil {
		l.Version, l.Claims = f.o.Claims()
	}
	return l
}

// answerClaims answers who has those of a version, unless there are no others.
func (f *FanOut) answerClaims(q *question, out answerSink) error {
	l := f.ownClaims()
	if uint64(q.From) == l.Version {
		l.Claims = nil
	}
	return out.putJSON(l)
}

// claimed are the claims of all members, of now or a second ago.
func (f *FanOut) claimed(ctx context.Context) (all claimed) {
	if f.o.Claims == nil {
		return nil
	}
	peers := f.members.Peers()
	f.askClaims(ctx, peers)
	for _, c := range f.ownClaims().Claims {
		all = append(all, memberClaim{f.members.Self(), c})
	}
	f.known.mu.Lock()
	defer f.known.mu.Unlock()
	for _, p := range peers {
		for _, c := range f.known.lists[p.life()].Claims {
			all = append(all, memberClaim{p.Name, c})
		}
	}
	return all
}

// life tells the lives of members apart.
func (p *Peer) life() string { return p.Name + "\x00" + p.ID + "\x00" + p.Address }

// askClaims asks those who may have others than are known.
func (f *FanOut) askClaims(ctx context.Context, peers []Peer) {
	fresh := func() bool {
		f.known.mu.Lock()
		defer f.known.mu.Unlock()
		d := f.o.Now().Sub(f.known.at)
		return d >= 0 && d < claimsFor && !f.known.at.IsZero()
	}
	if fresh() {
		return
	}
	f.known.asking.Lock()
	defer f.known.asking.Unlock()
	if fresh() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, f.o.ReadTimeout)
	defer cancel()
	lists := make([]claimList, len(peers))
	f.known.mu.Lock()
	for i, p := range peers {
		lists[i] = f.known.lists[p.life()]
	}
	f.known.mu.Unlock()
	var wg sync.WaitGroup
	for i, p := range peers {
		if p.Suspect {
			continue
		}
		wg.Go(func() {
			if l, err := f.claimsOf(ctx, p, lists[i].Version); err == nil && l.Version != lists[i].Version {
				lists[i] = l
			}
		})
	}
	wg.Wait()
	f.known.mu.Lock()
	defer f.known.mu.Unlock()
	f.known.at, f.known.lists = f.o.Now(), make(map[string]claimList, len(peers))
	for i, p := range peers {
		f.known.lists[p.life()] = lists[i]
	}
}

func (f *FanOut) claimsOf(ctx context.Context, p Peer, version uint64) (l claimList, err error) {
	a := f.asker(ctx)
	q := question{Version: wireVersion, What: askClaims, From: int64(version)}
	got, err := f.ask(ctx, p, &q, a.loan)
	a.loan.end()
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(got.json, &l); err != nil {
		return l, fmt.Errorf("claims of %s: %w", p.Name, err)
	}
	return l, nil
}
