package query

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestSlots: with whatever happens in between, no turn begins while as many are
// under way as there are, and all that there are can.
func TestSlots(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	n, taken, refused := 3, 0, 0
	s := newSlots(n)
	for range 20_000 {
		switch rnd.IntN(5) {
		case 0:
			n = 1 + rnd.IntN(8)
			s.set(n)
		case 1, 2:
			if taken > 0 {
				s.leave()
				taken--
			}
		default:
			select {
			case <-s.free:
				if taken++; taken > n {
					t.Fatalf("seed %d: %d of %d", seed, taken, n)
				}
			default:
				if refused++; taken < n {
					t.Fatalf("seed %d: %d of %d, and no more", seed, taken, n)
				}
			}
		}
		if s.taken() != taken || s.total() != n {
			t.Fatalf("seed %d: %d of %d, want %d of %d", seed, s.taken(), s.total(), taken, n)
		}
	}
	if refused == 0 {
		t.Error("there was always one")
	}
}

// TestAnyConcurrency: what a flag takes is no reason to hang.
func TestAnyConcurrency(t *testing.T) {
	a := NewAPI(lateCache(t), Options{MaxConcurrency: math.MaxInt})
	a.SetLimits(Options{MaxConcurrency: math.MaxInt})
	if n := a.asked.slots.total(); n != maxSlots {
		t.Errorf("%d at a time", n)
	}
}

// TestSetLimitsEffect: the lookback and the number of queries at a time are those
// that were set last.
func TestSetLimitsEffect(t *testing.T) {
	a := NewAPI(lateCache(t), testOptions())
	value := `"result":[{"metric":{"__name__":"m"}`
	if w := get(t, a, "query", "query", "m", "time", seconds(t0+600_000+60_000)); !strings.Contains(w.Body.String(), value) {
		t.Errorf("a minute later: %s", w.Body)
	}
	a.SetLimits(Options{LookbackDelta: 30 * time.Second, MaxConcurrency: 3})
	for _, path := range []string{"query", "query_range"} {
		at := seconds(t0 + 600_000 + 60_000)
		if w := get(t, a, path, "query", "m", "time", at, "start", at, "end", at, "step", "1"); !strings.Contains(w.Body.String(), `"result":[]`) {
			t.Errorf("a minute later, with half a minute of lookback: %s", w.Body)
		}
	}
	for _, g := range []*gate{a.queries, a.reads, a.lookups} {
		if g.slots.total() != 3 {
			t.Errorf("%d at a time", g.slots.total())
		}
	}
}
