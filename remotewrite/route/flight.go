package route

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"
	"unsafe"

	"mcached/remotewrite/wire"
)

// flight is a request from when it is cut until the last of its frames has an
// end. The request's goroutine holds a reference, and each frame another; who
// gives back the last one ends it.
type flight struct {
	r     *Router
	ready chan struct{} // has room for one: all items are settled

	// Fixed until the flight ends:
	cut   cutter
	part  wire.Part // its Body is that of cut
	body  []byte    // the same, once it is the flight's own
	spare []byte    // what a request gets for its body
	table Table
	boxes *boxes
	loan  Loan
	need  int          // acknowledgements
	own   frame        // items of this node, which lie in the request
	skip  []bool       // by series: it is none of them
	names []wire.Named // of those series that are not skipped, or none

	mu        sync.Mutex
	refs      int
	state     []state // by item
	unsettled int
	frames    []*frame // by node, while the request or a frame is cut, then printed ones by node
	knowing   []bool   // by node: it takes prints
	order     []uint16
	chosen    []uint16
	suspects  []bool    // by node, as of the last cut
	fetched   uint16    // see fetchOwners
	begin     []*outbox // that something was put into, until unlock
	answers   int       // of nodes that took or judged a frame, and how many of them
	wholes    int       // were that nothing of it can be taken
	whole     wire.Answer
	reasons   []string
	losses    map[int32]loss // by item; nil without any
	few       []int32        // items that not all owners may have, until tellPassed
	retry     string         // why a node did not take something
	after     time.Duration
}

// state is where an item stands.
type state struct {
	tried   uint32 // places of its slot's order
	failed  uint32 // those of them that did not take it
	acks    uint8  // nodes that have all of it
	out     uint8  // nodes that have yet to answer
	judged  uint8  // nodes that answered that they will not take all of it
	want    uint8  // how many should have it
	lead    lead   // whether a node has it that forwards it
	again   uint8  // how often a node that has it was asked to forward it
	settled bool
}

// lead is what is known of the node that forwards an item.
type lead uint8

const (
	leadNone   lead = iota // each node that has it does, if it does at all
	leadAsked              // one is to
	leadChosen             // one has it and will
)

// loss is the least that was lost of an item.
type loss struct{ wire.Elements }

// release gives back a reference.
func (f *flight) release() {
	f.mu.Lock()
	f.refs--
	last := f.refs == 0
	f.mu.Unlock()
	if last {
		f.end()
	}
}

// keepItems is how many items a flight that is kept for the next may have had.
const keepItems = 64 << 10

func (f *flight) end() {
	if f.loan != nil {
		f.loan.Release()
	}
	r := f.r
	f.part, f.table, f.boxes, f.loan = wire.Part{}, nil, nil, nil
	f.cut.reset()
	if f.body != nil {
		poison(f.body)
		if f.spare = f.body[:0]; cap(f.spare) > keepFrameBytes {
			f.spare = nil
		}
		f.body = nil
	}
	f.reasons, f.losses, f.retry, f.after, f.whole = nil, nil, "", 0, wire.Answer{}
	f.answers, f.wholes = 0, 0
	select {
	case <-f.ready:
	default:
	}
	if cap(f.cut.items)+cap(f.cut.symbols) <= 3*keepItems && cap(f.cut.spell) <= keepFrameBytes {
		r.flights.Put(f)
	}
}

// fly does all that Route says, for a request that was cut.
func (f *flight) fly(ctx context.Context, p wire.Part, t Table, own own) wire.Answer {
	f.part, f.table, f.boxes = p, t, f.r.outboxes(t)
	f.need = min(f.r.o.Acks, t.Nodes())
	f.assign()
	if err := f.borrow(); err != nil {
		f.drop()
		var later interface {
			RetryAfter() (after time.Duration, ok bool)
		}
		if errors.As(err, &later) {
			if after, ok := later.RetryAfter(); ok {
				return wire.Answer{Status: http.StatusServiceUnavailable, Retry: err.Error(), RetryAfter: after}
			}
		}
		return own.store(nil, nil, nil) // it will never be sent on
	}
	f.launch()
	if len(f.own.items) > 0 {
		f.storeOwn(own)
	}
	f.body = p.Body
	own.done(f.spare)
	f.spare = nil
	select {
	case <-f.ready:
	case <-ctx.Done():
	}
	return f.outcome()
}

// assign says who gets each item, and copies what others get into frames.
func (f *flight) assign() {
	n, self := f.table.Nodes(), f.table.Self()
	f.look(n)
	any := slices.Contains(f.suspects, true)
	naming := f.knowledge()
	f.names = f.names[:0]
	f.own = frame{flight: f, node: self, items: f.own.items[:0], copies: f.own.copies[:0], standby: f.own.standby[:0]}
	f.skip = slices.Grow(f.skip[:0], f.cut.series)[:f.cut.series]
	f.state = slices.Grow(f.state[:0], len(f.cut.items))[:len(f.cut.items)]
	f.unsettled = len(f.cut.items)
	broken := 0 // the last item that cannot be told by changes
	series := 0 // up to the item
	var ahead [ownersAhead][]uint16
	for k := range f.cut.items {
		if k%ownersAhead == 0 {
			f.fetchOwners(f.cut.items[k:min(k+ownersAhead, len(f.cut.items))], &ahead)
		}
		it, s := &f.cut.items[k], &f.state[k]
		if it.whole {
			broken = k
		}
		owners := ahead[k%ownersAhead]
		want := uint8(len(owners))
		// While the first owner is passed over, all that get the item forward it.
		led := f.r.o.Forwards && want > 1
		if !any {
			*s = state{want: want, out: want, tried: 1<<want - 1}
		} else {
			first := owners
			*s = state{want: want}
			owners = f.pass(it.slot, len(owners), s)
			s.out = uint8(len(owners))
			f.few = append(f.few, int32(k))
			led = led && len(owners) > 1 && owners[0] == first[0]
		}
		if led {
			s.lead = leadAsked
		}
		mine := false
		for i, o := range owners {
			if int(o) == self {
				mine = true
				f.own.items = append(f.own.items, int32(k))
				if led && i > 0 {
					f.own.copies.Add(len(f.own.items) - 1)
					if !it.metadata {
						f.own.standby.Add(series)
					}
				}
				continue
			}
			if it.known && f.knowing[o] {
				f.print(int(o), k, led && i > 0)
				continue
			}
			fr := f.frames[o]
			if fr == nil {
				fr = f.newFrame(int(o))
			}
			if fr.packed {
				fr.pack(&f.cut, k, broken)
			} else {
				fr.body = append(fr.body, f.cut.body[it.from:it.to]...)
			}
			fr.add(int32(k), &f.cut, led && i > 0)
		}
		if !it.metadata {
			if mine && naming {
				f.names = append(f.names, f.cut.nameOf(k))
			}
			f.skip[series] = !mine
			series++
		}
	}
	f.tellPassed(f.few)
	f.few = f.few[:0]
	for _, fr := range f.frames {
		if fr != nil {
			fr.seal()
		}
	}
}

// ownersAhead is how many items' owners are looked up at a time.
const ownersAhead = 32

// fetchOwners has the processor fetch what the table says of items, all at once. Slots
// follow one another at random, and each owner decides where to go on: to look them up one
// by one was half of what assign took.
func (f *flight) fetchOwners(items []item, to *[ownersAhead][]uint16) {
	for k := range items {
		to[k] = f.table.Owners(items[k].slot)
		if owners := to[k]; len(owners) > 0 { // the others lie beside the first
			f.fetched ^= owners[0]
		}
	}
}

// newFrame begins the frame of the request for a node.
func (f *flight) newFrame(node int) *frame {
	packed := f.part.Protocol == wire.V1 && f.boxes.by[node].packs.Load()
	head := f.cut.head
	if packed {
		head = make([]byte, wire.PackedHeadBytes) // of which seal takes care
	}
	fr := f.emptyFrame(node, node, head)
	fr.packed, fr.last = packed, none
	bytes := len(f.cut.body) - len(head)
	if packed {
		bytes /= 3
	}
	f.grow(fr, bytes)
	return fr
}

// grow makes room in a new frame for what it gets of so many bytes if all nodes get as
// much, and then some.
func (f *flight) grow(fr *frame, bytes int) {
	if cap(fr.items) == 0 {
		part := func(n int) int { return n * len(f.table.Owners(0)) / f.table.Nodes() * 9 / 8 }
		fr.items, fr.body = make([]int32, 0, part(len(f.cut.items))), slices.Grow(fr.body, part(bytes))
	}
}

// print adds a usual series to the printed frame for a node.
func (f *flight) print(node, k int, copy bool) {
	at := f.table.Nodes() + node
	fr := f.frames[at]
	if fr == nil {
		fr = f.emptyFrame(at, node, nil)
		fr.printed = true
		const series = wire.PrintBytes + 1 + 2 + maxSample // of one sample
		f.grow(fr, len(f.cut.items)*series)
	}
	it := &f.cut.items[k]
	fr.body = wire.AppendPrinted(fr.body, f.cut.named[k], f.cut.body[it.rest:it.end])
	fr.plain += int(it.to - it.from)
	if copy {
		fr.copies.Add(len(fr.items))
		fr.standby.Add(fr.series)
	}
	fr.items = append(fr.items, int32(k))
	fr.series++ // which it is, and has nothing to teach
}

// emptyFrame begins a frame for a node with what is before its items, at a place of
// frames.
func (f *flight) emptyFrame(at, node int, head []byte) *frame {
	fr := f.r.frames.Get().(*frame)
	fr.flight, fr.node, fr.teaches = f, node, at == node && f.knowing[node]
	fr.body = append(fr.body[:0], head...)
	f.frames[at] = fr
	return fr
}

// add notes an item that was copied into the frame; its node is to forward it unless it
// is a copy.
func (f *frame) add(k int32, c *cutter, copy bool) {
	it := &c.items[k]
	f.plain += int(it.to - it.from)
	if copy {
		f.copies.Add(len(f.items))
	}
	f.items = append(f.items, k)
	if !it.metadata {
		if copy {
			f.standby.Add(f.series)
		}
		f.series++
		if f.teaches {
			f.prints = wire.AppendPrint(f.prints, c.teaching(k))
		}
	}
}

// look notes who is suspect.
func (f *flight) look(nodes int) {
	f.suspects, f.frames = f.suspects[:0], f.frames[:0]
	for i := range nodes {
		f.suspects = append(f.suspects, i != f.table.Self() && f.r.o.Cluster.Suspected(f.boxes.by[i].id))
		f.frames = append(f.frames, nil, nil)
	}
}

// knowledge notes who takes prints, and which items are known. It reports whether any
// node does.
func (f *flight) knowledge() bool {
	f.knowing = f.knowing[:0]
	printing := false
	for _, o := range f.boxes.by {
		knows := f.cut.prints != nil && o.knows.ask()
		f.knowing = append(f.knowing, knows)
		printing = printing || knows
	}
	if printing {
		f.r.seen.know(&f.cut)
	}
	return printing
}

// pass is the first n of a slot's order that are not suspect; suspects are
// among them only if there would be too few for the acknowledgements. It is
// valid until the next call.
func (f *flight) pass(slot uint16, n int, s *state) []uint16 {
	order := f.orderOf(slot)
	f.chosen = f.chosen[:0]
	for i, o := range order {
		if len(f.chosen) == n {
			return f.chosen
		}
		if !f.suspects[o] {
			s.tried |= 1 << i
			f.chosen = append(f.chosen, o)
		}
	}
	for i, o := range order {
		if len(f.chosen) >= f.need {
			break
		}
		if s.tried&(1<<i) == 0 {
			s.tried |= 1 << i
			f.chosen = append(f.chosen, o)
		}
	}
	return f.chosen
}

// orderOf is as much of a slot's order as can be tried.
func (f *flight) orderOf(slot uint16) []uint16 {
	f.order = f.table.Order(slot, f.order[:0])
	return f.order[:min(len(f.order), maxOrder)]
}

// copyTo adds an item of a frame that was not taken to the frame for a node,
// which is to forward it unless it is a copy.
func (f *flight) copyTo(node int, k int32, head, item []byte, copy bool) {
	fr := f.frames[node]
	if fr == nil {
		fr = f.emptyFrame(node, node, head)
	}
	fr.unpack() // one that was not launched yet
	fr.body = append(fr.body, item...)
	fr.add(k, &f.cut, copy)
}

// borrow asks admission for what the flight holds.
func (f *flight) borrow() error {
	if f.r.o.Admission == nil {
		return nil
	}
	n := f.cut.bytes() + cap(f.part.Body) + cap(f.state)*int(unsafe.Sizeof(state{}))
	for _, fr := range f.frames {
		if fr != nil {
			n += max(cap(fr.body), fr.plain) + cap(fr.items)*4 + cap(fr.copies) + cap(fr.standby) + cap(fr.prints)
		}
	}
	f.loan = f.r.o.Admission()
	return f.loan.Try(int64(n))
}

// drop gives up frames that were not sent.
func (f *flight) drop() {
	for i, fr := range f.frames {
		if fr != nil {
			f.r.putBack(fr)
			f.frames[i] = nil
		}
	}
}

// launch puts the frames into outboxes.
func (f *flight) launch() {
	f.mu.Lock()
	f.launchLocked()
	if f.unsettled == 0 { // nothing in it
		f.tellLocked()
	}
	f.unlock()
}

// unlock lets go of mu, and has what was put into outboxes sent: what of a request goes
// to one node goes in one bundle.
func (f *flight) unlock() {
	var room [8]*outbox
	begin := append(room[:0], f.begin...)
	f.begin = f.begin[:0]
	f.mu.Unlock()
	for _, o := range begin {
		o.begin()
	}
}

var errOutbox = errors.New("more than may wait is on its way to it")

func (f *flight) launchLocked() {
	for again := true; again; {
		again = false
		for i, fr := range f.frames {
			if fr == nil {
				continue
			}
			f.frames[i] = nil
			f.refs++
			f.r.counters.items.Add(uint64(len(fr.items)))
			o := f.boxes.by[fr.node]
			if o.put(fr) {
				f.begin = append(f.begin, o)
				continue
			}
			f.refs--
			f.r.counters.fullOutboxes.Add(1)
			o.suspect(errOutbox)
			for _, k := range fr.items {
				f.state[k].out--
			}
			f.retryTextLocked(errOutbox.Error(), 0)
			f.redirectLocked(fr)
			f.settleLocked(fr.items)
			f.r.putBack(fr)
			again = true
		}
	}
}

// storeOwn has this node's items written. If it has no room for them, others may.
func (f *flight) storeOwn(own own) {
	skip := f.skip
	if !slices.Contains(skip, true) {
		skip = nil
	}
	a := own.store(skip, f.own.standby, f.names)
	f.mu.Lock()
	f.judgeLocked(&a, &f.own)
	f.unlock()
}

// eachLocked calls do for each item of a frame, with its bytes and those that
// frames with it begin with, and whether it is a copy.
func (f *flight) eachLocked(fr *frame, do func(k int32, head, item []byte, copy bool)) {
	for i, k := range fr.items {
		it := &f.cut.items[k]
		do(k, f.cut.head, f.cut.body[it.from:it.to], fr.copies.Has(i))
	}
}

// maxReasons of an answer, as many as one node gives.
const maxReasons = 5

// maxAgain bounds how often nodes that were sent an item before are asked to forward it.
const maxAgain = 4
