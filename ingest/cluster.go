package ingest

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"mcached/kvcache"
)

// A ClusterView is what a server knows of the cluster that it is one of, for
// clients: which node owns which slot. It is immutable.
//
// Clients see Redis Cluster with masters only. Copies of a slot are no replicas
// of one master, and clients take masters that are listed as each other's
// replicas for one. Nothing ever migrates by hand, so there is no ASK.
type ClusterView struct {
	Nodes []ClusterNode
	Self  int // in Nodes; -1: this server tells no address of its own
	// Group is how many neighbouring slots have the same owners; Owners are
	// Copies of them for each group, as numbers in Nodes, the one that serves the
	// slot first.
	Group, Copies int
	Owners        []uint16
	// Promised says of each group whether its second owner is to be the first as soon
	// as it has the group's keys. Nil is for none.
	Promised []bool
	// Epoch is another one for other nodes.
	Epoch uint64
	// Down says that nothing is to be served: the daemon looks for the others.
	Down bool
}

// A ClusterNode serves Redis clients.
type ClusterNode struct {
	ID   string // 40 hexadecimal digits
	Host string // a literal address
	Port int
}

func (n *ClusterNode) address() string { return n.Host + ":" + strconv.Itoa(n.Port) }

// clusterSlots is how many there are, in Redis Cluster.
const clusterSlots = 16384

// ClusterOptions make a server one of several. It serves no keys until
// SetCluster.
type ClusterOptions struct {
	// KeySlot is the slot of a key. Required.
	KeySlot func(key []byte) uint16
	// Proxy has commands for other nodes' keys passed on, instead of clients
	// redirected.
	Proxy bool
	// Copies of each key: 1, or 2 to have the keys of a node live on at another when
	// it is lost. Then ClusterView.Copies is as many where there are as many nodes. Default 1.
	Copies int
	// Dial connects to another node. Default: plain TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Prove answers another node's challenge, and Proven says whether an answer to
	// ours is right. Required.
	Prove  func(challenge []byte) []byte
	Proven func(challenge, answer []byte) bool
	// Series finds the series of all nodes, for TS.MRANGE and its like, and what
	// Server.SeriesKeys of all nodes says of the same filters. What it holds is
	// taken from lend, by any goroutine. Default: these commands are about this
	// node alone.
	Series func(ctx context.Context, s SeriesSelection, lend func(bytes int64) error) (SeriesOfAll, error)
	// Reassure returns when other nodes have said whether they had this one's slots,
	// Server.Displaced has been called if so, or nobody is to be waited for. It is
	// called when this node stood still for a second or more, by one goroutine; no keys
	// are served until it returns. Default: standing still is not noticed.
	Reassure func(ctx context.Context)
}

// clusterState is what a server knows of its cluster.
//
// A key must never be answered with a value that was written before another
// node had the key. So when a slot goes to another node, its keys are removed
// here, and should it come back before that is done, it is not served until
// then. What was running while the slot went is waited for first: each command
// runs behind a gate, and sees one view from there on.
type clusterState struct {
	view atomic.Pointer[ClusterView]
	// unclean units may have keys here of a time since when others had them.
	unclean [clusterSlots / unitSlots]atomic.Bool
	some    atomic.Bool // any is

	mu       sync.Mutex
	marked   [clusterSlots / unitSlots]uint64 // the round in which a unit became unclean
	round    uint64
	cleaning bool

	peers peers
}

// unitSlots is the smallest number of neighbouring slots that have the same owners.
const unitSlots = 4

// SetCluster tells the server of other nodes or owners. v is not changed any more.
func (s *Server) SetCluster(v *ClusterView) {
	st := &s.cluster
	st.mu.Lock()
	defer st.mu.Unlock()
	old := st.view.Load()
	s.setViewLocked(v, func(slot uint16) bool { return old.keeps(slot) && !v.keeps(slot) })
}

// Displaced tells the server that other nodes had all of its slots for a time, of which
// SetCluster was not told. It is as if they had gone and come back: when it returns
// none of them is served before its keys are removed.
//
// What this node has as an heir it keeps: whether that may be believed others say
// when it is needed.
func (s *Server) Displaced() {
	st := &s.cluster
	st.mu.Lock()
	defer st.mu.Unlock()
	v := st.view.Load()
	if v == nil {
		return
	}
	if s.copies != nil {
		s.copies.held, s.copies.taking = unitSet{}, unitSet{} // to be taken anew
		clear(s.copies.yielded)
	}
	s.o.Logger.Warn("Other members served this node's keys for a time: it forgets what it had of them.")
	s.setViewLocked(v, func(slot uint16) bool { return s.copies == nil && v.keeps(slot) })
}

// setViewLocked has a view from now on, and slots emptied that were lost. mu is held.
func (s *Server) setViewLocked(v *ClusterView, loses func(slot uint16) bool) {
	st := &s.cluster
	st.round++
	lost := false
	for u := range st.unclean {
		slot := uint16(u * unitSlots)
		if gained := s.copies.gains(v, u); gained || loses(slot) {
			st.unclean[u].Store(true)
			st.marked[u], lost = st.round, true
		}
	}
	if lost {
		st.some.Store(true)
	}
	st.view.Store(v)
	st.peers.keep(v)
	if s.copies != nil {
		s.copies.rebuild(v)
	}
	if !lost {
		return
	}
	s.settle()
	if !st.cleaning && s.hold() {
		st.cleaning = true
		go s.clean()
	}
}

// settle returns when every command that runs now has ended.
func (s *Server) settle() {
	s.mu.Lock()
	all := slices.Clone(s.gates.all) // loops may be starting
	s.mu.Unlock()
	s.gates.mu.Lock()
	defer s.gates.mu.Unlock()
	for _, gate := range all {
		gate.Lock()
	}
	for _, gate := range all {
		gate.Unlock()
	}
}

// hold has Shutdown wait until s.wg.Done, unless it has begun.
func (s *Server) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.wg.Add(1)
	}
	return !s.closing
}

// clean removes the keys of unclean units, some 0.2 µs for each key that is here.
func (s *Server) clean() {
	defer s.wg.Done()
	st := &s.cluster
	for {
		st.mu.Lock()
		round, some, any := st.round, false, false
		for u := range st.unclean {
			if st.unclean[u].Load() {
				some, any = true, any || !s.copies.waits(u)
			}
		}
		if !any {
			st.some.Store(some)
			st.cleaning = false
			st.mu.Unlock()
			return
		}
		st.mu.Unlock()
		if s.copies != nil {
			s.copies.take(round)
		}
		if !s.cleanAll() {
			return // the server ends
		}
		st.mu.Lock()
		for u := range st.unclean {
			if st.marked[u] <= round && !s.copies.waits(u) {
				st.unclean[u].Store(false)
			}
		}
		st.mu.Unlock()
	}
}

// cleanAll walks over all keys once.
func (s *Server) cleanAll() bool {
	cache := s.o.Blobs.At(0) // the only database of a cluster
	var batch []byte
	var ends []int
	for cursor := uint64(0); ; {
		batch, ends = batch[:0], ends[:0]
		cursor = cache.Scan(cursor, scanStep, func(key []byte, _ kvcache.Entry) {
			if s.cluster.unclean[s.o.Cluster.KeySlot(key)/unitSlots].Load() {
				batch = append(batch, key...)
				ends = append(ends, len(batch))
			}
		})
		at := 0
		for _, end := range ends {
			cache.Delete(batch[at:end])
			s.wroteKeys(0, [][]byte{batch[at:end]})
			at = end
		}
		if cursor == 0 {
			return true
		}
		select {
		case <-s.stop:
			return false
		default:
		}
	}
}

// keeps says whether this node holds a slot's keys, as the one that serves it or
// as another owner.
func (v *ClusterView) keeps(slot uint16) bool {
	return v != nil && v.Self >= 0 && v.Copies > 0 && slices.Contains(v.ownersOf(slot), uint16(v.Self))
}

// nowhere is the view of a server that was told of none.
var nowhere = &ClusterView{Self: -1, Down: true}

// view is that of the cluster, nil without one.
func (s *Server) view() *ClusterView {
	if s.o.Cluster == nil {
		return nil
	}
	if v := s.cluster.view.Load(); v != nil {
		return v
	}
	return nowhere
}

// redirects says whether clients are shown a cluster.
func (s *Server) redirects() bool { return s.o.Cluster != nil && !s.o.Cluster.Proxy }

// mode is what clients are told that the server is.
func (s *Server) mode() string {
	if s.redirects() {
		return "cluster"
	}
	return "standalone"
}

// ownersOf are those of a slot. It is empty if no node serves clients.
func (v *ClusterView) ownersOf(slot uint16) []uint16 {
	return v.Owners[int(slot)/v.Group*v.Copies:][:v.Copies]
}

// has says whether there is a node of that ID.
func (v *ClusterView) has(id string) bool {
	return slices.ContainsFunc(v.Nodes, func(n ClusterNode) bool { return n.ID == id })
}

// promised says whether a slot's second owner is to be the first.
func (v *ClusterView) promised(slot uint16) bool {
	return v.Promised != nil && v.Copies > 1 && v.Promised[int(slot)/v.Group]
}

// servedBy is the node that serves a slot, -1 for none.
func (v *ClusterView) servedBy(slot uint16) int {
	if v.Down || v.Copies == 0 {
		return -1
	}
	return int(v.ownersOf(slot)[0])
}

// ranges are the slots that a node serves, as first and last ones, of all nodes
// if it is -1, joined where neighbours have the same owner.
func (v *ClusterView) ranges(node int) (all []slotRange) {
	if v.Copies == 0 || v.Down {
		return nil
	}
	for slot := 0; slot < clusterSlots; slot += v.Group {
		owner := v.servedBy(uint16(slot))
		if node >= 0 && owner != node {
			continue
		}
		if n := len(all); n > 0 && all[n-1].owner == owner && all[n-1].last == slot-1 {
			all[n-1].last += v.Group
			continue
		}
		all = append(all, slotRange{slot, slot + v.Group - 1, owner})
	}
	return all
}

type slotRange struct{ first, last, owner int }

const (
	errCrossSlot   = "CROSSSLOT Keys in request don't hash to the same slot"
	errClusterDown = "CLUSTERDOWN Hash slot not served"
	// errTablesDiffer is what one node answers another that takes it for the owner.
	errTablesDiffer = "TRYAGAIN this node does not serve the slot"
	// errStoodStill is what clients try again after, see pulse.
	errStoodStill = errClusterDown + ": this node stood still and asks others what it missed"
	errNoCluster  = "ERR This instance has cluster support disabled"
)

// withKeys is the command of the table, or its subcommand, that says where keys
// are among the arguments.
func (m *command) withKeys(args [][]byte) *command {
	if m.subs != nil && len(args) > 1 {
		if sub := m.sub(args[1]); sub != nil && sub.keys[0] != 0 {
			return sub
		}
	}
	return m
}

// here says whether this node serves a slot now.
func (s *Server) here(v *ClusterView, slot uint16) bool {
	return v.Self >= 0 && v.servedBy(slot) == v.Self && !(s.cluster.some.Load() && s.cluster.unclean[slot/unitSlots].Load())
}

// belongsHere says whether this node serves a key, for commands of which that
// is all there is to ask.
func (c *conn) belongsHere(key []byte) bool {
	v := c.srv.view()
	return v == nil || !c.asleep && c.srv.here(v, c.srv.o.Cluster.KeySlot(key))
}

// belongs is where every command that names keys is let through or sent to its
// node: the only place, but for bundles, that take nothing which does not belong
// here. It reports false when the command was answered: by an error that sends
// the client to the right node, or by that node, if this one passes commands on.
func (c *conn) belongs(cmd *command, args [][]byte) bool {
	v := c.srv.view()
	if v == nil {
		return true
	}
	slot, none, several := c.srv.slotOf(cmd, args)
	proxy := c.srv.o.Cluster.Proxy && !c.peer
	switch node := v.servedBy(slot); {
	case none:
		return !proxy || c.proxyEverywhere(v, cmd, args)
	case several && proxy:
		return c.proxySeveral(cmd, args)
	case several && !c.peer:
		c.Fail(errCrossSlot)
	case node >= 0 && node == v.Self && c.asleep:
		c.Fail(errStoodStill)
	case node >= 0 && node == v.Self && !c.srv.here(v, slot):
		c.Fail(errClusterDown + ": this node forgets what it had of the slot before")
	case node >= 0 && node == v.Self:
		return true
	case c.peer:
		c.Fail(errTablesDiffer) // one hop: whoever passed it on looks again
	case node < 0:
		c.Fail(errClusterDown)
	case proxy:
		return c.proxy(slot, cmd, args)
	default:
		c.srv.counters.moved.Add(1)
		c.Fail("MOVED " + strconv.Itoa(int(slot)) + " " + v.Nodes[node].address())
	}
	return false
}

// slotOf is the slot of a command's first key, whether it has none, and whether
// others have another one.
func (s *Server) slotOf(cmd *command, args [][]byte) (slot uint16, none, several bool) {
	none = true
	cmd.withKeys(args).eachKey(args, func(key []byte) {
		k := s.o.Cluster.KeySlot(key)
		several = several || !none && k != slot
		if none {
			slot, none = k, false
		}
	})
	return slot, none, several
}

// scriptSlot is the slot that the keys of a script's commands have; none before
// the first of them.
type scriptSlot struct {
	slot  uint16
	known bool
}

// refuses is what a script is told instead of running a command: what it may name
// are keys that this node serves, though the script's own keys were let through
// by belongs. It returns "" if nothing speaks against it.
func (at *scriptSlot) refuses(s *Server, oneSlot bool, args [][]byte) string {
	v := s.view()
	if v == nil {
		return ""
	}
	cmd := s.commands.find(args[0]) // which says where keys are, though it may have subcommands
	slot, none, several := s.slotOf(cmd, args)
	switch {
	case none:
		return ""
	case several && !s.o.Cluster.Proxy || !s.here(v, slot) || !s.pulse.runs(s.nanos()):
		return errScriptElsewhere
	case several:
		// Clients that know nothing of slots may name several of this node's in one.
		here := true
		cmd.withKeys(args).eachKey(args, func(key []byte) { here = here && s.here(v, s.o.Cluster.KeySlot(key)) })
		if !here {
			return errScriptElsewhere
		}
	case oneSlot && at.known && at.slot != slot:
		return "ERR Script attempted to access keys that do not hash to the same slot"
	}
	at.slot, at.known = slot, true
	return ""
}

const errScriptElsewhere = "ERR Script attempted to access a non local key in a cluster node"

// queuedElsewhere is why a transaction is not run: its slot may have gone since its
// commands were queued. It returns "" if nothing speaks against it.
func (c *conn) queuedElsewhere(queue [][][]byte) string {
	v := c.srv.view()
	if v == nil {
		return ""
	}
	at := scriptSlot{}
	for _, args := range queue {
		slot, none, _ := c.srv.slotOf(c.srv.commands.find(args[0]), args)
		if none {
			continue
		}
		if at.known && at.slot != slot && !c.srv.o.Cluster.Proxy {
			return errCrossSlot
		}
		if problem := c.slotElsewhere(v, slot); problem != "" {
			return problem
		}
		at = scriptSlot{slot, true}
	}
	return ""
}

// slotElsewhere is what is answered instead of running what is about a slot and runs
// alone; "" if this node serves it.
func (c *conn) slotElsewhere(v *ClusterView, slot uint16) string {
	node := v.servedBy(slot)
	switch {
	case node == v.Self && c.asleep:
		return errStoodStill
	case c.srv.here(v, slot):
		return ""
	case node < 0 || node == v.Self:
		return errClusterDown
	case c.peer:
		return errTablesDiffer
	case c.srv.o.Cluster.Proxy:
		return errTxProxied
	}
	c.srv.counters.moved.Add(1)
	return "MOVED " + strconv.Itoa(int(slot)) + " " + v.Nodes[node].address()
}
