package main

import (
	"log/slog"
	"runtime/debug"
	"slices"
	"testing"
)

// TestLimitHeap: the limit is that of the flag, and without one what it was
// before there was one, however often it is set.
func TestLimitHeap(t *testing.T) {
	before, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetMemoryLimit(before); debug.SetGCPercent(percent) })
	d := &daemon{log: slog.New(slog.DiscardHandler), ownHeapLimit: 777 << 20}
	limit := func(c *config, want int64) {
		t.Helper()
		got := d.limitHeap(c)
		if now := debug.SetMemoryLimit(-1); got != now || want != 0 && got != want || got < minHeapBytes {
			t.Errorf("%d, and %d is in force, want %d", got, now, want)
		}
	}
	t.Setenv("GOMEMLIMIT", "")
	limit(&config{memoryHeap: 100 << 20}, 100<<20)
	limit(&config{}, 0)
	t.Setenv("GOMEMLIMIT", "777MiB")
	limit(&config{memoryHeap: 100 << 20}, 100<<20)
	limit(&config{}, 777<<20)
	if !slices.ContainsFunc(d.applicable(), func(a applicable) bool { return slices.Contains(a.flags, "memory.heap-limit") }) {
		t.Error("a reload does not change it")
	}
}
