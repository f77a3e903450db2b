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
	shares    []share   // by node, while the request is cut
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
	naming := f.knowledge()
	f.names = f.names[:0]
	f.own = frame{flight: f, node: self, items: f.own.items[:0], copies: f.own.copies[:0], standby: f.own.standby[:0]}
	f.skip = slices.Grow(f.skip[:0], f.cut.series)[:f.cut.series]
	f.state = slices.Grow(f.state[:0], len(f.cut.items))[:len(f.cut.items)]
	f.shares = slices.Grow(f.shares[:0], n)[:n]
	f.unsettled = len(f.cut.items)
	b := block{suspects: slices.Contains(f.suspects, true)}
	for to := 0; to < len(f.cut.items); {
		b.from, to = to, min(to+blockItems, len(f.cut.items))
		f.divide(&b, to)
		for node := range f.shares {
			switch s := &f.shares[node]; {
			case s.n == 0:
			case node == self:
				f.keep(&b, s, naming)
			default:
				f.fill(&b, s, node)
			}
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

// blockItems is how many items are divided among nodes at a time. To deal with each item as
// its owners are found would have the processor guess which nodes these are, and wait
// for the table.
const blockItems = 128

// block is some items of a request that follow one another.
type block struct {
	from     int
	suspects bool                   // there are some
	series   int                    // behind the items that were divided
	broken   int                    // the last of these that cannot be told by changes
	seriesAt [blockItems]int32      // by place in the block: the number of those before
	brokenAt [blockItems]int32      // and broken
	known    [blockItems]wire.Named // room for those that go to a node by their prints
}

// share is the items of a block that go to one node: their places in it times two, and
// one more if another node is to forward the item.
type share struct {
	n     uint
	items [blockItems]uint16
}

// divide puts the items of a block, up to one, into the shares of nodes, which are empty.
func (f *flight) divide(b *block, to int) {
	shares, skip := f.shares, f.skip
	for node := range shares {
		shares[node].n = 0
	}
	items, states := f.cut.items[b.from:to], f.state[b.from:to]
	states = states[:len(items)]
	var usual state // of as many owners as the item before has
	for at := range items {
		it, s := &items[at], &states[at]
		if it.whole {
			b.broken = b.from + at
		}
		b.seriesAt[at%blockItems], b.brokenAt[at%blockItems] = int32(b.series), int32(b.broken)
		if !it.metadata {
			skip[b.series] = true
			b.series++
		}
		owners := f.table.Owners(it.slot)
		if len(owners) != int(usual.want) {
			usual = f.stateOf(len(owners))
		}
		*s = usual
		if b.suspects {
			owners = f.divert(b.from+at, s, owners)
		}
		e, copied := uint16(2*at), uint16(0)
		if s.lead == leadAsked {
			copied = 1
		}
		for _, o := range owners {
			sh := &shares[o]
			sh.items[sh.n%blockItems] = e
			sh.n++
			e |= copied // behind the first
		}
	}
}

// stateOf is that of an item which goes to its owners, of that number.
func (f *flight) stateOf(owners int) state {
	n := uint8(owners)
	s := state{want: n, out: n, tried: 1<<n - 1}
	if f.r.o.Forwards && n > 1 {
		s.lead = leadAsked
	}
	return s
}

// divert makes the state of an item that of one which may not go to all of its owners, and
// returns where it goes. While the first owner is passed over, all that get the item
// forward it.
func (f *flight) divert(k int, s *state, owners []uint16) []uint16 {
	s.tried = 0
	to := f.pass(f.cut.items[k].slot, len(owners), s)
	s.out = uint8(len(to))
	f.few = append(f.few, int32(k))
	if s.lead == leadAsked && (len(to) < 2 || to[0] != owners[0]) {
		s.lead = leadNone
	}
	return to
}

// keep takes this node's share of a block.
func (f *flight) keep(b *block, s *share, naming bool) {
	all, items, names := f.cut.items, f.own.items, f.names
	for _, e := range s.items[:s.n] {
		at := int(e / 2)
		k, series := b.from+at, int(b.seriesAt[at%blockItems])
		it := &all[k]
		if e&1 != 0 {
			f.own.copies.Add(len(items))
			if !it.metadata {
				f.own.standby.Add(series)
			}
		}
		items = append(items, int32(k))
		if it.metadata {
			continue
		}
		f.skip[series] = false
		if naming {
			names = append(names, f.cut.nameOf(k))
		}
	}
	f.own.items, f.names = items, names
}

// fill copies another node's share of a block into frames.
func (f *flight) fill(b *block, s *share, node int) {
	items := s.items[:s.n]
	if f.knowing[node] {
		if items = f.fillPrinted(b, items, node); len(items) == 0 {
			return
		}
	}
	fr := f.frames[node]
	if fr == nil {
		fr = f.newFrame(node)
	}
	for _, e := range items {
		at := int(e / 2)
		k := b.from + at
		if fr.packed {
			fr.pack(&f.cut, k, int(b.brokenAt[at]))
		} else {
			it := &f.cut.items[k]
			fr.body = append(fr.body, f.cut.body[it.from:it.to]...)
		}
		fr.add(int32(k), &f.cut, e&1 != 0)
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

// fillPrinted copies those items of a share that are known into the printed frame for a
// node. It returns the others, which take the place of all.
func (f *flight) fillPrinted(b *block, share []uint16, node int) (others []uint16) {
	others = share[:0]
	var fr *frame
	var items []int32 // of fr
	known, plain := 0, 0
	for _, e := range share {
		k := b.from + int(e/2)
		it := &f.cut.items[k]
		if !it.known {
			others = append(others, e)
			continue
		}
		if fr == nil {
			fr = f.printedFrame(node)
			items, plain = fr.items, fr.plain
		}
		if e&1 != 0 {
			fr.copies.Add(len(items))
			fr.standby.Add(len(items))
		}
		x := &b.known[known%blockItems]
		x.Print, x.Rest, x.End = f.cut.named[k], it.rest, it.end
		known++
		plain += int(it.to - it.from)
		items = append(items, int32(k))
	}
	if fr != nil {
		fr.body = wire.AppendAllPrinted(fr.body, f.cut.body, b.known[:known])
		fr.items, fr.plain, fr.series = items, plain, len(items)
	}
	return others
}

// printedFrame is the printed frame for a node, which has begun.
func (f *flight) printedFrame(node int) *frame {
	at := f.table.Nodes() + node
	if f.frames[at] == nil {
		fr := f.emptyFrame(at, node, nil)
		fr.printed = true
		const series = wire.PrintBytes + 1 + 2 + maxSample // of one sample
		f.grow(fr, len(f.cut.items)*series)
	}
	return f.frames[at]
}

// print adds a usual series to a printed frame.
func (f *frame) print(c *cutter, k int, copy bool) {
	it := &c.items[k]
	f.body = wire.AppendPrinted(f.body, c.named[k], c.body[it.rest:it.end])
	f.plain += int(it.to - it.from)
	if copy {
		f.copies.Add(len(f.items))
		f.standby.Add(f.series)
	}
	f.items = append(f.items, int32(k))
	f.series++ // which it is, and has nothing to teach
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
	n := f.cut.bytes() + cap(f.part.Body) + cap(f.state)*int(unsafe.Sizeof(state{})) + cap(f.shares)*int(unsafe.Sizeof(share{}))
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
