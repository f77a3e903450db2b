// Package kvcache is memory that can be taken away: regions outside the Go
// heap under one budget, PackedTables in them for arrays and records, and a
// cache of keys and values that may lose any part of itself at any time.
//
// # Problem
//
// Most machines have gigabytes that nobody needs at the moment. A cache could
// use them, if it gave them back in the time in which a neighbour asks for
// them: at once, without first scanning, copying or flushing what they hold.
// Entries on a garbage-collected heap cannot be given back like that, and cost
// the collector time as long as they live. So everything here, indexes
// included, lies in mmapped memory without a Go pointer in it, and any region
// of it may vanish between two calls. What was in it reads as a miss: never as
// an error, never as another key's data, never as a fault.
//
// # Terms
//
//	region   a piece of the reserved address space, 4 KiB to 4 MiB
//	span     memory outside regions that grows by pages and goes with its owner only:
//	         indexes, and the containers of package offheap
//	table    a PackedTable: a region filled from its start with entries
//	entry    8 bytes of header and a value; a record is the entry of a
//	         key and its value
//	ref      the address of an entry, with the epoch of its region
//	place    a shard's own number for one of its regions; 32-bit refs count them
//	line     64 bytes of an index: 12 tags, frequencies, 32-bit refs
//	dead     bytes of freed entries whose region still lives
//	spare    a region without an owner that still has its pages
//	reclaim  to take a region from its owner, with what is in it
//	log      regions in order of age; a shard of a Cache has two
//	probation the log of records that were not read since they were written
//	lasting  the log of those that were, or that came back
//	ghost    12 bits of the hash of a record that probation dropped unread
//	ageing   to take a region because a writer needs room; what is still read
//	         is written again
//	budget   bytes permitted now, for regions and indexes together
//	account  who holds regions and indexes: one has a share of the budget
//	pinned   of a region: its owner has refused to part with it, for now
//
// # Picture
//
//	Memory       one reservation of address space, one budget
//	             ┌────────┬────────┬────────┬────────┬─ ─ ─
//	             │region 0│region 1│region 2│ spare  │ never used
//	             └───▲────┴───▲────┴───▲────┴────────┴─ ─ ─
//	 oldest first:   └── age list of each class and account ──▶ youngest
//
//	Tables       one shard's regions of one class     header (8) │ value
//	             current ──▶ ├──────┼───────────┼──────┤ fill        free
//
//	Cache        shards, by the lowest bits of the key's hash, a lock each
//	  shard      two logs, each a Tables (logs.go)
//	             a directory of indexes, by the next bits, each in a Span
//	    index    home line, by the upper half of the hash, and one other line
//	             ┌ 12 tags ────┬ freq ┬ away ┬ 12 refs ───────────────────┐
//	             │ 7 bits + 1  │ 24 b │ 8 b  │ place and unit, 32 bits    │
//	             └─────────────┴──────┴──────┴────────────────────────────┘
//
// # What goes first
//
// A writer that needs room, and a budget that falls, take in this order:
//
//	1  spare regions: they hold nothing
//	2  dead bytes, but for SetBudget, which has no time to copy what is between
//	   them: owners compact before they ask for others' regions
//	3  Log regions by age, whatever they hold and whoever's they are: sealed
//	   blocks of series, what was evicted of series, clients' values. Before
//	   that, the oldest Log regions of accounts that hold more than their share
//	   (share.go). A writer keeps what is still read of them; SetBudget does not.
//	   A region is as old as its first entry, or as the last time that its owner
//	   renewed it while it was being filled (Tables.RenewOpen)
//	4  Hot regions in the same order: heads of series, which are written, and
//	   their blocks that are not full. One of the older half is renewed when an
//	   entry is put into a dead place of it
//	5  whole owners, when the indexes alone are more than the budget
//
// Of a Cache, it is the shard that says which of its regions goes when one is
// asked for, and logs.go how it chooses.
//
// Regions whose owners refuse, because they hold what is nowhere else yet, are
// passed over until Unpin. Each choice looks at the head of one list for each
// account. mcache's TestReclaimOrder holds all of it to this.
//
// # Invariants, and why they hold
//
// A ref reads its own entry or nothing. A region's epoch goes up, under the
// owner's lock, when the owner lets go of it; a Ref has the epoch it was made
// with. A 32-bit ref in an index has no room for one. It names a place, which
// is emptied when its region goes, and is given to another region only after a
// pass over all indexes of the shard has erased every ref to it (places.go).
// Records are checked by key besides.
//
// live + dead + free is the region size, for every table. The sums are kept
// with every call and Check counts them again; a region without live entries
// is let go of at once.
//
// Reclaim takes the same time for any number of entries. Drop changes sums
// that the table keeps, empties one place and raises one epoch. Refs go stale
// by the thousand and are erased later: by the insert that needs the slot, by
// passes, by resizing.
//
// SetBudget returns with the memory gone: pages are returned by MADV_DONTNEED,
// region by region, at 10 GiB/s and more. MADV_FREE would be faster, and would
// leave the pages in our account until the kernel is short.
//
// A writer never fails because the cache is full. It evicts and tries again,
// without holding a lock meanwhile. One region of the budget is kept for what
// compaction and ageing move, so that both work when all else is in use; while
// SetBudget is at work a writer takes the place of one old region and leaves
// the others to it. A supplier has regions ready before they are needed.
//
// Locks: Memory.mu is a leaf. A shard may call Memory with its lock held;
// Memory calls owners with none. So no writer evicts under its shard's lock.
// GetMany and PutMany hold several shards' locks, taken in order of numbers.
//
// A record is in the one line that its hash gives or in the one other that this
// and its tag give, whichever way round (index.go): two lines and one record
// are all that is ever read, room is made by moving refs without reading what
// they point to, and a line knows whether any of its own are away, so that
// most misses read one line. Homes grow with the hash, at any number of lines:
// a Scan goes by hash, and what stays is seen whatever else moves.
//
// # Cost
//
// An entry costs 8 bytes of header and 6.8 to 8.6 bytes of index, 1.0 to 1.3 of
// them ghosts, 15.5 in all at 1 Mi entries, and up to 7 of padding; nothing on the
// heap. There are two open regions for each shard, half empty on average:
// shards × region size is at most a 128th of the budget. An index moves as a whole when it grows, under
// its shard's lock: it is split at some 22 Ki records, 1 to 3 ms.
//
// # Figures
//
// Two cores of an Intel Xeon, virtual; Go 1.26. 21 November 2026, nothing else
// ran. Processor time per call in ns of
//
//	go test -run '^$' -bench 'Store|PutNew' -benchtime 500000x ./kvcache
//
// with 1 Mi entries of 16-byte keys and 64-byte values, one goroutine / two:
//
//	             get hit     get miss    overwrite   put new
//	kvcache      356 / 457   120 / 194   348 / 436   402 / 458
//	fastcache    578 / 512   113 / 133   340 / 532   283 / 538
//	like Dory    597 / 617   192 / 251   692 / 984   436 / 556
//
// In runs of 16 keys (-bench Many) GetMany takes 160 where 16 Gets take 260, and
// PutMany 157 where Puts take 340.
//
// Both of a hit's accesses miss the processor's caches, and are 97 % of its
// time. An overwrite reads the record that it replaces, which fastcache does
// not: it writes a second one. A load of 86 % in place of 92 made no call
// measurably faster and cost 1.5 bytes an entry.
//
//	-bench Overhead       15.5 bytes an entry, 7.5 of them index
//	-bench Reclaim$       33 GiB/s given back, 4 KiB pages, 1 KiB values
//	-bench ReclaimDelay   slowest of others' calls 6 to 12 ms meanwhile, 1 to 7 ms without
//	-bench ForcedGC       0.42 ms with 10 Mi entries, 0.43 ms with none
//
// # Ancestors
//
// The idea is Dory's: a cache in anonymous memory that can disappear. What is
// different here: Dory finds entries by a Go map from key to place, some 100
// bytes an entry that the collector walks; here it is 15 that it never sees.
// Dory deletes every key of a table that goes, here they go stale at once.
// Dory moves an entry to the youngest table when it is read; here it is
// counted, and moved when its region ages out. Dory looks at the machine once
// a second; see package pressure. Segments that age as a whole, and eviction
// that merges what is still read, are known from Pelikan's segcache; two logs,
// ghosts, and the frequency bits and their use from S3-FIFO; two lines of which one follows
// from the other, from cuckoo filters.
package kvcache
