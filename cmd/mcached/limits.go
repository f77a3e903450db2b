package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"mcached/ingest"
	"mcached/mcache"
	"mcached/remotewrite"
)

// bucketLimits is the value of --bucket.limits: what buckets of a name have
// instead of the general limits. It is given once for each bucket, as
// NAME:max-series=N,max-series-per-metric=N.
type bucketLimits map[string]limitsOverride

// limitsOverride leaves a limit that is not said as it is for all.
type limitsOverride struct {
	series, perMetric *natural
}

// Set implements kingpin.Value.
func (l *bucketLimits) Set(s string) error {
	// The limits hold no colon, the name may.
	at := strings.LastIndexByte(s, ':')
	if at < 1 {
		return fmt.Errorf("%q is not NAME:max-series=N,max-series-per-metric=N", s)
	}
	name := s[:at]
	if _, twice := (*l)[name]; twice {
		return fmt.Errorf("bucket %q has limits already", name)
	}
	var o limitsOverride
	for _, part := range strings.Split(s[at+1:], ",") {
		what, value, _ := strings.Cut(part, "=")
		var to **natural
		switch strings.TrimSpace(what) {
		case "max-series":
			to = &o.series
		case "max-series-per-metric":
			to = &o.perMetric
		default:
			return fmt.Errorf("%q is neither max-series=N nor max-series-per-metric=N", part)
		}
		*to = new(natural)
		if err := (*to).Set(strings.TrimSpace(value)); err != nil {
			return fmt.Errorf("%s of bucket %q: %w", strings.TrimSpace(what), name, err)
		}
	}
	if *l == nil {
		*l = bucketLimits{}
	}
	(*l)[name] = o
	return nil
}

// String implements kingpin.Value.
func (l *bucketLimits) String() string {
	if l == nil {
		return ""
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(*l)) {
		var parts []string
		if n := (*l)[name].series; n != nil {
			parts = append(parts, "max-series="+strconv.Itoa(int(*n)))
		}
		if n := (*l)[name].perMetric; n != nil {
			parts = append(parts, "max-series-per-metric="+strconv.Itoa(int(*n)))
		}
		all = append(all, name+":"+strings.Join(parts, ","))
	}
	return strings.Join(all, " ")
}

// IsCumulative tells kingpin that the flag may be repeated.
func (l *bucketLimits) IsCumulative() bool { return true }

// limits are those of every bucket, and of the buckets that have their own.
func (c *config) limits() (all mcache.Limits, named map[string]mcache.Limits) {
	all = mcache.Limits{Series: int(c.bucketMaxSeries), SeriesPerMetric: int(c.bucketMaxPerMetric)}
	named = make(map[string]mcache.Limits, len(c.bucketLimits))
	for name, o := range c.bucketLimits {
		l := all
		if o.series != nil {
			l.Series = int(*o.series)
		}
		if o.perMetric != nil {
			l.SeriesPerMetric = int(*o.perMetric)
		}
		named[name] = l
	}
	return all, named
}

// writeLimits are the bounds on remote writes, and of what is kept of them
// beside the cache.
func writeLimits(c *config) remotewrite.Options {
	return remotewrite.Options{
		MaxBodyBytes: int(c.writeMaxBody), MaxDecodedBytes: int(c.writeMaxDecoded), MaxSamples: int(c.writeMaxSamples),
		MaxLabels: int(c.writeMaxLabels), MaxLabelNameBytes: int(c.writeMaxLabelName), MaxLabelValueBytes: int(c.writeMaxLabelValue),
		MaxNewSeriesPerSecond: int(c.writeMaxNewSeries), MaxAhead: c.writeMaxAhead.std(),
		MaxExemplars: int(c.writeMaxExemplars), MaxExemplarBytes: int(c.writeExemplarSize),
		MaxMetadata: int(c.writeMaxMetadata), MaxMetadataBytes: int(c.writeMetadataSize),
	}
}

// keyLimits are the bounds on keys of time series, of which labels have those
// of remote writes.
func (d *daemon) keyLimits(c *config) ingest.KeyLimits {
	return ingest.KeyLimits{
		MaxKeyBytes: d.maxKeyBytes(c),
		MaxLabels:   int(c.writeMaxLabels), MaxLabelNameBytes: int(c.writeMaxLabelName), MaxLabelValueBytes: int(c.writeMaxLabelValue),
	}
}
