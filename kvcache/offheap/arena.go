package offheap

import (
	"fmt"

	"mcached/kvcache"
)

// maxArenaBytes is what a 32-bit place can address.
const maxArenaBytes = 1<<32 - 1

// Arena is bytes that are only added to. A place is the distance from its start.
type Arena struct {
	span kvcache.Span
	view []byte
	used int
}

// NewArena returns an Arena whose first unused bytes stay unused, so that no
// place is below that.
func NewArena(m *kvcache.Memory, unused int) Arena { return Arena{span: m.NewSpan(), used: unused} }

// Reserve makes room for n more bytes, so that as much can be Put or taken
// without failing. The error is kvcache.ErrNoMemory: the budget has no room, or
// a place would not fit 32 bits.
func (a *Arena) Reserve(n int) error {
	if a.used+n <= len(a.view) {
		return nil
	}
	if a.used+n > maxArenaBytes {
		return fmt.Errorf("%w: arena beyond %d bytes", kvcache.ErrNoMemory, int64(maxArenaBytes))
	}
	if err := growSpan(&a.span, a.used, n); err != nil {
		return err
	}
	a.view = kvcache.View[byte](&a.span)
	return nil
}

// Put copies b into the Arena and returns its place. On an error, which is
// Reserve's, nothing has changed.
func (a *Arena) Put(b string) (uint32, error) {
	if err := a.Reserve(len(b)); err != nil {
		return 0, err
	}
	at := a.used
	a.used += copy(a.view[at:], b)
	return uint32(at), nil
}

// Take returns n bytes that were reserved, and their place; a view. They are zero.
func (a *Arena) Take(n int) (uint32, []byte) {
	at := a.used
	a.used += n
	return uint32(at), a.view[at:a.used]
}

// From is all from a place on; a view.
func (a *Arena) From(place int) []byte { return a.view[place:] }

// Len is how many bytes are taken, those unused at the start included.
func (a *Arena) Len() int { return a.used }

// Bytes is the memory that it takes.
func (a *Arena) Bytes() int { return a.span.Len() }

// At is n bytes from a place on; a view.
func (a *Arena) At(place, n uint32) []byte { return a.view[place : place+n] }

// Free gives the memory back; the Arena is then without a byte, and without
// the unused ones of its start.
func (a *Arena) Free() {
	a.span.Free()
	a.view, a.used = nil, 0
}
