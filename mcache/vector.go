package mcache

import (
	"unsafe"

	"mcached/kvcache"
)

// records is an array of records that are only added.
type records[T any] struct {
	span kvcache.Span
	view []T
	n    int
}

func (r *records[T]) add(v T) (uint32, error) {
	if r.n == len(r.view) {
		var t T
		size := int(unsafe.Sizeof(t))
		if err := growSpan(&r.span, r.n*size, size); err != nil {
			return 0, err
		}
		r.view = kvcache.View[T](&r.span)
	}
	r.view[r.n] = v
	r.n++
	return uint32(r.n - 1), nil
}

// reserve makes room for n more.
func (r *records[T]) reserve(n int) error {
	if r.n+n <= len(r.view) {
		return nil
	}
	var t T
	if err := r.span.Grow((r.n + n) * int(unsafe.Sizeof(t))); err != nil {
		return err
	}
	r.view = kvcache.View[T](&r.span)
	return nil
}

func (r *records[T]) free() {
	r.span.Free()
	r.view, r.n = nil, 0
}

// spanStep is by how much a small span grows at most: each time costs a system
// call that every processor waits for.
const spanStep = 32 << 10

// growSpan makes room for n bytes behind those used, and for an eighth more
// than are used, so that there are few such calls and little slack; small
// spans double. Where that is too much, room for n has to do.
func growSpan(span *kvcache.Span, used, n int) error {
	if span.Grow(used+max(n, used/8, min(used, spanStep))) == nil {
		return nil
	}
	return span.Grow(used + n)
}
