package mcache

import (
	"math"

	"mcached/mcache/block"
)

// With Options.Blobs, eviction does not remove a series. What it holds is
// encoded into one blob, in regions of class Log that hold nothing else; its
// head, its blocks and its directories are freed. Its descriptor and its
// postings stay; the descriptor has the address of the blob:
//
//	            overflow                      written again
//	live  ─────────────────▶  in a blob  ─────────────────────▶  live, with a blob
//	  ▲                           │                                  │     │
//	  │ restore: out of order,    │ region vanishes, evicted again   │     │ overflow:
//	  └─ deletes ─────────────────┼──────────────────────────────────┘     │ one blob of both
//	                              ▼                                        ▼
//	                             gone                                  in a blob
//
// The one invariant: all that is in the blob is before all the rest of the
// series. So a read merges nothing: it takes the blob's blocks, then those of
// the directory, and no point is there twice. An out-of-order point or a delete
// in the range of the blob would break it. So these put the blob's blocks back
// into the directory first (restore). sealedEnd is at or after the end of the
// blob, so that the comparison with it detects every out-of-order point.
//
// The blobs are entries of the shard's own Tables rather than values of a
// kvcache.Cache, because then eviction is one step under one lock: at no moment
// a reader finds the points nowhere; the regions weigh their points, so that
// those of a vanished one are counted at once and exactly once; and a blob
// costs no key and no slot of an index, some 30 bytes.
//
// A series that has nothing but a blob is evicted whole.

// blobCounts are counters of one shard; all only grow. Stats says what they are.
type blobCounts struct {
	written, read, restored, refused, lost uint64
}

// classBlob is the list of series that have nothing but a blob, in the order
// in which eviction took them.
const classBlob = sizeClasses

// listClass is the list that r belongs to.
func listClass(r *series) uint8 {
	if r.flags&flagBlob != 0 && r.bytes == seriesBytes {
		return classBlob
	}
	return sizeClass(r.bytes)
}

// blobRoom says what memory a blob may be written to.
type blobRoom uint8

const (
	ofBudget  blobRoom = iota
	ofReserve          // and what is kept for entries that are moved
)

// toBlobLocked puts all that the series has into one blob. It reports false, and
// has changed nothing, when there is no memory. A series that turns out to hold
// nothing is removed.
func (s *shard) toBlobLocked(id uint32, from blobRoom) bool {
	r := s.recs.At(id)
	if !s.pruneLocked(r) {
		s.lost += uint64(s.pointsLocked(id)) // start times that outlived their samples
		s.noteGoneLocked(r)
		s.removeLocked(id)
		return true
	}
	if r.points > 0 {
		last := s.gatherLocked(r)
		dropped, first := s.parts.Fit(s.blobs.MaxValue())
		kept := int(r.points) + s.pointsInBlobLocked(r) - dropped
		alloc := s.blobs.Alloc
		if from == ofReserve {
			alloc = s.blobs.AllocMoved
		}
		ref, b, ok := alloc(s.parts.Bytes(), kindBlob, id, kept)
		if !ok {
			return false
		}
		s.parts.Append(b[:0], last)
		s.freeBlobLocked(r)
		r.setBlob(ref)
		r.sealedEnd = max(r.sealedEnd, last)
		if dropped > 0 {
			s.lost += uint64(dropped)
			r.completeFrom = max(r.completeFrom, first)
		}
		s.blob.written++
	}
	s.freeLiveLocked(r)
	r.head, r.mode, r.next, r.have, r.size = 0, modeNone, 0, 0, 0
	r.dir, r.dirLen, r.dirCap, r.records, r.points = 0, 0, 0, 0, 0
	r.flags &^= flagPartial | flagOpen | flagOpenBlock | flagRecords
	s.accountLocked(r, seriesBytes-int(r.bytes))
	s.relistLocked(id)
	return true
}

// coldestToBlob puts the coldest key of the generation into a blob. It reports
// false if there is none, or no memory.
func (s *shard) coldestToBlob(gen int) bool {
	if gen == genBlob {
		return false
	}
	done, none := s.tryColdestToBlob(gen, ofBudget)
	if done || none {
		return done
	}
	s.cache.memory.EvictLog(int64(s.cache.memory.RegionBytes()))
	done, none = s.tryColdestToBlob(gen, ofReserve)
	if !done && !none {
		s.mu.Lock()
		s.blob.refused++
		s.mu.Unlock()
	}
	return done
}

// tryColdestToBlob puts the coldest key of the generation into a blob. It says
// whether it did, and if not, whether there is none.
func (s *shard) tryColdestToBlob(gen int, from blobRoom) (done, none bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.coldestLocked(gen)
	if id == noID {
		return false, true
	}
	b := s.cache.bucket(s.recs.At(id).bucket)
	if !s.toBlobLocked(id, from) {
		return false, false
	}
	s.evictions++
	b.evictions.Add(1)
	s.tidyLocked()
	s.publishLocked()
	return true, false
}

// freeLiveLocked frees all that the tables hold of r, but for its blob.
func (s *shard) freeLiveLocked(r *series) {
	s.hot.Free(r.head, r.headLen())
	for k, e := range s.dirOfLocked(r) {
		if b := s.blockLocked(e); b != nil {
			s.tablesOfLocked(r, k).Free(e.ref, block.Len(b))
		}
	}
	s.fix.Free(r.dir, 0)
	for k, e := range s.recordDirLocked(r).entries() {
		if b := s.blockLocked(e); b != nil {
			s.recordTablesLocked(r, k).Free(e.ref, block.RecordCount(b))
		}
	}
	s.fix.Free(r.records, 0)
}

// gathered is the chunks of a series that go into a blob, in order. Bytes of the
// last block are nil while its samples are in shard.joined.
type gathered struct {
	block.Parts
	encoded []byte // what the bytes of some are views of
}

// gatherLocked lists the chunks of r, which was pruned, in s.parts: those of
// its blob, those of its directories, the head. It returns the time of the last
// point. Most are views of the tables, valid until something is freed.
func (s *shard) gatherLocked(r *series) (last int64) {
	p := &s.parts
	p.Blocks, p.Records, p.encoded = p.Blocks[:0], p.Records[:0], p.encoded[:0]
	last = math.MinInt64
	if o, ok := s.blobOfLocked(r); ok {
		last = o.Last
		for o.Blocks.Len() > 0 {
			start, b := o.Blocks.Next()
			s.gatherBlockLocked(r, block.Part{Start: start, N: block.Len(b), Bytes: b})
		}
		for o.Records.Len() > 0 {
			start, b := o.Records.Next()
			p.Records = append(p.Records, block.Part{Start: start, N: block.RecordCount(b), Bytes: b})
		}
	}
	for _, e := range s.dirOfLocked(r) {
		b := s.blockLocked(e)
		s.gatherBlockLocked(r, block.Part{Start: e.start, N: block.Len(b), Bytes: b})
	}
	if head := headSamples(s.samples[:0], r, s.hot.Pointer(r.head)); len(head) > 0 {
		s.gatherSamplesLocked(r, head[0].T, head)
	}
	s.gatherEndLocked(r)
	if n := len(p.Blocks); n > 0 {
		last = max(last, s.lastOfLocked(p.Blocks[n-1]))
	}
	if d := s.recordDirLocked(r); d != nil {
		for _, e := range d.entries() {
			b := s.blockLocked(e)
			p.Records = append(p.Records, block.Part{Start: e.start, N: block.RecordCount(b), Bytes: b[:block.RecordBytes(b)]})
		}
		if d.len > 0 {
			last = max(last, d.end)
		}
	}
	return last
}

// gatherBlockLocked adds a block, joined with the one before it if both are
// small: each life of a series leaves a short one at its end. Sections become
// one, and an open block is encoded.
func (s *shard) gatherBlockLocked(r *series, x block.Part) {
	p := &s.parts
	if k := len(p.Blocks) - 1; block.Sections(x.Bytes) > 1 || block.OpenRoom(x.Bytes) > 0 || k >= 0 && p.Blocks[k].N+x.N <= block.MaxSamples {
		n := s.decodePartLocked(x)
		s.gatherSamplesLocked(r, x.Start, s.block1[:n])
		return
	}
	s.gatherEndLocked(r)
	p.Blocks = append(p.Blocks, x)
}

// gatherSamplesLocked adds samples, at most a block, in the same way.
func (s *shard) gatherSamplesLocked(r *series, start int64, ss []Sample) {
	p := &s.parts
	k := len(p.Blocks) - 1
	if k < 0 || p.Blocks[k].N+len(ss) > block.MaxSamples {
		s.gatherEndLocked(r)
		p.Blocks = append(p.Blocks, block.Part{Start: start, N: len(ss)})
		s.joined = append(s.joined[:0], ss...)
		return
	}
	q := &p.Blocks[k]
	if q.Bytes != nil {
		s.samples2 = append(s.samples2[:0], ss...) // ss may be in block1
		ss = s.samples2
		s.joined = append(s.joined[:0], s.block1[:s.decodePartLocked(*q)]...)
		q.Bytes = nil
	}
	s.joined = append(s.joined, ss...)
	q.N += len(ss)
}

// gatherEndLocked encodes the last block if its samples are not encoded yet.
func (s *shard) gatherEndLocked(r *series) {
	p := &s.parts
	if k := len(p.Blocks) - 1; k >= 0 && p.Blocks[k].Bytes == nil {
		at := len(p.encoded)
		p.encoded = s.codec.Encode(p.encoded, s.joined, int64(r.step))
		p.Blocks[k].Bytes = p.encoded[at:]
	}
}

// decodePartLocked decodes the block of x into s.block1.
func (s *shard) decodePartLocked(x block.Part) int {
	n, err := s.codec.Decode(&s.block1, s.withSlackLocked(x.Bytes), x.Start)
	if err != nil {
		panic("mcache: own block: " + err.Error())
	}
	return n
}

// lastOfLocked is the time of the last sample of a block.
func (s *shard) lastOfLocked(x block.Part) int64 { return s.block1[s.decodePartLocked(x)-1].T }

// overlapsLocked reports whether r has a blob with a point at or after t.
func (s *shard) overlapsLocked(r *series, t int64) bool {
	if r.flags&flagBlob == 0 || t > r.sealedEnd {
		return false
	}
	b := s.blobs.Value(r.blobRef())
	return b != nil && t <= block.BlobLast(b)
}

// restoreLocked puts the blocks and records of the blob back into the
// directories, in front of what is there. It fails without a change.
func (s *shard) restoreLocked(id uint32) bool {
	r := s.recs.At(id)
	o, ok := s.blobOfLocked(r)
	if !ok {
		s.pruneBlobLocked(r)
		return true
	}
	// What a directory has no room for is lost, the oldest first; one place
	// is left for the point that all of this is for.
	most := maxDir(s.fix.MaxValue()) - 1
	lost, from := 0, int64(math.MinInt64)
	for o.Blocks.Len() > max(most-int(r.dirLen), 0) {
		_, b := o.Blocks.Next()
		lost += block.Len(b)
		if o.Blocks.Len() > 0 {
			rest := o.Blocks
			from, _ = rest.Next()
		} else {
			from = max(from, s.afterBlobLocked(r))
		}
	}
	have := 0
	if d := s.recordDirLocked(r); d != nil {
		have = int(d.len)
	}
	for o.Records.Len() > max(most-have, 0) {
		_, b := o.Records.Next()
		lost += block.RecordCount(b)
		from = max(from, o.Last+1)
	}
	if o.Blocks.Len() > 0 && !s.dirReserveLocked(id, o.Blocks.Len()) || o.Records.Len() > 0 && !s.recordReserveLocked(id, o.Records.Len()) {
		return false
	}
	blocks, records := o.Blocks.Len(), o.Records.Len()
	s.entries = s.entries[:0]
	ok = s.restoreChunksLocked(id, o.Blocks, kindBlock) && s.restoreChunksLocked(id, o.Records, kindRecords)
	r = s.recs.At(id)
	if !ok {
		for k, e := range s.entries {
			b, points := s.blockLocked(e), 0
			if points = block.RecordCount(b); k < blocks {
				points = block.Len(b)
			}
			s.accountLocked(r, -int(entryBytes(len(b))))
			s.log.Free(e.ref, points)
		}
		return false
	}
	points := o.Points - lost
	if blocks > 0 {
		s.dirReplaceLocked(r, 0, 0, s.entries[:blocks]...)
	}
	if records > 0 {
		d := s.recordDirLocked(r)
		es := s.entries[blocks:]
		d.replace(0, 0, es...)
		for _, e := range es {
			d.points += uint32(block.RecordCount(s.blockLocked(e)))
		}
		if int(d.len) == records {
			b := s.blockLocked(es[records-1])
			all := block.AppendRecords(nil, b, es[records-1].start)
			d.end = max(d.end, all[len(all)-1].T)
		}
	}
	r.points += uint32(points)
	s.lost += uint64(lost)
	if lost > 0 {
		r.completeFrom = max(r.completeFrom, from)
	}
	s.freeBlobLocked(r)
	s.blob.restored++
	s.relistLocked(id)
	return true
}

// restoreChunksLocked stores chunks in the log and appends their entries to
// s.entries.
func (s *shard) restoreChunksLocked(id uint32, l block.Chunks, kind uint16) bool {
	for l.Len() > 0 {
		start, b := l.Next()
		points := 0
		if kind == kindBlock {
			points = block.Len(b)
		} else {
			points = block.RecordCount(b)
		}
		ref, dst, ok := s.log.Alloc(len(b), kind, id, points)
		if !ok {
			return false
		}
		copy(dst, b)
		s.accountLocked(s.recs.At(id), int(entryBytes(len(dst))))
		s.entries = append(s.entries, dirEntry{ref, start})
	}
	return true
}

// snapshotBlobLocked is the part of snapshotLocked that reads the blob of r:
// blocks are copied; the positions of the chunks of records in snap.recordBuf
// are returned.
func (s *shard) snapshotBlobLocked(r *series, snap *Snapshot) (chunks []snapBlock) {
	if r.flags&flagBlob == 0 {
		return nil
	}
	if b := s.blobs.Value(r.blobRef()); b != nil && block.BlobLast(b) < snap.from {
		return nil // as most reads: its checksum would cost more than they do
	}
	after := s.afterBlobLocked(r)
	o, ok := s.blobOfLocked(r)
	if !ok {
		snap.completeFrom = max(snap.completeFrom, after)
		return nil
	}
	s.blob.read++
	snap.buf, snap.blocks = copyOut(o.Blocks, snap.from, snap.to, snap.buf, snap.blocks, zeros[:])
	snap.recordBuf, chunks = copyOut(o.Records, snap.from, snap.to, snap.recordBuf, nil, nil)
	return chunks
}

// copyOut appends the chunks of l that may have something in from to to to buf, each
// with slack behind it, and their places to at.
func copyOut(l block.Chunks, from, to int64, buf []byte, at []snapBlock, slack []byte) ([]byte, []snapBlock) {
	for l.Len() > 0 {
		start, b := l.Next()
		if start > to {
			break
		}
		if l.Len() > 0 {
			rest := l
			if next, _ := rest.Next(); next <= from {
				continue
			}
		}
		at = append(at, snapBlock{start, len(buf), len(b)})
		buf = append(append(buf, b...), slack...)
	}
	return buf, at
}
