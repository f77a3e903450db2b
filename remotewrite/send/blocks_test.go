package send

import (
	"math"
	"slices"
	"testing"

	"mcached/mcache"
	"mcached/mcache/block"
)

// Whatever is left out of a series, and whether blocks are made samples of or not, the
// rest is what there was from that time on.
func TestUnpacker(t *testing.T) {
	var codec block.Codec
	var all []mcache.Sample
	var blocks []mcache.Block
	for b := range 4 {
		from := len(all)
		for k := range 10 {
			all = append(all, mcache.Sample{T: int64(100*b + 10*k), V: uint64(k)})
		}
		blocks = append(blocks, mcache.Block{First: all[from].T, Bytes: codec.Encode(nil, all[from:], 10)})
	}
	var u Unpacker
	for _, from := range []int64{math.MinInt64, 0, 5, 90, 91, 100, 155, 390, 391} {
		s := u.Since(Series{Blocks: blocks}, from)
		want := slices.DeleteFunc(slices.Clone(all), func(x mcache.Sample) bool { return x.T < from })
		if s.Points() != len(want) {
			t.Errorf("from %d on there are %d samples, not %d", from, s.Points(), len(want))
		}
		if s = u.Plain(s); !slices.Equal(s.Samples, want) || len(s.Blocks) > 0 {
			t.Errorf("from %d on it has %v, not %v", from, s.Samples, want)
		}
	}
}
