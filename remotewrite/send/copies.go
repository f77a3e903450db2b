package send

import "mcached/mcache"

// Copies are series that own what they consist of. The zero value has none. It is
// for one goroutine.
type Copies struct {
	Series []Series

	// What the series consist of lies here, one after the other.
	labels  []mcache.Label
	numbers []uint32
	samples []mcache.Sample
	starts  []int64
	records []mcache.Record
	values  []byte // of records and blocks
	blocks  []mcache.Block
}

// Add adds a copy of s. The strings of labels, Table and Metadata are shared with s.
func (c *Copies) Add(s Series) {
	s.Labels, s.Numbers = cloneTo(&c.labels, s.Labels), cloneTo(&c.numbers, s.Numbers)
	s.Samples, s.Starts = cloneTo(&c.samples, s.Samples), cloneTo(&c.starts, s.Starts)
	s.Records = cloneTo(&c.records, s.Records)
	for i := range s.Records {
		s.Records[i].Value = cloneTo(&c.values, s.Records[i].Value)
	}
	s.Blocks = cloneTo(&c.blocks, s.Blocks)
	for i := range s.Blocks {
		s.Blocks[i].Bytes = cloneTo(&c.values, s.Blocks[i].Bytes)
	}
	c.Series = append(c.Series, s)
}

// Reset removes all. What Add allocated is used again: no series that was taken from
// c may be used any longer.
func (c *Copies) Reset() {
	clear(c.Series)
	clear(c.labels) // the strings are not held any longer
	c.Series, c.labels, c.numbers = c.Series[:0], c.labels[:0], c.numbers[:0]
	c.samples, c.starts, c.records, c.values, c.blocks = c.samples[:0], c.starts[:0], c.records[:0], c.values[:0], c.blocks[:0]
}

// cloneTo returns a copy of list that lies at the end of slab.
func cloneTo[T any](slab *[]T, list []T) []T {
	n := len(*slab)
	*slab = append(*slab, list...)
	return (*slab)[n:len(*slab):len(*slab)]
}
