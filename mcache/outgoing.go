package mcache

import (
	"math"
	"sort"
	"unsafe"
)

// This file gives out what is dirty, as runs of a series, and takes back what
// became of them; writeback.go says what dirty is.

// Due says which dirty series are to be collected.
type Due struct {
	Sealed bool   // those with as many dirty points as fill a sealed block: their run is long enough
	Since  uint32 // those with points that came at this tick or before
	// Without are buckets the series of which are left for later.
	Without []string
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
	without []bool // by bucket's id; empty if there is none
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
	kept                    bool
}

// Len is the number of runs.
func (o *Outgoing) Len() int { return len(o.runs) }

// Points is how many all runs have together.
func (o *Outgoing) Points() int { return len(o.samples) + len(o.records) }

// Bucket is that of run i.
func (o *Outgoing) Bucket(i int) string { return o.runs[i].bucket.name }

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

// Keep says that run i was not sent after all: Acknowledge leaves it dirty.
func (o *Outgoing) Keep(i int) { o.runs[i].kept = true }

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
	o.leave(due.Without)
	for {
		s.mu.Lock()
		n := uint32(s.flights.n)
		for taken, looked := 0, 0; *cursor < n && taken < collectPiece && looked < scanPiece && o.Points() < maxPoints; looked++ {
			d := &s.dirt.view[*cursor]
			if d.since == 0 || d.since > due.Since && !(due.Sealed && d.points >= blockMax) || s.mayNotFly(*cursor, o) {
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

// leave notes which buckets are left out.
func (o *Outgoing) leave(without []string) {
	o.without = o.without[:0]
	for _, name := range without {
		b := o.shard.cache.findBucket(name)
		if b == nil {
			continue
		}
		for len(o.without) <= int(b.id) {
			o.without = append(o.without, false)
		}
		o.without[b.id] = true
	}
}

func (o *Outgoing) leaves(bucket uint16) bool {
	return int(bucket) < len(o.without) && o.without[bucket]
}

// mayNotFly reports whether a series must be left for later: it is in flight,
// in the middle of a write, or of a bucket that is left out.
func (s *shard) mayNotFly(id uint32, o *Outgoing) bool {
	f := &s.flights.view[id]
	return f.since != 0 || f.writing != 0 || o.leaves(s.recs.view[id].bucket)
}

// collect adds what is dirty of one series to o, up to about `most` points, and
// reports whether that was all.
func (s *shard) collect(id uint32, most int, o *Outgoing) (all bool) {
	r, d, f := &s.recs.view[id], &s.dirt.view[id], &s.flights.view[id]
	run := outRun{id: id, life: r.life, bucket: s.cache.bucket(r.bucket), labels: len(o.labels),
		samples: len(o.samples), record: len(o.records), first: math.MaxInt64, last: math.MinInt64}
	all = true
	if f.lateFrom <= f.lateTo {
		if all = s.collectRange(r, f.lateFrom, f.lateTo, most, o, &run); all {
			f.lateFrom, f.lateTo = noFlight.lateFrom, noFlight.lateTo
		} else {
			f.lateFrom = run.last + 1
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
	f.since, f.points, f.from = d.since, taken, run.first
	s.flying++
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
	if r.records == 0 && r.flags&(flagStarts|flagBlob) == 0 {
		return s.collectSamples(r, from, to, max(most, 1), o, run)
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

// collectSamples is collectRange for a series that has nothing but blocks and
// a head. They are decoded where they lie: a copy, to do that without the lock,
// would cost as much.
func (s *shard) collectSamples(r *series, from, to int64, most int, o *Outgoing, run *outRun) (all bool) {
	at := len(o.samples)
	all = true
	if from <= r.sealedEnd {
		dir := s.dirOf(r)
		k := max(sort.Search(len(dir), func(i int) bool { return dir[i].start > from })-1, 0)
		for ; all && k < len(dir) && dir[k].start <= to; k++ {
			if !s.log.Live(dir[k].ref) {
				continue // it was reclaimed, so it was clean
			}
			o.samples, all = appendRange(o.samples, s.block1[:s.load(dir[k])], from, to, at+most)
		}
	}
	if p := s.hot.Pointer(r.head); all && p != nil && r.headLen() > 0 && r.headLast() >= from {
		s.scratch = headSamples(s.scratch[:0], r, p)
		o.samples, all = appendRange(o.samples, s.scratch, from, to, at+most)
	}
	if n := len(o.samples); n > at {
		run.first, run.last = min(run.first, o.samples[at].T), max(run.last, o.samples[n-1].T)
		run.points += n - at
	}
	return all
}

// appendRange appends those of ss, which are in order of time, that are from
// from to to. It reports false if there are more than dst may have.
func appendRange(dst, ss []Sample, from, to int64, most int) (_ []Sample, all bool) {
	for len(ss) > 0 && ss[0].T < from {
		ss = ss[1:]
	}
	for len(ss) > 0 && ss[len(ss)-1].T > to {
		ss = ss[:len(ss)-1]
	}
	room := most - len(dst)
	return append(dst, ss[:min(len(ss), room)]...), len(ss) <= room
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
// never take it: it is clean from now on, but for what is kept.
func (c *Cache) Acknowledge(o *Outgoing) { o.land(false) }

// Return says that o was not sent: it is dirty as before.
func (c *Cache) Return(o *Outgoing) { o.land(true) }

// land ends the flight of o.
func (o *Outgoing) land(returned bool) {
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
		d, f := &s.dirt.view[run.id], &s.flights.view[run.id]
		if returned || run.kept {
			d.points += f.points
			if d.since = min(d.since, f.since); d.since == 0 {
				d.since = f.since
			}
			s.late(run.id, run.first, run.last)
		} else {
			s.dirty -= int64(f.points)
		}
		f.since, f.points = 0, 0
		s.flying--
	}
	s.settle()
	o.runs = o.runs[:0]
}
