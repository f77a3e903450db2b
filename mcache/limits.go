package mcache

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// A bucket may be held to a number of series, and to a number of them of one
// metric name. Series are counted for as long as they are in the index: one of
// which only a blob is left counts, one that was evicted whole, or of which
// nothing was left when its shard was pruned, does not. A claim is made before
// the index is touched, so that what is refused leaves no text in the
// dictionary, however often it is tried.

// Limits bound the series of one bucket; 0 is no bound. Series that are there
// are written whatever their number: a limit refuses new ones.
type Limits struct {
	// Series with labels, and keys of the raw API.
	Series int
	// SeriesPerMetric with the same value of __name__.
	SeriesPerMetric int
}

func (l Limits) check() error {
	if l.Series < 0 || l.SeriesPerMetric < 0 {
		return fmt.Errorf("mcache: limits must not be negative, got %d series and %d of a metric", l.Series, l.SeriesPerMetric)
	}
	return nil
}

// bucketLimits are those of all buckets, and of some by name.
type bucketLimits struct {
	all   Limits
	named map[string]Limits
}

func (l *bucketLimits) of(bucket string) Limits {
	if l, ok := l.named[bucket]; ok {
		return l
	}
	return l.all
}

// SetLimits changes the limits of Options, also of the buckets that are there:
// what they hold stays. Series of one metric name are counted only where they
// are limited, so that this limit can be changed in a bucket that is there, but
// neither begun nor given up: the error names such buckets, whose limit of that
// kind stays as it was. All else is in force then.
func (c *Cache) SetLimits(all Limits, named map[string]Limits) error {
	next := bucketLimits{all, maps.Clone(named)}
	if err := next.check(); err != nil {
		return err
	}
	c.bucketsMu.Lock()
	defer c.bucketsMu.Unlock()
	c.limits = next
	var kept []string
	for name, b := range *c.byName.Load() {
		l, was := next.of(name), *b.limits.Load()
		if (l.SeriesPerMetric > 0) != (was.SeriesPerMetric > 0) {
			l.SeriesPerMetric = was.SeriesPerMetric
			kept = append(kept, name)
		}
		b.limits.Store(&l)
	}
	if len(kept) > 0 {
		slices.Sort(kept)
		return fmt.Errorf("mcache: a limit of series of one metric cannot be added to, or removed from, existing buckets: %q", kept)
	}
	return nil
}

func (l *bucketLimits) check() error {
	if err := l.all.check(); err != nil {
		return err
	}
	for name, l := range l.named {
		if err := l.check(); err != nil {
			return fmt.Errorf("%w, for bucket %q", err, name)
		}
	}
	return nil
}

// claim is what one series takes of its bucket's limits.
type claim struct {
	bucket *bucket
	metric uint64 // key in Cache.perMetric
	named  bool   // metric is counted
}

// claimOf is the claim of a series whose name has the hash given.
func claimOf(b *bucket, name Hash) claim { return claim{b, name.A ^ b.salt.A, true} }

// countOnly is limits within which everything counts and nothing is refused, for
// series that were there before the cache was.
func (l Limits) countOnly() Limits {
	l.Series = 0
	if l.SeriesPerMetric > 0 {
		l.SeriesPerMetric = math.MaxInt
	}
	return l
}

// claimFor makes a claim. The error is ErrSeriesLimit, ErrMetricLimit or
// ErrNoMemory; nothing is claimed then.
func (c *Cache) claimFor(b *bucket, labels []Label, l Limits) (claim, error) {
	for {
		n := b.series.Load()
		if n < 0 {
			return claim{}, b.errEnded()
		}
		if l.Series > 0 && n >= int64(l.Series) {
			b.overSeries.Add(1)
			return claim{}, fmt.Errorf("%w: bucket %q has %d, its limit is %d", ErrSeriesLimit, b.name, n, l.Series)
		}
		if b.series.CompareAndSwap(n, n+1) {
			break
		}
	}
	if l.SeriesPerMetric > 0 {
		for i := range labels {
			if labels[i].Name != metricName {
				continue
			}
			p := claimOf(b, c.HashString(labels[i].Value))
			n, err := c.perMetric.Add(p.metric, l.SeriesPerMetric)
			if err == nil && n >= l.SeriesPerMetric {
				b.overMetric.Add(1)
				err = fmt.Errorf("%w: %q of bucket %q has %d, its limit is %d", ErrMetricLimit, clipped(labels[i].Value), b.name, n, l.SeriesPerMetric)
			}
			if err != nil {
				b.series.Add(-1)
			}
			return p, err
		}
	}
	return claim{bucket: b}, nil
}

// giveBack gives up a claim.
func (c *Cache) giveBack(p claim) {
	p.bucket.series.Add(-1)
	if p.named {
		c.perMetric.Remove(p.metric)
	}
}

// claimedLocked is what the series claimed when it was made; a shadow claimed
// nothing.
func (s *shard) claimedLocked(r *series) (p claim, ok bool) {
	if r.flags&flagShadow != 0 {
		return p, false
	}
	b := s.cache.bucket(r.bucket)
	if b.limits.Load().SeriesPerMetric > 0 && r.flags&flagRaw == 0 {
		if name := s.metricNameLocked(r); name != nil {
			return claimOf(b, s.cache.Hash(name)), true
		}
	}
	return claim{bucket: b}, true
}

// giveBackAllLocked gives up the claims of all series of the shard.
func (s *shard) giveBackAllLocked() {
	for id := range s.recs.All() {
		if r := s.recs.At(uint32(id)); r.flags&flagInUse != 0 {
			if p, ok := s.claimedLocked(r); ok {
				s.cache.giveBack(p)
			}
		}
	}
}

// maxClipped is how much of a name an error tells.
const maxClipped = 64

func clipped(s string) string {
	if len(s) > maxClipped {
		return s[:maxClipped] + "…"
	}
	return s
}
