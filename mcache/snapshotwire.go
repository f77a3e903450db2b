package mcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"mcached/mcache/block"
)

// A Snapshot goes from one process to another as it is: its blocks stay encoded,
// about a byte a sample, and nothing is decoded to send it.
//
//	flags          byte: 1 completeFrom follows, 2 so do the start times
//	completeFrom   varint
//	blocks         uvarint, then for each: its start less that of the one before, varint; its length, uvarint; itself
//	head           uvarint, then for each sample: its time less that of the one before, varint; its value, eight bytes
//	records        uvarint, then for each: its time, likewise; its length, uvarint; itself
//	start times    the same again, without start times
//
// A process does not trust what it gets: see ReadSnapshot.

const (
	wireComplete = 1 << iota
	wireStarts
)

// ErrSnapshot says that bytes are not those of a Snapshot.
var ErrSnapshot = errors.New("not a snapshot of a series")

// Append appends the snapshot's wire form to dst.
func (s *Snapshot) Append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, 0)
	if s.completeFrom != math.MinInt64 {
		dst[at] |= wireComplete
		dst = binary.AppendVarint(dst, s.completeFrom)
	}
	if s.starts != nil {
		dst[at] |= wireStarts
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.blocks)))
	before := int64(0)
	for _, b := range s.blocks {
		dst = binary.AppendVarint(dst, b.start-before)
		dst = binary.AppendUvarint(dst, uint64(b.len))
		dst = append(dst, s.buf[b.at:b.at+b.len]...)
		before = b.start
	}
	head := within(s.head, s.from, s.to)
	dst, before = binary.AppendUvarint(dst, uint64(len(head))), 0
	for _, x := range head {
		dst = binary.AppendVarint(dst, x.T-before)
		dst = binary.LittleEndian.AppendUint64(dst, x.V)
		before = x.T
	}
	dst, before = binary.AppendUvarint(dst, uint64(len(s.records))), 0
	for _, r := range s.records {
		dst = binary.AppendVarint(dst, r.T-before)
		dst = binary.AppendUvarint(dst, uint64(len(r.Value)))
		dst = append(dst, r.Value...)
		before = r.T
	}
	if s.starts != nil {
		dst = s.starts.Append(dst)
	}
	return dst
}

// within are the samples of a sorted list from from to to.
func within(list []Sample, from, to int64) []Sample {
	i := sort.Search(len(list), func(i int) bool { return list[i].T >= from })
	j := i + sort.Search(len(list)-i, func(j int) bool { return list[i+j].T > to })
	return list[i:j]
}

// ReadSnapshot makes s what was sent, of which it keeps nothing. A block that
// could not be decoded, and times out of order, are errors here and not later;
// what the values are cannot be known.
func ReadSnapshot(s *Snapshot, b []byte) error {
	r := wireReader{b: b}
	r.snapshot(s, true)
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes behind the end", len(r.b))
	}
	return r.err
}

// wireReader takes a snapshot from its bytes. After an error it finds nothing.
type wireReader struct {
	b     []byte
	err   error
	codec *block.Codec
	out   *[block.MaxSamples]Sample
}

func (r *wireReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrSnapshot}, args...)...)
	}
	r.b = nil
}

func (r *wireReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("it breaks off")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *wireReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("it breaks off")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count is how many things follow, each of which takes at least so many bytes.
func (r *wireReader) count(atLeast int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/atLeast) {
		r.fail("%d entries in %d bytes", n, len(r.b))
		return 0
	}
	return int(n)
}

func (r *wireReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("%d bytes of %d", n, len(r.b))
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// after is the time of the next entry of a list.
func (r *wireReader) after(before int64, first bool) int64 {
	t := before + r.varint()
	if r.err == nil && (!first && t <= before || t < -block.MaxTime || t > block.MaxTime) {
		r.fail("a time of %d after %d", t, before)
	}
	return t
}

func (r *wireReader) snapshot(s *Snapshot, outer bool) {
	*s = Snapshot{buf: s.buf[:0], blocks: s.blocks[:0], head: s.head[:0], records: s.records[:0], recordBuf: s.recordBuf[:0],
		from: math.MinInt64, to: math.MaxInt64, completeFrom: math.MinInt64}
	if len(r.b) == 0 {
		r.fail("it breaks off")
		return
	}
	flags := r.b[0]
	r.b = r.b[1:]
	if flags&^(wireComplete|wireStarts) != 0 || flags&wireStarts != 0 && !outer {
		r.fail("flags of %#x", flags)
	}
	if flags&wireComplete != 0 {
		s.completeFrom = r.varint()
	}
	before := int64(0)
	for i := range r.count(4) {
		before = r.after(before, i == 0)
		b := r.bytes()
		if r.err != nil {
			return
		}
		s.addBlock(before, b)
		if !r.sound(s) {
			r.fail("a block of %d bytes is damaged", len(b))
			return
		}
	}
	n := r.count(9)
	s.head = slices.Grow(s.head, n)
	before = 0
	for i := range n {
		before = r.after(before, i == 0)
		if len(r.b) < 8 {
			r.fail("it breaks off")
			return
		}
		s.head = append(s.head, Sample{T: before, V: binary.LittleEndian.Uint64(r.b)})
		r.b = r.b[8:]
	}
	n = r.count(2)
	s.records, before = slices.Grow(s.records, n), 0
	for i := range n {
		before = r.after(before, i == 0)
		s.records = append(s.records, Record{T: before, Value: r.bytes()})
	}
	s.ownRecords()
	if flags&wireStarts != 0 && r.err == nil {
		s.starts = new(Snapshot)
		r.snapshot(s.starts, false)
	}
}

// sound reports whether the last block of s can be decoded.
func (r *wireReader) sound(s *Snapshot) bool {
	b := s.blocks[len(s.blocks)-1]
	buf := s.buf[b.at : b.at+b.len+block.Slack]
	if _, _, _, ok := block.Inspect(buf, b.start); ok {
		return true
	}
	if r.codec == nil {
		r.codec, r.out = new(block.Codec), new([block.MaxSamples]Sample)
	}
	_, err := r.codec.Decode(r.out, buf, b.start)
	return err == nil
}

func (s *Snapshot) addBlock(start int64, b []byte) {
	s.blocks = append(s.blocks, snapBlock{start, len(s.buf), len(b)})
	s.buf = append(append(s.buf, b...), zeros[:]...)
}

// ownRecords copies the values of the records, views of what is another's.
func (s *Snapshot) ownRecords() {
	n := 0
	for i := range s.records {
		n += len(s.records[i].Value)
	}
	s.recordBuf = slices.Grow(s.recordBuf[:0], n)
	for i := range s.records {
		at := len(s.recordBuf)
		s.recordBuf = append(s.recordBuf, s.records[i].Value...)
		s.records[i].Value = s.recordBuf[at:len(s.recordBuf):len(s.recordBuf)]
	}
}

// Clone returns a copy of its own, with no room to spare.
func (s *Snapshot) Clone() *Snapshot {
	c := &Snapshot{
		from: s.from, to: s.to, completeFrom: s.completeFrom,
		buf: slices.Clip(slices.Clone(s.buf)), blocks: slices.Clip(slices.Clone(s.blocks)), head: slices.Clip(slices.Clone(s.head)),
		records: slices.Clip(slices.Clone(s.records)),
	}
	c.ownRecords()
	if s.starts != nil {
		c.starts = s.starts.Clone()
	}
	return c
}

// Lost makes s what is left of a series that has gone: nothing, before a time.
func (s *Snapshot) Lost(before int64) {
	s.Union(nil, math.MinInt64, math.MaxInt64, before)
}

// Hold makes s hold samples, in order of time, of which it keeps nothing.
func (s *Snapshot) Hold(samples ...Sample) {
	s.Union(nil, math.MinInt64, math.MaxInt64, math.MinInt64)
	s.head = append(s.head, samples...)
}

// Shrink gives back what the snapshot has of the heap beyond what is in it.
func (s *Snapshot) Shrink() {
	s.buf, s.blocks, s.head = slices.Clip(s.buf), slices.Clip(s.blocks), slices.Clip(s.head)
	s.records, s.recordBuf = slices.Clip(s.records), slices.Clip(s.recordBuf)
}

// Union makes s what any of the parts has from from to to, both inclusive.
// Points of one time are one: that of the first part that has it. The parts
// must not change meanwhile; s keeps nothing of them, and is complete from when
// the caller says.
//
// Of a single part the blocks are copied. Those of several are decoded: copies
// of a series have their blocks cut at other places.
func (s *Snapshot) Union(parts []*Snapshot, from, to, completeFrom int64) {
	starts := s.starts
	*s = Snapshot{buf: s.buf[:0], blocks: s.blocks[:0], head: s.head[:0], records: s.records[:0], recordBuf: s.recordBuf[:0],
		from: from, to: to, completeFrom: completeFrom}
	if len(parts) == 1 {
		s.narrow(parts[0])
	} else {
		s.unite(parts)
	}
	var theirs []*Snapshot
	for _, p := range parts {
		if p.starts != nil {
			theirs = append(theirs, p.starts)
		}
	}
	if len(theirs) > 0 {
		if s.starts = starts; s.starts == nil {
			s.starts = new(Snapshot)
		}
		s.starts.Union(theirs, from, to, math.MinInt64)
	}
}

// narrow copies what p has in the time of s.
func (s *Snapshot) narrow(p *Snapshot) {
	for i, b := range p.blocks {
		if b.start > s.to {
			break
		}
		if i+1 == len(p.blocks) || p.blocks[i+1].start > s.from {
			s.addBlock(b.start, p.buf[b.at:b.at+b.len])
		}
	}
	s.head = append(s.head, within(p.head, s.from, s.to)...)
	for _, r := range p.records {
		if r.T >= s.from && r.T <= s.to {
			s.records = append(s.records, r)
		}
	}
	s.ownRecords()
}

// unite merges what the parts have in the time of s.
func (s *Snapshot) unite(parts []*Snapshot) {
	var it Iterator
	for _, p := range parts {
		view := Snapshot{from: max(s.from, p.from), to: min(s.to, p.to), buf: p.buf, blocks: p.blocks, head: p.head}
		it.Reset(&view)
		next := 0 // in s.head, of what is not before the current sample
		for run := it.Run(); len(run) > 0; run = it.Run() {
			if n := len(s.head); n == 0 || s.head[n-1].T < run[0].T {
				s.head = append(s.head, run...)
				next = len(s.head)
				continue
			}
			s.head, next = mergeRun(s.head, next, run)
		}
		for _, r := range p.records {
			if r.T < s.from || r.T > s.to {
				continue
			}
			i := sort.Search(len(s.records), func(i int) bool { return s.records[i].T >= r.T })
			if i == len(s.records) || s.records[i].T != r.T {
				s.records = slices.Insert(s.records, i, r)
			}
		}
	}
	if len(s.records) > 0 { // a time has one point
		s.head = slices.DeleteFunc(s.head, func(x Sample) bool {
			_, ok := slices.BinarySearchFunc(s.records, x.T, func(r Record, t int64) int { return int(min(max(r.T-t, -1), 1)) })
			return ok
		})
	}
	s.ownRecords()
}

// mergeRun puts the samples of run that list lacks into it, both in order of
// time. Those before list[from] are all earlier. It returns how much of the list
// is earlier than what comes after run.
func mergeRun(list []Sample, from int, run []Sample) ([]Sample, int) {
	i, k := from, 0
	for k < len(run) { // walk what both have
		for i < len(list) && list[i].T < run[k].T {
			i++
		}
		if i == len(list) {
			list = append(list, run[k:]...)
			return list, len(list)
		}
		if list[i].T != run[k].T {
			break
		}
		k++
	}
	if k == len(run) {
		return list, i
	}
	var missing []Sample
	for at := i; k < len(run); k++ {
		for at < len(list) && list[at].T < run[k].T {
			at++
		}
		if at == len(list) || list[at].T != run[k].T {
			missing = append(missing, run[k])
		}
	}
	// From behind, so that nothing is moved twice.
	to := len(list) + len(missing)
	end := len(list)
	list = slices.Grow(list, len(missing))[:to]
	for m := len(missing) - 1; m >= 0; {
		to--
		if end > i && list[end-1].T > missing[m].T {
			end--
			list[to] = list[end]
		} else {
			list[to] = missing[m]
			m--
		}
	}
	last := run[len(run)-1].T
	return list, i + sort.Search(len(list)-i, func(j int) bool { return list[i+j].T > last })
}
