package kvcache

// Metric describes a metric of the package's Stats, and reads it. It is an alias
// of a type without a name, so that packages which may not import each other,
// and know nothing of who shows their metrics, agree on it.
type Metric = struct {
	Name, Kind, Help string   // Kind is gauge or counter
	Labels           []string // their names
	// Read calls emit for each series, with the values of the labels in their order.
	Read func(emit func(v float64, labelValues ...string))
}

// single reads a metric without labels.
func single(v float64) func(func(float64, ...string)) {
	return func(emit func(float64, ...string)) { emit(v) }
}

// Metrics are the rows of s.
func (s *MemoryStats) Metrics() []Metric {
	return []Metric{
		{"mcached_memory_budget_bytes", "gauge", "Bytes that the daemon may hold outside the Go heap now.", nil,
			single(float64(s.BudgetBytes))},
		{"mcached_memory_used_bytes", "gauge", "Bytes held outside the Go heap: regions and indexes.", nil,
			single(float64(s.UsedBytes))},
		{"mcached_memory_index_bytes", "gauge", "Bytes of indexes, part of the used bytes.", nil,
			single(float64(s.SpanBytes))},
		{"mcached_memory_region_size_bytes", "gauge", "Size of every region.", nil,
			single(float64(s.RegionBytes))},
		{"mcached_memory_regions", "gauge", "Regions held, by state: in use, or spare (resident but empty).", []string{"state"},
			func(emit func(float64, ...string)) {
				emit(float64(s.RegionsInUse), "in_use")
				emit(float64(s.RegionsSpare), "spare")
			}},
		{"mcached_memory_regions_reclaimed_total", "counter", "Regions reclaimed with all that was in them, the oldest first.", nil,
			single(float64(s.RegionsReclaimed))},
		{"mcached_memory_returned_bytes_total", "counter", "Bytes returned to the operating system.", nil,
			single(float64(s.BytesReturned))},
		{"mcached_memory_owners_dropped_total", "counter", "Times a shard dropped everything because the budget was below its indexes.", nil,
			single(float64(s.OwnersDropped))},
	}
}

// Metrics are the rows of s.
func (s *CacheStats) Metrics() []Metric {
	return []Metric{
		{"mcached_blobs_entries", "gauge", "Redis clients' values (blobs) held, those that expired and were not removed yet included.", nil,
			single(float64(s.Entries))},
		{"mcached_blobs_bytes", "gauge", "Bytes of the blobs' regions by what they hold, and of their index.", []string{"state"},
			func(emit func(float64, ...string)) {
				emit(float64(s.LiveBytes), "live")
				emit(float64(s.DeadBytes), "dead")
				emit(float64(s.FreeBytes), "free")
				emit(float64(s.IndexBytes), "index")
			}},
		{"mcached_blobs_overhead_bytes", "gauge", "Bytes an average blob costs beside its key and value: header, padding, its share of the index.", nil,
			single(s.OverheadPerEntry())},
		{"mcached_blobs_gets_total", "counter", "Reads of blobs, by result.", []string{"result"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Hits), "hit")
				emit(float64(s.Misses), "miss")
			}},
		{"mcached_blobs_puts_total", "counter", "Writes of blobs.", nil,
			single(float64(s.Puts))},
		{"mcached_blobs_removed_total", "counter", "Blobs that left, by reason.", []string{"reason"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Deletes), "deleted")
				emit(float64(s.Expired), "expired")
				emit(float64(s.Evicted), "evicted")
			}},
		{"mcached_blobs_reinserted_total", "counter", "Blobs kept when their region was evicted, because they had been read.", nil,
			single(float64(s.Reinserted))},
		{"mcached_blobs_promoted_total", "counter", "Of these, blobs moved out of probation.", nil,
			single(float64(s.Promoted))},
		{"mcached_blobs_returned_total", "counter", "Blobs written again soon after probation evicted them; they skip it (ghost hits).", nil,
			single(float64(s.Returned))},
		{"mcached_blobs_probation_bytes", "gauge", "Bytes of blobs that were not read since they were written.", nil,
			single(float64(s.ProbationBytes))},
		{"mcached_blobs_regions_compacted_total", "counter", "Regions compacted: live entries are copied out, and the region is free.", nil,
			single(float64(s.Compacted))},
		{"mcached_blobs_refused_total", "counter", "Writes rejected because there was no memory at all.", nil,
			single(float64(s.Refused))},
	}
}
