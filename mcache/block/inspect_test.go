package block

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestInspect finds the same in a block as decode does, and nothing in one that
// Decode refuses.
func TestInspect(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 6))
	var c Codec
	var out [MaxSamples]Sample
	sound, refused := 0, 0
	for range 20_000 {
		var b []byte
		start := rnd.Int64N(1 << 41)
		at := start
		for k := range 1 + rnd.IntN(MaxSections) {
			part := make([]Sample, 1+rnd.IntN(MaxSamples/MaxSections))
			for i := range part {
				part[i] = Sample{at, math.Float64bits(float64(rnd.IntN(1000)))}
				if rnd.IntN(50) == 0 {
					part[i].V = rnd.Uint64()
				}
				at += 15000
			}
			if k == 0 {
				b = c.Encode(nil, part, 15000)
			} else {
				b = c.AppendSection(nil, b, start, part, 15000)
			}
		}
		for range rnd.IntN(3) {
			b[rnd.IntN(len(b))] ^= byte(1 << rnd.IntN(8))
		}
		b = append(b[:len(b)-rnd.IntN(2)*rnd.IntN(2)], make([]byte, Slack)...)
		n, last, step, ok := Inspect(b, start)
		if !ok {
			refused++
			continue
		}
		sound++
		k, err := c.Decode(&out, b, start)
		if err != nil || k != n || out[k-1].T != last || out[0].T != start {
			t.Fatalf("inspect found %d samples to %d, decode %d to %d, %v", n, last, k, out[k-1].T, err)
		}
		for i := 1; i < n; i++ {
			if out[i].T <= out[i-1].T {
				t.Fatalf("time %d after %d", out[i].T, out[i-1].T)
			}
		}
		if n > 1 && Sections(b) == 1 && step != out[1].T-out[0].T {
			t.Fatalf("step %d, not %d", step, out[1].T-out[0].T)
		}
	}
	if sound < 1000 || refused < 1000 {
		t.Errorf("%d sound, %d refused: too few", sound, refused)
	}
}
