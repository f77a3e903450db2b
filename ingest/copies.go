package ingest

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// # Copies of keys
//
// With ClusterOptions.Copies = 2 the keys of a unit of slots live on at the second
// owner of the unit, its heir, when the first, which serves it, is lost. A key may be
// missing then; it never has a value that was written over, or deleted, in a command
// that was answered, as long as one member at a time fails. That is the hard part:
// whatever waits to be sent when a member dies is lost, and the heir cannot know what.
// So an answer waits until the heir has what it is about.
//
//	client ── SET ──▶ origin ── what became of the keys ──▶ heir
//	                    │  ◀────────── has it ────────────┘
//	client ◀── OK ──────┘            (or, if that takes long, told to the witnesses:
//	                                  the heir's copies are void)
//
// A session is all that an origin sends one heir, about all units that have these two
// as their first and second owner. Once it is complete, all other members are told
// that it is, again and again until each has said that it knows: they are its witnesses.
// A copy counts (Stats.UnitsCopied) when one of them does.
//
//   - begin: the heir removes what it has of these units, from whomever.
//   - fill: the origin walks over its keys and sends them, at a bounded rate, among
//     what is written meanwhile. What is sent is not the command but what the key is
//     now, by its whole value with its expiry, or that it is not. It is read under the
//     session's lock, in which it gets the next number, so what comes last is newest.
//   - complete: from here on an answer waits for the heir. A number that is not the
//     next ends the session at the heir.
//   - end: if the heir does not answer, or other owners are due, the session has to be
//     void before anybody is answered: the heir has said that it has none such, or all
//     witnesses that it is not to be trusted. Then answers wait for nobody until there
//     is a next session, which begins anew.
//
// Who becomes the first owner of units takes them: it tells all members so, and
// serves the units when all have said that they know, or all but one and its sessions
// are confirmed, or 5 s have passed. A member that is told stops serving these units, and
// sessions about them are over.
// One of the taker's own that is complete is confirmed by any witness that has not
// been told that it is void: then the taker goes on with the copies that it has. If
// nobody confirms it, all of these units is removed first.
//
// The taker's view may be newer than that of who is told, by some gossip: by its own
// view that one may serve the units still. It yields: it serves them no more until its
// view has changed, or the taker is lost or says that it does not have them any more, or
// takeWait has passed.
//
// Why it is right: a session that is complete at the heir, and not void, has all that
// was answered. That it is not void any witness can say, as all of them have to be told before
// an answer goes out that the heir does not have. Once the taker has closed the
// session it takes no more of it and the origin, should it live, is told that it was
// taken: it gives no answer then but closes the connection, and serves these units no more.
//
// A member that comes back is a new one, and has nothing. What it will serve is promised
// to it at first (ClusterView.Promised): it is the heir of whoever serves that, in a
// session of its own for each origin, because it will take these units and no others of
// that origin's. When all such sessions are complete and have a witness it says that it
// is ready (Server.OwedKeys). By the next view it is the first owner and takes the units
// as an heir does whose origin was lost. An origin that sees that view first serves them
// no more, and leaves the session as it is until it is taken.
//
// What follows from that:
//
//   - Two members keep no copies: there would be no witness, and the heir could not
//     tell the origin's death from a cut of the network.
//   - A cut that leaves the origin alone is not one failure of a member but of many:
//     both sides serve the keys then, as they do with one copy.
//   - One that stood still and was dropped meanwhile takes its units empty (Server.Displaced).
//   - Clients that read, not write, may be shown what the heir does not have yet.
//   - Series have copies of their own, by remotewrite/route; nothing is sent of them here.
//
// What is hooked is where writes are told to those who WATCH: every command that
// writes passes there with its keys, whether it was sent alone, in a bundle, a
// transaction or a script. FLUSHALL ends all sessions.

const (
	// copyMembers are an origin, an heir and a witness.
	copyMembers = 3
	// heirAnswer is how long an answer waits for an heir before it is passed over,
	// and voidWait until that is told; then the client's connection is closed.
	heirAnswer = 500 * time.Millisecond
	voidWait   = 10 * time.Second
	// An heir that has too much to do is waited for as long as heirTimes what it takes
	// to answer on average, heirMost at the most: to pass it over and send it all keys
	// anew would be more to do.
	heirTimes = 8
	heirMost  = 2 * time.Second
	// heirSmooth is the weight of the average against one answer's.
	heirSmooth = 8
	// takeWait is how long units wait until it is told that they are taken.
	takeWait = 5 * time.Second
	// yieldLook is between questions whether who took units has them.
	yieldLook = 300 * time.Millisecond
	// copyAgain is between tries to tell a member something, sessionAgain from the
	// end of a session that failed to the next with that heir.
	copyAgain    = 50 * time.Millisecond
	sessionAgain = time.Second
	// beginAnswer is how long an heir may take to remove what it has.
	beginAnswer = time.Minute
	// fillBytesPerS bounds what is sent of what was there before: a quarter of a
	// network of 1 Gbit/s.
	fillBytesPerS = 32 << 20
	// copyBatchBytes and copyBatchKeys bound a message, unless one value is longer.
	// Longer ones than copyValueBytes are not copied, but removed at the heir.
	copyBatchBytes = 1 << 20
	copyBatchKeys  = 256
	copyValueBytes = 16 << 20
	// changedKeys and changedBytes bound what one turn notes; with more all
	// sessions end.
	changedKeys  = 1 << 16
	changedBytes = 4 << 20
)

const (
	copyUnits = clusterSlots / unitSlots
	// copyMetaBytes are before the value of a key: its kind and its expiry.
	copyMetaBytes = 1 + 8

	errNoCopies     = "ERR this is for members of a cluster that keeps copies of keys"
	errNoSession    = "GONE there is no such session"
	errSessionTaken = "TAKEN another member serves these units"
)

var (
	errPassedOver    = errors.New("ingest: the heir has not what was written")
	errNoSuchSession = errors.New("ingest: the heir knows no such session")
	errKeepsNone     = errors.New("ingest: the member keeps no copies")
	errTakenOver     = errors.New("ingest: another member serves what was written")
)

// unitSet is a set of units of slots.
type unitSet [copyUnits / 64]uint64

func (s *unitSet) has(unit int) bool { return s[unit/64]&(1<<(unit%64)) != 0 }
func (s *unitSet) add(unit int)      { s[unit/64] |= 1 << (unit % 64) }

func (s *unitSet) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s *unitSet) empty() bool { return *s == unitSet{} }

func (s *unitSet) meets(o *unitSet) bool {
	both := s.and(o)
	return !both.empty()
}

func (s *unitSet) and(o *unitSet) (both unitSet) {
	for i := range s {
		both[i] = s[i] & o[i]
	}
	return both
}

func (s *unitSet) join(o *unitSet) {
	for i := range s {
		s[i] |= o[i]
	}
}

func (s *unitSet) remove(o *unitSet) {
	for i := range s {
		s[i] &^= o[i]
	}
}

func (s *unitSet) encode() []byte {
	b := make([]byte, 0, copyUnits/8)
	for _, w := range s {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func decodeUnits(b []byte) (s unitSet, ok bool) {
	if len(b) != copyUnits/8 {
		return s, false
	}
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s, true
}

// copies is what a server knows of sessions. It is nil with one copy of each key.
type copies struct {
	srv    *Server
	answer time.Duration // heirAnswer
	// routes are the sessions about units that this node serves.
	routes  [copyUnits]atomic.Pointer[outgoing]
	changes sync.Pool // *changes
	count   copyCounts

	// held are units that this node serves and has taken, taking those that it is
	// to serve. They need clusterState.mu, which is locked before mu.
	held, taking unitSet
	// takenAt is the newest session there was when a unit was taken last: older ones are
	// about what this node held of it before. It needs clusterState.mu.
	takenAt [copyUnits]uint64
	// yielded are units that another node took, though by the view they are this one's
	// still. It needs clusterState.mu.
	yielded map[int]yield
	looks   bool // retake will be called

	mu     sync.Mutex
	out    map[*outgoing]struct{} // that are not void
	after  map[string]time.Time   // by heir: not before
	in     map[string]*incoming   // by session
	seen   map[pair]*witnessed    // the newest of each two
	serial uint64                 // of the newest session in out
}

// copyCounts are counters of a Server's Stats.
type copyCounts struct {
	sent, received, passedOver, adopted, dropped atomic.Uint64
}

// addTo reads the counters.
func (k *copies) addTo(st *Stats) {
	if k == nil {
		return
	}
	st.KeysCopied, st.CopiesVoided = k.count.sent.Load(), k.count.passedOver.Load()
	st.UnitsAdopted, st.UnitsDropped = k.count.adopted.Load(), k.count.dropped.Load()
	k.mu.Lock()
	defer k.mu.Unlock()
	for o := range k.out {
		if o.whole.Load() && o.known.Load() {
			st.UnitsCopied += o.units.count()
		}
	}
}

func newCopies(s *Server) *copies {
	k := &copies{srv: s, answer: heirAnswer, out: map[*outgoing]struct{}{}, after: map[string]time.Time{}, in: map[string]*incoming{}, seen: map[pair]*witnessed{}, yielded: map[int]yield{}}
	k.changes.New = func() any { return new(changes) }
	return k
}

func (k *copies) unitOf(key []byte) int { return int(k.srv.o.Cluster.KeySlot(key)) / unitSlots }

// changes are keys that a connection has written, until their heirs have them.
type changes struct {
	keys []byte
	ends []int
	// routes are the sessions that the keys had when they were written. A later one
	// finds them when it is filled.
	routes []*outgoing
	all    bool // every key may have changed; then each session is in routes once
}

func (w *changes) reset() {
	if cap(w.keys) > 64<<10 {
		w.keys = nil
	}
	clear(w.routes)
	w.keys, w.ends, w.routes, w.all = w.keys[:0], w.ends[:0], w.routes[:0], false
}

// each calls f with the keys, which are views of w.
func (w *changes) each(f func(i int, key []byte)) {
	at := 0
	for i, end := range w.ends {
		f(i, w.keys[at:end])
		at = end
	}
}

// notes are the changes of c that are not copied yet.
func (c *conn) notes() *changes {
	if c.changes == nil {
		c.changes = c.srv.copies.changes.Get().(*changes)
	}
	return c.changes
}

// noteKey notes a key that c has written, if there is a session about it.
func (c *conn) noteKey(key []byte) {
	k := c.srv.copies
	o := k.routes[k.unitOf(key)].Load()
	if o == nil {
		return
	}
	w := c.notes()
	if len(w.ends) >= changedKeys || len(w.keys) >= changedBytes {
		w.noteAll()
	}
	if !w.all {
		w.keys = append(w.keys, key...)
		w.ends = append(w.ends, len(w.keys))
	}
	if !w.all || !slices.Contains(w.routes, o) {
		w.routes = append(w.routes, o)
	}
}

// noteAll notes that every key may have changed, and keeps one route of each.
func (w *changes) noteAll() {
	all := w.routes
	w.all, w.keys, w.ends, w.routes = true, w.keys[:0], w.ends[:0], nil
	for _, o := range all {
		if !slices.Contains(w.routes, o) {
			w.routes = append(w.routes, o)
		}
	}
}

// noteKeys notes what a command that writes may have changed.
func (c *conn) noteKeys(cmd *command, args [][]byte) {
	switch {
	case cmd.group == groupSeries || cmd.group == groupMetrics:
	case cmd.keys[0] != 0:
		cmd.eachKey(args, c.noteKey)
	case cmd.name == "flushall" || cmd.name == "flushdb":
		c.notes().noteAll()
	}
}

// copied returns when the heirs have what c wrote, or would not answer with what was
// there before. Where that cannot be known, or another member serves it, nothing may be
// answered: it ends the connection and reports false.
func (c *conn) copied() bool {
	w := c.changes
	c.changes = nil
	gated := c.gate != nil
	c.leaveGate()
	began := c.srv.nanos()
	ok := c.srv.copies.send(w)
	c.span.since += c.srv.nanos() - began // which is not the command's
	w.reset()
	c.srv.copies.changes.Put(w)
	if !ok {
		c.srv.mu.Lock()
		c.shut()
		c.srv.mu.Unlock()
	}
	if gated {
		c.enterGateAgain()
	}
	return ok
}

// send is copied for some changes.
func (k *copies) send(w *changes) bool {
	if w.all {
		return k.endAll(w.routes)
	}
	type part struct {
		o     *outgoing
		keys  [][]byte
		calls []*peerCall
		err   error
	}
	var parts []part
	w.each(func(n int, key []byte) {
		i := slices.IndexFunc(parts, func(p part) bool { return p.o == w.routes[n] })
		if i < 0 {
			i = len(parts)
			parts = append(parts, part{o: w.routes[n]})
		}
		parts[i].keys = append(parts[i].keys, key)
	})
	for i := range parts {
		p := &parts[i]
		p.calls, p.err = p.o.push(p.keys)
	}
	ok := true
	for i := range parts {
		p := &parts[i]
		for _, call := range p.calls {
			if err := p.o.wait(call); p.err == nil {
				p.err = err
			}
		}
		if p.err != nil {
			ok = p.o.over(p.err) && ok
		}
	}
	return ok
}

// endAll ends all sessions, and reports whether none was taken, of those either that
// have ended.
func (k *copies) endAll(ended []*outgoing) bool {
	all := slices.Clone(ended)
	k.mu.Lock()
	for o := range k.out {
		if !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	k.mu.Unlock()
	ok := true
	for _, o := range all {
		ok = o.over(nil) && ok
	}
	return ok
}

// rebuild has a session with each heir about the units that are held, and ends
// those about others. clusterState.mu is held.
func (k *copies) rebuild(v *ClusterView) {
	type due struct {
		heir  ClusterNode
		units unitSet
	}
	want := map[heirRole]*due{}
	if v != nil && !v.Down && v.Self >= 0 && v.Copies > 1 && len(v.Nodes) >= copyMembers {
		for u := range copyUnits {
			if !k.held.has(u) {
				continue
			}
			slot := uint16(u * unitSlots)
			heir := v.Nodes[v.ownersOf(slot)[1]]
			role := heirRole{heir.ID, v.promised(slot)}
			if want[role] == nil {
				want[role] = &due{heir: heir}
			}
			want[role].units.add(u)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var busy unitSet
	for o := range k.out {
		if w := want[o.role]; w != nil && w.units == o.units {
			delete(want, o.role)
			o.inform(v)
			continue
		}
		if o.awaited(v) {
			continue
		}
		o.end(nil)
		busy.join(&o.units)
	}
	for role, w := range want {
		wait := time.Until(k.after[role.heir])
		switch {
		case busy.meets(&w.units): // when that one is void
		case wait > 0:
			time.AfterFunc(wait, k.again)
		default:
			k.open(v, role, w.heir, &w.units)
		}
	}
}

// again is rebuild, by whoever has no view of the cluster.
func (k *copies) again() {
	st := &k.srv.cluster
	st.mu.Lock()
	defer st.mu.Unlock()
	k.rebuild(st.view.Load())
}

// open begins a session. mu is held.
func (k *copies) open(v *ClusterView, role heirRole, heir ClusterNode, units *unitSet) {
	if !k.srv.hold() {
		return
	}
	k.serial++
	o := &outgoing{k: k, serial: k.serial, role: role, heir: heir, units: *units, void: make(chan struct{}), id: sessionID{pair{v.myID(), role}, k.serial}.String(), data: k.srv.peerFor(heir.address(), peerCopies)}
	k.out[o] = struct{}{}
	for u := range copyUnits {
		if units.has(u) {
			k.routes[u].Store(o)
		}
	}
	go o.run()
}

// ended forgets a session, and begins what waited for its end.
func (k *copies) ended(o *outgoing, failed bool) {
	k.mu.Lock()
	delete(k.out, o)
	for u := range copyUnits {
		k.routes[u].CompareAndSwap(o, nil)
	}
	if failed {
		k.after[o.heir.ID] = time.Now().Add(sessionAgain)
	} else {
		delete(k.after, o.heir.ID)
	}
	k.mu.Unlock()
	k.again()
}
