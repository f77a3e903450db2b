package mcache

import (
	"slices"
	"strconv"
)

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
func (s *Stats) Metrics() []Metric {
	return slices.Concat(s.seriesMetrics(), s.overflowMetrics(), s.bucketMetrics())
}

func (s *Stats) seriesMetrics() []Metric {
	return []Metric{
		{"mcached_series", "gauge", "Series held.", []string{"bucket"},
			func(emit func(float64, ...string)) {
				for _, b := range s.Buckets {
					emit(float64(b.Series), b.Name)
				}
			}},
		{"mcached_series_points", "gauge", "Samples held, by generation: 1 is hot, 3 is cold, overflow is evicted and kept compressed.", []string{"generation"},
			func(emit func(float64, ...string)) {
				s.byGeneration(func(g GenerationStats) float64 { return float64(g.Points) })(emit)
				emit(float64(s.BlobPoints), "overflow")
			}},
		{"mcached_series_keys", "gauge", "Series and raw keys held, by generation.", []string{"generation"},
			s.byGeneration(func(g GenerationStats) float64 { return float64(g.Keys) })},
		{"mcached_series_generation_bytes", "gauge", "Bytes of samples, by generation.", []string{"generation"},
			s.byGeneration(func(g GenerationStats) float64 { return float64(g.Bytes) })},
		{"mcached_series_bytes", "gauge", "Bytes of the metric cache by what holds them: heads that are written, blocks that are not full (partial), full ones, directories of blocks, the index, evicted series (overflow).", []string{"part"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Hot.LiveBytes), "heads")
				emit(float64(s.Partials.LiveBytes), "partial")
				emit(float64(s.Log.LiveBytes), "blocks")
				emit(float64(s.Dir.LiveBytes), "directories")
				emit(float64(s.IndexBytes), "index")
				emit(float64(s.Blobs.LiveBytes), "overflow")
			}},
		{"mcached_series_part_points", "gauge", "Samples held, by what holds them. The bytes of blocks and directories, divided by the samples in blocks, are what one more sample takes.", []string{"part"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Hot.Weight), "heads")
				emit(float64(s.Partials.Weight), "partial")
				emit(float64(s.Log.Weight), "blocks")
				emit(float64(s.BlobPoints), "overflow")
			}},
		{"mcached_series_dead_bytes", "gauge", "Bytes of the metric cache's regions that are deleted and not yet compacted.", nil,
			single(float64(s.Hot.DeadBytes + s.Partials.DeadBytes + s.Log.DeadBytes + s.Dir.DeadBytes + s.Blobs.DeadBytes))},
		{"mcached_series_free_bytes", "gauge", "Bytes of the metric cache's regions that nothing was written to yet.", nil,
			single(float64(s.Hot.FreeBytes + s.Partials.FreeBytes + s.Log.FreeBytes + s.Dir.FreeBytes + s.Blobs.FreeBytes))},
		{"mcached_series_samples_inserted_total", "counter", "New samples. Those held are these less all that left.", nil,
			single(float64(s.Inserted))},
		{"mcached_series_samples_overwritten_total", "counter", "Samples that replaced one of the same time.", nil,
			single(float64(s.Overwritten))},
		{"mcached_series_samples_mended_total", "counter", "Out-of-order samples merged into sealed blocks.", nil,
			single(float64(s.Mended))},
		{"mcached_series_samples_left_total", "counter", "Samples that left, by how: evicted, taken, popped, removed with their bucket, erased (deleted, or replaced by one of another kind), or reclaimed with their memory.", []string{"how"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Evicted), "evicted")
				emit(float64(s.Taken), "taken")
				emit(float64(s.Popped), "popped")
				emit(float64(s.Removed), "removed")
				emit(float64(s.Erased), "erased")
				emit(float64(s.Reclaimed), "reclaimed")
			}},
		{"mcached_series_evictions_total", "counter", "Series and raw keys evicted, those moved to overflow included.", nil,
			single(float64(s.Evictions))},
		{"mcached_series_index_rebuilds_total", "counter", "Times a shard's index was rebuilt to drop tombstones.", nil,
			single(float64(s.Rebuilds))},
	}
}

func (s *Stats) overflowMetrics() []Metric {
	return []Metric{
		{"mcached_overflow_written_total", "counter", "Series moved to overflow.", nil,
			single(float64(s.BlobsWritten))},
		{"mcached_overflow_read_total", "counter", "Reads of series that included overflow.", nil,
			single(float64(s.BlobsRead))},
		{"mcached_overflow_restored_total", "counter", "Series moved back from overflow, for an out-of-order sample or a deletion.", nil,
			single(float64(s.BlobsRestored))},
		{"mcached_overflow_refused_total", "counter", "Series evicted whole because there was no memory to compress them.", nil,
			single(float64(s.BlobsRefused))},
		{"mcached_overflow_samples_lost_total", "counter", "Samples of overflow that were reclaimed; part of all reclaimed.", nil,
			single(float64(s.BlobsLost))},
	}
}

func (s *Stats) bucketMetrics() []Metric {
	return []Metric{
		{"mcached_bucket_age", "gauge", "Times a bucket has aged.", []string{"bucket"},
			func(emit func(float64, ...string)) {
				for _, b := range s.Buckets {
					emit(float64(b.Age), b.Name)
				}
			}},
		{"mcached_bucket_covered_from_timestamp_seconds", "gauge", "Since when all that was written to a bucket is here, or known to be missing; not there if that is not known of any time.", []string{"bucket"},
			func(emit func(float64, ...string)) {
				for _, b := range s.Buckets {
					if n := len(b.Coverage); n > 0 {
						emit(float64(b.Coverage[n-1].From)/1000, b.Name)
					}
				}
			}},
		{"mcached_bucket_coverage_gaps", "gauge", "Gaps between the times that a bucket covers: the daemon was down, or nothing was written, and nobody caught up.", []string{"bucket"},
			func(emit func(float64, ...string)) {
				for _, b := range s.Buckets {
					emit(float64(max(len(b.Coverage)-1, 0)), b.Name)
				}
			}},
		{"mcached_bucket_max_series", "gauge", "Series a bucket may have, and of one metric name; not there if there is no limit.", []string{"bucket", "of"},
			func(emit func(float64, ...string)) {
				for _, b := range s.Buckets {
					if b.Limits.Series > 0 {
						emit(float64(b.Limits.Series), b.Name, "bucket")
					}
					if b.Limits.SeriesPerMetric > 0 {
						emit(float64(b.Limits.SeriesPerMetric), b.Name, "metric")
					}
				}
			}},
		{"mcached_bucket_series_refused_total", "counter", "New series that a bucket's limits rejected, whoever wrote them, each attempt counted.", []string{"bucket", "of"},
			func(emit func(float64, ...string)) {
				for _, b := range s.Buckets {
					emit(float64(b.OverSeries), b.Name, "bucket")
					emit(float64(b.OverMetric), b.Name, "metric")
				}
			}},
		{"mcached_bucket_samples_total", "counter", "Samples written to a bucket, those that overwrote others included.", []string{"bucket"},
			func(emit func(float64, ...string)) {
				for _, b := range s.Buckets {
					emit(float64(b.Inserts), b.Name)
				}
			}},
	}
}

// Metrics are the rows of s.
func (s *DirtyStats) Metrics() []Metric {
	return []Metric{
		{"mcached_forward_dirty_samples", "gauge", "Samples that --forward.url has not acknowledged, those in flight included.", nil,
			single(float64(s.Points))},
		{"mcached_forward_dirty_limit_samples", "gauge", "Samples that may wait for --forward.url; beyond it writes are rejected.", nil,
			single(float64(s.MaxPoints))},
		{"mcached_forward_refused_total", "counter", "Writes rejected because too many samples waited for --forward.url.", nil,
			single(float64(s.Refused))},
	}
}

// byGeneration sums f over the buckets, generation by generation.
func (s *Stats) byGeneration(f func(GenerationStats) float64) func(func(float64, ...string)) {
	return func(emit func(float64, ...string)) {
		var sums [3]float64
		for _, b := range s.Buckets {
			for i, g := range b.Generations {
				sums[i] += f(g)
			}
		}
		for i, v := range sums {
			emit(v, strconv.Itoa(i+1))
		}
	}
}
