package mcache

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestRetention hides what is older than so much before the last point, of
// samples in heads, in blocks and in blobs, for whoever reads it.
func TestRetention(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1, Blobs: true})
	const n, step = 1000, 10
	a, b := name("a"), name("b")
	write := func(labels []Label, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if err := c.AppendSamples("v", labels, Sample{T: int64(i) * step, V: math.Float64bits(float64(i))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	shows := func(what string, labels []Label, from, to int) {
		t.Helper()
		got := readAll(t, c, "v", labels, -MaxTime, MaxTime)
		if len(got) != to-from || got[0].T != int64(from)*step || got[len(got)-1].T != int64(to-1)*step {
			t.Errorf("%s: %d samples %v, want those from %d to %d", what, len(got), got[:min(len(got), 3)], from, to)
		}
	}
	c.SetRetention("v", c.Fingerprint(a), 300*step) // before there is such a series
	write(a, 0, n)
	write(b, 0, n)
	shows("a", a, n-301, n)
	shows("b, which has none", b, 0, n)
	c.SetRetention("w", c.Fingerprint(b), step)
	shows("b, which has one in another bucket", b, 0, n)
	c.SetRetention("v", c.Fingerprint(a), 5*step)
	shows("a, less", a, n-6, n)
	write(a, n, n+2)
	shows("a, written", a, n-4, n+2)
	c.SetRetention("v", c.Fingerprint(a), math.MaxInt64)
	shows("a, the longest", a, 0, n+2)
	c.SetRetention("v", c.Fingerprint(a), 300*step)
	if got := readAll(t, c, "v", a, 0, 500*step); len(got) != 0 {
		t.Errorf("a, beyond: %d samples", len(got))
	}
	evictAll(t, c)
	if st := c.Stats(); st.BlobsWritten < 2 {
		t.Fatalf("not all is in blobs: %+v", st)
	}
	shows("a in a blob", a, n-299, n+2)
	shows("b in a blob", b, 0, n)
	c.SetRetention("v", c.Fingerprint(a), 0)
	c.SetRetention("w", c.Fingerprint(b), 0)
	shows("a, all again", a, 0, n+2)
	if c.retained.some.Load() || len(c.retained.ms) > 0 {
		t.Error("something is left")
	}
}

// A retention that waits until its change is noted keeps no reader of a shard waiting:
// who notes changes waits for shards.
func TestRetentionWhileChangesAreAsked(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1})
	labels := name("a")
	if err := c.AppendSamples("b", labels, Sample{T: 1, V: 1}); err != nil {
		t.Fatal(err)
	}
	s := c.shards[0]
	var wg sync.WaitGroup
	defer wg.Wait()
	s.mu.Lock() // as a reader has it
	defer s.mu.Unlock()
	await := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !is(); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatal("not within a minute: " + what)
			}
		}
	}
	wg.Go(func() { c.ChangedSince("b", 0) })
	await("changes are asked for", func() bool {
		if c.changes.mu.TryLock() {
			c.changes.mu.Unlock()
			return false
		}
		return true
	})
	wg.Go(func() { c.SetRetention("b", c.Fingerprint(labels), 5) })
	await("a retention is set", c.retained.some.Load)
	await("the reader may look at it", func() bool {
		if !c.retained.mu.TryRLock() {
			return false
		}
		c.retained.mu.RUnlock()
		return true
	})
}
