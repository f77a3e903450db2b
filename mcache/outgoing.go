package mcache

import (
	"math"
	"math/bits"
	"slices"
	"sort"
	"unsafe"

	"mcached/mcache/block"
	"mcached/mcache/index"
)

// This file gives out what is dirty, as runs of a series, and takes back what
// became of them; writeback.go says what dirty is.

// OutRun is points of one series in order of time.
type OutRun struct {
	Bucket  string
	Labels  []uint32 // numbers of its labels in Outgoing.Labels, sorted by name
	Bytes   int      // of the names and values of its labels
	Samples []Sample // in order of time
	Starts  []int64  // start times of Samples in ms, 0 for those that have none; nil if no one has
	Records []Record // in order of time; no time is in Samples too
}

// Outgoing is a set of runs that are to be sent together. It is reused by its
// owner and not safe for concurrent use. Its memory grows to the largest set
// that it has held.
type Outgoing struct {
	cache   *Cache
	parts   []outPart
	runs    []outRun
	numbers []uint32 // of labels: of each run those that changed
	labels  []Label  // by number
	text    []byte
	samples []Sample
	starts  []int64 // of samples, as far as any has one
	records []Record
	values  []byte // of records
	bytes   int    // of names and values of the labels of all runs, and of values
	mixed   bool   // the runs are of several buckets
	known   [knownPairs]knownPair
	round   uint32 // what of known is valid

	cursor     index.Cursor // at the run added last
	current    []uint32     // numbers of its labels
	labelBytes int          // of names and values of these
	labelCount int          // of all runs

	all  []uint32 // numbers of all labels of the first runs, as far as somebody asked
	ends []int    // where those of each run end in all

	snap    Snapshot
	it      Iterator
	without []bool // by bucket's id; empty if there is none
	due     []uint32
}

// outPart are the runs of one shard in an Outgoing.
type outPart struct {
	shard   *shard
	first   int    // run
	edition uint32 // of the shard's index, that known is of
}

// knownPair is a pair whose label has a number already. Neighbours share most
// of their labels, which are then neither looked up nor copied.
type knownPair struct {
	pair, round, number uint32
}

const knownPairs = 1024

// outRun is one series of an Outgoing. It fills a cache line.
type outRun struct {
	id, life                uint32
	labels, samples, record uint32 // first of each
	labelsEnd, samplesEnd   uint32 // where the first two end
	changed                 uint32 // as PlainRun.Changed
	points                  uint32 // collected
	taken                   uint32 // of the points that were counted dirty
	since                   uint32 // tick at which the oldest of them came
	bucket                  uint16 // its id
	kept                    bool
	plain                   bool  // it has neither records nor start times
	first, last             int64 // times collected, both inclusive
}

var _ [64]byte = [unsafe.Sizeof(outRun{})]byte{}

// Len is the number of runs.
func (o *Outgoing) Len() int { return len(o.runs) }

// Points is how many all runs have together.
func (o *Outgoing) Points() int { return len(o.samples) + len(o.records) }

// Labels are those of all runs by their numbers. Labels that are the same may
// have several numbers. They are valid as long as the runs.
func (o *Outgoing) Labels() []Label { return o.labels }

// OneBucket reports whether all runs are of the same bucket.
func (o *Outgoing) OneBucket() bool { return !o.mixed }

// Sizes are what all runs have together: labels, those that are the same included,
// and the bytes of their names and values and of the values of records.
func (o *Outgoing) Sizes() (labels, bytes int) { return o.labelCount, o.bytes }

// Bucket is that of run i.
func (o *Outgoing) Bucket(i int) string { return o.cache.bucket(o.runs[i].bucket).name }

// Run is run i. It is valid until Acknowledge or Return.
func (o *Outgoing) Run(i int) OutRun {
	r := &o.runs[i]
	records := o.records
	if i+1 < len(o.runs) {
		records = records[:o.runs[i+1].record:o.runs[i+1].record]
	}
	run := OutRun{
		Bucket: o.Bucket(i), Labels: o.Numbers(i),
		Samples: o.samples[r.samples:r.samplesEnd:r.samplesEnd], Records: records[r.record:],
	}
	for _, n := range run.Labels {
		run.Bytes += o.labels[n].size()
	}
	if !r.plain && int(r.samples) < len(o.starts) {
		for len(o.starts) < int(r.samplesEnd) {
			o.starts = append(o.starts, 0)
		}
		run.Starts = o.starts[r.samples:r.samplesEnd:r.samplesEnd]
	}
	return run
}

// Numbers are the numbers of the labels of run i, sorted by name, valid as long as what Run
// returns.
func (o *Outgoing) Numbers(i int) []uint32 {
	for k := len(o.ends); k <= i; k++ {
		at, r := len(o.all), &o.runs[k]
		if numbers := o.numbers[r.labels:r.labelsEnd]; r.changed == AllChanged {
			o.all = append(o.all, numbers...)
		} else {
			o.all = append(o.all, o.all[o.numbersAt(k-1):]...)
			PlainRun{Labels: numbers, Changed: r.changed}.Change(o.all[at:])
		}
		o.ends = append(o.ends, len(o.all))
	}
	return o.all[o.numbersAt(i):o.ends[i]:o.ends[i]]
}

// numbersAt is where the numbers of run i begin in all, in which those of the run before are.
func (o *Outgoing) numbersAt(i int) int {
	if i == 0 {
		return 0
	}
	return o.ends[i-1]
}

// PlainRun is what most runs are: labels and samples.
type PlainRun struct {
	// Labels are numbers as in OutRun. Those that are not listed are those of the run before,
	// which has as many: bit k of Changed says that label k is, or AllChanged that all are.
	Labels  []uint32
	Changed uint32
	Samples []Sample
}

// Change makes the numbers of the run before those of r, whose Changed is not AllChanged.
func (r PlainRun) Change(numbers []uint32) {
	labels := r.Labels
	for m := r.Changed; m != 0; m &= m - 1 {
		numbers[bits.TrailingZeros32(m)] = labels[0]
		labels = labels[1:]
	}
}

// AllChanged says that nothing is known of what the labels of two runs have in common.
const AllChanged = math.MaxUint32

// Plain is run i, and reports whether it has nothing else: neither records nor start times. It
// is valid as long as what Run returns.
func (o *Outgoing) Plain(i int) (_ PlainRun, ok bool) {
	r := &o.runs[i]
	return PlainRun{o.numbers[r.labels:r.labelsEnd], r.changed, o.samples[r.samples:r.samplesEnd]}, r.plain
}

// Keep says that run i was not sent after all: Acknowledge leaves it dirty.
func (o *Outgoing) Keep(i int) { o.runs[i].kept = true }

// beginLocked starts the part of a shard, which is locked, or goes on with it.
func (o *Outgoing) beginLocked(s *shard) *outPart {
	if n := len(o.parts); n == 0 || o.parts[n-1].shard != s {
		o.parts = append(o.parts, outPart{s, len(o.runs), s.editions})
		o.beginRound() // pairs are of a shard
	}
	return &o.parts[len(o.parts)-1]
}

func (o *Outgoing) reset() {
	clear(o.labels)
	o.parts, o.runs, o.numbers, o.labels, o.text = o.parts[:0], o.runs[:0], o.numbers[:0], o.labels[:0], o.text[:0]
	o.samples, o.starts, o.records, o.values = o.samples[:0], o.starts[:0], o.records[:0], o.values[:0]
	o.bytes, o.mixed, o.labelCount = 0, false, 0
	o.all, o.ends = o.all[:0], o.ends[:0]
}

// Collect adds to o dirty runs of series that are due, from where the pass is
// on, until o has maxPoints points or more. It reports false when it came to the
// end of the shard. A series with more than maxPoints is given in parts, one
// each call.
//
// What it gives is in flight until Acknowledge or Return is called for o, which
// may hold runs of several shards by then. A shard must have runs in no more
// than one Outgoing, so that the order of a series' points is kept.
func (c *Cache) Collect(shard int, p *Pass, due Due, maxPoints int, o *Outgoing) (more bool) {
	s := c.shards[shard]
	o.cache = c
	o.leave(due.Without)
	for {
		s.mu.Lock()
		part := o.beginLocked(s)
		if !p.begun {
			// What becomes dirty from here on is not older.
			*p = Pass{begun: true, began: max(c.tick.Load(), 1), returns: s.returns}
		}
		ids := s.findDueLocked(p, due, maxPoints-o.Points(), o)
		for i, id := range ids {
			if o.Points() >= maxPoints || !s.collectSeriesLocked(id, maxPoints-o.Points(), o, part) {
				p.next = id // again, or what is left of it
				for _, id := range ids[i:] {
					s.keepLocked(id)
				}
				break
			}
		}
		s.flight = o.runs[part.first:]
		p.ended = int(p.next) >= s.dirt.Len()
		s.publishLocked()
		s.mu.Unlock()
		if p.ended || o.Points() >= maxPoints {
			return !p.ended
		}
	}
}

// leave notes which buckets are left out.
func (o *Outgoing) leave(without []string) {
	o.without = o.without[:0]
	for _, name := range without {
		b := o.cache.findBucket(name)
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

// collectSeriesLocked adds what is dirty of one series to o, up to about `most`
// points, and reports whether that was all.
func (s *shard) collectSeriesLocked(id uint32, most int, o *Outgoing, part *outPart) (all bool) {
	r := s.recs.At(id)
	n := len(o.runs)
	o.runs = append(o.runs, outRun{id: id, life: r.life, bucket: r.bucket, labels: uint32(len(o.numbers)),
		samples: uint32(len(o.samples)), record: uint32(len(o.records)), plain: true, first: math.MaxInt64, last: math.MinInt64})
	run := &o.runs[n]
	if s.collectHeadLocked(id, r, most, o, run) {
		all = true
	} else {
		all = s.collectLocked(id, most, run, func(from, to int64, most int) bool {
			return s.collectRangeLocked(r, from, to, most, o, run)
		})
	}
	if run.points == 0 {
		o.runs = o.runs[:n]
		return all // what was dirty has been deleted
	}
	o.mixed = o.mixed || run.bucket != o.runs[0].bucket
	o.addLabelsLocked(s, r, part, run)
	run.labelsEnd, run.samplesEnd = uint32(len(o.numbers)), uint32(len(o.samples))
	return all
}

// collectHeadLocked is collectLocked for what short runs are as a rule: the last samples of
// a head on a grid. It reports false, and has done nothing, if the run is anything else.
func (s *shard) collectHeadLocked(id uint32, r *series, most int, o *Outgoing, run *outRun) bool {
	d, p := s.dirt.At(id), s.hot.Pointer(r.head)
	if *s.marks.At(id) != 0 || r.mode != modeGrid || r.records != 0 || r.flags&(flagStarts|flagBlob) != 0 || r.sealedEnd > d.sent || p == nil {
		return false
	}
	first, step := int(r.next), int64(r.step)
	last := r.start + int64(first-1)*step
	t := last
	for ; first > 0 && t > d.sent; t -= step {
		first--
	}
	n := int(r.next) - first
	if n == 0 || n > most || r.have>>first != 1<<n-1 {
		return false // there are holes
	}
	o.samples = slices.Grow(o.samples, n)
	at := len(o.samples)
	samples := o.samples[at : at+n]
	for i := range samples {
		t += step
		samples[i] = Sample{T: t, V: *slot(p, first+i)}
	}
	o.samples = o.samples[:at+n]
	run.first, run.last, run.points = samples[0].T, last, uint32(n)
	d.sent = last
	return s.departLocked(id, run, true)
}

// collectRangeLocked adds the points of r from from to to, both inclusive. It
// reports false when it stopped at `most`.
func (s *shard) collectRangeLocked(r *series, from, to int64, most int, o *Outgoing, run *outRun) (all bool) {
	if r.records == 0 && r.flags&(flagStarts|flagBlob) == 0 {
		return s.collectSamplesLocked(r, from, to, max(most, 1), o, run)
	}
	run.plain = false
	s.snapshotLocked(r, from, to, &o.snap)
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
			o.bytes += len(x.Value)
			o.records = append(o.records, Record{T: x.T, Value: o.values[at:len(o.values):len(o.values)]})
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

// collectSamplesLocked is collectRangeLocked for a series that has nothing but
// blocks and a head. They are decoded where they lie: a copy, to do that
// without the lock, would cost as much.
func (s *shard) collectSamplesLocked(r *series, from, to int64, most int, o *Outgoing, run *outRun) (all bool) {
	at := len(o.samples)
	all = true
	if from <= r.sealedEnd {
		dir := s.dirOfLocked(r)
		k := max(sort.Search(len(dir), func(i int) bool { return dir[i].start > from })-1, 0)
		for ; all && k < len(dir) && dir[k].start <= to; k++ {
			if !s.log.Live(dir[k].ref) {
				continue // it was reclaimed, so it was clean
			}
			o.samples = slices.Grow(o.samples, block.MaxSamples)
			n := len(o.samples)
			run := o.samples[n : n+block.MaxSamples]
			run = run[:s.decodeBlockToLocked((*[block.MaxSamples]Sample)(run), dir[k])]
			o.samples, all = appendRange(o.samples, run, from, to, at+most)
		}
	}
	if p := s.hot.Pointer(r.head); all && p != nil && r.headLen() > 0 && r.headLast() >= from {
		n := len(o.samples)
		o.samples = headFrom(o.samples, r, p, from)
		for len(o.samples) > n && o.samples[len(o.samples)-1].T > to {
			o.samples = o.samples[:len(o.samples)-1]
		}
		if len(o.samples) > at+most {
			o.samples, all = o.samples[:at+most], false
		}
	}
	if n := len(o.samples); n > at {
		run.first, run.last = min(run.first, o.samples[at].T), max(run.last, o.samples[n-1].T)
		run.points += uint32(n - at)
	}
	return all
}

// appendRange appends those of ss, which are in order of time, that are from
// from to to; ss may lie behind dst in the same array. It reports false if there
// are more than dst may have.
func appendRange(dst, ss []Sample, from, to int64, most int) (_ []Sample, all bool) {
	for len(ss) > 0 && ss[0].T < from {
		ss = ss[1:]
	}
	for len(ss) > 0 && ss[len(ss)-1].T > to {
		ss = ss[:len(ss)-1]
	}
	room := most - len(dst)
	return append(dst, ss[:min(len(ss), room)]...), len(ss) <= room // copies nothing onto itself
}

// addLabelsLocked appends the numbers of r's labels. The strings of labels are
// views of o.text, or of what it was before it grew.
func (o *Outgoing) addLabelsLocked(s *shard, r *series, part *outPart, run *outRun) {
	if part.edition != s.editions {
		part.edition = s.editions
		o.beginRound()
	}
	pairs, changed, known := o.cursor.Move(&s.index, r.pairs, int(r.nPairs))
	if pairs = pairs[1:]; !known { // without the bucket
		run.changed, o.labelBytes, o.current = AllChanged, 0, o.current[:0]
		for _, p := range pairs {
			number := o.numberOfLocked(s, p)
			o.current = append(o.current, number)
			o.labelBytes += o.labels[number].size()
		}
		o.numbers = append(o.numbers, o.current...)
	} else { // most are those of the run before
		run.changed = changed >> 1
		for m := run.changed; m != 0; m &= m - 1 {
			k := bits.TrailingZeros32(m)
			number := o.numberOfLocked(s, pairs[k])
			o.labelBytes += o.labels[number].size() - o.labels[o.current[k]].size()
			o.current[k] = number
			o.numbers = append(o.numbers, number)
		}
	}
	o.labelCount += len(pairs)
	o.bytes += o.labelBytes
}

// beginRound forgets pairs, which are of another index from here on.
func (o *Outgoing) beginRound() {
	o.round++
	o.cursor.Reset()
}

// numberOfLocked is the number of the label of a pair.
func (o *Outgoing) numberOfLocked(s *shard, p uint32) uint32 {
	k := &o.known[p%knownPairs]
	if k.pair != p || k.round != o.round {
		*k = knownPair{p, o.round, uint32(len(o.labels))}
		o.labels = append(o.labels, Label{o.addText(s.index.Name(p)), o.addText(s.index.Value(p))})
	}
	return k.number
}

// size is the bytes of name and value.
func (l *Label) size() int { return len(l.Name) + len(l.Value) }

func (o *Outgoing) addText(b []byte) string {
	at := len(o.text)
	o.text = append(o.text, b...)
	return unsafe.String(unsafe.SliceData(o.text[at:]), len(b))
}

// Acknowledge says that the downstream store has everything in o, or will
// never take it: it is clean from now on, but for what is kept. o is empty then.
func (c *Cache) Acknowledge(o *Outgoing) { o.land(acknowledged) }

// Return says that o was not sent: it is dirty as before. o is empty then.
func (c *Cache) Return(o *Outgoing) { o.land(returned) }

// land ends the flight of o.
func (o *Outgoing) land(how landing) {
	end := len(o.runs)
	for i := len(o.parts) - 1; i >= 0; i-- {
		p := &o.parts[i]
		p.shard.land(o.runs[p.first:end], how)
		end = p.first
	}
	o.reset()
}

// land ends the flight of runs, which are all that the shard has in flight.
func (s *shard) land(runs []outRun, how landing) {
	if len(runs) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flight) == 0 {
		return // the shard was emptied meanwhile
	}
	s.landLocked(runs, how, s.sameLocked)
	s.publishLocked()
}

// sameLocked reports whether the series of a run is still that which was collected.
func (s *shard) sameLocked(run *outRun) bool { return s.recs.At(run.id).life == run.life }
