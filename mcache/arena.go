package mcache

import (
	"fmt"

	"mcached/kvcache"
)

// maxArenaBytes is what a 32-bit place can address; chunks count in 8 bytes.
const maxArenaBytes = 1<<32 - 1

// arena is bytes that are only added to.
type arena struct {
	span kvcache.Span
	view []byte
	used int
}

func (a *arena) reserve(n int) error {
	if a.used+n <= len(a.view) {
		return nil
	}
	if a.used+n > maxArenaBytes {
		return fmt.Errorf("%w: index of a shard beyond %d bytes", ErrNoMemory, int64(maxArenaBytes))
	}
	if err := growSpan(&a.span, a.used, n); err != nil {
		return err
	}
	a.view = kvcache.View[byte](&a.span)
	return nil
}

func (a *arena) put(b string) (uint32, error) {
	if err := a.reserve(len(b)); err != nil {
		return 0, err
	}
	at := a.used
	a.used += copy(a.view[at:], b)
	return uint32(at), nil
}

func (a *arena) at(place, n uint32) []byte { return a.view[place : place+n] }

func (a *arena) free() {
	a.span.Free()
	a.view, a.used = nil, 0
}
