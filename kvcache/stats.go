package kvcache

// CacheStats is a reading of a Cache. Bytes of records include their headers;
// LiveBytes + DeadBytes + FreeBytes is Regions × the region size.
type CacheStats struct {
	Entries      int // expired ones that were not found yet included
	Expiring     int // of those, the ones that have a time to live
	Regions      int
	LiveBytes    int64
	PaddingBytes int64 // of the live ones: records are multiples of 8 bytes
	// ProbationBytes are the live ones of records that were not read again yet.
	ProbationBytes int64
	DeadBytes      int64 // deleted or overwritten, not yet compacted
	FreeBytes      int64 // of regions, not yet written
	Indexes        int
	IndexBytes     int64

	Hits, Misses uint64 // of Get
	Puts         uint64 // by Put and Update
	Overwritten  uint64 // of those, written where the old value was
	Deletes      uint64
	Evicted      uint64 // entries that vanished with their region
	Reinserted   uint64 // entries kept when their region was evicted, because they were read
	Promoted     uint64 // of these, those moved out of probation
	Returned     uint64 // entries written soon after probation dropped them, and so kept out of it
	Spared       uint64 // regions kept as they were, because nearly all in them was read
	Expired      uint64
	Compacted    uint64 // regions
	Reclaimed    uint64 // regions that held entries when they were taken
	Waited       uint64 // times a writer evicted others' regions itself
	Refused      uint64 // writes refused, because there was no memory at all

	IndexesGrown, IndexesShrunk uint64
	IndexesStayed               uint64 // times one could not be resized, for want of memory
	Passes                      uint64 // over all indexes of a shard, so that places can be used again
}

// OverheadPerEntry is what an average entry costs beside its key and value, in
// bytes: its header, its padding and its share of the index. A time to live is
// 8 bytes more, a key of more than 255 bytes 2, neither of which is counted.
func (s CacheStats) OverheadPerEntry() float64 {
	if s.Entries == 0 {
		return 0
	}
	return headerBytes + float64(s.PaddingBytes+s.IndexBytes)/float64(s.Entries)
}

// Stats reads the sums of all shards, one after the other.
func (c *Cache) Stats() CacheStats {
	var sum CacheStats
	c.addTo(&sum)
	return sum
}

func (c *Cache) addTo(sum *CacheStats) {
	for i := range c.shards {
		c.shards[i].addTo(sum)
	}
}

func (s *shard) addTo(sum *CacheStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, log := range s.logs {
		t := log.Stats()
		sum.Entries += int(weightRecords(t.Weight))
		sum.Expiring += int(weightExpiring(t.Weight))
		sum.Regions += t.Regions
		sum.LiveBytes += t.LiveBytes
		sum.PaddingBytes += t.PaddingBytes
		sum.DeadBytes += t.DeadBytes
		sum.FreeBytes += t.FreeBytes
	}
	sum.ProbationBytes += s.logs[probation].live
	for x := range s.dir.all() {
		sum.Indexes++
		sum.IndexBytes += int64(x.span.Len())
	}
	c := &s.count
	sum.Hits += c.hits
	sum.Misses += c.misses
	sum.Puts += c.puts
	sum.Overwritten += c.inPlace
	sum.Deletes += c.deletes
	sum.Evicted += c.evicted
	sum.Reinserted += c.reinserted
	sum.Promoted += c.promoted
	sum.Returned += c.returned
	sum.Spared += c.spared
	sum.Expired += c.expired
	sum.Compacted += c.compacted
	sum.Reclaimed += c.regions
	sum.Waited += c.waited
	sum.Refused += c.refused
	sum.IndexesGrown += c.grown
	sum.IndexesShrunk += c.shrunk
	sum.IndexesStayed += c.stayed
	sum.Passes += c.passes
}
