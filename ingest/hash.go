package ingest

import (
	"bytes"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"

	"mcached/ingest/resp"
	"mcached/kvcache"
)

func hashCommands() []command {
	one := [3]int{1, 1, 1}
	row := func(name, syntax, summary string, arity int, f flags, run func(c *conn, args [][]byte)) command {
		return command{name: name, arity: arity, group: groupHash, syntax: syntax, summary: summary, flags: f, keys: one, run: run}
	}
	return []command{
		row("hset", "key field value [field value ...]", "Sets fields of a hash.", -4, write|denyoom, func(c *conn, args [][]byte) { hSet(c, args, "hset") }),
		row("hmset", "key field value [field value ...]", "Sets fields of a hash; the old name of HSET.", -4, write|denyoom, func(c *conn, args [][]byte) { hSet(c, args, "hmset") }),
		row("hsetnx", "key field value", "Sets a field that a hash has not.", 4, write|denyoom, hSetNX),
		row("hget", "key field", "Returns the value of a field.", 3, readonly|fast, hGet),
		row("hmget", "key field [field ...]", "Returns the values of fields.", -3, readonly|fast, hMGet),
		row("hgetall", "key", "Returns all fields with their values.", 2, readonly, hGetAll),
		row("hkeys", "key", "Returns all fields.", 2, readonly, hKeys),
		row("hvals", "key", "Returns all values.", 2, readonly, hVals),
		row("hdel", "key field [field ...]", "Removes fields.", -3, write, func(c *conn, args [][]byte) { c.dropItems(args, kindHash) }),
		row("hexists", "key field", "Says whether a hash has a field.", 3, readonly|fast, func(c *conn, args [][]byte) {
			c.view(args[1], kindHash, func(v []byte) { _, ok := findItem(v, kindHash, args[2]); c.Flag(ok) })
		}),
		row("hlen", "key", "Counts the fields.", 2, readonly|fast, func(c *conn, args [][]byte) {
			c.view(args[1], kindHash, func(v []byte) { c.Int(int64(collectionCount(v))) })
		}),
		row("hstrlen", "key field", "Returns the length of the value of a field.", 3, readonly|fast, func(c *conn, args [][]byte) {
			c.view(args[1], kindHash, func(v []byte) { it, _ := findItem(v, kindHash, args[2]); c.Int(int64(len(it.value))) })
		}),
		row("hincrby", "key field increment", "Adds to the number in a field.", 4, write|denyoom, hIncrBy),
		row("hincrbyfloat", "key field increment", "Adds to the number with a fraction in a field.", 4, write|denyoom, hIncrByFloat),
		row("hscan", "key cursor [MATCH pattern] [COUNT count]", "Iterates over the fields.", -3, readonly, func(c *conn, args [][]byte) { c.scanCollection(args, kindHash) }),
		row("hrandfield", "key [count [WITHVALUES]]", "Returns random fields.", -2, readonly, hRandField),
	}
}

func hSet(c *conn, args [][]byte, name string) {
	if len(args)%2 != 0 {
		c.wrongArity(name)
		return
	}
	var added int64
	ok := c.change(args[1], kindHash, len(args)/2-1, func(x *collection) bool {
		added = 0
		for i := 2; i < len(args); i += 2 {
			if x.set(args[i], args[i+1]) {
				added++
			}
		}
		return true
	})
	switch {
	case !ok:
	case name == "hmset":
		c.OK()
	default:
		c.Int(added)
	}
}

func hSetNX(c *conn, args [][]byte) {
	added := false
	if c.change(args[1], kindHash, 1, func(x *collection) bool {
		_, has := x.find(args[2])
		if added = !has; added {
			x.set(args[2], args[3])
		}
		return added
	}) {
		c.Flag(added)
	}
}

func hGet(c *conn, args [][]byte) {
	c.view(args[1], kindHash, func(v []byte) {
		if it, ok := findItem(v, kindHash, args[2]); ok {
			c.Bulk(it.value)
		} else {
			c.Null()
		}
	})
}

func hMGet(c *conn, args [][]byte) {
	var x collection
	c.view(args[1], kindHash, func(v []byte) {
		x.load(v, kindHash, len(args)-2)
		c.Array(len(args) - 2)
		for _, field := range args[2:] {
			if i, ok := x.find(field); ok {
				c.Bulk(x.items[i].value)
			} else {
				c.Null()
			}
		}
	})
}

func hGetAll(c *conn, args [][]byte) {
	c.view(args[1], kindHash, func(v []byte) {
		c.MapOf(collectionCount(v))
		eachItem(v, kindHash, func(it item) bool {
			c.Bulk(it.key)
			c.Bulk(it.value)
			return true
		})
	})
}

func hKeys(c *conn, args [][]byte) { c.listHash(args[1], func(it item) []byte { return it.key }) }
func hVals(c *conn, args [][]byte) { c.listHash(args[1], func(it item) []byte { return it.value }) }

// listHash answers the same part of each item of a hash.
func (c *conn) listHash(key []byte, part func(item) []byte) {
	c.view(key, kindHash, func(v []byte) {
		c.Array(collectionCount(v))
		eachItem(v, kindHash, func(it item) bool {
			c.Bulk(part(it))
			return true
		})
	})
}

// dropItems is HDEL and SREM.
func (c *conn) dropItems(args [][]byte, kind kvcache.Kind) {
	var n int64
	if c.change(args[1], kind, len(args)-2, func(x *collection) bool {
		n = 0
		for _, key := range args[2:] {
			if x.drop(key) {
				n++
			}
		}
		return n > 0
	}) {
		c.Int(n)
	}
}

func hIncrBy(c *conn, args [][]byte) {
	by, ok := c.integerArg(args[3])
	if !ok {
		return
	}
	var sum int64
	problem := ""
	if !c.change(args[1], kindHash, 1, func(x *collection) bool {
		v := int64(0)
		problem = ""
		if i, has := x.find(args[2]); has {
			if v, ok = resp.ParseInt(x.items[i].value); !ok {
				problem = "ERR hash value is not an integer"
				return false
			}
		}
		if by > 0 && v > math.MaxInt64-by || by < 0 && v < math.MinInt64-by {
			problem = "ERR increment or decrement would overflow"
			return false
		}
		sum = v + by
		x.set(args[2], strconv.AppendInt(nil, sum, 10))
		return true
	}) {
		return
	}
	if problem != "" {
		c.Fail(problem)
		return
	}
	c.Int(sum)
}

func hIncrByFloat(c *conn, args [][]byte) {
	by, ok := resp.ParseLongDouble(args[3])
	if !ok {
		c.Fail(errFloat)
		return
	}
	if by.IsInf() {
		c.Fail("ERR value is NaN or Infinity")
		return
	}
	var text []byte
	problem := ""
	if !c.change(args[1], kindHash, 1, func(x *collection) bool {
		v := new(big.Float).SetPrec(resp.LongDoubleBits)
		problem = ""
		if i, has := x.find(args[2]); has {
			if v, ok = resp.ParseLongDouble(x.items[i].value); !ok {
				problem = "ERR hash value is not a float"
				return false
			}
		}
		if v.IsInf() || resp.TooLarge(v.Add(v, by)) {
			problem = "ERR increment would produce NaN or Infinity"
			return false
		}
		text = appendLongDouble(nil, v)
		x.set(args[2], text)
		return true
	}) {
		return
	}
	if problem != "" {
		c.Fail(problem)
		return
	}
	c.Bulk(text)
}

// appendLongDouble writes a number as INCRBYFLOAT and HINCRBYFLOAT do.
func appendLongDouble(dst []byte, v *big.Float) []byte {
	at := len(dst)
	dst = v.Append(dst, 'f', 17)
	dst = append(dst[:at], bytes.TrimSuffix(bytes.TrimRight(dst[at:], "0"), []byte("."))...)
	if string(dst[at:]) == "-0" {
		dst = append(dst[:at], '0')
	}
	return dst
}

// maxRandom bounds the items that HRANDFIELD and SRANDMEMBER answer with
// repetitions.
const maxRandom = 1 << 20

// randomCount reads the count of HRANDFIELD and SRANDMEMBER, negative for with
// repetitions.
func (c *conn) randomCount(b []byte) (n int64, ok bool) {
	n, ok = c.integerArg(b)
	switch {
	case ok && n == math.MinInt64:
		c.Fail("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807")
		return 0, false
	case ok && n < -maxRandom:
		c.Fail("ERR value is out of range, the limit with repetitions is " + itoa(maxRandom))
		return 0, false
	}
	return n, ok
}

// randomItems are n of the items, at random, with repetitions if n is negative.
func randomItems(value []byte, kind kvcache.Kind, n int64) (chosen []item) {
	var x collection
	x.load(value, kind, 0)
	switch {
	case len(x.items) == 0:
		return nil
	case n < 0:
		for range -n {
			chosen = append(chosen, x.items[rand.IntN(len(x.items))])
		}
		return chosen
	case n < int64(len(x.items)):
		for i := range n {
			j := i + rand.Int64N(int64(len(x.items))-i)
			x.items[i], x.items[j] = x.items[j], x.items[i]
		}
		return x.items[:n]
	}
	return x.items
}

func hRandField(c *conn, args [][]byte) {
	n, counted, values := int64(1), len(args) > 2, false
	if counted {
		var ok bool
		if n, ok = c.randomCount(args[2]); !ok {
			return
		}
		if len(args) > 4 || len(args) == 4 && !resp.EqualFold(args[3], "withvalues") {
			c.Fail(errSyntax)
			return
		}
		values = len(args) == 4
	}
	c.view(args[1], kindHash, func(v []byte) {
		chosen := randomItems(v, kindHash, n)
		switch {
		case !counted && len(chosen) == 0:
			c.Null()
			return
		case !counted:
			c.Bulk(chosen[0].key)
			return
		case values && !c.V3:
			c.Array(2 * len(chosen))
		default:
			c.Array(len(chosen))
		}
		for _, it := range chosen {
			if values && c.V3 {
				c.Array(2)
			}
			c.Bulk(it.key)
			if values {
				c.Bulk(it.value)
			}
		}
	})
}
