// Package mcache is a three-generation cache of time series that mends gaps.
//
// # The problem
//
// Metrics arrive mostly in order, seldom twice, now and then out of order, from
// many series at once, and most are read within hours if ever. A store for them
// should take a sample in tens of nanoseconds, keep it in about a byte, merge
// one that is out of order, and evict the right ones when memory runs out.
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
// What is stored:
//
//	sample       a time in ms and a 64-bit value, of which every pattern is legal
//	record       a time in ms and a value of bytes, such as a native histogram
//	point        a sample or a record; a series has one for each time
//	start time   when a counter began to count; it comes with a sample and is kept
//	             as a point of a hidden series, the shadow
//	label, pair  a name and a value; a pair is one in the dictionary of a shard
//	series       the points of one label set, or of one key, within a bucket
//	key          names a series of the raw API (raw.go), which has no labels
//	bucket       a tenant: series, limits and ages of its own
//	width        bytes of a point in a bucket: 8 for values of the raw API at
//	             consecutive offsets, 16 for times and values
//	fingerprint  128 bits of hash that identify a label set or a key in a bucket
//	batch        points of many series that are written together (Batch)
//	grid, step   times at a fixed distance, and that distance in ms
//
// Where it lies:
//
//	shard        the series whose fingerprints lead there, under one lock
//	descriptor   the 128 bytes in which a shard keeps what it knows of a series
//	id           the number of a descriptor in its shard; a SeriesID also says
//	             which shard, and by life which of the series that had that id
//	lookup       a hash table from a part of the fingerprint to an id
//	             (offheap.Lookup); package query calls requests for labels so
//	chunk        points of one series that lie together: a head, a block, or
//	             records
//	head         the chunk that is written: an array of slots
//	slot         room for a value in a head, with a presence bit that says whether
//	             it is there
//	block        up to 128 samples, encoded (package block)
//	sealed       encoded as a block. A block is partial until it is full
//	section      one of the blocks that a partial block consists of
//	open         of a block of out-of-order samples: not encoded, with room for more
//	directory    the start and the address of each block, or chunk of records
//	address      a kvcache.Ref: what it points to, or nothing once that is gone
//	region       the unit in which memory is taken away (package kvcache); Hot ones
//	             hold heads or partial blocks, Log ones full blocks and blobs, Fixed
//	             ones directories
//	dictionary   names and values of labels, each once (package index)
//	postings     for each pair, the ids of the series that have it
//	edition      an index from its making to the next, as pairs are numbered in it
//	tombstone    the id of a series that is gone while postings still list it
//
// What happens to it:
//
//	in order     of a point: it is after all points of its series
//	out of order of a point: it is not
//	mend         to merge out-of-order samples into sealed blocks
//	turn         the time in which a shard takes a quarter of what it holds
//	age cycle    the time in which a bucket takes Options.AgeCycle points
//	generation   1, hot, to 3, cold: by the turns and cycles since the last write
//	evict        to choose a series, the coldest first, and remove it whole, or
//	             with Options.Blobs to move it to overflow
//	overflow     evicted series that are still here, compressed, as blobs
//	blob         one series in overflow: all its chunks in one entry
//	restore      to put the blocks of a blob back into the directory
//	reclaim      to take a region, with what is in it
//	prune        to notice, series by series, what was reclaimed
//	gone         of a series: evicted or reclaimed whole. Its bucket remembers
//	             from which time on none is missing (GoneUntil)
//	take, pop    to read a key and remove it; Pop chooses it as eviction does
//	complete     of an answer: nothing of it was evicted or reclaimed, at or
//	             after the time that it names
//	coverage     the intervals of time in which a bucket received all its writes
//	retention    how much of a series, back from its last point, reads show
//
// How it is read and sent on:
//
//	matcher      a condition that one label of a series meets (Matcher)
//	Stamp        a moment in the order of all changes (ChangedSince)
//	Snapshot     a private copy of one series' chunks in a range of time, encoded
//	snapshot     the file that Save writes and Load reads; never a Snapshot
//	run          points of one series in order: those handed on together
//	ChunkStats   counts of chunks, and the first and the last time, of a bucket
//	write-back   handing points on to a slower store, the downstream store
//	dirty        accepted, and not acknowledged by the downstream store; else clean
//	in flight    collected for the downstream store, and not answered yet
//	duty         whose it is to hand points on: this cache's, nobody's, or that of
//	             another, of which this one keeps a copy on standby (standby.go)
//	tick         the caller's clock for write-back, in steps of its own
//	pass         one walk over the dirty series of a shard (Collect)
//	settle       to find, after a pass, which regions hold nothing dirty, and give
//	             up those that were asked for
//	pinned       of a region: it may hold dirty points and is not reclaimed
//
// # Picture
//
//	      fingerprint of the labels ──▶ shard (one lock)
//	                                      │
//	lookup: tag ─▶ id ────────────────────┤
//	                                      ▼
//	descriptor, 128 bytes:  step, presence, generation, sizes, addresses
//	   │                  │                            │
//	   │ head             │ directory                  │ label set
//	   ▼                  ▼                            ▼
//	┌───────────┐   ┌────┬────┬────┬─────┐       pair ids ─▶ dictionary
//	│ raw slots │   │ b0 │ b1 │ b2 │ b3* │            ▲
//	└───────────┘   └─┬──┴─┬──┴─┬──┴──┬──┘         postings
//	 Hot tables       ▼    ▼    ▼     ▼
//	                 blocks of ≤ 128 samples     (package index)
//	                 Log tables       * partial, in Hot ones of their own
//
// Heads are raw arrays of 64 or 192 bytes: a value a slot on a grid of the
// series' step, with a bit each for presence, or (time, value) pairs for what
// is on no grid. What a head cannot take in any form is sealed. A block is
// bit-exact for every input and stores its times exactly (package block). The
// last block of a series is in Hot regions, too, in sections, until it is full. These
// hold no heads: partial blocks grow, those that were sealed in one round in one round
// again, so that their regions die as a whole and little is left to be compacted. Of a
// sender's series some are sealed in each round, though they have the same number of
// samples: of their first heads more or less stays (planFirst).
// Mending decodes a block, merges the samples, and encodes the block again; but
// samples outside of all blocks, as of a sender that catches up, are put into an
// open block between them, and encoded when that is full (openblock.go).
//
// # Invariants, and why they hold
//
// Everything sealed is at or before sealedEnd of its series, everything in its
// head after it; blocks are ordered and disjoint. insertLocked sends what is at or
// before sealedEnd to mendLocked, which works between the starts of neighbouring
// blocks; sealLocked moves whole heads behind the last block.
//
// Absence is kept beside the data: in presence bits, in counts, in stored
// times. Hence every 64-bit pattern is a legal value, and a missing point is
// missing.
//
// A vanished chunk is a miss. Every address is a kvcache.Ref, which is
// compared with its region's epoch at each use; directories are in regions
// that go only with the whole shard. A series is pruned when it is next written,
// read or swept, and remembers the time from which on it is complete.
//
// All that is in a blob is before all the rest of its series, so that a read
// takes one after the other and finds no point twice. An out-of-order point in
// the range of a blob, or a delete, restores the blob first (overflow.go).
//
// Points are conserved; Stats has the equation. Each table counts the points
// of its regions, so that a region that vanishes takes exactly these off what
// is there and adds them to what was reclaimed, without a walk.
//
// Series are counted by bucket and, where that is limited, by metric name, when
// they are made and when they leave, so that Limits hold whatever the shard.
//
// No operation holds the locks of two shards. What shards share (the Memory,
// the counts and ages of buckets, the tally of series by metric name) is atomic
// or has a lock that is a leaf. Append takes the lock of each shard once.
// Functions that may run out of memory report it before they have changed
// anything; their callers let go of the lock, make room, look the series up
// again and retry.
//
// # Generations
//
// A series is in generation 1 + min(2, age of its bucket − age at its last
// write). Ageing is one addition, and a write stores the age. Within a bucket
// and a size class, a power of two of bytes, series are queued by the generation
// that they had when they were listed. Eviction takes the first of a queue that
// still is of that generation, and moves those before it to the queue of theirs
// (roster.go). So the order is exact, at any moment and for any budget: turns
// pass while there is memory, too, and cost a writer nothing. A series is moved
// at most once in two ages, and never while nothing is evicted. Eviction ends
// under the maximum.
//
// The age of a bucket has two parts. An age cycle passes when the bucket took as
// many points as Options say, whatever the size of the cache. A turn passes in a
// shard when it took a quarter of the points that it held when the turn began
// (turn.go). So generation 3 is what got none of the last quarter of the points
// that the memory holds, or of the last half, and is there whenever series end.
// Hence the rule: no series that is written at least once in a turn is evicted
// while one is there that ended a turn ago; however small the cache, however
// many series come and go, and however large those grow that stay. It keeps at
// least as much of its recent past as a series of the same size that ended
// before. TestChurn holds this over budgets, sizes and churn. One thing limits it:
// a blob is as old as the move, up to two turns after its samples, so that it may
// outlive blocks of that time, those of series that are written included.
//
// If the Memory itself is full, series of generation 3 are evicted first, for as
// long as heads take more regions than all that is sealed. Otherwise the oldest
// regions of blocks and blobs are reclaimed, of whichever owner: a region is as
// old as the turn in which it was written last. Series of generations 2 and 1
// are evicted when there are none. Indexes do not shrink with that. Where they
// are two thirds of the budget, as of series of one sample each, a quarter of
// a shard's series goes, the coldest, and its index is written anew without them
// (rebuild.go); where that cannot be and they are three quarters, as when the budget has fallen far, the shard
// with the largest index drops all its series. So a writer is rejected only when
// what is dirty leaves no room.
//
// With Options.Blobs, eviction moves what a series holds into a blob and frees
// its head, blocks and directories. Its descriptor and its postings stay until
// the blob's region is reclaimed. Maintain does the same with the cold series of
// generation 3 when there is little room; a writer that finds nothing but heads
// to evict does it with the series of the oldest region of heads. When a series
// is written again and evicted again, one blob holds both parts. A series
// that has nothing but a blob is evicted whole when the descriptors alone are
// more than the maximum. Why blobs are entries of the shard and no values of a
// kvcache.Cache: see overflow.go.
//
// # Write-back
//
// A cache may stand before a slower store. It then knows which points that
// store has not acknowledged, hands them on as long runs, and neither reclaims
// nor evicts them; writeback.go has the design.
//
// # Snapshots and coverage
//
// Save writes a cache to a file and Load reads it back: saveformat.go has the
// format, loadread.go the reader, which has no cache in it, adopt.go what writes
// its series into one. A bucket knows in which intervals of time it received all
// its writes, across snapshots, stops and crashes; coverage.go has the design.
//
// # Arithmetic
//
// Per series: descriptor 128, lookup 11 to 16, pair ids 4 and 4 for each label that is
// other than in the series made before, postings 1.3 to 1.7 for each of these, dictionary
// according to churn: about 180 bytes for ten labels of 200 bytes of text. A new head
// is 72 bytes, one of a series with more than eight samples 200. Sealing more at once
// would cost less time and more memory: with heads of 256 bytes, a series takes 60 bytes
// more, and a sample 1 % less time.
//
// Per sealed sample of the mix of package mix: 0.79 bytes in the block, and
// 16 + 8 bytes a block of directory and entry header, 0.19: about 1 byte.
//
// Per series in a blob: descriptor, lookup and postings as above, and 20 to 40
// bytes beside its samples, 4 a block. The mix at 150 samples a series
// takes 3.0 bytes a sample live and 1.1 in blobs; moving a series takes 1.4 µs
// (-bench Overflow). Of series that take 60 samples and are then written no
// more, a memory of 64 MiB keeps 4.5 million samples without blobs, at 14.3 bytes
// a sample all in, and 7.6 million with them, at 8.7 (-bench Churn); writing them
// takes no longer, as less is dropped.
//
// Per sample in order: the first cache line of the descriptor, mostly found
// without the lookup (find.go), and the slot: two cache misses that a batch
// overlaps, some 14 ns; and sealing, about as much, because a head becomes a section of its
// block, and a full block is made of the sections, the first three of which are one
// by then: a sample is encoded 2.2 times in the mean and decoded 1.2 times. In order
// before what its series has, where that is, three times as much.
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
