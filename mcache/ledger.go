package mcache

import (
	"sync/atomic"

	"mcached/kvcache"
	"mcached/kvcache/offheap"
)

// ledger is what a shard knows of points that a downstream store has not got;
// writeback.go has the design. What is published is as of the last unlock or
// Settle.
type ledger struct {
	dirt       offheap.Vector[dirt] // by id, as all three
	outOfOrder offheap.Vector[outOfOrder]
	marks      offheap.Vector[mark]

	dirty          int64    // points
	returns        uint32   // how many runs were in flight and came back, over and over
	flightHoles    bool     // a series that is in flight was removed
	flight         []outRun // that are on their way, by id; views of an Outgoing
	cleanBefore    uint32   // no region that was written to last before this tick holds a dirty point
	dirtyPublished atomic.Int64
	oldestDirty    atomic.Uint32 // tick, 0 if nothing is
}

func newLedger(m *kvcache.Memory) ledger {
	return ledger{dirt: offheap.NewVector[dirt](m), outOfOrder: offheap.NewVector[outOfOrder](m), marks: offheap.NewVector[mark](m), cleanBefore: 1}
}
