package kvcache

import (
	"iter"
	"unsafe"
)

// directory is the set of a shard's indexes, each for the records of one
// segment: those whose hash has some prefix in the bits of the segment. An
// index that has grown to maxLines is split rather than grown further, because
// resizing moves all of an index under the shard's lock: 2,048 lines have some
// 22 Ki records, which take 1 to 3 ms, most of it waiting for their headers to
// come from memory. So the directory deepens with what the shard holds (extendible hashing), and a small cache has one index
// of a page for each shard.
type directory struct {
	bits     uint8    // of the segment that indexes has entries for
	indexes  []*index // 1 << bits; one of lesser depth stands in several entries
	maxLines int
}

const (
	segmentBits = 12 // 4,096 indexes a shard, 64 Mi records; then they grow again
	segments    = 1 << segmentBits
	splitLines  = 2048
)

func newDirectory(m *Memory, a Account) directory {
	return directory{indexes: []*index{{span: m.NewSpanFor(a)}}, maxLines: splitLines}
}

// at is the index for a segment.
func (d *directory) at(segment uint32) *index { return d.indexes[segment>>(segmentBits-d.bits)] }

// end is the first segment after those of x.
func (x *index) end() uint32 { return uint32(x.prefix+1) << (segmentBits - x.depth) }

// all yields every index once.
func (d *directory) all() iter.Seq[*index] {
	return func(yield func(*index) bool) {
		for segment := uint32(0); segment < segments; {
			x := d.at(segment)
			if !yield(x) {
				return
			}
			segment = x.end()
		}
	}
}

// splits reports whether x, which is to grow, is to be split instead.
func (d *directory) splits(x *index) bool {
	return len(x.lines) >= d.maxLines && x.depth < segmentBits
}

// split replaces x by two indexes for half of its segments each. segment
// tells a record's. The error is ErrNoMemory; then all is as it was.
func (d *directory) split(x *index, p *places, segment func(record unsafe.Pointer) uint32) error {
	var half [2]*index
	lines := x.used/2*100/(lineSlots*maxLoadPercent*4/5) + 1
	for i := range half {
		half[i] = &index{span: p.m.NewSpanFor(x.span.account), depth: x.depth + 1, prefix: x.prefix<<1 | uint16(i)}
		if err := half[i].resize(lines, p); err != nil {
			half[0].clear()
			return err
		}
	}
	bit := segmentBits - x.depth - 1
	ok := x.moveTo(p, func(record unsafe.Pointer) *index { return half[segment(record)>>bit&1] })
	if !ok {
		// One half is much larger than the other: growing x is the answer.
		half[0].clear()
		half[1].clear()
		return x.resize(len(x.lines)+len(x.lines)/4, p)
	}
	for _, h := range half {
		h.inheritGhosts(x)
	}
	if x.depth == d.bits {
		deeper := make([]*index, 0, 2*len(d.indexes))
		for _, y := range d.indexes {
			deeper = append(deeper, y, y)
		}
		d.indexes, d.bits = deeper, d.bits+1
	}
	for i, h := range half {
		width := 1 << (d.bits - h.depth)
		first := (int(x.prefix)<<1 | i) * width
		for j := range width {
			d.indexes[first+j] = h
		}
	}
	x.clear()
	return nil
}
