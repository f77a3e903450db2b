package offheap

import (
	"math/bits"
	"sync"

	"mcached/kvcache"
)

// Tally counts by 64-bit keys, all of them hashes: open addressing with linear
// probing, sixteen bytes a slot. Two things whose hashes are equal, a chance of
// 2^-64, share a count. It has a lock of its own, a leaf: nothing is called
// with it held but the Memory. It is safe for concurrent use.
type Tally struct {
	mu   sync.Mutex
	m    *kvcache.Memory
	span kvcache.Span
	view []tallySlot
	used int
}

// NewTally returns an empty Tally.
func NewTally(m *kvcache.Memory) *Tally { return &Tally{m: m} }

// Len is how many keys have a count.
func (t *Tally) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.used
}

// A slot whose count is 0 is empty: what is deleted is closed up.
type tallySlot struct {
	key uint64
	n   int64
}

const (
	tallySlotBytes = 16
	tallyLoad      = 3 // of 4
)

// slot is where key is, or where it would be put.
func (t *Tally) slot(key uint64) int {
	mask := len(t.view) - 1
	i := int(key) & mask
	for t.view[i].n != 0 && t.view[i].key != key {
		i = (i + 1) & mask
	}
	return i
}

// Add counts one more of key, unless there are limit already, and returns how
// many there were. On an error, ErrNoMemory, nothing was counted.
func (t *Tally) Add(key uint64, limit int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (t.used+1)*4 > len(t.view)*tallyLoad {
		if err := t.grow(); err != nil {
			return 0, err
		}
	}
	s := &t.view[t.slot(key)]
	n := int(s.n)
	if n >= limit {
		return n, nil
	}
	if s.n == 0 {
		s.key = key
		t.used++
	}
	s.n++
	return n, nil
}

// Remove counts one less of key, which must have been counted.
func (t *Tally) Remove(key uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := -1
	if t.used > 0 {
		i = t.slot(key)
	}
	if i < 0 || t.view[i].n == 0 {
		panic("offheap: a count below zero")
	}
	if t.view[i].n--; t.view[i].n > 0 {
		return
	}
	t.used--
	// Close the gap: a later slot moves into it unless that would put it
	// before the place where its probing begins.
	mask := len(t.view) - 1
	for j := (i + 1) & mask; t.view[j].n != 0; j = (j + 1) & mask {
		if home := int(t.view[j].key) & mask; (j-home)&mask >= (j-i)&mask {
			t.view[i], t.view[j] = t.view[j], tallySlot{}
			i = j
		}
	}
}

// grow doubles the table, a power of two of slots.
func (t *Tally) grow() error {
	fresh := Tally{span: t.m.NewSpan()}
	if err := fresh.span.Grow(max(2*len(t.view)*tallySlotBytes, 1)); err != nil {
		return err
	}
	all := kvcache.View[tallySlot](&fresh.span)
	fresh.view = all[:1<<(bits.Len(uint(len(all)))-1)]
	for _, s := range t.view {
		if s.n != 0 {
			fresh.view[fresh.slot(s.key)] = s
		}
	}
	t.span.Free()
	t.span, t.view = fresh.span, fresh.view
	return nil
}

// Bytes is the memory that it takes.
func (t *Tally) Bytes() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.span.Len()
}

// Free gives the memory back; the Tally is empty then.
func (t *Tally) Free() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.span.Free()
	t.view, t.used = nil, 0
}
