package mcache

import (
	"errors"
	"math"
	"slices"
	"unsafe"
)

// write writes the series that were read to their shards, up to the first
// error. Shards that another loader is at come last.
func (l *loader) write() (series, points uint64, err error) {
	l.sortByShard()
	n := uint32(len(l.series))
	l.life = l.cache.lives.Add(n) - n
	busy := l.busy[:0]
	for i, s := range l.cache.shards {
		if !s.mu.TryLock() {
			busy = append(busy, i)
			continue
		}
		if err = l.writeShard(i, &series, &points); err != nil {
			return series, points, err
		}
	}
	l.busy = busy
	for _, i := range busy {
		l.cache.shards[i].mu.Lock()
		if err = l.writeShard(i, &series, &points); err != nil {
			return series, points, err
		}
	}
	return series, points, nil
}

// sortByShard sets l.order by counting, and l.ends to where each shard's part
// of it ends.
func (l *loader) sortByShard() {
	c := l.cache
	mask := uint64(len(c.shards) - 1)
	l.ends = append(l.ends[:0], make([]int32, len(c.shards)+1)...)
	for i := range l.series {
		l.ends[l.series[i].fp.hi&mask+1]++
	}
	for i := range c.shards {
		l.ends[i+1] += l.ends[i]
	}
	l.order = slices.Grow(l.order[:0], len(l.series))[:len(l.series)]
	for i := range l.series {
		k := l.series[i].fp.hi & mask
		l.order[l.ends[k]] = int32(i)
		l.ends[k]++
	}
}

// writeShard writes the series of one shard, whose lock is held, and lets go of it.
func (l *loader) writeShard(shard int, series, points *uint64) (err error) {
	s, from := l.cache.shards[shard], int32(0)
	if shard > 0 {
		from = l.ends[shard-1]
	}
	for order := l.order[from:l.ends[shard]]; len(order) > 0 && err == nil; {
		b, n := l.series[order[0]].bucket, 1
		for n < len(order) && l.series[order[n]].bucket == b {
			n++
		}
		var done, written int
		done, written, err = l.writeTo(s, b, order[:n])
		*series += uint64(done)
		*points += uint64(written)
		l.cache.insertedInto(b, written)
		order = order[n:]
	}
	s.settle()
	s.mu.Unlock()
	l.cache.evict()
	return err
}

// writeTo writes series of one bucket, up to the first error. They are counted
// before they are made, all at once, unless the bucket counts them by metric.
func (l *loader) writeTo(s *shard, b *bucket, order []int32) (done, points int, err error) {
	flags := flagHeld
	claims := 0
	if b.limits.SeriesPerMetric == 0 {
		flags = flagClaimed
		claims = len(order)
		b.series.Add(int64(claims))
	}
	if slots := s.ids.slots; len(slots) > 0 {
		// All are about to be looked up. Read in a loop of their own, the slots come at once.
		touched := uint64(0)
		for _, i := range order {
			touched += slots[s.ids.start(l.series[i].fp.tag())]
		}
		s.touched = touched
	}
	for _, i := range order {
		x := &l.series[i]
		if x.dirty {
			s.stampNow() // what may not have been sent is pinned from here on
		}
		id, made, e := s.findOrCreate(b, x.fp, x.flags|flags, l.labelsOf(x), l.hashesOf(x))
		if made {
			s.recs.view[id].life = l.life + uint32(i) + 1 // by its place in the file, not by shard
			claims--
		}
		n := 0
		if err = e; err == nil {
			n, err = l.writeSeries(s, id, x)
		}
		points += n
		if err != nil {
			break
		}
		done++
	}
	if b.limits.SeriesPerMetric == 0 {
		b.series.Add(-int64(claims))
	}
	return done, points, err
}

// writeSeries gives the series its blocks as they are if it is new, and
// otherwise sample by sample.
func (l *loader) writeSeries(s *shard, id uint32, x *savedSeries) (points int, err error) {
	r := &s.recs.view[id]
	if r.points > 0 || r.flags&(flagStarts|flagBlob) != 0 {
		points, err = s.writeClean(&id, x.bucket, x.fp, content{samples: l.decoded(l.samplesOf(x)), starts: l.startTimes(x), records: l.recordsOf(x)})
	} else if points, err = s.adoptAll(&id, x.fp, l.samplesOf(x)); err == nil {
		if starts := l.startsOf(x); len(starts) > 0 {
			err = s.adoptStarts(&id, x.bucket, x.fp, starts)
		}
		if records := l.recordsOf(x); err == nil && len(records) > 0 {
			var n int
			n, err = s.writeClean(&id, x.bucket, x.fp, content{records: records})
			points += n
		}
	}
	if id != noID {
		r := &s.recs.view[id]
		r.completeFrom = max(r.completeFrom, x.complete)
		s.loaded(id, x.unsentFrom, x.dirty)
	}
	return points, err
}

// adoptStarts makes the shadow of a series and gives it its blocks.
func (s *shard) adoptStarts(id *uint32, b *bucket, f Fingerprint, blocks []savedBlock) error {
	shadow := uint32(noID)
	if err := s.retry(id, f, func() bool {
		var err error
		if shadow, err = s.create(b, shadowOf(f), flagShadow, nil, nil); err == nil {
			s.recs.view[*id].flags |= flagStarts
		}
		return err == nil
	}); err != nil {
		return err
	}
	_, err := s.adoptAll(&shadow, shadowOf(f), blocks)
	return err
}

// adoptAll gives blocks to a series that has none.
func (s *shard) adoptAll(id *uint32, f Fingerprint, blocks []savedBlock) (points int, err error) {
	if n := len(blocks); n <= maxDir(s.fix.MaxValue()) && !s.dirReserve(*id, n) {
		if err := s.retry(id, f, func() bool { return s.dirReserve(*id, n) }); err != nil {
			return 0, err
		}
	}
	for i := range blocks {
		if b, last := &blocks[i], i == len(blocks)-1; !s.adopt(*id, b, last) {
			s.relist(*id)
			if err = s.retry(id, f, func() bool { return s.adopt(*id, b, last) }); err != nil {
				return points, err
			}
		}
		points += blocks[i].n
	}
	s.relist(*id)
	return points, nil
}

// adopt puts a block behind all others. The last one may take more samples.
// The caller relists the series.
func (s *shard) adopt(id uint32, b *savedBlock, last bool) bool {
	if !s.dirReserve(id, 1) {
		return false
	}
	r := &s.recs.view[id]
	partial := last && b.n <= blockPartial
	tables := s.log
	if partial {
		tables = s.hot
	}
	ref, dst, ok := tables.Alloc(len(b.bytes), kindBlock, id, b.n)
	if !ok {
		return false
	}
	copy(dst, b.bytes)
	s.account(r, int(entryBytes(len(dst))))
	s.dirReplace(r, int(r.dirLen), 0, dirEntry{ref, b.first})
	r.setPartial(partial)
	r.sealedEnd = b.last
	if b.step != 0 {
		r.step = b.step
	}
	r.points += uint32(b.n)
	s.inserted += uint64(b.n)
	return true
}

// decoded is the samples of blocks that were decoded without an error before.
func (l *loader) decoded(blocks []savedBlock) (all []Sample) {
	for _, b := range blocks {
		n, _ := l.decode(b.bytes, b.first)
		all = append(all, l.out[:n]...)
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
	const slot = 8*4/lookupLoad + 1 // bytes of a lookup
	need := series*(seriesBytes+dirtBytes+slot) + sets + text + pairs*(int(unsafe.Sizeof(pairRec{}))+slot) + postings
	if int64(need) > (c.memory.Budget()-c.memory.Used())/int64(2*len(c.shards)) {
		return
	}
	for _, s := range c.shards {
		s.mu.Lock()
		x := &s.index
		err := errors.Join(s.recs.reserve(series), s.ids.reserve(series), x.sets.reserve(sets),
			x.text.reserve(text), x.pairs.reserve(pairs), x.byPair.reserve(pairs), x.chunks.reserve(postings))
		if err == nil && c.writeBack {
			err = errors.Join(s.dirt.reserve(series), s.lates.reserve(series), s.marks.reserve(series))
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}
