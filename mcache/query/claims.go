package query

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
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
// Of eras that were over by Until the claim counts like that of an owner. It is
// sound because whoever hands over works out by the same rules from when on it
// has everything of the slot itself, by all eras that it knows of; because an era
// that nobody told it of, as of the other side of a cut, ends after Until; and
// because a claim is made only when all of the slot was sent and written. What
// the member loses afterwards it says with each answer (Missing.Gone), and per
// series, which bound its claims as they do all.
//
// Claims of one life never become wrong, so that they are kept for a while. They
// are asked for before what they are to be applied to, so that an answer is never
// of before the handover that they are of.

// SlotClaim is what a member claims of some slots.
type SlotClaim struct {
	From  int64 // unix ms: it has everything from then on
	Until int64 // unix ms: that was sent in eras that ended by then
	Slots []byte
}

// Has reports whether a slot is one of those.
func (c *SlotClaim) Has(slot uint16) bool {
	return int(slot>>3) < len(c.Slots) && c.Slots[slot>>3]>>(slot&7)&1 != 0
}

// counts reports whether the claim is about an era. It is not about eras of one
// member: each that comes was alone for a moment, which nobody else can know of.
func (c *SlotClaim) counts(e *Era) bool { return e.To <= c.Until && len(e.owners.names) > 1 }

// memberClaim is a claim and whose it is.
type memberClaim struct {
	name string
	SlotClaim
}

// claimed are those of all members.
type claimed []memberClaim

// of is the least that members have of a slot of an era, of whom lost says what
// they have lost since.
func (cs claimed) of(slot uint16, e *Era, lost claims) int64 {
	least := int64(never)
	for i := range cs {
		c := &cs[i]
		if c.counts(e) && c.Has(slot) {
			least = min(least, max(c.From, lost.of(c.name)))
		}
	}
	return least
}

// completeFrom is completeFrom of all slots with claims. Only slots whose owners
// do not have everything are looked at.
func (cs claimed) completeFrom(eras []Era, c, lost claims) int64 {
	t := completeFrom(eras, c)
	if t == math.MinInt64 || len(cs) == 0 {
		return t
	}
	t = math.MinInt64
	var own, least []int64
	for i := range eras {
		e := &eras[i]
		own, least = own[:0], least[:0]
		for _, name := range e.owners.names {
			own = append(own, c.of(name))
		}
		some := false
		for _, set := range e.owners.sets {
			l := int64(never)
			for _, m := range set {
				l = min(l, own[m])
			}
			least = append(least, l)
			some = some || e.after(l) > math.MinInt64
		}
		for slot := 0; some && slot < len(e.owners.set); slot++ {
			l := least[e.owners.set[slot]]
			if at := e.after(l); at > t {
				t = max(t, e.after(min(l, cs.of(uint16(slot), e, lost))))
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
		l := int64(never)
		for _, m := range e.owners.of(slot) {
			l = min(l, c.of(e.owners.names[m]))
		}
		l = min(l, cs.of(slot%uint16(len(e.owners.set)), e, lost))
		t = max(t, e.after(l))
	}
	return t
}

// HasFrom says from when on another member has everything of a slot that was sent
// in eras that ended by a time, with what this one hands over to it;
// math.MaxInt64 if that cannot be said of any time. This one has lost what is
// before gone. The other has what it was sent since it began: what it lost of
// that it says by itself. HasFrom looks no further back than from.
func (f *FanOut) HasFrom(from, until, gone int64, to string, began int64) func(slot uint16) int64 {
	var eras []Era
	for _, e := range since(f.members.Eras(from-eraLag), from) {
		if x := (SlotClaim{Until: until}); x.counts(&e) {
			eras = append(eras, e)
		}
	}
	name := f.members.Self()
	c, lost := claims{to: began, name: max(f.o.Began, gone)}, claims{name: gone}
	var own claimed
	for _, x := range f.ownClaims().Claims {
		own = append(own, memberClaim{name, x})
	}
	return func(slot uint16) int64 { return max(from, own.slotCompleteFrom(eras, slot, c, lost)) }
}

const (
	askClaims = "claims"

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
