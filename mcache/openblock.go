package mcache

import (
	"mcached/kvcache"
	"mcached/mcache/block"
)

// A sender that catches up writes samples in order before what a series has: a
// second replica, or a queue that is emptied newest first. To decode, merge and
// encode a block for each of them costs some forty appends. So samples that lie
// between two blocks, or before all, go to an open block (block.InsertOpen): one
// that is not encoded yet and takes them where it lies, wherever they belong
// within it.
//
//	directory ─▶ block … block [open block] block … [partial block] │ head
//
// To all others it is a block like any: it stands in the directory, in a region
// of the log, its samples are counted there, it is read, erased and lost as they
// are, and marked as written to when it was. So what is said of blocks holds of
// it, and a reader sees a sample at once. These alone know of it:
//
//   - mendLocked, which puts samples into it, and into no other block where they
//     lie outside of one;
//   - sealOpenLocked, which encodes it when it is full, joined with the block
//     before or behind it where both fit into one. When the head is sealed, all
//     open blocks of the series are: they do not outlive by much what filled them;
//   - blobs and snapshots, which are to be small, encode it as they copy it.
//
// A sample costs a copy of up to half a KiB within the block, and a share of
// encoding it twice and decoding it once, as in order.
const (
	// openRoom bounds an open block to half a KiB. A fourth of a block: sections
	// of that size fill one.
	openRoom = block.MaxSamples / block.MaxSections
	// openFirst is the room of one that begins, since many get no more than a few.
	openFirst = openRoom / 4
	// openRun samples that come together are few enough to be put in one by one.
	// More of them are worth it to be merged with the block that is there.
	openRun = openRoom / 2
)

// insertOpenLocked puts samples at the beginning of part, which planTake took
// for entry k of r's directory, into the open block there, or into the one
// behind it if they are before that and after all of k. It returns how many; 0
// if there is no such block with room.
func (s *shard) insertOpenLocked(r *series, k int, part []Sample) (n int) {
	dir := s.dirOfLocked(r)
	if len(dir) == 0 {
		return 0
	}
	e, b, ok := &dir[k], s.blockLocked(dir[k]), true
	if b == nil {
		return 0
	}
	room := block.OpenRoom(b)
	if room == 0 && part[0].T > e.start { // it may be the one behind that is open
		if e, b = s.openBehindLocked(dir, k); b == nil {
			return 0
		}
		room = block.OpenRoom(b)
		ok = s.endOfLocked(dir[k]) < part[0].T
	}
	n = min(room-block.Len(b), len(part))
	if n <= 0 || !ok {
		return 0
	}
	added := 0
	for _, x := range part[:n] {
		start, isNew := block.InsertOpen(b, e.start, x)
		e.start = start
		if isNew {
			added++
		}
	}
	s.log.AddWeight(e.ref, added)
	s.mendedLocked(r, n, added)
	return n
}

// openBehindLocked is the entry behind k and its block if that is open; else nil.
func (s *shard) openBehindLocked(dir []dirEntry, k int) (*dirEntry, []byte) {
	if k+1 == len(dir) {
		return nil, nil
	}
	e := &dir[k+1]
	if b := s.blockLocked(*e); b != nil && block.OpenRoom(b) > 0 {
		return e, b
	}
	return nil, nil
}

// mendedLocked counts n out-of-order samples of r, of which added are new.
func (s *shard) mendedLocked(r *series, n, added int) {
	r.points += uint32(added)
	s.inserted += uint64(added)
	s.overwritten += uint64(n - added)
	s.mended += uint64(n)
}

// endOfLocked is the time of the last sample of the block of e, which must not
// have vanished.
func (s *shard) endOfLocked(e dirEntry) int64 {
	b, from := block.LastSection(s.blockLocked(e), e.start)
	if last, ok := block.GridEnd(b, from); ok {
		return last
	}
	return s.lastOfLocked(block.Part{Start: from, Bytes: b})
}

// openLocked puts samples at the beginning of run into an open block of id, which
// it begins or enlarges, where they lie outside of all blocks and before the last.
// n is how many, 0 if they do not lie so; ok is false if there is no memory. There
// is room for one more entry in the directory.
func (s *shard) openLocked(id uint32, run []Sample) (n int, ok bool) {
	r := s.recs.At(id)
	for r.dirLen > 0 {
		dir := s.dirOfLocked(r)
		k, n := planTake(len(dir), func(i int) int64 { return dir[i].start }, run)
		part := run[:n]
		if n > openRun {
			break
		}
		if n = s.insertOpenLocked(r, k, part); n > 0 {
			return n, true
		}
		at := k // before it, or where an open block stands
		if part[0].T >= dir[k].start {
			if block.OpenRoom(s.blockLocked(dir[k])) == 0 {
				at++
			}
			if at == len(dir) || s.endOfLocked(dir[k]) >= part[0].T {
				break
			}
		}
		switch room := block.OpenRoom(s.blockLocked(dir[at])); {
		case room == 0:
			return s.beginOpenLocked(id, at, part)
		case room < openRoom:
			ok = s.enlargeOpenLocked(id, at)
		default:
			ok = s.sealOpenLocked(id, at)
		}
		if !ok {
			return 0, false
		}
	}
	return 0, true
}

// beginOpenLocked makes an open block of those samples of part that are before
// the block of entry at, before which it comes.
func (s *shard) beginOpenLocked(id uint32, at int, part []Sample) (n int, ok bool) {
	r := s.recs.At(id)
	for behind := s.dirOfLocked(r)[at].start; n < len(part) && part[n].T < behind; {
		n++
	}
	room := openFirst
	if n > room {
		room = openRoom
	}
	ref, ok := s.putOpenLocked(id, room, part[:n])
	if !ok {
		return 0, false
	}
	s.dirReplaceLocked(r, at, 0, dirEntry{ref, part[0].T})
	r.flags |= flagOpenBlock
	s.mendedLocked(r, n, n)
	s.relistLocked(id)
	return n, true
}

func (s *shard) putOpenLocked(id uint32, room int, ss []Sample) (kvcache.Ref, bool) {
	ref, b, ok := s.log.Alloc(block.OpenBytes(room), kindBlock, id, len(ss))
	if ok {
		block.PutOpen(b, ss)
		s.accountLocked(s.recs.At(id), int(entryBytes(len(b))))
	}
	return ref, ok
}

// enlargeOpenLocked gives the open block of entry k the room that such a block
// has at most.
func (s *shard) enlargeOpenLocked(id uint32, k int) bool {
	r := s.recs.At(id)
	n := s.decodeBlockLocked(s.dirOfLocked(r)[k])
	ref, ok := s.putOpenLocked(id, openRoom, s.block1[:n])
	if !ok {
		return false
	}
	s.releaseLocked(r, k, n)
	s.dirOfLocked(r)[k].ref = ref
	s.relistLocked(id)
	return true
}

// sealOpenLocked encodes the open block of entry k: as part of the block before
// it, or of the one behind it, if there is room in it, else as one of its own.
// It fails without a change.
func (s *shard) sealOpenLocked(id uint32, k int) bool {
	r := s.recs.At(id)
	dir := s.dirOfLocked(r)
	step := int64(r.step)
	first, count := k, 2
	switch n := block.Len(s.blockLocked(dir[k])); {
	case k > 0 && s.fitsLocked(dir[k-1], n):
		first = k - 1
	case k+1 < len(dir) && s.tablesOfLocked(r, k+1) == s.log && s.fitsLocked(dir[k+1], n):
	default:
		count = 1
	}
	n := s.decodeBlockLocked(dir[k])
	if b := s.blockLocked(dir[first]); first < k && takesSection(b, n) {
		s.encoded = s.codec.AppendSection(s.encoded[:0], b, dir[first].start, s.block1[:n], step)
	} else {
		all := s.joined[:0]
		for _, e := range dir[first : first+count] {
			all = append(all, s.block1[:s.decodeBlockLocked(e)]...)
		}
		s.encoded = s.codec.Encode(s.encoded[:0], all, step)
	}
	ref, ok := s.putLocked(id, s.log, s.encoded)
	if !ok {
		return false
	}
	start := dir[first].start
	for i := first; i < first+count; i++ {
		s.releaseLocked(r, i, block.Len(s.blockLocked(dir[i])))
	}
	s.dirReplaceLocked(r, first, count, dirEntry{ref, start})
	s.relistLocked(id)
	return true
}

// fitsLocked reports whether the block of e is there and has room for n samples
// more.
func (s *shard) fitsLocked(e dirEntry, n int) bool {
	b := s.blockLocked(e)
	return b != nil && block.Len(b)+n <= block.MaxSamples
}

// takesSection reports whether n samples behind b become a section of it: it is
// encoded as one when it is full.
func takesSection(b []byte, n int) bool {
	return block.OpenRoom(b) == 0 && block.Sections(b) < block.MaxSections && block.Len(b)+n < block.MaxSamples
}

// sealOpensLocked encodes all open blocks of id, as far as there is memory.
func (s *shard) sealOpensLocked(id uint32) {
	r := s.recs.At(id)
	for k := int(r.dirLen) - 1; k >= 0; k-- {
		b := s.blockLocked(s.dirOfLocked(r)[k])
		if b != nil && s.tablesOfLocked(r, k) == s.log && block.OpenRoom(b) > 0 && !s.sealOpenLocked(id, k) {
			return
		}
	}
	r.flags &^= flagOpenBlock
}

// sealedFormLocked is b, a block of r that begins at start, as it is saved: an
// open one is encoded. It is valid until the next is.
func (s *shard) sealedFormLocked(r *series, b []byte, start int64) []byte {
	if block.OpenRoom(b) == 0 {
		return b
	}
	n := s.decodePartLocked(block.Part{Start: start, Bytes: b})
	s.encoded = s.codec.Encode(s.encoded[:0], s.block1[:n], int64(r.step))
	return s.encoded
}
