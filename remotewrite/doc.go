// Package remotewrite receives Prometheus remote write, protocols 1.0 and 2.0,
// into an mcache.Cache. What both ends share is package wire, the other end is
// package send.
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
//	body ──bounds, snappy or zstd──▶ decoded ──one pass──▶ Batch ──Append──▶ cache
//	                                   ▲      fingerprint  │ known series: done
//	                                   │                   ▼
//	                                   └──decode, check── Missing ──AppendNew──▶ cache
//
// Where all of a long request are usual series of protocol 1.0, as of most, it is read
// through a window while it is decompressed (type through), and is never there as a
// whole: it would not stay in the processor's caches.
//
// # Terms
//
// A pair is a label's name and value. Its hashes are the cache's keyed 128-bit
// hashes of both. The fingerprint of a series is the sum over its pairs; the
// cache finds a series by it. In protocol 1.0 the labels are spelled out in
// each series, in protocol 2.0 they are references to symbols, which are hashed
// once a request. Either way most of a series' bytes are those of the series
// before, and the sum is that one's, less the pairs that went, plus those that came.
// As a rule one value is another, that of the label that changed last, and is as
// long: what is before and behind it is compared as a whole then. Else what both
// have in common is found by comparing words.
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
// was; the first line of the text, which is what senders log, has how many
// samples, why, by which flag that can be changed and of which series. In
// protocol 1.0, which has no numbers for it, an exemplar that cannot be kept is
// no reason for a 400; neither is a series without samples. 503 with
// Retry-After when memory, or the bytes in flight, do not suffice: a sender
// retries, and since writes are idempotent, whatever part was written the first
// time does no harm. Protocol 2.0 answers carry what was written in
// X-Prometheus-Remote-Write-{Samples,Histograms,Exemplars}-Written, whatever
// the status.
//
// # What is kept
//
// Samples bit for bit, stale markers included, and their start timestamps.
// Native histograms of all kinds, as records that hold the message of protocol
// 2.0; Prometheus' rules say which are valid, and schemas finer than readers
// know are merged, as it does. Of exemplars the latest, in a ring that is
// bounded by number and bytes, each once however often it is sent; one without
// a sample is accepted, because Prometheus sends them so. Metadata by metric
// name, up to a bound: losing a description loses no data, so it never changes
// the answer.
//
// # In a cluster
//
// A Router (package route) has those series of a request that other nodes own
// written there. This node's are decoded where they lie, by a mask over the
// series (intake.skip), and the answer is the sum of what all nodes say. A
// request holds one of MaxConcurrent turns until its own share is written, never
// while it waits for others, or two nodes could wait for each other. What nodes
// send each other are bundles (wire.Parts), each part of which is a request to
// be written here and answered by itself.
//
// # Cost
//
// A sample goes through seven functions from the body to its slot: ServeHTTP,
// write, decodeV1 or V2 and seriesV1 or V2, which puts what a leaf decoded into
// the batch; the cache's Append, appendBatch and insertRunLocked, which copies it
// to the slot. TestPathOfSample counts them. A part of a bundle comes to write
// through serveBundle, storePart and Handler.write instead.
//
// The sketch for a known series of 11 labels with one sample, protocol 1.0:
// compare 300 bytes (38 words, 15 ns), hash the one label that changed (25
// ns), take the old pair off the sum and add the new (6 ns), decode the sample
// (10 ns), put both into the batch (10 ns): 70 ns, and as much for snappy and
// HTTP together. Measured, with BenchmarkDecode2000: 75 ns, in protocol 2.0 70. Prometheus'
// decoders take 2,700 and 580 to make the label sets that are not made here.
package remotewrite
