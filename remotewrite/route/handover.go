package route

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mcached/remotewrite/send"
)

// When the table changes, slots have owners that do not have what was written
// before: a node that joined, or the heir of one that left or was lost. A
// Handover has those who have it send the newest of it on. One rule serves all
// three:
//
//	Of each slot, the first of the owners before that is there still, and does
//	not leave unless it is alone, sends what it has to those owners of now that
//	were none before.
//
// All nodes make the same table of the same members, so that exactly one sends,
// and nobody has to ask. Newest first: what is not sealed of all series, the last
// minutes mostly, then what was before, as far as Window goes, because the newest is asked
// for most and nobody knows how much time there is. A bounded rate keeps it out of the way
// of writers and readers; a node that leaves knows no rate.
//
// What is sealed is handed over as it lies, in the blocks of the cache (wire.Blocks): the
// one who sends it decodes nothing, and its heir takes a block where it is. It takes a
// tenth of the time, and of the bytes, that samples take, so that a drain of a full hour
// fits into what Kubernetes gives a pod to end. A cut of time goes through blocks: rather
// than to encode half of one anew, all of it is sent. That is why "newest" is what is not
// sealed, and not some minutes: no block belongs to both. Samples are sealed meanwhile,
// so that some are sent twice; none is left out. Nodes of before, and who missed but an
// era, are sent samples.
//
// Owners may have been others for a moment, at one node or at all: a member was
// taken for dead or was passed over, the network was cut. The cluster remembers
// that as eras. Of each the same rule holds, but only what has times of the era, and
// of some minutes before, is sent to those who missed it. The rest is read where it lies,
// as long as that node is there: when it leaves, it sends that as well (drainPlan).
//
// What is sent are requests of protocol 2.0 in bundles of one part, that a node
// writes as it writes all: the same checks, limits, labels and answers. Writes are
// idempotent, so whatever is in doubt is sent again. Nodes may see changes in another
// order for a moment, and a second change may come while the first is worked off: it
// is then worked off together with it, against the last table that was done with.
// What can go wrong is that a slot is sent twice, or that a copy is not made before
// the next change; it is never that something is removed. Old owners keep what they
// have until it is evicted, and reads ask all.
//
// Nobody forwards what is handed over: who hands it over has forwarded it, or does
// (standby.go). If he dies before, with all that have had it, the store lacks it.
//
// Who was handed over all of a slot may claim it (claims.go).
//
// Exemplars, of which only the latest are kept in any case, are not handed over.

// Holdings is what this node has.
type Holdings interface {
	// Newest calls f for every series of a slot that want says, until f reports false,
	// with what is newest of it: samples that are not sealed in blocks yet, and of a series
	// that has more than samples all that is at or after recent. What is before from is
	// left out, both unix ms. What f gets is valid until it returns.
	// completeFrom is from when on, in ms, the node lacks nothing of a series; one
	// that lacks something may have no points.
	Newest(from, recent int64, want func(slot uint16) bool, f func(bucket string, slot uint16, completeFrom int64, s send.Series) bool)
	// Rest is Newest for what Newest leaves out, and maybe more: blocks that reach beyond
	// from, whole, or samples and records at or after it.
	Rest(from int64, want func(slot uint16) bool, f func(bucket string, slot uint16, completeFrom int64, s send.Series) bool)
}

// HandoverOptions configure a Handover. The zero value of a field means its default.
type HandoverOptions struct {
	Holdings Holdings // required
	// Leaving reports whether a node of a table is about to go. Required.
	Leaving func(t Table, node int) bool
	// Began is when a node of a table was started, in unix ms. Default: long ago.
	Began func(t Table, node int) int64
	// Window is how much of the newest data is handed over. Default 1 hour.
	Window time.Duration
	// BytesPerSecond bounds what is sent. Default 16 MiB.
	BytesPerSecond int
	// Claimable tells, of a slot, from when on this node has everything that was sent
	// in eras that ended by a time, no further back than from. Nodes to which all of a
	// slot was handed over may claim the same, and are told (claims.go). It is called
	// before anything is read, at the time until, since what is handed over to this
	// node meanwhile may have been passed by; what it returns is called afterwards, when it is known
	// what has been lost meanwhile. Default: nothing is claimed.
	Claimable func(from, until int64) func(slot uint16, tell func(e ClaimedEra, from, until int64))
	// Eras are those that lasted at a time, in ms, or began later, and are over:
	// of this node's tables, and of what others say. Default: only this node's
	// tables are known, when they are seen.
	Eras func(since int64) []Era
	// Settle is how long the table must have been the same before anything is
	// sent: several nodes may come at once, and others may hear of it later and
	// write by the one before. Default 4 s.
	Settle time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

const (
	slots = 1 << 14 // of a table

	// handoverBytes is about how much goes in one request, and handoverMemory how
	// much is gathered for all nodes together: of many nodes each is sent less at a time.
	handoverBytes  = 512 << 10
	handoverMemory = 16 << 20
	// handoverTimeout is how long one may take, and handoverTries how often it
	// is sent before the node is given up until the next change.
	handoverTimeout = 10 * time.Second
	handoverTries   = 8
	handoverFloods  = 100                    // times that it has too many new series for now
	handoverPause   = 250 * time.Millisecond // doubled with each try, up to 8 times
	handoverRecent  = 5 * time.Minute        // of what has more than samples, what is newest
	handoverPoll    = 100 * time.Millisecond
	handoverLook    = time.Second // between two looks for eras that others told of
	// drainRest is how long who reads may not know of claims that were just told.
	drainRest = 1200 * time.Millisecond

	// Who missed an era is sent what has times of it, and of lateMs before its
	// beginning: samples may have come out of order.
	lateMs = 300_000
	// eraLagMs is for how long after its end an era may still have been written in.
	eraLagMs = 2000
)

// Era is a time in which tables had the same owners.
type Era struct {
	ID          uint64 // of these owners
	From, Until int64  // unix ms
	Table       func() Table
}

// Handover sends what other nodes come to own. It belongs to a Router.
type Handover struct {
	r *Router
	o HandoverOptions

	began int64 // unix ms

	mu   sync.Mutex       // a job at a time
	base Table            // all that followed from it is done; see setBase
	done map[uint64]int64 // by the number of an era: until when all that followed from it is done, unix ms

	served atomic.Pointer[map[string]bool] // ids of base's nodes; nil before there is one

	slots, samples, bytes, failed atomic.Int64
}

// NewHandover returns one that knows of no table before the present one.
func (r *Router) NewHandover(o HandoverOptions) (*Handover, error) {
	if o.Holdings == nil || o.Leaving == nil {
		return nil, errors.New("route: Holdings and Leaving are required")
	}
	o.Window = cmp.Or(o.Window, time.Hour)
	o.BytesPerSecond = cmp.Or(o.BytesPerSecond, 16<<20)
	o.Settle = cmp.Or(o.Settle, 4*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Began == nil {
		o.Began = func(Table, int) int64 { return math.MinInt64 }
	}
	return &Handover{r: r, o: o, began: o.Now().UnixMilli(), done: make(map[uint64]int64)}, nil
}

// Run hands over what each change of the table asks for, until ctx ends.
func (h *Handover) Run(ctx context.Context) error {
	tick := time.NewTicker(handoverPoll)
	defer tick.Stop()
	seen, since := h.r.o.Cluster.Table(), time.Now()
	looked := since
	h.mu.Lock()
	h.setBaseLocked(seen)
	h.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if t := h.r.o.Cluster.Table(); t != seen {
			seen, since = t, time.Now()
		}
		h.mu.Lock()
		if time.Since(since) >= h.o.Settle && (seen != h.base || time.Since(looked) >= handoverLook && len(h.pending(h.o.Settle)) > 0) {
			h.job(ctx, seen, h.o.BytesPerSecond)
			looked = time.Now()
		}
		h.mu.Unlock()
	}
}

// Drain hands over what the present table asks for: that of a node that leaves. It
// waits until nobody writes to this one by an earlier table any more, and in the end
// until who asks for claims has asked again. It reports whether all was sent before
// ctx ended.
func (h *Handover) Drain(ctx context.Context) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		t := h.r.o.Cluster.Table()
		if h.base == nil || t == h.base || len(h.drainPlan(t, h.pending(0))) == 0 {
			return true
		}
		if !sleep(ctx, min(h.o.Settle, eraLagMs*time.Millisecond)) {
			return false
		}
		if h.job(ctx, h.r.o.Cluster.Table(), 0) {
			return sleep(ctx, min(h.o.Settle, drainRest))
		}
		if ctx.Err() != nil {
			return false
		}
	}
}

func (h *Handover) setBaseLocked(t Table) {
	h.base = t
	if t == nil {
		return
	}
	ids := make(map[string]bool, t.Nodes())
	for i := range t.Nodes() {
		id, _ := t.Node(i)
		ids[id] = true
	}
	h.served.Store(&ids)
}

// Owes reports whether this node may yet send another, by its id, what that owns
// since it joined. Of a node that it has not heard of it may.
func (h *Handover) Owes(id string) bool {
	served := h.served.Load()
	return served == nil || !(*served)[id]
}

// HandoverStats are counters.
type HandoverStats struct {
	Slots   int64 // that this node has yet to send, now
	Samples int64 // sent and written
	Bytes   int64
	Failed  int64 // samples that a node did not take
	Claimed int64 // slots of which all was handed over to this node
}

// SlotOf is the slot of a series.
func (r *Router) SlotOf(bucket string, s *send.Series) uint16 {
	sum := r.o.Hash.Bucket(bucket)
	for _, l := range s.Labels {
		if l.Value != "" {
			sum += r.o.Hash.Pair(l.Name, l.Value)
		}
	}
	return r.o.Hash.Slot(sum)
}

// Stats reads the counters.
func (h *Handover) Stats() HandoverStats {
	return HandoverStats{h.slots.Load(), h.samples.Load(), h.bytes.Load(), h.failed.Load(), h.r.claims.slots()}
}

// job sends what follows from base's becoming t, and from eras that came and went,
// with mu held. It ends early with ctx, or when the table is another again.
func (h *Handover) job(ctx context.Context, t Table, bytesPerSecond int) (done bool) {
	now := h.o.Now()
	settle, planOf := h.o.Settle, h.planOf
	if bytesPerSecond == 0 {
		settle, planOf = 0, h.drainPlan
	}
	pending := h.pending(settle)
	plan := planOf(t, pending)
	h.slots.Store(int64(len(plan)))
	defer h.slots.Store(0)
	if len(plan) > 0 {
		j := &handoverJob{h: h, ctx: ctx, table: t, plan: make([][]target, slots), perSecond: bytesPerSecond, began: time.Now(), lost: make(map[int]bool),
			batches: make(map[int]*batch), takes: make(map[int]bool), batchBytes: min(handoverBytes, handoverMemory/t.Nodes()), completeFrom: make([]int64, slots)}
		for slot, targets := range plan {
			j.plan[slot] = targets
		}
		j.from, j.until = now.Add(-h.o.Window).UnixMilli(), now.UnixMilli()
		if h.o.Claimable != nil {
			j.claimable = h.o.Claimable(j.from, j.until)
		}
		if !j.run() || !j.tellClaims() {
			return false // and again, with the table of then
		}
		h.r.o.Logger.Info("Handed over what other nodes own now.", "slots", len(plan), "samples", j.sent, "took", time.Since(j.began).Round(time.Millisecond))
	}
	h.setBaseLocked(t)
	for _, e := range pending {
		h.done[e.ID] = now.UnixMilli()
	}
	for id, at := range h.done {
		if at < now.Add(-h.o.Window).UnixMilli()-lateMs {
			delete(h.done, id)
		}
	}
	return true
}

// pending are the eras that have been over for a while, and of which not all that
// follows is done.
func (h *Handover) pending(settle time.Duration) (list []Era) {
	if h.o.Eras == nil {
		return nil
	}
	now := h.o.Now()
	from := now.Add(-h.o.Window).UnixMilli()
	if h.began <= now.UnixMilli() { // or the clock was set back since, as below
		from = max(from, h.began)
	}
	for _, e := range h.o.Eras(from) {
		if at, ok := h.done[e.ID]; e.Until+settle.Milliseconds() <= now.UnixMilli() && (!ok || at < e.Until+eraLagMs || at > now.UnixMilli()) {
			list = append(list, e)
		}
	}
	return list
}

// target is a node that is sent a slot, and from when on, in unix ms.
type target struct {
	node int
	from int64
}

// planOf says to whom this node sends each slot. Who owns something that it did not
// own in base is sent all. Who missed an era that came and went since is sent what is
// of it: it has the rest, or is sent that by those who owned the slot in base.
func (h *Handover) planOf(t Table, eras []Era) map[uint16][]target {
	all := make(map[uint16][]target)
	addTargets(all, h.plan(h.base, t), math.MinInt64)
	for _, e := range eras {
		addTargets(all, h.plan(e.Table(), t), e.From-lateMs)
	}
	return all
}

// drainPlan is planOf for a node that leaves. What it took alone in place of nodes that were
// passed over it gives them, whatever the times in it are: they were sent what was new
// then, and asked it for the rest. Who was not there yet has been sent all when it came.
func (h *Handover) drainPlan(t Table, pending []Era) map[uint16][]target {
	all := h.planOf(t, pending)
	if h.o.Eras == nil {
		return all
	}
	last := make(map[uint64]Era) // of the same owners
	for _, e := range h.o.Eras(h.o.Now().Add(-h.o.Window).UnixMilli()) {
		if o, ok := last[e.ID]; !ok || o.From < e.From {
			last[e.ID] = e
		}
	}
	for _, e := range last {
		plan := h.plan(e.Table(), t)
		for slot, nodes := range plan {
			plan[slot] = slices.DeleteFunc(nodes, func(n int) bool { return h.o.Began(t, n) > e.From })
		}
		addTargets(all, plan, math.MinInt64)
	}
	return all
}

// addTargets adds the nodes that a plan sends slots to, with what is at or after from.
func addTargets(all map[uint16][]target, plan map[uint16][]int, from int64) {
	for slot, nodes := range plan {
		for _, n := range nodes {
			if i := slices.IndexFunc(all[slot], func(x target) bool { return x.node == n }); i >= 0 {
				all[slot][i].from = min(all[slot][i].from, from)
				continue
			}
			all[slot] = append(all[slot], target{n, from})
		}
	}
}

// plan says to whom this node sends each slot because owners were those of base.
func (h *Handover) plan(base, t Table) map[uint16][]int {
	plan := make(map[uint16][]int)
	if base == nil || base.Nodes() == 0 || t.Nodes() == 0 || t.Self() < 0 {
		return plan
	}
	now := make(map[string]int, t.Nodes())
	for i := range t.Nodes() {
		id, _ := t.Node(i)
		now[id] = i
	}
	place := make([]int, base.Nodes()) // in t, of those of base; -1 if gone
	for i := range place {
		id, _ := base.Node(i)
		place[i] = -1
		if k, ok := now[id]; ok {
			place[i] = k
		}
	}
	var before []int
	for slot := range slots {
		before = before[:0]
		for _, o := range base.Owners(uint16(slot)) {
			if p := place[o]; p >= 0 {
				before = append(before, p)
			}
		}
		if len(before) == 0 {
			continue
		}
		sender := before[0]
		if i := slices.IndexFunc(before, func(p int) bool { return !h.o.Leaving(t, p) }); i >= 0 {
			sender = before[i]
		}
		if sender != t.Self() {
			continue
		}
		for _, o := range t.Owners(uint16(slot)) {
			if !slices.Contains(before, int(o)) {
				plan[uint16(slot)] = append(plan[uint16(slot)], int(o))
			}
		}
	}
	return plan
}
