package mcache

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
)

func limited(t testing.TB, o Options) (*Cache, func(bucket, name string, i int) error) {
	c := newTestCache(t, o)
	return c, func(bucket, name string, i int) error {
		return c.AppendSamples(bucket, []Label{{metricName, name}, {"i", fmt.Sprint(i)}}, Sample{T: 1, V: 1})
	}
}

func TestLimitOfSeries(t *testing.T) {
	c, write := limited(t, Options{Limits: Limits{Series: 10}, BucketLimits: map[string]Limits{"large": {Series: 20}, "free": {}}})
	for bucket, limit := range map[string]int{"a": 10, "b": 10, "large": 20, "free": 40} {
		refused := 0
		for i := range 40 {
			if err := write(bucket, "m", i); errors.Is(err, ErrSeriesLimit) && !errors.Is(err, ErrMetricLimit) {
				if want := fmt.Sprintf("bucket %q has %d, its limit is %d", bucket, limit, limit); !strings.Contains(err.Error(), want) {
					t.Fatalf("%v: want %s", err, want)
				}
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if refused != 40-limit {
			t.Errorf("bucket %s: %d of 40 refused, limit %d", bucket, refused, limit)
		}
		for i := range limit { // those that are there are written all the same
			if err := write(bucket, "m", i); err != nil {
				t.Errorf("bucket %s: %v", bucket, err)
			}
		}
	}
	for _, b := range c.Stats().Buckets {
		if n := b.OverSeries + uint64(b.Series); n != 40 || b.OverMetric != 0 {
			t.Errorf("bucket %s: %+v", b.Name, b)
		}
	}
	// Keys of the raw API count, too.
	for i := range 12 {
		if err := c.Insert("raw", fmt.Append(nil, i), 0, make([]byte, 8)); errors.Is(err, ErrSeriesLimit) != (i >= 10) {
			t.Errorf("key %d: %v", i, err)
		}
	}
	// Start times are a series of their own, and no series to anybody else.
	var b Batch
	b.Reset("starts")
	labels := make([][]Label, 10)
	for i := range labels {
		labels[i] = []Label{{metricName, "m"}, {"i", fmt.Sprint(i)}}
		b.Series(c.Fingerprint(labels[i]))
		b.Sample(10, 1)
		b.StartTime(5)
	}
	if _, err := c.Append(&b); err != nil {
		t.Fatal(err)
	}
	for _, i := range b.Missing() {
		if _, err := c.AppendNew(&b, i, labels[i]); err != nil {
			t.Errorf("series %d with a start time: %v", i, err)
		}
	}
}

func TestLimitOfSeriesPerMetric(t *testing.T) {
	c, write := limited(t, Options{Limits: Limits{Series: 25, SeriesPerMetric: 10}})
	for _, bucket := range []string{"a", "b"} { // the same names share nothing
		for name, want := range map[string]int{"x": 10, "y": 10} {
			for i := range 15 {
				err := write(bucket, name, i)
				if errors.Is(err, ErrMetricLimit) != (i >= want) || !errors.Is(err, ErrMetricLimit) && err != nil {
					t.Fatalf("%s %s %d: %v", bucket, name, i, err)
				}
				if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q of bucket %q has 10, its limit is 10", name, bucket)) {
					t.Errorf("it says %v", err)
				}
			}
		}
		for i := range 10 { // the limit of all holds, too
			if err := write(bucket, "z", i); errors.Is(err, ErrSeriesLimit) != (i >= 5) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if err := c.AppendSamples(bucket, []Label{{"no", "name"}}, Sample{T: 1, V: 1}); !errors.Is(err, ErrSeriesLimit) {
			t.Errorf("a series without a name: %v", err)
		}
	}
	if c.perMetric.Len() != 6 {
		t.Errorf("%d metrics counted, want 6", c.perMetric.Len())
	}
	for _, b := range c.Stats().Buckets {
		if b.OverMetric != 10 || b.OverSeries != 6 || b.Series != 25 {
			t.Errorf("%+v", b)
		}
	}
}

// What leaves, in whatever way, makes room.
func TestLimitsCountWhatIsThere(t *testing.T) {
	for name, empty := range map[string]func(c *Cache){
		"evicted": func(c *Cache) { c.SetMaxBytes(1); c.SetMaxBytes(0) },
		"popped": func(c *Cache) {
			for {
				if _, _, _, ok := c.Pop(); !ok {
					return
				}
			}
		},
		"bucket removed": func(c *Cache) { c.RemoveBucket("a") },
		"all dropped": func(c *Cache) {
			for _, s := range c.shards {
				s.DropAll()
			}
		},
		"reclaimed": func(c *Cache) { c.memory.Evict(math.MaxInt64 / 2); c.Maintain() },
	} {
		t.Run(name, func(t *testing.T) {
			c, write := limited(t, Options{Limits: Limits{Series: 100, SeriesPerMetric: 60}})
			for round := range 3 {
				refused := 0
				for i := range 80 {
					for _, metric := range []string{"x", "y"} {
						if err := write("a", metric, i); errors.Is(err, ErrSeriesLimit) {
							refused++
						} else if err != nil {
							t.Fatal(err)
						}
					}
				}
				if refused != 60 {
					t.Fatalf("round %d: %d refused, want 60", round, refused)
				}
				empty(c)
				if c.perMetric.Len() != 0 || !c.IsEmpty("a") {
					t.Fatalf("round %d: %d metrics are still counted, empty: %v", round, c.perMetric.Len(), c.IsEmpty("a"))
				}
			}
		})
	}
}

// A refused series leaves nothing behind, however often it comes.
func TestRefusedSeriesTakeNoMemory(t *testing.T) {
	c, write := limited(t, Options{Limits: Limits{Series: 10}})
	for i := range 10 {
		if err := write("a", "m", i); err != nil {
			t.Fatal(err)
		}
	}
	before := c.Stats()
	for i := range 10_000 {
		if err := write("a", "m", 100+i); !errors.Is(err, ErrSeriesLimit) {
			t.Fatal(err)
		}
	}
	after := c.Stats()
	if after.IndexBytes != before.IndexBytes || after.Points != 10 || after.Evictions != 0 {
		t.Errorf("the index grew from %d to %d bytes, %d points are left, %d keys were evicted", before.IndexBytes, after.IndexBytes, after.Points, after.Evictions)
	}
}

// However many write at once, a limit is not passed by one, and nobody is
// refused while there is room.
func TestLimitsHoldForAll(t *testing.T) {
	c, write := limited(t, Options{Limits: Limits{Series: 500, SeriesPerMetric: 300}, Shards: 8})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				if err := write("a", fmt.Sprint("m", i%2), w*200+i); err != nil && !errors.Is(err, ErrSeriesLimit) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if b := c.Stats().Buckets[0]; b.Series != 500 || b.OverSeries+b.OverMetric != 1100 {
		t.Errorf("%+v", b)
	}
}

// Load brings back what was there under other limits.
func TestLimitsDoNotRefuseWhatWasSaved(t *testing.T) {
	c, write := limited(t, Options{})
	for i := range 50 {
		if err := write("a", "m", i); err != nil {
			t.Fatal(err)
		}
	}
	var file strings.Builder
	if _, err := c.Save(&file, 0, nil); err != nil {
		t.Fatal(err)
	}
	for _, l := range []Limits{{Series: 10}, {SeriesPerMetric: 10}} {
		c, write = limited(t, Options{Limits: l})
		if st, err := c.Load(strings.NewReader(file.String()), LoadOptions{}); err != nil || st.Series != 50 {
			t.Fatalf("%+v, %v", st, err)
		}
		if err := write("a", "m", 0); err != nil {
			t.Error(err)
		}
		if err := write("a", "m", 50); !errors.Is(err, ErrSeriesLimit) || !strings.Contains(err.Error(), "has 50, its limit is 10") {
			t.Errorf("one more: %v", err)
		}
	}
}

// TestSetLimits: limits change while buckets are there and written to.
func TestSetLimits(t *testing.T) {
	c, write := limited(t, Options{Limits: Limits{Series: 10, SeriesPerMetric: 5}})
	fill := func(bucket, name string) (n int) {
		for i := range 100 {
			if err := write(bucket, name, i); err == nil {
				n++
			} else if !errors.Is(err, ErrSeriesLimit) {
				t.Fatal(err)
			}
		}
		return n
	}
	expect := func(bucket, name string, want int) {
		t.Helper()
		if got := fill(bucket, name); got != want {
			t.Errorf("%s of bucket %s: %d series, want %d", name, bucket, got, want)
		}
	}
	expect("a", "m", 5)
	if err := c.SetLimits(Limits{Series: 30, SeriesPerMetric: 20}, map[string]Limits{"b": {Series: 3}}); err != nil {
		t.Fatal(err)
	}
	expect("a", "m", 20)
	expect("a", "other", 10)
	expect("b", "m", 3)
	if err := c.SetLimits(Limits{Series: 2, SeriesPerMetric: 2}, nil); err == nil || !strings.Contains(err.Error(), `["b"]`) {
		t.Errorf("beginning to count in b: %v", err)
	}
	expect("a", "m", 20) // what is there is written all the same
	expect("a", "third", 0)
	expect("b", "m", 3)
	expect("c", "m", 2)
	if err := c.SetLimits(Limits{}, nil); err == nil || !strings.Contains(err.Error(), `["a" "c"]`) {
		t.Errorf("giving up: %v", err)
	}
	expect("a", "m", 20)
	expect("b", "m", 100)
	expect("c", "other", 2) // of one name still
	expect("d", "m", 100)
	if err := c.SetLimits(Limits{Series: -1}, nil); err == nil {
		t.Error("a negative limit was taken")
	}
	if err := c.SetLimits(Limits{}, map[string]Limits{"x": {SeriesPerMetric: -1}}); err == nil {
		t.Error("a negative limit of one bucket was taken")
	}
	// While others write.
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				if g == 0 {
					_ = c.SetLimits(Limits{Series: i, SeriesPerMetric: i}, nil)
				} else if err := write("a", fmt.Sprint("g", g), i); err != nil && !errors.Is(err, ErrSeriesLimit) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestLimitsAreChecked(t *testing.T) {
	m := newTestMemory(t, 64<<20, 64<<10)
	for _, o := range []Options{{Limits: Limits{Series: -1}}, {Limits: Limits{SeriesPerMetric: -1}}, {BucketLimits: map[string]Limits{"x": {Series: -1}}}} {
		o.Memory = m
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
