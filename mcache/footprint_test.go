package mcache

import (
	"math"
	"testing"
)

// TestFootprint is what one series on a grid takes, by how many samples it has:
// what is here is there once for each of millions.
func TestFootprint(t *testing.T) {
	for _, want := range []struct {
		samples              int
		hot, partial, dir    int64
		blockPoints, inBlock int64
	}{
		{6, 72, 0, 0, 0, 0},
		{24, 200, 0, 0, 0, 0},
		{25, 200, 40, 40, 21, 0},
		{240, 200, 104, 40, 105, 126}, // one full block, and one that was joined in the middle
	} {
		c := newTestCache(t, Options{})
		for i := range want.samples {
			x := Sample{T: int64(i) * 15_000, V: math.Float64bits(float64(i * i % 97))}
			if err := c.AppendSamples("default", kubernetesLabels(0), x); err != nil {
				t.Fatal(err)
			}
		}
		st := checkCache(t, c)
		if st.Hot.LiveBytes != want.hot || st.Dir.LiveBytes != want.dir || st.Partials.Weight != want.blockPoints || st.Log.Weight != want.inBlock {
			t.Errorf("%d samples: head %d bytes, directory %d, %d samples in a partial block, %d in full ones; want %+v",
				want.samples, st.Hot.LiveBytes, st.Dir.LiveBytes, st.Partials.Weight, st.Log.Weight, want)
		}
		if got := st.Partials.LiveBytes; got > want.partial+want.partial/2 {
			t.Errorf("%d samples: a partial block of %d bytes, want about %d", want.samples, got, want.partial)
		}
	}
}
