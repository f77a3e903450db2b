package mcache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"mcached/kvcache"
	"mcached/mcache/block/mix"
)

const benchStep = 15000

// fill makes n series with one sample each and returns their fingerprints.
func fill(b testing.TB, c *Cache, n int) []Fingerprint {
	fps := make([]Fingerprint, n)
	for i := range fps {
		ls := kubernetesLabels(i)
		fps[i] = c.Fingerprint(ls)
		if err := c.AppendSamples("default", ls, Sample{T: 0, V: math.Float64bits(float64(i))}); err != nil {
			b.Fatal(err)
		}
	}
	return fps
}

func benchMemory(b testing.TB, budget int64) *kvcache.Memory {
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: budget})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	return m
}

// cpuTime is the CPU time of the process: on a machine that others use, too,
// it tells more than the time that passed.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAppend appends one sample to each of the series a round, in
// batches of 2,000 as a sender does, filling the batch included. ns/op is a
// sample. Where it says so, they come in another order than they were made in.
func BenchmarkAppend(b *testing.B) {
	for _, series := range []int{1000, 100_000} {
		for _, how := range []string{"late=0%", "late=5%", "shuffled"} {
			b.Run(fmt.Sprintf("series=%d/%s", series, how), func(b *testing.B) {
				c := newTestCache(b, Options{Memory: benchMemory(b, 4<<30)})
				fps := fill(b, c, series)
				rnd := rand.New(rand.NewPCG(1, 1))
				late := 0
				switch how {
				case "late=5%":
					late = 5
				case "shuffled":
					rnd.Shuffle(series, func(i, k int) { fps[i], fps[k] = fps[k], fps[i] })
				}
				var values [256][1024]uint64 // by time, as they are appended
				for i := range values[0] {
					_, next := mix.Generator(i, rnd)
					for k := range values {
						values[k][i] = math.Float64bits(next())
					}
				}
				var batch Batch
				b.ReportAllocs()
				b.ResetTimer()
				cpu := cpuTime()
				for n, round := 0, 1; n < b.N; round++ {
					for from := 0; from < series && n < b.N; from += 2000 {
						batch.Reset("default")
						for i := from; i < min(from+2000, series) && n < b.N; i++ {
							at := round
							if late > 0 && (i+round)%100 < late && round > 3 {
								at -= 3
							}
							batch.Series(fps[i])
							batch.Sample(int64(at)*benchStep, values[at&255][i&1023])
							n++
						}
						if _, err := c.Append(&batch); err != nil || len(batch.Missing()) > 0 {
							b.Fatal(err, len(batch.Missing()))
						}
					}
				}
				b.StopTimer()
				b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
				st := c.Stats()
				b.ReportMetric(float64(st.AllocatedBytes-int64(series)*seriesBytes)/float64(st.Points), "B/sample")
			})
		}
	}
}

// BenchmarkLate writes samples that are late by one to four steps and close
// the gap that they left; ns/op is one of them.
func BenchmarkLate(b *testing.B) {
	const series = 100_000
	c := newTestCache(b, Options{Memory: benchMemory(b, 4<<30)})
	fps := fill(b, c, series)
	var batch Batch
	b.ReportAllocs()
	b.ResetTimer()
	b.StopTimer()
	for n, round := 0, 1; n < b.N; round++ {
		for from := 0; from < series && n < b.N; from += 2000 {
			for _, late := range []bool{false, true} {
				batch.Reset("default")
				for i := from; i < from+2000; i++ {
					// Every fifth sample of a series waits for 1 to 4 rounds.
					waits := func(r int) bool { return r > 5 && (r+i)%5 == 0 }
					for r := round; r > max(0, round-5); r-- {
						due := r
						if waits(r) {
							due = r + 1 + (r+i)%4
						}
						if due == round && late == (r != round) {
							batch.Series(fps[i])
							batch.Sample(int64(r)*benchStep, math.Float64bits(float64(r*i%1000)))
						}
					}
				}
				if late {
					n += batch.Len()
					b.StartTimer()
				}
				if _, err := c.Append(&batch); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
			}
		}
	}
}

// BenchmarkMend writes single samples that are late by more than a head, so
// that each one unseals a block.
func BenchmarkMend(b *testing.B) {
	const series, samples = 1000, 600
	c := newTestCache(b, Options{Memory: benchMemory(b, 1<<30)})
	fps := fill(b, c, series)
	var batch Batch
	for k := 1; k < samples; k += 1 {
		batch.Reset("default")
		for _, f := range fps {
			batch.Series(f)
			batch.Sample(int64(k)*2*benchStep, math.Float64bits(float64(k)))
		}
		c.Append(&batch)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n++ {
		batch.Reset("default")
		batch.Series(fps[n%series])
		batch.Sample(int64(2*(n/series%(samples/2))+1)*benchStep, math.Float64bits(42))
		if _, err := c.Append(&batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBackfill writes, one a series and batch, samples in order before
// what each series has, as a sender that catches up.
func BenchmarkBackfill(b *testing.B) {
	benchmarkBackfill(b, func(n int) int { return n - backfillRounds })
}

// BenchmarkBackfillNewestFirst is BenchmarkBackfill for a sender that empties
// its queue from the newest to the oldest.
func BenchmarkBackfillNewestFirst(b *testing.B) {
	benchmarkBackfill(b, func(n int) int { return -1 - n })
}

// BenchmarkOverwriteAlike writes once more, one a series and batch, what was
// written.
func BenchmarkOverwriteAlike(b *testing.B) {
	benchmarkBackfill(b, func(n int) int { return n % (backfillHave / 2) })
}

const backfillHave, backfillRounds = 200, 600

// benchmarkBackfill writes samples of 1,000 series at steps that at chooses. All
// begins anew when backfillRounds are written: no step is missing any more.
func benchmarkBackfill(b *testing.B, at func(n int) int) {
	const series = 1000
	var fps []Fingerprint
	var batch Batch
	c := newTestCache(b, Options{Memory: benchMemory(b, 1<<30)})
	write := func(k int) {
		batch.Reset("default")
		for i, f := range fps {
			batch.Series(f)
			batch.Sample(int64(k)*benchStep, math.Float64bits(float64(k*i%100)))
		}
		if _, err := c.Append(&batch); err != nil || len(batch.Missing()) > 0 {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for n := 0; n < b.N; n++ {
		if n%backfillRounds == 0 {
			b.StopTimer()
			c.RemoveBucket("default")
			fps = fill(b, c, series)
			for k := 1; k < backfillHave; k++ {
				write(k)
			}
			if n == 0 {
				b.ResetTimer()
			}
			b.StartTimer()
		}
		write(at(n % backfillRounds))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/sample")
}

// BenchmarkCreate makes new series; ns/op is one.
func BenchmarkCreate(b *testing.B) {
	c := newTestCache(b, Options{Memory: benchMemory(b, 8<<30)})
	labels := make([][]Label, min(b.N, 200_000))
	for i := range labels {
		labels[i] = kubernetesLabels(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%len(labels) == 0 && i > 0 {
			b.StopTimer()
			c.RemoveBucket("default")
			b.StartTimer()
		}
		if err := c.AppendSamples("default", labels[i%len(labels)], Sample{T: int64(i), V: 0}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSelect reports what a number of series take and how long three matchers
// over them do.
// BenchmarkSelect selects series by three labels, and, as a panel of a hundred pods does, by a name and a
// regular expression for their instances.
func BenchmarkSelect(b *testing.B) {
	for _, series := range []int{100_000, 1_000_000, 4_000_000} {
		b.Run(fmt.Sprint(series), func(b *testing.B) { benchmarkSelect(b, series) })
	}
}

func benchmarkSelect(b *testing.B, series int) {
	c := newTestCache(b, Options{Memory: benchMemory(b, 4<<30)})
	fill(b, c, series)
	st := c.Stats()
	text := 0
	for _, l := range kubernetesLabels(series / 2) {
		text += len(l.Name) + len(l.Value)
	}
	pods, err := NewMatcher(MatchRegexp, "instance", "10[.]0[.][0-4][.](4|8|12|16|20)[0-9]?:8080")
	if err != nil {
		b.Fatal(err)
	}
	for _, q := range []struct {
		name string
		ms   []Matcher
	}{
		{"labels=3", []Matcher{
			{Type: MatchEqual, Name: "namespace", Value: "team-07"},
			{Type: MatchEqual, Name: "__name__", Value: "http_server_requests_03_total"},
			{Type: MatchEqual, Name: "code", Value: "400"},
		}},
		{"pods", []Matcher{{Type: MatchEqual, Name: "__name__", Value: "http_server_requests_03_total"}, pods}},
	} {
		b.Run(q.name, func(b *testing.B) {
			var ids []SeriesID
			cpu := cpuTime()
			for range b.N {
				if ids, err = c.Select("default", q.ms, ids[:0]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-cpu)/1e3/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(st.IndexBytes)/float64(series), "B/series")
			b.ReportMetric(float64(text), "B-of-labels/series")
			b.ReportMetric(float64(len(ids)), "selected")
		})
	}
	var ms0 runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&ms0)
	b.Logf("%.1f bytes a series of heap", float64(ms0.HeapAlloc)/float64(series))
}

// BenchmarkLabelValues lists the values of a label that 100,000 series have: a
// thousand of "pod", and of "serial" one of its own for each; at last with another
// bucket, as the daemon's own metrics make one.
func BenchmarkLabelValues(b *testing.B) {
	const series = 100_000
	c := newTestCache(b, Options{Memory: benchMemory(b, 1<<30)})
	for i := range series {
		ls := append(kubernetesLabels(i), Label{"serial", fmt.Sprintf("unit-%07d", i*7919%series)})
		if err := c.AppendSamples("default", ls, Sample{T: 0, V: 0}); err != nil {
			b.Fatal(err)
		}
	}
	team := []Matcher{{Type: MatchEqual, Name: "namespace", Value: "team-07"}}
	for _, q := range []struct {
		name, label string
		ms          []Matcher
	}{{"pod", "pod", nil}, {"serial", "serial", nil}, {"serial of a namespace", "serial", team}, {"pod of two buckets", "pod", nil}} {
		b.Run(q.name, func(b *testing.B) {
			if q.name == "pod of two buckets" {
				if err := c.AppendSamples("other", kubernetesLabels(0), Sample{T: 0, V: 0}); err != nil {
					b.Fatal(err)
				}
				b.ResetTimer()
			}
			b.ReportAllocs()
			cpu, n := cpuTime(), 0
			for range b.N {
				values, err := c.LabelValues("default", q.label, q.ms, 0)
				if err != nil {
					b.Fatal(err)
				}
				n = len(values)
			}
			b.ReportMetric(float64(cpuTime()-cpu)/1e6/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(n), "values")
		})
	}
}
