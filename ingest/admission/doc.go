// Package admission decides who may hold memory on behalf of a client.
//
// # The problem
//
// What is cached has a budget of its own. Everything else that a client can
// make the process hold lies on the Go heap: a body that is coming in, its
// decoded form, the results of a query, an answer that waits for a slow reader,
// half a command. Each of these has a bound for one request. But a bound for one
// request times a thousand requests is no bound: a few cheap requests at the
// same time were enough to have the kernel end the process.
//
// # Terms
//
// A Pool is a number of bytes that all clients share, through both front doors,
// reads as well as writes. A Lease is what one request, connection or answer
// holds of it. A Kind is what it holds them for:
//
//	Write     whole requests that are decoded and written: they wait for no client
//	Input     requests and commands of which the rest is still to come
//	Stranger  the same, from clients that have yet to give the password
//	Read      results, and answers until the client has taken them
//
// # How it works
//
// A lease begins with an estimate and takes more as what it is for grows.
//
//	0                                                    MaxBytes
//	├──────────── Read: 1/2 ────────────┤                │
//	│ small reads may have 1/16 more ───┼──┤             │
//	├─── Input: 1/4 ───┤                                 │
//	│ small ones 1/32 ─┼─┤                               │
//	├ Stranger: 1/16 ┤                                   │
//	├──────────── Write: all that nobody else has ───────┤
//
// Those who wait for clients leave three parts of 32 that only writes may have,
// also where the share of Input is larger than a quarter, because of the largest
// request; a part of 16 is left to large writes. So neither unread answers nor half requests keep a write from
// being admitted: it ends by itself, and what it held is free again.
//
// Whoever asks for more than there is waits a little if it can (Take), in the
// order of asking, and is then refused; one that must not wait is refused at
// once (Try). A Refusal says what was asked for, what there is, which setting
// is the limit, and when to retry; or that it would never fit. Small reads
// (smallBytes) have a reserve and do not queue behind large ones, so that
// "is it up?" is answered while reports wait. So have small inputs
// (smallInputBytes), so that halves of large bodies do not keep ordinary ones out,
// and small writes (smallWriteBytes, 1/32). Large writes leave these reserves
// alone, but for one that is larger than the rest.
//
// Stalled requests are aborted: when Input or Stranger is used up, the lease
// that has made no progress for the longest time, and for graceTime at least,
// is cut off. Its bytes are free at once.
//
// # Invariants
//
//   - The sum of all leases is at most MaxBytes, and of each kind at most its share
//     and what its small ones may have more; what was lent before SetLimits lowered
//     them aside.
//   - A lease that was released holds nothing; releasing it again changes nothing.
//   - No lock is held while a Cut function runs, nor while anybody waits.
//   - A nil Pool admits everything: its leases hold nothing.
//
// # Cost
//
// A lease taken and released is two locks, for Input and Stranger a reading of
// the clock, and no allocation: see BenchmarkLease. One is taken a request and
// a doubling of what it holds, never a sample.
// Nothing is asked for what fits the buffers that a connection has anyway.
package admission
