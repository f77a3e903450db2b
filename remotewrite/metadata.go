package remotewrite

import (
	"strings"
	"sync"

	"mcached/remotewrite/wire"
)

// metadata keeps the latest Metadata of metrics by bucket and name. It holds
// at most max metrics and maxBytes of text; what comes after that is not
// kept, since a description is a convenience and no data.
type metadata struct {
	mu sync.RWMutex

	max, maxBytes int

	buckets map[string]map[string]wire.Metadata
	n       int // metrics in all buckets
	bytes   int // of their names and texts
	refused uint64
}

func (d *metadata) bound(n, bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.max, d.maxBytes = n, bytes
}

// put keeps m, and copies the strings it keeps.
func (d *metadata) put(bucket, name string, m wire.Metadata) {
	d.mu.RLock()
	old, ok := d.buckets[bucket][name]
	d.mu.RUnlock()
	if ok && old == m || name == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old, ok = d.buckets[bucket][name]
	grown := len(m.Help) + len(m.Unit) - len(old.Help) - len(old.Unit)
	if !ok {
		grown += len(name)
	}
	if !ok && d.n >= d.max || d.bytes+grown > d.maxBytes {
		d.refused++
		return
	}
	if d.buckets == nil {
		d.buckets = make(map[string]map[string]wire.Metadata)
	}
	if d.buckets[bucket] == nil {
		d.buckets[strings.Clone(bucket)] = make(map[string]wire.Metadata)
	}
	if !ok {
		d.n++
	}
	d.bytes += grown
	// A map keeps the string of the key that was assigned last, also when it
	// had one that is equal: what is a view must not become it.
	d.buckets[bucket][strings.Clone(name)] = wire.Metadata{Type: m.Type, Help: strings.Clone(m.Help), Unit: strings.Clone(m.Unit)}
}

// PutMetadata keeps what is said of a metric, as if a sender had said it.
func (h *Handler) PutMetadata(bucket, metric string, m wire.Metadata) { h.meta.put(bucket, metric, m) }

// Metadata calls f for each metric of the bucket that a sender described, in
// no set order, until f returns false. f must not call the Handler.
func (h *Handler) Metadata(bucket string, f func(metric string, m wire.Metadata) bool) {
	h.meta.mu.RLock()
	defer h.meta.mu.RUnlock()
	for name, m := range h.meta.buckets[bucket] {
		if !f(name, m) {
			return
		}
	}
}

// Describe returns what a sender said of a metric, if one did.
func (h *Handler) Describe(bucket, metric string) (wire.Metadata, bool) {
	h.meta.mu.RLock()
	defer h.meta.mu.RUnlock()
	m, ok := h.meta.buckets[bucket][metric]
	return m, ok
}
