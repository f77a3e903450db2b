package ingest

import (
	"errors"
	"math"
	"slices"
	"strings"

	"mcached/ingest/admission"
	"mcached/ingest/resp"
	"mcached/kvcache"
)

func stringCommands() []command {
	one := [3]int{1, 1, 1}
	return []command{
		{name: "get", arity: 2, group: groupString, syntax: "key", summary: "Returns the value of a key.", flags: readonly | fast, keys: one, run: get},
		{name: "set", arity: -3, group: groupString, syntax: "key value [NX | XX | IFEQ value | IFNE value | IFDEQ digest | IFDNE digest] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]", summary: "Sets the value of a key.", flags: write | denyoom, keys: one, run: set},
		{name: "setnx", arity: 3, group: groupString, syntax: "key value", summary: "Sets the value of a key that does not exist.", flags: write | denyoom | fast, keys: one, run: setNX},
		{name: "setex", arity: 4, group: groupString, syntax: "key seconds value", summary: "Sets the value and the time to live of a key.", flags: write | denyoom, keys: one, run: func(c *conn, args [][]byte) { setEX(c, args, "setex", 1000) }},
		{name: "psetex", arity: 4, group: groupString, syntax: "key milliseconds value", summary: "Sets the value and the time to live in milliseconds of a key.", flags: write | denyoom, keys: one, run: func(c *conn, args [][]byte) { setEX(c, args, "psetex", 1) }},
		{name: "getset", arity: 3, group: groupString, syntax: "key value", summary: "Sets a key and returns its previous value.", flags: write | denyoom | fast, keys: one, run: getSet},
		{name: "getdel", arity: 2, group: groupString, syntax: "key", summary: "Returns the value of a key and removes it.", flags: write | fast, keys: one, run: getDel},
		{name: "getex", arity: -2, group: groupString, syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]", summary: "Returns the value of a key and sets its expiration.", flags: write | fast, keys: one, run: getEX},
		{name: "mget", arity: -2, group: groupString, syntax: "key [key ...]", summary: "Returns the values of keys.", flags: readonly | fast, keys: [3]int{1, -1, 1}, run: mget},
		{name: "mset", arity: -3, group: groupString, syntax: "key value [key value ...]", summary: "Sets the values of keys.", flags: write | denyoom, keys: [3]int{1, -1, 2}, run: mset},
		{name: "msetnx", arity: -3, group: groupString, syntax: "key value [key value ...]", summary: "Sets the values of keys if none of them exists.", flags: write | denyoom, keys: [3]int{1, -1, 2}, run: msetNX},
		{name: "append", arity: 3, group: groupString, syntax: "key value", summary: "Appends to the value of a key.", flags: write | denyoom | fast, keys: one, run: appendValue},
		{name: "strlen", arity: 2, group: groupString, syntax: "key", summary: "Returns the length of a value.", flags: readonly | fast, keys: one, run: strlen},
		{name: "getrange", arity: 4, group: groupString, syntax: "key start end", summary: "Returns a part of a value.", flags: readonly, keys: one, run: getRange},
		{name: "substr", arity: 4, group: groupString, syntax: "key start end", summary: "Returns a part of a value; the old name of GETRANGE.", flags: readonly, keys: one, run: getRange},
		{name: "incr", arity: 2, group: groupString, syntax: "key", summary: "Adds one to a number.", flags: write | denyoom | fast, keys: one, run: func(c *conn, args [][]byte) { increment(c, args[1], 1) }},
		{name: "decr", arity: 2, group: groupString, syntax: "key", summary: "Takes one from a number.", flags: write | denyoom | fast, keys: one, run: func(c *conn, args [][]byte) { increment(c, args[1], -1) }},
		{name: "incrby", arity: 3, group: groupString, syntax: "key increment", summary: "Adds to a number.", flags: write | denyoom | fast, keys: one, run: incrBy},
		{name: "decrby", arity: 3, group: groupString, syntax: "key decrement", summary: "Takes from a number.", flags: write | denyoom | fast, keys: one, run: decrBy},
		{name: "incrbyfloat", arity: 3, group: groupString, syntax: "key increment", summary: "Adds to a number with a fraction.", flags: write | denyoom | fast, keys: one, run: incrByFloat},
	}
}

// refuse answers an error of the cache.
func (c *conn) refuse(err error) {
	if err == errKind {
		c.Fail(errWrongType)
		return
	}
	if errors.As(err, new(*admission.Refusal)) {
		c.refusedRoom(err) // to collect a large value
		return
	}
	if errors.Is(err, kvcache.ErrNoMemory) {
		c.Fail("OOM command not allowed when used memory > 'maxmemory'.")
		return
	}
	c.Fail("ERR " + plain(err))
}

// plain is the words of an error of a cache, without the names of packages:
// those mean nothing to a client.
func plain(err error) string {
	s := err.Error()
	for _, p := range []string{"kvcache: ", "mcache: "} {
		s = strings.ReplaceAll(s, p, "")
	}
	return s
}

// What a GET and a plain SET answer is said here and nowhere else, whether they
// came alone, in a bundle or were gathered; for TS.ADD it is replyAdded.

func (c *conn) answerGet(value []byte, kind kvcache.Kind, ok bool) {
	switch {
	case !ok:
		c.Null()
	case kind != kvcache.String:
		c.Fail(errWrongType)
	default:
		c.Bulk(value)
	}
}

// answerMGet answers one key of MGET, to which what is no string is nothing.
func (c *conn) answerMGet(value []byte, kind kvcache.Kind, ok bool) {
	c.answerGet(value, kvcache.String, ok && kind == kvcache.String)
}

// answerGetOfMany answers a GET in a bundle, and counts it if it failed.
func (c *conn) answerGetOfMany(value []byte, kind kvcache.Kind, ok bool) {
	at := len(c.B)
	if c.answerGet(value, kind, ok); c.B[at] == '-' {
		c.countErrorOf(bundleGet, c.B[at:])
	}
}

// errWrongType answers a command about one type to a key that holds another.
const errWrongType = "WRONGTYPE Operation against a key holding the wrong kind of value"

// answerSet answers what Put or PutMany said of a key.
func (c *conn) answerSet(err error) {
	if err != nil {
		c.refuse(err)
	} else {
		c.OK()
	}
}

func (c *conn) get(key []byte) { c.answerOne(key, (*conn).answerGet) }

func get(c *conn, args [][]byte) { c.get(args[1]) }

// setOptions are what may follow SET key value and GETEX key.
type setOptions struct {
	nx, xx, get, keepTTL, persist bool
	compare                       comparison
	expire                        *expireWord // nil for not said
	value                         []byte      // what followed it
}

// expireWord is an option that says when a key expires.
type expireWord struct {
	name   string
	unitMs int64
	from   countedFrom
}

var expireWords = [...]expireWord{{"ex", 1000, fromNow}, {"px", 1, fromNow}, {"exat", 1000, fromEpoch}, {"pxat", 1, fromEpoch}}

func findExpireWord(b []byte) *expireWord {
	for i := range expireWords {
		if resp.EqualFold(b, expireWords[i].name) {
			return &expireWords[i]
		}
	}
	return nil
}

// optionsOf says whose options are read.
type optionsOf uint8

const (
	ofSet optionsOf = iota
	ofGetEx
)

// parseSet reads the options of SET or GETEX, and answers what is wrong with them.
// Said twice an option is legal, and the last one counts, as in Redis; of those that
// exclude one another it is not.
func (c *conn) parseSet(args [][]byte, of optionsOf) (o setOptions, ok bool) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case of == ofSet && resp.EqualFold(a, "nx") && !o.xx && !o.compares():
			o.nx = true
		case of == ofSet && resp.EqualFold(a, "xx") && !o.nx && !o.compares():
			o.xx = true
		case of == ofSet && resp.EqualFold(a, "get"):
			o.get = true
		case of == ofSet && resp.EqualFold(a, "keepttl") && o.expire == nil:
			o.keepTTL = true
		case of == ofGetEx && resp.EqualFold(a, "persist") && o.expire == nil:
			o.persist = true
		case of == ofSet && findComparison(a) != nil && i+1 < len(args) && !o.nx && !o.xx && (!o.compares() || o.compare.comparisonWord == findComparison(a)):
			o.compare = comparison{findComparison(a), args[i+1]}
			i++
		default:
			w := findExpireWord(a)
			if w == nil || i+1 == len(args) || o.keepTTL || o.persist || o.expire != nil && o.expire != w {
				c.Fail(errSyntax)
				return o, false
			}
			o.expire, o.value = w, args[i+1]
			i++
		}
	}
	return o, true
}

func (o *setOptions) compares() bool { return o.compare.comparisonWord != nil }

// optionExpiry is the time that the options say, in Unix milliseconds, or 0 for
// none; it answers what is wrong with it.
func (c *conn) optionExpiry(name string, o setOptions) (ms int64, ok bool) {
	if o.expire == nil {
		return 0, true
	}
	n, ok := c.integerArg(o.value)
	if !ok {
		return 0, false
	}
	return c.expiry(name, n, o.expire.unitMs, o.expire.from)
}

// expiry turns a positive time in units of unitMs into Unix milliseconds, or
// answers that it cannot be.
func (c *conn) expiry(name string, n, unitMs int64, from countedFrom) (ms int64, ok bool) {
	now := int64(0)
	if from == fromNow {
		now = c.nowMs()
	}
	if n <= 0 || n > (math.MaxInt64-now)/unitMs {
		c.Fail("ERR invalid expire time in '" + name + "' command")
		return 0, false
	}
	return n*unitMs + now, true
}

func (c *conn) nowMs() int64 { return c.srv.o.Now().UnixMilli() }

func set(c *conn, args [][]byte) {
	if len(args) == 3 {
		c.answerSet(c.cache().Put(args[1], args[2], 0))
		c.srv.displace(c.db, args[1:2])
		return
	}
	o, ok := c.parseSet(args[3:], ofSet)
	if !ok {
		return
	}
	expiresMs, ok := c.optionExpiry("set", o)
	if !ok {
		return
	}
	at, stored, problem := len(c.B), false, ""
	err := c.cache().Update(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		c.B = c.B[:at]
		stored, problem = false, ""
		there := ok || c.srv.isSeries(c.db, args[1])
		if o.get || o.compares() {
			if there && (!ok || old.Kind != kvcache.String) {
				problem = errWrongType
			} else if there && o.compares() {
				problem = o.compare.problem()
			}
			if problem != "" {
				return old, kvcache.Keep
			}
		}
		switch {
		case o.get && ok:
			c.Bulk(old.Value)
		case o.get:
			c.Null()
		}
		if stored = o.stores(old.Value, there); !stored {
			return old, kvcache.Keep
		}
		e := kvcache.Entry{Value: args[2], ExpiresMs: expiresMs}
		if o.keepTTL && ok {
			e.ExpiresMs = old.ExpiresMs
		}
		return e, kvcache.Store
	})
	if stored {
		c.srv.displace(c.db, args[1:2])
	}
	switch {
	case err != nil:
		c.B = c.B[:at]
		c.refuse(err)
	case problem != "":
		c.Fail(problem)
	case o.get:
	case stored:
		c.OK()
	default:
		c.Null()
	}
}

// stores reports whether the options let SET store a value in place of old, if
// something is there. A key that is not has no value to be equal to.
func (o *setOptions) stores(old []byte, there bool) bool {
	switch {
	case o.nx:
		return !there
	case o.xx:
		return there
	case o.compares() && there:
		return o.compare.holds(old)
	case o.compares():
		return !o.compare.equal
	}
	return true
}

func setNX(c *conn, args [][]byte) {
	c.setIfAbsent(args[1], args[2])
}

func (c *conn) setIfAbsent(key, value []byte) {
	stored := false
	err := c.cache().Update(key, func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		if stored = !ok && !c.srv.isSeries(c.db, key); !stored {
			return old, kvcache.Keep
		}
		return kvcache.Entry{Value: value}, kvcache.Store
	})
	if err != nil {
		c.refuse(err)
		return
	}
	c.Flag(stored)
}

func setEX(c *conn, args [][]byte, name string, unitMs int64) {
	n, ok := c.integerArg(args[2])
	if !ok {
		return
	}
	expiresMs, ok := c.expiry(name, n, unitMs, fromNow)
	if !ok {
		return
	}
	if err := c.cache().Update(args[1], func(kvcache.Entry, bool) (kvcache.Entry, kvcache.Op) {
		return kvcache.Entry{Value: args[3], ExpiresMs: expiresMs}, kvcache.Store
	}); err != nil {
		c.refuse(err)
		return
	}
	c.srv.displace(c.db, args[1:2])
	c.OK()
}

func getSet(c *conn, args [][]byte) {
	at := len(c.B)
	err := c.updateString(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		c.B = c.B[:at]
		if ok {
			c.Bulk(old.Value)
		} else {
			c.Null()
		}
		return kvcache.Entry{Value: args[2]}, kvcache.Store
	})
	if err != nil {
		c.B = c.B[:at]
		c.refuse(err)
	}
}

func getDel(c *conn, args [][]byte) {
	at := len(c.B)
	err := c.updateString(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		c.B = c.B[:at]
		if !ok {
			c.Null()
			return old, kvcache.Keep
		}
		c.Bulk(old.Value)
		return old, kvcache.Remove
	})
	if err != nil {
		c.B = c.B[:at]
		c.refuse(err)
	}
}

func getEX(c *conn, args [][]byte) {
	o, ok := c.parseSet(args[2:], ofGetEx)
	if !ok {
		return
	}
	// Redis looks for the key before it reads the number.
	kind, there := c.cache().KindOf(args[1])
	if o.expire == nil && !o.persist || !there || kind != kvcache.String {
		c.get(args[1])
		return
	}
	expiresMs, ok := c.optionExpiry("getex", o)
	if !ok {
		return
	}
	at := len(c.B)
	err := c.updateString(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		c.B = c.B[:at]
		if !ok {
			c.Null()
			return old, kvcache.Keep
		}
		c.Bulk(old.Value)
		return kvcache.Entry{Value: old.Value, ExpiresMs: expiresMs}, kvcache.Store
	})
	if err != nil {
		c.B = c.B[:at]
		c.refuse(err)
	}
}

func mget(c *conn, args [][]byte) {
	c.Array(len(args) - 1)
	c.getMany(args[1:], (*conn).answerMGet)
}

// mset sets keys one after the other: readers may see some of them before the
// others, which in Redis they cannot. A key that does not fit ends it.
func mset(c *conn, args [][]byte) {
	if len(args)%2 == 0 {
		c.wrongArity("mset")
		return
	}
	if err := c.putPairs(args[1:]); err != nil {
		c.refuse(err)
		return
	}
	c.OK()
}

// putPairs stores keys with their values, which follow them, in their order,
// up to the first that is refused.
func (c *conn) putPairs(pairs [][]byte) error {
	g := c.takeBundle()
	for len(pairs) > 0 {
		n := min(len(pairs)/2, bundleKeys)
		for i := range n {
			g.keys[i], g.values[i] = pairs[2*i], pairs[2*i+1]
		}
		if _, err := c.putMany(g.keys[:n], g.values[:n]); err != nil {
			return err
		}
		pairs = pairs[2*n:]
	}
	return nil
}

// msetNX holds one lock of the server, so that of two MSETNX with a key in
// common one fails. Other commands that set one of the keys meanwhile win or
// lose key by key.
func msetNX(c *conn, args [][]byte) {
	if len(args)%2 == 0 {
		c.wrongArity("msetnx")
		return
	}
	c.srv.msetnx.Lock()
	defer c.srv.msetnx.Unlock()
	for i := 1; i < len(args); i += 2 {
		if c.has(args[i]) {
			c.Int(0)
			return
		}
	}
	if err := c.putPairs(args[1:]); err != nil {
		c.refuse(err)
		return
	}
	c.Int(1)
}

func appendValue(c *conn, args [][]byte) {
	n := 0
	err := c.updateString(args[1], func(old kvcache.Entry, _ bool) (kvcache.Entry, kvcache.Op) {
		n = len(old.Value) + len(args[2])
		v := make([]byte, 0, n)
		v = append(append(v, old.Value...), args[2]...)
		return kvcache.Entry{Value: v, ExpiresMs: old.ExpiresMs}, kvcache.Store
	})
	if err != nil {
		c.refuse(err)
		return
	}
	c.Int(int64(n))
}

func strlen(c *conn, args [][]byte) {
	if n, ok := c.lengthOf(args[1]); ok {
		c.Int(int64(n))
	}
}

// lengthOf is how long the string of a key is, 0 if there is none. If it returns
// false, it has answered that the key is of another type.
func (c *conn) lengthOf(key []byte) (length int, ok bool) {
	kind, ok, _ := c.cache().ViewPart(key, func(n int) (from, to int, err error) {
		length = n
		return 0, 0, nil
	}, nil)
	if kind, ok = c.srv.typed(c.db, key, kind, ok); ok && kind != kvcache.String {
		c.Fail(errWrongType)
		return 0, false
	}
	return length, true
}

func getRange(c *conn, args [][]byte) {
	first, ok := c.integerArg(args[2])
	if !ok {
		return
	}
	last, ok := c.integerArg(args[3])
	if !ok {
		return
	}
	at, lent := len(c.B), 0
	kind, ok, err := c.cache().ViewPart(args[1], func(n int) (from, to int, err error) {
		from, to = part(n, first, last)
		if more := to - from - lent; more > c.cache().MaxValue() {
			if err := c.lend(int64(more)); err != nil {
				return 0, 0, err
			}
			lent += more
			c.B = slices.Grow(c.B[:at], to-from+32)
		}
		c.B = c.B[:at]
		c.BulkHead(to - from)
		return from, to, nil
	}, func(b []byte) { c.B = append(c.B, b...) })
	if ok && kind == kvcache.String {
		c.B = append(c.B, "\r\n"...)
		return
	}
	c.B = c.B[:at] // there may be a part of something that was there
	switch _, ok = c.srv.typed(c.db, args[1], kind, ok); {
	case err != nil:
		c.refuse(err)
	case ok:
		c.Fail(errWrongType)
	default:
		c.Bulk(nil)
	}
}

// part is which bytes of n there are from first to last, where negative places count
// from the end and what is outside does not exist.
func part(n int, first, last int64) (from, to int) {
	size := int64(n)
	if first < 0 && last < 0 && first > last {
		return 0, 0
	}
	if first < 0 {
		first = max(first+size, 0)
	}
	if last < 0 {
		last = max(last+size, 0)
	}
	last = min(last, size-1)
	if first > last || n == 0 {
		return 0, 0
	}
	return int(first), int(last) + 1
}
