package ingest

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"mcached/ingest/resp"
)

// # SCAN by proxy
//
// Clients that know nothing of the cluster scan all nodes one after the other. The
// cursor says which node and where on it, so that any node can go on with it:
//
//	52       51         32 31                    0
//	┌───────┬─────────────┬──────────────────────┐
//	│ phase │ node (20)   │ where on it (32)     │
//	└───────┴─────────────┴──────────────────────┘
//
// A node's number is made of its ID, and nodes go in the order of their numbers:
// however others come and go, whoever stays is scanned whole. Two of one number
// are told apart by their IDs, as long as both stay.
//
// A node's own cursor has 52 bits while it goes through strings (the phase of
// series has numbers of keys, of which a node makes fewer than 2^32). The lower 20
// are left out: what they tell apart is less than a line of an index, as a rule. It
// may go back by a few keys, which clients are then told of twice. Where a cursor
// would not move for that, the node is asked to go on at once. Like one node's,
// cursors stay below 2^53.

const (
	scanNodeBits  = 20
	scanPlaceBits = 32
	scanDropped   = 20 // bits of a node's cursor
)

// scanNumbers are the numbers of the nodes.
func scanNumbers(v *ClusterView) []uint64 {
	const spare = 256 // numbers above those that IDs give, for the last ones that meet
	order := make([]int, len(v.Nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(v.Nodes[a].ID, v.Nodes[b].ID) })
	numbers := make([]uint64, len(v.Nodes))
	last := uint64(0)
	for _, i := range order {
		id, _ := strconv.ParseUint(v.Nodes[i].ID[:min(len(v.Nodes[i].ID), 8)], 16, 32) // 0 if it is none
		last = max(last+1, id*(1<<scanNodeBits-spare)>>32)
		numbers[i] = last
	}
	return numbers
}

// place is a node's cursor as a cursor has it, with the phase.
func scanPlace(cursor uint64) (place uint64, ok bool) {
	if cursor < seriesPhase {
		return cursor >> scanDropped, cursor>>scanDropped < 1<<scanPlaceBits
	}
	seq := cursor - seriesPhase
	return seriesPhase | seq, seq < 1<<scanPlaceBits
}

// proxyScan goes on with the node of a cursor. It reports true if the command is
// wrong, for which the answer is this node's own.
func (c *conn) proxyScan(v *ClusterView, cmd *command, args [][]byte) bool {
	cursor, err := strconv.ParseUint(string(args[1]), 10, 64)
	if err != nil || cursor >= 2*seriesPhase {
		return true
	}
	place := cursor&seriesPhase | cursor&(1<<scanPlaceBits-1)
	numbers := scanNumbers(v)
	node, number := nextNode(numbers, cursor>>scanPlaceBits&(1<<scanNodeBits-1))
	if node < 0 {
		c.scanned(0, nil)
		return false
	}
	if number != cursor>>scanPlaceBits&(1<<scanNodeBits-1) {
		place = 0 // the node that it was about has gone
	}
	at := place
	if place < seriesPhase {
		at = place << scanDropped
	}
	var keys [][]byte
	for size := 0; ; {
		asked := slices.Clone(args)
		asked[1] = strconv.AppendUint(nil, at, 10)
		reply := c.askNode(v, node, cmd, asked)
		parts, ok := elementsOf(reply)
		if !ok || len(parts) != 2 {
			if len(reply) == 0 || reply[0] != '-' {
				reply = []byte("-ERR a node's answer to SCAN is none\r\n")
			}
			c.pass(reply)
			return false
		}
		found, _ := elementsOf(parts[1])
		keys = append(keys, found...)
		size += len(reply)
		if at, err = strconv.ParseUint(string(bulkOf(parts[0])), 10, 64); err != nil {
			c.Fail("ERR a node's cursor is none")
			return false
		}
		if at == 0 {
			break
		}
		next, ok := scanPlace(at)
		switch {
		case !ok:
			c.Fail("ERR too many keys were created at a node to be scanned by proxy: scan it itself")
			return false
		case next != place:
			c.scanned(number<<scanPlaceBits|next, keys)
			return false
		case size > c.srv.o.MaxCommandBytes:
			c.Fail("ERR keys of the same place are too many to be scanned by proxy")
			return false
		}
	}
	if _, number = nextNode(numbers, number+1); number == math.MaxUint64 {
		number = 0
	}
	c.scanned(number<<scanPlaceBits, keys)
	return false
}

// nextNode is the node with the least number that is at least from; -1 if there is
// none.
func nextNode(numbers []uint64, from uint64) (node int, number uint64) {
	node, number = -1, math.MaxUint64
	for i, n := range numbers {
		if n >= from && n < number {
			node, number = i, n
		}
	}
	return node, number
}

// askNode asks one node, which may be this one.
func (c *conn) askNode(v *ClusterView, node int, cmd *command, args [][]byte) (reply []byte) {
	if node == v.Self {
		return c.runHere(cmd, args)
	}
	c.away(func() {
		var err error
		if reply, _, err = c.srv.peerAt(v.Nodes[node].address(), c.V3).do(args); err != nil {
			reply = []byte("-CLUSTERDOWN the node whose keys are next does not answer\r\n")
		}
	})
	return reply
}

// scanned answers with keys, still encoded.
func (c *conn) scanned(cursor uint64, keys [][]byte) {
	out := resp.Reply{V3: c.V3}
	out.Array(2)
	out.BulkString(strconv.FormatUint(cursor, 10))
	out.Array(len(keys))
	for _, k := range keys {
		out.B = append(out.B, k...)
	}
	c.pass(out.B)
}
