package offheap

import (
	"fmt"

	"mcached/kvcache"
)

// maxArenaBytes is what a 32-bit place can address; chunks count in 8 bytes.
const maxArenaBytes = 1<<32 - 1

// Arena is bytes that are only added to.
type Arena struct {
	span kvcache.Span
	view []byte
	used int
}

// NewArena returns an Arena whose first unused bytes stay unused, so that no
// place is below that.
func NewArena(m *kvcache.Memory, unused int) Arena { return Arena{span: m.NewSpan(), used: unused} }

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

func (a *Arena) Put(b string) (uint32, error) {
	if err := a.Reserve(len(b)); err != nil {
		return 0, err
	}
	at := a.used
	a.used += copy(a.view[at:], b)
	return uint32(at), nil
}

// Take returns n bytes, which were reserved, and their place. They hold what they are.
func (a *Arena) Take(n int) (uint32, []byte) {
	at := a.used
	a.used += n
	return uint32(at), a.view[at:a.used]
}

// From is all from a place on; a view.
func (a *Arena) From(place int) []byte { return a.view[place:] }

// Len is how many bytes are taken, those unused at the start included.
func (a *Arena) Len() int { return a.used }

// Bytes is the memory of the Arena.
func (a *Arena) Bytes() int { return a.span.Len() }

func (a *Arena) At(place, n uint32) []byte { return a.view[place : place+n] }

func (a *Arena) Free() {
	a.span.Free()
	a.view, a.used = nil, 0
}
