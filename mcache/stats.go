package mcache

import "mcached/kvcache"

// Stats is a reading of a Cache. Points are conserved: at any rest
//
//	Inserted = Points + Evicted + Taken + Popped + Removed + Erased + Reclaimed
//
// where Points is what is in the cache now. A start time that came with a
// sample is a point of its own, in a hidden series, here and below.
type Stats struct {
	Series   int
	Points   uint64
	Inserted uint64 // new points; one that overwrites another is not counted here

	Overwritten uint64
	Mended      uint64 // out-of-order points merged into sealed blocks, of Inserted and Overwritten
	Evicted     uint64 // with keys that were evicted whole
	Taken       uint64
	Popped      uint64
	Removed     uint64 // with their bucket
	Erased      uint64 // by Delete, or by a point of the other kind at their time
	Reclaimed   uint64 // vanished with regions
	Evictions   uint64 // keys, those that went into blobs included
	Rebuilds    uint64 // of a shard's index

	BlobPoints    uint64 // of Points, those in blobs
	BlobsWritten  uint64 // series put into blobs
	BlobsRead     uint64 // by Snapshot and all that reads as it does
	BlobsRestored uint64 // taken apart again, for an out-of-order point or a delete
	BlobsRefused  uint64 // series evicted whole because there was no memory for a blob
	BlobsLost     uint64 // points, of Reclaimed, that vanished with the regions of blobs

	AllocatedBytes int64 // for series, as eviction counts: not their blobs
	MaxBytes       int64
	Hot            kvcache.TablesStats // heads, and chunks of records that are written
	Partials       kvcache.TablesStats // blocks that are not full
	Log            kvcache.TablesStats // full blocks
	Dir            kvcache.TablesStats // directories
	Blobs          kvcache.TablesStats
	IndexBytes     int64 // descriptors, lookups, dictionary, postings

	Buckets []BucketStats
}

// BucketStats is a reading of one bucket.
type BucketStats struct {
	Name        string
	Width       int    // bytes of a point
	Age         uint32 // age cycles and calls of Age; turns, which are a shard's own, are not in it
	Inserts     uint64 // points written, overwriting ones included
	Evictions   uint64 // keys
	Series      int64  // and keys
	OverSeries  uint64 // new series refused because of Limits.Series
	OverMetric  uint64 // new series refused because of Limits.SeriesPerMetric
	Limits      Limits
	Coverage    []Interval         // see Cache.Coverage
	Generations [3]GenerationStats // hot to cold
}

// GenerationStats is a reading of one generation of a bucket. Points and bytes
// leave out what is in blobs, and may still count what vanished since the last
// Maintain.
type GenerationStats struct {
	Keys   int
	Points uint64
	Bytes  int64
}

// Stats reads everything; it walks all series, a shard at a time, to tell the
// generations apart.
func (c *Cache) Stats() Stats {
	st := Stats{MaxBytes: c.maxBytes.Load()}
	byID := *c.byID.Load()
	names := *c.byName.Load()
	gens := make([][3]GenerationStats, len(byID))
	st.IndexBytes = int64(c.perMetric.Bytes())
	for _, s := range c.shards {
		s.mu.Lock()
		s.addStatsLocked(&st, gens)
		s.mu.Unlock()
	}
	for _, b := range byID {
		if names[b.name] != b {
			continue
		}
		bs := BucketStats{Name: b.name, Width: int(b.width.Load()), Age: b.age.Load(), Inserts: b.inserts.Load(),
			Evictions: b.evictions.Load(), Series: b.series.Load(),
			OverSeries: b.overSeries.Load(), OverMetric: b.overMetric.Load(), Limits: *b.limits.Load()}
		bs.Coverage = b.cover.intervals()
		if int(b.id) < len(gens) {
			bs.Generations = gens[b.id]
		}
		st.Buckets = append(st.Buckets, bs)
	}
	return st
}

func (s *shard) addStatsLocked(st *Stats, gens [][3]GenerationStats) {
	st.Series += s.live
	st.Inserted += s.inserted
	st.Overwritten += s.overwritten
	st.Mended += s.mended
	st.Evicted += s.evicted
	st.Taken += s.taken
	st.Popped += s.popped
	st.Removed += s.removed
	st.Erased += s.erased
	st.Reclaimed += s.lost
	st.Evictions += s.evictions
	st.Rebuilds += s.rebuilds
	st.AllocatedBytes += s.bytes
	st.IndexBytes += s.indexBytesLocked()
	addTables(&st.Hot, s.hot.Stats())
	addTables(&st.Partials, s.partials.Stats())
	addTables(&st.Log, s.log.Stats())
	addTables(&st.Dir, s.fix.Stats())
	addTables(&st.Blobs, s.blobs.Stats())
	inBlobs := s.blobs.Stats().Weight
	st.Points += uint64(s.hot.Stats().Weight + s.partials.Stats().Weight + s.log.Stats().Weight + inBlobs)
	st.BlobPoints += uint64(inBlobs)
	st.BlobsWritten += s.blob.written
	st.BlobsRead += s.blob.read
	st.BlobsRestored += s.blob.restored
	st.BlobsRefused += s.blob.refused
	st.BlobsLost += s.blob.lost
	for id := range s.recs.All() {
		r := s.recs.At(uint32(id))
		if r.flags&flagInUse == 0 || int(r.bucket) >= len(gens) {
			continue
		}
		g := &gens[r.bucket][generation(s.ageLocked(s.cache.bucket(r.bucket)), r.touched)-1]
		g.Keys++
		g.Points += uint64(r.points)
		g.Bytes += int64(r.bytes)
	}
}

// indexBytesLocked is what descriptors, lookup, dictionary and postings take.
func (s *shard) indexBytesLocked() int64 {
	return int64(s.recs.Bytes()) + int64(s.after.Bytes()) + int64(s.dirt.Bytes()) + int64(s.outOfOrder.Bytes()) + int64(s.marks.Bytes()) + int64(s.standbys.Bytes()) + int64(s.ids.Bytes()) + s.index.Bytes()
}

func addTables(sum *kvcache.TablesStats, t kvcache.TablesStats) {
	sum.Regions += t.Regions
	sum.LiveBytes += t.LiveBytes
	sum.DeadBytes += t.DeadBytes
	sum.FreeBytes += t.FreeBytes
	sum.Weight += t.Weight
}
