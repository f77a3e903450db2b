package mcache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// The same operations under other options give the same answers: how a cache
// is divided, how it ages, what it does with what it evicts and whether another
// store is behind it is nothing that a reader may see, but for what is missing,
// which the answer says.

// metaAnswer is what one read returned: the points by time, as text.
type metaAnswer struct {
	series   int
	points   map[int64]string
	complete int64
}

// metaRun does the operations of a seed and returns the answers to its reads.
// What is done depends on the seed alone, never on what the cache answers.
func metaRun(t *testing.T, seed uint64, o Options, budget int64, region int, squeezed bool) (answers []metaAnswer, blobs uint64) {
	o.Memory = newTestMemory(t, budget, region)
	c := newTestCache(t, o)
	const series = 30
	rnd := rand.New(rand.NewPCG(seed, 99))
	newest := make([]int64, series)
	var sent int
	for op := range 3000 {
		i := rnd.IntN(series)
		labels := []Label{{metricName, fmt.Sprint("m", i%5)}, {"i", fmt.Sprint(i)}}
		pick := []Matcher{{Type: MatchEqual, Name: "i", Value: fmt.Sprint(i)}}
		switch x := rnd.IntN(100); {
		case x < 70:
			var b Batch
			b.Reset("b")
			b.Series(c.Fingerprint(labels))
			for range 1 + rnd.IntN(25) {
				newest[i] += 15_000
				at := newest[i]
				if rnd.IntN(30) == 0 {
					at -= rnd.Int64N(100) * 7_500
				}
				switch rnd.IntN(40) {
				case 0:
					b.Record(at, fmt.Append(nil, "record ", rnd.Uint32()))
				default:
					b.Sample(at, rnd.Uint64()>>rnd.IntN(50))
				}
			}
			_, err := c.Append(&b)
			for _, k := range append([]int(nil), b.Missing()...) {
				_, err2 := c.AppendNew(&b, k, labels)
				err = errors.Join(err, err2)
			}
			if err != nil {
				t.Fatalf("operation %d: %v", op, err)
			}
		case x < 90:
			from := rnd.Int64N(newest[i] + 1)
			a := metaAnswer{series: i, points: map[int64]string{}}
			var snap Snapshot
			ids, err := c.Select("b", pick, nil)
			if err != nil || len(ids) > 1 {
				t.Fatal(ids, err)
			}
			if gone, ok := c.GoneUntil("b", pick); ok {
				a.complete = gone
			}
			for _, id := range ids {
				if !c.Snapshot(id, from, newest[i], &snap) {
					t.Fatal("a series vanished although nothing happened")
				}
				a.complete = max(a.complete, snap.CompleteFrom())
				for it := snap.Iterator(); it.Next(); {
					if it.OnRecord() {
						a.points[it.Record().T] = string(it.Record().Value)
					} else {
						a.points[it.At().T] = fmt.Sprintf("%x", it.At().V)
					}
				}
			}
			answers = append(answers, a)
		case x < 92:
			from := rnd.Int64N(newest[i] + 1)
			ids, err := c.Select("b", pick, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if _, err := c.Delete(id, from, from+150_000); err != nil {
					t.Fatal(err)
				}
			}
		case x < 96:
			c.Maintain()
			if o.WriteBack {
				drain(c, func(out *Outgoing) { sent += out.Len() }, 300)
			}
		case x < 98:
			if squeezed {
				c.memory.SetBudget(c.memory.Used() - int64(2*region))
				c.memory.SetBudget(budget)
			}
		case x < 99:
			var file bytes.Buffer
			if _, err := c.Save(&file, 1, nil); err != nil {
				t.Fatal(err)
			}
			blobs += checkCache(t, c).BlobsWritten
			o.Memory = newTestMemory(t, budget, region)
			next := newTestCache(t, o)
			if _, err := next.Load(&file, LoadOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			c = next
		}
	}
	if o.WriteBack && sent == 0 {
		t.Error("nothing was handed on")
	}
	return answers, blobs + checkCache(t, c).BlobsWritten
}

// TestMetamorphic runs the same operations under different options.
func TestMetamorphic(t *testing.T) {
	t.Parallel()
	const ample, region = 64 << 20, 64 << 10
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		want, _ := metaRun(t, seed, Options{Shards: 1, AgeCycle: 1 << 40}, ample, region, false)
		for _, v := range []struct {
			name     string
			o        Options
			budget   int64
			region   int
			squeezed bool
		}{
			{"shards", Options{Shards: 8, AgeCycle: 1 << 40}, ample, region, false},
			{"small regions", Options{Shards: 2, AgeCycle: 1 << 40}, ample, 8 << 10, false},
			{"age cycle", Options{Shards: 2, AgeCycle: 50}, ample, region, false},
			{"blobs", Options{Shards: 2, AgeCycle: 500, Blobs: true, MaxBytes: 100 << 10}, ample, region, false},
			{"write-back", Options{Shards: 2, AgeCycle: 500, WriteBack: true}, ample, region, false},
			{"write-back and blobs", Options{Shards: 2, AgeCycle: 500, WriteBack: true, Blobs: true, MaxBytes: 100 << 10}, ample, region, false},
			{"squeezed", Options{Shards: 2, AgeCycle: 500}, 4 << 20, 8 << 10, true},
			{"squeezed blobs", Options{Shards: 2, AgeCycle: 500, Blobs: true, MaxBytes: 20 << 10}, 4 << 20, 8 << 10, true},
			{"evicted", Options{Shards: 2, AgeCycle: 500, MaxBytes: 60 << 10}, ample, region, false},
		} {
			t.Run(fmt.Sprint(v.name, ", seed ", seed), func(t *testing.T) {
				got, blobs := metaRun(t, seed, v.o, v.budget, v.region, v.squeezed)
				if len(got) != len(want) {
					t.Fatalf("%d answers, want %d", len(got), len(want))
				}
				less, held := 0, 0
				for k, a := range got {
					for at, p := range want[k].points {
						if g, ok := a.points[at]; ok && g == p {
							held++
						} else if ok || at >= a.complete {
							t.Fatalf("answer %d, series %d at %d: %q, %v, want %q; complete from %d", k, a.series, at, g, ok, p, a.complete)
						} else {
							less++
						}
					}
					for at, p := range a.points {
						if _, ok := want[k].points[at]; !ok {
							t.Fatalf("answer %d, series %d at %d: %q, want nothing", k, a.series, at, p)
						}
					}
				}
				if held < 1000 || (v.squeezed || v.o.MaxBytes > 0 && !v.o.Blobs) && less == 0 || v.o.MaxBytes == 0 && !v.squeezed && less > 0 || strings.Contains(v.name, "blobs") && blobs == 0 {
					t.Errorf("%d points were the same, %d were missing, %d blobs were written", held, less, blobs)
				}
			})
		}
	}
}
