package mcache

import (
	"math"
	"reflect"
	"testing"

	"mcached/mcache/block"
)

// TestChunkStats compares with what was written, for each form that a point can take.
func TestChunkStats(t *testing.T) {
	c := newTestCache(t, Options{Shards: 2})
	want := func(bucket string, e ChunkStats) {
		t.Helper()
		if got := c.ChunkStats(bucket); !reflect.DeepEqual(got, e) {
			t.Errorf("%s: %+v, want %+v", bucket, got, e)
		}
	}
	nothing := ChunkStats{MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	want("b", nothing)
	app := func(bucket, name string, ss ...Sample) {
		t.Helper()
		if err := c.AppendSamples(bucket, []Label{{"__name__", name}}, ss...); err != nil {
			t.Fatal(err)
		}
	}
	app("b", "pairs", Sample{T: 500, V: 1}, Sample{T: 777, V: 2})
	want("b", ChunkStats{1, 500, 777, nil})
	app("b", "grid", Sample{T: 1000, V: 1}, Sample{T: 2000, V: 1}, Sample{T: 3000, V: 1}, Sample{T: 4000, V: 1})
	want("b", ChunkStats{2, 500, 4000, nil})
	app("other", "m", Sample{T: 1, V: 1})
	if err := c.Insert("raw", []byte("k"), -5, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	want("other", ChunkStats{1, 1, 1, nil})
	want("raw", nothing)
	long := make([]Sample, 10_000)
	for i := range long {
		long[i] = Sample{T: int64(i-100) * 15_000, V: uint64(i)}
	}
	app("b", "long", long...)
	e := c.ChunkStats("b")
	if e.MinTime != -1_500_000 || e.MaxTime != 9899*15_000 || e.Chunks < 3+10_000/block.MaxSamples || e.Chunks > 10_000/32 {
		t.Errorf("%+v", e)
	}
	var b Batch
	b.Reset("b")
	b.Series(c.Fingerprint([]Label{{"__name__", "pairs"}}))
	b.Record(1<<40, []byte("histogram"))
	if n, err := c.Append(&b); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	want("b", ChunkStats{e.Chunks + 1, e.MinTime, 1 << 40, nil})

	by := c.ChunkStatsByMetric("b").BytesByMetric
	if len(by) != 3 || by["grid"] < seriesBytes+headMin || by["long"] < by["pairs"] || by["pairs"] <= by["grid"] {
		t.Errorf("bytes by metric: %v", by)
	}
	sum := int64(0)
	for _, n := range by {
		sum += n
	}
	for _, n := range c.ChunkStatsByMetric("other").BytesByMetric {
		sum += n
	}
	if _, err := c.Take("raw", []byte("k")); err != nil {
		t.Fatal(err)
	}
	if sum != c.Stats().AllocatedBytes {
		t.Errorf("%d bytes by metric, %d allocated", sum, c.Stats().AllocatedBytes)
	}
}
