package route

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sync"

	"mcached/remotewrite/wire"
)

// A Claim says that a node has everything of some slots, from a time on, that was
// sent to the owners of these slots while tables held that were over by another
// time: it was handed over to it, by one that had it. Package mcache/query, in
// claims.go, has why that is sound and what it is good for.
//
// It is made when a handover has come to its end: all series of the slot, as far
// back as Window, were sent and written. Not if the node did not take something,
// if the table changed meanwhile, or if this node leaves: then it begins to send
// before all others know of the new table.
type Claim struct {
	From, Until int64 // unix ms
	Slots       []byte
}

const (
	// maxClaims bounds those that a node makes. Beyond them the oldest are forgotten.
	maxClaims = 64
	// nearClaimsMs is how far apart the times of two may be that are made one, of
	// which the least is claimed of both: several nodes hand over at once.
	nearClaimsMs = 1000
)

const (
	claimSlotBytes = slots / 8
	claimBytes     = 8 + 8 + claimSlotBytes
)

// appendClaim appends the body of a part of the protocol wire.Claim.
func appendClaim(dst []byte, c *Claim) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.From))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Until))
	dst = append(dst, c.Slots...)
	return append(dst, make([]byte, claimSlotBytes-len(c.Slots))...)
}

var errClaim = errors.New("malformed claim")

func readClaim(b []byte) (c Claim, err error) {
	if len(b) != claimBytes {
		return c, errClaim
	}
	c = Claim{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:])), slices.Clone(b[16:])}
	if c.From > c.Until {
		return c, errClaim
	}
	return c, nil
}

// claims are those of a node.
type claims struct {
	mu      sync.Mutex
	version uint64
	list    []Claim // whose Slots do not change
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
		if near(c.From, o.From) && near(c.Until, o.Until) {
			c = Claim{max(c.From, o.From), min(c.Until, o.Until), with(o.Slots, c.Slots)}
			continue
		}
		if c.From <= o.From && c.Until >= o.Until {
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
	if j.h.o.HasFrom == nil || j.rejected {
		return true
	}
	has := make(map[int]func(slot uint16) int64) // after all was read: what has left meanwhile is known
	byNode := make(map[int]map[int64]*wire.Bits)
	for slot, nodes := range j.plan {
		for _, node := range nodes {
			if has[node] == nil {
				id, _ := j.table.Node(node)
				has[node] = j.h.o.HasFrom(j.from, j.until, id)
			}
			from := max(has[node](slot), j.completeFrom[slot])
			if j.lost[node] || from > j.until {
				continue
			}
			if byNode[node] == nil {
				byNode[node] = make(map[int64]*wire.Bits)
			}
			if byNode[node][from] == nil {
				byNode[node][from] = new(wire.Bits)
			}
			byNode[node][from].Add(int(slot))
		}
	}
	for node, claims := range byNode {
		for from, slots := range claims {
			c := Claim{from, j.until, *slots}
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
