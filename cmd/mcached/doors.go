package main

import (
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/common/version"

	"mcached/ingest"
	"mcached/mcache"
	"mcached/mcache/query"
	"mcached/remotewrite"
)

// seriesLimits are those of the cache's buckets. Nobody but the daemon writes to its own.
func (d *daemon) seriesLimits(c *config) (all mcache.Limits, named map[string]mcache.Limits) {
	all, named = c.limits()
	named[selfBucket] = mcache.Limits{}
	return all, named
}

// openFrontDoors makes what answers requests, with the bounds of the config.
func (d *daemon) openFrontDoors() error {
	c := d.config
	var err error
	if d.admission, err = d.newAdmission(); err != nil {
		return err
	}
	if err := d.openRouter(); err != nil {
		return err
	}
	writes := writeLimits(c)
	writes.Flags, writes.BodyTimeout = writeFlags, min(writeBodyTimeout, c.webReadTimeout.std())
	writes.TenancyHeader, writes.DefaultBucket = c.tenancyHeader, defaultBucket
	writes.Admission, writes.Router, writes.Logger = d.admitWrite, d.writeRouter(), d.log
	d.writes = remotewrite.NewHandler(d.metrics, writes)
	features, _ := c.enableFeatures.features()
	queries := d.queryOptions(c)
	queries.Features, queries.Upstream = features, d.upstreamOptions()
	if c.queryRemember {
		queries.Results = d.answers
	}
	queries.TenancyHeader, queries.DefaultBucket = c.tenancyHeader, defaultBucket
	queries.Metadata, queries.Exemplars, queries.Keys = d.metadata, d.exemplars, d.seriesKeys
	d.queries = d.newQueries(queries)
	if len(d.respListeners) == 0 {
		return nil
	}
	keys := d.keyLimits(c)
	o := ingest.Options{
		Blobs: d.blobs, Memory: d.memory, Metrics: d.metrics, Bucket: defaultBucket,
		Password: c.respPassword, NoProtectedMode: !bool(c.respProtected), MaxConnections: d.connections.resp, IdleTimeout: c.respIdleTimeout.std(), MaxTrackedKeys: int(c.respMaxTracked), MaxTrackedBytes: d.heapPart(),
		MaxKeyBytes: keys.MaxKeyBytes, MaxLabels: keys.MaxLabels, MaxLabelNameBytes: keys.MaxLabelNameBytes, MaxLabelValueBytes: keys.MaxLabelValueBytes,
		Flags: writeFlags, Admission: d.admission, Logger: d.log, Version: version.Version, TLS: c.respCertificate.config(),
		Parameters: d.shareParameters(), Cluster: c.clusterOptions(),
		MaxBulkBytes: int(c.respMaxValue), ScriptTimeout: c.scriptTimeout.std(), MaxScriptBytes: int(c.scriptMemory), MaxScriptSteps: int(c.scriptSteps),
	}
	if o.Cluster != nil {
		o.Cluster.Series, o.Cluster.Reassure = d.seriesOfAll, d.reassure
	}
	if c.memorySize != 0 { // else the pressure controller would undo it
		o.SetBudget = d.setBudget
	}
	d.resp, err = ingest.NewServer(o)
	return err
}

// queryOptions are those of whoever is asked: of the API, and of the one that
// answers for the daemon's own metrics.
func (d *daemon) queryOptions(c *config) query.Options {
	return query.Options{
		Timeout: c.queryTimeout.std(), MaxSamples: int(c.queryMaxSamples), MaxSeries: int(c.queryMaxSeries),
		MaxQueryBytes: int(c.queryMaxBody), MaxQueryFlag: "--query.max-body-size", LimitFlags: queryFlags,
		MaxConcurrency: int(c.queryMaxConcurrency), MaxWaiting: d.maxWaiting(), LookbackDelta: c.queryLookback.std(), SlowerThan: c.querySlow.std(),
		CORSOrigin: c.corsOrigin.Regexp, BuildInfo: buildInfo(), Flags: func() map[string]string { return *d.flags.Load() },
		Admission: d.admitRead, Gzip: newGzip, GzipLocal: bool(c.compressLocal), Logger: d.log,
	}
}

// newGzip makes what compresses answers. This library, which Prometheus uses as
// well, takes two thirds of the standard one's time and sends 5 % less.
func newGzip() query.Gzip {
	w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // the level exists
	return w
}

// defaultBucket takes what no tenant's header names, the daemon's own metrics included.
const defaultBucket = "default"

// Three kinds of readers wait in queues of their own, and in a cluster the
// questions of other members in a fourth. However many come, a fifth of the
// connections is left to those who write and to health checks: what waits too long
// is rejected, not left unaccepted.
const (
	maxWaiting  = 1000
	waitingPart = 5
)

func (d *daemon) maxWaiting() int {
	return max(1, min(maxWaiting, int(d.config.webMaxConnections)/waitingPart))
}
