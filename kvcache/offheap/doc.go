// Package offheap has four containers whose memory is spans of a
// kvcache.Memory: within its budget, outside the Go heap, without a pointer in
// them, so that the collector never walks what they hold.
//
//	Vector   values of one type by number, only added to
//	Arena    bytes by offset, only added to
//	Lookup   ids by 32-bit tags; whether one is meant, the caller verifies
//	Tally    counts by 64-bit hashes
//
// An index is made of them: mcache keeps descriptors of series in Vectors,
// text and postings in Arenas, and finds both by Lookups.
//
// Memory: each grows by whole pages, and needs the old and the new size at once
// only where it has to move (Lookup, Tally). What cannot grow returns an error
// that is kvcache.ErrNoMemory and is as it was. Free gives everything back; the
// container is then empty and can be used again.
//
// Views: what At, All and From return is memory of the container. It is valid
// until the next call that may grow or free it, and never on the Go heap.
//
// Concurrency: a container belongs to one owner, and is used under that one's
// lock. Only Tally has a lock of its own.
package offheap
