package kvcache

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The supplier keeps a few regions ready, so that a writer that needs the next
// one finds it with its pages present, and does not have to age an old one
// itself, which means to look at each of its records. It takes regions that
// were never used or were returned, as long as the budget has room, and then
// the oldest Log regions.
//
// What it keeps is in proportion to what is in use: a small cache has none.
const (
	readyPart  = 128 // of the regions in use
	maxReady   = 8
	hugeBytes  = 2 << 20 // of a huge page
	hugeAfter  = 4 << 30 // bytes with small pages; see adviseHuge
	yieldBytes = 64 << 20
)

// readyLocked is how many spare regions there should be.
func (m *Memory) readyLocked() int { return min(m.inUse/readyPart, m.maxReady) }

// wakeSupplier is called with or without the lock.
func (m *Memory) wakeSupplier() {
	select {
	case m.wake <- struct{}{}:
	default: // it is about to look
	}
}

func (m *Memory) supply() {
	for {
		select {
		case <-m.stop:
			return
		case <-m.wake:
		}
		for m.supplyOne() {
			select {
			case <-m.stop:
				return
			default:
			}
		}
	}
}

// supplyOne makes one region ready. It reports false when there are enough, or
// there is nothing to take.
func (m *Memory) supplyOne() bool {
	m.mu.Lock()
	if m.spares >= m.readyLocked() {
		m.mu.Unlock()
		return false
	}
	if m.roomLocked() < int64(m.regionBytes)+m.reserve() {
		m.mu.Unlock()
		return m.ageOldest(Log)
	}
	r, ok := m.freshLocked()
	m.mu.Unlock()
	if !ok {
		return false
	}
	err := m.populate(r)
	m.mu.Lock()
	if err == nil && m.used.Load() <= m.budget.Load() && m.spares < m.readyLocked() {
		m.spare.pushBack(m, r)
		m.spares++
		m.stats.RegionsPrepared++
		m.mu.Unlock()
		return true
	}
	m.mu.Unlock()
	// The kernel has none to give, someone else needs it more, or nobody does
	// any longer, because all was forgotten meanwhile.
	m.dontNeed(r)
	m.used.Add(-int64(m.regionBytes))
	m.mu.Lock()
	m.returned.pushBack(m, r)
	m.mu.Unlock()
	return false
}

// freshLocked charges for and takes a region that has no pages.
func (m *Memory) freshLocked() (r Region, ok bool) {
	if !m.charge(int64(m.regionBytes)) {
		return noRegion, false
	}
	switch {
	case m.returned.head != noRegion:
		r = m.returned.head
		m.returned.remove(m, r)
	case int(m.virgin) < len(m.regions):
		r = m.virgin
		m.virgin++
		m.regions[r].epoch.Store(1)
	default:
		m.used.Add(-int64(m.regionBytes))
		return noRegion, false
	}
	return r, true
}

// populate makes the pages of r present. A kernel before 5.14 cannot: its
// writers take the faults.
func (m *Memory) populate(r Region) error {
	err := m.advise(m.addr(r), uintptr(m.regionBytes), unix.MADV_POPULATE_WRITE)
	if err == unix.EINVAL {
		return nil
	}
	return err
}

// adviseHuge says which regions the kernel may back with 2 MiB pages. They
// are returned twenty times as fast and spare the processor's tables, but come
// whole: a region of which little is used costs all. So the first hugeAfter
// bytes, which are used first, have small pages, and a Memory with small
// regions has no others. A kernel built without huge pages refuses both kinds
// of advice; nothing is lost then.
func (m *Memory) adviseHuge(always bool) {
	small := min(uintptr(len(m.regions))*uintptr(m.regionBytes), hugeAfter)
	if always {
		small = 0
	}
	all := uintptr(len(m.regions)) * uintptr(m.regionBytes)
	if m.regionBytes < hugeBytes && !always {
		small = all
	}
	if small > 0 {
		_ = m.advise(m.base, small, unix.MADV_NOHUGEPAGE)
	}
	if small < all {
		_ = m.advise(unsafe.Add(m.base, small), all-small, unix.MADV_HUGEPAGE)
	}
}
