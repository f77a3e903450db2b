package mcache

import (
	"fmt"
	"math"

	"mcached/mcache/block"
)

// Check walks everything and reports the first broken invariant. It is for
// tests and for debug builds, in which Maintain calls it: it holds one shard's
// lock after the other for as long as that takes.
func (c *Cache) Check() error {
	for _, s := range c.shards {
		s.mu.Lock()
		err := s.checkLocked()
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// checkLocked walks a shard and reports the first broken invariant.
func (s *shard) checkLocked() error {
	for _, t := range []interface{ Check() error }{s.hot, s.partials, s.log, s.fix, s.blobs} {
		if err := t.Check(); err != nil {
			return err
		}
	}
	var bytes int64
	live, points := 0, int64(0)
	for id := range s.recs.All() {
		r := s.recs.At(uint32(id))
		if r.flags&flagInUse == 0 {
			continue
		}
		live++
		bytes += int64(r.bytes)
		n, err := s.checkSeriesLocked(uint32(id))
		if err != nil {
			return fmt.Errorf("shard %d, series %d: %w", s.number, id, err)
		}
		points += int64(n)
	}
	if live != s.live || bytes != s.bytes {
		return fmt.Errorf("shard %d: %d series, %d bytes; counted %d, %d", s.number, live, bytes, s.live, s.bytes)
	}
	if w := s.hot.Stats().Weight + s.partials.Stats().Weight + s.log.Stats().Weight + s.blobs.Stats().Weight; w != points {
		return fmt.Errorf("shard %d: %d points in chunks, regions weigh %d", s.number, points, w)
	}
	used := func(id uint32) bool { return int(id) < s.recs.Len() && s.recs.At(id).flags&flagInUse != 0 }
	if err := s.checkDirtLocked(used, s.sameLocked); err != nil {
		return fmt.Errorf("shard %d: %w", s.number, err)
	}
	listed := 0
	for b := range s.lists {
		for class := range s.lists[b] {
			n, err := s.checkListLocked(b, class)
			if err != nil {
				return fmt.Errorf("shard %d: list %d/%d: %w", s.number, b, class, err)
			}
			listed += n
		}
	}
	if listed != s.live {
		return fmt.Errorf("shard %d: %d series listed, %d live", s.number, listed, s.live)
	}
	return nil
}

// checkListLocked checks that the queues of a list are linked both ways and
// that no series is older than its queue, and returns how many there are.
func (s *shard) checkListLocked(bucket, class int) (n int, err error) {
	l := &s.lists[bucket][class]
	for k, q := range l.gens {
		older := uint32(noID)
		for id := q.oldest; id != noID; id = s.recs.At(id).newer {
			r := s.recs.At(id)
			if r.older != older || int(r.class) != class || int(r.bucket) != bucket {
				return 0, fmt.Errorf("queue %d is broken at series %d", k, id)
			}
			if late := int32(l.age - r.touched); class != classBlob && late > int32(k) && k < 2 {
				return 0, fmt.Errorf("series %d was written %d ages ago and is in queue %d", id, late, k)
			}
			older = id
			n++
		}
		if q.newest != older {
			return 0, fmt.Errorf("queue %d ends at %d, not %d", k, q.newest, older)
		}
	}
	return n, nil
}

// checkSeriesLocked checks that the chunks that still exist are ordered and
// disjoint, and returns how many samples they hold.
func (s *shard) checkSeriesLocked(id uint32) (points int, err error) {
	r := s.recs.At(id)
	if s.findLocked(r.fp) != id {
		return 0, fmt.Errorf("its fingerprint leads elsewhere")
	}
	if err := s.checkPairsLocked(r); err != nil {
		return 0, err
	}
	last := int64(math.MinInt64)
	blobEnd := last
	if b, ok := s.blobOfLocked(r); ok {
		points, blobEnd, err = s.checkBlobLocked(b)
		if err != nil {
			return 0, err
		}
		if blobEnd > r.sealedEnd {
			return 0, fmt.Errorf("sealed end is %d, the blob ends at %d", r.sealedEnd, blobEnd)
		}
		last = blobEnd
	}
	for k, e := range s.dirOfLocked(r) {
		if !s.log.Live(e.ref) {
			continue
		}
		if block.OpenRoom(s.blockLocked(e)) > 0 && (r.flags&flagOpenBlock == 0 || s.tablesOfLocked(r, k) != s.log) {
			return 0, fmt.Errorf("block %d is open, and the series does not say so, or it is with partial ones", k)
		}
		n := s.decodeBlockLocked(e)
		for _, x := range s.block1[:n] {
			if x.T <= last {
				return 0, fmt.Errorf("block %d: time %d after %d", k, x.T, last)
			}
			last = x.T
		}
		if s.block1[0].T != e.start {
			return 0, fmt.Errorf("block %d begins at %d, not at %d", k, s.block1[0].T, e.start)
		}
		points += n
	}
	if last > r.sealedEnd {
		return 0, fmt.Errorf("sealed end is %d, there is a sample at %d", r.sealedEnd, last)
	}
	if p := s.hot.Pointer(r.head); p != nil {
		last = r.sealedEnd
		for _, x := range headSamples(nil, r, p) {
			if x.T <= last {
				return 0, fmt.Errorf("head: time %d after %d", x.T, last)
			}
			last = x.T
			points++
		}
	}
	last = blobEnd
	counted := uint32(0)
	for k, e := range s.recordDirLocked(r).entries() {
		b := s.blockLocked(e)
		if b == nil {
			continue
		}
		all := block.AppendRecords(nil, b, e.start)
		for _, x := range all {
			if x.T <= last {
				return 0, fmt.Errorf("record chunk %d: time %d after %d", k, x.T, last)
			}
			last = x.T
		}
		if all[0].T != e.start || last > s.recordDirLocked(r).end {
			return 0, fmt.Errorf("record chunk %d: from %d to %d, directory says %d to %d", k, all[0].T, last, e.start, s.recordDirLocked(r).end)
		}
		points += len(all)
		counted += uint32(len(all))
	}
	if d := s.recordDirLocked(r); d != nil && counted > d.points {
		return 0, fmt.Errorf("%d records, %d counted", counted, d.points)
	}
	return points, nil
}

// checkPairsLocked checks that a series has pairs of different names, that of its bucket
// first, and that each is counted as one of a series that is there.
func (s *shard) checkPairsLocked(r *series) error {
	x := &s.index
	set := x.Set(r.pairs, int(r.nPairs))
	if len(set) == 0 || string(x.Name(set[0])) != bucketName || string(x.Value(set[0])) != s.cache.bucket(r.bucket).name {
		return fmt.Errorf("its pairs are %d, of which the first is not its bucket", set)
	}
	for i, p := range set {
		if int(p) >= x.Pairs() || x.Live(p) == 0 || x.PairAt(r.pairs, i) != p {
			return fmt.Errorf("pair %d of %d, number %d, is not there, or of no series", i, len(set), p)
		}
		for _, q := range set[:i] {
			if x.NameOf(p) == x.NameOf(q) {
				return fmt.Errorf("two of its pairs have the name %q", x.Name(p))
			}
		}
	}
	return nil
}

// checkBlobLocked checks that the chunks of a blob are ordered and disjoint, and
// returns how many points they hold and the time of the last.
func (s *shard) checkBlobLocked(o block.Blob) (points int, end int64, err error) {
	last := int64(math.MinInt64)
	for k := 0; o.Blocks.Len() > 0; k++ {
		start, b := o.Blocks.Next()
		n := s.decodePartLocked(block.Part{Start: start, N: block.Len(b), Bytes: b})
		for _, x := range s.block1[:n] {
			if x.T <= last {
				return 0, 0, fmt.Errorf("block %d of the blob: time %d after %d", k, x.T, last)
			}
			last = x.T
		}
		if s.block1[0].T != start {
			return 0, 0, fmt.Errorf("block %d of the blob begins at %d, not at %d", k, s.block1[0].T, start)
		}
		points += n
	}
	end, last = last, math.MinInt64
	for k := 0; o.Records.Len() > 0; k++ {
		start, b := o.Records.Next()
		for _, x := range block.AppendRecords(nil, b, start) {
			if x.T <= last {
				return 0, 0, fmt.Errorf("records %d of the blob: time %d after %d", k, x.T, last)
			}
			last = x.T
			points++
		}
	}
	if end = max(end, last); points != o.Points || end > o.Last {
		return 0, 0, fmt.Errorf("blob of %d points until %d says %d until %d", points, end, o.Points, o.Last)
	}
	return points, end, nil
}
