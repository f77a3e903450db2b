package mcache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"mcached/mcache/block/mix"
)

// BenchmarkWriteBack is BenchmarkAppend of 100,000 series with all that
// write-back adds in this package: the note of what is dirty, and after so many
// samples of each series a pass that collects and acknowledges them. ns/op is a
// sample; collect-ns/op what of it is the passes, bytes not encoded for a wire.
func BenchmarkWriteBack(b *testing.B) {
	const series = 100_000
	for _, run := range []int{0, 8, 32} {
		b.Run(fmt.Sprintf("run=%d", run), func(b *testing.B) {
			c := newTestCache(b, Options{Memory: benchMemory(b, 4<<30), WriteBack: run > 0})
			fps := fill(b, c, series)
			rnd := rand.New(rand.NewPCG(1, 1))
			values := make([][256]uint64, 1024)
			for i := range values {
				_, next := mix.Generator(i, rnd)
				for k := range values[i] {
					values[i][k] = math.Float64bits(next())
				}
			}
			var batch Batch
			var o Outgoing
			var collect time.Duration
			sent := 0
			pass := func(round int) {
				began := cpuTime()
				for shard := range c.Shards() {
					var pass Pass
					for more := true; more; {
						more = c.Collect(shard, &pass, Due{Since: AllTicks}, 10_000, &o)
						sent += o.Points()
						c.Acknowledge(&o)
					}
					c.Settle(shard, &pass)
				}
				c.SetTick(uint32(round) + 1)
				collect += cpuTime() - began
			}
			if run > 0 {
				pass(0)
				sent, collect = 0, 0
			}
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime()
			for n, round := 0, 1; n < b.N; round++ {
				for from := 0; from < series && n < b.N; from += 2000 {
					batch.Reset("default")
					for i := from; i < min(from+2000, series) && n < b.N; i++ {
						batch.Series(fps[i])
						batch.Sample(int64(round)*benchStep, values[i&1023][round&255])
						n++
					}
					if _, err := c.Append(&batch); err != nil || len(batch.Missing()) > 0 {
						b.Fatal(err, len(batch.Missing()))
					}
				}
				if run > 0 && round%run == 0 {
					pass(round)
				}
			}
			if run > 0 {
				pass(math.MaxInt32)
				if sent != b.N {
					b.Fatalf("%d samples sent of %d", sent, b.N)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(collect)/float64(b.N), "collect-ns/op")
		})
	}
}
