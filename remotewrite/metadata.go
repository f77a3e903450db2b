package remotewrite

import (
	"slices"
	"strings"
	"sync"
)

// Metadata describes a metric. Types are as in OpenMetrics: counter, gauge,
// histogram, gaugehistogram, summary, info, stateset, unknown.
type Metadata struct{ Type, Help, Unit string }

// metadata keeps the latest Metadata of metrics by bucket and name. It holds
// at most max metrics and maxBytes of text; what comes after that is not
// kept, since a description is a convenience and no data.
type metadata struct {
	max, maxBytes int

	mu      sync.RWMutex
	buckets map[string]map[string]Metadata
	n       int // metrics in all buckets
	bytes   int // of their names and texts
	refused uint64
}

// put keeps m, and copies the strings it keeps.
func (d *metadata) put(bucket, name string, m Metadata) {
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
		d.buckets = make(map[string]map[string]Metadata)
	}
	if d.buckets[bucket] == nil {
		d.buckets[strings.Clone(bucket)] = make(map[string]Metadata)
	}
	if !ok {
		d.n++
		name = strings.Clone(name)
	}
	d.bytes += grown
	d.buckets[bucket][name] = Metadata{m.Type, strings.Clone(m.Help), strings.Clone(m.Unit)}
}

// Metadata calls f for each metric of the bucket that a sender described, in
// no set order, until f returns false. f must not call the Handler.
func (h *Handler) Metadata(bucket string, f func(metric string, m Metadata) bool) {
	h.meta.mu.RLock()
	defer h.meta.mu.RUnlock()
	for name, m := range h.meta.buckets[bucket] {
		if !f(name, m) {
			return
		}
	}
}

// Describe returns what a sender said of a metric, if one did.
func (h *Handler) Describe(bucket, metric string) (Metadata, bool) {
	h.meta.mu.RLock()
	defer h.meta.mu.RUnlock()
	m, ok := h.meta.buckets[bucket][metric]
	return m, ok
}

// metricTypes are the types of both protocols by their numbers, which are the same.
var metricTypes = [...]string{"unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"}

func metricType(n int32) string {
	if n < 0 || int(n) >= len(metricTypes) {
		return metricTypes[0]
	}
	return metricTypes[n]
}

func metricTypeNumber(name string) int {
	return max(slices.Index(metricTypes[:], name), 0)
}
