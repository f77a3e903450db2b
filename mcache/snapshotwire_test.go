package mcache

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// wirePoint is a sample with its start time, or a record.
type wirePoint struct {
	v      uint64
	start  int64
	record string
}

func pointsOf(s *Snapshot) (times []int64, all map[int64]wirePoint) {
	all = map[int64]wirePoint{}
	for it := s.Iterator(); it.Next(); {
		if it.OnRecord() {
			r := it.Record()
			times, all[r.T] = append(times, r.T), wirePoint{record: string(r.Value)}
			continue
		}
		x := it.At()
		times, all[x.T] = append(times, x.T), wirePoint{v: x.V, start: it.StartTime()}
	}
	return times, all
}

// appendPoint writes a point to the series m.
func appendPoint(t testing.TB, c *Cache, at int64, p wirePoint) {
	var b Batch
	b.Reset("default")
	b.Series(c.Fingerprint(name("m")))
	if p.record != "" {
		b.Record(at, []byte(p.record))
	} else if b.Sample(at, p.v); p.start != 0 {
		b.StartTime(p.start)
	}
	if _, err := c.Append(&b); err != nil {
		t.Fatal(err)
	}
	for _, i := range b.Missing() {
		if _, err := c.AppendNew(&b, i, name("m")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSnapshotUnion: copies of one series, each of which lacks something, are
// sent and united; what comes out is what a map has, for any part of the time.
func TestSnapshotUnion(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { unionRun(t, seed) })
	}
}

func unionRun(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 77))
	const t0 = int64(1_700_000_000_000)
	copies := 1 + rnd.IntN(3)
	withRecords, withStarts := rnd.IntN(2) == 0, rnd.IntN(2) == 0
	caches := make([]*Cache, copies)
	for i := range caches {
		caches[i] = newTestCache(t, Options{Shards: 1})
	}
	all := map[int64]wirePoint{}
	last := t0
	for n := 0; n < 1200; n++ {
		last += 15_000
		if rnd.IntN(40) == 0 {
			last += rnd.Int64N(100_000)
		}
		p := wirePoint{v: math.Float64bits(float64(n) / 8)}
		if rnd.IntN(10) == 0 {
			p.v = rnd.Uint64() >> 1
		}
		if withStarts && n > 300 {
			p.start = t0 + int64(n/100)
		}
		if withRecords && rnd.IntN(3) == 0 {
			p = wirePoint{record: fmt.Sprintf("%0*d", rnd.IntN(30), n)}
		}
		all[last] = p
	}
	for k, c := range caches {
		var lacksFrom, lacksTo int64
		if copies > 1 {
			lacksFrom = t0 + int64(k)*(last-t0)/int64(copies)
			lacksTo = lacksFrom + rnd.Int64N((last-t0)/int64(copies))
		}
		for _, at := range slices.Sorted(maps.Keys(all)) {
			if at >= lacksFrom && at < lacksTo || copies > 1 && at%int64(copies) != int64(k) && rnd.IntN(9) == 0 && at > lacksTo && k > 0 {
				continue
			}
			appendPoint(t, c, at, all[at])
		}
	}
	var got Snapshot
	for range 60 {
		from := t0 + rnd.Int64N(last-t0)
		to := from + rnd.Int64N(last-from+20_000)
		wide := rnd.Int64N(2) * rnd.Int64N(1_000_000)
		var parts []*Snapshot
		for _, c := range caches {
			var s Snapshot
			c.Snapshot(mustSelect(t, c, name("m"))[0], from-wide, to+wide, &s)
			s.completeFrom = cmp.Or(rnd.Int64N(2)*rnd.Int64(), math.MinInt64)
			sent := s.Append([]byte("before"))[len("before"):]
			p := new(Snapshot)
			if err := ReadSnapshot(p, sent); err != nil {
				t.Fatal(err)
			}
			p.Shrink()
			if again := p.Append(nil); p.completeFrom != s.completeFrom || !bytes.Equal(again, sent) {
				t.Fatalf("from %d to %d: sent again it is other bytes", from, to)
			}
			parts = append(parts, p)
		}
		got.Union(parts, from, to, 5)
		want := map[int64]wirePoint{}
		for at, p := range all {
			if at >= from && at <= to {
				want[at] = p
			}
		}
		times, have := pointsOf(&got)
		if !slices.IsSorted(times) || len(times) != len(want) || !maps.Equal(have, want) || got.CompleteFrom() != 5 {
			t.Fatalf("of %d copies from %d to %d: %d points in %d times, want %d", copies, from, to, len(have), len(times), len(want))
		}
		if got.HasPoint() != (len(want) > 0) {
			t.Fatal("HasPoint is wrong")
		}
	}
}

// wireCache has a series of samples on a grid and off it, records, and start times.
func wireCache(t testing.TB) *Cache {
	c := newTestCache(t, Options{Shards: 1})
	for i := range int64(400) {
		switch i % 20 {
		case 7:
			appendPoint(t, c, i*15_000, wirePoint{record: "record"})
		case 9:
			appendPoint(t, c, i*15_000+3, wirePoint{v: uint64(i) * 0x9e3779b97f4a7c15 >> 1, start: 77})
		default:
			appendPoint(t, c, i*15_000, wirePoint{v: math.Float64bits(float64(i))})
		}
	}
	return c
}

// TestReadSnapshotDamaged: what was damaged on its way is an error or can be read.
func TestReadSnapshotDamaged(t *testing.T) {
	c := wireCache(t)
	var s, all Snapshot
	c.Snapshot(mustSelect(t, c, name("m"))[0], math.MinInt64, math.MaxInt64, &s)
	sound := s.Append(nil)
	rnd := rand.New(rand.NewPCG(8, 9))
	refused := 0
	for range 20_000 {
		b := slices.Clone(sound[:len(sound)-rnd.IntN(2)*rnd.IntN(len(sound))])
		for range rnd.IntN(4) {
			b[rnd.IntN(len(b))] = byte(rnd.Uint32())
		}
		if ReadSnapshot(&all, b) != nil {
			refused++
			continue
		}
		pointsOf(&all)
	}
	if refused < 10_000 {
		t.Errorf("%d refused", refused)
	}
}

// FuzzReadSnapshot: whatever comes, it is an error or can be read.
func FuzzReadSnapshot(f *testing.F) {
	c := wireCache(f)
	ids, err := c.Select("default", nil, nil)
	if err != nil || len(ids) != 1 {
		f.Fatal(ids, err)
	}
	for _, from := range []int64{math.MinInt64, 3_000_000, 5_980_000} {
		var s Snapshot
		c.Snapshot(ids[0], from, math.MaxInt64, &s)
		f.Add(s.Append(nil))
	}
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, all Snapshot
		if ReadSnapshot(&s, b) != nil {
			return
		}
		for it := s.Iterator(); it.Next(); {
			if it.OnRecord() {
				_ = it.Record()
			} else {
				_ = it.At()
				_ = it.StartTime()
			}
		}
		all.Union([]*Snapshot{&s, &s}, math.MinInt64, math.MaxInt64, 0)
	})
}
