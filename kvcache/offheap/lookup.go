package offheap

import "mcached/kvcache"

// Lookup finds ids by 32-bit tags: open addressing with linear probing, eight
// bytes a slot, outside the heap. A tag leads to candidates only; whether one
// is meant is the caller's to verify.
//
//	slot: tag (32) | id + 1 (32); 0 is empty, deadID was deleted
//
// It grows by half at a load of 3/4, so an entry costs 11 to 16 bytes.
type Lookup struct {
	m     *kvcache.Memory
	span  kvcache.Span
	slots []uint64
	used  int // slots that are not empty
	live  int
}

const (
	// NoID is no id: what Find and First return if there is none. Ids are below
	// NoID − 1.
	NoID = 1<<32 - 1

	deadID = 1<<32 - 1 // in a slot, where ids are one more

	lookupLoad = 3 // of 4

	// LookupEntryBytes bounds what an entry takes of a Lookup that was reserved for it.
	LookupEntryBytes = 8*4/lookupLoad + 1
)

// NewLookup returns an empty Lookup.
func NewLookup(m *kvcache.Memory) Lookup { return Lookup{m: m, span: m.NewSpan()} }

// Len is how many entries there are.
func (l *Lookup) Len() int { return l.live }

// start is where the probing of a tag begins.
func (l *Lookup) start(tag uint32) int { return int(uint64(tag) * uint64(len(l.slots)) >> 32) }

// Find returns the first id under tag that is says yes to, or NoID.
func (l *Lookup) Find(tag uint32, is func(id uint32) bool) uint32 {
	if len(l.slots) == 0 {
		return NoID
	}
	for i := l.start(tag); ; {
		slot := l.slots[i]
		if slot == 0 {
			return NoID
		}
		if uint32(slot>>32) == tag && uint32(slot) != deadID && is(uint32(slot)-1) {
			return uint32(slot) - 1
		}
		if i++; i == len(l.slots) {
			i = 0
		}
	}
}

// First returns the first id under tag, or NoID.
func (l *Lookup) First(tag uint32) uint32 {
	if len(l.slots) == 0 {
		return NoID
	}
	for i := l.start(tag); ; {
		slot := l.slots[i]
		if slot == 0 || uint32(slot>>32) == tag && uint32(slot) != deadID {
			return uint32(slot) - 1 // NoID for an empty one
		}
		if i++; i == len(l.slots) {
			i = 0
		}
	}
}

// Touch reads the slot that First begins with, so that it is in the processor's
// cache. It needs a Lookup that had an entry once.
func (l *Lookup) Touch(tag uint32) uint64 { return l.slots[l.start(tag)] }

// Reserve makes room for n more, so that as many adds cannot fail.
func (l *Lookup) Reserve(n int) error {
	if (l.used+n)*4 <= len(l.slots)*lookupLoad {
		return nil
	}
	// Deleted slots are left behind by the copy; grow only if the live ones need it.
	slots := len(l.slots)
	if (l.live+1)*2 > slots {
		slots += slots / 2
	}
	slots = max(slots, (l.live+n)*4/lookupLoad+1)
	old := *l
	fresh := NewLookup(l.m)
	if err := fresh.span.Grow(slots * 8); err != nil {
		return err
	}
	fresh.slots = kvcache.View[uint64](&fresh.span)
	for _, slot := range old.slots {
		if slot != 0 && uint32(slot) != deadID {
			fresh.Add(uint32(slot>>32), uint32(slot)-1)
		}
	}
	old.span.Free()
	*l = fresh
	return nil
}

// Add needs a Reserve before it.
func (l *Lookup) Add(tag, id uint32) {
	i := l.start(tag)
	for l.slots[i] != 0 && uint32(l.slots[i]) != deadID {
		if i++; i == len(l.slots) {
			i = 0
		}
	}
	if l.slots[i] == 0 {
		l.used++
	}
	l.live++
	l.slots[i] = uint64(tag)<<32 | uint64(id+1)
}

// Remove takes out the entry of tag and id, which must be there.
func (l *Lookup) Remove(tag, id uint32) {
	for i := l.start(tag); ; {
		if l.slots[i] == uint64(tag)<<32|uint64(id+1) {
			l.slots[i] = uint64(tag)<<32 | deadID
			l.live--
			return
		}
		if l.slots[i] == 0 {
			panic("offheap: id is not in the Lookup")
		}
		if i++; i == len(l.slots) {
			i = 0
		}
	}
}

// Bytes is the memory that it takes.
func (l *Lookup) Bytes() int { return l.span.Len() }

// Free gives the memory back; the Lookup is empty then.
func (l *Lookup) Free() {
	l.span.Free()
	l.slots, l.used, l.live = nil, 0, 0
}
