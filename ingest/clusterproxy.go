package ingest

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"mcached/ingest/resp"
)

// With ClusterOptions.Proxy, clients that know nothing of clusters reach all
// keys by any node: commands for other nodes' keys are passed on over the
// connection to that node, and the answers come back as they are. Commands of
// several keys that belong to several nodes are cut, if their answers can be put
// together again; those without keys that are about all of them are asked
// everywhere.

const (
	// proxyAgain is how long a command is tried again while this node and the
	// other do not agree about who owns a slot, or the owner does not answer: as
	// long as gossip takes to say that it is gone, and then some.
	proxyAgain = 6 * time.Second
	proxyWait  = 50 * time.Millisecond

	errNotProxied = "CROSSSLOT Keys of several nodes cannot be in one such command: use {tags} in them that are the same"
	errTxProxied  = "CROSSSLOT Transactions reach the keys of the node that the client is connected to: use --cluster.resp=redirect and a client of Redis Cluster"
)

// away leaves the loop and the gate while other nodes are waited for.
func (c *conn) away(f func()) {
	if c.loop != nil && !c.holdsBack() {
		c.leave() // if it can
	}
	behind := c.gate != nil
	c.leaveGate()
	f()
	if behind {
		c.enterGate()
	}
}

// proxy passes a command on to the node that serves a slot. It reports true if
// the slot came here meanwhile.
func (c *conn) proxy(slot uint16, cmd *command, args [][]byte) (here bool) {
	if c.tx != nil && c.tx.open || cmd.name == "watch" {
		c.Fail(errTxProxied)
		return false
	}
	var reply []byte
	c.away(func() { reply = c.srv.askOwner(slot, c.V3, args) })
	if reply == nil {
		if c.srv.here(c.srv.view(), slot) {
			return true
		}
		reply = []byte("-" + errClusterDown + ": the node that has it does not answer\r\n")
	}
	c.pass(reply)
	return false
}

// pass answers what another node did.
func (c *conn) pass(reply []byte) {
	if c.room(int64(len(reply))) {
		c.B = append(c.B, reply...)
		c.spill()
	}
}

// askOwner asks the node that serves a slot, whichever that is by now. It
// returns nil if this node does, or none that answers. A command whose
// connection breaks may have been run, so only what reads is sent twice by this;
// what cannot be sent, or is refused because tables differ, was not run.
func (s *Server) askOwner(slot uint16, v3 bool, args [][]byte) []byte {
	for deadline := time.Now().Add(proxyAgain); ; time.Sleep(proxyWait) {
		v := s.view()
		node := v.servedBy(slot)
		if node >= 0 && node == v.Self {
			return nil
		}
		if node >= 0 {
			reply, sent, err := s.peerAt(v.Nodes[node].address(), v3).do(args)
			switch {
			case err != nil && sent && !s.repeatable(args):
				return nil
			case err == nil && !bytes.HasPrefix(reply, []byte("-"+errTablesDiffer)) && !bytes.HasPrefix(reply, []byte("-CLUSTERDOWN")):
				s.counters.proxied.Add(1)
				return reply
			}
		}
		select {
		case <-s.stop:
			return nil
		default:
		}
		if time.Now().After(deadline) {
			return nil
		}
	}
}

// repeatable says whether a command may be run twice.
func (s *Server) repeatable(args [][]byte) bool {
	cmd := s.commands.find(args[0])
	return cmd != nil && cmd.flags&readonly != 0
}

// joinBy is how the answers to the parts of a command are put together.
type joinBy uint8

const (
	joinNot   joinBy = iota
	joinSum          // numbers are added
	joinOK           // all say OK
	joinOrder        // an element for each key, in the order of the keys
	joinAll          // the elements of all
	joinLeast        // of each place the least number
)

// ofSeveral are the commands that are cut by key, with what belongs to a key.
var ofSeveral = map[string]joinBy{
	"del": joinSum, "unlink": joinSum, "exists": joinSum, "touch": joinSum, "mset": joinOK, "mget": joinOrder, "ts.madd": joinOrder,
}

// ofAll are the commands without keys that all nodes are asked.
var ofAll = map[string]joinBy{
	"dbsize": joinSum, "flushall": joinOK, "flushdb": joinOK, "keys": joinAll,
	"script|load": joinOK, "script|flush": joinOK, "script|exists": joinLeast,
}

// proxySeveral cuts a command of several keys by their slots. It always answers.
func (c *conn) proxySeveral(cmd *command, args [][]byte) bool {
	by := ofSeveral[cmd.name]
	switch {
	case by == joinNot:
		c.Fail(errNotProxied)
		return false
	case c.tx != nil && c.tx.open:
		c.Fail(errTxProxied)
		return false
	}
	step := cmd.keys[2]
	type part struct {
		args  [][]byte
		keys  []int
		reply []byte
	}
	parts := map[uint16]*part{}
	for i, n := cmd.keys[0], 0; i+step <= len(args); i, n = i+step, n+1 {
		slot := c.srv.o.Cluster.KeySlot(args[i])
		p := parts[slot]
		if p == nil {
			p = &part{args: [][]byte{args[0]}}
			parts[slot] = p
		}
		p.args, p.keys = append(p.args, args[i:i+step]...), append(p.keys, n)
	}
	// Keys of one slot are one part: a node may own hundreds of slots, but its
	// parts wait for each other on one connection only.
	if !c.room(int64(len(args)) * 64) {
		return false
	}
	c.away(func() {
		v := c.srv.view()
		limit := make(chan struct{}, 64)
		var wg sync.WaitGroup
		for slot, p := range parts {
			if c.srv.here(v, slot) {
				continue
			}
			limit <- struct{}{}
			wg.Go(func() {
				p.reply = c.srv.askOwner(slot, c.V3, p.args)
				<-limit
			})
		}
		wg.Wait()
	})
	for _, p := range parts {
		if p.reply == nil {
			p.reply = c.runHere(cmd, p.args)
		}
	}
	var replies [][]byte
	var keys [][]int
	for _, p := range parts {
		replies, keys = append(replies, p.reply), append(keys, p.keys)
	}
	c.pass(joined(by, replies, keys, c.V3))
	return false
}

// runHere runs a part of a command on this node and takes its answer.
func (c *conn) runHere(cmd *command, args [][]byte) []byte {
	v := c.srv.view()
	slot := uint16(0)
	cmd.eachKey(args, func(key []byte) { slot = c.srv.o.Cluster.KeySlot(key) }) // they have the same
	if cmd.keys[0] != 0 && (c.asleep || !c.srv.here(v, slot)) {
		return []byte("-" + errClusterDown + "\r\n")
	}
	// The answer goes to a buffer of its own: what was answered before may be
	// written meanwhile.
	before, at, tx := c.B, c.at, c.tx
	c.B, c.at = nil, 0
	c.tx = &transaction{running: true} // nothing is written before it is whole
	if !cmd.container(args) {
		cmd.run(c, args)
	} else if sub := c.subOf(cmd, args); sub != nil {
		sub.run(c, args)
	}
	reply := c.B
	c.B, c.at, c.tx = before, at, tx
	c.wrote(cmd, args)
	c.tellsBroadcasts()
	return reply
}

// maxSubcommand is longer than the name of any.
const maxSubcommand = 32

// proxyEverywhere asks all nodes what is about all of them. It reports true if
// the command is this node's alone.
func (c *conn) proxyEverywhere(v *ClusterView, cmd *command, args [][]byte) bool {
	name := cmd.name
	if cmd.subs != nil && len(args) > 1 {
		name += "|" + string(resp.Lower(nil, args[1][:min(len(args[1]), maxSubcommand)]))
	}
	by := ofAll[name]
	if name == "scan" && (c.tx == nil || !c.tx.open) {
		return c.proxyScan(v, cmd, args)
	}
	if by == joinNot || c.tx != nil && c.tx.open {
		return true
	}
	replies := make([][]byte, len(v.Nodes))
	c.away(func() {
		var wg sync.WaitGroup
		for i := range v.Nodes {
			if i != v.Self {
				wg.Go(func() {
					var err error
					if replies[i], _, err = c.srv.peerAt(v.Nodes[i].address(), c.V3).do(args); err != nil {
						replies[i] = []byte("-CLUSTERDOWN " + strings.ReplaceAll(err.Error(), "\r\n", " ") + "\r\n")
					}
				})
			}
		}
		wg.Wait()
	})
	own := c.runHere(cmd, args)
	if v.Self >= 0 {
		replies[v.Self] = own
	}
	c.pass(joined(by, replies, nil, c.V3))
	return false
}
