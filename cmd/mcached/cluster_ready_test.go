package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mcached/ingest/cluster"
)

// A member that joins waits for those that send it something, and for nobody who
// does not.
func TestAwaitHandover(t *testing.T) {
	t.Parallel()
	never := errors.New("it does not answer")
	since := func(d time.Duration) func(time.Time) bool {
		return func(began time.Time) bool { return time.Since(began) >= d }
	}
	type peer struct {
		done   func(began time.Time) bool // nil: never
		gone   func(began time.Time) bool // from the table; nil: never
		silent func(began time.Time) bool // nil: never
	}
	for _, c := range []struct {
		name   string
		peers  map[string]peer
		whole  bool
		atLast time.Duration // it takes so long, but for the last round
	}{
		{"nobody", nil, true, 0},
		{"two, one after the other", map[string]peer{"a": {done: since(3 * time.Second)}, "b": {done: since(9 * time.Second)}}, true, 9 * time.Second},
		{"one that dies", map[string]peer{"a": {done: since(time.Second)}, "b": {gone: since(12 * time.Second)}}, true, 12 * time.Second},
		{"one that stands still", map[string]peer{"a": {done: since(time.Second)}, "b": {silent: since(0)}}, true, handoverSilent},
		{"one that stood still for a moment", map[string]peer{"a": {done: since(20 * time.Second), silent: func(began time.Time) bool { return time.Since(began) < handoverSilent/2 }}}, true, 20 * time.Second},
		{"one that never ends", map[string]peer{"a": {}}, false, handoverFor},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				is := func(f func(time.Time) bool) bool { return f != nil && f(began) }
				whole := awaitHandover(t.Context(), func() (all []cluster.Member) {
					for id, p := range c.peers {
						if !is(p.gone) {
							all = append(all, cluster.Member{ID: id})
						}
					}
					return all
				}, func(ctx context.Context, m cluster.Member) (bool, error) {
					if is(c.peers[m.ID].silent) {
						<-ctx.Done()
						return false, never
					}
					return !is(c.peers[m.ID].done), nil
				})
				took := time.Since(began)
				if whole != c.whole || took < c.atLast || took > c.atLast+handoverAsk+2*handoverAnswer {
					t.Errorf("%t after %v, want %t after %v", whole, took, c.whole, c.atLast)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if awaitHandover(ctx, func() []cluster.Member { return []cluster.Member{{ID: "a"}} }, func(context.Context, cluster.Member) (bool, error) { return true, nil }) {
		t.Error("whole, though it was stopped")
	}
}

// It waits for Redis keys while any come.
func TestAwaitKeys(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		last time.Duration // that something comes
		done time.Duration // when all is there
		all  bool
		took time.Duration
	}{
		"nothing is promised":      {0, 0, true, 0},
		"all come":                 {time.Hour, time.Hour, true, time.Hour},
		"the sender stands still":  {time.Minute, time.Minute + keysSilent/2, true, time.Minute + keysSilent/2},
		"the sender sends no more": {time.Minute, time.Hour, false, time.Minute + keysSilent},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				all := awaitKeys(t.Context(), func() (int, uint64) {
					if time.Since(began) >= c.done {
						return 0, 0
					}
					return 1, uint64(min(time.Since(began), c.last))
				})
				if took := time.Since(began); all != c.all || took < c.took || took > c.took+2*keysLook {
					t.Errorf("%t after %v, want %t after %v", all, took, c.all, c.took)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if awaitKeys(ctx, func() (int, uint64) { return 1, 0 }) {
		t.Error("it has all, though the daemon stops")
	}
}
