package offheap

import (
	"unsafe"

	"mcached/kvcache"
)

// Vector is an array of T, which must hold no pointers. Values are only added.
type Vector[T any] struct {
	span kvcache.Span
	view []T
	n    int
}

// NewVector returns an empty Vector.
func NewVector[T any](m *kvcache.Memory) Vector[T] { return Vector[T]{span: m.NewSpan()} }

// Len is how many values there are.
func (v *Vector[T]) Len() int { return v.n }

// Cap is for how many values there is room.
func (v *Vector[T]) Cap() int { return len(v.view) }

// At is the value number i, below Len; a view.
func (v *Vector[T]) At(i uint32) *T { return &v.view[i] }

// All is all values; a view.
func (v *Vector[T]) All() []T { return v.view[:v.n] }

// Bytes is the memory that it takes.
func (v *Vector[T]) Bytes() int { return v.span.Len() }

// Append adds a value and returns its number. On an error nothing was added.
func (v *Vector[T]) Append(x T) (uint32, error) {
	if v.n == len(v.view) {
		var t T
		size := int(unsafe.Sizeof(t))
		if err := growSpan(&v.span, v.n*size, size); err != nil {
			return 0, err
		}
		v.view = kvcache.View[T](&v.span)
	}
	v.view[v.n] = x
	v.n++
	return uint32(v.n - 1), nil
}

// Reserve makes room for n more values, so that as many Appends cannot fail.
func (v *Vector[T]) Reserve(n int) error {
	if v.n+n <= len(v.view) {
		return nil
	}
	var t T
	if err := v.span.Grow((v.n + n) * int(unsafe.Sizeof(t))); err != nil {
		return err
	}
	v.view = kvcache.View[T](&v.span)
	return nil
}

// Free gives the memory back; the Vector is empty then.
func (v *Vector[T]) Free() {
	v.span.Free()
	v.view, v.n = nil, 0
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
