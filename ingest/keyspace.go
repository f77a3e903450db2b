package ingest

import (
	"math"

	"mcached/ingest/resp"
	"mcached/kvcache"
)

func keyspaceCommands() []command {
	pair := [3]int{1, 2, 1}
	return []command{
		{name: "rename", arity: 3, group: groupGeneric, syntax: "key newkey", summary: "Gives a key another name, which takes the place of what has it.", flags: write | slow, keys: pair, run: func(c *conn, args [][]byte) { c.renames(args[1], args[2], false) }},
		{name: "renamenx", arity: 3, group: groupGeneric, syntax: "key newkey", summary: "Gives a key another name that nothing has.", flags: write | slow, keys: pair, run: func(c *conn, args [][]byte) { c.renames(args[1], args[2], true) }},
		{name: "copy", arity: -3, group: groupGeneric, syntax: "source destination [DB destination-db] [REPLACE]", summary: "Copies a key.", flags: write | denyoom | slow, keys: pair, run: copyKey},
		{name: "setrange", arity: 4, group: groupString, syntax: "key offset value", summary: "Writes over a part of a value.", flags: write | denyoom, keys: [3]int{1, 1, 1}, run: setRange},
	}
}

const errNoSuchKey = "ERR no such key"

func (c *conn) renames(key, as []byte, absent bool) {
	c.alone(func() {
		if !c.has(key) {
			c.Fail(errNoSuchKey)
			return
		}
		if string(key) == string(as) {
			c.renamed(absent, !absent)
			return
		}
		if absent && c.has(as) {
			c.renamed(true, false)
			return
		}
		if c.srv.isSeries(c.db, key) {
			c.remove(as)
			if err := c.srv.series.rename(key, as); err != nil {
				c.failWith(err)
				return
			}
			c.renamed(absent, true)
			return
		}
		found, err := copyEntry(c.cache(), c.cache(), key, as)
		switch {
		case err != nil:
			c.refuse(err)
			return
		case !found: // it was evicted meanwhile
			c.Fail(errNoSuchKey)
			return
		}
		c.cache().Delete(key)
		c.srv.displace(c.db, [][]byte{as})
		c.renamed(absent, true)
	})
}

// renamed answers RENAME, or RENAMENX.
func (c *conn) renamed(nx, done bool) {
	if nx {
		c.Flag(done)
	} else {
		c.OK()
	}
}

func copyKey(c *conn, args [][]byte) {
	to, replace := c.db, false
	for i := 3; i < len(args); i++ {
		switch {
		case resp.EqualFold(args[i], "replace"):
			replace = true
		case resp.EqualFold(args[i], "db") && i+1 < len(args):
			var ok bool
			if to, ok = c.database(args[i+1], errInteger); !ok {
				return
			}
			i++
		default:
			c.Fail(errSyntax)
			return
		}
	}
	if to == c.db && string(args[1]) == string(args[2]) {
		c.Fail("ERR source and destination objects are the same")
		return
	}
	c.alone(func() {
		if !c.has(args[1]) || !replace && c.srv.has(to, args[2]) {
			c.Int(0)
			return
		}
		if c.srv.isSeries(c.db, args[1]) {
			c.copySeries(to, args[1], args[2])
			return
		}
		found, err := copyEntry(c.cache(), c.srv.o.Blobs.At(to), args[1], args[2])
		switch {
		case err != nil:
			c.refuse(err)
			return
		case found && to != c.db:
			c.srv.wroteKeys(to, args[2:3])
		}
		c.srv.displace(to, args[2:3])
		c.Flag(found)
	})
}

func (c *conn) copySeries(to int, key, as []byte) {
	if to != c.db {
		c.Fail(errSeriesDB)
		return
	}
	c.remove(as)
	if err := c.srv.series.copyAs(key, as); err != nil {
		c.failWith(err)
		return
	}
	c.Flag(true)
}

func setRange(c *conn, args [][]byte) {
	offset, ok := c.integerArg(args[2])
	if !ok {
		return
	}
	if offset < 0 {
		c.Fail("ERR offset is out of range")
		return
	}
	part, n := args[3], 0
	if offset > math.MaxInt32-int64(len(part)) || len(part) > 0 && int(offset)+len(part) > c.srv.o.MaxBulkBytes {
		c.Fail("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
		return
	}
	err := c.updateString(args[1], func(old kvcache.Entry, _ bool) (kvcache.Entry, kvcache.Op) {
		if n = len(old.Value); len(part) == 0 {
			return old, kvcache.Keep
		}
		n = max(n, int(offset)+len(part))
		v := make([]byte, n)
		copy(v, old.Value)
		copy(v[offset:], part)
		return kvcache.Entry{Value: v, ExpiresMs: old.ExpiresMs}, kvcache.Store
	})
	if err != nil {
		c.refuse(err)
		return
	}
	c.Int(int64(n))
}

// errKind is WRONGTYPE as an error of an update.
var errKind = wrongKind{}

type wrongKind struct{}

func (wrongKind) Error() string { return errWrongType }

// updateString is Cache.Update for commands about strings: of a key that holds
// something else it leaves everything as it is, and returns errKind.
func (c *conn) updateString(key []byte, f func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op)) error {
	return c.updateKind(key, kvcache.String, f)
}

func (c *conn) updateKind(key []byte, kind kvcache.Kind, f func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op)) error {
	wrong := false
	err := c.cache().Update(key, func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		if wrong = ok && old.Kind != kind || !ok && c.srv.isSeries(c.db, key); wrong {
			return old, kvcache.Keep
		}
		return f(old, ok)
	})
	if wrong {
		return errKind
	}
	return err
}

func objectIdleTime(c *conn, args [][]byte) {
	if ms, ok := c.cache().Idle(args[2]); ok {
		c.Int(ms / 1000)
	} else if c.srv.isSeries(c.db, args[2]) {
		c.Int(0)
	} else {
		c.Null()
	}
}

func objectRefCount(c *conn, args [][]byte) {
	if c.has(args[2]) {
		c.Int(1)
	} else {
		c.Null()
	}
}
