package main

import (
	"time"

	"mcached/kvcache"
)

// metric is a row of /metrics and of METRICS.md, as each package lists its own.
type metric = kvcache.Metric

// single reads a metric without labels.
func single(v float64) func(func(float64, ...string)) {
	return func(emit func(float64, ...string)) { emit(v) }
}

// ownMetrics are those of the daemon itself, of no package's Stats.
func (s *stats) ownMetrics() []metric {
	return []metric{
		{"mcached_memory_heap_limit_bytes", "gauge", "Soft limit of the Go heap, which is not part of the budget.", nil,
			single(float64(s.heapLimit))},
		{"mcached_memory_account_bytes", "gauge", "Bytes in use, by account: regions and indexes of metrics, of what was evicted of them (overflow), of Redis clients' values (blobs), of what is remembered of queries (answers).", []string{"account"},
			func(emit func(float64, ...string)) {
				for _, a := range s.accounts {
					emit(float64(a.UsedBytes), a.name)
				}
			}},
		{"mcached_memory_account_share_bytes", "gauge", "Bytes that an account may hold when memory is short; it may use all that is free until then.", []string{"account"},
			func(emit func(float64, ...string)) {
				for _, a := range s.accounts {
					emit(float64(a.ShareBytes), a.name)
				}
			}},
	}
}

func (s *snapshotStats) metrics() []metric {
	return []metric{
		{"mcached_snapshot_last_success_timestamp_seconds", "gauge", "When the newest complete snapshot was begun, by this daemon or one before it; 0 if there is none.", nil,
			single(secondsOf(s.lastSuccess))},
		{"mcached_snapshot_duration_seconds", "gauge", "How long this daemon's last snapshot took to write; 0 before the first.", nil,
			single(s.took.Seconds())},
		{"mcached_snapshot_size_bytes", "gauge", "Size of the newest snapshot.", nil,
			single(float64(s.bytes))},
		{"mcached_snapshot_errors_total", "counter", "Snapshots that were not written (save), or not read as a whole (load).", []string{"op"},
			func(emit func(float64, ...string)) {
				emit(float64(s.saveErrors), "save")
				emit(float64(s.loadErrors), "load")
			}},
	}
}

func (s *reloadStats) metrics() []metric {
	return []metric{
		{"mcached_config_last_reload_successful", "gauge", "1 if all files are in force as they are now; 0 if a changed file, or the last reload, was rejected.", nil,
			single(s.right)},
		{"mcached_config_last_reload_success_timestamp_seconds", "gauge", "When the daemon was last started or reloaded without a failure.", nil,
			single(s.lastSuccess)},
		{"mcached_config_reloads_total", "counter", "Reloads that were asked for, by result.", []string{"result"},
			func(emit func(float64, ...string)) {
				emit(s.total-s.failed, "success")
				emit(s.failed, "failure")
			}},
	}
}

// secondsOf is Unix seconds, 0 for no time.
func secondsOf(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
