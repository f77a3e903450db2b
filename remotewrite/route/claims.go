package route

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sync"

	"mcached/remotewrite/wire"
)

// A Claim says that a node has everything of some slots, from a time on, that was
// sent in some eras if they were over by another time: it was handed over to it, by
// one that had it. An era is a time in which tables had the same owners. Package
// mcache/query, in claims.go, has why a claim is sound and what it is good for.
//
// It is made when a handover has come to its end: all series of the slot, as far
// back as From, were sent and written. Not if the node did not take something, or
// if the table changed meanwhile.
type Claim struct {
	From, Until int64 // unix ms
	Slots       []byte
	Eras        []ClaimedEra // in order
}

// ClaimedEra is eras of the same owners, which have a number that is the same for all
// nodes, that began at a time or later.
type ClaimedEra struct {
	ID    uint64
	Since int64 // unix ms
}

func compareEras(a, b ClaimedEra) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Since, b.Since))
}

const (
	// maxClaims bounds those that a node makes. Beyond them the oldest are forgotten.
	maxClaims = 512
	// maxClaimEras bounds the eras of one: more than the history of a cluster has.
	maxClaimEras = 1024
	// nearClaimsMs is how far apart the times of two may be that are made one, of
	// which the least is claimed of both: several nodes hand over at once.
	nearClaimsMs = 1000
)

const (
	claimSlotBytes = slots / 8
	claimHeadBytes = 8 + 8 + claimSlotBytes
	claimEraBytes  = 8 + 8
)

// appendClaim appends the body of a part of the protocol wire.Claim: From, Until,
// a bit for each slot, the eras.
func appendClaim(dst []byte, c *Claim) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.From))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Until))
	dst = append(dst, c.Slots...)
	dst = append(dst, make([]byte, claimSlotBytes-len(c.Slots))...)
	return appendEras(dst, c.Eras)
}

func appendEras(dst []byte, eras []ClaimedEra) []byte {
	for _, e := range eras {
		dst = binary.LittleEndian.AppendUint64(dst, e.ID)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(e.Since))
	}
	return dst
}

// readEras reads what appendEras wrote.
func readEras(b []byte) (eras []ClaimedEra) {
	for ; len(b) >= claimEraBytes; b = b[claimEraBytes:] {
		eras = append(eras, ClaimedEra{binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))})
	}
	return eras
}

var errClaim = errors.New("malformed claim")

func readClaim(b []byte) (c Claim, err error) {
	n := (len(b) - claimHeadBytes) / claimEraBytes
	if len(b) != claimHeadBytes+claimEraBytes*n || n < 1 || n > maxClaimEras {
		return c, errClaim
	}
	c = Claim{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:])), slices.Clone(b[16:claimHeadBytes]), readEras(b[claimHeadBytes:])}
	if c.From > c.Until || !slices.IsSortedFunc(c.Eras, compareEras) {
		return c, errClaim
	}
	return c, nil
}

// claims are those of a node.
type claims struct {
	mu      sync.Mutex
	version uint64
	list    []Claim // whose Slots and Eras do not change
}

// Claim takes a part of the protocol wire.Claim, which another node sent. It
// keeps nothing of it.
func (r *Router) Claim(body []byte) error {
	c, err := readClaim(body)
	if err != nil {
		return err
	}
	r.claims.add(c)
	return nil
}

// Claimed are the claims of this node, with a number that changes when they do: 0
// if there are none.
func (r *Router) Claimed() (version uint64, list []Claim) {
	r.claims.mu.Lock()
	defer r.claims.mu.Unlock()
	return r.claims.version, slices.Clone(r.claims.list)
}

// add adds a claim, and takes out of others what it makes superfluous.
func (cs *claims) add(c Claim) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.version++
	kept := cs.list[:0:0]
	for _, o := range cs.list {
		if near(c.From, o.From) && near(c.Until, o.Until) && slices.Equal(c.Eras, o.Eras) {
			c = Claim{max(c.From, o.From), min(c.Until, o.Until), with(o.Slots, c.Slots), c.Eras}
			continue
		}
		if c.From <= o.From && c.Until >= o.Until && includes(c.Eras, o.Eras) {
			if o.Slots = without(o.Slots, c.Slots); o.Slots == nil {
				continue
			}
		}
		kept = append(kept, o)
	}
	kept = append(kept, c)
	cs.list = kept[max(0, len(kept)-maxClaims):]
}

func near(a, b int64) bool { return max(a, b)-min(a, b) <= nearClaimsMs }

// includes reports that all of b are in a.
func includes(a, b []ClaimedEra) bool {
	return !slices.ContainsFunc(b, func(e ClaimedEra) bool {
		return !slices.ContainsFunc(a, func(o ClaimedEra) bool { return o.ID == e.ID && o.Since <= e.Since })
	})
}

// with is a and b.
func with(a, b []byte) []byte {
	both := slices.Clone(a)
	for i := range both {
		both[i] |= b[i]
	}
	return both
}

// slots is how many slots there are claims of.
func (cs *claims) slots() (n int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for i := range claimSlotBytes {
		all := byte(0)
		for _, c := range cs.list {
			all |= c.Slots[i]
		}
		n += int64(bits.OnesCount8(all))
	}
	return n
}

// without is a less b, nil for none.
func without(a, b []byte) []byte {
	left := make([]byte, len(a))
	some := byte(0)
	for i := range a {
		left[i] = a[i] &^ b[i]
		some |= left[i]
	}
	if some == 0 {
		return nil
	}
	return left
}

// tellClaims tells nodes what they may claim after a job. It reports false when
// the job is to be done again.
func (j *handoverJob) tellClaims() bool {
	if j.claimable == nil || j.rejected {
		return true
	}
	for node, claims := range j.claims() {
		for _, c := range claims {
			if _, err := j.deliver(node, wire.Part{Protocol: wire.Claim, Body: appendClaim(nil, &c)}); err != nil {
				if j.ctx.Err() != nil || j.h.r.o.Cluster.Table() != j.table {
					return false
				}
				break // it was given up
			}
		}
	}
	return true
}

// claims are what each node may claim after a job. All was read: what has left
// meanwhile is known.
func (j *handoverJob) claims() map[int][]Claim {
	type times struct{ from, until int64 }
	type same struct {
		node int
		times
		eras string // see appendEras
	}
	sets := make(map[same]*wire.Bits)
	for slot, targets := range j.plan {
		for _, t := range targets {
			if j.lost[t.node] {
				continue
			}
			eras := make(map[times][]ClaimedEra, 1)
			j.claimable(uint16(slot), func(e ClaimedEra, from, until int64) {
				if from = max(from, t.from, j.completeFrom[slot]); from <= until {
					eras[times{from, until}] = append(eras[times{from, until}], e)
				}
			})
			for at, list := range eras {
				slices.SortFunc(list, compareEras)
				list = slices.Compact(list)
				k := same{t.node, at, string(appendEras(nil, list[:min(len(list), maxClaimEras)]))}
				if sets[k] == nil {
					sets[k] = new(wire.Bits)
				}
				sets[k].Add(slot)
			}
		}
	}
	all := make(map[int][]Claim)
	for k, set := range sets {
		all[k.node] = append(all[k.node], Claim{k.from, k.until, *set, readEras([]byte(k.eras))})
	}
	return all
}
