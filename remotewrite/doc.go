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
// each series: the hashes of a pair are kept from the label in the same place
// of the series before, and used again if its bytes are the same, which they
// are for most. In protocol 2.0 pairs are references to symbols, and a symbol
// is hashed once a request.
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
// Start timestamps are accepted and not kept: they qualify a sample, which is
// written. Metadata is kept by metric name up to a bound; losing some loses no
// sample, so it never changes the answer.
//
// # Cost
//
// The sketch for a known series of 10 labels with one sample, protocol 1.0:
// compare 250 bytes (10 × 4 ns), hash 2 pairs that changed (2 × 20 ns), add 10
// pairs (10 × 2 ns), decode 15 bytes of sample (5 ns), about 100 ns, before
// snappy (250 B at 1.5 GB/s, 170 ns) and the cache's own.
package remotewrite
