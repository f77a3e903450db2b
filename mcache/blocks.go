package mcache

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"unsafe"

	"mcached/mcache/block"
)

// A series can be handed from one cache to another as it lies: its sealed blocks are
// copied, and nothing of them is decoded or encoded.
//
//	one cache    SnapshotNewest ─▶ samples of the head ─────────┐
//	             Snapshot ─▶ Blocks ─▶ Block: first time, bytes ┤
//	                                                            ▼
//	the other    BlockReader.Check ─▶ SoundBlock ─▶ Batch.Blocks, Append, AppendNew
//
// What arrives is not believed: Check finds out whether it can be decoded, without
// doing so where times are on a grid, as when a file is loaded. A block whose time nobody
// else is in becomes one of the series' own where it is; any other is decoded, and its
// samples are written as samples are.
//
// Cost of a block of 120 samples: 0.1 µs to check and 0.3 to take, where to write its samples
// takes 5 (-bench TakeBlocks).

// Block is up to 128 samples of a series as the cache keeps them; package block says how.
type Block struct {
	First int64 // unix ms, of the first sample
	Bytes []byte
}

// Len is how many samples a block has that a cache gave.
func (b Block) Len() int { return block.Len(b.Bytes) }

// SoundBlock is a block that can be decoded, with its times in order.
type SoundBlock struct {
	bytes       []byte // with block.Slack bytes of capacity behind them
	first, last int64
	n           int
	step        uint32 // common step of its samples, 0 if there is none
}

// First is the time of the first sample, in unix ms.
func (b *SoundBlock) First() int64 { return b.first }

// Last is the time of the last sample, in unix ms.
func (b *SoundBlock) Last() int64 { return b.last }

// Len is how many samples it has.
func (b *SoundBlock) Len() int { return b.n }

// BlockReader checks and decodes blocks. It keeps 5 KiB of scratch space, and is not
// safe for concurrent use. The zero value is ready.
type BlockReader struct {
	codec block.Codec
	out   [block.MaxSamples]Sample
}

// Check reports whether a block, of anybody, can be decoded, and what it holds. The
// bytes must not change as long as what it returns is used. The error is an ErrDamaged.
func (l *BlockReader) Check(b Block) (x SoundBlock, err error) {
	x = SoundBlock{bytes: b.Bytes, first: b.First}
	if cap(x.bytes)-len(x.bytes) < block.Slack {
		x.bytes = append(slices.Grow([]byte(nil), len(b.Bytes)+block.Slack), b.Bytes...)
	}
	if n, last, step, ok := block.Inspect(x.bytes[:len(x.bytes)+block.Slack], x.first); ok {
		x.n, x.last = n, last
		if n >= stepSamples && step <= math.MaxUint32 {
			x.step = uint32(step)
		}
	} else if err := l.inspect(&x); err != nil {
		return x, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if x.last > MaxTime || x.first < -MaxTime {
		return x, fmt.Errorf("%w: block from %d to %d", ErrDamaged, x.first, x.last)
	}
	return x, nil
}

// inspect decodes a block whose times are on no grid.
func (l *BlockReader) inspect(x *SoundBlock) error {
	n, err := l.decode(x)
	if err != nil {
		return err
	}
	for i, y := range l.out[1:n] {
		if y.T <= l.out[i].T {
			return fmt.Errorf("time %d after %d", y.T, l.out[i].T)
		}
	}
	if l.out[0].T != x.first {
		return fmt.Errorf("it begins at %d, not %d", l.out[0].T, x.first)
	}
	if block.OpenRoom(x.bytes) > 0 {
		return errOpenBlock // Save and Blocks give none
	}
	x.n, x.last, x.step = n, l.out[n-1].T, commonStepOr(l.out[:n], 0)
	return nil
}

var errOpenBlock = errors.New("an open block")

func (l *BlockReader) decode(x *SoundBlock) (int, error) {
	return l.codec.Decode(&l.out, x.bytes[:len(x.bytes)+block.Slack], x.first)
}

// Samples are those of a sound block, valid until the next call of the reader.
func (l *BlockReader) Samples(x *SoundBlock) []Sample {
	n, err := l.decode(x)
	if err != nil {
		panic("mcache: a sound block: " + err.Error())
	}
	return l.out[:n]
}

// SnapshotNewest is Snapshot of the newest of a series, cheaply: of one with only
// samples all that is not sealed, of any other what is at or after recent, and what
// is not sealed. What is before from, unix ms, is left out.
func (c *Cache) SnapshotNewest(id SeriesID, from, recent int64, s *Snapshot) bool {
	sh, r, _ := c.lockSeries(id)
	if sh == nil {
		s.empty(from, math.MaxInt64)
		return false
	}
	defer sh.mu.Unlock()
	from = max(from, c.shownFromLocked(sh, r))
	head := sh.hot.Pointer(r.head)
	if r.flags&(flagStarts|flagRecords) != 0 || r.records != 0 {
		if recent = max(from, recent); head != nil && r.headLen() > 0 {
			recent = max(from, min(recent, headStart(r, head)))
		}
		sh.snapshotLocked(r, recent, math.MaxInt64, s)
		return true
	}
	s.empty(from, math.MaxInt64)
	s.completeFrom = r.completeFrom
	if r.headLen() > 0 {
		if head == nil {
			s.completeFrom = max(s.completeFrom, r.headLast()+1)
		} else if r.headLast() >= from {
			s.head = headSamples(s.head, r, head)
		}
	}
	return true
}

// Blocks appends to dst all that s has but the samples that are not sealed: those
// SnapshotNewest has. It reports false, and appends nothing, if that is more than
// samples, or cannot be had in whole blocks. The first may begin before the time that
// was asked for. Bytes are views of s, valid until it is used again.
func (s *Snapshot) Blocks(dst []Block) ([]Block, bool) {
	had := len(dst)
	if len(s.records) > 0 || s.starts != nil {
		return dst, false
	}
	for i := range s.blocks {
		x := &s.blocks[i]
		b := s.buf[x.at : x.at+x.len]
		if x.start < s.shown || block.OpenRoom(b) > 0 {
			return dst[:had], false
		}
		dst = append(dst, Block{x.start, b})
	}
	return dst, true
}

// headStart is a time that no sample of the head is before.
func headStart(r *series, p unsafe.Pointer) int64 {
	if r.mode == modeGrid {
		return r.start
	}
	return pair(p, 0).T
}

// Blocks adds blocks to the series begun last, the Duty of which must be Nobodys. They must
// follow one another in time, and stay as they are until the batch is reset.
func (b *Batch) Blocks(blocks []SoundBlock) {
	for _, x := range blocks {
		b.blocks = append(b.blocks, batchBlock{int32(len(b.series) - 1), x})
	}
}

// batchBlock is a block of the series at a position in Batch.series.
type batchBlock struct {
	series int32
	SoundBlock
}

// blocksOf are those of series i.
func (b *Batch) blocksOf(i int) []batchBlock {
	from := sort.Search(len(b.blocks), func(k int) bool { return int(b.blocks[k].series) >= i })
	to := from
	for to < len(b.blocks) && int(b.blocks[to].series) == i {
		to++
	}
	return b.blocks[from:to]
}

// writeBlocksLocked writes blocks to a series. It lets go of the lock where memory must
// be found, as writeCleanLocked, which calls it.
func (s *shard) writeBlocksLocked(id *uint32, bk *bucket, f Fingerprint, blocks []batchBlock) (points int, err error) {
	for i := range blocks {
		x := &blocks[i].SoundBlock
		taken := false
		if err := s.retryLocked(id, f, func() (ok bool) {
			taken, ok = s.takeBlockLocked(*id, x, i == len(blocks)-1)
			return ok
		}); err != nil {
			return points, err
		}
		if taken {
			points += x.n
			continue
		}
		var reader BlockReader
		n, err := s.writeCleanLocked(id, bk, f, content{samples: reader.Samples(x)})
		if points += n; err != nil {
			return points, err
		}
	}
	return points, nil
}

// takeBlockLocked makes x a block of the series id, as it is, if nothing of the series
// lies within its time, or may. newest says that no block follows. It is not ok if there
// is no memory.
func (s *shard) takeBlockLocked(id uint32, x *SoundBlock, newest bool) (taken, ok bool) {
	r := s.recs.At(id)
	s.pruneLocked(r)
	if r.flags&(flagStarts|flagRecords) != 0 || r.records != 0 || s.overlapsLocked(r, x.first) || int(r.dirLen) == maxDir(s.fix.MaxValue()) {
		return false, true
	}
	dir := s.dirOfLocked(r)
	k := sort.Search(len(dir), func(i int) bool { return dir[i].start > x.first })
	behind := k == len(dir)
	switch head := s.hot.Pointer(r.head); {
	case k > 0 && s.endOfLocked(dir[k-1]) >= x.first,
		!behind && dir[k].start <= x.last,
		behind && r.flags&flagPartial != 0, // that is the last block, and takes more
		behind && head != nil && r.headLen() > 0 && headStart(r, head) <= x.last:
		return false, true
	}
	if !s.placeBlockLocked(id, x, k, newest) {
		return false, false
	}
	s.relistLocked(id)
	return true, true
}

// placeBlockLocked makes x the block of entry k of the series id; those from there on
// follow it in time. newest says that no block follows: then it may take more samples. It
// fails if there is no memory. The caller relists the series.
func (s *shard) placeBlockLocked(id uint32, x *SoundBlock, k int, newest bool) bool {
	if !s.dirReserveLocked(id, 1) {
		return false
	}
	r := s.recs.At(id)
	s.changedLocked(r, x.first)
	k = min(k, int(r.dirLen)) // a full directory has lost its oldest
	behind := k == int(r.dirLen)
	partial := behind && newest && x.n <= blockPartial
	tables := s.log
	if partial {
		tables = s.partials
	}
	ref, ok := s.putLocked(id, tables, x.bytes)
	if !ok {
		return false
	}
	s.dirReplaceLocked(r, k, 0, dirEntry{ref, x.first})
	if behind {
		r.setPartial(partial)
		r.sealedEnd = max(r.sealedEnd, x.last)
	}
	if x.step != 0 && (r.step == 0 || behind && r.headLen() == 0) { // a head lies by the step that there is
		r.step = x.step
	}
	r.points += uint32(x.n)
	s.inserted += uint64(x.n)
	return true
}

// placeBehindLocked makes blocks those behind all that the series id has, which has no
// head, as placeBlockLocked would one by one. No other follows the last. It returns how
// many those are for which there is memory.
func (s *shard) placeBehindLocked(id uint32, blocks []SoundBlock) (placed int) {
	defer s.relistLocked(id)
	r := s.recs.At(id)
	had := int(r.dirLen)
	if had+len(blocks) > maxDir(s.fix.MaxValue()) { // it loses the oldest
		if s.placeBlockLocked(id, &blocks[0], had, len(blocks) == 1) {
			placed = 1
		}
		return placed
	}
	if !s.dirReserveLocked(id, len(blocks)) {
		return 0
	}
	dir := unsafe.Slice((*dirEntry)(s.fix.Pointer(r.dir)), r.dirCap)[had:]
	bytes, points := 0, 0
	for i := range blocks {
		x, tables := &blocks[i], s.log
		partial := i == len(blocks)-1 && x.n <= blockPartial
		if partial {
			tables = s.partials
		}
		ref, dst, ok := tables.Alloc(len(x.bytes), kindBlock, id, x.n)
		if !ok {
			break
		}
		copy(dst, x.bytes)
		dir[i] = dirEntry{ref, x.first}
		bytes += int(entryBytes(len(x.bytes)))
		points += x.n
		r.sealedEnd = max(r.sealedEnd, x.last)
		if x.step != 0 {
			r.step = x.step
		}
		r.setPartial(partial)
		placed++
	}
	if placed > 0 {
		s.changedLocked(r, blocks[0].first)
	}
	s.accountLocked(r, bytes)
	r.dirLen = uint16(had + placed)
	r.points += uint32(points)
	s.inserted += uint64(points)
	return placed
}
