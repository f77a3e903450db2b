// Package index finds the series of one shard by their labels: a dictionary of
// names and pairs, the pairs of each series, and a posting for each pair; and
// matchers, which are turned into sets of series.
//
// # Terms
//
//	name     a label's name, by number
//	pair     a name and a value, by number
//	set      the pairs of one series (PutSet); whole, or derived from one that is (pairs.go)
//	Set      the type: a bitmap of numbers
//	posting  the ids of the series that have a pair
//	pending  of ids: not put in a posting yet, as those of the series posted last (postings.go)
//	dead     of a series: it is gone, and its id is a tombstone in postings
//	live     how many series have a pair and are not dead
//	own      of a pair: the pair of the bucket that all its series are of (Own)
//	answer   what is remembered of a regular expression: the pairs it matches
//
// # Picture
//
//	name   ─▶ text, its pairs, chained
//	pair   ─▶ name, text of the value, live, posting, the bucket if it is one
//	series ─▶ its pairs, 4 bytes each, or a base and the pairs that differ from it
//	posting   first id │ steps and runs, in chunks that grow by half (postings.go)
//
// All of it is in containers of package offheap: within the budget, without a
// pointer. Only answers are on the heap, at most 64 KiB of them (answers.go).
//
// # Invariants
//
// Nothing is taken out but by Free. Numbers of names and pairs are given in
// order and never again, which is what answers build on. A series that is
// removed is taken off the live counts (Unpost); its id must not be given to
// another one before the index was written anew without it (New, and Copy of
// each pair that is still used). Who adds (AddName, AddPair, PutSet, Post) is
// told of missing memory before anything that counts has changed.
//
// Ids that follow one another come to a posting together. Until then they are pending,
// as is what they add to the live count of the pair, and there is room for them. Who reads
// either settles them first.
//
// Match begins with the rarest condition that a series must meet, and narrows
// what that finds by the others: by their postings, or, once few are left, by
// the pairs of each. Whether a series is dead the caller knows.
//
// Two names are no labels: BucketName, whose value is the bucket, and RawName,
// whose value is a key of the raw API.
//
// Views: texts and sets are memory of the index, valid until the next call that
// adds, and a set until that of another is asked for. Concurrency: an Index is used under its shard's lock.
//
// # Cost
//
// A pair is 44 bytes, 11 to 16 of lookup and its text; a label that a series
// shares with those that were made before it is next to nothing, in its set and in a
// posting; any other is 4 bytes in a set, of which there are 4 more for each series, and
// 1.3 to 1.7 in a posting.
package index
