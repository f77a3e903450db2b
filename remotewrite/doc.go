// Package remotewrite receives Prometheus remote write, protocols 1.0 and 2.0,
// into an mcache.Cache, and sends it.
//
// # The problem
//
// A scraper sends the same label sets every few seconds, with one new sample
// each: of the 250 bytes a series takes on the wire, 12 are news. A decoder
// that builds label sets out of the rest spends ten times on the labels what
// the sample costs. So the receiver never decodes the labels of a series that
// the cache knows.
//
// # Picture
//
//	body ──bounds, snappy──▶ decoded ──one pass──▶ Batch ──Append──▶ cache
//	                            ▲      fingerprint  │ known series: done
//	                            │                   ▼
//	                            └──decode, check── Missing ──AppendNew──▶ cache
//
// # Terms
//
// A pair is a label's name and value. Its hashes are the cache's keyed 128-bit
// hashes of both. The fingerprint of a series is the sum over its pairs; the
// cache finds a series by it. In protocol 1.0 the labels are spelled out in
// each series, in protocol 2.0 they are references to symbols, which are hashed
// once a request. Either way most of a series' bytes are those of the series
// before: what they have in common is found by comparing words, and the sum is
// that of the series before, less the pairs that went, plus those that came.
//
// # Why the fast path needs no checks
//
// Only AppendNew makes series, and only with labels that passed validate. The
// fingerprint is keyed, so a sender cannot aim for another's. A known
// fingerprint thus means a set of pairs that was found valid before, and all
// that is left to check is the sample. Two things could fool it, and do not
// reach it: a pair with an empty value is no part of a fingerprint, and could
// hide an invalid name or a second label of the same name, so a series with
// such a pair is validated first, known or not; a pair that occurs twice
// counts twice in the sum, which is then no valid series' sum.
//
// # What is answered
//
// 204 if all was written. 400 if any element was not, though the valid rest
// was; the text has the reasons, with limits and what came. 503 with
// Retry-After when memory, or the bytes in flight, do not suffice: a sender
// tries again, and since writing a sample twice is writing it once, whatever
// part was written the first time does no harm. Protocol 2.0 answers carry
// what was written in X-Prometheus-Remote-Write-{Samples,Histograms,
// Exemplars}-Written, whatever the status.
//
// # What is kept
//
// Samples bit for bit, stale markers included, and their start timestamps.
// Native histograms of all kinds, as records that hold the message of protocol
// 2.0; Prometheus' rules say which are valid, and schemas finer than readers
// know are merged, as it does. Of exemplars the latest, in a ring that is
// bounded by number and bytes; one that comes without a sample is welcome,
// because Prometheus sends them so. Metadata by metric name, up to a bound:
// losing a description loses no data, so it never changes the answer.
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
// Trouble is of two kinds. What is not about the content (no answer, 5xx, 429,
// 401, 403, 404) is tried for ever, and what waits stays dirty. What is (400,
// 409, 413, 422) loses points: of a request of protocol 2.0 those that the
// receiver says it did not write; one of 1.0 is taken as a whole or not at all,
// and is cut in two until the bad points are alone. They are counted and
// logged. Sending twice is sending once, so whatever is in doubt is sent again.
//
// Where buckets are tenants of the receiver, 429, 401, 403 and 404 are about one
// of them. Its lane holds the bucket for a while and goes on with the others.
//
// A receiver that lacks protocol 2.0 gets 1.0, and is asked again after an hour,
// and when it was away. The bodies are compressed without a search for what
// repeats, since that is known (pack.go).
//
// Exemplars are not sent, and start times and metadata only by protocol 2.0.
//
// # Cost
//
// The sketch for a known series of 11 labels with one sample, protocol 1.0:
// compare 300 bytes (38 words, 15 ns), hash the one label that changed (25
// ns), take the old pair off the sum and add the new (6 ns), decode the sample
// (10 ns), put both into the batch (10 ns): 70 ns, and as much for snappy and
// HTTP together. Measured, with BenchmarkDecode2000: 75 ns, in protocol 2.0 70. Prometheus'
// decoders take 2,700 and 580 to make the label sets that are not made here.
//
// To forward takes some 300 ns a run and 15 a sample (BenchmarkForward), so it
// is the length of runs that counts: MaxDirtyAge over the scrape interval.
package remotewrite
