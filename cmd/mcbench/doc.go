// Command mcbench measures servers that take Prometheus remote write, or speak
// the Redis protocol, and proves that they kept what they took.
//
//	mcbench write --url http://127.0.0.1:9201/api/v1/write --pid 4711 --check
//	mcbench query --start 1795208610000     the same load's, as write prints it
//	mcbench resp --pid 4711 --pipeline 16
//	mcbench redis                           mcached and redis-server in turns, by redis-benchmark
//	mcbench hits                            which of the requests a cache gets a server answers
//	mcbench compare                         mcached and the peers that are installed
//	mcbench small                           what a sample costs in small requests, of many senders
//	mcbench grow                            what grows with the number of series
//	mcbench cluster                         what a sample costs several daemons that are one cache, beside one
//	mcbench drain                           how long a member takes to give others what it alone has
//	mcbench concurrent                      many readers while samples come in
//	mcbench wide                            what looks at thousands of series, of mcached and the peers
//	mcbench dashboards FILE...              what dashboards ask, beside a reference server
//	mcbench exporters FILE...               write what dashboards look at
//	mcbench benefit                         a store by itself, and behind an mcached that forwards to it
//	mcbench forward                         what forwarding costs an mcached
//	mcbench readthrough                     a Prometheus with a week of data, and an mcached before it that reads through
//	mcbench neighbour --pid 4711            how an mcached shrinks for a process that takes memory
//
// # The load
//
// It is a function of the seed: every value and every time can be computed
// again, which is how --check knows what has to come back. A target has 500
// series, as a process with a middling exporter has: 50 metrics of 10 series.
// A series has 11 labels with some 250 bytes of text. Of each 10 series
//
//	4 are counters: of rare events, of requests, of bytes, and one that resets
//	4 are gauges, with 2 or 3 decimals: two walk, two are noise
//	2 are constants: one small, one large
//
// Samples lie on a grid of --interval, moved by up to --jitter either way. Of
// --late percent the delivery is late by one to four intervals.
//
// # What is measured
//
// The client shares the processors with the server, so what a server manages
// in a second depends on the client, too. The time the kernel has accounted to
// the server's process (--pid) does not. Memory is the growth of its resident
// set from just before the load to just after.
//
// With --rate requests are due at an even pace, whether the one before was answered
// in time or not, behind a first round that creates the series and is in no time of
// a request. A request is made before it is due. Its time is told twice: from when
// it was sent, and from when it was due, in which the client's own delays are, too.
package main
