package kvcache

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Span is one growable array outside the Go heap, for indexes. Growing moves
// page tables, not bytes (mremap). Its bytes count against the budget; they
// are given back by Free, or when the owner drops everything.
//
// A Span has no lock: it belongs to one shard, and is used under that one's.
type Span struct {
	m       *Memory
	mem     []byte
	account Account
}

// NewSpan returns an empty Span of account 0.
func (m *Memory) NewSpan() Span { return Span{m: m} }

// NewSpanFor returns an empty Span of any account.
func (m *Memory) NewSpanFor(a Account) Span { return Span{m: m, account: a} }

// Len is the size in bytes, a multiple of the page size.
func (s *Span) Len() int { return len(s.mem) }

// Grow makes the span at least n bytes long, rounded up to whole pages. What
// it held stays, new bytes are zero. Views taken before are invalid after.
// The error is ErrNoMemory; the span is then as it was.
func (s *Span) Grow(n int) error {
	n = (n + MinRegionBytes - 1) &^ (MinRegionBytes - 1)
	if n <= len(s.mem) {
		return nil
	}
	more := int64(n - len(s.mem))
	for !s.m.charge(more) {
		if s.m.returnSpare() {
			continue
		}
		return fmt.Errorf("%w: %d more bytes for an index, %d of %d used", ErrNoMemory, more, s.m.Used(), s.m.Budget())
	}
	mem, err := s.m.mapSpan(s.mem, n)
	if err != nil {
		s.m.used.Add(-more)
		return fmt.Errorf("%w: %d bytes for an index: %w", ErrNoMemory, n, err)
	}
	s.mem = mem
	s.m.accounts[s.account].spans.Add(more)
	return nil
}

// mapSpan asks the kernel for n bytes, with what was in mem.
func mapSpan(mem []byte, n int) ([]byte, error) {
	if mem == nil {
		return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	}
	return unix.Mremap(mem, n, unix.MREMAP_MAYMOVE)
}

// Free gives the bytes back. The span is empty afterwards and may grow again.
func (s *Span) Free() {
	if s.mem == nil {
		return
	}
	s.m.used.Add(-int64(len(s.mem)))
	s.m.accounts[s.account].spans.Add(-int64(len(s.mem)))
	if err := unix.Munmap(s.mem); err != nil {
		panic("kvcache: munmap of an own mapping: " + err.Error())
	}
	s.mem = nil
}

// View is the span as a slice of T, which must hold no pointers. It is valid
// until the span grows or is freed.
func View[T any](s *Span) []T {
	var t T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(s.mem))), len(s.mem)/int(unsafe.Sizeof(t)))
}
