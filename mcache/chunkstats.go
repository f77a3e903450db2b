package mcache

import (
	"math"
)

// ChunkStats counts the chunks of a bucket's labelled series, and says from when to
// when they have points.
type ChunkStats struct {
	Chunks           int   // heads, sealed blocks and chunks of records
	MinTime, MaxTime int64 // of the points that are there, in ms; math.MaxInt64 and math.MinInt64 if none is

	// BytesByMetric is, by value of __name__, what its series have allocated
	// for samples: heads, blocks, directories and records of series, not their
	// labels. ChunkStatsByMetric alone fills it.
	BytesByMetric map[string]int64
}

// ChunkStats walks the series of a bucket, a few at a time.
func (c *Cache) ChunkStats(bucket string) ChunkStats { return c.sumChunkStats(bucket, nil) }

// ChunkStatsByMetric is ChunkStats with BytesByMetric.
func (c *Cache) ChunkStatsByMetric(bucket string) ChunkStats {
	bytes := map[string]*int64{} // pointers, so that adding to one makes no string
	e := c.sumChunkStats(bucket, bytes)
	e.BytesByMetric = make(map[string]int64, len(bytes))
	for name, n := range bytes {
		e.BytesByMetric[name] = *n
	}
	return e
}

func (c *Cache) sumChunkStats(bucket string, bytes map[string]*int64) ChunkStats {
	e := ChunkStats{MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	if b := c.findBucket(bucket); b != nil && !c.closed.Load() {
		for _, s := range c.shards {
			s.addChunkStats(&e, bytes, b.id)
		}
	}
	return e
}

func (s *shard) addChunkStats(e *ChunkStats, bytes map[string]*int64, bucket uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.inUseLocked {
		if r.bucket == bucket && r.flags&(flagRaw|flagShadow) == 0 {
			s.addChunkStatsOfLocked(e, r)
			if bytes != nil {
				s.addBytesOfLocked(bytes, r)
			}
		}
	}
}

// addChunkStatsOfLocked adds one series. Blocks that vanished and were not pruned
// yet are left out.
func (s *shard) addChunkStatsOfLocked(e *ChunkStats, r *series) {
	chunks := func(dir []dirEntry, end int64) {
		for k := range dir {
			if !s.log.Live(dir[k].ref) {
				continue
			}
			e.Chunks++
			e.MinTime = min(e.MinTime, dir[k].start)
			if k == len(dir)-1 {
				e.MaxTime = max(e.MaxTime, end)
			}
		}
	}
	if o, ok := s.blobOfLocked(r); ok {
		e.Chunks += o.Blocks.Len() + o.Records.Len()
		e.MinTime, e.MaxTime = min(e.MinTime, o.First()), max(e.MaxTime, o.Last)
	}
	chunks(s.dirOfLocked(r), r.sealedEnd)
	if d := s.recordDirLocked(r); d != nil {
		chunks(d.entries(), d.end)
	}
	if p := s.hot.Pointer(r.head); p != nil && r.headLen() > 0 {
		e.Chunks++
		first := r.start
		if r.mode == modePairs {
			first = pair(p, 0).T
		}
		e.MinTime, e.MaxTime = min(e.MinTime, first), max(e.MaxTime, r.headLast())
	}
}

// addBytesOfLocked adds what one series, with its start times, has allocated.
func (s *shard) addBytesOfLocked(bytes map[string]*int64, r *series) {
	name := s.metricNameLocked(r)
	sum := bytes[string(name)]
	if sum == nil {
		sum = new(int64)
		bytes[string(name)] = sum
	}
	*sum += int64(r.bytes) + s.blobSizeLocked(r)
	if shadow := s.shadowLocked(r); shadow != noID {
		*sum += int64(s.recs.At(shadow).bytes) + s.blobSizeLocked(s.recs.At(shadow))
	}
}
