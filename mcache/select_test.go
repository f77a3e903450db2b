package mcache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func mustMatcher(t testing.TB, kind MatchType, name, value string) Matcher {
	t.Helper()
	m, err := NewMatcher(kind, name, value)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func labelsKey(ls []Label) string {
	var b strings.Builder
	for _, l := range ls {
		fmt.Fprintf(&b, "%s=%q,", l.Name, l.Value)
	}
	return b.String()
}

// TestSelectModel compares Select, Labels, LabelNames and LabelValues with a
// walk over all label sets, while series come and go so that the index is
// rebuilt again and again.
func TestSelectModel(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(7, 7))
	c := newTestCache(t, Options{Shards: 2})
	model := map[string]map[string][]Label{"one": {}, "two": {}}
	values := []string{"a", "b", "ab", "abc", "", "x\ny", "é"}
	expressions := []string{"a|b", "a.*", "ab?c?", ".*", ".+", "", "[ab]", "(?i)A", "a(b|bc)", "x.y", "nothing", "é|", "a.+|b"}
	hits := 0
	ops := 3000
	if testing.Short() {
		ops /= 2
	}
	for op := range ops {
		if op%300 == 0 { // what matches changes, also for expressions that were asked before
			values = append(values, fmt.Sprint("a", op))
		}
		bucket := []string{"one", "two"}[rnd.IntN(2)]
		var ls []Label
		for _, n := range []string{"__name__", "k", "l", "m"} {
			if v := values[rnd.IntN(len(values))]; v != "" {
				ls = append(ls, Label{n, v})
			}
		}
		ls = append(ls, Label{"id", fmt.Sprint(rnd.IntN(40))})
		slices.SortFunc(ls, byName)
		if err := c.AppendSamples(bucket, ls, Sample{T: int64(op), V: 0}); err != nil {
			t.Fatal(err)
		}
		model[bucket][labelsKey(ls)] = ls
		if rnd.IntN(4) > 0 {
			if b, key, _, ok := c.Pop(); ok && key == nil {
				// Pop does not say which labels went: find out by looking.
				for k, ls := range model[b] {
					if len(readAll(t, c, b, ls, 0, 1<<40)) == 0 {
						delete(model[b], k)
					}
				}
			}
		}
		if op%10 > 0 {
			continue
		}
		var ms []Matcher
		for range 1 + rnd.IntN(3) {
			kind := MatchType(rnd.IntN(4))
			v := values[rnd.IntN(len(values))]
			if kind >= MatchRegexp {
				v = expressions[rnd.IntN(len(expressions))]
			}
			ms = append(ms, mustMatcher(t, kind, []string{"__name__", "k", "l", "m", "absent"}[rnd.IntN(5)], v))
		}
		want := map[string]bool{}
		names, ks := map[string]bool{}, map[string]bool{}
		for key, ls := range model[bucket] {
			if matchesAll(ms, ls) {
				want[key] = true
				for _, l := range ls {
					names[l.Name] = true
					if l.Name == "k" {
						ks[l.Value] = true
					}
				}
			}
		}
		ids, err := c.Select(bucket, ms, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			ls, ok := c.Labels(id, nil)
			if !ok || !want[labelsKey(ls)] {
				t.Fatalf("op %d: %v selects %v, which should not be", op, ms, ls)
			}
			hits++
		}
		if len(ids) != len(want) {
			t.Fatalf("op %d: %v selects %d series, want %d", op, ms, len(ids), len(want))
		}
		if got, _ := c.LabelNames(bucket, ms, 0); !slices.Equal(got, sorted(names, 0)) {
			t.Fatalf("op %d: names %v, want %v", op, got, sorted(names, 0))
		}
		if got, _ := c.LabelValues(bucket, "k", ms, 2); !slices.Equal(got, sorted(ks, 2)) {
			t.Fatalf("op %d: values %v, want %v", op, got, sorted(ks, 2))
		}
	}
	answers := 0
	for _, s := range c.shards {
		answers += s.index.Answers()
	}
	if st := checkCache(t, c); hits < 1000 || st.Rebuilds < 3 || answers < 8 {
		t.Errorf("too little happened: %d hits, %d rebuilds, %d answers remembered", hits, st.Rebuilds, answers)
	}
}

func matchesAll(ms []Matcher, ls []Label) bool {
	for i := range ms {
		v := ""
		for _, l := range ls {
			if l.Name == ms[i].Name {
				v = l.Value
			}
		}
		if !ms[i].Decide(v) {
			return false
		}
	}
	return true
}

// TestBatch writes known, new and unknown series in one batch and reads back
// what was written.
func TestBatch(t *testing.T) {
	c := newTestCache(t, Options{})
	var b Batch
	want := map[int][]Sample{}
	for round := range 100 {
		b.Reset("default")
		for i := range 50 + round {
			b.Series(c.Fingerprint(kubernetesLabels(i)))
			s := Sample{T: int64(round) * 15000, V: uint64(i * round)}
			b.Sample(s.T, s.V)
			want[i] = append(want[i], s)
		}
		n, err := c.Append(&b)
		if err != nil {
			t.Fatal(err)
		}
		missing := b.Missing()
		if wantMissing := 1 + 49*b2i(round == 0); len(missing) != wantMissing || n != b.Len()-wantMissing {
			t.Fatalf("round %d: %d missing, %d written of %d", round, len(missing), n, b.Len())
		}
		for _, i := range missing {
			ls := kubernetesLabels(i)
			slices.Reverse(ls) // any order will do
			if n, err := c.AppendNew(&b, i, ls); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	for i, ss := range want {
		if got := readAll(t, c, "default", kubernetesLabels(i), 0, 1<<40); !slices.Equal(got, ss) {
			t.Fatalf("series %d reads %v, want %v", i, got, ss)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestFullOfHeads writes more series than fit while nothing is sealed: cold
// keys are evicted, and what was written last is there. Of series of one sample
// indexes are nine tenths; with fewer labels, heads are a quarter and more, and blobs
// have next to no room.
func TestFullOfHeads(t *testing.T) {
	for _, without := range [][]string{nil, {"cluster", "container", "node", "job", "namespace"}} {
		for _, blobs := range []bool{false, true} {
			fullOfHeads(t, blobs, without)
		}
	}
}

func fullOfHeads(t *testing.T, blobs bool, without []string) {
	m := newTestMemory(t, 8<<20, 8<<10) // small regions, as heads of many series are in one
	c := newTestCache(t, Options{Memory: m, Shards: 4, AgeCycle: 5000, Blobs: blobs})
	labels := func(i int) []Label {
		return slices.DeleteFunc(kubernetesLabels(i), func(l Label) bool { return slices.Contains(without, l.Name) })
	}
	const series = 60_000
	for i := range series {
		if err := c.AppendSamples("default", labels(i), Sample{T: int64(i), V: uint64(i)}); err != nil {
			t.Fatalf("blobs %t, without %q: series %d: %v", blobs, without, i, err)
		}
		if i >= 2000 && i%1000 == 0 {
			for k := i - 1000; k <= i; k += 100 {
				if got := readAll(t, c, "default", labels(k), 0, 1<<40); len(got) != 1 || got[0].V != uint64(k) {
					t.Fatalf("blobs %t, without %q: series %d of %d reads %v", blobs, without, k, i, got)
				}
			}
		}
	}
	// Blobs are reclaimed when they are old.
	if st := checkCache(t, c); st.Evictions == 0 || st.Reclaimed > 0 && !blobs || m.Used() > m.Budget() {
		t.Errorf("blobs %t, without %q: %d evictions, %d points reclaimed, %d of %d bytes used", blobs, without, st.Evictions, st.Reclaimed, m.Used(), m.Budget())
	}
}

// TestConcurrent writes, reads, evicts, ages and takes memory away at the same
// time. Values tell their series and time, so that a wrong read shows.
func TestConcurrent(t *testing.T) {
	m := newTestMemory(t, 6<<20, 32<<10)
	c := newTestCache(t, Options{Memory: m, Shards: 4, MaxBytes: 2 << 20, AgeCycle: 20000})
	const series = 3000
	labels := make([][]Label, series)
	fps := make([]Fingerprint, series)
	for i := range labels {
		labels[i] = kubernetesLabels(i)
		fps[i] = c.Fingerprint(labels[i])
	}
	value := func(i int, at int64) uint64 { return uint64(i)<<40 | uint64(at) }
	var wg sync.WaitGroup
	var reads, drops, full atomic.Int64
	stop := make(chan struct{})
	run := func(f func(rnd *rand.Rand)) {
		wg.Add(1)
		seed := rand.Uint64()
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(seed, 0))
			for {
				select {
				case <-stop:
					return
				default:
					f(rnd)
				}
			}
		}()
	}
	var clock atomic.Int64
	for range 2 {
		var b Batch
		run(func(rnd *rand.Rand) {
			at := clock.Add(1)
			b.Reset("default")
			from := rnd.IntN(series - 200)
			for i := from; i < from+200; i++ {
				late := at
				if i%50 == 0 {
					late = max(0, at-rnd.Int64N(300))
				}
				b.Series(fps[i])
				b.Sample(late, value(i, late))
			}
			if _, err := c.Append(&b); err != nil && !errors.Is(err, ErrNoMemory) {
				t.Error(err)
			}
			for _, i := range slices.Clone(b.Missing()) {
				if _, err := c.AppendNew(&b, i, labels[from+i]); errors.Is(err, ErrNoMemory) {
					full.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
	run(func(rnd *rand.Rand) {
		i := rnd.IntN(series)
		ids, err := c.Select("default", []Matcher{{Name: "pod", Value: labels[i][9].Value}}, nil)
		if err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			ls, ok := c.Labels(id, nil)
			var s Snapshot
			if !ok || !c.Snapshot(id, 0, 1<<40, &s) {
				continue
			}
			k := slices.IndexFunc(labels, func(l []Label) bool { return slices.Equal(l, ls) })
			for it := s.Iterator(); it.Next(); {
				if x := it.At(); x.V != value(k, x.T) {
					t.Errorf("series %d at %d reads %x", k, x.T, x.V)
				}
				reads.Add(1)
			}
		}
	})
	run(func(rnd *rand.Rand) {
		m.SetBudget(m.Used() - int64(rnd.IntN(3)*m.RegionBytes()))
		m.SetBudget(6 << 20)
		drops.Add(1)
		c.Maintain()
		time.Sleep(2 * time.Millisecond)
	})
	// Until everything has happened often enough, on however slow a machine.
	enough := func() bool {
		st := c.Stats()
		return reads.Load() >= 1000 && drops.Load() >= 20 && st.Reclaimed > 0 && st.Evictions > 0 && st.Mended > 0
	}
	for deadline := time.Now().Add(3 * time.Minute); !enough() && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	st := checkCache(t, c)
	if !enough() {
		t.Errorf("too little happened: %d reads, %d drops, %d full, %+v", reads.Load(), drops.Load(), full.Load(), st)
	}
}
