package ingest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"mcached/ingest/resp"
)

// # Client-side caching
//
// A client that tracks is told when what it has read may have changed, so that it
// can keep values itself. There are two ways. By default the server remembers
// which keys which client has read, in a table, and tells it once; with BCAST the
// client is told of every key with one of its prefixes, and nothing is remembered.
//
//	read ──▶ table: key ──▶ clients, when it expires
//	                 │
//	write, expiry, reclaim, FLUSHALL, or the table is full ──▶ push "invalidate"
//
// A key is entered before it is read: whatever is written between is told. A push
// never overtakes the answer that it is about (push.go).
//
// Records vanish without a word, when they expire and when their memory is wanted.
// So the sweeper walks the table, some part of it each time, for keys that have
// expired, and, after anything was evicted or reclaimed, for keys that are gone.
// What BCAST clients hold is as good as before: they are told of writes alone.
//
// Who tracks with BCAST gets one message for each prefix and each command that
// wrote, or transaction, or script, as in Redis, which makes one of all that it
// wrote between two looks at its sockets.
//
// Writers look at one flag while nobody tracks.

// trackedKeyBytes is what a key in the table takes beside its name, and
// trackedClientBytes what each client of it does.
const (
	trackedKeyBytes    = 256
	trackedClientBytes = 16
)

const (
	// sweptKeys is how many keys of the table a sweep looks at, at the least,
	// and sweptPart the part of it: all of it takes at most so many sweeps.
	sweptKeys = 1 << 14
	sweptPart = 8
	// maxPrefixes bounds those of a client.
	maxPrefixes = 1024
	// broadcastKeys is how many keys are collected for a message to those who
	// track with BCAST: more are told in several.
	broadcastKeys = 1024
)

// tracker is what a client has said of its tracking. What is not said to change does
// not: CLIENT TRACKING makes another.
type tracker struct {
	c                            *conn
	f                            *follower
	bcast, optin, optout, noloop bool
	redirect                     int64 // whom to tell instead, 0 for none
	target                       *conn // the same, or c, also when that has gone; under tracking.mu
	prefixes                     []string
	broken                       atomic.Bool // the one to be told instead has gone
	caching                      bool        // CLIENT CACHING was said; this and the next are its own goroutine's
	cachingFresh                 bool        // by the command at work
}

// follower is what the table knows of a client: how it tracks now, nil for not
// any more. It outlives the connection, which may be large, in the table.
type follower struct{ t *tracker } // under tracking.mu

// tracking is the table.
type tracking struct {
	some atomic.Int32 // clients that track

	mu       sync.RWMutex
	keys     map[string]int // places in slots
	slots    []trackedKey
	items    int   // clients in slots
	bytes    int64 // of the keys' names
	at       int   // where the next sweep goes on
	suspects int   // so many slots are to be asked whether their keys are still there
	vanished uint64
	clients  map[*tracker]struct{}
	prefixes map[string][]*tracker // of BCAST

	// Fixed from the start: keys, and bytes of the table.
	most      int
	mostBytes int64
}

// bytesLocked is the Go heap that the table takes.
func (g *tracking) bytesLocked() int64 {
	return g.bytes + int64(len(g.slots))*trackedKeyBytes + int64(g.items)*trackedClientBytes
}

type trackedKey struct {
	key       string
	db        int
	there     bool  // it was when it was read
	expiresMs int64 // 0 for never
	clients   []*follower
}

// trackRead enters the keys that a command is about to read, if its client tracks.
func (c *conn) trackRead(cmd *command, args [][]byte) {
	t := c.ears.tracker.Load()
	if t == nil || t.bcast || cmd.flags&readonly == 0 || cmd.keys[0] == 0 {
		return
	}
	if t.optin && !t.caching || t.optout && t.caching {
		return
	}
	cmd.eachKey(args, func(key []byte) { c.srv.tracking.enter(t, c.db, key) })
}

// eachKey calls f for the keys among the arguments.
func (m *command) eachKey(args [][]byte, f func(key []byte)) {
	if m.counted != 0 && m.counted < len(args) {
		if n, ok := resp.ParseInt(args[m.counted]); ok && n > 0 && n < int64(len(args)-m.counted) { // else it is refused
			for _, key := range args[m.counted+1:][:n] {
				f(key)
			}
		}
	}
	if m.keys[0] == 0 {
		return
	}
	last := m.keys[1]
	if last < 0 {
		last += len(args)
	}
	for i := m.keys[0]; i <= last && i < len(args); i += m.keys[2] {
		f(args[i])
	}
}

// enter notes that t reads a key.
func (g *tracking) enter(t *tracker, db int, key []byte) {
	g.mu.Lock()
	i, known := g.keys[string(key)]
	if !known {
		i = len(g.slots)
		k := string(key)
		g.keys[k] = i
		g.slots = append(g.slots, trackedKey{key: k})
		g.bytes += int64(len(k))
	}
	s := &g.slots[i]
	if !slices.Contains(s.clients, t.f) {
		s.clients = append(s.clients, t.f)
		g.items++
	}
	g.shrinkLocked()
	g.mu.Unlock()

	// What it is now is asked without the table's lock, and kept if the key is
	// still in there; what is written meanwhile takes it out.
	there, expiresMs := t.c.srv.look(db, key)
	g.mu.Lock()
	if i, ok := g.keys[string(key)]; ok {
		s := &g.slots[i]
		s.db, s.there, s.expiresMs = db, there, expiresMs
	}
	g.mu.Unlock()
}

// look says whether a key is there, and when it expires.
func (s *Server) look(db int, key []byte) (there bool, expiresMs int64) {
	if b := s.o.Blobs.Made(db); b != nil {
		if ms, ok := b.Expiry(key); ok {
			return true, ms
		}
	}
	return s.has(db, key), 0
}

// shrinkLocked tells of keys that the table has no room for.
func (g *tracking) shrinkLocked() {
	for len(g.slots) > 1 && (len(g.slots) > g.most || g.bytesLocked() > g.mostBytes) {
		g.at %= len(g.slots)
		g.tellLocked(g.at, nil)
		g.at++
	}
}

// tellLocked tells the clients of a slot that its key is not to be kept, and
// takes it out. by has changed it itself, nil for nobody.
func (g *tracking) tellLocked(i int, by *conn) {
	s := g.slots[i]
	for _, f := range s.clients {
		if t := f.t; t != nil && !(t.noloop && t.c == by) {
			t.tell([]byte(s.key))
		}
	}
	delete(g.keys, s.key)
	g.items -= len(s.clients)
	g.bytes -= int64(len(s.key))
	last := len(g.slots) - 1
	if i != last {
		g.slots[i] = g.slots[last]
		g.keys[g.slots[i].key] = i
	}
	g.slots[last] = trackedKey{}
	g.slots = g.slots[:last]
}

// invalidationChannel is where clients of RESP2 are told.
const invalidationChannel = "__redis__:invalidate"

// tell sends keys, or nil for all. When whom to tell has gone, it says so instead.
func (t *tracker) tell(keys ...[]byte) {
	if t.broken.Load() {
		t.tellBroken()
		return
	}
	to := t.target
	resp3 := to.ears.resp3.Load()
	if !resp3 && (to == t.c || to.ears.subscriptions() == 0) {
		return // it cannot be told, as in Redis
	}
	to.pushInvalidation(invalidationOf(resp3, keys), func() []byte { return invalidationOf(resp3, nil) })
}

// invalidationOf is the message for keys, or for all if that is nil.
func invalidationOf(resp3 bool, keys [][]byte) []byte {
	n := 64
	for _, key := range keys {
		n += 16 + len(key)
	}
	b := make([]byte, 0, n)
	if resp3 {
		b = append(b, ">2\r\n$10\r\ninvalidate\r\n"...)
	} else {
		b = append(b, "*3\r\n$7\r\nmessage\r\n$20\r\n"+invalidationChannel+"\r\n"...)
	}
	switch {
	case keys != nil:
		b = append(append(append(b, '*'), itoa(int64(len(keys)))...), "\r\n"...)
		for _, key := range keys {
			b = resp.AppendBulk(b, key)
		}
	case resp3:
		b = append(b, "_\r\n"...)
	default:
		b = append(b, "$-1\r\n"...)
	}
	return b
}

// tellBroken says that whom to tell has gone, to a client of RESP3: others have no
// way to be told.
func (t *tracker) tellBroken() {
	if t.c.ears.resp3.Load() {
		b := append([]byte(nil), ">2\r\n$21\r\ntracking-redir-broken\r\n:"...)
		t.c.push(append(b, itoa(t.redirect)+"\r\n"...))
	}
}

// broadcasts are keys that were written, by prefix, and not yet told to those who
// track with BCAST. They belong to the goroutine that writes.
type broadcasts struct {
	keys map[string][][]byte
	n    int
}

// wrote tells of a key that by has written, nil for one who does not track. What
// is for BCAST is collected in b.
func (g *tracking) wrote(key []byte, by *conn, b *broadcasts) {
	g.mu.RLock()
	_, tracked := g.keys[string(key)]
	for prefix := range g.prefixes {
		if len(key) >= len(prefix) && string(key[:len(prefix)]) == prefix {
			if b.keys == nil {
				b.keys = map[string][][]byte{}
			}
			b.keys[prefix] = append(b.keys[prefix], slices.Clone(key))
			b.n++
		}
	}
	g.mu.RUnlock()
	if b.n >= broadcastKeys {
		g.broadcast(b, by)
	}
	if !tracked {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i, ok := g.keys[string(key)]; ok {
		g.tellLocked(i, by)
	}
}

// broadcast tells what was collected, each key once, and forgets it.
func (g *tracking) broadcast(b *broadcasts, by *conn) {
	if b.n == 0 {
		return
	}
	g.mu.RLock()
	for prefix, keys := range b.keys {
		slices.SortFunc(keys, bytes.Compare)
		keys = slices.CompactFunc(keys, bytes.Equal)
		for _, t := range g.prefixes[prefix] {
			if !(t.noloop && t.c == by) {
				t.tell(keys...)
			}
		}
	}
	g.mu.RUnlock()
	*b = broadcasts{}
}

// flushed tells all clients that no key is to be kept.
func (g *tracking) flushed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for t := range g.clients {
		t.tell()
	}
	g.clearLocked()
}

func (g *tracking) clearLocked() {
	clear(g.keys)
	g.slots, g.items, g.bytes = nil, 0, 0
}

// sweepTracked looks at a part of the table for what has expired or vanished. It is
// the sweeper's.
func (s *Server) sweepTracked() {
	g := &s.tracking
	if g.some.Load() == 0 {
		return
	}
	vanished := s.o.Memory.Stats().RegionsReclaimed
	for db := range s.o.Blobs.Len() {
		if b := s.o.Blobs.Made(db); b != nil {
			st := b.Stats()
			vanished += st.Evicted
		}
	}
	now := s.o.Now().UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	if vanished != g.vanished {
		g.vanished, g.suspects = vanished, len(g.slots)
	}
	for n := max(sweptKeys, len(g.slots)/sweptPart); n > 0 && len(g.slots) > 0; n-- {
		if g.at >= len(g.slots) {
			if g.at = 0; n > len(g.slots) {
				n = len(g.slots)
			}
		}
		k := &g.slots[g.at]
		gone := k.expiresMs != 0 && k.expiresMs <= now
		if g.suspects > 0 {
			g.suspects--
			gone = gone || k.there && !s.has(k.db, []byte(k.key))
		}
		if gone {
			g.tellLocked(g.at, nil)
		} else {
			g.at++
		}
	}
}

// start has t track instead of what c had before, if it had any.
func (g *tracking) start(t *tracker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := t.c.ears.tracker.Load()
	if g.clients == nil {
		g.clients, g.keys, g.prefixes = map[*tracker]struct{}{}, map[string]int{}, map[string][]*tracker{}
	}
	t.f = new(follower)
	if old != nil {
		t.f = old.f // what it has read is told still, by the new rules
		delete(g.clients, old)
		g.leavePrefixesLocked(old)
	}
	t.f.t = t
	g.clients[t] = struct{}{}
	for _, p := range t.prefixes {
		g.prefixes[p] = append(g.prefixes[p], t)
	}
	g.some.Store(int32(len(g.clients)))
	t.c.ears.tracker.Store(t)
}

func (g *tracking) leavePrefixesLocked(t *tracker) {
	for _, p := range t.prefixes {
		if left := slices.DeleteFunc(g.prefixes[p], func(o *tracker) bool { return o == t }); len(left) > 0 {
			g.prefixes[p] = left
		} else {
			delete(g.prefixes, p)
		}
	}
}

// stopTracking ends the client's tracking, if there is any. Its keys stay in the
// table until they are written, as in Redis: the table is bounded.
func (c *conn) stopTracking() {
	t := c.ears.tracker.Load()
	if t == nil {
		return
	}
	g := &c.srv.tracking
	g.mu.Lock()
	c.ears.tracker.Store(nil)
	t.f.t = nil
	delete(g.clients, t)
	g.leavePrefixesLocked(t)
	if g.some.Store(int32(len(g.clients))); len(g.clients) == 0 {
		g.clearLocked()
	}
	g.mu.Unlock()
}

// forgetTarget tells those who have redirected to c that it goes.
func (g *tracking) forgetTarget(c *conn) {
	if g.some.Load() == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for t := range g.clients {
		if t.redirect == 0 || t.target != c {
			continue
		}
		t.broken.Store(true)
		t.target = t.c
		t.tellBroken()
	}
}

// trackingLines are those of INFO.
func (s *Server) trackingLines() []string {
	g := &s.tracking
	g.mu.RLock()
	defer g.mu.RUnlock()
	return []string{
		fmt.Sprintf("tracking_total_keys:%d", len(g.slots)),
		fmt.Sprintf("tracking_total_items:%d", g.items),
		fmt.Sprintf("tracking_total_prefixes:%d", len(g.prefixes)),
	}
}
