package mcache

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// Batch is a set of samples for Append. It is reused by its owner and not
// safe for concurrent use. Its memory grows to the largest batch it has held.
type Batch struct {
	bucket  string
	series  []batchSeries
	samples []Sample
	starts  []int64 // of samples, as far as any has one
	records []Record
	missing []int

	order  []batchPlace // of series, by shard
	counts []int32
}

// batchPlace is one series of a batch, in the order in which it is written.
type batchPlace struct {
	fp     Fingerprint // in the bucket
	series int32       // place in Batch.series
}

type batchSeries struct {
	fp           Fingerprint // as given; the bucket is mixed in by Append
	from, record int32       // first sample, first record
}

// content is what one series of a batch is to get.
type content struct {
	samples []Sample
	starts  []int64 // of the first samples; the others have none
	records []Record
}

// Reset empties the batch for samples of a bucket.
func (b *Batch) Reset(bucket string) {
	b.bucket = bucket
	b.series, b.samples, b.starts, b.missing = b.series[:0], b.samples[:0], b.starts[:0], b.missing[:0]
	clear(b.records)
	b.records = b.records[:0]
}

// Series begins the series with the fingerprint f.
func (b *Batch) Series(f Fingerprint) {
	b.series = append(b.series, batchSeries{f, int32(len(b.samples)), int32(len(b.records))})
}

// Sample adds one sample to the series begun last: t in ms, v the bit pattern.
func (b *Batch) Sample(t int64, v uint64) {
	b.samples = append(b.samples, Sample{t, v})
}

// StartTime gives the sample added last a start time in ms; 0 is none.
func (b *Batch) StartTime(start int64) {
	if start == 0 {
		return
	}
	for len(b.starts) < len(b.samples)-1 {
		b.starts = append(b.starts, 0)
	}
	b.starts = append(b.starts[:len(b.samples)-1], start)
}

// Record adds one point whose value is bytes to the series begun last. value
// must stay as it is until the batch is reset.
func (b *Batch) Record(t int64, value []byte) {
	b.records = append(b.records, Record{t, value})
}

// Len is the number of series.
func (b *Batch) Len() int { return len(b.series) }

// Missing is, after Append, the places of the series that the cache does not
// know. It is valid until the next call on the batch.
func (b *Batch) Missing() []int { return b.missing }

// of is the content of series i.
func (b *Batch) of(i int) content {
	from, to := int(b.series[i].from), len(b.samples)
	record, recordEnd := int(b.series[i].record), len(b.records)
	if i+1 < len(b.series) {
		to, recordEnd = int(b.series[i+1].from), int(b.series[i+1].record)
	}
	c := content{samples: b.samples[from:to], records: b.records[record:recordEnd]}
	if from < len(b.starts) {
		c.starts = b.starts[from:min(to, len(b.starts))]
	}
	return c
}

// Append writes the points of every series that the cache knows and returns
// how many those were, records included; Missing says which series it does not know. Each
// shard's lock is taken once, unless memory has to be found in between.
//
// The error is ErrNoMemory, when the rest was not written; ErrTime or ErrValues,
// when only points beyond MaxTime or records beyond MaxRecord were not;
// ErrDirty, when nothing was written; ErrDataSize, or ErrClosed.
func (c *Cache) Append(b *Batch) (samples int, err error) {
	b.missing = b.missing[:0]
	if err := c.admitDirty(); err != nil {
		return 0, err
	}
	bk, err := c.openBucket(b.bucket, widthHPTS)
	if err != nil {
		return 0, err
	}
	b.sortByShard(c, bk)
	for k := 0; k < len(b.order); {
		s := c.shardOf(b.order[k].fp)
		end := k + 1
		for end < len(b.order) && c.shardOf(b.order[end].fp) == s {
			end++
		}
		n, e := s.appendBatch(bk, b, b.order[k:end])
		samples += n
		if e != nil {
			err = e
		}
		if errors.Is(e, ErrNoMemory) {
			break
		}
		k = end
	}
	slices.Sort(b.missing)
	c.insertedInto(bk, samples)
	c.evict()
	return samples, err
}

// sortByShard sets b.order by counting.
func (b *Batch) sortByShard(c *Cache, bk *bucket) {
	b.counts = append(b.counts[:0], make([]int32, len(c.shards)+1)...)
	mask := uint64(len(c.shards) - 1)
	for i := range b.series {
		b.counts[b.series[i].fp.in(bk).hi&mask+1]++
	}
	for i := range c.shards {
		b.counts[i+1] += b.counts[i]
	}
	if cap(b.order) < len(b.series) {
		b.order = make([]batchPlace, len(b.series))
	}
	b.order = b.order[:len(b.series)]
	for i := range b.series {
		f := b.series[i].fp.in(bk)
		k := f.hi & mask
		b.order[b.counts[k]] = batchPlace{f, int32(i)}
		b.counts[k]++
	}
}

var errBatchTime = fmt.Errorf("%w: beyond ±2^61 ms", ErrTime)

// roomTries bounds how often one sample waits for memory to be found.
const roomTries = 8

// appendBatch writes the series of b at the places given, all of this shard.
func (s *shard) appendBatch(bk *bucket, b *Batch, places []batchPlace) (samples int, err error) {
	s.mu.Lock()
	defer func() {
		s.settle()
		s.mu.Unlock()
	}()
	yields, age := s.yields, bk.age.Load()
	s.findAll(places, age)
	plain, writeBack := len(b.starts)+len(b.records) == 0, s.cache.writeBack
	for k := range places {
		i := int(places[k].series)
		var id uint32
		if s.yields == yields {
			id = s.found[k]
		} else {
			id = s.find(places[k].fp) // the lock was free meanwhile: found is another batch's now
		}
		if id == noID {
			b.missing = append(b.missing, i)
			continue
		}
		written := 0
		if r := &s.recs.view[id]; plain && r.touched == age {
			// Nearly all is written by this alone.
			from, to := int(b.series[i].from), len(b.samples)
			if i+1 < len(b.series) {
				to = int(b.series[i+1].from)
			}
			tick := uint32(0)
			if writeBack {
				tick = s.stampNow()
			}
			if written = s.insertRun(r, b.samples[from:to]); writeBack && written > 0 {
				s.wrote(id, b.samples[from:from+written], tick)
			}
			samples += written
			if written == to-from {
				continue
			}
		}
		n, e := s.writeRest(id, bk, b, &places[k], written)
		samples += n
		if e != nil {
			err = e
			if errors.Is(e, ErrNoMemory) {
				return samples, err
			}
		}
	}
	return samples, err
}

// writeRest is write for the series at a place of b, without its first samples.
func (s *shard) writeRest(id uint32, bk *bucket, b *Batch, place *batchPlace, first int) (points int, err error) {
	what := b.of(int(place.series))
	what.samples = what.samples[first:]
	return s.write(&id, bk, place.fp, what)
}

// findAll finds the series at the places given, of a bucket of that age, and
// brings to the processor what writing to them needs: a lookup's slot; the record with the fingerprint; the
// slot of the head; what sealing a full head reads. Each is read in a loop of
// its own with next to nothing in it, so that the processor is far ahead of
// what it waits for, and many cache misses overlap. That takes a third off the
// time of a batch over 100,000 series.
func (s *shard) findAll(places []batchPlace, age uint32) {
	if cap(s.found) < len(places) {
		s.found = make([]uint32, len(places))
		s.slots = make([]unsafe.Pointer, len(places))
	}
	s.found = s.found[:len(places)]
	if len(s.ids.slots) == 0 {
		for k := range s.found {
			s.found[k] = noID
		}
		return
	}
	var touch uint64
	recs := s.recs.view
	rest := s.guess(places)
	for k := range places[rest:] {
		touch += s.ids.slots[s.ids.start(places[rest+k].fp.tag())]
	}
	for k := range places[rest:] {
		s.found[rest+k] = s.ids.first(places[rest+k].fp.tag())
	}
	for _, id := range s.found[rest:] {
		if int(id) < len(recs) { // not noID
			touch += recs[id].fp.lo
		}
	}
	slots, full := s.slots[:0], s.full[:0]
	for k, id := range s.found {
		if id == noID {
			continue
		}
		r := &recs[id]
		if r.fp != places[k].fp {
			s.found[k] = s.find(places[k].fp) // another has the same tag
			continue
		}
		if r.touched != age {
			touch += uint64(r.newer) // its place in the list will change
		}
		if p := s.hot.Pointer(r.head); p != nil {
			slots = append(slots, unsafe.Pointer(slot(p, int(r.next)&(int(r.size)-1))))
			if r.next == r.size {
				full = append(full, id)
			}
		}
	}
	for _, p := range slots {
		touch += *(*uint64)(p)
	}
	if s.cache.writeBack {
		for _, id := range s.found {
			if id != noID {
				touch += uint64(s.dirt.view[id].since)
			}
		}
	}
	if len(full) > 0 {
		touch += s.touchPartial(full)
	}
	s.full, s.touched = full, touch
}

// guess finds series as long as they come in the order in which they were
// made, and returns how many that are.
func (s *shard) guess(places []batchPlace) (n int) {
	recs, found := s.recs.view[:s.recs.n], s.found[:len(places)]
	credit := guessCredit
	next := uint32(noID)
	for n := range places {
		f := &places[n].fp
		if int(next) < len(recs) && recs[next].fp == *f {
			found[n] = next
			next++
			credit = min(credit+1, guessCredit)
			continue
		}
		if credit < 0 {
			return n
		}
		credit -= guessPrice
		id := s.find(*f)
		found[n] = id
		next = id + 1
	}
	return len(places)
}

const (
	guessCredit = 16
	guessPrice = 8
)

// touchPartial reads the partial blocks of series.
func (s *shard) touchPartial(ids []uint32) (touch uint64) {
	for _, id := range ids {
		touch += uint64(s.recs.view[id].dir)
	}
	for _, id := range ids {
		if r := &s.recs.view[id]; r.flags&flagPartial != 0 {
			touch += uint64(s.dirOf(r)[r.dirLen-1].start)
		}
	}
	for _, id := range ids {
		if r := &s.recs.view[id]; r.flags&flagPartial != 0 {
			if p := s.hot.Pointer(s.dirOf(r)[r.dirLen-1].ref); p != nil {
				touch += *slot(p, 0)
			}
		}
	}
	return touch
}

// settle publishes what others read without the lock; called before unlocking.
func (s *shard) settle() {
	s.allocated.Store(s.bytes)
	if s.cache.writeBack {
		s.dirtyPublished.Store(s.dirty)
	}
}

// write inserts points into the series id, whose lock is held. When memory
// must be found it lets go of the lock for a while, in which the series may
// itself be evicted: *id is then noID and the rest was not written.
func (s *shard) write(id *uint32, bk *bucket, f Fingerprint, c content) (points int, err error) {
	if !s.cache.writeBack || len(c.samples)+len(c.records) == 0 || s.recs.view[*id].flags&flagRaw != 0 {
		return s.writeClean(id, bk, f, c)
	}
	s.beginWrite(*id, c)
	points, err = s.writeClean(id, bk, f, c)
	if *id != noID {
		s.endWrite(*id)
	}
	return points, err
}

// writeClean is write without a note that the points are dirty.
func (s *shard) writeClean(id *uint32, bk *bucket, f Fingerprint, c content) (points int, err error) {
	if age := bk.age.Load(); s.recs.view[*id].touched != age {
		s.touch(*id, age)
	}
	done := 0 // samples before this one were written as a run
	if len(c.starts) == 0 {
		done = s.insertRun(&s.recs.view[*id], c.samples)
		points = done
	}
	for k := done; k < len(c.samples); k++ {
		if k < done {
			continue
		}
		x := c.samples[k]
		if x.T > MaxTime || x.T < -MaxTime {
			err = errBatchTime
			continue
		}
		if s.recs.view[*id].flags&flagBlob != 0 && s.overlaps(&s.recs.view[*id], x.T) {
			if e := s.retry(id, f, func() bool { return s.restore(*id) }); e != nil {
				return points, e
			}
		}
		if s.recs.view[*id].flags&(flagStarts|flagRecords) == 0 && k >= len(c.starts) && s.insert(*id, x.T, x.V) {
			points++
			// The next head may take many at once.
			n := s.insertRun(&s.recs.view[*id], c.samples[k+1:])
			points += n
			done = k + 1 + n
			continue
		}
		if n := s.lateRun(*id, c, k); n > 1 {
			run := c.samples[k : k+n]
			if e := s.retry(id, f, func() bool {
				n := s.mend(*id, run)
				run = run[n:]
				points += n
				return len(run) == 0
			}); e != nil {
				return points, e
			}
			done = k + n
			continue
		}
		var start int64
		if k < len(c.starts) {
			start = c.starts[k]
		}
		if e := s.retry(id, f, func() bool {
			return s.eraseRecordAt(*id, x.T) && s.insert(*id, x.T, x.V) && s.insertStart(*id, bk, x.T, start)
		}); e != nil {
			return points, e
		}
		points++
	}
	for _, x := range c.records {
		if x.T > MaxTime || x.T < -MaxTime {
			err = errBatchTime
			continue
		}
		if len(x.Value) > s.cache.MaxRecord() {
			err = s.cache.errRecord(len(x.Value))
			continue
		}
		if e := s.retry(id, f, func() bool { return s.insertRecord(*id, x) }); e != nil {
			return points, e
		}
		points++
	}
	return points, err
}

// lateRun is how many samples from k on are late, in order, and nothing but
// samples: those that mend takes at once.
func (s *shard) lateRun(id uint32, c content, k int) int {
	r := &s.recs.view[id]
	if k < len(c.starts) || r.flags&(flagStarts|flagRecords) != 0 {
		return 0
	}
	n := 0
	for last := int64(-MaxTime - 1); k+n < len(c.samples); n++ {
		if t := c.samples[k+n].T; t <= last || t > r.sealedEnd {
			break
		} else {
			last = t
		}
	}
	return n
}

// retry calls try until it has found the memory it needs, or there is none. In
// between the lock is free, and *id may change or become noID.
func (s *shard) retry(id *uint32, f Fingerprint, try func() bool) error {
	for tries := 0; !try(); tries++ {
		s.settle()
		s.yields++
		s.mu.Unlock()
		ok := tries < roomTries && s.cache.makeRoom(s, tries)
		s.mu.Lock()
		if !ok {
			return fmt.Errorf("%w: %d of %d bytes used", ErrNoMemory, s.cache.memory.Used(), s.cache.memory.Budget())
		}
		if *id = s.find(f); *id == noID {
			return fmt.Errorf("%w: series was evicted while it was written", ErrNoMemory)
		}
	}
	return nil
}

// eraseRecordAt makes way for a sample at t.
func (s *shard) eraseRecordAt(id uint32, t int64) bool {
	d := s.recordDir(&s.recs.view[id])
	return d == nil || t > d.end || s.eraseRecords(id, t, t)
}

// AppendNew creates series i of the batch, which Append reported as missing,
// and writes its samples. labels need not be sorted and are copied; pairs with
// an empty value are left out. They must have the fingerprint given.
//
// Beside those of Append the errors are ErrLabels and ErrSeriesLimit.
func (c *Cache) AppendNew(b *Batch, i int, labels []Label) (samples int, err error) {
	if err := c.admitDirty(); err != nil {
		return 0, err
	}
	bk, err := c.openBucket(b.bucket, widthHPTS)
	if err != nil {
		return 0, err
	}
	samples, err = c.appendNew(bk, b.series[i].fp, 0, labels, b.of(i))
	c.insertedInto(bk, samples)
	c.evict()
	return samples, err
}

// appendNew writes samples to the series of a fingerprint, creating it if
// need be.
func (c *Cache) appendNew(bk *bucket, f Fingerprint, flags seriesFlags, labels []Label, what content) (int, error) {
	if flags&flagRaw == 0 {
		var err error
		if labels, err = checkLabels(labels); err != nil {
			return 0, err
		}
	}
	f = f.in(bk)
	s := c.shardOf(f)
	s.mu.Lock()
	defer func() {
		s.settle()
		s.mu.Unlock()
	}()
	id, err := s.findOrCreate(bk, f, flags, labels, nil)
	if err != nil {
		return 0, err
	}
	return s.write(&id, bk, f, what)
}

// findOrCreate returns the id of the series f, whose shard is locked, and
// makes it if need be. hashes are those of the labels, or nil.
func (s *shard) findOrCreate(bk *bucket, f Fingerprint, flags seriesFlags, labels []Label, hashes []labelHash) (uint32, error) {
	id := s.find(f)
	for tries := 0; id == noID; tries++ {
		var err error
		if id, err = s.create(bk, f, flags, labels, hashes); err == nil {
			break
		}
		if !errors.Is(err, ErrNoMemory) {
			return noID, err
		}
		s.settle()
		s.mu.Unlock()
		ok := tries < roomTries && s.cache.makeRoom(s, tries)
		s.mu.Lock()
		if !ok {
			return noID, err
		}
		id = s.find(f)
	}
	return id, nil
}

// AppendSamples writes samples of the series with the labels given, which
// need not be sorted and are copied.
func (c *Cache) AppendSamples(bucket string, labels []Label, samples ...Sample) error {
	if err := c.admitDirty(); err != nil {
		return err
	}
	bk, err := c.openBucket(bucket, widthHPTS)
	if err != nil {
		return err
	}
	n, err := c.appendNew(bk, c.Fingerprint(labels), 0, labels, content{samples: samples})
	c.insertedInto(bk, n)
	c.evict()
	return err
}

// checkLabels returns the labels sorted and without empty values.
func checkLabels(ls []Label) ([]Label, error) {
	sorted := slices.IsSortedFunc(ls, byName)
	empty := slices.ContainsFunc(ls, func(l Label) bool { return l.Value == "" })
	if !sorted || empty {
		ls = slices.DeleteFunc(slices.Clone(ls), func(l Label) bool { return l.Value == "" })
		slices.SortFunc(ls, byName)
	}
	if len(ls) == 0 {
		return nil, fmt.Errorf("%w: no labels", ErrLabels)
	}
	if len(ls) > MaxLabels {
		return nil, fmt.Errorf("%w: %d labels, limit %d", ErrLabels, len(ls), MaxLabels)
	}
	for i, l := range ls {
		if l.Name == bucketName || l.Name == rawName {
			return nil, fmt.Errorf("%w: name %q", ErrLabels, l.Name)
		}
		if i > 0 && ls[i-1].Name == l.Name {
			return nil, fmt.Errorf("%w: duplicate name %q", ErrLabels, l.Name)
		}
	}
	return ls, nil
}

func byName(a, b Label) int { return strings.Compare(a.Name, b.Name) }
