package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The neighbour comes stormCycles times, stormStep more each time, so that it takes
// something from the daemon every few times.
const (
	stormCycles = 50
	stormFirst  = 40 * neighbourChunk
	stormStep   = 2 * neighbourChunk
)

// TestE2EStorm: a neighbour in the same control group takes memory and gives it
// back, time after time, while samples come as fast as they can, someone asks,
// and the receiver behind is away for a while. Nobody is killed, every query is
// answered, and every sample that was acknowledged arrives.
func TestE2EStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("what the cycles of a neighbour cost is what they are for")
	}
	t.Parallel()
	r := newReceiver(t)
	within := memoryGroup(t, squeezeLimit)
	s := startServerBy(t, within, "--memory.size=0", "--memory.keep-available="+squeezeKeep, "--memory.heap-limit=64MiB", "--self-scrape.interval=0",
		"--forward.url="+r.url(), "--forward.max-dirty-age=2s")
	initial := s.metric("mcached_memory_budget_bytes")

	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	var asked, failures, slowest atomic.Int64
	busy.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := s.instant(`count(fed)`); err != nil && ctx.Err() == nil && failures.Add(1) <= 5 {
				t.Errorf("query: %v", err)
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			asked.Add(1)
			time.Sleep(10 * time.Millisecond)
		}
	})
	f := newFeed("fed", 300)
	st := f.start(s, 5*time.Millisecond)
	c := s.redis()
	busy.Go(func() { // what fills the memory
		writeBlobs(ctx, c, func(err error) {
			if err != nil && ctx.Err() == nil && failures.Add(1) <= 5 {
				t.Errorf("SET: %v", err)
			}
		})
	})
	eventually(t, "the budget is used up", func() error {
		if used := s.metric("mcached_memory_used_bytes"); used < initial*7/10 {
			return fmt.Errorf("%v of %v bytes", used, initial)
		}
		return nil
	})

	near := startNeighbour(t, within)
	for cycle := range stormCycles {
		near.take(s, stormFirst+cycle*stormStep)
		near.hold(0)
		switch cycle {
		case stormCycles / 3:
			r.feel(answers(500))
		case stormCycles / 2:
			eventually(t, "the receiver's absence is noticed", func() error {
				if r.faults.Load() == 0 {
					return errors.New("nothing was sent to it")
				}
				return nil
			})
			r.feel(nil)
		}
	}
	s.alive()
	st.end(t)
	s.forwarded(t)
	releases := s.metric("mcached_pressure_releases_total")
	t.Logf("%d points acknowledged, %d writes rejected, %d queries, the slowest %v, %d failures; %v releases, budget %d MiB of %d",
		f.acked.len(), f.refused, asked.Load(), time.Duration(slowest.Load()), failures.Load(), releases,
		int64(s.metric("mcached_memory_budget_bytes"))>>20, int64(initial)>>20)
	if n := f.acked.missing(&r.book, nil); n > 0 {
		t.Errorf("%d of %d points are missing", n, f.acked.len())
	}
	if v := s.metric(`mcached_forward_samples_total{result="rejected"}`); v != 0 || r.faults.Load() == 0 || releases < 3 || f.acked.len() < 10_000 {
		t.Errorf("no storm, or %v points rejected", v)
	}
}
