package ingest

import (
	"fmt"
	"strings"

	"mcached/kvcache"
)

// clusterCommands are what clients of Redis Cluster ask.
func clusterCommands() []command {
	accepted := func(c *conn, _ [][]byte) {
		if c.srv.o.Cluster == nil {
			c.Fail(errNoCluster)
			return
		}
		c.OK()
	}
	sub := func(name string, arity int, syntax, summary string, run func(c *conn, v *ClusterView, args [][]byte)) command {
		return command{name: name, arity: arity, syntax: syntax, summary: summary, run: func(c *conn, args [][]byte) {
			if v := c.srv.view(); v != nil {
				run(c, v, args)
			} else {
				c.Fail(errNoCluster)
			}
		}}
	}
	none := func(c *conn, _ *ClusterView, _ [][]byte) { c.Array(0) }
	count := sub("countkeysinslot", 3, "slot", "Counts the keys of a slot that are here.", clusterCountKeys)
	get := sub("getkeysinslot", 4, "slot count", "Returns keys of a slot that are here.", clusterGetKeys)
	count.flags, get.flags = slow, slow
	return []command{
		{name: "cluster", arity: -2, group: groupServer, syntax: "SLOTS | SHARDS | NODES | INFO | MYID | KEYSLOT key | …", summary: "Tells which node owns which keys; see --cluster.join.", subs: []command{
			sub("slots", 2, "", "Lists ranges of slots with their nodes.", clusterSlotsCommand),
			sub("shards", 2, "", "Lists nodes with their ranges of slots.", clusterShards),
			sub("nodes", 2, "", "Describes the nodes, a line each.", clusterNodes),
			sub("info", 2, "", "Returns the cluster's state.", clusterInfo),
			sub("myid", 2, "", "Returns this node's ID.", func(c *conn, v *ClusterView, _ [][]byte) { c.BulkString(v.myID()) }),
			sub("keyslot", 3, "key", "Returns the slot of a key.", func(c *conn, _ *ClusterView, args [][]byte) { c.Int(int64(c.srv.o.Cluster.KeySlot(args[2]))) }),
			count, get,
			sub("replicas", 3, "node-id", "Returns none: copies are no replicas of a node.", none),
			sub("links", 2, "", "Returns none: nodes gossip without lasting connections.", none),
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("cluster") }},
		}},
		{name: "readonly", arity: 1, group: groupConnection, summary: "Is accepted: there are only masters to read from.", flags: fast, run: accepted},
		{name: "readwrite", arity: 1, group: groupConnection, summary: "Is accepted.", flags: fast, run: accepted},
		{name: "mc.peer", arity: -1, group: groupServer, syntax: "[answer]", summary: "Is for the nodes of a cluster, to know each other by.", flags: noauth | fast, run: mcPeer},
		{name: "mc.copy", arity: -3, group: groupServer, syntax: "what session [arg ...]", summary: "Is for the nodes of a cluster, to keep copies of each other's keys.", flags: noauth | noscript | fast, run: mcCopy},
		{name: "asking", arity: 1, group: groupConnection, summary: "Is accepted: no slot is ever on its way.", flags: fast, run: accepted},
	}
}

// noNode is the ID of a node that clients are not told of.
const noNode = "0000000000000000000000000000000000000000"

func (v *ClusterView) myID() string {
	if v.Self < 0 {
		return noNode
	}
	return v.Nodes[v.Self].ID
}

func clusterSlotsCommand(c *conn, v *ClusterView, _ [][]byte) {
	ranges := v.ranges(-1)
	c.Array(len(ranges))
	for _, r := range ranges {
		n := &v.Nodes[r.owner]
		c.Array(3)
		c.Int(int64(r.first))
		c.Int(int64(r.last))
		c.Array(4)
		c.BulkString(n.Host)
		c.Int(int64(n.Port))
		c.BulkString(n.ID)
		c.Array(0) // metadata
	}
}

func clusterShards(c *conn, v *ClusterView, _ [][]byte) {
	c.Array(len(v.Nodes))
	for i := range v.Nodes {
		n, ranges := &v.Nodes[i], v.ranges(i)
		c.MapOf(2)
		c.BulkString("slots")
		c.Array(2 * len(ranges))
		for _, r := range ranges {
			c.Int(int64(r.first))
			c.Int(int64(r.last))
		}
		c.BulkString("nodes")
		c.Array(1)
		c.MapOf(7)
		for _, kv := range [][2]string{{"id", n.ID}, {"ip", n.Host}, {"endpoint", n.Host}, {"role", "master"}, {"health", "online"}} {
			c.BulkString(kv[0])
			c.BulkString(kv[1])
		}
		c.BulkString("port")
		c.Int(int64(n.Port))
		c.BulkString("replication-offset")
		c.Int(0)
	}
}

func clusterNodes(c *conn, v *ClusterView, _ [][]byte) {
	var b strings.Builder
	for i := range v.Nodes {
		n, flags := &v.Nodes[i], "master"
		if i == v.Self {
			flags = "myself,master"
		}
		fmt.Fprintf(&b, "%s %s@%d %s - 0 0 %d connected", n.ID, n.address(), n.Port, flags, v.Epoch)
		for _, r := range v.ranges(i) {
			if r.first == r.last {
				fmt.Fprintf(&b, " %d", r.first)
			} else {
				fmt.Fprintf(&b, " %d-%d", r.first, r.last)
			}
		}
		b.WriteByte('\n')
	}
	c.Text(b.String())
}

func clusterInfo(c *conn, v *ClusterView, _ [][]byte) {
	state, slots := "ok", clusterSlots
	if v.Down || v.Copies == 0 {
		state, slots = "fail", 0
	}
	c.Text(fmt.Sprintf("cluster_enabled:1\r\ncluster_state:%s\r\ncluster_slots_assigned:%d\r\ncluster_slots_ok:%d\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n"+
		"cluster_known_nodes:%d\r\ncluster_size:%d\r\ncluster_current_epoch:%d\r\ncluster_my_epoch:%d\r\ncluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n",
		state, slots, slots, len(v.Nodes), len(v.Nodes), v.Epoch, v.Epoch))
}

// slotArg reads a slot's number or answers what is wrong with it.
func (c *conn) slotArg(b []byte) (uint16, bool) {
	n, ok := c.integerArg(b)
	if ok && (n < 0 || n >= clusterSlots) {
		c.Fail("ERR Invalid slot")
		ok = false
	}
	return uint16(n), ok
}

// clusterCountKeys looks at every key that is here.
func clusterCountKeys(c *conn, _ *ClusterView, args [][]byte) {
	slot, ok := c.slotArg(args[2])
	if !ok {
		return
	}
	n := int64(0)
	c.inSlot(slot, func([]byte) bool { n++; return true })
	c.Int(n)
}

// clusterGetKeys looks at keys until it has found as many as are wanted.
func clusterGetKeys(c *conn, _ *ClusterView, args [][]byte) {
	slot, ok := c.slotArg(args[2])
	if !ok {
		return
	}
	most, ok := c.integerArg(args[3])
	if !ok {
		return
	}
	if most < 0 {
		c.Fail("ERR Invalid number of keys")
		return
	}
	var found []string
	bytes := int64(0)
	c.inSlot(slot, func(key []byte) bool {
		if int64(len(found)) >= most {
			return false
		}
		found = append(found, string(key))
		bytes += int64(len(key)) + 16
		return bytes < int64(c.srv.o.MaxCommandBytes)
	})
	if c.room(bytes) {
		c.strings(found)
	}
}

// inSlot calls f, under a lock of the cache, with the keys of a slot that are
// here, until it says no.
func (c *conn) inSlot(slot uint16, f func(key []byte) bool) {
	for cursor, on := uint64(0), true; on; {
		cursor = c.cache().Scan(cursor, scanStep, func(key []byte, _ kvcache.Entry) {
			on = on && (c.srv.o.Cluster.KeySlot(key) != slot || !c.srv.shows(key) || f(key))
		})
		on = on && cursor != 0
	}
}
