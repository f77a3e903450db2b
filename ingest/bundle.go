package ingest

import (
	"mcached/ingest/resp"
	"mcached/kvcache"
)

// A bundle is a run of GETs, of plain SETs or of plain TS.ADDs in one pipeline.
// It is gathered while commands of the same kind follow one another and then
// done with the caches' calls for many keys, which take each lock once and wait
// for memory once for several keys: at 1 Mi keys, a GET or SET costs half as
// much.
//
// The order of commands is kept, because a bundle ends where another kind
// begins, and the calls for many keys work in the order of the keys.
type bundle struct {
	kind   bundleKind
	n      int
	keys   [bundleKeys][]byte // views of the input
	values [bundleKeys][]byte // of SETs and TS.ADDs
	times  [bundleKeys][]byte // of TS.ADDs
}

// bundleKeys bounds a bundle; the cache takes that many under one hold of its locks.
const bundleKeys = 64

type bundleKind uint8

const (
	noBundle bundleKind = iota
	bundleGet
	bundleSet
	bundleAdd

	bundleKinds
)

// bundleOf says which kind of bundle a command can be in. Options make a SET or
// TS.ADD one that is on its own.
func (c *conn) bundleOf(args [][]byte) bundleKind {
	switch {
	case c.apart || c.srv.attention.bits.Load() != 0:
	case !c.authenticated || c.waits != nil || c.silent || c.skip > 0 || c.tx != nil && c.tx.open:
	case c.srv.o.Cluster != nil && (len(args) < 2 || !c.belongsHere(args[1])):
	case len(args) == 2 && resp.EqualFold(args[0], "get"):
		return bundleGet
	case len(args) == 3 && resp.EqualFold(args[0], "set"):
		return bundleSet
	case len(args) == 4 && c.srv.series != nil && c.db == 0 && resp.EqualFold(args[0], "ts.add"):
		return bundleAdd
	}
	return noBundle
}

// join adds a command to the bundle, and runs what was gathered before if it
// was of another kind.
func (c *conn) join(kind bundleKind, args [][]byte) {
	g := c.takeBundle()
	if g.n == bundleKeys || g.kind != kind {
		c.runBundle()
	}
	g.kind = kind
	g.keys[g.n] = args[1]
	switch kind {
	case bundleSet:
		g.values[g.n] = args[2]
	case bundleAdd:
		g.times[g.n], g.values[g.n] = args[2], args[3]
	}
	g.n++
}

// takeBundle is the bundle of this turn; while a command is run it is empty.
func (c *conn) takeBundle() *bundle {
	if c.bundle == nil {
		c.bundle = c.srv.bundles.Get().(*bundle)
	}
	return c.bundle
}

// runBundle runs what was gathered, if anything.
func (c *conn) runBundle() {
	g := c.bundle
	if g == nil || g.n == 0 {
		return
	}
	n := g.n
	g.n = 0
	c.commands += uint64(n)
	cmd := c.srv.commands.byKind[g.kind]
	c.ran(cmd)
	switch g.kind {
	case bundleGet:
		c.getMany(g.keys[:n], (*conn).answerGetOfMany)
	case bundleSet:
		c.setMany(g.keys[:n], g.values[:n])
		if c.srv.copies != nil {
			for _, k := range g.keys[:n] {
				c.noteKey(k)
			}
		}
		c.wroteBundle(g.keys[:n])
	case bundleAdd:
		if c.loop != nil {
			c.leave() // as all that is slow, if it can
		}
		c.addMany(g.keys[:n], g.times[:n], g.values[:n], tsAdds)
		c.wroteBundle(g.keys[:n])
	}
	c.endedMany(cmd, n, g.keys[:n])
}

// freeBundle runs what was gathered and gives the bundle back.
func (c *conn) freeBundle() {
	if c.bundle != nil {
		c.runBundle()
		c.srv.bundles.Put(c.bundle)
		c.bundle = nil
	}
}

// getMany answers the values of keys, each by answer.
func (c *conn) getMany(keys [][]byte, answer func(c *conn, value []byte, kind kvcache.Kind, ok bool)) {
	for len(keys) > 1 {
		n := c.cache().GetMany(keys, func(i int, v []byte, kind kvcache.Kind, ok bool) {
			kind, ok = c.srv.typed(c.db, keys[i], kind, ok)
			answer(c, v, kind, ok)
		})
		if n == 0 {
			c.answerLarge(keys[0], answer)
			n = 1
		}
		keys = keys[n:]
		c.spill()
	}
	if len(keys) == 1 {
		c.answerOne(keys[0], answer)
		c.spill()
	}
}

// setMany stores values under keys and answers for each.
func (c *conn) setMany(keys, values [][]byte) {
	for len(keys) > 0 {
		n, err := c.putMany(keys, values)
		for range n {
			c.answerSet(nil)
		}
		if err != nil {
			at := len(c.B)
			c.answerSet(err)
			c.countErrorOf(bundleSet, c.B[at:])
			n++
		}
		keys, values = keys[n:], values[n:]
	}
}

// putMany stores values under keys up to the first that is refused, the n-th.
func (c *conn) putMany(keys, values [][]byte) (n int, err error) {
	if len(keys) > 1 {
		n, err = c.cache().PutMany(keys, values)
	} else if err = c.cache().Put(keys[0], values[0], 0); err == nil {
		n = 1
	}
	c.srv.displace(c.db, keys[:n])
	return n, err
}
