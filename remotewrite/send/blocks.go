package send

import (
	"sort"

	"mcached/mcache"
)

// Unpacker makes samples of the blocks of series. What it returns is valid until it is
// called again. The zero value is ready; it is for one goroutine.
type Unpacker struct {
	reader  mcache.BlockReader
	samples []mcache.Sample
}

// Since is what of s has times from from on, in ms. Of a block that begins before that the
// samples are left.
func (u *Unpacker) Since(s Series, from int64) Series {
	i := sort.Search(len(s.Samples), func(i int) bool { return s.Samples[i].T >= from })
	k := sort.Search(len(s.Records), func(k int) bool { return s.Records[k].T >= from })
	s.Starts, s.Samples, s.Records = s.Starts[min(i, len(s.Starts)):], s.Samples[i:], s.Records[k:]
	if n := sort.Search(len(s.Blocks), func(i int) bool { return s.Blocks[i].First >= from }); n > 0 {
		u.unpack(s.Blocks[n-1 : n]) // of those before all is before from
		i := sort.Search(len(u.samples), func(i int) bool { return u.samples[i].T >= from })
		u.samples = append(u.samples[i:], s.Samples...)
		s.Samples, s.Blocks = u.samples, s.Blocks[n:]
	}
	return s
}

// Plain is s with the samples of its blocks in place of these. Series that have both have
// no start times.
func (u *Unpacker) Plain(s Series) Series {
	before := s.Samples
	if len(before) > 0 {
		before = append([]mcache.Sample(nil), before...) // Since may have made them
	}
	u.unpack(s.Blocks)
	u.samples = append(before, u.samples...)
	s.Samples, s.Blocks = u.samples, nil
	return s
}

func (u *Unpacker) unpack(blocks []mcache.Block) {
	u.samples = u.samples[:0]
	for _, b := range blocks {
		x, err := u.reader.Check(b)
		if err != nil {
			panic("send: a block of the cache: " + err.Error())
		}
		u.samples = append(u.samples, u.reader.Samples(&x)...)
	}
}
