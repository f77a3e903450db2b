package mcache

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// modelPoint is a sample with its start time, or a record.
type modelPoint struct {
	v, start uint64
	record   []byte
}

// TestRecordsModel writes samples, start times and records to a few series in
// any order, deletes ranges, and compares with a map; regions vanish and keys
// are evicted underneath.
func TestRecordsModel(t *testing.T) {
	t.Parallel()
	seeds := 6
	if testing.Short() {
		seeds = 3 // all sizes
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { recordsRun(t, uint64(seed), false) })
		t.Run(fmt.Sprint("blobs,seed=", seed), func(t *testing.T) { recordsRun(t, uint64(seed), true) })
	}
}

func recordsRun(t *testing.T, seed uint64, blobs bool) {
	rnd := rand.New(rand.NewPCG(seed, 5))
	m := newTestMemory(t, 4<<20, 32<<10)
	o := Options{Memory: m, Shards: 2, AgeCycle: 3000}
	if seed%2 == 1 {
		o.MaxBytes = 40 << 10
	}
	drop := 3
	if o.Blobs = blobs; blobs {
		drop = 8
		o.MaxBytes = []int64{3 << 10, 6 << 10, 12 << 10}[seed%3]
	}
	c := newTestCache(t, o)
	model := map[int]map[int64]modelPoint{}
	records, starts, deleted, lost := 0, 0, 0, 0
	var b Batch
	for op := range 8000 {
		i := rnd.IntN(12)
		ls := kubernetesLabels(i)
		if model[i] == nil {
			model[i] = map[int64]modelPoint{}
		}
		k := model[i]
		switch x := rnd.IntN(100); {
		case x < 70:
			b.Reset("default")
			b.Series(c.Fingerprint(ls))
			at := int64(op/8) + rnd.Int64N(50)
			for range 1 + rnd.IntN(4) {
				at += rnd.Int64N(3)
				var p modelPoint
				if (i+op/2000)%3 == 0 && rnd.IntN(10) > 0 {
					p.record = make([]byte, rnd.IntN(300))
					for j := range p.record {
						p.record[j] = byte(rnd.Uint32())
					}
					b.Record(at, p.record)
					records++
				} else {
					if hasRecord(&b, at) {
						continue // a batch writes the samples of a series before its records
					}
					p.v = rnd.Uint64()
					b.Sample(at, p.v)
					if i%4 == 1 && rnd.IntN(3) > 0 {
						p.start = uint64(1 + op/500)
						b.StartTime(int64(p.start))
						starts++
					}
				}
				k[at] = p
			}
			n, err := c.Append(&b)
			if len(b.Missing()) > 0 {
				n, err = c.AppendNew(&b, 0, ls)
			}
			if err != nil || n == 0 {
				t.Fatalf("op %d: %d written, %v", op, n, err)
			}
		case x < 75:
			ids := mustSelect(t, c, ls)
			from := int64(op/8) + rnd.Int64N(100) - 50
			to := from + rnd.Int64N(40)
			for _, id := range ids {
				n, err := c.Delete(id, from, to)
				if err != nil {
					t.Fatal(err)
				}
				deleted += n
			}
			for at := range k {
				if at >= from && at <= to {
					delete(k, at)
				}
			}
		case x < 76:
			m.SetBudget(m.Used() - int64(rnd.IntN(drop)*m.RegionBytes()))
			m.SetBudget(4 << 20)
			c.Maintain()
		default:
			from := int64(op/8) + rnd.Int64N(200) - 150
			to := from + rnd.Int64N(300)
			if x < 80 {
				from, to = math.MinInt64, math.MaxInt64
			}
			got := 0
			for _, id := range mustSelect(t, c, ls) {
				var s Snapshot
				c.Snapshot(id, from, to, &s)
				it := s.Iterator()
				last := int64(math.MinInt64)
				for skip := rnd.IntN(5) == 0; (skip && it.SkipTo(from+1)) || it.Next(); skip = false {
					at := int64(0)
					if it.OnRecord() {
						at = it.Record().T
						if w := k[at]; w.record == nil || !bytes.Equal(w.record, it.Record().Value) {
							t.Fatalf("op %d: series %d at %d reads a record that was not written last", op, i, at)
						}
					} else {
						at = it.At().T
						w, ok := k[at]
						if !ok || w.record != nil || w.v != it.At().V {
							t.Fatalf("op %d: series %d at %d reads %x, want %+v %v", op, i, at, it.At().V, w, ok)
						}
						if st := it.StartTime(); st != int64(w.start) && (st != 0 || c.Stats().Reclaimed+c.Stats().Evicted == 0) {
							t.Fatalf("op %d: series %d at %d starts at %d, want %d", op, i, at, st, w.start)
						}
					}
					if at <= last || at < from || at > to {
						t.Fatalf("op %d: time %d after %d in %d to %d", op, at, last, from, to)
					}
					last = at
					got++
				}
			}
			if x < 80 && got < len(k) {
				lost += len(k) - got
				if st := c.Stats(); st.Reclaimed+st.Evicted == 0 {
					t.Fatalf("op %d: series %d reads %d points, want %d, and nothing has gone", op, i, got, len(k))
				}
			}
		}
		if op%200 == 0 {
			checkCache(t, c)
		}
	}
	st := checkCache(t, c)
	if blobs && (st.BlobsWritten < 100 || st.BlobsRead < 50 || st.BlobsRestored < 20 || st.BlobsLost == 0) {
		t.Errorf("too little happened with blobs: %+v", st)
	}
	if records < 500 || starts < 200 || deleted < 50 || st.Erased == 0 || st.Mended == 0 || st.Reclaimed == 0 || (o.MaxBytes > 0 && st.Evictions == 0) {
		t.Errorf("too little happened: %d records, %d starts, %d deleted, %d lost, %+v", records, starts, deleted, lost, st)
	}
}

func hasRecord(b *Batch, at int64) bool {
	return slices.ContainsFunc(b.records, func(r Record) bool { return r.T == at })
}

func mustSelect(t *testing.T, c *Cache, ls []Label) []SeriesID {
	t.Helper()
	ms := make([]Matcher, len(ls))
	for i, l := range ls {
		ms[i] = Matcher{Name: l.Name, Value: l.Value}
	}
	ids, err := c.Select("default", ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestLeftIsTold: the metric of what left has all that did, deleted points too.
func TestLeftIsTold(t *testing.T) {
	c := newTestCache(t, Options{})
	if err := c.AppendSamples("default", kubernetesLabels(1), ramp(1, 100)...); err != nil {
		t.Fatal(err)
	}
	id := mustSelect(t, c, kubernetesLabels(1))[0]
	if n, err := c.Delete(id, math.MinInt64, math.MaxInt64); err != nil || n != 100 {
		t.Fatal(n, err)
	}
	st, left := c.Stats(), 0.0
	for _, m := range st.Metrics() {
		if m.Name == "mcached_series_samples_left_total" {
			m.Read(func(v float64, _ ...string) { left += v })
		}
	}
	if left != float64(st.Inserted-st.Points) || left == 0 {
		t.Errorf("the metric says %v, %d of %d are there", left, st.Points, st.Inserted)
	}
}
