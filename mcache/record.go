package mcache

import (
	"fmt"
	"math"
	"sort"
	"unsafe"

	"mcached/kvcache"
	"mcached/mcache/block"
)

// Records are the third width: points whose value is bytes, such as native
// histograms. They live beside the samples of their series, in chunks of their
// own under a directory of their own, and share its generation and eviction. A
// time holds one point, a sample or a record: the later write wins.
//
//	chunk: records (2 bytes) | bytes in use (4) | records in order of time
//	record: distance to the time before (uvarint) | length (uvarint) | value
//
// While flagOpen is set the last chunk lies with the heads and has capacity to
// grow. It is closed, cut to size and moved to the sealed blocks, once it
// holds recordsMax records or recordBytesMax bytes.
const (
	recordHeader   = 6
	recordsMax     = 64
	recordBytesMax = 4 << 10
	// recordSpare is the capacity that a chunk begins with behind its first record.
	recordSpare = 192

	// MaxRecord is the longest value of a record; a Cache takes an eighth of
	// its Memory's region, if that is less.
	MaxRecord = 64 << 10
)

// MaxRecord is the longest value of a record that this cache takes, in bytes.
func (c *Cache) MaxRecord() int { return min(MaxRecord, c.memory.RegionBytes()/8) }

// recordDir heads the directory of a series' record chunks, which follow it.
type recordDir struct {
	end      int64  // time of the last record
	points   uint32 // as series.points, of the records
	len, cap uint16 // entries
}

const recordDirBytes = 16

var _ [recordDirBytes]byte = [unsafe.Sizeof(recordDir{})]byte{}

// recordDirLocked returns the directory head of r, or nil; a view.
func (s *shard) recordDirLocked(r *series) *recordDir {
	if r.records == 0 {
		return nil
	}
	return (*recordDir)(s.fix.Pointer(r.records))
}

// entries is what the directory lists; a view.
func (d *recordDir) entries() []dirEntry {
	if d == nil {
		return nil
	}
	return unsafe.Slice((*dirEntry)(unsafe.Add(unsafe.Pointer(d), recordDirBytes)), d.cap)[:d.len]
}

// recordTablesLocked is where chunk k of r lives.
func (s *shard) recordTablesLocked(r *series, k int) *kvcache.Tables {
	if r.flags&flagOpen != 0 && k == int(s.recordDirLocked(r).len)-1 {
		return s.hot
	}
	return s.log
}

// insertRecordLocked writes one record. Like insertLocked it reports false, and
// no point has changed, when there is no memory.
func (s *shard) insertRecordLocked(id uint32, x Record) bool {
	r := s.recs.At(id)
	s.changedLocked(r, x.T)
	if s.overlapsLocked(r, x.T) && !s.restoreLocked(id) {
		return false
	}
	d := s.recordDirLocked(r)
	if d == nil || r.points > d.points {
		if !s.eraseSamplesLocked(id, x.T, x.T) {
			return false
		}
		r = s.recs.At(id)
		d = s.recordDirLocked(r)
	}
	if d == nil || x.T > d.end {
		if done, ok := s.extendLocked(id, x); done {
			return ok
		}
		return s.openRecordsLocked(id, x)
	}
	return s.mendRecordsLocked(id, x)
}

// extendLocked appends x to the open chunk, in its place or in a larger one. It
// reports done = false if there is none or it is full.
func (s *shard) extendLocked(id uint32, x Record) (done, ok bool) {
	r := s.recs.At(id)
	d := s.recordDirLocked(r)
	if d == nil || r.flags&flagOpen == 0 {
		return false, false
	}
	e := &d.entries()[d.len-1]
	b := s.hot.Value(e.ref)
	if b == nil || block.RecordCount(b) >= recordsMax || block.RecordBytes(b) >= recordBytesMax {
		return false, false
	}
	n, used := block.RecordCount(b), block.RecordBytes(b)
	s.encoded = block.AppendRecord(s.encoded[:0], d.end, x)
	if need := used + len(s.encoded); need > len(b) {
		ref, grown, ok := s.hot.Alloc(max(need, 2*len(b)), kindRecords, id, n)
		if !ok {
			return true, false
		}
		copy(grown, b[:used])
		s.accountLocked(r, int(entryBytes(len(grown)))-int(entryBytes(len(b))))
		s.hot.Free(e.ref, n)
		e.ref, b = ref, grown
	}
	copy(b[used:], s.encoded)
	block.SetChunk(b, n+1, used+len(s.encoded))
	s.hot.AddWeight(e.ref, 1)
	d.end = x.T
	s.addedRecordsLocked(r, 1)
	s.relistLocked(id)
	return true, true
}

func (s *shard) addedRecordsLocked(r *series, n int) {
	r.points += uint32(n)
	s.recordDirLocked(r).points += uint32(n)
	s.inserted += uint64(n)
}

// openRecordsLocked closes the last chunk and begins a new one with x, which is
// after all others.
func (s *shard) openRecordsLocked(id uint32, x Record) bool {
	if !s.recordReserveLocked(id, 1) || !s.closeRecordsLocked(id) {
		return false
	}
	r := s.recs.At(id)
	s.encoded = block.AppendChunk(s.encoded[:0], []Record{x})
	ref, b, ok := s.hot.Alloc(len(s.encoded)+recordSpare, kindRecords, id, 1)
	if !ok {
		return false
	}
	copy(b, s.encoded)
	s.accountLocked(r, int(entryBytes(len(b))))
	d := s.recordDirLocked(r)
	d.replace(int(d.len), 0, dirEntry{ref, x.T})
	d.end = x.T
	r.flags |= flagOpen
	s.addedRecordsLocked(r, 1)
	s.relistLocked(id)
	return true
}

// closeRecordsLocked moves the open chunk to the sealed blocks, cut to size.
func (s *shard) closeRecordsLocked(id uint32) bool {
	r := s.recs.At(id)
	if r.flags&flagOpen == 0 {
		return true
	}
	d := s.recordDirLocked(r)
	e := &d.entries()[d.len-1]
	if b := s.hot.Value(e.ref); b != nil {
		n, used := block.RecordCount(b), block.RecordBytes(b)
		ref, sealed, ok := s.log.Alloc(used, kindRecords, id, n)
		if !ok {
			return false
		}
		copy(sealed, b[:used])
		s.accountLocked(r, int(entryBytes(used))-int(entryBytes(len(b))))
		s.hot.Free(e.ref, n)
		e.ref = ref
	}
	r.flags &^= flagOpen
	return true
}

// mendRecordsLocked inserts a record that is not after all others: its chunk is
// taken apart and written again.
func (s *shard) mendRecordsLocked(id uint32, x Record) bool {
	r := s.recs.At(id)
	s.pruneLocked(r)
	d := s.recordDirLocked(r)
	if d.len == 0 {
		d.end = math.MinInt64
		return s.openRecordsLocked(id, x)
	}
	dir := d.entries()
	k := max(sort.Search(len(dir), func(i int) bool { return dir[i].start > x.T })-1, 0)
	s.bytes1 = append(s.bytes1[:0], s.blockLocked(dir[k])...)
	all := block.AppendRecords(nil, s.bytes1, dir[k].start)
	at := sort.Search(len(all), func(i int) bool { return all[i].T >= x.T })
	added := 1
	if at < len(all) && all[at].T == x.T {
		all[at], added = x, 0
	} else {
		all = append(all, Record{})
		copy(all[at+1:], all[at:])
		all[at] = x
	}
	if !s.rewriteRecordsLocked(id, k, all) {
		return false
	}
	s.addedRecordsLocked(r, added)
	s.overwritten += uint64(1 - added)
	s.mended++
	return true
}

// rewriteRecordsLocked puts all in the place of chunk k: as one closed chunk,
// two if they are too many, or none.
func (s *shard) rewriteRecordsLocked(id uint32, k int, all []Record) bool {
	if !s.recordReserveLocked(id, 1) {
		return false
	}
	r := s.recs.At(id)
	d := s.recordDirLocked(r)
	size := 0
	for _, x := range all {
		size += len(x.Value)
	}
	first := len(all)
	if len(all) > 1 && (len(all) > recordsMax || size > 2*recordBytesMax) {
		first = len(all) / 2
	}
	s.entries = s.entries[:0]
	for rest := all; len(rest) > 0; first = len(rest) {
		part := rest[:first]
		rest = rest[first:]
		s.encoded = block.AppendChunk(s.encoded[:0], part)
		ref, b, ok := s.log.Alloc(len(s.encoded), kindRecords, id, len(part))
		if !ok {
			for _, e := range s.entries {
				b := s.blockLocked(e)
				s.accountLocked(r, -int(entryBytes(len(b))))
				s.log.Free(e.ref, block.RecordCount(b))
			}
			return false
		}
		copy(b, s.encoded)
		s.accountLocked(r, int(entryBytes(len(b))))
		s.entries = append(s.entries, dirEntry{ref, part[0].T})
	}
	e := d.entries()[k]
	b := s.blockLocked(e)
	s.accountLocked(r, -int(entryBytes(len(b))))
	s.recordTablesLocked(r, k).Free(e.ref, block.RecordCount(b))
	if k == int(d.len)-1 {
		r.flags &^= flagOpen
	}
	d.replace(k, 1, s.entries...)
	s.relistLocked(id)
	return true
}

// eraseRecordsLocked takes out the records from from to to, both inclusive. It
// may stop half way, and report false, when there is no memory.
func (s *shard) eraseRecordsLocked(id uint32, from, to int64) bool {
	r := s.recs.At(id)
	s.pruneLocked(r)
	for k := 0; s.recordDirLocked(r) != nil && k < int(s.recordDirLocked(r).len); k++ {
		d := s.recordDirLocked(r)
		e := d.entries()[k]
		if e.start > to {
			break
		}
		if k+1 < int(d.len) && d.entries()[k+1].start <= from {
			continue
		}
		s.bytes1 = append(s.bytes1[:0], s.blockLocked(e)...)
		all := block.AppendRecords(nil, s.bytes1, e.start)
		kept := make([]Record, 0, len(all))
		for _, x := range all {
			if x.T < from || x.T > to {
				kept = append(kept, x)
			}
		}
		gone := len(all) - len(kept)
		if gone == 0 {
			continue
		}
		if !s.rewriteRecordsLocked(id, k, kept) {
			return false
		}
		r.points -= uint32(gone)
		s.recordDirLocked(r).points -= uint32(gone)
		s.erased += uint64(gone)
		if len(kept) == 0 {
			k--
		}
	}
	return true
}

// recordReserveLocked makes room for n more entries in the record directory of
// id.
func (s *shard) recordReserveLocked(id uint32, n int) bool {
	r := s.recs.At(id)
	old := s.recordDirLocked(r)
	have, capacity := 0, 0
	if old != nil {
		have, capacity = int(old.len), int(old.cap)
	}
	if have+n <= capacity {
		return true
	}
	most := maxDir(s.fix.MaxValue())
	if have+n > most {
		s.dropOldestRecordsLocked(r, old)
		return s.recordReserveLocked(id, n)
	}
	grown := min(max(2*capacity, have+n), most)
	ref, b, ok := s.fix.Alloc(recordDirBytes+grown*dirEntryBytes, kindRecordDir, id, 0)
	if !ok {
		return false
	}
	d := (*recordDir)(unsafe.Pointer(unsafe.SliceData(b)))
	*d = recordDir{end: math.MinInt64}
	if old != nil {
		*d = *old
	}
	d.cap = uint16(grown)
	copy(d.entries(), old.entries())
	if old != nil {
		s.accountLocked(r, -int(entryBytes(recordDirBytes+capacity*dirEntryBytes)))
		s.fix.Free(r.records, 0)
	}
	r.records = ref
	r.flags |= flagRecords
	s.accountLocked(r, int(entryBytes(len(b))))
	return true
}

// dropOldestRecordsLocked is dropOldestLocked for record chunks.
func (s *shard) dropOldestRecordsLocked(r *series, d *recordDir) {
	dir := d.entries()
	if b := s.blockLocked(dir[0]); b != nil {
		n := block.RecordCount(b)
		s.accountLocked(r, -int(entryBytes(len(b))))
		s.recordTablesLocked(r, 0).Free(dir[0].ref, n)
		s.lost += uint64(n)
		r.points -= uint32(n)
		d.points -= uint32(n)
	}
	r.completeFrom = max(r.completeFrom, dir[1].start)
	d.replace(0, 1)
}

// replace puts es where count entries from k on were; the room was reserved.
func (d *recordDir) replace(k, count int, es ...dirEntry) {
	n := int(d.len)
	d.len = uint16(n + len(es) - count)
	all := unsafe.Slice((*dirEntry)(unsafe.Add(unsafe.Pointer(d), recordDirBytes)), d.cap)
	copy(all[k+len(es):], all[k+count:n])
	copy(all[k:], es)
}

// pruneRecordsLocked is pruneLocked for the record chunks of r.
func (s *shard) pruneRecordsLocked(r *series) (changed bool) {
	d := s.recordDirLocked(r)
	dir := d.entries()
	kept := s.pruneDirLocked(r, dir, d.end, flagOpen)
	if kept == len(dir) {
		return false
	}
	d.len = uint16(kept)
	d.points = 0
	for _, e := range d.entries() {
		d.points += uint32(block.RecordCount(s.blockLocked(e)))
	}
	return true
}

// errRecord names the limit that a record is beyond.
func (c *Cache) errRecord(n int) error {
	return fmt.Errorf("%w: record of %d bytes, limit %d", ErrValues, n, c.MaxRecord())
}
