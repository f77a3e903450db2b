// Package cluster makes several daemons one cache: it says who is there, who
// owns which part of the data, and who did at which time. It knows nothing of
// samples, keys or requests: the doors ask it where things belong and do the
// rest.
//
// # Terms
//
//	member   one life of one daemon: name#start. A daemon that is started again
//	         is another member, because it is empty.
//	slot     one of 16384 parts of all series, and of all Redis keys
//	owner    a member that a slot's data is sent to; a slot has several, in order
//	table    slot → owners, for one set of members; immutable, with a version
//	era      a time during which something was written by a table of the same owners
//	place    what decides which slot a series has: the cluster's key, the labels
//	         that are ignored, the spread
//	suspect  a member that did not answer this one lately
//	dropped  of a member: not in another's table any more, though it did not leave. If
//	         it comes back as the same it was displaced: others had its slots (drops.go)
//
// # Picture
//
//	       gossip (memberlist)                          series ─▶ SeriesHash ─▶ slot
//	A ◀──────────────────────────▶ B                    key    ─▶ KeySlot    ─▶ slot
//	  members, ≤ 512 bytes each                                                 │
//	       │                                                                    ▼
//	       ▼                                            NewTable(members) ─▶ owners, in order
//	 members, the same everywhere after a second                  │
//	       └──────────────────────▶ NewTable                      └─▶ eras: what was who's, when
//
// # Agreement without words
//
// The table is a pure function of the members (rendezvous.go), in integers only,
// so members that agree about who is there agree about every owner, and for the
// second in which they do not, each write still goes to some member, and reads
// ask all of them. When a member goes, each of its slots falls to the member
// that held the next copy, and no other slot moves.
//
// # Eras
//
// A table says who owns what now. What was written an hour ago went to those who
// owned it then, so members remember the tables they had, as eras, and tell each
// other when they meet. Who reads can tell from them whether what did not answer
// matters: a dead member stays in its era. Merging only adds: a member that lies
// can cause warnings and not take any away. Eras beyond a bound are replaced by one
// of which nothing is known.
//
// # Towards 300 members
//
// What TestTableBalance and TestSimulation log; times are of one core of a shared
// machine, to be taken for their ratios.
//
//	members                                     3      10     100     300
//	max/mean of slots owned first            1.01    1.02    1.18    1.39
//	making a table, ms                        0.7     1.5      10      25
//	  with zones and weights                                           75
//	parts of a request of 2,000 series          3      10     100     300
//	  of ten targets, with a spread of 8        3      10      53      75
//	ranges of Redis keys                      688     938    4060    4080
//	eras after each member was restarted        7      21     201     512
//	  bytes of the history that is exchanged  572    1790   22 Ki   82 Ki
//
// Gossip is below 512 bytes a member for each change, and each member probes one
// other twice a second whatever their number: by arithmetic, 300 members send some
// 2 × 300 probes a second all together, and each exchanges its whole state, some
// 300 × 400 bytes and the history, with one other every 15 seconds, which memberlist
// makes 75 for so many: 3 KiB/s.
package cluster
