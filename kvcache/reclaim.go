package kvcache

import "runtime"

// This file is about giving memory back: to other owners, which is ageing, and
// to the kernel, which is pressure.

// Evict drops the oldest regions until n bytes could be acquired, and keeps
// their pages for whoever asks next; when indexes are all that is left, whole
// owners. It must be called without owners' locks. It reports whether there is
// room.
//
// This is ordinary ageing: owners that can keep what is still read.
func (m *Memory) Evict(n int64) bool { return m.evictUpTo(n, Hot) }

// EvictLog is Evict that leaves Hot regions alone, for owners that have better
// ways to part with what those hold.
func (m *Memory) EvictLog(n int64) bool { return m.evictUpTo(n, Log) }

func (m *Memory) evictUpTo(n int64, last Class) bool {
	for {
		room, over := m.roomBytes()
		if room >= n {
			return true
		}
		drop := m.ageOldest
		if over {
			drop = m.dropOldest // while SetBudget is at work nothing is kept: it must not take longer
		}
		if !drop(last) && (last < Hot || !m.dropOwner()) {
			room, _ = m.roomBytes()
			return room >= n
		}
	}
}

// Room is how many bytes the budget permits beyond what is in use: they can be
// had without anything being dropped.
func (m *Memory) Room() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.roomLocked(), 0)
}

// roomBytes is how many bytes Alloc can acquire. While more is held than the budget
// permits, because SetBudget is at work, that is what is spare already: a
// writer takes the place of the oldest and need not wait for the others to go.
func (m *Memory) roomBytes() (bytes int64, over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used.Load() > m.budget.Load() {
		return int64(m.spares) * int64(m.regionBytes), true
	}
	return m.roomLocked() - m.reserve(), false
}

// roomLocked is what the budget permits beyond what is in use.
func (m *Memory) roomLocked() int64 {
	return m.budget.Load() - m.used.Load() + int64(m.spares)*int64(m.regionBytes)
}

// reserve is what is kept for entries that are moved to free the rest of their
// region, because that must be possible when all else is in use: one region,
// unless that is much of the budget.
func (m *Memory) reserve() int64 {
	const reserveRegions = 16
	if n := int64(m.regionBytes); m.budget.Load() >= reserveRegions*n {
		return n
	}
	return 0
}

// SetBudget changes the budget and returns when what is held fits it: spare
// regions go first, then Log regions by age, then Hot ones, then whole
// owners. The pages are back with the kernel on return.
// It must be called without owners' locks.
func (m *Memory) SetBudget(n int64) {
	m.budget.Store(max(n, 0))
	m.shrink()
}

// shrink gives back what is held beyond the budget.
func (m *Memory) shrink() {
	returned := 0
	for m.used.Load() > m.budget.Load() {
		if m.returnSpare() {
			if returned += m.regionBytes; returned >= yieldBytes {
				runtime.Gosched() // some 6 ms have gone by
				returned = 0
			}
			continue
		}
		if !m.dropOldest(Hot) && !m.dropOwner() {
			return
		}
	}
}

// Trim returns spare regions to the kernel until at most keep are left.
func (m *Memory) Trim(keep int) {
	for {
		m.mu.Lock()
		more := m.spares > keep
		m.mu.Unlock()
		if !more || !m.returnSpare() {
			return
		}
	}
}

// TrimIdle returns the spare regions to the kernel that nobody has taken since
// the call before, but for those that are to be ready. Called now and then it
// leaves as many as are released and taken again in that time. It returns how
// many it has returned.
func (m *Memory) TrimIdle() (returned int) {
	m.mu.Lock()
	idle := m.idle - max(m.readyLocked(), 0)
	m.mu.Unlock()
	for returned < idle && m.returnSpare() {
		returned++
	}
	m.mu.Lock()
	m.idle = m.spares
	m.mu.Unlock()
	return returned
}

// dropOldest asks the owner of the oldest region, of classes up to last, to
// drop it. It reports false when no owner holds one.
func (m *Memory) dropOldest(last Class) bool { return m.askOldest(last, Owner.DropRegion) }

// ageOldest is dropOldest where the owner may rewrite what it wants to keep.
func (m *Memory) ageOldest(last Class) bool {
	return m.askOldest(last, func(o Owner, r Region, epoch uint32) bool {
		if a, ok := o.(ager); ok {
			return a.AgeRegion(r, epoch)
		}
		return o.DropRegion(r, epoch)
	})
}

func (m *Memory) askOldest(last Class, drop func(o Owner, r Region, epoch uint32) bool) bool {
	for class := range m.age[:last+1] {
		// An owner may have released the region before we ask: then the list
		// has a new head. One that is refused leaves it, so this comes to an end.
		for {
			m.mu.Lock()
			r := m.oldestLocked(class)
			if r == noRegion {
				m.mu.Unlock()
				break
			}
			owner, epoch := m.owners[m.regions[r].owner], m.regions[r].epoch.Load()
			m.mu.Unlock()
			if drop(owner, r, epoch) {
				m.mu.Lock()
				m.stats.RegionsReclaimed++
				m.mu.Unlock()
				return true
			}
			m.mu.Lock()
			if g := &m.regions[r]; g.inUse && !g.pinned && g.epoch.Load() == epoch {
				m.age[g.class][g.account].remove(m, r)
				m.pinned[g.class][g.account].pushBack(m, r)
				g.pinned = true
				m.pins++
			}
			m.mu.Unlock()
		}
	}
	return false
}

// Unpin lets regions be asked for again that owners have refused to drop, and
// gives back what is held beyond the budget. Owners call it, without their
// locks, when some of what they had pinned may go.
func (m *Memory) Unpin() {
	m.mu.Lock()
	for class := range m.pinned {
		for a := range m.pinned[class] {
			// What is pinned is older than all the rest, and in order.
			pinned, age := &m.pinned[class][a], &m.age[class][a]
			for pinned.tail != noRegion {
				r := pinned.tail
				pinned.remove(m, r)
				m.regions[r].pinned = false
				if head := age.head; head != noRegion {
					age.insertBefore(m, r, head)
				} else {
					age.pushBack(m, r)
				}
			}
		}
	}
	m.pins = 0
	m.mu.Unlock()
	m.shrink()
}

// exchange swaps the ages of two Log regions of one account, none of them
// pinned. An owner that is asked to part with r, and would rather part with v,
// exchanges them first: who is asked next, and for how much, stays the same.
func (m *Memory) exchange(r, v Region) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, b := &m.regions[r], &m.regions[v]
	if a.serial == b.serial {
		return // the same, or one that took in what was moved out of the other
	}
	if a.serial > b.serial {
		r, v, a, b = v, r, b, a
	}
	l := m.listOf(v)
	behind := b.next
	l.remove(m, v)
	l.insertBefore(m, v, r)
	l.remove(m, r)
	if behind == noRegion {
		l.pushBack(m, r)
	} else {
		l.insertBefore(m, r, behind)
	}
	a.serial, b.serial = b.serial, a.serial
}

// dropOldestOf drops the oldest Log region of one owner, as it is.
func (m *Memory) dropOldestOf(owner int) bool {
	m.mu.Lock()
	r := m.age[Log][m.accountOf[owner]].head
	for r != noRegion && m.regions[r].owner != int32(owner) {
		r = m.regions[r].next
	}
	if r == noRegion {
		m.mu.Unlock()
		return false
	}
	o, epoch := m.owners[owner], m.regions[r].epoch.Load()
	m.mu.Unlock()
	return o.DropRegion(r, epoch)
}

// dropOwner makes owners forget everything, one after the other, until
// something was freed. It reports false when there was nothing to free.
func (m *Memory) dropOwner() bool {
	m.mu.Lock()
	owners := m.owners
	m.mu.Unlock()
	for _, o := range owners {
		before := m.held()
		o.DropAll()
		m.mu.Lock()
		m.stats.OwnersDropped++
		m.mu.Unlock()
		if m.held() < before {
			return true
		}
	}
	return false
}

// held is the bytes that owners hold: without spare regions.
func (m *Memory) held() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used.Load() - int64(m.spares)*int64(m.regionBytes)
}

// returnSpare gives one spare region back to the kernel.
func (m *Memory) returnSpare() bool {
	m.mu.Lock()
	r := m.spare.head
	if r == noRegion {
		m.mu.Unlock()
		return false
	}
	m.spare.remove(m, r)
	m.spares--
	m.idle = min(m.idle, m.spares)
	m.mu.Unlock()

	m.dontNeed(r) // outside the lock: 0.3 ms for 4 MiB of small pages
	m.used.Add(-int64(m.regionBytes))

	m.mu.Lock()
	m.returned.pushBack(m, r)
	m.stats.RegionsReturned++
	m.stats.BytesReturned += uint64(m.regionBytes)
	m.mu.Unlock()
	return true
}
