// Package pressure turns what a machine says about its memory into a budget:
// how much of what nobody else needs may be used, and how fast to let go when
// someone does.
//
// # Problem
//
// A cache that uses spare memory must give it back before the kernel kills
// anyone. The kernel does not ask: one has to look. How often, and how much to
// release, decides whether a neighbour that takes 8 GiB a second finds memory
// or is killed, and whether one that takes and frees some every few seconds
// empties the cache each time.
//
// # Terms
//
//	limit      a bound on memory we are under: the node's, or a control group's
//	available  what anyone under a limit could take without harm
//	pool       available, and what we hold: only others change it
//	floor      F: below this much available, memory is released at once
//	ceiling    C = 1.5 F: above this much, and after a quiet time, the budget grows
//
// # Picture
//
//	/proc/meminfo ─────────────┐
//	control groups, v2 and v1, ├─▶ reading ─▶ law of each limit ─▶ least ─▶ SetBudget
//	every ancestor visible     │              (pure, with a state)   budget
//	pressure stall information ┘
//
//	available  ◀───────────────────────────────────────────────────────
//	   0          F         (F+C)/2        C
//	   ├──────────┼────────────┼───────────┼──────────────────────────▶
//	   release to the middle,  hold,        grow after 30 s of quiet,
//	   look every 20 ms        every 50 ms  every 250 ms
//
// # The law
//
// MemAvailable does not count what we hold as available. What matters is
// the pool, and what it leaves once our budget is used up: whether we have
// filled the budget already makes no difference, and releasing memory does not
// look like others returning theirs. If the pool shrinks, its slope (smoothed
// over 100 ms) is drawn out, and the predicted loss counts as gone: for as long
// as a neighbour at 8 GiB/s takes to have C, but from 60 to 250 ms.
//
//  1. Less than F left, the loss deducted: the budget falls at once so far that
//     (F+C)/2 and the loss stay available. SetBudget returns with the pages
//     gone. The next look is 5 ms later.
//  2. From F to C: nothing changes.
//  3. More than C for 30 s: the budget grows by what is above C, at most by a
//     256th of the total a second.
//
// A neighbour may stop as suddenly as it began. One that had 2 GiB within a look
// has a slope of 40 GiB/s, which drawn out means everything. So the loss counts
// for no more than the fastest neighbour takes in 60 ms, 480 MiB, nor more than
// lies between F and the middle: what is released leaves C at the most, and a
// fall that stops above the middle releases nothing. No more is needed, because
// releasing is faster than any neighbour: what is available does not fall
// meanwhile, and the next look, at once, sees whether it was enough.
//
// Tasks that wait for memory (pressure stall information, more than 10 % of the
// time) have C in place of F, and start the quiet time anew. Never is the next
// look later than a neighbour at 8 GiB/s would need for half of what is available.
//
// The kernel keeps freed pages on a list of each processor, and does not count
// these as available: the first 270 to 650 MiB released here (Linux 6.18), for
// ten seconds and more. For a second after a release the law credits itself up
// to a 64th of the total, since a neighbour finds them; after that it takes the
// kernel's word, as others do who look at MemAvailable. The books of a control
// group are exact.
//
// # What goes wrong, and what happens then
//
// Files that cannot be read or cannot be right are left out; when nothing is
// left the budget stays as it is. A reading that stays the same to the byte
// while we release a 32nd of the total is stuck, as are some of those that
// containers show: following it would release all there is, so it is not
// followed. (A 128th was seen to pass unnoticed by a kernel that worked.) But a
// limit that is reached looks the same: a reading of nothing available, or
// while tasks wait for memory, is followed all the same.
// Where nothing can be read from the start, New says so, and a fixed size is
// what remains.
//
// # Compared with looking once a second
//
// Dory looks once a second and holds one line of 512 MiB. Simulated (go test
// -v -run Traces ./kvcache/pressure: 24 GiB in all, others from 6 GiB up, a
// cache that fills at 1 GiB/s and releases at 10, readings that lag), the
// least memory available, on a node or in a group:
//
//	others take                     this law (F = 1,228 MiB)   once a second (512 MiB)
//	0.5 GiB/s, 14 GiB               1,265 MiB                     −27 MiB
//	2.4 GiB/s, 14 GiB               1,250 MiB                  −2,675 MiB
//	8 GiB/s, 14 GiB                 1,038 MiB                  −7,680 MiB
//	4 GiB at 2 GiB/s every 20 s     1,253 MiB, 4 GiB released  −1,870 MiB, 61 GiB released
//	2 GiB at 8 GiB/s every 2 s      1,056 MiB, 2 GiB released  −1,536 MiB, 25 GiB released
//
// Less than nothing is where the kernel kills.
//
// For real (go test -v -run Squeeze, same machine as package kvcache's figures,
// and as busy): a neighbour process that takes 400 MiB at 0.5 GiB/s left at
// least 253 MiB of a floor of 256 available, and no call of the cache took
// longer than 6 ms meanwhile. In a control group of 256 MiB, full, another
// that takes 80 MiB is let in, and none is killed; some 75 MiB stay in use.
package pressure
