package ingest

import (
	"math"

	"mcached/mcache"
)

// Samples of a key, as the commands of time series see them.

// staleBits is the pattern by which Prometheus says that a series has ended.
// It is no sample, and these commands never show it.
const staleBits = 0x7ff0000000000002

// each calls f for the samples of k from from to to, in order of time, until
// it returns false.
func (d *directory) each(k *seriesKey, from, to int64, f func(t int64, v float64) bool) {
	var s mcache.Snapshot
	if from > to || !d.copy(k, from, to, &s) {
		return
	}
	eachSample(&s, f)
}

func eachSample(s *mcache.Snapshot, f func(t int64, v float64) bool) {
	for it := s.Iterator(); it.Next(); {
		if it.OnRecord() {
			continue // a histogram is no sample to these commands
		}
		if p := it.At(); p.V != staleBits && !f(p.T, math.Float64frombits(p.V)) {
			return
		}
	}
}

// copy copies the samples of k, if it has any.
func (d *directory) copy(k *seriesKey, from, to int64, s *mcache.Snapshot) bool {
	if k.read != nil {
		return k.read(from, to, s)
	}
	k = k.lock()
	ok := d.locate(k)
	id := k.id
	k.mu.Unlock()
	return ok && d.cache.Snapshot(id, from, to, s)
}

// lastWindowsMs are how far back from its end a series is searched for its
// last sample, before all of it is.
var lastWindowsMs = [...]int64{10 * 60_000, 24 * 3_600_000, math.MaxInt64}

// last is the newest sample of k.
func (d *directory) last(k *seriesKey, nowMs int64) (t int64, v float64, ok bool) {
	if k.read != nil {
		var s mcache.Snapshot
		if !k.read(-mcache.MaxTime, mcache.MaxTime, &s) {
			return 0, 0, false
		}
		return newestOf(&s)
	}
	k = k.lock()
	defer k.mu.Unlock()
	return d.lastLocked(k, nowMs)
}

// lastLocked is the newest sample of k. k.mu is held.
func (d *directory) lastLocked(k *seriesKey, nowMs int64) (t int64, v float64, ok bool) {
	if !d.locate(k) {
		return 0, 0, false
	}
	var s mcache.Snapshot
	for _, w := range lastWindowsMs {
		from := int64(-mcache.MaxTime)
		if w != math.MaxInt64 {
			if from = nowMs - w; k.written {
				from = max(from, k.lastMs)
			}
		}
		if !d.cache.Snapshot(k.id, from, mcache.MaxTime, &s) {
			return 0, 0, false
		}
		if t, v, ok = newestOf(&s); ok {
			return t, v, true
		}
	}
	return 0, 0, false
}

// newestOf is the newest sample of a copy.
func newestOf(s *mcache.Snapshot) (t int64, v float64, ok bool) {
	for it := s.Iterator(); it.Next(); {
		if it.OnRecord() {
			continue
		}
		if p := it.At(); p.V != staleBits {
			t, v, ok = p.T, math.Float64frombits(p.V), true
		}
	}
	return t, v, ok
}
