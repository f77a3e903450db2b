package ingest

import (
	"math/rand/v2"
	"slices"

	"mcached/ingest/resp"
)

func setCommands() []command {
	one, every := [3]int{1, 1, 1}, [3]int{1, -1, 1}
	row := func(name, syntax, summary string, arity int, f flags, keys [3]int, run func(c *conn, args [][]byte)) command {
		return command{name: name, arity: arity, group: groupSet, syntax: syntax, summary: summary, flags: f, keys: keys, run: run}
	}
	return []command{
		row("sadd", "key member [member ...]", "Adds members to a set.", -3, write|denyoom, one, sAdd),
		row("srem", "key member [member ...]", "Removes members.", -3, write, one, func(c *conn, args [][]byte) { c.dropItems(args, kindSet) }),
		row("smembers", "key", "Returns all members.", 2, readonly, one, sMembers),
		row("sismember", "key member", "Says whether a set has a member.", 3, readonly|fast, one, func(c *conn, args [][]byte) {
			c.view(args[1], kindSet, func(v []byte) { _, ok := findItem(v, kindSet, args[2]); c.Flag(ok) })
		}),
		row("smismember", "key member [member ...]", "Says which members a set has.", -3, readonly|fast, one, sMIsMember),
		row("scard", "key", "Counts the members.", 2, readonly|fast, one, func(c *conn, args [][]byte) {
			c.view(args[1], kindSet, func(v []byte) { c.Int(int64(collectionCount(v))) })
		}),
		row("sscan", "key cursor [MATCH pattern] [COUNT count]", "Iterates over the members.", -3, readonly, one, func(c *conn, args [][]byte) { c.scanCollection(args, kindSet) }),
		row("spop", "key [count]", "Removes random members and returns them.", -2, write, one, sPop),
		row("srandmember", "key [count]", "Returns random members.", -2, readonly, one, sRandMember),
		row("smove", "source destination member", "Moves a member from one set to another.", 4, write|slow, [3]int{1, 2, 1}, sMove),
		row("sinter", "key [key ...]", "Returns the members that all sets have.", -2, readonly|slow, every, func(c *conn, args [][]byte) { c.combine(args[1:], intersect) }),
		row("sunion", "key [key ...]", "Returns the members that any set has.", -2, readonly|slow, every, func(c *conn, args [][]byte) { c.combine(args[1:], unite) }),
		row("sdiff", "key [key ...]", "Returns the members of the first set that no other has.", -2, readonly|slow, every, func(c *conn, args [][]byte) { c.combine(args[1:], subtract) }),
	}
}

func sAdd(c *conn, args [][]byte) {
	var added int64
	if c.change(args[1], kindSet, len(args)-2, func(x *collection) bool {
		added = 0
		for _, member := range args[2:] {
			if x.set(member, nil) {
				added++
			}
		}
		return added > 0
	}) {
		c.Int(added)
	}
}

func sMembers(c *conn, args [][]byte) {
	c.view(args[1], kindSet, func(v []byte) {
		c.SetOf(collectionCount(v))
		eachItem(v, kindSet, func(it item) bool { c.Bulk(it.key); return true })
	})
}

func sMIsMember(c *conn, args [][]byte) {
	var x collection
	c.view(args[1], kindSet, func(v []byte) {
		x.load(v, kindSet, len(args)-2)
		c.Array(len(args) - 2)
		for _, member := range args[2:] {
			_, ok := x.find(member)
			c.Flag(ok)
		}
	})
}

func sPop(c *conn, args [][]byte) {
	n, counted := int64(1), len(args) > 2
	if counted {
		if len(args) > 3 {
			c.Fail(errSyntax)
			return
		}
		var ok bool
		if n, ok = resp.ParseInt(args[2]); !ok || n < 0 {
			c.Fail("ERR value is out of range, must be positive")
			return
		}
	}
	at := len(c.B)
	c.change(args[1], kindSet, 0, func(x *collection) bool {
		c.B = c.B[:at]
		chosen := x.items
		if n < int64(len(x.items)) {
			chosen = make([]item, 0, n)
			for _, i := range rand.Perm(len(x.items))[:n] {
				chosen = append(chosen, x.items[i])
				x.items[i].gone = true
			}
		} else {
			for i := range x.items {
				x.items[i].gone = true
			}
		}
		switch {
		case counted:
			c.SetOf(len(chosen))
		case len(chosen) == 0:
			c.Null()
		}
		for _, it := range chosen {
			c.Bulk(it.key)
		}
		return len(chosen) > 0
	}) // nothing is spilled: no heir has been told yet
}

func sRandMember(c *conn, args [][]byte) {
	n, counted := int64(1), len(args) > 2
	if counted {
		if len(args) > 3 {
			c.Fail(errSyntax)
			return
		}
		var ok bool
		if n, ok = c.randomCount(args[2]); !ok {
			return
		}
	}
	c.view(args[1], kindSet, func(v []byte) {
		chosen := randomItems(v, kindSet, n)
		switch {
		case counted:
			c.Array(len(chosen))
		case len(chosen) == 0:
			c.Null()
		}
		for _, it := range chosen {
			c.Bulk(it.key)
		}
	})
}

// sMove is one change for all others.
func sMove(c *conn, args [][]byte) {
	from, to, member := args[1], args[2], args[3]
	c.alone(func() {
		exists, there := false, false
		if !c.view(from, kindSet, func(v []byte) {
			exists = v != nil
			_, there = findItem(v, kindSet, member)
		}) {
			return
		}
		if exists && !c.view(to, kindSet, func([]byte) {}) {
			return
		}
		if there && string(from) != string(to) &&
			(!c.change(from, kindSet, 1, func(x *collection) bool { return x.drop(member) }) ||
				!c.change(to, kindSet, 1, func(x *collection) bool { return x.set(member, nil) })) {
			return
		}
		c.Flag(there)
	})
}

// combining is what SINTER, SUNION and SDIFF do with the members of the sets after
// the first.
type combining uint8

const (
	intersect combining = iota
	unite
	subtract
)

// combine answers the members of several sets. They are read one after the other.
func (c *conn) combine(keys [][]byte, how combining) {
	var order []string // in the order of the command
	in := map[string]bool{}
	for i, key := range keys {
		var members []string
		bytes := 0
		if !c.view(key, kindSet, func(v []byte) {
			bytes = len(v)
			eachItem(v, kindSet, func(it item) bool { members = append(members, string(it.key)); return true })
		}) {
			return
		}
		if !c.room(int64(4*bytes + 64*len(members))) {
			return
		}
		switch {
		case i == 0 || how == unite:
			for _, m := range members {
				if !in[m] {
					in[m] = true
					order = append(order, m)
				}
			}
		case how == subtract:
			for _, m := range members {
				delete(in, m)
			}
		default:
			both := map[string]bool{}
			for _, m := range members {
				if in[m] {
					both[m] = true
				}
			}
			in = both
		}
	}
	order = slices.DeleteFunc(order, func(m string) bool { return !in[m] })
	c.SetOf(len(order))
	for _, m := range order {
		c.BulkString(m)
		c.spill()
	}
}
