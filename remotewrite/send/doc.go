// Package send writes Prometheus remote write, protocols 1.0 and 2.0: what a
// cache holds, to a store behind it.
//
// # What is sent
//
// A Forwarder hands on what the cache holds and no store behind it has
// acknowledged (mcache, write-back):
//
//	cache ──Collect──▶ lane ──runs of many series──▶ Client ──2.0, or 1.0──▶ receiver
//	  ▲                 │ ▲                                                    │
//	  └───Acknowledge───┘ └────────────── again, or cut in two ◀───────────────┘
//
// A lane owns shards and has one request on its way, so points of a series
// keep their order. It looks at each shard eight times while a point grows as
// old as it may, and takes series that have enough points for a block, or one
// that would be too old by the next time but one; with it all that is dirty of
// the series. Where there is little, a request holds what is due of all its
// shards. When memory or the bound on dirty points presses, the cache asks and
// everything goes at once.
//
// Success is what a receiver answers when it has every point: in protocol 2.0
// its counts are what was sent, in 1.0 the answer is 200, 202 or 204 and has no
// body. Redirects are not followed, since a POST that is redirected becomes a
// GET as a rule, and the page that it gets is no receiver. Whatever else has a
// status of 2xx or 3xx, and a 400 that is a page or a demand for https, is the
// work of somebody who stands before the receiver, or of one who is mistaken.
//
// Failures are of two kinds. Those that are not about the content (no answer,
// no receiver's answer, 5xx, 429, 401, 403, 404) are retried without limit; the
// points stay dirty. Those that are (400, 409, 413, 422) lose points: of a
// request of protocol 2.0 those that the receiver says it did not write; one of
// 1.0 is accepted as a whole or rejected, and is cut in two until the bad
// points are alone. They are counted and logged. Requests are idempotent, so
// whatever is in doubt is sent again.
//
// Where buckets are tenants of the receiver, 429, 401, 403 and 404 are about one
// of them. Its lane holds the bucket for a while and goes on with the others.
//
// The client falls back to protocol 1.0 for a receiver that lacks 2.0, and
// retries 2.0 after an hour, and when the receiver was unavailable. The bodies
// are compressed without a search for what repeats, since that is known
// (pack.go). By protocol 2.0 a lane encodes what it collected where it lies: a
// Series is made only of what a receiver rejects (runs.go), and a run that is like
// the one before it is written as what differs (alike.go).
//
// Exemplars are not sent, and start times and metadata only by protocol 2.0.
//
// # Cost
//
// To forward by protocol 2.0 takes some 1,700 instructions a run of 4, 235 ns when
// the processor's caches have all (BenchmarkForward). So it is the length of runs
// that counts: MaxDirtyAge over the scrape interval.
package send
