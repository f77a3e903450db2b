package mcache

import (
	"math"
	"sync"
	"sync/atomic"

	"mcached/mcache/block"
)

// retentions say how far back of their last point series are shown. It is by
// label set, so that it holds whoever writes the series, and also for one that
// comes back; a Cache without any pays a load for each Snapshot.
type retentions struct {
	some atomic.Bool
	mu   sync.RWMutex // comes after those of shards
	ms   map[retentionKey]int64
}

type retentionKey struct {
	bucket string
	fp     Fingerprint
}

// SetRetention hides, from all Snapshots of the series with these labels, the
// points that are older than ms before its last one; 0 shows all. It holds
// whether or not there is such a series, until it is set again: the caller
// bounds for how many it is set, at some 100 bytes of heap each. What is
// hidden stays in the cache until it is evicted.
func (c *Cache) SetRetention(bucket string, f Fingerprint, ms int64) {
	c.retained.set(retentionKey{bucket, f}, ms)
	if b := c.findBucket(bucket); b != nil {
		c.changes.noteAll(b) // whose lock comes before those of shards, and these before that of retentions
	}
}

func (r *retentions) set(key retentionKey, ms int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ms > 0 {
		if r.ms == nil {
			r.ms = map[retentionKey]int64{}
		}
		r.ms[key] = ms
	} else {
		delete(r.ms, key)
	}
	r.some.Store(len(r.ms) > 0)
}

// shownFromLocked is the earliest time of which points of r may be shown.
func (c *Cache) shownFromLocked(s *shard, r *series) int64 {
	if !c.retained.some.Load() {
		return math.MinInt64
	}
	b := c.bucket(r.bucket)
	key := retentionKey{b.name, r.fp.in(b)} // a second time it is taken out
	c.retained.mu.RLock()
	ms, ok := c.retained.ms[key]
	c.retained.mu.RUnlock()
	if !ok {
		return math.MinInt64
	}
	last := s.lastTimeLocked(r)
	if r.flags&flagBlob != 0 {
		if o := s.blobs.Value(r.blobRef()); o != nil {
			last = max(last, block.BlobLast(o))
		}
	}
	return max(last, ms-math.MaxInt64) - ms
}
