package mcache

import (
	"math"
	"sort"

	"mcached/mcache/block"
)

// Snapshot is a copy of the chunks of one series that overlap a range of time,
// still encoded. It has nothing to do with snapshots, the files of Save. It is
// taken under the shard's lock, which is held for the copy only, and decoded
// without it. A Snapshot may be used again; its Iterators are then invalid.
type Snapshot struct {
	from, to     int64
	buf          []byte // blocks, each with unpackSlack bytes behind it
	blocks       []snapBlock
	head         []Sample
	records      []Record
	recordBuf    []byte    // what the records' values are views of
	starts       *Snapshot // of the shadow; nil if it has none
	completeFrom int64
	shown        int64 // of Cache.Snapshot: of what is before it nothing may be shown
}

type snapBlock struct {
	start   int64
	at, len int // in buf, slack not counted
}

// CompleteFrom is Snapshot.CompleteFrom of the series as far as it is known
// without reading: what overflow has lost shows when it is read. It is
// math.MinInt64 if nothing is known to be missing, or the series has gone.
func (c *Cache) CompleteFrom(id SeriesID) int64 {
	sh, r, _ := c.lockSeries(id)
	if sh == nil {
		return math.MinInt64
	}
	defer sh.mu.Unlock()
	return max(r.completeFrom, c.shownFromLocked(sh, r))
}

// Snapshot copies what the series has from from to to, both inclusive, in ms,
// into s. It reports false when the series has gone; s is then empty. What is
// beyond the retention of the series is left out; see SetRetention.
func (c *Cache) Snapshot(id SeriesID, from, to int64, s *Snapshot) bool {
	sh, r, _ := c.lockSeries(id)
	if sh == nil {
		s.empty(from, to)
		return false
	}
	defer sh.mu.Unlock()
	s.shown = c.shownFromLocked(sh, r)
	sh.snapshotLocked(r, max(from, s.shown), to, s)
	return true
}

// Retained reports, of a Snapshot that Cache.Snapshot took, whether the series has a
// retention: then it is no more what it was when the series gets a later point.
func (s *Snapshot) Retained() bool { return s.shown != math.MinInt64 }

// empty makes s one without a point.
func (s *Snapshot) empty(from, to int64) {
	*s = Snapshot{buf: s.buf[:0], blocks: s.blocks[:0], head: s.head[:0], records: s.records[:0], recordBuf: s.recordBuf[:0],
		from: from, to: to, completeFrom: math.MinInt64}
}

// SeriesBytes is what a series has allocated for its points, which a Snapshot
// of it takes, too; 0 if it has gone.
func (c *Cache) SeriesBytes(id SeriesID) int64 {
	s, r, _ := c.lockSeries(id)
	if s == nil {
		return 0
	}
	defer s.mu.Unlock()
	return int64(r.bytes) + s.blobSizeLocked(r)
}

func (s *shard) snapshotLocked(r *series, from, to int64, snap *Snapshot) {
	snap.from, snap.to = from, to
	snap.buf, snap.blocks, snap.head = snap.buf[:0], snap.blocks[:0], snap.head[:0]
	snap.records, snap.recordBuf, snap.starts = snap.records[:0], snap.recordBuf[:0], nil
	snap.completeFrom = r.completeFrom
	inBlob := s.snapshotBlobLocked(r, snap)
	dir := s.dirOfLocked(r)
	// Blocks that vanished say from when on nothing is missing, in range or not.
	for k, e := range dir {
		if s.log.Live(e.ref) {
			break // older ones vanish first; a hole behind is found below
		}
		snap.noteLost(dir, k, r.sealedEnd)
	}
	first := len(dir)
	if from <= r.sealedEnd { // else the last block, whose end only sealedEnd tells, has nothing to give
		first = max(sort.Search(len(dir), func(i int) bool { return dir[i].start > from })-1, 0)
	}
	for k := first; k < len(dir) && dir[k].start <= to; k++ {
		b := s.blockLocked(dir[k])
		if b == nil {
			snap.noteLost(dir, k, r.sealedEnd)
			continue
		}
		snap.blocks = append(snap.blocks, snapBlock{dir[k].start, len(snap.buf), len(b)})
		snap.buf = append(append(snap.buf, b...), zeros[:]...)
	}
	if p := s.hot.Pointer(r.head); p != nil {
		if r.headLen() > 0 && r.headLast() >= from {
			snap.head = headSamples(snap.head, r, p)
		}
	} else if r.head != 0 && r.headLen() > 0 {
		snap.completeFrom = max(snap.completeFrom, r.headLast()+1)
	}
	if r.records != 0 || len(inBlob) > 0 {
		s.snapshotRecordsLocked(r, snap, inBlob)
	}
	if shadow := s.shadowLocked(r); shadow != noID {
		snap.starts = new(Snapshot)
		s.snapshotLocked(s.recs.At(shadow), from, to, snap.starts)
	}
}

// snapshotRecordsLocked copies the record chunks that overlap and decodes them,
// behind those copied from the blob.
func (s *shard) snapshotRecordsLocked(r *series, snap *Snapshot, chunks []snapBlock) {
	d := s.recordDirLocked(r)
	dir := d.entries()
	for k, e := range dir {
		if e.start > snap.to {
			break
		}
		b := s.blockLocked(e)
		if b == nil {
			snap.noteLost(dir, k, d.end)
			continue
		}
		if k+1 < len(dir) && dir[k+1].start <= snap.from {
			continue
		}
		chunks = append(chunks, snapBlock{e.start, len(snap.recordBuf), block.RecordBytes(b)})
		snap.recordBuf = append(snap.recordBuf, b[:block.RecordBytes(b)]...)
	}
	for _, c := range chunks {
		snap.records = block.AppendRecords(snap.records, snap.recordBuf[c.at:], c.start)
	}
	in := func(t int64) int {
		return sort.Search(len(snap.records), func(i int) bool { return snap.records[i].T >= t })
	}
	from, to := in(snap.from), len(snap.records)
	if snap.to < math.MaxInt64 {
		to = in(snap.to + 1)
	}
	snap.records = snap.records[min(from, to):to]
}

// noteLost notes that the chunk of entry k has vanished; end is the last time of all.
func (snap *Snapshot) noteLost(dir []dirEntry, k int, end int64) {
	if k+1 < len(dir) {
		end = dir[k+1].start - 1
	}
	snap.completeFrom = max(snap.completeFrom, end+1)
}

// CompleteFrom is the time in ms from which on nothing of the series is known
// to be missing: math.MinInt64, or the end of what was evicted or reclaimed.
func (s *Snapshot) CompleteFrom() int64 { return s.completeFrom }

// HasRecords reports whether there are other points than samples.
func (s *Snapshot) HasRecords() bool { return len(s.records) > 0 }

// HasPoint reports whether there is any point. A block is decoded only if none
// is known to begin within the time.
func (s *Snapshot) HasPoint() bool {
	if s.HasRecords() {
		return true
	}
	for i := range s.blocks {
		if t := s.blocks[i].start; t >= s.from && t <= s.to {
			return true
		}
	}
	for i := range s.head {
		if t := s.head[i].T; t >= s.from && t <= s.to {
			return true
		}
	}
	it := s.Iterator()
	return it.Next()
}

// firstTime is that of the first point, if there is one.
func (s *Snapshot) firstTime() (t int64, ok bool) {
	it := s.Iterator()
	switch ok = it.Next(); {
	case !ok:
		return 0, false
	case it.OnRecord():
		return it.Record().T, true
	default:
		return it.At().T, true
	}
}

// Bytes is the size of the copied blocks.
func (s *Snapshot) Bytes() int { return len(s.buf) - len(s.blocks)*block.Slack }

// Held is what the snapshot has on the heap, to be used again.
func (s *Snapshot) Held() int64 {
	const record = 32 // a time and a slice
	n := int64(cap(s.buf) + cap(s.recordBuf) + 16*cap(s.head) + 24*cap(s.blocks) + record*cap(s.records))
	if s.starts != nil {
		n += s.starts.Held()
	}
	return n
}

// Iterator walks the points of a Snapshot in order of time. It decodes one
// block at a time, 6 KiB of state; it is not safe for concurrent use, but a
// Snapshot may have many.
type Iterator struct {
	sampleIterator
	started  bool
	sampled  bool // the sample iterator stands on a sample that is next or current
	onRecord bool
	record   int // next or current in snap.records
	starts   *Iterator
}

// Iterator returns an Iterator before the first point.
func (s *Snapshot) Iterator() Iterator {
	return Iterator{sampleIterator: sampleIterator{snap: s, at: -1}}
}

// Reset puts the iterator before the first point of s and keeps its buffers.
func (it *Iterator) Reset(s *Snapshot) {
	*it = Iterator{sampleIterator: sampleIterator{snap: s, at: -1, store: it.store}}
}

// Next moves to the next point and reports whether there is one.
func (it *Iterator) Next() bool {
	if len(it.snap.records) == 0 {
		return it.next()
	}
	switch {
	case it.onRecord:
		it.record++
	default:
		it.sampled = (it.sampled || !it.started) && it.next()
	}
	return it.choose()
}

// Run moves over the samples that are decoded together and returns those of
// them that were ahead; none at the end. They are valid until the iterator
// moves again. It must not be called where the snapshot HasRecords.
func (it *Iterator) Run() []Sample { return it.run() }

// SkipTo moves to the first point at or after t, never backwards, and reports
// whether there is one.
func (it *Iterator) SkipTo(t int64) bool {
	if len(it.snap.records) == 0 {
		return it.skipTo(t)
	}
	if it.sampled || !it.started {
		it.sampled = it.skipTo(t)
	}
	rest := it.snap.records[it.record:]
	it.record += sort.Search(len(rest), func(i int) bool { return rest[i].T >= t })
	return it.choose()
}

// choose makes the earlier of the next sample and the next record current.
func (it *Iterator) choose() bool {
	it.started = true
	more := it.record < len(it.snap.records)
	it.onRecord = more && !(it.sampled && it.cur[it.at].T < it.snap.records[it.record].T)
	return more || it.sampled
}

// At is the sample that Next or SkipTo moved to. It must not be called on a record.
func (it *Iterator) At() Sample { return it.cur[it.at] }

// OnRecord reports whether Next or SkipTo moved to a record.
func (it *Iterator) OnRecord() bool { return it.onRecord }

// Record is the record that Next or SkipTo moved to. Its value is valid as
// long as the Snapshot is.
func (it *Iterator) Record() Record { return it.snap.records[it.record] }

// StartTime is the start time in ms of the sample that Next or SkipTo moved
// to; 0 if it has none. Records keep theirs, if any, in their value.
func (it *Iterator) StartTime() int64 {
	if it.snap.starts == nil || it.onRecord {
		return 0
	}
	if it.starts == nil {
		starts := it.snap.starts.Iterator()
		it.starts = &starts
	}
	t := it.At().T
	if !it.starts.SkipTo(t) || it.starts.At().T != t {
		return 0
	}
	return int64(math.Float64frombits(it.starts.At().V))
}

// sampleIterator is an Iterator over samples only.
type sampleIterator struct {
	snap  *Snapshot
	block int // next to decode; len(snap.blocks) is the head
	cur   []Sample
	at    int // in cur, of the current sample; −1 before the first
	store *iteratorStore
}

type iteratorStore struct {
	codec block.Codec
	out   [block.MaxSamples]Sample
}

func (it *sampleIterator) next() bool {
	for {
		it.at++
		for it.at < len(it.cur) {
			if t := it.cur[it.at].T; t > it.snap.to {
				it.end()
				return false
			} else if t >= it.snap.from {
				return true
			}
			it.at++
		}
		if !it.load() {
			return false
		}
	}
}

// run is next for all samples of a block that are in the time.
func (it *sampleIterator) run() []Sample {
	if !it.next() {
		return nil
	}
	first := it.at
	it.at = len(it.cur) - 1
	if to := it.snap.to; it.cur[it.at].T > to {
		rest := it.cur[first:]
		it.at = first + sort.Search(len(rest), func(i int) bool { return rest[i].T > to }) - 1
	}
	return it.cur[first : it.at+1]
}

func (it *sampleIterator) skipTo(t int64) bool {
	if it.at >= 0 && it.at < len(it.cur) && it.cur[it.at].T >= t {
		return true
	}
	// Blocks that end before t are those whose successor begins at or before it.
	blocks := it.snap.blocks
	if it.block < len(blocks) && (len(it.cur) == 0 || it.cur[len(it.cur)-1].T < t) {
		next := it.block + sort.Search(len(blocks)-it.block, func(i int) bool { return blocks[it.block+i].start > t }) - 1
		if next > it.block {
			it.block, it.cur, it.at = next, nil, -1
		}
	}
	for it.next() {
		if it.cur[it.at].T >= t {
			return true
		}
		// Within a block the rest is searched, not walked.
		rest := it.cur[it.at:]
		it.at += sort.Search(len(rest), func(i int) bool { return rest[i].T >= t }) - 1
	}
	return false
}

// load decodes the next block, or takes the head.
func (it *sampleIterator) load() bool {
	it.at = -1
	s := it.snap
	switch {
	case it.block < len(s.blocks):
		if it.store == nil {
			it.store = new(iteratorStore)
		}
		b := s.blocks[it.block]
		n, err := it.store.codec.Decode(&it.store.out, s.buf[b.at:b.at+b.len+block.Slack], b.start)
		if err != nil {
			panic("mcache: own block: " + err.Error())
		}
		it.cur = it.store.out[:n]
	case it.block == len(s.blocks):
		it.cur = s.head
	default:
		it.end()
		return false
	}
	it.block++
	return true
}

func (it *sampleIterator) end() { it.cur, it.at, it.block = nil, 0, len(it.snap.blocks)+1 }
