package remotewrite

import (
	"errors"
	"sync/atomic"

	"mcached/remotewrite/wire"
)

// Stats are counters since the Handler was made.
type Stats struct {
	Requests       uint64 // of any outcome
	RequestsV1     uint64 // processed, wholly or in part
	RequestsV2     uint64
	Refused400     uint64 // including those written in part
	Refused413     uint64
	Refused415     uint64
	Refused503     uint64
	RefusedOther   uint64
	NotAdmitted    uint64 // requests that admission had no bytes for
	SlowBodies     uint64 // requests whose body took too long
	NewSeriesFlood uint64 // requests with more new series than MaxNewSeriesPerSecond allows
	BodyBytes      uint64 // compressed
	DecodedBytes   uint64
	SeriesReceived uint64 // those with samples
	SeriesUnknown  uint64 // of those, the ones that took the slow path
	Samples        uint64 // written
	Histograms     uint64 // written
	Exemplars      uint64 // written

	// Elements not written, by reason.
	InvalidSeries     uint64
	EmptySeries       uint64
	SamplesInFuture   uint64 // and histograms
	SeriesOverLimit   uint64 // new ones, of the bucket
	MetricOverLimit   uint64 // new ones, of their metric
	InvalidHistograms uint64
	InvalidExemplars  uint64
	SeriesRefused     uint64
	MetadataNotStored uint64 // of metrics beyond MaxMetadata

	// EarlySamples were written, histograms among them, with a time before
	// March 1973: one in seconds, or none.
	EarlySamples uint64
}

type counters struct {
	requests, v1, v2, notAdmitted, slowBodies, flood            atomic.Uint64
	refused400, refused413, refused415, refused503, refusedElse atomic.Uint64
	bodyBytes, decodedBytes, series, unknown                    atomic.Uint64
	samples, histograms, exemplars, early                       atomic.Uint64
	problems                                                    [reasons]atomic.Uint64
}

func (c *counters) add(in *intake) {
	if in.protocol == wire.V1 {
		c.v1.Add(1)
	} else {
		c.v2.Add(1)
	}
	c.decodedBytes.Add(uint64(in.size()))
	c.series.Add(uint64(in.batch.Len()))
	c.unknown.Add(uint64(len(in.batch.Missing())))
	c.samples.Add(uint64(in.written))
	c.histograms.Add(uint64(in.writtenHistograms))
	c.exemplars.Add(uint64(in.writtenExemplars))
	if in.early > 0 {
		c.early.Add(uint64(in.early))
	}
	if errors.Is(in.problems.retry, errNewSeries) {
		c.flood.Add(1)
	}
	for r, n := range in.problems.count {
		if n > 0 {
			c.problems[r].Add(uint64(n))
		}
	}
}

// addPrinted is add for a printed part with so many series that are known: the others
// come again.
func (c *counters) addPrinted(in *intake, series int) {
	c.decodedBytes.Add(uint64(len(in.decoded)))
	c.series.Add(uint64(series))
	c.samples.Add(uint64(in.written))
}

func (c *counters) refused(status int) {
	switch status {
	case 400:
		c.refused400.Add(1)
	case 413:
		c.refused413.Add(1)
	case 415:
		c.refused415.Add(1)
	case 503:
		c.refused503.Add(1)
	default:
		c.refusedElse.Add(1)
	}
}

// Stats reads the counters, each by itself.
func (h *Handler) Stats() Stats {
	c := &h.counters
	h.meta.mu.RLock()
	notStored := h.meta.refused
	h.meta.mu.RUnlock()
	return Stats{
		Requests: c.requests.Load(), RequestsV1: c.v1.Load(), RequestsV2: c.v2.Load(),
		Refused400: c.refused400.Load(), Refused413: c.refused413.Load(), Refused415: c.refused415.Load(),
		Refused503: c.refused503.Load(), RefusedOther: c.refusedElse.Load(),
		NotAdmitted: c.notAdmitted.Load(), SlowBodies: c.slowBodies.Load(), NewSeriesFlood: c.flood.Load(),
		BodyBytes: c.bodyBytes.Load(), DecodedBytes: c.decodedBytes.Load(),
		SeriesReceived: c.series.Load(), SeriesUnknown: c.unknown.Load(),
		Samples: c.samples.Load(), Histograms: c.histograms.Load(), Exemplars: c.exemplars.Load(),
		InvalidSeries:     c.problems[reasonLabels].Load(),
		EmptySeries:       c.problems[reasonEmpty].Load(),
		SamplesInFuture:   c.problems[reasonFuture].Load(),
		SeriesOverLimit:   c.problems[reasonSeriesLimit].Load(),
		MetricOverLimit:   c.problems[reasonMetricLimit].Load(),
		InvalidHistograms: c.problems[reasonHistograms].Load(),
		InvalidExemplars:  c.problems[reasonExemplars].Load(),
		SeriesRefused:     c.problems[reasonOther].Load(),
		MetadataNotStored: notStored,
		EarlySamples:      c.early.Load(),
	}
}
