package mcache

// counts is what became of the points of a shard, each counted once, and what
// the shard did with series; see Stats for the equation.
type counts struct {
	inserted, overwritten, mended                 uint64
	evicted, taken, popped, removed, lost, erased uint64
	evictions, rebuilds                           uint64
	blob                                          blobCounts
}
