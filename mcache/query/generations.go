package query

import "sync"

// generations keep what was asked for most recently, in two maps of at most as many
// bytes each. What is new goes into the young one; what is found in the old one moves
// over; when the young one is full, the old one is dropped and it takes its place. It
// is safe for concurrent use.
type generations[K comparable, V any] struct {
	maxBytes int            // of a generation
	size     func(K, V) int // bytes, those of the entry in a map included

	mu         sync.Mutex
	young, old map[K]V
	youngBytes int
}

func (g *generations[K, V]) get(k K) (V, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v, ok := g.young[k]
	if !ok {
		if v, ok = g.old[k]; ok {
			g.putLocked(k, v)
		}
	}
	return v, ok
}

// put keeps a value, in place of another of the key. One that is larger than a
// generation is not kept.
func (g *generations[K, V]) put(k K, v V) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.putLocked(k, v)
}

func (g *generations[K, V]) putLocked(k K, v V) {
	size := g.size(k, v)
	if size > g.maxBytes {
		return
	}
	if before, ok := g.young[k]; ok {
		delete(g.young, k)
		g.youngBytes -= g.size(k, before)
	}
	if g.young == nil || g.youngBytes+size > g.maxBytes {
		g.old, g.young, g.youngBytes = g.young, map[K]V{}, 0
	}
	g.young[k] = v
	g.youngBytes += size
}
