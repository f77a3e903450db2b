// Package query lets any client of Prometheus read an mcache: Grafana and
// promtool by Prometheus' HTTP API, another Prometheus by remote read.
//
// # Problem
//
// The cache knows series, label matchers and encoded chunks, but neither PromQL
// nor HTTP. Clients know Prometheus, down to the bytes: the words of its errors,
// how it writes a float, what it does with a step that is too small. The
// language is Prometheus' own engine, which reads through the interfaces of its
// package storage. The rest of its server would bring hundreds of packages for
// clouds that a cache on one machine never talks to, and is written anew here.
//
// # Terms
//
// A query is an expression of PromQL, evaluated at one time (instant) or at
// steps of a range. A lookup is a request for series or labels, without
// samples. A remote read is a request for samples, without PromQL. An answer is
// incomplete if some of what it should have seen was evicted, reclaimed or never
// received.
//
// # Picture
//
//	GET, POST ─▶ API ─ parameters ─ gate ─▶ promql.Engine ─▶ answer ─ jsonWriter ─▶ gzip ─▶ client
//	                                          │ Select            ▲
//	                                          ▼                   │ what is missing
//	                                   Queryable ── series ── iterator
//	                                          │ Select          │ Snapshot
//	                                          ▼                 ▼
//	                                        Source ───────── Found
//	                     LabelCache ◀── │ cacheSource: one bucket, mcache's index and chunks
//	                                    │ joined: several buckets of another Source
//	                                    │ FanOut: this daemon's and all others of a cluster
//
// All that reads goes through a Source, an interface of seven methods that are
// asked in bulk.
//
// A range query passes eight functions, five on its way to the engine or a plan,
// and from the handler three on its way to JSON; TestPathOfRangeQuery counts them:
//
//	ServeHTTP       serve.go  what all requests have: origins, tenants, a loan
//	handler         serve.go  what all endpoints have: parameters, errors, size,
//	                          compression, warnings
//	queryRange      query.go  the times
//	evaluate        query.go  limits, a turn, another try without plans, and whether
//	                          it was slow: of a query, or of a part of one that is
//	                          split; readThrough calls it where a store is behind
//	Exec            whole.go  or formula.go's, or the engine's
//	computed.write  query.go  which kind of result, and statistics; twice if they
//	                          may be too large
//	computed        rows.go   series; or matrix, of json.go
//	points          rows.go   points, block by block; or floats, of json.go
//
// None of them only passes on what it is given.
//
// # Invariants
//
//   - A select finds series and their labels, no samples. Samples are copied,
//     still encoded, when an iterator is made, and decoded as it moves: a query
//     over a million series holds the chunks of one, and no lock.
//   - Whoever reads is told of what was missing. A Queryable belongs to one
//     request; each Snapshot tells it from when on a series is complete; the
//     answer carries the latest of these as a warning and as a header.
//   - An answer is sent whole, or is seen to break off. What could make it fail
//     is checked before the first byte, its size included.
//   - Everything that waits, runs, or is kept has a bound in Options, and a
//     client that goes away ends what runs for it.
//   - What all requests hold together is bounded by Options.Admission: a request
//     has a loan of what it is going to need before it allocates it, of the
//     engine's results as well, and until its answer has been taken. See hold.go.
//
// # Plans
//
// Rates and the common functions over time, and aggregations of
// these or of plain series, are computed here: see plan. The engine does the rest of
// the expression on their results, which are its own to the last bit. A query
// that is a plan or a selector as a whole, or operators between such and numbers,
// does not see the engine: see wholePlan and formula. It is parsed once: see
// keptExpressions. Plans over many series are shared among a few workers: see crew.
//
// What aggregations come to is remembered, and no more than the newest steps are
// computed again: see results.
//
// # A store behind
//
// What memory lacks can be asked of a server of the same API: see upstream.go,
// and of a range query those steps alone which memory does not cover.
//
//	upstream.go           what is asked where, and what becomes of a failure
//	upstream_dialect.go   what the store is, and what is split with it
//	upstream_drop.go      labels that the store's series have not
//	upstream_resolve.go   what an expression says of the query that it is in
//	upstream_split.go     which steps are covered
//	upstream_nothing.go   selectors that match nothing here
//	upstream_ask.go       requests, within their bounds
//	upstream_sound.go     what is handed on is looked at
//	upstream_breaker.go   a store that fails is left alone
//	upstream_ahead.go     answers are read by goroutines, a part before anything is sent
//	upstream_json.go      answers, series by series
//	upstream_points.go    and their points, at speed
//	upstream_join.go      the parts become one answer
//	upstream_half.go      the parts: the store's and memory's
//	upstream_merge.go     series and notes of all parts, in order
//	upstream_seam.go      where they meet they are compared
//	upstream_audit.go     what memory answers alone is, now and then
//	upstream_stats.go     statistics of both
//	upstream_remember.go  what the store said before
//	upstream_extent.go    how that is kept
//	upstream_packed.go    and written again
//	upstream_record.go    and comes to be
//	upstream_encode.go    by this encoder
//	upstream_lookup.go    series, labels, metadata and exemplars of both
//	upstream_read.go      remote reads
//	upstream_raw.go       by queries, where the store has none
//
// # Compression
//
// Answers are compressed for clients that accept gzip, when they are larger
// than what a connection sends at once and leave the machine: see compresses.
// Compressing takes two to three times as long as all the rest of a large
// answer, and the client needs half of that again to undo it; a line of a
// gigabit a second is about where that is won back.
//
// # Cost
//
// On a query of 100 series with 240 points each a point takes 22 ns, 10 of them
// to become JSON; compressing would take 60 more. A sum over 1,000 series takes
// 11 ns a point and a sum of their rates 23, because two of five are gauges:
// each sample that is less than the one before counts as a reset, and a rate of
// a counter takes 5. The engine by itself takes 40, 160 for rates.
//
// The engine of thanos-io/promql-engine (May 2026) was measured on this storage,
// with what it takes to build it beside this version of Prometheus: processor
// time of a selector of 100 series, a sum by and a sum of rates over 1,000 was
// 1.5, 15 and 40 ms where Prometheus' took 0.7, 10 and 39, and plans, with JSON,
// 0.5, 2.6 and 5.6. klauspost/compress has no faster form of snappy for remote
// reads, and its second level of gzip takes a tenth longer for 4 % fewer bytes.
package query
