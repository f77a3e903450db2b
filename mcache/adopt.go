package mcache

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"mcached/kvcache/offheap"
	"mcached/mcache/block"
	"mcached/mcache/index"
)

// loader takes in the frames of a file: what its reader finds it writes. All
// series of a batch are read before the first is written: they are then written
// by shard, under one hold of each shard's lock, in the order of the file. That
// is also what keeps the order in which they were made, by which batches find them.
type loader struct {
	savedReader
	cache *Cache

	hashes  []labelHash   // of the labels that are known in a batch
	sums    []Fingerprint // of these
	targets []savedTarget // by the position of the series
	bucket  *bucket       // of the series before

	order []int32 // positions in series, by shard
	ends  []int32 // by shard
	busy  []int   // shards
	life  uint32  // of the first in series, less one

	pairs shardPairs
	named []Label // scratch
}

// savedTarget is where a series goes.
type savedTarget struct {
	bucket *bucket // nil: nowhere
	fp     Fingerprint
}

// recordsOf is the records of a series; valid until the next call.
func (l *loader) recordsOf(x *savedSeries) []Record {
	l.records = l.records[:0]
	for _, c := range l.chunksOf(x) {
		l.records = block.AppendRecords(l.records, c.bytes, c.first)
	}
	return l.records
}

// frame takes in a frame. What is before the first that is damaged is taken in, too.
func (l *loader) frame(f frame) (o outcome) {
	if o.damage = f.check(); o.damage != nil {
		return o
	}
	for l.begin(f); l.more() && o.noRoom == nil; {
		if err := l.read(f.kind); err != nil {
			o.damage = fmt.Errorf("frame that ends at %d: %w", f.end, err)
		}
		if l.sizes.shards > 0 {
			l.cache.makeReady(&l.sizes)
		}
		l.noteGone(&o)
		l.noteCoverage(&o)
		l.write(&o)
	}
	return o
}

// noteGone notes what buckets have lost with series that left whole.
func (l *loader) noteGone(o *outcome) {
	for i := range l.gone {
		g := &l.gone[i]
		if b := l.openBucket(g.bucket, widthHPTS, o); b != nil {
			b.note(g.group, g.complete)
		}
	}
}

// noteCoverage keeps what is said of the times that buckets cover, until the
// whole file was read.
func (l *loader) noteCoverage(o *outcome) {
	for i := range l.covers {
		x := &l.covers[i]
		if b := l.openBucket(x.bucket, widthHPTS, o); b != nil {
			b.cover.mu.Lock()
			b.cover.loaded = x.list
			b.cover.mu.Unlock()
		}
	}
}

// openBucket is Cache.openBucket, which is spared for the bucket opened last. It
// returns nil if there can be none.
func (l *loader) openBucket(name string, width uint32, o *outcome) *bucket {
	b := l.bucket
	if b == nil || b.name != name || b.width.Load() != width || l.cache.findBucket(name) != b {
		var err error
		if b, err = l.cache.openBucket(strings.Clone(name), width); err != nil {
			o.refuse(err)
			return nil
		}
		l.bucket = b
	}
	return b
}

// refuse counts a series that was intact and is not kept.
func (o *outcome) refuse(err error) {
	o.refused++
	if o.why == nil {
		o.why = err
	}
}

// aim finds the bucket and the fingerprint of each series of the batch.
func (l *loader) aim(o *outcome) {
	l.hashLabels()
	l.targets = l.targets[:0]
	for i := range l.series {
		x := &l.series[i]
		var sum Fingerprint
		for _, k := range l.numbersOf(x) {
			sum.hi += l.sums[k].hi
			sum.lo += l.sums[k].lo
		}
		var t savedTarget
		if i > 0 && l.targets[i-1].bucket != nil && x.width == l.series[i-1].width && x.bucket == l.series[i-1].bucket {
			t.bucket = l.targets[i-1].bucket
		} else {
			t.bucket = l.openBucket(x.bucket, x.width, o)
		}
		if t.bucket != nil {
			t.fp = sum.in(t.bucket)
		}
		l.targets = append(l.targets, t)
		o.read++
		o.readPoints += x.points
	}
	if l.refused > 0 {
		o.readPoints += l.refusedPoints
		o.refused += uint64(l.refused)
		if o.why == nil {
			o.why = errRefusedRecords
		}
	}
}

var errRefusedRecords = errors.New("mcache: records that are not valid")

// write writes the series of the batch to their shards, as far as there is
// memory. Shards that another loader is at come last.
func (l *loader) write(o *outcome) {
	l.aim(o)
	l.sortByShard()
	n := uint32(len(l.series))
	l.life = l.cache.lives.Add(n) - n
	busy := l.busy[:0]
	for i, s := range l.cache.shards {
		if !s.mu.TryLock() {
			busy = append(busy, i)
			continue
		}
		if l.writeShardAndUnlock(i, o); o.noRoom != nil {
			return
		}
	}
	l.busy = busy
	for _, i := range busy {
		l.cache.shards[i].mu.Lock()
		if l.writeShardAndUnlock(i, o); o.noRoom != nil {
			return
		}
	}
}

// sortByShard sets l.order by counting, and l.ends to where each shard's part
// of it ends.
func (l *loader) sortByShard() {
	c := l.cache
	mask := uint64(len(c.shards) - 1)
	l.ends = append(l.ends[:0], make([]int32, len(c.shards)+1)...)
	n := 0
	for i := range l.targets {
		if l.targets[i].bucket != nil {
			l.ends[l.targets[i].fp.hi&mask+1]++
			n++
		}
	}
	for i := range c.shards {
		l.ends[i+1] += l.ends[i]
	}
	l.order = slices.Grow(l.order[:0], n)[:n]
	for i := range l.targets {
		if l.targets[i].bucket != nil {
			k := l.targets[i].fp.hi & mask
			l.order[l.ends[k]] = int32(i)
			l.ends[k]++
		}
	}
}

// writeShardAndUnlock writes the series of one shard, whose lock is held, and
// lets go of it.
func (l *loader) writeShardAndUnlock(shard int, o *outcome) {
	s, from := l.cache.shards[shard], int32(0)
	l.pairs.forget(len(l.known.of))
	if shard > 0 {
		from = l.ends[shard-1]
	}
	for order := l.order[from:l.ends[shard]]; len(order) > 0 && o.noRoom == nil; {
		b, n := l.targets[order[0]].bucket, 1
		for n < len(order) && l.targets[order[n]].bucket == b {
			n++
		}
		l.cache.countInto(b, l.writeToLocked(s, b, order[:n], o))
		order = order[n:]
	}
	s.publishLocked()
	s.mu.Unlock()
	l.cache.evict()
}

// writeToLocked writes series of one bucket and returns how many points those
// are. It lets go of the lock where memory must be found. They are counted
// before they are made, all at once, unless the bucket counts them by metric.
func (l *loader) writeToLocked(s *shard, b *bucket, order []int32, o *outcome) (points int) {
	flags := flagHeld
	claims := 0
	together := b.limits.Load().SeriesPerMetric == 0
	if together {
		flags = flagClaimed
		claims = len(order)
		if err := b.claim(int64(claims)); err != nil {
			for range order {
				o.refuse(err)
			}
			return 0
		}
	}
	if s.ids.Len() > 0 {
		// All are about to be looked up. Read in a loop of their own, the slots come at once.
		touched := uint64(0)
		for _, i := range order {
			touched += s.ids.Touch(l.targets[i].fp.tag())
		}
		s.touched = touched
	}
	for _, i := range order {
		x, f := &l.series[i], l.targets[i].fp
		var labels []Label
		if !together {
			l.named = l.appendLabels(l.named[:0], x)
			labels = l.named
		}
		n, err := 0, errGone
		for tries := 0; errors.Is(err, errGone) && tries < roomTries; tries++ { // it may be deleted meanwhile
			var id uint32
			var made bool
			if together && tries > 0 { // what was counted is gone, and the bucket may have ended
				if err = b.claim(1); err != nil {
					n = 0
					break
				}
				claims++
			}
			id, made, err = s.findOrCreateLocked(b, f, x.flags|flags, labels, func() error { return l.pairsLocked(s, b, x) })
			if made {
				claims--
			}
			if made && tries == 0 {
				s.recs.At(id).life = l.life + uint32(i) + 1 // by its position in the file, not by shard
			}
			if err == nil {
				n, err = l.writeSeriesLocked(s, id, b, f, x)
			}
		}
		points += n
		if errors.Is(err, ErrNoMemory) {
			o.noRoom = err
			break
		}
		if err != nil {
			o.refuse(err)
			if n == 0 {
				continue
			}
		}
		o.series++
	}
	o.points += uint64(points)
	if together {
		b.series.Add(-int64(claims))
	}
	return points
}

// writeSeriesLocked gives the series its blocks as they are if it is new, and
// otherwise sample by sample. It lets go of the lock where memory must be
// found.
func (l *loader) writeSeriesLocked(s *shard, id uint32, b *bucket, f Fingerprint, x *savedSeries) (points int, err error) {
	dirty := x.dirty && s.cache.writeBack
	if dirty { // before there is anything of it: the lock may be free in between
		s.beginLoadLocked(id, x.unsentFrom, s.stampLocked())
	}
	r := s.recs.At(id)
	if r.points > 0 || r.flags&(flagStarts|flagBlob) != 0 {
		points, err = s.writeCleanLocked(&id, b, f, content{samples: l.decoded(l.samplesOf(x)), starts: l.startTimes(x), records: l.recordsOf(x)})
	} else if points, err = s.adoptAllLocked(&id, b, f, l.samplesOf(x)); err == nil {
		if x.starts.from < x.starts.to {
			err = s.adoptStartsLocked(&id, b, f, l.startsOf(x))
		}
		if err == nil && x.records.from < x.records.to {
			var n int
			n, err = s.writeCleanLocked(&id, b, f, content{records: l.recordsOf(x)})
			points += n
		}
	}
	if id != noID {
		r := s.recs.At(id)
		r.completeFrom = max(r.completeFrom, x.complete)
		r.flags |= flagLoaded
		switch {
		case dirty:
			s.endLoadLocked(id, s.pointsFromLocked(r, x.unsentFrom))
		case s.cache.writeBack:
			s.loadedCleanLocked(id, s.newestLocked(r))
		}
	}
	return points, err
}

// adoptStartsLocked makes the shadow of a series and gives it its blocks. It
// lets go of the lock where memory must be found.
func (s *shard) adoptStartsLocked(id *uint32, b *bucket, f Fingerprint, blocks []SoundBlock) error {
	shadow := uint32(noID)
	if err := s.retryLocked(id, f, func() bool {
		if shadow = s.shadowLocked(s.recs.At(*id)); shadow != noID {
			return true // of who wrote to the series while the lock was free
		}
		var err error
		if shadow, err = s.createLocked(b, shadowOf(f), flagShadow, nil, nil); err == nil {
			s.recs.At(*id).flags |= flagStarts
		}
		return err == nil
	}); err != nil {
		return err
	}
	yields, life := s.yields, s.recs.At(*id).life
	_, err := s.adoptAllLocked(&shadow, b, shadowOf(f), blocks)
	if s.yields != yields { // the lock was free
		if *id = s.findAgainLocked(f, life); *id == noID && err == nil {
			err = errGone
		}
	}
	return err
}

// adoptAllLocked gives blocks to a series that has none. It lets go of the lock
// where memory must be found. If others have written to the series meanwhile, the rest of
// the blocks come to it as those of a batch do.
func (s *shard) adoptAllLocked(id *uint32, b *bucket, f Fingerprint, blocks []SoundBlock) (points int, err error) {
	for err == nil && len(blocks) > 0 {
		behind := true
		err = s.retryLocked(id, f, func() bool {
			if behind = s.recs.At(*id).endsBefore(blocks[0].first); !behind {
				return true
			}
			placed := s.placeBehindLocked(*id, blocks)
			for i := range blocks[:placed] {
				points += blocks[i].n
			}
			blocks = blocks[placed:]
			return placed > 0
		})
		if !behind {
			rest := make([]batchBlock, len(blocks))
			for i := range rest {
				rest[i].SoundBlock = blocks[i]
			}
			n, err := s.writeCleanLocked(id, b, f, content{blocks: rest})
			return points + n, err
		}
	}
	return points, err
}

// endsBefore reports whether blocks from t on are behind all that r has, and
// placeBehindLocked may have them.
func (r *series) endsBefore(t int64) bool {
	return r.head == 0 && r.records == 0 && r.flags&flagPartial == 0 &&
		(r.dirLen == 0 && r.flags&flagBlob == 0 || t > r.sealedEnd)
}

// decoded is the samples of blocks that were decoded without an error before.
func (l *loader) decoded(blocks []SoundBlock) (all []Sample) {
	for i := range blocks {
		all = append(all, l.Samples(&blocks[i])...)
	}
	return all
}

// startTimes lines the start times up with the samples.
func (l *loader) startTimes(x *savedSeries) (all []int64) {
	if x.starts.from == x.starts.to {
		return nil
	}
	starts := l.decoded(l.startsOf(x))
	for _, y := range l.decoded(l.samplesOf(x)) {
		for len(starts) > 0 && starts[0].T < y.T {
			starts = starts[1:]
		}
		var start int64
		if len(starts) > 0 && starts[0].T == y.T {
			start = int64(math.Float64frombits(starts[0].V))
		}
		all = append(all, start)
	}
	return all
}

// makeReady makes room for what a file holds, so that no index grows, and is
// copied, again and again while it is read. Where there is not twice the memory, or a
// shard has none, they grow as they do.
func (c *Cache) makeReady(z *saveSizes) {
	// By chance a shard has more than the average.
	each := func(v uint64) int { v /= uint64(len(c.shards)); return int(v + v/32) }
	series, sets := each(z.series), each(z.setBytes)
	// Text, pairs and postings are what one shard had, whatever the number of shards.
	like := func(v uint64) int { return int(v / z.shards) }
	text, pairs, postings := like(z.textBytes), like(z.pairs), like(z.postingBytes)
	need := series*(seriesBytes+1+dirtBytes+offheap.LookupEntryBytes) + sets + text + pairs*index.PairBytes + postings
	if int64(need) > (c.memory.Budget()-c.memory.Used())/int64(2*len(c.shards)) {
		return
	}
	for _, s := range c.shards {
		s.mu.Lock()
		err := errors.Join(s.recs.Reserve(series), s.after.Reserve(series), s.ids.Reserve(series),
			s.index.Reserve(index.Sizes{Sets: sets, Text: text, Pairs: pairs, Postings: postings}))
		if err == nil && c.writeBack {
			err = errors.Join(s.dirt.Reserve(series), s.outOfOrder.Reserve(series), s.marks.Reserve(series))
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}
