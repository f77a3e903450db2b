package index

import "math/bits"

// Cursor reads the pairs of series one after the other, and knows in which those of one are
// not those of the one before: where both are derived from the same base, only what differs
// from that is read. The zero value is ready; it is for one index.
type Cursor struct {
	set    []uint32 // that was read last
	base   uint32   // the unit of what it was derived from, or its own
	differ uint32   // as of Base
}

// Reset makes the next set one that nothing is read before.
func (c *Cursor) Reset() { c.set = c.set[:0] }

// Move reads the pairs of a series that has n; they are the cursor's own, until it moves.
// Bit i of changed says that pair i is another than that of the series before. known is false
// if that had another number of pairs, or more than 32.
func (c *Cursor) Move(x *Index, p Place, n int) (set []uint32, changed uint32, known bool) {
	w, unit := x.words(), uint32(p>>1)
	base, differ := unit, uint32(0)
	if p&derivedBit != 0 {
		base, differ = unit-w[unit]>>maskBits, w[unit]&differs
	}
	if base != c.base || n != len(c.set) || n > 32 {
		changed, known = c.jump(x.Set(p, n))
		c.base, c.differ = base, differ
		return c.set, changed, known
	}
	whole, set := w[base:][:n], c.set
	for m := c.differ &^ differ; m != 0; m &= m - 1 {
		i := bits.TrailingZeros32(m)
		set[i] = whole[i]
		changed |= 1 << i
	}
	for m := differ; m != 0; m &= m - 1 {
		i := bits.TrailingZeros32(m)
		unit++
		if set[i] != w[unit] {
			set[i] = w[unit]
			changed |= 1 << i
		}
	}
	c.differ = differ
	return set, changed, true
}

// jump makes set that of the cursor, and compares it with what it was.
func (c *Cursor) jump(set []uint32) (changed uint32, known bool) {
	if known = len(set) == len(c.set) && len(set) <= 32; known {
		changed = difference(c.set, set)
	}
	c.set = append(c.set[:0], set...)
	return changed, known
}
