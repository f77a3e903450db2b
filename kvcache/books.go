package kvcache

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The books are what is known of each region: a region and a table. They lie
// behind the last region in the same reservation, as there are 80 bytes for
// each that there could ever be, and pages only of those that were used. On the
// heap all would count towards the next collection, and put it off.

// booksBytes is how long the books of n regions are.
func booksBytes(n int64) uintptr {
	return uintptr(n) * (unsafe.Sizeof(region{}) + unsafe.Sizeof(table{}))
}

// openBooks begins the books of n regions.
func (m *Memory) openBooks(n int) {
	if raceDetector { // which sees what is on the heap
		m.regions, m.tables = make([]region, n), make([]table, n)
		return
	}
	books := m.addr(Region(n))
	m.regions = unsafe.Slice((*region)(books), n)
	m.tables = unsafe.Slice((*table)(unsafe.Add(books, uintptr(n)*unsafe.Sizeof(region{}))), n)
	// A huge page would be more than most books take. A kernel built without
	// huge pages refuses the advice; nothing is lost then.
	_ = m.advise(books, booksBytes(int64(n)), unix.MADV_NOHUGEPAGE)
}
