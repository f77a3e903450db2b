// Package mcache is a three-generation cache of time series that mends gaps.
//
// # The problem
//
// Metrics come in mostly in order, seldom twice, now and then late, from many
// series at once, and most are read within hours if ever. A store for them
// should take a sample in tens of nanoseconds, keep it in about a byte, put a
// late one where it belongs, and give up the right ones when memory runs out.
//
// DalmatinerDB's mcache did that for arrays of 64-bit values: keys that are
// written stay hot, others cool through three generations, eviction takes the
// largest of the coldest, and gaps between arrays close as they fill. This
// package continues it, with series that have labels and times, and with all
// it holds in regions of a kvcache.Memory, any of which may vanish between two
// calls. It knows no protocol.
//
// # Terms
//
// A sample is a time in ms and a 64-bit value; a record is a time and bytes; a
// point is either. A series is the points of one label set, or of one key of
// the raw API, within a bucket (a tenant). A chunk is a run of points that lie
// together: the head of a series, which is still written, or a sealed block.
// To mend is to bring a late point into the sealed block where it belongs. A
// blob is all that eviction took of one series, in one entry.
//
// # Picture
//
//	      fingerprint of the labels ──▶ shard (one lock)
//	                                      │
//	lookup: tag ─▶ id ────────────────────┤
//	                                      ▼
//	series record, 128 bytes:  step, presence, generation, sizes, places
//	   │                  │                            │
//	   │ head             │ directory                  │ label set
//	   ▼                  ▼                            ▼
//	┌───────────┐   ┌────┬────┬────┬─────┐       pair ids ─▶ dictionary
//	│ raw slots │   │ b0 │ b1 │ b2 │ b3* │            ▲
//	└───────────┘   └─┬──┴─┬──┴─┬──┴──┬──┘         postings
//	 Hot tables       ▼    ▼    ▼     ▼
//	                 blocks of ≤ 128 samples          spans
//	                 Log tables       * partial, with the heads
//
// Heads are raw arrays of 128 or 256 bytes: a value a slot on a grid of the
// series' step, with a bit each for presence, or (time, value) pairs for what
// is on no grid. What a head cannot take in any form is sealed. A block is
// bit-exact for every input and stores its times exactly (see block.go); the
// last block of a series stays among the heads, in sections (see sections.go),
// until it is full. A late sample unseals its block, is merged, and the block is
// sealed again.
//
// # Invariants, and why they hold
//
// Everything sealed is at or before sealedEnd of its series, everything in its
// head after it; blocks are ordered and disjoint. insert sends what is at or
// before sealedEnd to mend, which works between the starts of neighbouring
// blocks; seal moves whole heads behind the last block.
//
// Absence is kept beside the data: in presence bits, in counts, in stored
// times. Hence every 64-bit pattern is a legal value, and a missing point is
// missing.
//
// A vanished chunk is a miss. Every address is a kvcache.Ref, which is
// compared with its region's epoch at each use; directories are in regions
// that go only with the whole shard. A series notices when it is next written,
// read or swept (prune), and remembers from when on it is complete.
//
// All that is in a blob is before all the rest of its series, so that a read
// takes one after the other and finds no point twice. A late point in the range
// of a blob, or a delete, takes it apart first (overflow.go).
//
// Points are conserved; Stats has the equation. Each table counts the points
// of its regions, so that a region that vanishes takes exactly these off what
// is there and adds them to what was reclaimed, without a walk.
//
// Series are counted by bucket and, where that is limited, by metric name, when
// they are made and when they leave, so that Limits hold whatever the shard.
//
// A shard shares nothing else with others, so no operation takes the locks of two, and
// Append takes each shard's once. Functions that may run out of memory report
// it before they have changed anything; their callers let go of the lock, make
// room, look the series up again and retry.
//
// # Generations
//
// A series is in generation 1 + min(2, age of its bucket − age at its last
// write). Ageing is one addition. Within a bucket and a size class, a power of
// two of bytes, series are listed by their last age, so that the candidates of
// eviction stand at the heads of the lists. Eviction ends under the maximum.
//
// The age of a bucket has two parts. An age cycle passes when the bucket took as
// many points as Options say, whatever the size of the cache. A turn passes in a
// shard when it took a quarter of the points that it held when the turn began
// (turn.go). So generation 3 is what got none of the last quarter of the points
// that the memory holds, or of the last half, and is there whenever series end.
// Hence the rule: no series that is written at least once in a turn makes way
// while one is there that ended a turn ago; however small the cache, however
// many series come and go, and however large those grow that stay. It keeps at
// least as much of its recent past as a series of the same size that ended
// before. TestChurn holds this over budgets, sizes and churn.
//
// If the Memory itself is full, generation 3 gives up its heads first, for as
// long as heads take more regions than all that is sealed. Otherwise the oldest
// sealed blocks and blobs of all series go first, being the oldest data: a
// region is as old as the turn in which it was written last. Keys of
// generations 2 and 1 are evicted when there are none. Indexes
// do not shrink with that. Where they are three quarters of the budget, as when
// that has fallen far, the shard with the largest forgets all its series. So a
// writer is refused only when what is dirty leaves no room.
//
// With Options.Blobs, eviction moves what a series holds into a blob and frees
// its head, blocks and directories; its record stays, with its place in the
// index, until the blob's region goes. Maintain does the same with the cold
// series of generation 3 when there is little room, and a writer that finds
// nothing but heads with the series of the oldest region of these. Evicted again, a series has
// one blob again, of both lives. Only a series that has nothing but a blob
// leaves, when the records alone are more than the maximum. Why blobs are
// entries of the shard and no values of a kvcache.Cache: see overflow.go.
//
// # Write-back
//
// A cache may be the way to a slower store. It then knows which points that
// store has not acknowledged, gives them out as long runs, and neither reclaims
// nor evicts them; writeback.go has the design.
//
// # Snapshots and coverage
//
// Save writes a cache to a file and Load reads it back: saveformat.go has the
// format, loadread.go the reader, which has no cache in it, adopt.go what writes
// its series into one. A bucket knows of which times it has all that was written
// to it, across snapshots, stops and crashes; coverage.go has the design.
//
// # Arithmetic
//
// Per series: record 128, lookup 11 to 16, pair ids 4 a label, postings 1.3 to
// 1.7 a label, dictionary according to churn: about 235 bytes for ten labels
// of 200 bytes of text. A new head is 136 bytes, one of a long-lived series
// 264. With twice that, heads would be the largest part of a cache of hours
// (1,440 instead of 1,130 bytes a series at 240 samples).
//
// Per sealed sample of the mix in gen_test.go: 0.79 bytes in the block, and
// 16 + 8 bytes a block of directory and entry header, 0.19: about 1 byte.
//
// Per series in a blob: the record and its place in the index as above, and 20
// to 40 bytes beside its samples, 4 a block. The mix at 150 samples a series
// takes 3.0 bytes a sample live and 1.1 in blobs; moving a series takes 1.4 µs
// (-bench Overflow). Of series that take 60 samples and are then written no
// more, a memory of 64 MiB keeps 4.5 million samples without blobs, at 14.3 bytes
// a sample all in, and 7.6 million with them, at 8.7 (-bench Churn); writing them
// takes no longer, as less is dropped.
//
// Per sample in order: the first line of the record, mostly found without the
// lookup (find.go), and the slot: two cache misses that a batch overlaps, some
// 14 ns; and sealing, about as much, because a head becomes a section of its
// block, and a full block is made of the sections: a sample is encoded twice
// and decoded once.
//
// # Differences from the ancestor
//
// Its zero-fill of gaps is gone, as are its double booking of allocations,
// eviction at half the maximum, one eviction an insert, the length limits that
// cut keys, and the 8-byte check of 16-byte points. Blocks replace linked
// lists of arrays; a directory finds the block for a time by binary search.
// A read moves nothing between generations, as there. See Options for what
// became of its options.
package mcache
