package query

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"mcached/mcache"
)

func checkXOR(t *testing.T, e *xorEncoder, samples []mcache.Sample) {
	t.Helper()
	chunk := chunkenc.NewXORChunk()
	appender, err := chunk.Appender()
	if err != nil {
		t.Fatal(err)
	}
	e.reset()
	for _, s := range samples {
		appender.Append(0, s.T, math.Float64frombits(s.V))
		e.append(s)
	}
	if got := e.bytes(); !bytes.Equal(got, chunk.Bytes()) {
		t.Fatalf("%d samples, the first at %d: got %x\nwant %x", len(samples), samples[0].T, got, chunk.Bytes())
	}
}

// TestXORIsPrometheus encodes series of all kinds with both encoders.
func TestXORIsPrometheus(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var e xorEncoder
	for range 5000 {
		samples := make([]mcache.Sample, 1+rnd.IntN(200))
		at, v := rnd.Int64()>>rnd.IntN(63), rnd.Float64()*1000
		jitter, odds, whole := rnd.IntN(60), rnd.IntN(30), rnd.IntN(2) == 0
		for i := range samples {
			at += 15_000
			if rnd.IntN(4) == 0 {
				at += rnd.Int64N(1<<jitter) - rnd.Int64N(1<<jitter)
			}
			switch x := rnd.IntN(30); {
			case x < odds/4:
				v = math.Float64frombits(rnd.Uint64())
			case x < odds:
				v += rnd.Float64()
			}
			if whole {
				v = math.Round(v)
			}
			samples[i] = mcache.Sample{T: at, V: math.Float64bits(v)}
		}
		checkXOR(t, &e, samples)
	}
	// The edges of what each number of bits holds.
	for _, bits := range []int{14, 17, 20, 63} {
		for _, d := range []int64{-1<<(bits-1) - 1, -1 << (bits - 1), -1<<(bits-1) + 1, 1<<(bits-1) - 1, 1 << (bits - 1), 1<<(bits-1) + 1} {
			checkXOR(t, &e, []mcache.Sample{{T: 0}, {T: 5}, {T: 10 + d}, {T: 7, V: 1 << 63}, {T: 9, V: 1}})
		}
	}
}

func FuzzXOR(f *testing.F) {
	f.Add([]byte{1, 2, 3}, int64(t0))
	f.Fuzz(func(t *testing.T, data []byte, at int64) {
		samples := []mcache.Sample{{T: at}}
		for i, b := range data[:min(len(data), 1000)] {
			at += int64(int8(b)) << (i % 56)
			samples = append(samples, mcache.Sample{T: at, V: samples[i].V ^ uint64(b)<<(b%64)})
		}
		checkXOR(t, new(xorEncoder), samples)
	})
}

func BenchmarkXOR(b *testing.B) {
	samples := make([]mcache.Sample, samplesPerChunk)
	for i := range samples {
		samples[i] = mcache.Sample{T: t0 + int64(i)*15_000, V: math.Float64bits(math.Round(math.Sin(float64(i))*1e4) / 100)}
	}
	b.Run("own", func(b *testing.B) {
		var e xorEncoder
		for b.Loop() {
			e.reset()
			for _, s := range samples {
				e.append(s)
			}
			sink = e.bytes()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/samplesPerChunk, "ns/sample")
	})
	b.Run("prometheus", func(b *testing.B) {
		for b.Loop() {
			chunk := chunkenc.NewXORChunk()
			appender, _ := chunk.Appender()
			for _, s := range samples {
				appender.Append(0, s.T, math.Float64frombits(s.V))
			}
			sink = chunk.Bytes()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/samplesPerChunk, "ns/sample")
	})
}
