package block

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"mcached/mcache/block/mix"
)

const benchStep = 15000

// BenchmarkCodec seals and opens blocks of the mix, and of each class, beside
// Prometheus' XOR chunks on the same data. ns/op is a sample.
func BenchmarkCodec(b *testing.B) {
	const blocks = 2000
	rnd := rand.New(rand.NewPCG(5, 5))
	byClass := map[string][][]Sample{}
	var names []string
	for i := range blocks {
		class, next := mix.Generator(i, rnd)
		for range 4 * MaxSamples { // let it leave its beginning behind
			next()
		}
		ss := make([]Sample, MaxSamples)
		for k := range ss {
			ss[k] = Sample{1_700_000_000_000 + int64(k)*benchStep, math.Float64bits(next())}
		}
		if byClass[class] == nil {
			names = append(names, class)
		}
		byClass[class] = append(byClass[class], ss)
		byClass["mix"] = append(byClass["mix"], ss)
	}
	for _, class := range append([]string{"mix"}, names...) {
		data := byClass[class]
		perSample := func(b *testing.B, n int) float64 { return float64(b.Elapsed().Nanoseconds()) / float64(n) }
		b.Run(class+"/encode", func(b *testing.B) {
			var c Codec
			var buf []byte
			bytes, n := 0, 0
			for i := range b.N {
				buf = c.Encode(buf[:0], data[i%len(data)], benchStep)
				bytes += len(buf)
				n += MaxSamples
			}
			b.ReportMetric(float64(bytes)/float64(n), "B/sample")
			b.ReportMetric(perSample(b, n), "ns/sample")
		})
		b.Run(class+"/decode", func(b *testing.B) {
			var c Codec
			var out [MaxSamples]Sample
			var bufs [][]byte
			for _, ss := range data {
				bufs = append(bufs, append(c.Encode(nil, ss, benchStep), make([]byte, Slack)...))
			}
			b.ResetTimer()
			for i := range b.N {
				if _, err := c.Decode(&out, bufs[i%len(bufs)], 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(perSample(b, b.N*MaxSamples), "ns/sample")
		})
		b.Run(class+"/xor-encode", func(b *testing.B) {
			bytes, n := 0, 0
			for i := range b.N {
				x := chunkenc.NewXORChunk()
				app, _ := x.Appender()
				for _, s := range data[i%len(data)] {
					app.Append(0, s.T, math.Float64frombits(s.V))
				}
				bytes += len(x.Bytes())
				n += MaxSamples
			}
			b.ReportMetric(float64(bytes)/float64(n), "B/sample")
			b.ReportMetric(perSample(b, n), "ns/sample")
		})
		b.Run(class+"/xor-decode", func(b *testing.B) {
			var chunks []*chunkenc.XORChunk
			for _, ss := range data {
				x := chunkenc.NewXORChunk()
				app, _ := x.Appender()
				for _, s := range ss {
					app.Append(0, s.T, math.Float64frombits(s.V))
				}
				chunks = append(chunks, x)
			}
			b.ResetTimer()
			var it chunkenc.Iterator
			for i := range b.N {
				it = chunks[i%len(chunks)].Iterator(it)
				for it.Next() != chunkenc.ValNone {
					_, _ = it.At()
				}
			}
			b.ReportMetric(perSample(b, b.N*MaxSamples), "ns/sample")
		})
	}
}
