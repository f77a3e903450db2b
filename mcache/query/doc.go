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
// incomplete if some of what it should have seen was evicted or reclaimed.
//
// # Picture
//
//	GET, POST ─▶ API ─ parameters ─ gate ─▶ promql.Engine ─▶ answer ─ jsonWriter ─▶ gzip ─▶ client
//	                                          │ Select            ▲
//	                                          ▼                   │ what is missing
//	                    LabelCache ◀── Queryable ── series ── iterator
//	                                          │        Snapshot │
//	                                          ▼                 ▼
//	                                         mcache: index   mcache: chunks
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
//
// # Plans
//
// Of a range query, the rates of counters and the common aggregations, of rates
// or of plain series, are computed here: see plan. The engine does the rest of
// the expression on their results, which are its own to the last bit.
//
// # Cost
//
// On a query of 100 series with 240 points each the engine takes some 30 ns a
// point, decoding 4, and writing JSON 25, because the texts of times are made
// once for all series and most values are written as integers. A sum over
// 1,000 series takes the engine 30 ns a point and a plan 17; a sum of their
// rates takes the engine 140 ns a step and a plan 29.
package query
