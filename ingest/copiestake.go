package ingest

import (
	"slices"
	"sync"
	"time"
)

// This file is about units that go from one node to another: see copies.go.

// mcCopyTake is a node that takes units, and asks for sessions.
func mcCopyTake(c *conn, taker string, rest [][]byte) {
	var units unitSet
	ok := len(rest) > 0
	if ok {
		units, ok = decodeUnits(rest[0])
	}
	if !ok {
		c.Fail(errSyntax)
		return
	}
	ids := make([]string, len(rest)-1)
	for i, a := range rest[1:] {
		ids[i] = string(a)
	}
	var confirmed []byte
	c.away(func() { confirmed = c.srv.copies.takenBy(taker, &units, ids) })
	c.Bulk(confirmed)
}

// mcCopyServes is a node that yielded units, and asks which of them this one has.
func mcCopyServes(c *conn, rest [][]byte) {
	if len(rest) == 1 {
		if units, ok := decodeUnits(rest[0]); ok {
			var has unitSet
			c.away(func() { has = c.srv.copies.serves(&units) }) // a change of the view waits for commands
			c.Bulk(has.encode())
			return
		}
	}
	c.Fail(errSyntax)
}

// serves are those of units that are this node's. It may have to wait for a change of
// the view, which waits for all commands behind a gate.
func (k *copies) serves(units *unitSet) unitSet {
	k.srv.cluster.mu.Lock()
	defer k.srv.cluster.mu.Unlock()
	has := k.held
	has.join(&k.taking)
	return has.and(units)
}

// confirm says whether a session that this node is a witness of is complete and not
// void. Its heir asks, and goes on with it then. mu is held.
func (k *copies) confirm(taker, name string) bool {
	id, _ := readSessionID(name)
	w := k.seen[id.pair]
	if w == nil || w.serial != id.serial || w.void || id.heir != taker {
		return false
	}
	w.taken = time.Now()
	return true
}

// overtake makes what others had of units void, and forgets what nobody will ask for.
// mu is held.
func (k *copies) overtake(taker string, units *unitSet) {
	v := k.srv.view()
	for p, w := range k.seen {
		if w.units.meets(units) && (w.taken.IsZero() || p.heir != taker) {
			w.void = true
		}
		gone := !slices.ContainsFunc(v.Nodes, func(n ClusterNode) bool { return n.ID == p.origin })
		if gone && (w.void || !w.taken.IsZero() && time.Since(w.taken) > takenFor) {
			delete(k.seen, p)
		}
	}
	k.closeIncoming(units)
}

// takenFor is how long the origin of a session may live on without being in the
// cluster, and is told that it was taken.
const takenFor = time.Minute

// takenBy is that another node takes units. It says of each of its sessions whether it is
// confirmed.
func (k *copies) takenBy(taker string, units *unitSet, ids []string) (confirmed []byte) {
	k.mu.Lock()
	for _, id := range ids {
		confirmed = append(confirmed, '0')
		if k.confirm(taker, id) {
			confirmed[len(confirmed)-1] = '1'
		}
	}
	k.overtake(taker, units)
	var awaited []*outgoing
	for o := range k.out {
		if o.role == (heirRole{taker, true}) && o.units.meets(units) {
			awaited = append(awaited, o)
		}
	}
	k.mu.Unlock()

	st := &k.srv.cluster
	st.mu.Lock()
	mine := k.held.and(units)
	begun := k.taking.and(units)
	mine.join(&begun)
	if !mine.empty() {
		k.yield(&mine, taker)
		k.rebuild(st.view.Load())
	}
	st.mu.Unlock()
	for _, o := range awaited {
		o.lose()
	}
	if !mine.empty() {
		k.srv.settle()
	}
	return confirmed
}

// yield is what became of a unit that this node's view says is its own.
type yield struct {
	to    string // a node, by its ID
	seen  bool   // it was in a view
	until time.Time
}

// yield gives up units of this node's that another one took. clusterState.mu is held.
func (k *copies) yield(units *unitSet, to string) {
	if units.empty() {
		return
	}
	k.held.remove(units)
	k.taking.remove(units)
	y := yield{to, k.srv.view().has(to), time.Now().Add(takeWait)}
	for u := range copyUnits {
		if units.has(u) {
			k.yielded[u] = y
		}
	}
	k.srv.soil(units)
	k.lookLater()
}

// lookLater has retake called. clusterState.mu is held.
func (k *copies) lookLater() {
	if k.looks || len(k.yielded) == 0 || !k.srv.hold() {
		return
	}
	k.looks = true
	go func() {
		defer k.srv.wg.Done()
		select {
		case <-time.After(yieldLook):
			k.retake()
		case <-k.srv.stop:
		}
	}()
}

// retake takes what was yielded, is by the view this node's still, and who took it does
// not have: that one's view has changed meanwhile.
func (k *copies) retake() {
	st := &k.srv.cluster
	st.mu.Lock()
	v, takers := st.view.Load(), map[string]*unitSet{}
	for u, y := range k.yielded {
		if takers[y.to] == nil {
			takers[y.to] = new(unitSet)
		}
		takers[y.to].add(u)
	}
	st.mu.Unlock()
	given := map[string]unitSet{} // up, by who took them
	for _, n := range v.Nodes {
		units := takers[n.ID]
		if units == nil {
			continue
		}
		var reply []byte
		if err := k.ask(k.srv.peerFor(n.address(), peerControl), k.answer, [][]byte{[]byte("MC.COPY"), []byte("serves"), []byte(n.ID), units.encode()}, &reply); err != nil {
			continue
		}
		if has, ok := decodeUnits(bulkOf(reply)); ok {
			units.remove(&has)
			given[n.ID] = *units
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for u, y := range k.yielded {
		if units := given[y.to]; units.has(u) {
			y.until = time.Time{}
			k.yielded[u] = y
		}
	}
	k.srv.setViewLocked(st.view.Load(), func(uint16) bool { return false })
	k.looks = false
	k.lookLater()
}

// waits says whether a unit stays unclean because it is another node's.
// clusterState.mu is held.
func (k *copies) waits(unit int) bool {
	if k == nil {
		return false
	}
	_, ok := k.yielded[unit]
	return ok
}

// soil has units emptied before they are served again. clusterState.mu is held.
func (s *Server) soil(units *unitSet) {
	if units.empty() {
		return
	}
	st := &s.cluster
	st.round++
	for u := range st.unclean {
		if units.has(u) {
			st.unclean[u].Store(true)
			st.marked[u] = st.round
		}
	}
	st.some.Store(true)
	if !st.cleaning && s.hold() {
		st.cleaning = true
		go s.clean()
	}
}

// gains says whether what is here of a unit is to be removed: this node is to take it,
// or has yielded it and learns that it is another's. It notes what this node serves no
// more. clusterState.mu is held.
func (k *copies) gains(v *ClusterView, unit int) bool {
	if k == nil {
		return false
	}
	y, yielded := k.yielded[unit]
	if node := v.servedBy(uint16(unit * unitSlots)); node < 0 || node != v.Self {
		k.held[unit/64] &^= 1 << (unit % 64)
		k.taking[unit/64] &^= 1 << (unit % 64)
		delete(k.yielded, unit)
		return yielded
	}
	if k.held.has(unit) || k.taking.has(unit) {
		return false
	}
	if yielded && time.Now().Before(y.until) && (!y.seen || v.has(y.to)) {
		y.seen = v.has(y.to)
		k.yielded[unit] = y
		return false
	}
	delete(k.yielded, unit)
	k.taking.add(unit)
	k.routes[unit].Store(nil) // a session of before, which may have been taken, is not about what is written from now on
	return true
}

// take takes what became this node's until a round of clusterState. What it has no
// copies of that are confirmed stays to be removed.
func (k *copies) take(round uint64) {
	st := &k.srv.cluster
	st.mu.Lock()
	units := k.taking
	st.mu.Unlock()
	if units.empty() {
		return
	}
	own, had := k.adopts(&units)
	ids := make([]string, 0, len(own))
	for id := range own {
		ids = append(ids, id)
	}
	confirmed := k.announce(&units, ids)
	var adopted unitSet
	for i, id := range ids {
		if confirmed[i] {
			adopted.join(&own[id].units)
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	k.mu.Lock()
	newest := k.serial
	k.mu.Unlock()
	for u := range copyUnits {
		if !units.has(u) || !k.taking.has(u) || st.marked[u] > round {
			continue
		}
		k.taking[u/64] &^= 1 << (u % 64)
		k.held.add(u)
		k.takenAt[u] = newest
		if adopted.has(u) {
			st.unclean[u].Store(false)
			k.count.adopted.Add(1)
		} else if had.has(u) {
			k.count.dropped.Add(1)
		}
	}
	k.rebuild(st.view.Load())
}

// adopts closes this node's sessions about units and returns those that are complete,
// and what any are about.
func (k *copies) adopts(units *unitSet) (own map[string]*incoming, had unitSet) {
	own = map[string]*incoming{}
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, s := range k.in {
		if !s.units.meets(units) {
			continue
		}
		had.join(&s.units)
		s.mu.Lock()
		if s.done && !s.closed {
			own[id] = s
		}
		s.closed, s.taken = true, true
		s.mu.Unlock()
	}
	return own, had
}

// announce tells all members that units are taken, and returns when all know, or all but
// one and each session is confirmed, or time is up: with which of the sessions are. With
// three members the one that is left may be the only witness.
func (k *copies) announce(units *unitSet, ids []string) (confirmed []bool) {
	confirmed = make([]bool, len(ids))
	heard := map[string]bool{}
	for deadline := time.Now().Add(takeWait); ; {
		v := k.srv.view()
		var left []ClusterNode
		for i, n := range v.Nodes {
			if i != v.Self && !heard[n.ID] {
				left = append(left, n)
			}
		}
		missing := 0
		for i, says := range k.askForUnits(v.myID(), left, units, ids) {
			if says == nil {
				missing++
				continue
			}
			heard[left[i].ID] = true
			for j, c := range says[:min(len(says), len(ids))] {
				confirmed[j] = confirmed[j] || c == '1'
			}
		}
		if missing == 0 || missing == 1 && !slices.Contains(confirmed, false) || time.Now().After(deadline) {
			return confirmed
		}
		select {
		case <-time.After(copyAgain):
		case <-k.srv.stop:
			return confirmed
		}
	}
}

// askForUnits tells nodes that units are taken, all at once, and returns what each says
// of the sessions, nil where one does not answer.
func (k *copies) askForUnits(self string, nodes []ClusterNode, units *unitSet, ids []string) [][]byte {
	args := [][]byte{[]byte("MC.COPY"), []byte("take"), []byte(self), units.encode()}
	for _, id := range ids {
		args = append(args, []byte(id))
	}
	says := make([][]byte, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			var reply []byte
			if err := k.ask(k.srv.peerFor(n.address(), peerControl), k.answer, args, &reply); err == nil || err == errKeepsNone {
				says[i] = append([]byte{}, bulkOf(reply)...)
			}
		})
	}
	wg.Wait()
	return says
}
