package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// How much the heap may grow between two collections when GOGC does not say: half
// of what is alive. What is cached is not on it, so that collecting twice as
// often as by default costs next to nothing, and leaves some MiB to the cache. But
// below leastHeap it is not collected. A daemon that is asked for small things has
// three MiB alive: with half of that it would collect after every thirty answers,
// and each time make the buffers anew that it keeps for the next, a third of what
// these answers cost.
const (
	heapGrowthPercent = 50
	leastHeap         = 10 << 20

	// With this one the runtime itself collects nothing below leastHeap, which is
	// 4 MiB times GOGC; with a higher one nothing below a larger heap.
	mostHeapGrowthPercent = 250
)

// paceCollectionsOnce is for a process, whatever the number of its daemons.
var paceCollectionsOnce = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		paceCollections()
	}
})

// paceCollections sets GOGC anew after each collection, for as long as the process
// lives: the runtime knows a percentage only.
func paceCollections() {
	percent := heapGrowthPercent
	debug.SetGCPercent(percent)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	afterEachCollection(func() {
		metrics.Read(live)
		// To set it stops the world, so a little more or less is left as it is.
		if p := growthPercent(live[0].Value.Uint64()); p < percent-percent/4 || p > percent+percent/4 {
			percent = p
			debug.SetGCPercent(p)
		}
	})
}

// growthPercent is GOGC for a heap of which so many bytes are alive.
func growthPercent(live uint64) int {
	live = min(max(live, 1), leastHeap)
	return int(min(max((leastHeap-live)*100/live, heapGrowthPercent), mostHeapGrowthPercent))
}

// afterEachCollection calls f soon after each collection, never twice at once.
func afterEachCollection(f func()) {
	type unreachable struct{ _ *byte } // with a pointer it shares its memory with no other
	runtime.AddCleanup(new(unreachable), func(struct{}) {
		f()
		afterEachCollection(f)
	}, struct{}{})
}
