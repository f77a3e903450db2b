package ingest

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"time"

	"mcached/kvcache"
)

// This file is the other side of copies.go: what an heir does, and a witness.

// pair are two nodes, by their IDs. They have one session at a time for each role, and
// each has a higher serial than those before.
type pair struct {
	origin string
	heirRole
}

// heirRole is an heir in what it is an heir of: what is promised to it, or not.
type heirRole struct {
	heir     string // a node, by its ID
	promised bool
}

// promisedMark follows the ID of an heir in that of a session. No ID ends with it.
const promisedMark = "p"

type sessionID struct {
	pair
	serial uint64
}

func (id sessionID) String() string {
	role := id.heir
	if id.promised {
		role += promisedMark
	}
	return id.origin + "." + role + "." + strconv.FormatUint(id.serial, 10)
}

func readSessionID(s string) (id sessionID, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(s) > maxSessionID {
		return id, false
	}
	n, err := strconv.ParseUint(parts[2], 10, 64)
	heir, promised := strings.CutSuffix(parts[1], promisedMark)
	return sessionID{pair{parts[0], heirRole{heir, promised}}, n}, err == nil
}

// maxSessionID is longer than two IDs and a serial.
const maxSessionID = 128

// incoming is a session as its heir has it.
type incoming struct {
	units unitSet

	mu     sync.Mutex
	number uint64 // of the last message
	done   bool   // it is complete
	known  bool   // and a witness was told
	closed bool   // no more is taken of it
	taken  bool   // by this node
}

// witnessed is the newest session of two others that this node was told of.
type witnessed struct {
	serial uint64
	units  unitSet
	void   bool
	taken  time.Time // when its heir asked for it, to go on with it; zero if not
}

// mcCopy is what members tell each other about sessions.
func mcCopy(c *conn, args [][]byte) {
	k := c.srv.copies
	if k == nil || !c.peer {
		c.Fail(errNoCopies)
		return
	}
	what, name, rest := string(args[1]), string(args[2]), args[3:]
	switch what {
	case "take":
		mcCopyTake(c, name, rest)
		return
	case "serves":
		mcCopyServes(c, rest)
		return
	}
	id, ok := readSessionID(name)
	problem := errSyntax
	switch {
	case !ok:
	case what == "set" && len(rest)%3 == 1:
		problem = k.takeMessage(name, rest[0], func(s *incoming) bool { return k.store(s, rest[1:]) })
	case what == "done" && len(rest) == 1:
		problem = k.takeMessage(name, rest[0], func(s *incoming) bool { s.done = true; return true })
	case what == "begin" && len(rest) == 1:
		if units, ok := decodeUnits(rest[0]); ok {
			c.away(func() { problem = k.begin(name, &units) })
		}
	case what == "witness" && len(rest) == 1:
		if units, ok := decodeUnits(rest[0]); ok {
			k.witness(id, &units)
			problem = ""
		}
	case what == "known" && len(rest) == 0:
		problem = k.noteKnown(name)
	case what == "end" && len(rest) == 0:
		problem = k.forget(id)
	}
	if problem != "" {
		c.Fail(problem)
		return
	}
	c.OK()
}

// incoming is a session that this node is the heir of, or nil.
func (k *copies) incoming(id string) *incoming {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.in[id]
}

// takeMessage does what the next message of a session says. One that is not the next,
// or cannot be done, is the last.
func (k *copies) takeMessage(id string, number []byte, do func(s *incoming) bool) (problem string) {
	s := k.incoming(id)
	if s == nil {
		return errNoSession
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := strconv.ParseUint(string(number), 10, 64)
	switch {
	case s.taken:
		return errSessionTaken
	case s.closed:
		return errNoSession
	case err != nil || n != s.number+1 || !do(s):
		s.closed = true
		return errNoSession
	}
	s.number = n
	k.count.received.Add(1)
	return ""
}

// noteKnown notes that a witness knows a session to be complete.
func (k *copies) noteKnown(id string) (problem string) {
	s := k.incoming(id)
	if s == nil {
		return errNoSession
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = s.done && !s.closed
	return ""
}

// OwedKeys says of how many groups of slots this node is promised the keys, and has not
// been sent all of them yet, and how many messages with keys it was sent: if there are
// no more, nobody sends any. It is 0 where no copies of keys are kept.
func (s *Server) OwedKeys() (groups int, received uint64) {
	k, v := s.copies, s.view()
	if k == nil || v == nil {
		return 0, 0
	}
	var there unitSet
	k.mu.Lock()
	for _, in := range k.in {
		in.mu.Lock()
		if in.known && !in.closed {
			there.join(&in.units)
		}
		in.mu.Unlock()
	}
	k.mu.Unlock()
	for u := range copyUnits {
		slot := uint16(u * unitSlots)
		if v.promised(slot) && int(v.ownersOf(slot)[1]) == v.Self && !there.has(u) {
			groups++
		}
	}
	return groups, k.count.received.Load()
}

// store stores what keys became. s.mu is held.
func (k *copies) store(s *incoming, triples [][]byte) bool {
	cache := k.srv.o.Blobs.At(0)
	for ; len(triples) > 0; triples = triples[3:] {
		key, meta, value := triples[0], triples[1], triples[2]
		if !s.units.has(k.unitOf(key)) || len(meta) != 0 && len(meta) != copyMetaBytes {
			return false
		}
		if len(meta) == 0 {
			cache.Delete(key)
			continue
		}
		e := kvcache.Entry{Value: value, Kind: kvcache.Kind(meta[0]), ExpiresMs: int64(binary.LittleEndian.Uint64(meta[1:]))}
		if e.Kind != kvcache.String && e.Kind != kindHash && e.Kind != kindSet {
			return false
		}
		if err := cache.Update(key, func(kvcache.Entry, bool) (kvcache.Entry, kvcache.Op) { return e, kvcache.Store }); err != nil {
			cache.Delete(key) // rather none than an old one
		}
	}
	return true
}

// begin removes what is here of units and then takes messages of a session about them.
func (k *copies) begin(id string, units *unitSet) (problem string) {
	const look = 2 * time.Millisecond
	st := &k.srv.cluster
	st.mu.Lock()
	if k.servesLocked(units) {
		st.mu.Unlock()
		return errTablesDiffer
	}
	k.mu.Lock()
	k.closeIncoming(units)
	k.mu.Unlock()
	k.srv.soil(units)
	st.mu.Unlock()
	for deadline := time.Now().Add(beginAnswer); !k.clean(units); {
		select {
		case <-time.After(look):
		case <-k.srv.stop:
			return errNoSession
		}
		if time.Now().After(deadline) {
			return errNoSession
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if k.servesLocked(units) {
		return errTablesDiffer
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closeIncoming(units)
	k.in[id] = &incoming{units: *units}
	return ""
}

// servesLocked says whether any of units is this node's. clusterState.mu is held.
func (k *copies) servesLocked(units *unitSet) bool {
	return k.held.meets(units) || k.taking.meets(units)
}

func (k *copies) clean(units *unitSet) bool {
	for u := range copyUnits {
		if units.has(u) && k.srv.cluster.unclean[u].Load() {
			return false
		}
	}
	return true
}

// closeIncoming ends the sessions about units, and forgets them. mu is held.
func (k *copies) closeIncoming(units *unitSet) {
	for id, s := range k.in {
		if !s.units.meets(units) {
			continue
		}
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		delete(k.in, id)
	}
}

// witness notes that a session is complete. What comes late is not believed.
func (k *copies) witness(id sessionID, units *unitSet) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.seen[id.pair]; w == nil || w.serial < id.serial {
		k.seen[id.pair] = &witnessed{serial: id.serial, units: *units}
	}
}

// forget makes a session void here, as its heir or as a witness, unless it was taken.
func (k *copies) forget(id sessionID) (problem string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch w := k.seen[id.pair]; {
	case w == nil || w.serial < id.serial: // it may be told of yet
		k.seen[id.pair] = &witnessed{serial: id.serial, void: true}
	case w.serial > id.serial:
	case !w.taken.IsZero():
		return errSessionTaken
	default:
		w.void = true
	}
	if s := k.in[id.String()]; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.taken {
			return errSessionTaken
		}
		s.closed = true
		delete(k.in, id.String())
	}
	return ""
}

// copyTries is how often RANDOMKEY looks for a key that is no copy, as half of them are.
const copyTries = 64

// shows says whether a key that is here is to be told of: not a copy of another's.
func (s *Server) shows(key []byte) bool {
	return s.copies == nil || s.here(s.view(), s.o.Cluster.KeySlot(key))
}
