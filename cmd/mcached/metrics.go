package main

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"

	"mcached/ingest"
	"mcached/ingest/admission"
	"mcached/kvcache"
	"mcached/kvcache/pressure"
	"mcached/mcache"
	"mcached/mcache/query"
	"mcached/remotewrite"
	"mcached/remotewrite/route"
	"mcached/remotewrite/send"
)

// stats is one reading of everything, taken once a scrape, so that the rows
// below are of one moment and each lock is taken once.
type stats struct {
	memory    kvcache.MemoryStats
	pressure  pressure.Stats
	blobs     kvcache.CacheStats
	series    mcache.Stats
	write     remotewrite.Stats
	query     query.Stats
	resp      ingest.Stats
	admission admission.Stats
	forward   *send.ForwardStats // nil: nothing is forwarded
	dirty     mcache.DirtyStats
	snapshot  *snapshotStats // nil: there is none
	cluster   *clusterStats  // nil: the daemon is alone
	route     *route.Stats   // likewise, and
	handover  *route.HandoverStats
	reload    reloadStats
	heapLimit int64 // bytes
	accounts  []accountStats

	// fanOut is nil if the daemon is alone.
	fanOut *query.FanOutStats
}

// accountStats is one account of the memory.
type accountStats struct {
	name string
	kvcache.AccountStats
}

// metrics are the rows that this reading has, as each part lists its own.
func (s *stats) metrics() []metric {
	parts := [][]metric{s.memory.Metrics(), s.ownMetrics(), s.pressure.Metrics(), s.series.Metrics(), s.write.Metrics()}
	if s.forward != nil {
		parts = append(parts, s.forward.Metrics(), s.dirty.Metrics())
	}
	parts = append(parts, s.reload.metrics())
	if s.snapshot != nil {
		parts = append(parts, s.snapshot.metrics())
	}
	if s.cluster != nil {
		parts = append(parts, s.cluster.metrics(), s.route.Metrics(), s.handover.Metrics())
	}
	if s.fanOut != nil {
		parts = append(parts, s.fanOut.Metrics())
	}
	parts = append(parts, s.query.Metrics(), s.resp.Metrics(), s.admission.Metrics(), s.blobs.Metrics())
	return slices.Concat(parts...)
}

// rows are all that a daemon may have, for the table and for descriptions.
// /metrics is filled from the same, so neither can drift.
func rows() []metric {
	return (&stats{forward: &send.ForwardStats{}, snapshot: &snapshotStats{}, cluster: &clusterStats{}, route: &route.Stats{}, handover: &route.HandoverStats{}, fanOut: &query.FanOutStats{}}).metrics()
}

// statsCollector turns rows into metrics.
type statsCollector struct {
	read  func() *stats
	descs map[string]*prometheus.Desc // by name
}

func newStatsCollector(read func() *stats) *statsCollector {
	c := &statsCollector{read: read, descs: map[string]*prometheus.Desc{}}
	for _, r := range rows() {
		c.descs[r.Name] = prometheus.NewDesc(r.Name, r.Help, r.Labels, nil)
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
	for _, r := range c.read().metrics() {
		desc, kind := c.descs[r.Name], prometheus.GaugeValue
		if r.Kind == "counter" {
			kind = prometheus.CounterValue
		}
		r.Read(func(v float64, labelValues ...string) {
			m, err := prometheus.NewConstMetric(desc, kind, v, labelValues...)
			if err != nil { // a label value that is not UTF-8; the scrape reports it and goes on
				m = prometheus.NewInvalidMetric(desc, err)
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
	s := &stats{
		memory: d.memory.Stats(), pressure: d.pressure.Stats(), blobs: d.blobs.Stats(), series: d.metrics.Stats(),
		write: d.writes.Stats(), query: d.queries.Stats(), admission: d.admission.Stats(), heapLimit: d.heapLimit.Load(),
	}
	for _, a := range []struct {
		name    string
		account kvcache.Account
	}{{"metrics", accountMetrics}, {"overflow", accountOverflow}, {"blobs", accountBlobs}, {"answers", accountAnswers}} {
		s.accounts = append(s.accounts, accountStats{a.name, d.memory.Account(a.account)})
	}
	if d.forwarder != nil {
		f := d.forwarder.Stats()
		s.forward, s.dirty = &f, d.metrics.Dirty()
	}
	if d.resp != nil {
		s.resp = d.resp.Stats()
	}
	s.reload = d.reloader.stats()
	if d.snapshot != nil {
		st := d.snapshot.stats()
		s.snapshot = &st
	}
	if d.node != nil {
		r := d.router.Stats()
		var h route.HandoverStats
		if d.handover != nil {
			h = d.handover.Stats()
		}
		s.cluster, s.route, s.handover = &clusterStats{d.node.Stats()}, &r, &h
	}
	if f := d.queries.FanOut(); f != nil {
		st := f.Stats()
		s.fanOut = &st
	}
	return s
}
