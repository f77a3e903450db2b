package route

import (
	"sync/atomic"

	"mcached/remotewrite/prints"
	"mcached/remotewrite/wire"
)

// seen are the prints of series that were sent with their labels: their owners are asked
// for them by print alone. Nothing depends on it: of a series that is taken for one that
// its owner knows, the owner asks for the labels. So it is not told whether an owner took
// a series, and what it forgets is sent with labels once more.
type seen struct {
	trail prints.Trail[struct{}]
}

// know notes of each item whether it was seen before, and sees to it that it was.
func (s *seen) know(c *cutter) {
	cursor := s.trail.Read()
	fresh := 0
	for k := range c.items {
		if it := &c.items[k]; it.usual {
			if _, it.known = cursor.Find(c.sentAs(k)); !it.known {
				fresh++
			}
		}
	}
	cursor.Close()
	if fresh == 0 {
		return
	}
	cursor = s.trail.Write()
	defer cursor.Close()
	for k := range c.items {
		if it := &c.items[k]; it.usual && !it.known {
			cursor.Put(c.sentAs(k), struct{}{})
		}
	}
}

// sentAs is the print of an item with what is said of its metric: if that changes it is sent
// again.
func (c *cutter) sentAs(k int) wire.Print {
	p := c.named[k]
	p.A += c.items[k].about
	return p
}

// nameOf is the name of an item for this node.
func (c *cutter) nameOf(k int) (x wire.Named) {
	if it := &c.items[k]; it.usual {
		if x.Print = c.named[k]; it.known {
			x.Rest, x.End = it.rest, it.end
		}
	}
	return x
}

// knowledge is what a node is thought to know of prints. One that knows few of those
// it is asked for has lost them, or has more series than it remembers: it is sent labels
// for a while, each time for twice as long, up to a bound.
type knowledge struct {
	takes atomic.Bool  // it takes prints
	wait  atomic.Int32 // requests that go to it with labels
	last  atomic.Int32 // how many that were
}

const (
	// maxWait makes of a question in vain one frame in a thousand.
	maxWait = 1 << 10
	// fewUnknown of all in a frame, one of so many, are no reason to wait.
	fewUnknown = 4
)

// ask reports whether the next request may have prints for the node.
func (k *knowledge) ask() bool {
	if !k.takes.Load() {
		return false
	}
	if k.wait.Load() <= 0 {
		return true
	}
	k.wait.Add(-1)
	return false
}

// answered is told how many series of a frame the node does not know.
func (k *knowledge) answered(unknown, all int) {
	switch {
	case fewUnknown*unknown > all:
		next := min(max(1, 2*k.last.Load()), maxWait)
		k.last.Store(next)
		k.wait.Store(next)
	case k.last.Load() > 0:
		k.last.Store(0)
	}
}
