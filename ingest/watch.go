package ingest

import (
	"slices"
	"sync"
	"sync/atomic"
)

// WATCH puts its keys into a table that writers look at while there is any. A
// key that was there and is gone counts as changed: it expired, or its memory
// was wanted.

// watched is a key that a connection watches.
type watched struct {
	dbKey
	there bool // when it was watched
}

// dbKey is a key in a database.
type dbKey struct {
	db  int
	key string
}

// watchers are the connections that watch a key.
type watchers struct {
	some atomic.Bool // there are any
	mu   sync.Mutex
	keys map[dbKey][]*conn
}

func watch(c *conn, args [][]byte) {
	if c.tx == nil {
		c.tx = new(transaction)
	}
	if c.tx.open {
		c.Fail("ERR WATCH inside MULTI is not allowed")
		return
	}
	if len(c.tx.watched)+len(args)-1 > maxQueued {
		c.Fail("ERR too many watched keys, the limit is " + itoa(maxQueued))
		return
	}
	before := len(c.tx.watched)
	w := &c.srv.watchers
	w.mu.Lock()
	w.some.Store(true)
	if w.keys == nil {
		w.keys = map[dbKey][]*conn{}
	}
	for _, a := range args[1:] {
		key := dbKey{c.db, string(a)}
		if !slices.Contains(w.keys[key], c) {
			w.keys[key] = append(w.keys[key], c)
			c.tx.watched = append(c.tx.watched, watched{dbKey: key})
		}
	}
	w.mu.Unlock()
	for i := range c.tx.watched[before:] {
		k := &c.tx.watched[before+i]
		k.there = c.srv.has(k.db, []byte(k.key))
	}
	c.OK()
}

// unwatch forgets all that is watched.
func (c *conn) unwatch() {
	if c.tx == nil || len(c.tx.watched) == 0 {
		return
	}
	w := &c.srv.watchers
	w.mu.Lock()
	for _, k := range c.tx.watched {
		left := slices.DeleteFunc(w.keys[k.dbKey], func(o *conn) bool { return o == c })
		if len(left) > 0 {
			w.keys[k.dbKey] = left
		} else {
			delete(w.keys, k.dbKey)
		}
	}
	w.some.Store(len(w.keys) > 0)
	w.mu.Unlock()
	c.tx.watched = nil
	c.tx.dirty.Store(false)
}

// changed reports whether something that is watched is not as it was.
func (c *conn) changed() bool {
	return c.tx.dirty.Load() || slices.ContainsFunc(c.tx.watched, func(k watched) bool { return k.there && !c.srv.has(k.db, []byte(k.key)) })
}

// wrote tells those who watch, or track, of the keys of a command that has run.
func (c *conn) wrote(cmd *command, args [][]byte) {
	s := c.srv
	if cmd.flags&write == 0 {
		return
	}
	if s.copies != nil {
		c.noteKeys(cmd, args)
	}
	if !s.watchers.some.Load() && s.tracking.some.Load() == 0 {
		return
	}
	if cmd.keys[0] == 0 {
		// FLUSHALL and its like: what was there is gone, which EXEC sees.
		if cmd.group == groupServer && s.tracking.some.Load() > 0 {
			s.tracking.flushed()
		}
		return
	}
	if c.broadcasts == nil && s.tracking.some.Load() > 0 {
		c.broadcasts = new(broadcasts)
	}
	cmd.eachKey(args, func(key []byte) { s.wroteKey(c.db, key, c, c.broadcasts) })
}

// tellsBroadcasts tells of what was written, if what wrote it is over.
func (c *conn) tellsBroadcasts() {
	if c.broadcasts != nil && !c.holdsBack() {
		c.srv.tracking.broadcast(c.broadcasts, c)
	}
}

// wroteKey tells of a key that by has written, nil for one who does not track.
// b is nil only when nobody tracked a moment ago.
func (s *Server) wroteKey(db int, key []byte, by *conn, b *broadcasts) {
	if b != nil {
		s.tracking.wrote(key, by, b)
	}
	if !s.watchers.some.Load() {
		return
	}
	w := &s.watchers
	w.mu.Lock()
	for _, c := range w.keys[dbKey{db, string(key)}] {
		c.tx.dirty.Store(true)
	}
	w.mu.Unlock()
}

// wroteBundle is wrote for a bundle. In a transaction its end tells of it.
func (c *conn) wroteBundle(keys [][]byte) {
	if !c.holdsBack() || c.srv.tracking.some.Load() == 0 {
		c.srv.wroteKeys(c.db, keys)
		return
	}
	if c.broadcasts == nil {
		c.broadcasts = new(broadcasts)
	}
	for _, k := range keys {
		c.srv.wroteKey(c.db, k, c, c.broadcasts)
	}
}

// wroteKeys is for commands that were run together.
func (s *Server) wroteKeys(db int, keys [][]byte) {
	if s.watchers.some.Load() || s.tracking.some.Load() > 0 {
		var b broadcasts
		for _, k := range keys {
			s.wroteKey(db, k, nil, &b)
		}
		s.tracking.broadcast(&b, nil)
	}
}
