package kvcache

// list is a doubly linked list of regions through their next and prev.
type list struct{ head, tail Region }

func (l *list) pushBack(m *Memory, r Region) {
	g := &m.regions[r]
	g.next, g.prev = noRegion, l.tail
	if l.tail != noRegion {
		m.regions[l.tail].next = r
	} else {
		l.head = r
	}
	l.tail = r
}

func (l *list) insertBefore(m *Memory, r, at Region) {
	g, a := &m.regions[r], &m.regions[at]
	g.next, g.prev = at, a.prev
	if a.prev != noRegion {
		m.regions[a.prev].next = r
	} else {
		l.head = r
	}
	a.prev = r
}

func (l *list) remove(m *Memory, r Region) {
	g := &m.regions[r]
	if g.prev != noRegion {
		m.regions[g.prev].next = g.next
	} else {
		l.head = g.next
	}
	if g.next != noRegion {
		m.regions[g.next].prev = g.prev
	} else {
		l.tail = g.prev
	}
}
