package query

import (
	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// LabelCache keeps the label sets that queries read most recently, as
// Prometheus represents them: one string a series. The cache of the series
// keeps labels outside the Go heap; building a set from there costs one
// allocation a label, which is most of the price of an instant query.
//
// A SeriesID is never given to another series, so that what is kept can not be
// wrong, only useless when its series is gone.
//
// It holds two generations. An eighth of it is for listings.
type LabelCache struct {
	maxBytes int
	shards   [labelShards]generations[mcache.SeriesID, labels.Labels]
	listings listings
}

// labelShards is for two to four queries on each of some 32 threads to seldom meet.
const labelShards = 64

// labelEntryBytes is what a set takes in a map beside its text: 24 bytes of key
// and string header, over a load of about 0.8, twice for what growing leaves free.
const labelEntryBytes = 64

// NewLabelCache returns a cache of at most maxBytes.
func NewLabelCache(maxBytes int) *LabelCache {
	ofListings := maxBytes / 8
	c := &LabelCache{maxBytes: maxBytes, listings: newListings(ofListings / 2)}
	for i := range c.shards {
		s := &c.shards[i]
		s.maxBytes = max((maxBytes-ofListings)/2/labelShards, 1)
		s.size = func(_ mcache.SeriesID, ls labels.Labels) int { return int(ls.ByteSize()) + labelEntryBytes }
	}
	return c
}

// usualLabelBytes is about what a set takes, its entry included.
const usualLabelBytes = 256 + labelEntryBytes

// forSeries returns the cache, or nil for a query over more series than it holds: none of
// these sets would be there when it is asked again, nor what others had put in.
func (c *LabelCache) forSeries(n int) *LabelCache {
	if c == nil || n > c.maxBytes/usualLabelBytes {
		return nil
	}
	return c
}

func (c *LabelCache) shard(id mcache.SeriesID) *generations[mcache.SeriesID, labels.Labels] {
	// Ids carry a place in their low bits and small numbers above: spread both.
	h := uint64(id) * 0x9e3779b97f4a7c15
	return &c.shards[h>>(64-6)]
}

func (c *LabelCache) get(id mcache.SeriesID) (labels.Labels, bool) { return c.shard(id).get(id) }

func (c *LabelCache) put(id mcache.SeriesID, ls labels.Labels) { c.shard(id).put(id, ls) }

// labelReader reads label sets, one after the other, for one goroutine.
type labelReader struct {
	cache   *mcache.Cache
	kept    *LabelCache // may be nil
	scratch []mcache.Label
	builder labels.ScratchBuilder
}

// read returns the labels of id, or false if the series is gone and its labels
// are not kept either.
func (r *labelReader) read(id mcache.SeriesID) (labels.Labels, bool) {
	if r.kept != nil {
		if ls, ok := r.kept.get(id); ok {
			return ls, true
		}
	}
	var ok bool
	r.scratch, ok = r.cache.Labels(id, r.scratch[:0])
	if !ok {
		return labels.EmptyLabels(), false
	}
	r.builder.Reset()
	for _, l := range r.scratch {
		r.builder.Add(l.Name, l.Value)
	}
	ls := r.builder.Labels()
	if r.kept != nil {
		r.kept.put(id, ls)
	}
	return ls, true
}
