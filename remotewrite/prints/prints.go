// Package prints remembers series by their prints (wire.Print), and with each of them
// what its owner likes.
//
// # The problem
//
// A node of a cluster looks up each series that it sends or is sent. A table of half a
// million of them is in no cache of the processor, and to look into it at random costs
// more than to hash the labels: 100 to 250 ns, of which most is finding the page.
//
// # Picture
//
// Senders send series in the order in which they did before. So they are kept in the
// order in which they came first, and the next is looked for behind the last that was
// found; only if it is not there an index says where it is.
//
//	came     a b c d e …                now   c d e a …
//	entries  │a│b│c│d│e│…                     ▲ by the index, then d and e behind it
//	index    set of a print ─▶ 4 × (tag, place)
//
// Entries are a ring: when it is full, the oldest make room. The index points to what may
// be another's by now, so that an entry is compared in whole. It forgets the oldest of a
// set that is full: that series is then found behind its neighbour, or not at all.
package prints

import (
	"sync"

	"mcached/remotewrite/wire"
)

// Trail remembers prints. The zero value is empty. It is safe for concurrent use.
type Trail[V any] struct {
	mu      sync.RWMutex
	entries []entry[V]
	next    int      // the oldest, when there are MaxEntries
	index   [][4]ref // a power of two of them, or none
}

type entry[V any] struct {
	value V // first: it may have no size
	print wire.Print
}

// ref is a tag of a print and the number of its entry, from 1 on; 0 is none.
//
//	31      20 19      0
//	┌─────────┬─────────┐
//	│ tag     │ number  │
//	└─────────┴─────────┘
type ref uint32

const (
	numberBits = 20
	numberMask = 1<<numberBits - 1

	// MaxEntries bounds a Trail: entries of 16 bytes and a value each, and 4 bytes to 8
	// of the index.
	MaxEntries = 512 << 10

	minSets = 64
)

const _ = uint(numberMask - MaxEntries)

func refOf(p wire.Print, at int) ref { return tagOf(p) | ref(at+1) }
func tagOf(p wire.Print) ref         { return ref(p.B>>32) &^ numberMask }

// Cursor looks prints up that mostly follow one another. It holds a lock, for reading or
// for writing, until Close.
type Cursor[V any] struct {
	t              *Trail[V]
	at             int // behind the entry that was found last
	looked, missed int // for how many, and how many were not found
	writes         bool
}

// Read begins a Cursor that Find may be called of.
func (t *Trail[V]) Read() Cursor[V] {
	t.mu.RLock()
	return Cursor[V]{t: t}
}

// Write begins a Cursor that Put may be called of, too.
func (t *Trail[V]) Write() Cursor[V] {
	t.mu.Lock()
	return Cursor[V]{t: t, writes: true}
}

// Close ends it.
func (c *Cursor[V]) Close() {
	if c.writes {
		c.t.mu.Unlock()
	} else {
		c.t.mu.RUnlock()
	}
}

// Find is what a print was put with.
func (c *Cursor[V]) Find(p wire.Print) (v V, ok bool) {
	c.looked++
	if e := c.t.entries; c.at < len(e) && e[c.at].print == p {
		c.at++
		return e[c.at-1].value, true
	}
	if c.tired() || !c.search(p) {
		return v, false
	}
	return c.t.entries[c.at-1].value, true
}

// tired says that there are more series than are remembered: to search for each of them
// and remember it would cost more than it brings, and would make each forgotten before it
// comes again. Then few of a request take the place of others.
func (c *Cursor[V]) tired() bool {
	const free = 64 // and an eighth of all
	return 8*(c.missed-free) > c.looked && len(c.t.entries) == MaxEntries
}

// search looks for a print by the index, and has at be behind it.
func (c *Cursor[V]) search(p wire.Print) bool {
	if len(c.t.index) > 0 {
		for _, r := range c.t.setOf(p) {
			if r == 0 || r&^numberMask != tagOf(p) {
				continue
			}
			if at := int(r & numberMask); c.t.entries[at-1].print == p {
				c.at = at
				return true
			}
		}
	}
	c.missed++
	return false
}

// Put remembers a print, or does not if there are too many.
func (c *Cursor[V]) Put(p wire.Print, v V) {
	switch _, ok := c.Find(p); {
	case ok:
		c.t.entries[c.at-1].value = v
	case !c.tired():
		c.at = c.t.add(entry[V]{v, p}) + 1
	}
}

// add adds an entry, and returns its number.
func (t *Trail[V]) add(e entry[V]) (at int) {
	if at = len(t.entries); at < MaxEntries {
		t.entries = append(t.entries, e)
		if at >= 2*len(t.index) { // a half of what has room
			t.grow()
			return at
		}
	} else {
		at = t.next
		t.next = (t.next + 1) % MaxEntries
		t.entries[at] = e
	}
	t.refer(e.print, at)
	return at
}

// grow makes a larger index of all entries.
func (t *Trail[V]) grow() {
	t.index = make([][4]ref, max(minSets, 2*len(t.index)))
	for at := range t.entries {
		t.refer(t.entries[at].print, at)
	}
}

func (t *Trail[V]) setOf(p wire.Print) *[4]ref { return &t.index[int(p.A)&(len(t.index)-1)] }

// refer puts an entry into the index, in front of its set.
func (t *Trail[V]) refer(p wire.Print, at int) {
	set := t.setOf(p)
	copy(set[1:], set[:3])
	set[0] = refOf(p, at)
}

// Forget empties it.
func (t *Trail[V]) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries, t.index, t.next = nil, nil, 0
}
