package route

import (
	"unsafe"

	"mcached/remotewrite/wire"
)

// Hash gives the slot of a series: that of the sum of its bucket and its pairs
// of name and value, whose order does not matter. It is safe for concurrent use
// and keeps no string.
type Hash interface {
	Bucket(bucket string) uint64
	Pair(name, value string) uint64
	Slot(sum uint64) uint16
}

// Prints are 128-bit hashes of series that are the same at all nodes which have the same
// Check: sums as those of Hash. Strangers cannot make two series of one print. It is safe
// for concurrent use and keeps no string.
type Prints interface {
	Check() string
	BucketPrint(bucket string) (a, b uint64)
	// Name hashes a name for Pair, which gives what Hash.Pair does, too.
	Name(name string) (a, b uint64, kind uint8)
	Pair(nameA, nameB uint64, kind uint8, value string) (slot, a, b uint64)
}

// sums are those of a slot and of a print, or what a pair adds to them.
type sums struct {
	slot  uint64
	print wire.Print
}

func (s *sums) add(o *sums) {
	s.slot += o.slot
	s.print.A += o.print.A
	s.print.B += o.print.B
}

func (s *sums) remove(o *sums) {
	s.slot -= o.slot
	s.print.A -= o.print.A
	s.print.B -= o.print.B
}

// item is what has owners: a series, or the metadata of a metric.
type item struct {
	from, to uint32 // in the body, with tag and length
	inner    uint32 // where the message in it begins
	rest     uint32 // and where it goes on behind its labels; protocol 2.0: if usual
	end      uint32 // of the samples of one that is usual
	changes  uint32 // how many changes the items up to it have
	slot     uint16
	metadata bool
	whole    bool   // it cannot be told by changes
	known    bool   // and it was sent before
	usual    bool   // a series of labels with values, short samples, and metadata of the metric
	about    uint64 // a hash of that metadata; 0: there is none
}

// piece is a part of the body.
type piece struct{ from, to uint32 }

// nameHash is a label's name with what Prints make of it.
type nameHash struct {
	text string // in the body
	set  bool
	a, b uint64
	kind uint8
}

// cutter finds the items of a request and their slots. It is used again for
// the next request, and belongs to one at a time.
type cutter struct {
	hash                  Hash
	prints                Prints // nil: there are none
	maxSeries, maxSymbols int
	body                  []byte
	bucket                sums
	odd                   bool // a label without a value has come: no series is usual any more
	items                 []item
	named                 []wire.Print  // of items, if there are prints
	name                  nameHash      // of the label that was hashed last
	meta                  []byte        // the Metadata message that came last
	about                 uint64        // see item
	series                int           // how many of items are that
	sent                  wire.Elements // of all series
	symbols               []piece
	head                  []byte // of every frame: all symbols, of the body or in spell
	spell                 []byte
	before                labels
	changes               []change
	refs                  []uint32
}

// reset forgets the request before.
func (c *cutter) reset() {
	c.body, c.head, c.meta, c.name = nil, nil, nil, nameHash{}
	c.items, c.symbols, c.changes, c.named = c.items[:0], c.symbols[:0], c.changes[:0], c.named[:0]
	c.series, c.sent, c.odd = 0, wire.Elements{}, false
	c.before.forget()
}

// bytes is what the tables take.
func (c *cutter) bytes() int {
	return cap(c.items)*int(unsafe.Sizeof(item{})) + cap(c.symbols)*int(unsafe.Sizeof(piece{})) +
		cap(c.changes)*int(unsafe.Sizeof(change{})) + cap(c.spell) + cap(c.named)*wire.PrintBytes
}

// scan finds items and slots. It reports false if the request is malformed or
// holds more than it may: a decoder will say so in better words. It looks no
// deeper than labels: what else is wrong with a series is seen where it is
// stored.
func (c *cutter) scan(p wire.Part) bool {
	c.reset()
	c.body, c.bucket = p.Body, sums{slot: c.hash.Bucket(p.Bucket)}
	if c.prints != nil {
		c.bucket.print.A, c.bucket.print.B = c.prints.BucketPrint(p.Bucket)
	}
	ok := false
	if p.Protocol == wire.V1 {
		ok = c.scanV1()
	} else {
		ok = c.scanV2()
	}
	return ok && c.sent.Samples+c.sent.Histograms+c.sent.Exemplars <= p.MaxSamples
}

// add adds an item, which lies at from to to and has its message at inner. It is
// nil if there are too many. It is valid until the next is added.
func (c *cutter) add(from, inner, to int) *item {
	n := len(c.items)
	if n >= c.maxSeries {
		return nil
	}
	c.items = append(c.items, item{from: uint32(from), inner: uint32(inner), to: uint32(to)})
	return &c.items[n]
}

// place gives an item, the next that has none, its slot and print.
func (c *cutter) place(it *item, sum *sums) {
	it.slot = c.hash.Slot(c.bucket.slot + sum.slot)
	if c.prints != nil {
		c.named = append(c.named, wire.Print{A: c.bucket.print.A + sum.print.A, B: c.bucket.print.B + sum.print.B})
	}
}

// teaching is the print of an item for its receiver to learn: zero for one that will not
// be asked for by it.
func (c *cutter) teaching(k int32) wire.Print {
	if !c.items[k].usual {
		return wire.Print{}
	}
	return c.named[k]
}

// maxSample is what a sample has of value and time.
const maxSample = 1 + 8 + 1 + 10

// pairHash is 0 for a label without a value, which is none.
func (c *cutter) pairHash(name, value []byte) (h sums) {
	if len(value) == 0 {
		c.odd = true
		return h
	}
	n := &c.name
	if c.prints == nil {
		n.text, n.set = wire.View(name), true
		h.slot = c.hash.Pair(n.text, wire.View(value))
		return h
	}
	if !n.set || string(name) != n.text { // a label that changes mostly has another value only
		n.text, n.set = wire.View(name), true
		n.a, n.b, n.kind = c.prints.Name(n.text)
	}
	h.slot, h.print.A, h.print.B = c.prints.Pair(n.a, n.b, n.kind, wire.View(value))
	return h
}

// pairOf is the hash of a name, of which pairHash has made n, and a value.
func (c *cutter) pairOf(n *nameHash, value []byte) (h sums) {
	if c.prints == nil {
		h.slot = c.hash.Pair(n.text, wire.View(value))
		return h
	}
	h.slot, h.print.A, h.print.B = c.prints.Pair(n.a, n.b, n.kind, wire.View(value))
	return h
}
