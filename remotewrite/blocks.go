package remotewrite

import (
	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// block takes a block of the series in hand, which ends at end in decoded. One with times
// that are not usual becomes samples, each of which is looked at: they are appended to
// those of the batch, and odd is true.
func (in *intake) block(field []byte, end int, samples []mcache.Sample) (_ []mcache.Sample, odd bool, err error) {
	first, b := wire.BlockIn(field)
	if b == nil {
		return samples, false, malformed("block", end-len(field))
	}
	if in.reader == nil {
		in.reader = new(mcache.BlockReader)
	}
	x, err := in.reader.Check(mcache.Block{First: first, Bytes: b})
	if err != nil || len(in.blocks) > 0 && first <= in.blocks[len(in.blocks)-1].Last() {
		return samples, false, malformed("block", end-len(field))
	}
	if odd = x.Last() > in.maxT || first < earlyMs; !odd {
		in.blocks = append(in.blocks, x)
		return samples, false, nil
	}
	samples = append(samples, in.reader.Samples(&x)...)
	in.left += x.Len() // as many bytes they are not
	in.batch.SetSamples(samples)
	return samples, true, in.look(end, 0)
}

// inBlocks is how many samples are in the blocks of the series in hand.
func (in *intake) inBlocks() (n int) {
	for i := range in.blocks {
		n += in.blocks[i].Len()
	}
	return n
}
