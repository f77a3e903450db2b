package mcache

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Append writes the points of every series that the cache knows and returns
// how many those were, records included; Missing says which series it does not know,
// or not any more. Each shard's lock is taken once, unless memory has to be found in between.
//
// The error is ErrNoMemory, when the rest was not written; ErrTime or ErrValues,
// when only points beyond MaxTime or records beyond MaxRecord were not;
// ErrDirty, when nothing was written; ErrDataSize, or ErrClosed.
func (c *Cache) Append(b *Batch) (samples int, err error) {
	b.missing = b.missing[:0]
	if err := c.admitDirty(); err != nil {
		return 0, err
	}
	bk, err := c.openTo(b.bucket, widthHPTS)
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

var errBatchTime = fmt.Errorf("%w: beyond ±2^61 ms", ErrTime)

// roomTries bounds how often one sample waits for memory to be found.
const roomTries = 8

// appendBatch writes the series of b at the positions given, all of this shard.
func (s *shard) appendBatch(bk *bucket, b *Batch, places []batchPlace) (samples int, err error) {
	s.mu.Lock()
	defer func() {
		s.publishLocked()
		s.mu.Unlock()
	}()
	yields, age := s.yields, s.ageLocked(bk)
	s.findAllLocked(places)
	if bk.cover.watching.Load() {
		s.noteResumedLocked(bk, b, places)
	}
	plain, writeBack := len(b.starts)+len(b.records)+len(b.blocks) == 0, s.cache.writeBack
	tick, stamped := uint32(0), yields-1 // what yields was then
	for k := range places {
		i := int(places[k].series)
		var id uint32
		if s.yields == yields {
			id = s.found[k]
		} else {
			id = s.findLocked(places[k].fp) // the lock was free meanwhile: found is another batch's now
		}
		if id == noID {
			b.missing = append(b.missing, i)
			continue
		}
		written := 0
		if r := s.recs.At(id); plain {
			// Nearly all is written by this alone.
			if r.touched != age {
				s.touchLocked(id, age)
			}
			from, to := int(places[k].from), len(b.samples)
			if i+1 < len(b.series) {
				to = int(b.series[i+1].from)
			}
			if writeBack && stamped != s.yields {
				tick, stamped = s.stampLocked(), s.yields
			}
			if written = s.insertRunLocked(r, b.samples[from:to]); writeBack && written > 0 {
				s.wroteAsLocked(id, b.samples[from:from+written], tick, b.dutyOf(i))
			}
			samples += written
			if written == to-from {
				continue
			}
			if written == to-from-1 && r.flags&(flagStarts|flagRecords|flagBlob) == 0 {
				// The one that found its head full, say.
				if x := &b.samples[to-1]; x.T <= MaxTime && x.T >= -MaxTime && s.insertLocked(id, x.T, x.V) {
					if writeBack {
						s.wroteAsLocked(id, b.samples[to-1:to], tick, b.dutyOf(i))
					}
					samples++
					continue
				}
			}
		}
		n, e := s.writeRestLocked(id, bk, b, &places[k], written)
		if errors.Is(e, errGone) { // with all that was written of it
			b.missing = append(b.missing, i)
			samples -= written
			continue
		}
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

// writeRestLocked is writeLocked for the series at a position of b, without its
// first samples. It lets go of the lock where memory must be found.
func (s *shard) writeRestLocked(id uint32, bk *bucket, b *Batch, place *batchPlace, first int) (points int, err error) {
	what := b.of(int(place.series))
	what.samples = what.samples[first:]
	return s.writeLocked(&id, bk, place.fp, what)
}

// publishLocked publishes what others read without the lock; called before unlocking.
func (s *shard) publishLocked() {
	s.allocated.Store(s.bytes)
	if s.inserted >= s.turns.next {
		s.turnLocked()
	}
	if s.cache.writeBack {
		s.dirtyPublished.Store(s.dirty)
		s.standbyShown.Store(s.standbyPoints)
	}
}

// writeLocked inserts points into the series id. It lets go of the lock where
// memory must be found, and meanwhile the series may itself be evicted: *id is
// then noID and the rest was not written.
func (s *shard) writeLocked(id *uint32, bk *bucket, f Fingerprint, c content) (points int, err error) {
	if !s.cache.writeBack || len(c.samples)+len(c.records)+len(c.blocks) == 0 || s.recs.At(*id).flags&flagRaw != 0 {
		return s.writeCleanLocked(id, bk, f, c)
	}
	if c.duty == Nobodys {
		points, err = s.writeCleanLocked(id, bk, f, c)
		if *id != noID {
			s.wroteLocalLocked(*id, c)
		}
		return points, err
	}
	s.beginWriteLocked(*id, c, s.stampLocked())
	points, err = s.writeCleanLocked(id, bk, f, c)
	if *id != noID {
		s.endWriteLocked(*id)
	}
	return points, err
}

// writeCleanLocked is writeLocked without a note that the points are dirty. It
// lets go of the lock where memory must be found.
func (s *shard) writeCleanLocked(id *uint32, bk *bucket, f Fingerprint, c content) (points int, err error) {
	if age := s.ageLocked(bk); s.recs.At(*id).touched != age {
		s.touchLocked(*id, age)
	}
	if len(c.blocks) > 0 {
		if points, err = s.writeBlocksLocked(id, bk, f, c.blocks); err != nil {
			return points, err
		}
	}
	done := 0 // samples before this one were written as a run
	if len(c.starts) == 0 {
		done = s.insertRunLocked(s.recs.At(*id), c.samples)
		points += done
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
		if s.recs.At(*id).flags&flagBlob != 0 && s.overlapsLocked(s.recs.At(*id), x.T) {
			if e := s.retryLocked(id, f, func() bool { return s.restoreLocked(*id) }); e != nil {
				return points, e
			}
		}
		// What is out of order is mended in runs, below.
		if r := s.recs.At(*id); x.T > r.sealedEnd && r.flags&(flagStarts|flagRecords) == 0 && k >= len(c.starts) && s.insertLocked(*id, x.T, x.V) {
			points++
			// The next head may take many at once.
			n := s.insertRunLocked(s.recs.At(*id), c.samples[k+1:])
			points += n
			done = k + 1 + n
			continue
		}
		if s.outOfOrderRunLocked(*id, c, k) > 1 {
			n := 0
			if e := s.retryLocked(id, f, func() bool {
				// While the lock was free the series may have been evicted and made anew, or have got records.
				run := s.outOfOrderRunLocked(*id, c, k)
				if run > 1 {
					n = s.mendLocked(*id, c.samples[k:k+run])
				}
				return run <= 1 || n > 0
			}); e != nil {
				return points, e
			}
			points += n
			done = k + n
			k = done - 1
			continue
		}
		var start int64
		if k < len(c.starts) {
			start = c.starts[k]
		}
		if e := s.retryLocked(id, f, func() bool {
			return s.eraseRecordAtLocked(*id, x.T) && s.insertLocked(*id, x.T, x.V) && s.insertStartLocked(*id, bk, x.T, start)
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
		if e := s.retryLocked(id, f, func() bool { return s.insertRecordLocked(*id, x) }); e != nil {
			return points, e
		}
		points++
	}
	return points, err
}

// outOfOrderRunLocked is how many samples from k on are out of order, sorted,
// and nothing but samples: those that mend takes at once.
func (s *shard) outOfOrderRunLocked(id uint32, c content, k int) int {
	r := s.recs.At(id)
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

// errGone says that a series was evicted while it was written. Callers who know
// its labels make it again.
var errGone = fmt.Errorf("%w: series was evicted while it was written", ErrNoMemory)

// retryLocked calls try until it has found the memory it needs, or there is
// none. It lets go of the lock in between, so that *id may change or become
// noID, whatever the error: where there would be memory it is errGone then.
func (s *shard) retryLocked(id *uint32, f Fingerprint, try func() bool) error {
	for tries := 0; !try(); tries++ {
		life := s.recs.At(*id).life
		s.publishLocked()
		s.yields++
		s.mu.Unlock()
		ok := tries < roomTries && s.cache.makeRoom(s, tries)
		s.mu.Lock()
		*id = s.findAgainLocked(f, life)
		if !ok {
			return fmt.Errorf("%w: %d of %d bytes used", ErrNoMemory, s.cache.memory.Used(), s.cache.memory.Budget())
		}
		if *id == noID {
			return errGone
		}
	}
	return nil
}

// findAgainLocked finds a series behind a time in which the lock was free. One of labels
// that another made in place of it is noID, too, where what is dirty was noted of the first.
func (s *shard) findAgainLocked(f Fingerprint, life uint32) uint32 {
	id := s.findLocked(f)
	if id == noID || !s.cache.writeBack {
		return id
	}
	if r := s.recs.At(id); r.life != life && r.flags&flagRaw == 0 {
		return noID
	}
	return id
}

// eraseRecordAtLocked removes a record at t, which a sample replaces.
func (s *shard) eraseRecordAtLocked(id uint32, t int64) bool {
	d := s.recordDirLocked(s.recs.At(id))
	return d == nil || t > d.end || s.eraseRecordsLocked(id, t, t)
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
	bk, err := c.openTo(b.bucket, widthHPTS)
	if err != nil {
		return 0, err
	}
	samples, err = c.appendToNew(bk, b.series[i].fp, 0, labels, b.of(i))
	c.insertedInto(bk, samples)
	c.evict()
	return samples, err
}

// appendToNew writes samples to the series of a fingerprint, creating it if
// need be.
func (c *Cache) appendToNew(bk *bucket, f Fingerprint, flags seriesFlags, labels []Label, what content) (int, error) {
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
		s.publishLocked()
		s.mu.Unlock()
	}()
	for tries := 0; ; tries++ {
		id, made, err := s.findOrCreateLocked(bk, f, flags, labels, nil)
		if err != nil {
			return 0, err
		}
		if made && c.now != nil {
			if t, ok := what.first(); ok {
				bk.cover.firstOf(t, c.now())
			}
		}
		n, err := s.writeLocked(&id, bk, f, what)
		if !errors.Is(err, errGone) || tries == roomTries {
			return n, err
		}
	}
}

// findOrCreateLocked returns the id of the series f, and makes it if need be.
// It lets go of the lock where memory must be found. labels and pairs are as of createLocked.
func (s *shard) findOrCreateLocked(bk *bucket, f Fingerprint, flags seriesFlags, labels []Label, pairs func() error) (id uint32, made bool, err error) {
	id = s.findLocked(f)
	for tries := 0; id == noID; tries++ {
		if id, err = s.createLocked(bk, f, flags, labels, pairs); err == nil {
			return id, true, nil
		}
		if !errors.Is(err, ErrNoMemory) {
			return noID, false, err
		}
		s.publishLocked()
		s.mu.Unlock()
		ok := tries < roomTries && s.cache.makeRoom(s, tries)
		s.mu.Lock()
		if !ok {
			return noID, false, err
		}
		id = s.findLocked(f)
	}
	return id, false, nil
}

// AppendSamples writes samples of the series with the labels given, which
// need not be sorted and are copied.
func (c *Cache) AppendSamples(bucket string, labels []Label, samples ...Sample) error {
	if err := c.admitDirty(); err != nil {
		return err
	}
	bk, err := c.openTo(bucket, widthHPTS)
	if err != nil {
		return err
	}
	return c.appendContent(bk, labels, content{samples: samples})
}

// AppendLocal is AppendSamples for what is nobody else's business, such as the
// measurements a program takes of itself: the samples are not handed on to the
// downstream store. Where the same series is also written by others, those of
// its samples that lie within what they wrote out of order may be handed on all the same.
// It alone writes to Options.LocalBucket.
func (c *Cache) AppendLocal(bucket string, labels []Label, samples ...Sample) error {
	bk, err := c.openBucket(bucket, widthHPTS)
	if err != nil {
		return err
	}
	return c.appendContent(bk, labels, content{samples: samples, local: true, duty: Nobodys})
}

func (c *Cache) appendContent(bk *bucket, labels []Label, what content) error {
	n, err := c.appendToNew(bk, c.Fingerprint(labels), 0, labels, what)
	if what.local && n > 0 {
		c.countInto(bk, n)
		c.arrivedLocal(bk, n)
	} else {
		c.insertedInto(bk, n)
	}
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
