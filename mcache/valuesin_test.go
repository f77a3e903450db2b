package mcache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestValuesIn holds names and values of a time to a walk over all series that
// looks for a point in each: while series come, go, pause, lose blocks to
// reclaim and are evicted into blobs.
func TestValuesIn(t *testing.T) {
	in, out, warned := 0, 0, 0
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		m := newTestMemory(t, 8<<20, 64<<10)
		c := newTestCache(t, Options{Memory: m, Shards: 4, Blobs: seed%2 == 0})
		const step, steps = 1000, 4000
		written, metricOf := map[string][]int64{}, map[string]string{}
		for i := range 300 {
			labels := []Label{{"__name__", fmt.Sprint("m", i%5)}, {"pod", fmt.Sprint("pod-", i)}}
			if i%7 == 0 {
				labels = append(labels, Label{fmt.Sprint("rare_", i%3), "x"})
			}
			var ss []Sample
			for at, end := rnd.IntN(steps), rnd.IntN(steps); at < end; at++ {
				if rnd.IntN(200) == 0 {
					at += rnd.IntN(1000) // a pause
				}
				ss = append(ss, Sample{T: int64(at)*step + rnd.Int64N(3)*rnd.Int64N(400), V: rnd.Uint64()})
			}
			if err := c.AppendSamples("b", labels, ss...); err != nil {
				t.Fatal(err)
			}
			times := make([]int64, len(ss))
			for k := range ss {
				times[k] = ss[k].T
			}
			slices.Sort(times)
			written[labels[1].Value], metricOf[labels[1].Value] = times, labels[0].Value
			if i%4 == 0 { // of another bucket, and at another time
				if err := c.AppendSamples("other", labels, Sample{T: rnd.Int64N(steps * step)}); err != nil {
					t.Fatal(err)
				}
			}
			if i%9 == 0 { // histograms have records
				var b Batch
				b.Reset("b")
				b.Series(c.Fingerprint(labels))
				b.Record(int64(rnd.IntN(steps))*step, []byte("any"))
				if _, err := c.Append(&b); err != nil {
					t.Fatal(err)
				}
			}
		}
		if seed >= 3 {
			m.SetBudget(m.Used() - int64(6*m.RegionBytes()))
		} else if seed > 0 {
			c.SetMaxBytes(c.Stats().AllocatedBytes * 2 / 3)
		}
		for range 150 {
			from := rnd.Int64N(steps * step)
			to := from + rnd.Int64N(1+int64(step*[]int{1, 60, 2000}[rnd.IntN(3)]))
			ms := []Matcher{{Type: MatchEqual, Name: "__name__", Value: fmt.Sprint("m", rnd.IntN(5))}}
			if rnd.IntN(2) == 0 {
				ms = nil
			}
			wantOfAllTimes(t, c, ms)
			names, values, lost := walkIn(t, c, ms, from, to)
			gotNames, complete1, err1 := c.LabelNamesIn("b", ms, from, to, 0)
			gotValues, complete2, err2 := c.LabelValuesIn("b", "pod", ms, from, to, 0)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if !slices.Equal(gotNames, sorted(names, 0)) || !slices.Equal(gotValues, sorted(values, 0)) {
				t.Fatalf("seed %d, %d to %d, %v: %d names, want %d; %d values, want %d", seed, from, to, ms, len(gotNames), len(names), len(gotValues), len(values))
			}
			if complete2 > lost || complete1 > complete2 {
				t.Fatalf("seed %d, %d to %d: complete from %d and %d, want %d", seed, from, to, complete1, complete2, lost)
			}
			// What an answer calls complete is.
			since := max(from, complete2)
			if gone, ok := c.GoneUntil("b", ms); ok {
				since = max(since, gone)
			}
			for pod, times := range written {
				i, _ := slices.BinarySearch(times, since)
				if i < len(times) && times[i] <= to && !values[pod] && (ms == nil || ms[0].Value == metricOf[pod]) {
					t.Fatalf("seed %d, %d to %d: %s has a point at %d and is missing; complete from %d", seed, from, to, pod, times[i], since)
				}
			}
			in, out = in+len(values), out+300-len(values)
			if lost > math.MinInt64 {
				warned++
			}
			if limited, _, err := c.LabelValuesIn("b", "pod", ms, from, to, 3); err != nil || !slices.Equal(limited, sorted(values, 3)) {
				t.Fatalf("three of them: %q, %v", limited, err)
			}
		}
	}
	if in < 1000 || out < 1000 || warned < 20 {
		t.Errorf("%d in, %d out, %d times something was lost: too little was tried", in, out, warned)
	}
}

// walkIn looks into every series.
func walkIn(t *testing.T, c *Cache, ms []Matcher, from, to int64) (names, pods map[string]bool, complete int64) {
	t.Helper()
	names, pods, complete = map[string]bool{}, map[string]bool{}, math.MinInt64
	ids, err := c.Select("b", ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		var s Snapshot
		labels, ok := c.Labels(id, nil)
		if !ok || !c.Snapshot(id, from, to, &s) {
			t.Fatal("a series has gone")
		}
		if !s.HasPoint() {
			if s.CompleteFrom() > from {
				complete = max(complete, s.CompleteFrom())
			}
			continue
		}
		for _, l := range labels {
			names[l.Name] = true
			if l.Name == "pod" {
				pods[l.Value] = true
			}
		}
	}
	return names, pods, complete
}

// BenchmarkValuesIn lists the pods of an hour, of 100,000 series of which half
// have ended before, and the same without a time.
func BenchmarkValuesIn(b *testing.B) {
	const series, old, now = 100_000, 0, 7_200_000
	c := newTestCache(b, Options{Memory: benchMemory(b, 1<<30)})
	for i := range series {
		at := int64(now)
		if i%2 == 0 {
			at = old
		}
		if err := c.AppendSamples("default", kubernetesLabels(i), Sample{T: at, V: 0}, Sample{T: at + 15_000, V: 0}); err != nil {
			b.Fatal(err)
		}
	}
	for _, label := range []string{"pod", "job", "__name__"} {
		b.Run(label+"/hour", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := c.LabelValuesIn("default", label, nil, now-1_800_000, now+60_000, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(label+"/all", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.LabelValues("default", label, nil, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("names/hour", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := c.LabelNamesIn("default", nil, now-1_800_000, now+60_000, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("names/all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.LabelNames("default", nil, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// wantOfAllTimes compares names and values of all times, of one bucket of two, with
// those of the series that are selected.
func wantOfAllTimes(t *testing.T, c *Cache, ms []Matcher) {
	t.Helper()
	names, values := map[string]bool{}, map[string]bool{}
	ids, err := c.Select("b", ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		labels, _ := c.Labels(id, nil)
		for _, l := range labels {
			names[l.Name] = true
			if l.Name == "pod" {
				values[l.Value] = true
			}
		}
	}
	gotNames, err1 := c.LabelNames("b", ms, 0)
	gotValues, err2 := c.LabelValues("b", "pod", ms, 0)
	if err1 != nil || err2 != nil || !slices.Equal(gotNames, sorted(names, 0)) || !slices.Equal(gotValues, sorted(values, 0)) {
		t.Fatalf("%v, of all times: %v, want %v, %v; %d values, want %d, %v", ms, gotNames, sorted(names, 0), err1, len(gotValues), len(values), err2)
	}
}
