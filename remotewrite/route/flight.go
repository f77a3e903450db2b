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
	f.need = f.r.o.Acks
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
