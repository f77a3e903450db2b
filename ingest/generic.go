package ingest

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"mcached/ingest/resp"
	"mcached/kvcache"
)

func genericCommands() []command {
	one, every := [3]int{1, 1, 1}, [3]int{1, -1, 1}
	expireSyntax := " [NX | XX | GT | LT]"
	return []command{
		{name: "del", arity: -2, group: groupGeneric, syntax: "key [key ...]", summary: "Removes keys.", flags: write, keys: every, run: del},
		{name: "unlink", arity: -2, group: groupGeneric, syntax: "key [key ...]", summary: "Removes keys.", flags: write | fast, keys: every, run: del},
		{name: "exists", arity: -2, group: groupGeneric, syntax: "key [key ...]", summary: "Counts the keys that exist.", flags: readonly | fast, keys: every, run: func(c *conn, args [][]byte) { c.countKeys(args[1:], c.has) }},
		{name: "touch", arity: -2, group: groupGeneric, syntax: "key [key ...]", summary: "Counts as a read of keys.", flags: readonly | fast, keys: every, run: func(c *conn, args [][]byte) {
			c.countKeys(args[1:], func(key []byte) bool { return c.cache().Touch(key) || c.srv.isSeries(c.db, key) })
		}},
		{name: "type", arity: 2, group: groupGeneric, syntax: "key", summary: "Returns the type of a key.", flags: readonly | fast, keys: one, run: typeOf},
		{name: "ttl", arity: 2, group: groupGeneric, syntax: "key", summary: "Returns the time to live in seconds.", flags: readonly | fast, keys: one, run: func(c *conn, args [][]byte) { c.remaining(args[1], 1000, fromNow) }},
		{name: "pttl", arity: 2, group: groupGeneric, syntax: "key", summary: "Returns the time to live in milliseconds.", flags: readonly | fast, keys: one, run: func(c *conn, args [][]byte) { c.remaining(args[1], 1, fromNow) }},
		{name: "expiretime", arity: 2, group: groupGeneric, syntax: "key", summary: "Returns the time of expiration in Unix seconds.", flags: readonly | fast, keys: one, run: func(c *conn, args [][]byte) { c.remaining(args[1], 1000, fromEpoch) }},
		{name: "pexpiretime", arity: 2, group: groupGeneric, syntax: "key", summary: "Returns the time of expiration in Unix milliseconds.", flags: readonly | fast, keys: one, run: func(c *conn, args [][]byte) { c.remaining(args[1], 1, fromEpoch) }},
		{name: "expire", arity: -3, group: groupGeneric, syntax: "key seconds" + expireSyntax, summary: "Sets the time to live.", flags: write | fast, keys: one, run: func(c *conn, args [][]byte) { expire(c, args, "expire", 1000, fromNow) }},
		{name: "pexpire", arity: -3, group: groupGeneric, syntax: "key milliseconds" + expireSyntax, summary: "Sets the time to live in milliseconds.", flags: write | fast, keys: one, run: func(c *conn, args [][]byte) { expire(c, args, "pexpire", 1, fromNow) }},
		{name: "expireat", arity: -3, group: groupGeneric, syntax: "key unix-time-seconds" + expireSyntax, summary: "Sets the time of expiration.", flags: write | fast, keys: one, run: func(c *conn, args [][]byte) { expire(c, args, "expireat", 1000, fromEpoch) }},
		{name: "pexpireat", arity: -3, group: groupGeneric, syntax: "key unix-time-milliseconds" + expireSyntax, summary: "Sets the time of expiration in milliseconds.", flags: write | fast, keys: one, run: func(c *conn, args [][]byte) { expire(c, args, "pexpireat", 1, fromEpoch) }},
		{name: "persist", arity: 2, group: groupGeneric, syntax: "key", summary: "Removes the expiration.", flags: write | fast, keys: one, run: persist},
		{name: "scan", arity: -2, group: groupGeneric, syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]", summary: "Iterates over the keys.", flags: readonly, run: scan},
		{name: "keys", arity: 2, group: groupGeneric, syntax: "pattern", summary: "Returns the keys that match.", flags: readonly | slow, run: keys},
		{name: "randomkey", arity: 1, group: groupGeneric, summary: "Returns a random key.", flags: readonly | slow, run: randomKey},
		{name: "object", arity: -2, group: groupGeneric, syntax: "ENCODING key | FREQ key | IDLETIME key | REFCOUNT key", summary: "Tells how a value is kept.", flags: readonly, keys: [3]int{2, 2, 1}, subs: []command{
			{name: "encoding", arity: 3, syntax: "key", keys: [3]int{2, 2, 1}, summary: "Returns the encoding that Redis would have for the value.", run: objectEncoding},
			{name: "idletime", arity: 3, syntax: "key", keys: [3]int{2, 2, 1}, summary: "Returns for how many seconds the key was not used, as far as that is known.", run: objectIdleTime},
			{name: "refcount", arity: 3, syntax: "key", keys: [3]int{2, 2, 1}, summary: "Returns 1, as values are not shared.", run: objectRefCount},
			{name: "freq", arity: 3, syntax: "key", keys: [3]int{2, 2, 1}, summary: "Returns how often the key was read of late, at most 3.", run: objectFreq},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("object") }},
		}},
	}
}

func del(c *conn, args [][]byte) { c.countKeys(args[1:], c.remove) }

// has says whether there is a value of any type, or a series that was created by
// that key, in the selected database.
func (c *conn) has(key []byte) bool { return c.srv.has(c.db, key) }

func (s *Server) has(db int, key []byte) bool {
	if b := s.o.Blobs.Made(db); b != nil && b.Has(key) {
		return true
	}
	d := s.seriesOf(db)
	return d != nil && d.exists(key)
}

// remove removes both, as there is but one in Redis.
func (c *conn) remove(key []byte) bool {
	blob := c.cache().Delete(key)
	d := c.srv.seriesOf(c.db)
	return d != nil && d.remove(key) || blob
}

func (c *conn) countKeys(keys [][]byte, f func(key []byte) bool) {
	n := int64(0)
	for _, k := range keys {
		if f(k) {
			n++
		}
	}
	c.Int(n)
}

func typeOf(c *conn, args [][]byte) {
	if kind, ok := c.cache().KindOf(args[1]); ok {
		c.Simple(kindNames[kind])
		return
	}
	if d := c.srv.seriesOf(c.db); d != nil {
		if _, ok := d.find(string(args[1])); ok {
			c.Simple(seriesType)
			return
		}
	}
	c.Simple("none")
}

// countedFrom is the time that the number in a command counts from.
type countedFrom uint8

const (
	fromEpoch countedFrom = iota // of Unix
	fromNow
)

// remaining answers a key's expiration in units of so many milliseconds:
// -1 when there is none, -2 when there is no key.
func (c *conn) remaining(key []byte, unitMs int64, from countedFrom) {
	ms, ok := c.cache().Expiry(key)
	if !ok {
		ms, ok = c.srv.seriesOf(c.db).expiry(key)
	}
	switch {
	case !ok:
		c.Int(-2)
	case ms == 0:
		c.Int(-1)
	case from == fromNow:
		c.Int(rounded(max(ms-c.nowMs(), 0), unitMs))
	default:
		c.Int(rounded(ms, unitMs))
	}
}

// rounded is ms in units of unitMs, to the nearest; ms is not negative. Redis
// adds half a unit first, which the longest times overflow.
func rounded(ms, unitMs int64) int64 {
	n := ms / unitMs
	if unitMs > 1 && ms%unitMs >= unitMs/2 {
		n++
	}
	return n
}

func expire(c *conn, args [][]byte, name string, unitMs int64, from countedFrom) {
	var nx, xx, gt, lt bool
	for _, a := range args[3:] {
		switch {
		case resp.EqualFold(a, "nx"):
			nx = true
		case resp.EqualFold(a, "xx"):
			xx = true
		case resp.EqualFold(a, "gt"):
			gt = true
		case resp.EqualFold(a, "lt"):
			lt = true
		default:
			c.Fail("ERR Unsupported option " + clip(a, 128))
			return
		}
	}
	switch {
	case nx && (xx || gt || lt):
		c.Fail("ERR NX and XX, GT or LT options at the same time are not compatible")
		return
	case gt && lt:
		c.Fail("ERR GT and LT options at the same time are not compatible")
		return
	}
	n, ok := c.integerArg(args[2])
	if !ok {
		return
	}
	now := c.nowMs()
	base := int64(0)
	if from == fromNow {
		base = now
	}
	// A time that has passed is legal here: it removes the key.
	if n > math.MaxInt64/unitMs || n < math.MinInt64/unitMs || n*unitMs > math.MaxInt64-base {
		c.Fail("ERR invalid expire time in '" + name + "' command")
		return
	}
	at := n*unitMs + base
	wanted := func(oldMs int64) bool {
		has := oldMs != 0
		return !(nx && has || xx && !has || gt && (!has || at <= oldMs) || lt && has && at >= oldMs)
	}
	found, done := false, false
	err := c.cache().Update(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		found, done = ok, ok && wanted(old.ExpiresMs)
		switch {
		case !done:
			return old, kvcache.Keep
		case at <= now:
			return old, kvcache.Remove
		}
		return kvcache.Entry{Value: old.Value, ExpiresMs: at, Kind: old.Kind}, kvcache.Store
	})
	if !found && err == nil {
		done = c.srv.seriesOf(c.db).expireAt(args[1], func(oldMs int64) (int64, bool) { return max(at, 1), wanted(oldMs) })
	}
	if err != nil {
		c.refuse(err)
		return
	}
	c.Flag(done)
}

func persist(c *conn, args [][]byte) {
	found, done := false, false
	err := c.cache().Update(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		found = ok
		if done = ok && old.ExpiresMs != 0; !done {
			return old, kvcache.Keep
		}
		return kvcache.Entry{Value: old.Value, Kind: old.Kind}, kvcache.Store
	})
	if !found && err == nil {
		done = c.srv.seriesOf(c.db).expireAt(args[1], func(oldMs int64) (int64, bool) { return 0, oldMs != 0 })
	}
	if err != nil {
		c.refuse(err)
		return
	}
	c.Flag(done)
}

// scanStep is how many keys are looked at under the cache's lock at a time.
const scanStep = 64

// loopScan is the largest COUNT that is served in a loop, a tenth of a
// millisecond's work.
const loopScan = 1000

// maxPatternBytes bounds a pattern, and all of CONFIG GET together. Redis has no
// bound, and takes the length of the pattern times that of the key for each key.
const maxPatternBytes = 1024

// patternArg compiles a pattern, or answers that it is too long.
func (c *conn) patternArg(b []byte) (*resp.Pattern, bool) {
	if len(b) > maxPatternBytes {
		c.Fail("ERR pattern of " + itoa(int64(len(b))) + " bytes is too long, the limit is " + itoa(maxPatternBytes) + ", which no setting changes")
		return nil, false
	}
	return resp.Compile(b), true
}

// cursorArg reads a cursor as strtoul does, to which -1 is the greatest and nothing is 0.
func (c *conn) cursorArg(b []byte) (uint64, bool) {
	digits := strings.TrimPrefix(string(b), "-")
	if len(digits) == len(b) {
		digits = strings.TrimPrefix(digits, "+")
	}
	cursor, err := strconv.ParseUint(digits, 10, 64)
	if err != nil && len(b) > 0 {
		c.Fail("ERR invalid cursor")
		return 0, false
	}
	if len(b) > 0 && b[0] == '-' {
		cursor = -cursor
	}
	return cursor, true
}

// loopPattern is the longest pattern that is served in a loop.
const loopPattern = 64

// scan answers about COUNT keys, fewer when they fill an output buffer.
func scan(c *conn, args [][]byte) {
	cursor, ok := c.cursorArg(args[1])
	if !ok {
		return
	}
	words, ok := c.scanWords(args[2:], "type")
	if !ok {
		return
	}
	count := words.count
	w := scanning{c: c, matching: words.matching, kind: words.kind}
	// Where keys are few, a call of the cache may meet none: a few more are made.
	for calls := int64(0); w.seen < count && calls < 16+2*count/scanStep && len(w.found) < c.srv.o.MaxOutputBytes; calls++ {
		if cursor = w.step(cursor, int(min(count-w.seen, scanStep))); cursor == 0 {
			break
		}
	}
	c.Array(2)
	c.BulkString(strconv.FormatUint(cursor, 10))
	c.Array(w.n)
	c.B = append(c.B, w.found...)
}

// scanWords are what SCAN and its like may be told.
type scanWords struct {
	count    int64
	matching *resp.Pattern // nil: all
	kind     string        // in lower case; "" for all
}

// scanWords reads them; more names one that is not for all of these commands, or
// is empty. False means that the client was told what is wrong. Work for many keys
// or a long pattern leaves the loop.
func (c *conn) scanWords(args [][]byte, more string) (w scanWords, ok bool) {
	w.count = 10
	for i := 0; i < len(args); i += 2 {
		switch a := args[i]; {
		case i+1 == len(args):
			c.Fail(errSyntax)
			return w, false
		case resp.EqualFold(a, "count"):
			if w.count, ok = c.integerArg(args[i+1]); !ok {
				return w, false
			}
			if w.count < 1 {
				c.Fail(errSyntax)
				return w, false
			}
			w.count = min(w.count, math.MaxInt32) // the answer is bounded in bytes anyway
			if c.loop != nil && w.count > loopScan {
				c.leave()
			}
		case resp.EqualFold(a, "match"):
			if w.matching, ok = c.patternArg(args[i+1]); !ok {
				return w, false
			}
			if c.loop != nil && len(args[i+1]) > loopPattern {
				c.leave()
			}
		case more != "" && resp.EqualFold(a, more):
			w.kind = string(resp.Lower(nil, args[i+1]))
		default:
			c.Fail(errSyntax)
			return w, false
		}
	}
	return w, true
}

// scanning is a walk over keys of which some are answered. They are copied under
// the cache's lock, and held against the pattern without it.
type scanning struct {
	c        *conn
	matching *resp.Pattern // nil: all
	kind     string        // the type that is asked for, in lower case; "" for all
	seen     int64
	n        int
	found    []byte // bulks, n of them
	batch    []byte
	ends     []int // of the keys in batch
}

// largeKeys is how much the keys of a step may have together for the next to be
// of many: with long keys one step could be of megabytes.
const largeKeys = 64 << 10

// step looks at about count keys and returns the cursor behind them.
func (w *scanning) step(cursor uint64, count int) uint64 {
	if len(w.batch) > largeKeys {
		count = 1
	}
	w.batch, w.ends = w.batch[:0], w.ends[:0]
	seen := 0
	if cursor >= seriesPhase {
		cursor, seen = w.series(cursor-seriesPhase, count)
	} else {
		cursor = w.c.cache().Scan(cursor, count, func(key []byte, e kvcache.Entry) {
			if seen++; (w.kind == "" || w.kind == kindNames[e.Kind]) && w.c.srv.shows(key) {
				w.batch = append(w.batch, key...)
				w.ends = append(w.ends, len(w.batch))
			}
		})
		if cursor == 0 && w.c.srv.seriesOf(w.c.db).keys() > 0 {
			cursor = seriesPhase
		}
	}
	w.seen += int64(seen)
	at := 0
	for _, end := range w.ends {
		if key := w.batch[at:end]; w.matching == nil || w.matching.Match(key) {
			w.found = resp.AppendBulk(w.found, key)
			w.n++
		}
		at = end
	}
	return cursor
}

// series is step for those keys that are series, from number seq on.
func (w *scanning) series(seq uint64, count int) (cursor uint64, seen int) {
	d := w.c.srv.seriesOf(w.c.db)
	if d == nil {
		return 0, 0
	}
	next := d.scan(seq, count, func(name string) {
		if seen++; w.kind == "" || w.kind == seriesTypeLower {
			w.batch = append(w.batch, name...)
			w.ends = append(w.ends, len(w.batch))
		}
	})
	if next == 0 {
		return 0, seen
	}
	return seriesPhase + next, seen
}

// keys answers all keys that match. They are counted before they are
// written, so all of them are held; MaxCommandBytes bounds them.
func keys(c *conn, args [][]byte) {
	matching, ok := c.patternArg(args[1])
	if !ok {
		return
	}
	w, held := scanning{c: c, matching: matching}, 0
	for cursor := uint64(0); ; {
		cursor = w.step(cursor, scanStep)
		if len(w.found) > c.srv.o.MaxCommandBytes {
			c.Fail("ERR too many keys: more than " + itoa(int64(c.srv.o.MaxCommandBytes)) + " bytes of them, use SCAN")
			return
		}
		if n := 2 * cap(w.found); n > max(held, 2*largeKeys) { // and what it is copied to
			if !c.room(int64(n - held)) {
				return
			}
			held = n
		}
		if cursor == 0 {
			break
		}
	}
	c.Array(w.n)
	for found := w.found; len(found) > 0; {
		part := found[:min(len(found), c.srv.o.MaxOutputBytes)]
		c.B = append(c.B, part...)
		found = found[len(part):]
		c.spill()
	}
}

func randomKey(c *conn, _ [][]byte) {
	d := c.srv.seriesOf(c.db)
	if series := d.keys(); series > 0 && rand.IntN(series+c.cache().Len()) < series {
		if name, ok := d.randomName(); ok {
			c.BulkString(name)
			return
		}
	}
	key, ok := c.cache().RandomKey(nil)
	for try := 0; ok && !c.srv.shows(key) && try < copyTries; try++ {
		key, ok = c.cache().RandomKey(key[:0])
	}
	if ok && c.srv.shows(key) {
		c.Bulk(key)
	} else if name, ok := d.randomName(); ok {
		c.BulkString(name)
	} else {
		c.Null()
	}
}

func objectEncoding(c *conn, args [][]byte) {
	encoding := ""
	err := c.cache().Update(args[2], func(e kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		if encoding = ""; ok {
			encoding = encodingOf(e)
		}
		return e, kvcache.Keep
	})
	if encoding == "" && c.srv.isSeries(c.db, args[2]) {
		encoding = "raw"
	}
	switch {
	case err != nil:
		c.refuse(err)
	case encoding == "":
		c.Null()
	default:
		c.BulkString(encoding)
	}
}

// encodingOf is what Redis would have for the value.
func encodingOf(e kvcache.Entry) string {
	if e.Kind != kvcache.String {
		return collectionEncoding(e)
	}
	switch _, isInt := resp.ParseInt(e.Value); {
	case isInt:
		return "int"
	case len(e.Value) <= 44:
		return "embstr"
	}
	return "raw"
}

func objectFreq(c *conn, args [][]byte) {
	if f, ok := c.cache().Frequency(args[2]); ok {
		c.Int(int64(f))
	} else {
		c.Null()
	}
}
