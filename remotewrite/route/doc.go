// Package route makes one cache of many nodes for those who write: it cuts a
// remote-write request by who owns each series, sends the pieces on, and says
// when enough nodes have them.
//
// # The problem
//
// Any node of a cluster takes any request. Of its series some belong here, the
// others to other nodes, each to as many as there are copies. A request has
// thousands of series of a hundred bytes; to decode it and write it anew would
// cost more than to store it. A node may be dead or stand still, and the sender
// must notice neither.
//
// # Terms
//
//	slot     a number that a series has by its labels, without regard to their order
//	table    which nodes own a slot, in order of preference; immutable
//	item     a series of a request, or the metadata of a metric in protocol 1.0
//	frame    the items of one request that go to one node, as a request of its protocol
//	flight   a request from when it is cut until the last of its frames has an end
//	outbox   the frames that wait for one node, and the requests to it under way
//	bundle   the frames of one request between nodes (wire.AppendBundle)
//	link     a connection to a node that bundles go over
//	print    128 bits that name a series among nodes (wire.Print)
//
// # Picture
//
//	body ──scan──▶ items with slots ──cut──┬─ own items: a mask ──────▶ this node's cache
//	                                       ├─ frame ──▶ outbox of B ─┐
//	                                       └─ frame ──▶ outbox of C ─┼─bundles──▶ nodes
//	                                                                 │
//	204 ◀── each item has its acknowledgements ◀── flight ◀──answers─┘
//
// A frame holds the bytes of its items unchanged. In protocol 1.0 series
// behind one another are a request. In 2.0 they refer to symbols, so that all
// symbols of the request come first: to copy them costs 9 to 31 ns a sample, to
// write the references anew 140 to 400.
//
// In 1.0 two thirds of the bytes are labels that the series before has, too. To
// find the slot of a series is to find the others, and only they are sent to
// nodes that take it (wire.PackedV1, pack.go), which make of it the same bytes
// again: each byte less is one that need not be copied, hashed at both ends, and
// pass through two sockets.
//
// # Prints
//
// What a sender sends again and again is the labels, and each owner would find the
// series by them anew. So nodes name series to each other: a print is a keyed hash of
// the labels and the bucket, which is summed up beside the slot from the pairs that
// have changed.
//
//	first      labels, with prints beside them ─▶ owner: writes, and learns print ─▶ series
//	then       print │ samples ─────────────────▶ owner: writes, and learns nothing
//	           ◀── unknown: the 3rd, the 17th ─── of those that are gone, or that it forgot
//	           labels, with prints, of those two ─▶ owner
//
// Nothing must be agreed on: a print is the same at all nodes, whoever sent it first,
// and means a label set, not a place in a cache. A node may forget it at any time. Who
// sends it only guesses that it is known, because the series was sent before (seen.go),
// and what was guessed wrong costs a round trip and loses nothing, because the request
// is kept until all nodes have answered. A node that guesses wrong often is sent labels
// for a while.
//
// Only what is usual goes by its print: a series all labels of which have values, with
// samples of a value and a time. In protocol 2.0 it may have metadata of its metric, and
// goes with its labels again when that changes. What else there is to a series, and what
// is wrong with it, the owner sees with the labels. Nodes take prints of each other that
// are made by the same keys, as they say with each answer (wire.HeaderPrints): a cluster
// without a secret has none, because anybody could make series with the print of another.
//
// A node stores what other nodes send it and never sends it on, whatever its
// table says: there is one hop, and two tables that differ cannot make a loop.
//
// # Who owns which bytes
//
// The body is the receiver's until this node's share of it is written. Then it is the
// flight's, which gives the receiver the one of a flight before instead: a request can
// be answered while its second copy is still on its way, and what a node does not take
// is cut out of the body anew. Frames are copies. The bytes of all are asked of admission
// when the request is cut, and given back when the flight ends. Buffers go back to their
// pool unless a transport may still read them.
//
// # Acknowledgements
//
// They are counted for each item, not for the request: a request of which each
// node has stored a part is stored nowhere. An item has
//
//	tried   the places in its slot's order that it was or is sent to
//	out     how many of those have yet to answer
//	acks    how many have it
//
// and is settled when acks reaches what is asked for, or out is 0. The request is
// answered when all are settled: 204, or 503 if one has too few. If a node
// fails, each item of the frame goes to the first node of its order that was not
// tried and is not suspect; when only suspects are left, to these, but only for
// want of acknowledgements. This node itself is one of the order. So a write
// fails only if no node can take it. It is also how a copy that fails after the
// sender had its answer comes to be made elsewhere.
//
// There is no hinted handoff: whoever takes the place of an owner keeps the data,
// and reads ask all. The cluster is told that an owner was passed over (passed.go),
// so that nobody takes it for one that has everything; when it is well again it is
// sent what it missed (handover.go).
//
// # States of an outbox
//
//	      put            some under way            room
//	idle ─────▶ sending ──────────────▶ joining ─────────▶ sending …
//	  ▲            │ failed, silent for Timeout     │ full
//	  └────────────┴── all that waits is failed ◀───┘
//
// A frame goes out at once if no request is under way, written by whoever cut it: a link
// (link.go) has a goroutine that waits for the answer, and sends what has been put
// meanwhile. That is joined, because a request costs as much as a thousand samples; a
// second one is under way when as much waits as several of them. What waits is bounded in
// bytes (MaxOutboxBytes) and time (Timeout).
// A node that refuses, is silent or has a full outbox is suspect (Cluster), which
// is to say that nobody waits for it again until it was found well.
//
// # What nodes say about single series
//
// An answer to a frame lists of which series what was not written (wire.Loss).
// Copies of a series may be judged differently, because limits are a node's own:
// it is written if one node wrote it, and its loss is the least of those that
// answered. A request whose labels a node finds fault with is answered 400 with
// the sum of that, and the first reasons. What a node refuses for the request's
// own sake (a flood of new series: 429 between nodes) goes to no other node,
// where it would be a flood as well.
//
// # Forwarding
//
// Nodes that forward what they hold to a store behind them forward each sample
// once: the first owner does, the others keep it on standby until it has, and
// forward it if it is lost. standby.go has the design.
//
// # Lock order
//
// flight.mu before outbox.mu before link.mu. None is held while anything is sent or stored.
//
// # Cost
//
// For a series of 11 labels with one sample, of which one label is other than
// those of the series before: compare 250 bytes or 20 references (10 ns), hash
// one pair (10, and 15 for the print), look up owners (5), and for each other owner
// pack or copy 60 bytes (20), or write print and samples, of 37 (10): 65 ns, and no
// allocation. BenchmarkCut has what it is: 69 to 81 ns, 1,160 to 1,340 instructions.
//
// Mostly the same label has another value in each series, as handler or le has: what is
// before it and behind it is compared as one (varied), and a fourth of all was saved
// by not looking for what has changed, an eighth of 1.0 by one loop for series like that
// (likeBefore). Which node owns a series cannot be guessed, and each guess that is wrong
// costs as much as a copy: so owners of some items are looked up first, without a branch
// that depends on them, and then each node gets all of its share (assign).
//
// What all members together spend on a sample is measured by mcbench cluster.
package route
