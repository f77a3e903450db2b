package mcache

import (
	"math"
	"unsafe"
)

// This file gives out what is dirty, as runs of a series, and takes back what
// became of them; writeback.go says what dirty is.

// Due says which dirty series are to be collected.
type Due struct {
	Sealed bool   // those whose dirty points reach into sealed blocks: their run is long enough
	Since  uint32 // those with points that came at this tick or before
}

// OutRun is points of one series in order of time.
type OutRun struct {
	Bucket  string
	Labels  []Label  // sorted by name
	Samples []Sample // in order of time
	Starts  []int64  // start times of Samples in ms, 0 for those that have none; nil if no one has
	Records []Record // in order of time; no time is in Samples too
}

// Outgoing is a set of runs that are to be sent together. It is reused by its
// owner and not safe for concurrent use. Its memory grows to the largest set
// that it has held.
type Outgoing struct {
	shard   *shard
	runs    []outRun
	labels  []Label
	text    []byte
	samples []Sample
	starts  []int64 // of samples, as far as any has one
	records []Record
	values  []byte // of records
	known   [knownPairs]knownPair
	edition uint32 // of the shard's index, that known is of
	round   uint32 // what of known is valid
	snap    Snapshot
	it      Iterator
}

// knownPair is a label that text has already. Neighbours share most of their
// labels, which are then neither looked up nor copied, and the strings of which
// are the same, down to their address.
type knownPair struct {
	pair, round uint32
	label       Label
}

const knownPairs = 1024

// outRun is one series of an Outgoing.
type outRun struct {
	id, life                uint32
	bucket                  *bucket
	labels, samples, record int // first of each
	points                  int
	first, last             int64 // times collected, both inclusive
}

// Len is the number of runs.
func (o *Outgoing) Len() int { return len(o.runs) }

// Points is how many all runs have together.
func (o *Outgoing) Points() int { return len(o.samples) + len(o.records) }

// Run is run i. It is valid until the next Collect into o.
func (o *Outgoing) Run(i int) OutRun {
	r := &o.runs[i]
	end := outRun{labels: len(o.labels), samples: len(o.samples), record: len(o.records)}
	if i+1 < len(o.runs) {
		end = o.runs[i+1]
	}
	run := OutRun{
		Bucket: r.bucket.name, Labels: o.labels[r.labels:end.labels:end.labels],
		Samples: o.samples[r.samples:end.samples:end.samples], Records: o.records[r.record:end.record:end.record],
	}
	if r.samples < len(o.starts) {
		for len(o.starts) < end.samples {
			o.starts = append(o.starts, 0)
		}
		run.Starts = o.starts[r.samples:end.samples:end.samples]
	}
	return run
}

func (o *Outgoing) reset(s *shard) {
	o.shard = s
	o.round++
	o.runs, o.labels, o.text = o.runs[:0], o.labels[:0], o.text[:0]
	o.samples, o.starts, o.records, o.values = o.samples[:0], o.starts[:0], o.records[:0], o.values[:0]
}

const (
	collectPiece = 64   // series collected under one hold of a shard's lock
	scanPiece    = 4096 // series looked at under one
)

// Collect fills o with dirty runs of series that are due, from series *cursor
// of the shard on, until it has maxPoints points or more, and moves the cursor.
// It reports false when it came to the end of the shard. A series with more
// than maxPoints is given in parts, one each call.
//
// What it gives is in flight until Acknowledge or Return is called for o. A
// shard must have no more than one Outgoing in flight, so that the order of a
// series' points is kept.
func (c *Cache) Collect(shard int, cursor *uint32, due Due, maxPoints int, o *Outgoing) (more bool) {
	s := c.shards[shard]
	o.reset(s)
	for {
		s.mu.Lock()
		n := uint32(s.dirt.n)
		for taken, looked := 0, 0; *cursor < n && taken < collectPiece && looked < scanPiece && o.Points() < maxPoints; looked++ {
			d := &s.dirt.view[*cursor]
			if d.since == 0 || d.flight != 0 || d.writing != 0 ||
				d.since > due.Since && !(due.Sealed && s.recs.view[*cursor].sealedEnd > d.sent) {
				*cursor++
				continue
			}
			taken++
			if s.collect(*cursor, maxPoints-o.Points(), o) {
				*cursor++
			}
		}
		s.settle()
		s.mu.Unlock()
		if o.Points() >= maxPoints && *cursor < n {
			return true
		}
		if *cursor >= n {
			return false
		}
	}
}

// collect adds what is dirty of one series to o, up to about `most` points, and
// reports whether that was all.
func (s *shard) collect(id uint32, most int, o *Outgoing) (all bool) {
	r, d := &s.recs.view[id], &s.dirt.view[id]
	run := outRun{id: id, life: r.life, bucket: s.cache.bucket(r.bucket), labels: len(o.labels),
		samples: len(o.samples), record: len(o.records), first: math.MaxInt64, last: math.MinInt64}
	all = true
	if d.lateFrom <= d.lateTo {
		if all = s.collectRange(r, d.lateFrom, d.lateTo, most, o, &run); all {
			d.lateFrom, d.lateTo = noDirt.lateFrom, noDirt.lateTo
		} else {
			d.lateFrom = run.last + 1
		}
	}
	if all && d.sent < MaxTime {
		all = s.collectRange(r, d.sent+1, MaxTime, most-run.points, o, &run)
		d.sent = max(d.sent, run.last)
	}
	taken := d.points
	if !all { // one is left in any case: a series that is dirty has points that are
		taken = min(taken-1, uint32(run.points))
	}
	if run.points == 0 {
		// What was dirty has been deleted, or overwritten by nothing.
		s.dirty -= int64(taken)
		d.points -= taken
		if all {
			d.since = 0
		}
		return all
	}
	d.flight, d.inFlight, d.flightFrom = d.since, taken, run.first
	d.points -= taken
	if all {
		d.since = 0
	}
	o.addLabels(s, r)
	o.runs = append(o.runs, run)
	return all
}

// collectRange adds the points of r from from to to, both inclusive. It
// reports false when it stopped at `most`.
func (s *shard) collectRange(r *series, from, to int64, most int, o *Outgoing, run *outRun) (all bool) {
	if from > r.sealedEnd && r.records == 0 && r.flags&(flagStarts|flagBlob) == 0 {
		return s.collectHead(r, from, to, most, o, run)
	}
	s.snapshot(r, from, to, &o.snap)
	o.it.Reset(&o.snap)
	for n := 0; o.it.Next(); n++ {
		if n >= max(most, 1) {
			return false
		}
		var t int64
		if o.it.OnRecord() {
			x := o.it.Record()
			at := len(o.values)
			o.values = append(o.values, x.Value...)
			o.records = append(o.records, Record{x.T, o.values[at:len(o.values):len(o.values)]})
			t = x.T
		} else {
			x := o.it.At()
			if start := o.it.StartTime(); start != 0 {
				for len(o.starts) < len(o.samples) {
					o.starts = append(o.starts, 0)
				}
				o.starts = append(o.starts, start)
			}
			o.samples = append(o.samples, x)
			t = x.T
		}
		run.first, run.last = min(run.first, t), max(run.last, t)
		run.points++
	}
	return true
}

// collectHead is collectRange when all there can be is in the head.
func (s *shard) collectHead(r *series, from, to int64, most int, o *Outgoing, run *outRun) (all bool) {
	p := s.hot.Pointer(r.head)
	if p == nil || r.headLen() == 0 {
		return true
	}
	at := len(o.samples)
	o.samples = headSamples(o.samples, r, p)
	got := o.samples[at:]
	first, end := 0, len(got)
	for first < end && got[first].T < from {
		first++
	}
	for end > first && got[end-1].T > to {
		end--
	}
	if all = end-first <= max(most, 1); !all {
		end = first + max(most, 1)
	}
	n := copy(got, got[first:end])
	o.samples = o.samples[:at+n]
	if n > 0 {
		run.first, run.last = min(run.first, got[0].T), max(run.last, got[n-1].T)
		run.points += n
	}
	return all
}

// addLabels appends the labels of r. Their strings are views of o.text, or of
// what it was before it grew.
func (o *Outgoing) addLabels(s *shard, r *series) {
	if o.edition != s.editions {
		o.edition = s.editions
		o.round++
	}
	for _, p := range s.index.set(r.pairs, int(r.nPairs))[1:] { // without the bucket
		k := &o.known[p%knownPairs]
		if k.pair != p || k.round != o.round {
			*k = knownPair{p, o.round, Label{o.addText(s.index.name(p)), o.addText(s.index.value(p))}}
		}
		o.labels = append(o.labels, k.label)
	}
}

func (o *Outgoing) addText(b []byte) string {
	at := len(o.text)
	o.text = append(o.text, b...)
	return unsafe.String(unsafe.SliceData(o.text[at:]), len(b))
}

// Acknowledge says that the downstream store has everything in o, or will
// never take it: it is clean from now on.
func (c *Cache) Acknowledge(o *Outgoing) {
	o.land(func(s *shard, d *dirt, run *outRun) { s.dirty -= int64(d.inFlight) })
}

// Return says that o was not sent: it is dirty as before.
func (c *Cache) Return(o *Outgoing) {
	o.land(func(_ *shard, d *dirt, run *outRun) {
		d.points += d.inFlight
		if d.since = min(d.since, d.flight); d.since == 0 {
			d.since = d.flight
		}
		d.late(run.first, run.last)
	})
}

// land ends the flight of o, whose runs f is called with as far as their
// series are still there.
func (o *Outgoing) land(f func(s *shard, d *dirt, run *outRun)) {
	if len(o.runs) == 0 {
		return
	}
	s := o.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range o.runs {
		run := &o.runs[i]
		if int(run.id) >= s.recs.n || s.recs.view[run.id].life != run.life {
			continue
		}
		d := &s.dirt.view[run.id]
		f(s, d, run)
		d.flight, d.inFlight = 0, 0
	}
	s.settle()
	o.runs = o.runs[:0]
}
