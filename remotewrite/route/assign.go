package route

import (
	"slices"

	"mcached/remotewrite/wire"
)

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
