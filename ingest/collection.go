package ingest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strconv"

	"mcached/ingest/resp"
	"mcached/kvcache"
)

// # Hashes and sets
//
// They are values like others, each in one record, which is written anew when it
// changes: what caches keep in them, such as the fields of an object or the keys
// with a tag, is small. A value has the length that any may have, so a command
// costs a pass over it; those of many arguments build a table on the way.
//
//	┌───────────┬───────────┬ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┐
//	│ flags (1) │ count (4) │ count times: length, bytes, of a member, or of
//	└───────────┴───────────┴  a field and of its value                     ┘
//
// Numbers are little-endian, lengths are varints (encoding/binary). Bit 0 of the
// flags says that Redis would have turned to a hash table, from which it does not
// come back. Without it a set has numbers alone, in their order, and a hash its
// fields in the order in which they came; with it both have the order in which
// they came, and Redis' is as random.
//
// The kind of the record (kvcache.Kind) says which it is.

const (
	kindHash kvcache.Kind = 1
	kindSet  kvcache.Kind = 2
	// kindSeries is that of no record: see Server.typed.
	kindSeries kvcache.Kind = 255
)

// kindNames are what TYPE says.
var kindNames = [...]string{kvcache.String: "string", kindHash: "hash", kindSet: "set"}

const (
	collectionHead = 5
	inTable        = 1 << 0 // of the flags

	// As Redis has them without a configuration file.
	maxListpackEntries = 512
	maxListpackBytes   = 64
	maxIntsetEntries   = 512

	// scanArgs is how many arguments are looked for one by one.
	scanArgs = 8
)

// item is a member of a set, or a field of a hash with its value.
type item struct {
	key, value []byte
	gone       bool // drop has removed it
}

// collection is a value that was read. Its items are views of it.
type collection struct {
	kind  kvcache.Kind
	table bool
	items []item
	index map[string]int // nil while items are looked for one by one
}

func collectionCount(value []byte) int {
	if len(value) < collectionHead {
		return 0
	}
	return int(binary.LittleEndian.Uint32(value[1:]))
}

// nextItem is the first item of what is behind the head, and what follows it.
func nextItem(b []byte, kind kvcache.Kind) (it item, rest []byte) {
	part := func() (p []byte) {
		n, w := binary.Uvarint(b)
		p, b = b[w:w+int(n):w+int(n)], b[w+int(n):]
		return p
	}
	it.key = part()
	if kind == kindHash {
		it.value = part()
	}
	return it, b
}

// eachItem calls f for the items of a value until it returns false.
func eachItem(value []byte, kind kvcache.Kind, f func(it item) bool) {
	if len(value) == 0 {
		return
	}
	var it item
	for b := value[collectionHead:]; len(b) > 0; {
		if it, b = nextItem(b, kind); !f(it) {
			return
		}
	}
}

// findItem looks for one item.
func findItem(value []byte, kind kvcache.Kind, key []byte) (found item, ok bool) {
	eachItem(value, kind, func(it item) bool {
		if bytes.Equal(it.key, key) {
			found, ok = it, true
		}
		return !ok
	})
	return found, ok
}

// load reads a value, nil for none, with room for more items.
func (x *collection) load(value []byte, kind kvcache.Kind, more int) {
	x.kind, x.table, x.index, x.items = kind, len(value) > 0 && value[0]&inTable != 0, nil, x.items[:0]
	x.items = slices.Grow(x.items, collectionCount(value)+more)
	eachItem(value, kind, func(it item) bool {
		x.items = append(x.items, it)
		return true
	})
	if more > scanArgs {
		x.index = make(map[string]int, cap(x.items))
		for i, it := range x.items {
			x.index[string(it.key)] = i
		}
	}
}

func (x *collection) find(key []byte) (i int, ok bool) {
	if x.index != nil {
		i, ok = x.index[string(key)]
		return i, ok
	}
	i = slices.IndexFunc(x.items, func(it item) bool { return !it.gone && bytes.Equal(it.key, key) })
	return i, i >= 0
}

// set stores a field, or a member, and reports whether it is new.
func (x *collection) set(key, value []byte) bool {
	if x.kind == kindHash && (len(key) > maxListpackBytes || len(value) > maxListpackBytes) {
		x.table = true
	}
	if i, ok := x.find(key); ok {
		x.items[i].value = value
		return false
	}
	if x.kind == kindSet && !x.table {
		if n, isInt := resp.ParseInt(key); isInt {
			x.insertInt(n, key)
			x.table = len(x.items) > maxIntsetEntries
			return true
		}
		x.table = true
	}
	if x.index != nil {
		x.index[string(key)] = len(x.items)
	}
	x.items = append(x.items, item{key: key, value: value})
	x.table = x.table || x.kind == kindHash && len(x.items) > maxListpackEntries
	return true
}

// insertInt puts a number in its place among others.
func (x *collection) insertInt(n int64, key []byte) {
	at, _ := slices.BinarySearchFunc(x.items, n, func(it item, n int64) int {
		v, _ := resp.ParseInt(it.key)
		return cmp.Compare(v, n)
	})
	x.items = slices.Insert(x.items, at, item{key: key})
	if x.index != nil {
		for i := at; i < len(x.items); i++ {
			x.index[string(x.items[i].key)] = i
		}
	}
}

// drop marks an item as removed, which compact then does.
func (x *collection) drop(key []byte) bool {
	i, ok := x.find(key)
	if !ok {
		return false
	}
	if x.index != nil {
		delete(x.index, string(x.items[i].key))
	}
	x.items[i].gone = true
	return true
}

func (x *collection) compact() {
	x.items = slices.DeleteFunc(x.items, func(it item) bool { return it.gone })
}

// encode appends the value.
func (x *collection) encode(dst []byte) []byte {
	flags := byte(0)
	if x.table {
		flags |= inTable
	}
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(x.items)))
	for _, it := range x.items {
		dst = binary.AppendUvarint(dst, uint64(len(it.key)))
		dst = append(dst, it.key...)
		if x.kind == kindHash {
			dst = binary.AppendUvarint(dst, uint64(len(it.value)))
			dst = append(dst, it.value...)
		}
	}
	return dst
}

// collectionEncoding is what OBJECT ENCODING says.
func collectionEncoding(e kvcache.Entry) string {
	switch {
	case len(e.Value) > 0 && e.Value[0]&inTable != 0:
		return "hashtable"
	case e.Kind == kindHash:
		return "listpack"
	}
	return "intset"
}

const (
	// keptItems and keptBytes bound what a connection keeps to work in.
	keptItems = 1024
	keptBytes = 64 << 10
)

// workspace is where a connection works on collections.
type workspace struct {
	x   collection
	buf []byte
}

func (w *workspace) rest() {
	if cap(w.x.items) > keptItems {
		w.x.items = nil
	}
	clear(w.x.items)
	w.x.index = nil
	if cap(w.buf) > keptBytes {
		w.buf = nil
	}
}

// change has f change the collection of a key, which has none of it if there is no
// such key, and stores it if f says so; without items the key is removed. f may be
// called again, from the start. It has answered if it reports false.
func (c *conn) change(key []byte, kind kvcache.Kind, more int, f func(x *collection) (store bool)) bool {
	if c.workspace == nil {
		c.workspace = new(workspace)
	}
	w := c.workspace
	defer w.rest()
	err := c.updateKind(key, kind, func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		w.x.load(old.Value, kind, more)
		if !f(&w.x) {
			return old, kvcache.Keep
		}
		if w.x.compact(); len(w.x.items) == 0 {
			return old, kvcache.Remove
		}
		w.buf = w.x.encode(w.buf[:0])
		return kvcache.Entry{Value: w.buf, ExpiresMs: old.ExpiresMs, Kind: kind}, kvcache.Store
	})
	if err != nil {
		c.refuse(err)
	}
	return err == nil
}

// view shows f the collection of a key, nil if there is none, or answers that the
// key has another type. f may answer, but not call the cache.
func (c *conn) view(key []byte, kind kvcache.Kind, f func(value []byte)) bool {
	right := true
	large := c.cache().View(key, func(value []byte, is kvcache.Kind, ok bool) {
		if is, ok = c.srv.typed(c.db, key, is, ok); ok && is != kind {
			right = false
			c.Fail(errWrongType)
			return
		}
		f(value)
	})
	if large { // which strings alone are
		right = false
		c.Fail(errWrongType)
	}
	c.spill()
	return right
}

// scanCollection is HSCAN and SSCAN. What Redis has in a table is walked by hash,
// so that what stays is seen whatever else comes and goes; the rest is answered at
// once, as there.
func (c *conn) scanCollection(args [][]byte, kind kvcache.Kind) {
	cursor, ok := c.cursorArg(args[2])
	if !ok {
		return
	}
	words, ok := c.scanWords(args[3:], "")
	if !ok {
		return
	}
	count, matching := words.count, words.matching
	var found []item
	var next uint64
	at := len(c.B)
	c.view(args[1], kind, func(value []byte) {
		found, next = c.srv.scanItems(value, kind, cursor, count)
		if matching != nil {
			found = slices.DeleteFunc(found, func(it item) bool { return !matching.Match(it.key) })
		}
		c.B = c.B[:at]
		c.Array(2)
		c.BulkString(strconv.FormatUint(next, 10))
		n := len(found)
		if kind == kindHash {
			n *= 2
		}
		c.Array(n)
		for _, it := range found {
			c.Bulk(it.key)
			if kind == kindHash {
				c.Bulk(it.value)
			}
		}
	})
}

// scanItems are the items with the least hashes from cursor on, about count of
// them, and the cursor to go on with.
func (s *Server) scanItems(value []byte, kind kvcache.Kind, cursor uint64, count int64) (found []item, next uint64) {
	table := len(value) > 0 && value[0]&inTable != 0
	type hashed struct {
		hash uint64
		item
	}
	var all []hashed
	eachItem(value, kind, func(it item) bool {
		if !table {
			found = append(found, it)
		} else if h := maphash.Bytes(s.seed, it.key)>>(64-scanHashBits) + 1; h >= cursor {
			all = append(all, hashed{h, it})
		}
		return true
	})
	slices.SortFunc(all, func(a, b hashed) int { return cmp.Compare(a.hash, b.hash) })
	for i, h := range all {
		if int64(i) >= count && h.hash != all[i-1].hash {
			return found, h.hash
		}
		found = append(found, h.item)
	}
	return found, 0
}

// scanHashBits keeps cursors below what a double has.
const scanHashBits = 48
