package mcache

import (
	"math"
	"runtime"
	"unsafe"

	"mcached/kvcache"
	"mcached/mcache/block"
	"mcached/mcache/index"
)

// series is the descriptor of one series: two cache lines, of which an in-order
// append touches the first.
//
//	directory ─▶ block … block [partial block] │ head
//	             └──────────── sealedEnd ──────┘
//
// Blocks and head are ordered and disjoint in time: everything sealed is at or
// before sealedEnd, everything in the head is after it.
type series struct {
	fp      Fingerprint
	head    kvcache.Ref // in shard.hot; 0 when there is none
	start   int64       // modeGrid: time of slot 0; modePairs: time of the last pair
	have    uint64      // modeGrid: bit i is set if slot i holds a value
	step    uint32      // ms between slots, 0 while unknown (and if it needs more bits)
	touched uint32      // bucket's age at the last write
	points  uint32      // in head, blocks and records, not in the blob; may still count blocks that vanished since the last prune
	bucket  uint16      // id in Cache.buckets
	flags   seriesFlags
	mode    headMode
	size    uint8  // bytes of the head's array, in units of 8
	next    uint8  // modeGrid: one past the last slot in use; modePairs: number of pairs
	blobLow uint32 // with blobHigh the address of its blob, in shard.blobs

	// Second line: what sealing, mending, eviction and reading need.
	sealedEnd    int64       // time of the last sealed sample; math.MinInt64 if none
	completeFrom int64       // samples before this time may have been lost; math.MinInt64 if not
	dir          kvcache.Ref // in shard.fix: dirCap entries
	dirLen       uint16
	dirCap       uint16
	nPairs       uint16
	class        uint8 // of size
	_            uint8
	pairs        index.Place // its pairs in the index
	older, newer uint32      // neighbours in the list of its bucket and class; noID at the ends
	bytes        uint32      // allocated for it: head, blocks, directory, headers and seriesBytes
	life         uint32      // tells this series from others that had its id; grows in the order in which series are made
	blobHigh     uint32
	records      kvcache.Ref // in shard.fix: a recordDir; 0 when there are none
}

// The layout: a descriptor is two cache lines; the second begins with
// sealedEnd.
const seriesBytes = 128

var (
	_ [seriesBytes]byte     = [unsafe.Sizeof(series{})]byte{}
	_ [seriesBytes / 2]byte = [unsafe.Offsetof(series{}.sealedEnd)]byte{}
)

type headMode uint8

const (
	modeNone  headMode = iota
	modeGrid           // 8 bytes a slot, presence in have
	modePairs          // time and value, 16 bytes a sample, sorted
)

type seriesFlags uint16

const (
	flagInUse     seriesFlags = 1 << iota
	flagRaw                   // a key of the raw API: no labels
	flagPartial               // the last block is short, in shard.partials, and may take more
	flagOpen                  // the last record chunk is in shard.hot and may take more
	flagShadow                // holds the start times of another series; not a point by itself
	flagStarts                // has a shadow
	flagHeld                  // for create only: limits do not refuse it
	flagClaimed               // for create only: it was counted
	flagBlob                  // has a blob; all that is in it is before all the rest
	flagRecords               // has records, or had some
	flagLoaded                // was loaded, and its next write tells something of coverage
	flagOpenBlock             // may have open blocks
)

// Sizes of a head's array: the one of a series with few samples, and that of all
// others. A full grid of headMax bytes has one presence bit a slot.
const (
	headMin = 64
	headMax = 192
)

// What would break without a word if one of these changed: each is at least zero.
const (
	_ = uint(64 - headMax/slotBytes)                       // series.have has a bit for every slot of a grid
	_ = uint(math.MaxUint8 - headMax/slotBytes)            // series.size, next and headLen count slots in a byte
	_ = uint(block.MaxSamples - headMax/pairBytes - 1)     // a full head of pairs fills a block in part
	_ = uint(block.MaxSamples - headMax/slotBytes)         // a full grid fits into one
	_ = uint(kvcache.MinRegionBytes - block.MaxBytes - 64) // the smallest region holds the largest block, and its header
	_ = uint(kvcache.MinRegionBytes - 2*(headMax+64))      // and more than one head
	_ = uint(0 - headMax%headMin - headMin%slotBytes)      // sizes go from the least to the largest, in whole slots
)

func (r *series) setPartial(on bool) {
	r.flags &^= flagPartial
	if on {
		r.flags |= flagPartial
	}
}

// dirEntry is one sealed block, in a series' directory.
type dirEntry struct {
	ref   kvcache.Ref
	start int64 // time of the block's first sample
}

const dirEntryBytes = 16

// Kinds of entries in the shard's tables.
const (
	kindHead uint16 = iota
	kindBlock
	kindDir
	kindRecords
	kindRecordDir
	kindBlob
)

// entryBytes is what an entry of n bytes takes in a table.
func entryBytes(n int) uint32 { return uint32(8 + (n+7)&^7) }

// dirOfLocked is the directory of r; a view.
func (s *shard) dirOfLocked(r *series) []dirEntry {
	if r.dirLen == 0 {
		return nil
	}
	return unsafe.Slice((*dirEntry)(s.fix.Pointer(r.dir)), r.dirCap)[:r.dirLen]
}

// dirReserveLocked makes room for n more entries in the directory of id.
func (s *shard) dirReserveLocked(id uint32, n int) bool {
	r := s.recs.At(id)
	if int(r.dirLen)+n <= int(r.dirCap) {
		return true
	}
	if most := maxDir(s.fix.MaxValue()); int(r.dirLen)+n > most {
		s.dropOldestLocked(r)
		return s.dirReserveLocked(id, n)
	}
	capacity := min(max(2*int(r.dirCap), 2, int(r.dirLen)+n), maxDir(s.fix.MaxValue()))
	ref, b, ok := s.fix.Alloc(capacity*dirEntryBytes, kindDir, id, 0)
	if !ok {
		return false
	}
	old := s.dirOfLocked(r)
	copy(unsafe.Slice((*dirEntry)(unsafe.Pointer(unsafe.SliceData(b))), capacity), old)
	if r.dir != 0 {
		s.accountLocked(r, -int(entryBytes(int(r.dirCap)*dirEntryBytes)))
		s.fix.Free(r.dir, 0)
	}
	r.dir, r.dirCap = ref, uint16(capacity)
	s.accountLocked(r, int(entryBytes(capacity*dirEntryBytes)))
	return true
}

// maxDir bounds the blocks of a series: a directory is one entry of a table
// and counts in 16 bits. With regions of 4 MiB that is 8 million samples.
func maxDir(maxValue int) int { return min((maxValue-recordDirBytes)/dirEntryBytes, 1<<16-1) }

// dropOldestLocked gives up the oldest block of a series that has as many as it
// may.
func (s *shard) dropOldestLocked(r *series) {
	dir := s.dirOfLocked(r)
	if b := s.blockLocked(dir[0]); b != nil {
		n := block.Len(b)
		s.releaseLocked(r, 0, n)
		s.lost += uint64(n)
		r.points -= uint32(n)
	}
	r.completeFrom = max(r.completeFrom, dir[1].start)
	s.dirReplaceLocked(r, 0, 1)
}

// dirReplaceLocked puts the entries es where count entries from k on were; the
// room was reserved.
func (s *shard) dirReplaceLocked(r *series, k, count int, es ...dirEntry) {
	n := int(r.dirLen)
	dir := unsafe.Slice((*dirEntry)(s.fix.Pointer(r.dir)), r.dirCap)
	copy(dir[k+len(es):], dir[k+count:n])
	copy(dir[k:], es)
	r.dirLen = uint16(n + len(es) - count)
}

// accountLocked adds n bytes to what r and its shard have allocated.
func (s *shard) accountLocked(r *series, n int) {
	r.bytes += uint32(n)
	s.bytes += int64(n)
}

// blockLocked is the bytes of a directory entry's block, or nil if it vanished;
// a view.
func (s *shard) blockLocked(e dirEntry) []byte { return s.log.Value(e.ref) }

// tablesOfLocked is where the block of entry k of r lives.
func (s *shard) tablesOfLocked(r *series, k int) *kvcache.Tables {
	if r.flags&flagPartial != 0 && k == int(r.dirLen)-1 {
		return s.partials
	}
	return s.log
}

// pruneLocked takes blocks that vanished out of the directory of r and forgets a
// head that vanished. It reports whether the series still holds anything.
func (s *shard) pruneLocked(r *series) bool {
	dir := s.dirOfLocked(r)
	kept := s.pruneDirLocked(r, dir, r.sealedEnd, flagPartial)
	changed := kept != len(dir)
	r.dirLen = uint16(kept)
	if r.head != 0 && !s.hot.Live(r.head) {
		s.forgetHead(r)
		changed = true
	}
	if r.records != 0 && s.pruneRecordsLocked(r) {
		changed = true
	}
	if changed {
		s.recountLocked(r)
	}
	s.pruneBlobLocked(r)
	return r.points > 0 || r.flags&flagBlob != 0
}

// pruneDirLocked moves the entries of dir whose chunks still exist to its front
// and returns how many those are. end is the last time of all; lastFlag, which
// says something of the last chunk, goes with it.
func (s *shard) pruneDirLocked(r *series, dir []dirEntry, end int64, lastFlag seriesFlags) (kept int) {
	for k, e := range dir {
		if s.log.Live(e.ref) {
			dir[kept] = e
			kept++
			continue
		}
		lost := end
		if k+1 < len(dir) {
			lost = dir[k+1].start - 1
		} else {
			r.flags &^= lastFlag
		}
		r.completeFrom = max(r.completeFrom, lost+1)
	}
	return kept
}

// recountLocked sets points and bytes of r by what it has. Those of a shadow
// are no points.
func (s *shard) recountLocked(r *series) {
	bytes, points := uint32(seriesBytes), uint32(0)
	if r.dir != 0 {
		bytes += entryBytes(int(r.dirCap) * dirEntryBytes)
	}
	for _, e := range s.dirOfLocked(r) {
		if b := s.blockLocked(e); b != nil {
			bytes += entryBytes(len(b))
			points += uint32(block.Len(b))
		}
	}
	if r.head != 0 {
		bytes += entryBytes(int(r.size) * 8)
		points += uint32(r.headLen())
	}
	if d := s.recordDirLocked(r); d != nil {
		bytes += entryBytes(recordDirBytes + int(d.cap)*dirEntryBytes)
		points += d.points
		for _, e := range d.entries() {
			if b := s.blockLocked(e); b != nil {
				bytes += entryBytes(len(b))
			}
		}
	}
	s.accountLocked(r, int(bytes)-int(r.bytes))
	r.points = points
}

// inUseLocked walks over all series, and lets go of the lock for a moment every
// 0.1 ms or so: series that come or go meanwhile may be met or not. The *series
// is valid until the next.
func (s *shard) inUseLocked(yield func(id uint32, r *series) bool) {
	const piece = 1024
	for id := 0; id < s.recs.Len(); id++ {
		if id%piece == piece-1 {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
			if id >= s.recs.Len() {
				return
			}
		}
		if r := s.recs.At(uint32(id)); r.flags&flagInUse != 0 && !yield(uint32(id), r) {
			return
		}
	}
}
