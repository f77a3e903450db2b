package mcache

import (
	"sort"
	"unsafe"

	"mcached/kvcache"
	"mcached/mcache/block"
)

// insertLocked writes one sample. It reports false, and has changed nothing, when
// there is no memory: the caller gives up the lock, makes room and retries.
func (s *shard) insertLocked(id uint32, t int64, v uint64) bool {
	r := s.recs.At(id)
	s.changedLocked(r, t)
	p := s.hot.Pointer(r.head)
	if p != nil {
		switch r.mode {
		case modeGrid:
			// In order and on the grid: the case that all of this is built for.
			if t == r.start+int64(r.next)*int64(r.step) && r.next < r.size {
				*slot(p, int(r.next)) = v
				r.have |= 1 << r.next
				r.next++
				s.addedLocked(r, 1)
				return true
			}
			if d := t - r.start; t >= r.start && d%int64(r.step) == 0 && d/int64(r.step) < int64(r.size) {
				k := int(d / int64(r.step))
				*slot(p, k) = v
				r.next = max(r.next, uint8(k+1))
				if r.have&(1<<k) == 0 {
					r.have |= 1 << k
					s.addedLocked(r, 1)
				} else {
					s.hot.AddWeight(r.head, 0) // it was written to
					s.overwritten++
				}
				return true
			}
		case modePairs:
			if n := int(r.next); n > 0 && t > r.start && n < int(r.size)*8/pairBytes {
				*pair(p, n) = Sample{T: t, V: v}
				r.next, r.start = uint8(n+1), t
				s.addedLocked(r, 1)
				return true
			}
		}
	} else if r.head != 0 {
		s.pruneLocked(r)
	}
	return s.insertSlowLocked(id, p, Sample{T: t, V: v})
}

// insertRunLocked writes the samples at the beginning of ss that need nothing
// but a slot: each one step behind the last, in a head that has room for it. It
// returns how many those are.
func (s *shard) insertRunLocked(r *series, ss []Sample) (n int) {
	if r.mode != modeGrid || r.flags&(flagStarts|flagRecords) != 0 {
		return 0
	}
	p := s.hot.Pointer(r.head)
	if p == nil {
		return 0
	}
	t := r.start + int64(r.next)*int64(r.step)
	if len(ss) == 1 { // nearly all, of senders that send what they scrape
		if r.next >= r.size || ss[0].T != t || t > MaxTime {
			return 0
		}
		s.changedLocked(r, t)
		*slot(p, int(r.next)) = ss[0].V
		r.have |= 1 << (r.next & 63)
		r.next++
		s.addedLocked(r, 1)
		return 1
	}
	ss = ss[:min(len(ss), int(r.size-r.next))]
	p = unsafe.Add(p, int(r.next)*slotBytes)
	for ; n < len(ss) && ss[n].T == t && t <= MaxTime; n++ {
		*slot(p, n) = ss[n].V
		t += int64(r.step)
	}
	if n > 0 {
		s.changedLocked(r, ss[0].T)
		r.have |= (1<<n - 1) << r.next
		r.next += uint8(n)
		s.addedLocked(r, n)
	}
	return n
}

// addedLocked counts n new samples in the head of r.
func (s *shard) addedLocked(r *series, n int) {
	r.points += uint32(n)
	s.hot.AddWeight(r.head, n)
	s.inserted += uint64(n)
}

// insertSlowLocked is insertLocked for all that does not fit the head as it
// lies. p is the head's array, nil if there is none.
func (s *shard) insertSlowLocked(id uint32, p unsafe.Pointer, x Sample) bool {
	r := s.recs.At(id)
	if x.T <= r.sealedEnd {
		one := [1]Sample{x}
		return s.mendLocked(id, one[:]) == 1
	}
	old := headSamples(s.samples[:0], r, p)
	if r.mode == modeGrid && r.size == headMax/slotBytes && len(old) >= headMax/pairBytes && x.T > r.headLast() {
		return s.rollHeadLocked(id, old, x) // no form has room for one more
	}
	one := [1]Sample{x}
	size := headMin
	if r.head != 0 {
		size = int(r.size) * 8
	}
	all, added := merge(s.samples2[:0], old, one[:])
	l, ok := layHead(all, r.step, size)
	if ok {
		return s.layAnewLocked(id, l, all, added)
	}
	// No form holds them all: most are sealed, and what is left begins the next head.
	n := len(all)
	if len(old) > 0 && x.T > old[len(old)-1].T {
		n = planSeal(len(old))
		if r.dirLen == 0 { // what is left must fit as pairs
			n = max(planFirst(len(old), id), len(all)-headMax/pairBytes)
		}
	}
	if !s.sealLocked(id, all[:n], len(old)) {
		return false
	}
	if n == len(all) {
		// x went with the rest. It is of a new time: what has that many samples already has a form.
		s.inserted++
		s.recs.At(id).points++
		return true
	}
	s.beginHeadLocked(id, all[n:])
	return true
}

// rollHeadLocked seals most of a full grid, old, and begins the next head with
// the rest and x behind it.
func (s *shard) rollHeadLocked(id uint32, old []Sample, x Sample) bool {
	n, r := planSeal(len(old)), s.recs.At(id)
	step := int64(r.step)
	whole := x.T-old[0].T == int64(len(old))*step // without a hole, and the next begins as this one ended
	if whole && r.dirLen == 0 {
		n = planFirst(len(old), id)
	}
	if !s.sealLocked(id, old[:n], len(old)) {
		return false
	}
	kept := append(old[n:], x)
	if r = s.recs.At(id); !whole || int64(r.step) != step {
		s.beginHeadLocked(id, kept)
		return true
	}
	p := s.hot.Pointer(r.head)
	for i := range kept {
		*slot(p, i) = kept[i].V
	}
	r.mode, r.start, r.next, r.have = modeGrid, kept[0].T, uint8(len(kept)), 1<<len(kept)-1
	s.hot.AddWeight(r.head, len(kept)-1)
	s.addedLocked(r, 1)
	return true
}

// beginHeadLocked lays out kept, of which the last is new, in the head that was sealed.
func (s *shard) beginHeadLocked(id uint32, kept []Sample) {
	r := s.recs.At(id)
	// They are few enough to be pairs if they are nothing better.
	l, ok := layHead(kept, r.step, int(r.size)*8)
	if !ok || l.size != int(r.size)*8 {
		panic("mcache: what is left of a head does not fit where the whole did")
	}
	s.hot.AddWeight(r.head, len(kept)-1)
	r.setHead(s.hot.Pointer(r.head), l, kept)
	s.addedLocked(r, 1)
}

// layAnewLocked gives the head of id the form l and the samples all, of which
// added are new.
func (s *shard) layAnewLocked(id uint32, l layout, all []Sample, added int) bool {
	r := s.recs.At(id)
	if r.head == 0 || int(r.size)*8 != l.size {
		ref, _, ok := s.hot.Alloc(l.size, kindHead, id, r.headLen())
		if !ok {
			return false
		}
		if r.head != 0 {
			s.hot.Free(r.head, r.headLen())
			s.accountLocked(r, -int(entryBytes(int(r.size)*8)))
		}
		r.head = ref
		s.accountLocked(r, int(entryBytes(l.size)))
		s.relistLocked(id)
	}
	r.setHead(s.hot.Pointer(r.head), l, all)
	s.addedLocked(r, added)
	s.overwritten += uint64(1 - added)
	return true
}

// forgetHead leaves r without a head array; what it held is counted elsewhere.
func (s *shard) forgetHead(r *series) {
	if r.headLen() > 0 {
		r.completeFrom = max(r.completeFrom, r.headLast()+1)
	}
	r.head, r.mode, r.next, r.have, r.size = 0, modeNone, 0, 0, 0
}

// sealLocked encodes ss, which are all after r.sealedEnd, and empties the head,
// which held `held` of them. They become a section of the last block while that
// is partial, or are joined with what it has (takesHead), and fill it up when they are
// as many as it has room for. It fails without a change.
func (s *shard) sealLocked(id uint32, ss []Sample, held int) bool {
	r := s.recs.At(id)
	if r.flags&flagPartial != 0 && !s.partials.Live(s.dirOfLocked(r)[r.dirLen-1].ref) {
		s.pruneLocked(r)
	}
	if r.flags&flagOpenBlock != 0 {
		s.sealOpensLocked(id)
	}
	switch {
	case r.flags&flagPartial == 0:
		if !s.addBlocksLocked(id, ss, ss[0].T, 0) {
			return false
		}
	default:
		e := &s.dirOfLocked(r)[r.dirLen-1]
		b := s.partials.Value(e.ref)
		if block.Len(b)+len(ss) > blockPartial || !takesHead(b, len(ss)) {
			old := s.decodeBlockLocked(*e)
			if !s.addBlocksLocked(id, append(append(s.joined[:0], s.block1[:old]...), ss...), e.start, old) {
				return false
			}
			break
		}
		s.encoded = s.codec.AppendSection(s.encoded[:0], b, e.start, ss, int64(r.step))
		ref, ok := s.putLocked(id, s.partials, s.encoded)
		if !ok {
			return false
		}
		s.releaseLocked(r, int(r.dirLen)-1, block.Len(b))
		e.ref = ref
	}
	r = s.recs.At(id)
	r.sealedEnd = ss[len(ss)-1].T
	// A grid without holes has the step that it has.
	if r.mode != modeGrid || ss[len(ss)-1].T-ss[0].T != int64(len(ss)-1)*int64(r.step) {
		if step := commonStepOr(ss, r.step); step != 0 {
			r.step = step
		}
	}
	// The array stays for the samples to come.
	if r.head != 0 {
		s.hot.AddWeight(r.head, -held)
		r.mode, r.next, r.have = modePairs, 0, 0
	}
	s.relistLocked(id)
	return true
}

// addBlocksLocked stores all, which begin at start, behind the last block, or
// in its place if they begin with the `old` samples that it has.
func (s *shard) addBlocksLocked(id uint32, all []Sample, start int64, old int) bool {
	replaced := min(old, 1)
	if !s.dirReserveLocked(id, (len(all)+block.MaxSamples-1)/block.MaxSamples-replaced) {
		return false
	}
	es, partial, ok := s.storeAllLocked(id, all, start, block.MaxSamples, true)
	if !ok {
		return false
	}
	r := s.recs.At(id)
	k := int(r.dirLen)
	if old > 0 {
		k--
		s.releaseLocked(r, k, old)
	}
	s.dirReplaceLocked(r, k, replaced, es...)
	r.setPartial(partial)
	return true
}

// storeAllLocked encodes at most two blocks' worth of samples, the first of at
// most `first` samples; the last may be partial if it is the last of the
// series. The entries are valid until the next call. It stores all or nothing.
func (s *shard) storeAllLocked(id uint32, all []Sample, start int64, first int, last bool) (es []dirEntry, partial, ok bool) {
	s.entries = s.entries[:0]
	for len(all) > 0 {
		part := all[:min(first, len(all))]
		all, first = all[len(part):], block.MaxSamples
		tables := s.log
		if partial = last && len(all) == 0 && len(part) <= blockPartial; partial {
			tables = s.partials
		}
		ref, ok := s.storeLocked(id, tables, part)
		if !ok {
			for _, e := range s.entries {
				b := s.blockLocked(e)
				s.accountLocked(s.recs.At(id), -int(entryBytes(len(b))))
				s.log.Free(e.ref, block.Len(b))
			}
			return nil, false, false
		}
		s.entries = append(s.entries, dirEntry{ref, start})
		if len(all) > 0 {
			start = all[0].T
		}
	}
	return s.entries, partial, true
}

// takesHead reports whether n samples of a head become a section of the partial
// block b; else they are joined with it. A section costs some 14 bytes of headers,
// and to join them to encode all once more. So long ones, those of a grid, are
// joined once in the middle, the third with the two before it.
func takesHead(b []byte, n int) bool {
	sections := block.Sections(b)
	return sections < block.MaxSections && (n <= headMax/pairBytes || sections < 2 || block.Len(b) > 2*n)
}

// blockPartial is how many samples a block may have to be kept partial,
// for more to come: with more than these, the samples of a head that was full
// of pairs would not fit.
const blockPartial = block.MaxSamples - headMax/pairBytes

func commonStepOr(ss []Sample, step uint32) uint32 {
	if len(ss) < stepSamples {
		return step
	}
	return commonStep(ss)
}

// decodeBlockLocked decodes the block of e, which must not have vanished, into
// s.block1.
func (s *shard) decodeBlockLocked(e dirEntry) int { return s.decodeBlockToLocked(&s.block1, e) }

func (s *shard) decodeBlockToLocked(dst *[block.MaxSamples]Sample, e dirEntry) int {
	n, err := s.codec.Decode(dst, s.withSlackLocked(s.blockLocked(e)), e.start)
	if err != nil {
		panic("mcache: own block: " + err.Error())
	}
	return n
}

// withSlackLocked copies b to where unpackSlack bytes behind it may be read.
func (s *shard) withSlackLocked(b []byte) []byte {
	s.bytes1 = append(append(s.bytes1[:0], b...), zeros[:]...)
	return s.bytes1
}

var zeros [block.Slack]byte

// storeLocked encodes ss into an entry for id.
func (s *shard) storeLocked(id uint32, tables *kvcache.Tables, ss []Sample) (kvcache.Ref, bool) {
	s.encoded = s.codec.Encode(s.encoded[:0], ss, int64(s.recs.At(id).step))
	return s.putLocked(id, tables, s.encoded)
}

// putLocked makes an entry of the block b for id.
func (s *shard) putLocked(id uint32, tables *kvcache.Tables, b []byte) (kvcache.Ref, bool) {
	ref, dst, ok := tables.Alloc(len(b), kindBlock, id, block.Len(b))
	if ok {
		copy(dst, b)
		s.accountLocked(s.recs.At(id), int(entryBytes(len(b))))
	}
	return ref, ok
}

// releaseLocked frees the block of entry k, which has n samples.
func (s *shard) releaseLocked(r *series, k, n int) {
	e := s.dirOfLocked(r)[k]
	s.accountLocked(r, -int(entryBytes(len(s.blockLocked(e)))))
	s.tablesOfLocked(r, k).Free(e.ref, n)
}

// mendLocked inserts a sorted run, all at or before sealedEnd, into the sealed
// blocks: each block that the run reaches is decoded, merged and sealed again,
// in two if it became too long. It returns how many samples it has taken,
// fewer than all when there is no memory.
func (s *shard) mendLocked(id uint32, run []Sample) (done int) {
	s.changedLocked(s.recs.At(id), run[0].T)
	for done < len(run) {
		n := s.mendOneLocked(id, run[done:])
		if n == 0 {
			break
		}
		done += n
	}
	return done
}

// mendOneLocked mends the samples at the beginning of run that belong into one
// block.
func (s *shard) mendOneLocked(id uint32, run []Sample) int {
	r := s.recs.At(id)
	if r.flags&(flagOpenBlock|flagBlob) == flagOpenBlock {
		dir := s.dirOfLocked(r)
		k, n := planTake(len(dir), func(i int) int64 { return dir[i].start }, run)
		if n = s.insertOpenLocked(r, k, run[:n]); n > 0 {
			return n
		}
	}
	s.pruneLocked(r)
	if s.overlapsLocked(r, run[0].T) && !s.restoreLocked(id) || !s.dirReserveLocked(id, 1) {
		return 0
	}
	r = s.recs.At(id)
	if n, ok := s.openLocked(id, run); n > 0 || !ok {
		return n
	}
	dir := s.dirOfLocked(r)
	k, n := planTake(len(dir), func(i int) int64 { return dir[i].start }, run)
	part := run[:n]
	var old []Sample
	count := 0
	if len(dir) > 0 {
		old = s.block1[:s.decodeBlockLocked(dir[k])]
		p := planPlace(k, len(old), old[0].T, old[len(old)-1].T, part)
		if k = p.block; p.join {
			count = 1
		} else {
			old = nil
		}
	}
	if holdsAll(old, part) { // a sender writes once more what it wrote
		s.tablesOfLocked(r, k).AddWeight(dir[k].ref, 0)
		s.mendedLocked(r, n, 0)
		return n
	}
	all, added := merge(s.joined[:0], old, part)
	last := k+count == len(dir)
	first := planSplit(len(all))
	es, partial, ok := s.storeAllLocked(id, all, all[0].T, first, last)
	if !ok {
		return 0
	}
	if count == 1 {
		s.releaseLocked(r, k, len(old))
	}
	s.dirReplaceLocked(r, k, count, es...)
	if last {
		r.setPartial(partial)
	}
	r.sealedEnd = max(r.sealedEnd, all[len(all)-1].T)
	s.mendedLocked(r, n, added)
	s.relistLocked(id)
	return n
}

// holdsAll reports whether all of part, which is sorted as ss, is in ss as it is.
func holdsAll(ss, part []Sample) bool {
	for _, x := range part {
		i := sort.Search(len(ss), func(i int) bool { return ss[i].T >= x.T })
		if i == len(ss) || ss[i] != x {
			return false
		}
		ss = ss[i+1:]
	}
	return true
}
