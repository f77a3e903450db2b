package ingest

import (
	"mcached/ingest/resp"
	"mcached/kvcache"
)

// # Databases
//
// A connection has selected one of the databases; number 0 to begin with. Each
// is a cache of its own (kvcache.Databases), and what a command means in one it
// means in all of them. Time series live in number 0: elsewhere TS commands are
// refused, and SWAPDB leaves them where they are.

const (
	errDBIndex  = "ERR DB index is out of range"
	errSeriesDB = "ERR time series are in database 0, and another one is selected"
)

func databaseCommands() []command {
	return []command{
		{name: "move", arity: 3, group: groupGeneric, syntax: "key db", summary: "Moves a key to another database that has none of that name.", flags: write | slow, keys: [3]int{1, 1, 1}, run: move},
		{name: "swapdb", arity: 3, group: groupServer, syntax: "index1 index2", summary: "Swaps two databases for all who have selected them.", flags: write | slow, run: swapDB},
	}
}

// cache is the selected database.
func (c *conn) cache() *kvcache.Cache { return c.srv.o.Blobs.At(c.db) }

// seriesOf is the time series of a database, or nil.
func (s *Server) seriesOf(db int) *directory {
	if db != 0 {
		return nil
	}
	return s.series
}

// selects changes the selected database.
func (c *conn) selects(db int) {
	if db == c.db {
		return
	}
	c.srv.mu.Lock()
	c.db = db
	c.srv.mu.Unlock()
}

func selectDB(c *conn, args [][]byte) {
	if db, ok := c.database(args[1], errInteger); ok {
		c.selects(db)
		c.OK()
	}
}

// database reads a database's number or answers what is wrong with it.
func (c *conn) database(b []byte, notInteger string) (db int, ok bool) {
	n, ok := resp.ParseInt(b)
	switch {
	case ok && n != 0 && c.srv.o.Cluster != nil:
		c.Fail("ERR a cluster has database 0 only")
		return 0, false
	case ok && n != int64(int32(n)) && notInteger == errInteger:
		c.Fail("ERR value is out of range, value must between -2147483648 and 2147483647")
	case !ok || n != int64(int32(n)):
		c.Fail(notInteger)
	case n < 0 || n >= int64(c.srv.o.Blobs.Len()):
		c.Fail(errDBIndex)
	default:
		return int(n), true
	}
	return 0, false
}

func move(c *conn, args [][]byte) {
	if c.srv.seriesOf(c.db) != nil && c.srv.series.exists(args[1]) {
		c.Fail("ERR time series are in database 0 only")
		return
	}
	to, ok := c.database(args[2], errInteger)
	switch {
	case !ok:
		return
	case to == c.db:
		c.Fail("ERR source and destination objects are the same")
		return
	}
	c.alone(func() {
		if c.srv.has(to, args[1]) {
			c.Int(0)
			return
		}
		moved, err := copyEntry(c.cache(), c.srv.o.Blobs.At(to), args[1], args[1])
		switch {
		case err != nil:
			c.refuse(err)
		case moved:
			c.cache().Delete(args[1])
			c.srv.wroteKeys(to, args[1:2])
			fallthrough
		default:
			c.Flag(moved)
		}
	})
}

// copyEntry stores what key is in one database under another key in another,
// with its time to live. It reports whether there was anything.
func copyEntry(from, to *kvcache.Cache, key, as []byte) (found bool, err error) {
	var e kvcache.Entry
	if err := from.Update(key, func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		found = ok
		e = old
		e.Value = append([]byte(nil), old.Value...)
		return old, kvcache.Keep
	}); err != nil || !found {
		return false, err
	}
	// A series of that name is for the caller to remove.
	return true, to.Update(as, func(kvcache.Entry, bool) (kvcache.Entry, kvcache.Op) { return e, kvcache.Store })
}

func swapDB(c *conn, args [][]byte) {
	i, ok := c.database(args[1], "ERR invalid first DB index")
	if !ok {
		return
	}
	j, ok := c.database(args[2], "ERR invalid second DB index")
	if !ok {
		return
	}
	c.alone(func() {
		c.srv.swaps(i, j)
		c.srv.o.Blobs.Swap(i, j)
	})
	c.OK()
}

// swaps tells those who watch a key in one of two databases that it is in, or in
// the other one, which takes its place.
func (s *Server) swaps(i, j int) {
	if !s.watchers.some.Load() {
		return
	}
	w := &s.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, conns := range w.keys {
		if (k.db == i || k.db == j) && (s.has(i, []byte(k.key)) || s.has(j, []byte(k.key))) {
			for _, c := range conns {
				c.tx.dirty.Store(true)
			}
		}
	}
}
