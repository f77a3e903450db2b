package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"

	"mcached/kvcache"
)

// stats is one reading of everything, taken once a scrape, so that the rows
// below are of one moment and each lock is taken once.
type stats struct {
	memory kvcache.MemoryStats
	blobs  kvcache.CacheStats
}

// row is one metric of the daemon's own. Read emits its series: one without
// label values, or one for each set of them, in the order of labels.
type row struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	read       func(s *stats, emit func(v float64, labelValues ...string))
}

// rows is the table of metrics that are read from Stats. /metrics is filled
// from it and METRICS.md is printed from it, so neither can drift.
func rows() []row {
	one := func(f func(s *stats) float64) func(*stats, func(float64, ...string)) {
		return func(s *stats, emit func(float64, ...string)) { emit(f(s)) }
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return []row{
		{"mcached_memory_budget_bytes", "Bytes that the daemon may hold outside the Go heap now.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.memory.BudgetBytes) })},
		{"mcached_memory_used_bytes", "Bytes held outside the Go heap: regions and indexes.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.memory.UsedBytes) })},
		{"mcached_memory_index_bytes", "Bytes of indexes, part of the used bytes.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.memory.SpanBytes) })},
		{"mcached_memory_region_size_bytes", "Size of every region.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.memory.RegionBytes) })},
		{"mcached_memory_regions", "Regions held, by state: in use, or spare (resident but empty).", gauge, []string{"state"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.memory.RegionsInUse), "in_use")
				emit(float64(s.memory.RegionsSpare), "spare")
			}},
		{"mcached_memory_regions_reclaimed_total", "Regions taken from their owners, oldest first, with what was in them.", counter, nil,
			one(func(s *stats) float64 { return float64(s.memory.RegionsReclaimed) })},
		{"mcached_memory_returned_bytes_total", "Bytes given back to the operating system.", counter, nil,
			one(func(s *stats) float64 { return float64(s.memory.BytesReturned) })},
		{"mcached_memory_owners_dropped_total", "Times a shard forgot everything because the budget was below its indexes.", counter, nil,
			one(func(s *stats) float64 { return float64(s.memory.OwnersDropped) })},

		{"mcached_blobs_entries", "Blobs held, expired ones that were not found yet included.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Entries) })},
		{"mcached_blobs_bytes", "Bytes of the blobs' regions by what they hold, and of their index.", gauge, []string{"state"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.blobs.LiveBytes), "live")
				emit(float64(s.blobs.DeadBytes), "dead")
				emit(float64(s.blobs.FreeBytes), "free")
				emit(float64(s.blobs.IndexBytes), "index")
			}},
		{"mcached_blobs_overhead_bytes", "Bytes an average blob costs beside its key and value.", gauge, nil,
			one(func(s *stats) float64 { return s.blobs.OverheadPerEntry() })},
		{"mcached_blobs_gets_total", "Reads of blobs, by result.", counter, []string{"result"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.blobs.Hits), "hit")
				emit(float64(s.blobs.Misses), "miss")
			}},
		{"mcached_blobs_puts_total", "Writes of blobs.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Puts) })},
		{"mcached_blobs_removed_total", "Blobs that left, by reason.", counter, []string{"reason"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.blobs.Deletes), "deleted")
				emit(float64(s.blobs.Expired), "expired")
				emit(float64(s.blobs.Evicted), "evicted")
			}},
		{"mcached_blobs_reinserted_total", "Blobs kept when their region aged out, because they had been read.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Reinserted) })},
		{"mcached_blobs_regions_compacted_total", "Regions whose dead space was won back by copying the rest.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Compacted) })},
		{"mcached_blobs_refused_total", "Writes refused because there was no memory at all.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Refused) })},
	}
}

// statsCollector turns rows into metrics.
type statsCollector struct {
	read  func() *stats
	rows  []row
	descs []*prometheus.Desc // of rows, by index
}

func newStatsCollector(read func() *stats) *statsCollector {
	c := &statsCollector{read: read, rows: rows()}
	for _, r := range c.rows {
		c.descs = append(c.descs, prometheus.NewDesc(r.name, r.help, r.labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *statsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *statsCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.read()
	for i, r := range c.rows {
		r.read(s, func(v float64, labelValues ...string) {
			m, err := prometheus.NewConstMetric(c.descs[i], r.kind, v, labelValues...)
			if err != nil { // a label value that is not UTF-8; the scrape reports it and goes on
				m = prometheus.NewInvalidMetric(c.descs[i], err)
			}
			ch <- m
		})
	}
}

// newRegistry holds all that /metrics shows.
func newRegistry(d *daemon) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("mcached"),
		newStatsCollector(d.readStats),
	)
	r.MustRegister(d.http.collectors()...)
	return r
}

// readStats asks every part once.
func (d *daemon) readStats() *stats {
	return &stats{memory: d.memory.Stats(), blobs: d.blobs.Stats()}
}
