package kvcache

import (
	"errors"
	"math/bits"
	"unsafe"
)

// Several keys at a time. What a lookup costs is waiting: for the line of the
// index, and then for the record, which are hardly ever in the processor's
// caches. The waits for different keys can overlap, but not across locks, which
// the processor does not look beyond. So all shards that a run of keys needs
// are locked, in order of their numbers, each once; then all lines are touched,
// then all records, and only then are the keys worked on, one after the other.
const (
	// manyKeys bounds a run: at some 100 ns a key, the locks are held for 6 µs.
	manyKeys = 64
	// manyBytes bounds the values that are copied while they are held: 10 µs.
	manyBytes = 64 << 10
)

// shardSet is a set of shards, a bit each.
type shardSet [MaxShards / 64]uint64

func (c *Cache) lockAll(set *shardSet) {
	for w := range (len(c.shards) + 63) / 64 {
		for b := set[w]; b != 0; b &= b - 1 {
			c.shards[w<<6+bits.TrailingZeros64(b)].mu.Lock()
		}
	}
}

func (c *Cache) unlockAll(set *shardSet) {
	for w := range (len(c.shards) + 63) / 64 {
		for b := set[w]; b != 0; b &= b - 1 {
			c.shards[w<<6+bits.TrailingZeros64(b)].mu.Unlock()
		}
	}
}

// run is a run of keys whose shards are locked.
type run struct {
	hashes [manyKeys]hash
	shards shardSet
	n      int
}

// hold hashes as many of the keys as fit, locks their shards and brings to the
// processor what looking them up will read.
func (c *Cache) hold(r *run, keys [][]byte) {
	r.n = min(len(keys), manyKeys)
	for i, k := range keys[:r.n] {
		h := c.hash(k)
		r.hashes[i] = h
		n := uint32(h) & uint32(len(c.shards)-1)
		r.shards[n>>6] |= 1 << (n & 63)
	}
	c.lockAll(&r.shards)
	var lines [manyKeys]*line
	var touched uint32
	for i, h := range r.hashes[:r.n] {
		if x := c.shard(h).segmentLocked(h); len(x.lines) > 0 {
			l := &x.lines[x.home(h.home())]
			lines[i] = l
			touched += l.meta
		}
	}
	for i, h := range r.hashes[:r.n] {
		l := lines[i]
		if l == nil {
			continue
		}
		if set := l.match(h.tag()); set != 0 {
			if p := c.shard(h).places.at(l.refs[slotOf(set)]); p != nil {
				touched += *(*uint32)(p)
				// Most values go on behind the header's line of the processor's.
				if end := int((*(*header)(p)).bytes()); end > lineBytes {
					touched += *(*uint32)(unsafe.Add(p, lineBytes))
				}
			}
		}
	}
	c.shard(r.hashes[0]).touched = touched
}

// GetMany looks keys up and calls f for each in their order, with i counting
// from 0 and value a view that is valid during the call, of the kind told. It does so for the
// first n keys, where n is at least 1, unless the first key's value is kept in
// parts, which is for View and ViewLarge; n is bounded in number and in the bytes
// of the values; the caller goes on with keys[n:], if any.
//
// f runs under locks: it must be quick and must not call the Cache. Each call
// sees what is stored at that moment: a run is no snapshot.
func (c *Cache) GetMany(keys [][]byte, f func(i int, value []byte, kind Kind, ok bool)) (n int) {
	if len(keys) == 0 {
		return 0
	}
	var r run
	c.hold(&r, keys)
	bytes := 0
	for i, h := range r.hashes[:r.n] {
		s := c.shard(h)
		at := s.getLocked(h, keys[i])
		if at.p == nil {
			s.count.misses++
			f(i, nil, String, false)
		} else {
			v, kind := recordValue(at.p), recordKind(at.p)
			if kind == kindManifest {
				break
			}
			at.line().touch(at.slot)
			s.count.hits++
			bytes += len(v)
			f(i, v[:len(v):len(v)], kind, true)
		}
		if n = i + 1; bytes >= manyBytes {
			break
		}
	}
	c.unlockAll(&r.shards)
	return n
}

// PutMany stores copies of values under copies of keys, in their order and
// without expiry. It stops at the first that cannot be stored: n is how many
// were, and err is that of Put for keys[n].
func (c *Cache) PutMany(keys, values [][]byte) (n int, err error) {
	for n < len(keys) && err == nil {
		var stored int
		stored, err = c.putRun(keys[n:], values[n:])
		n += stored
	}
	return n, err
}

// putRun is PutMany for at least one key, or an error.
func (c *Cache) putRun(keys, values [][]byte) (n int, err error) {
	var r run
	c.hold(&r, keys)
	bytes := 0
	var needBytes int64
	for n < r.n && bytes < manyBytes {
		k, v, h := keys[n], values[n], r.hashes[n]
		if err = c.checkKey(k); err == nil {
			err = c.checkValue(k, v)
		}
		if err != nil {
			break
		}
		s := c.shard(h)
		f := s.findLocked(h, k)
		if needBytes = s.storeLocked(&f, h, k, &Entry{Value: v}); needBytes > 0 {
			break
		}
		s.count.puts++
		bytes += len(v)
		n++
	}
	c.unlockAll(&r.shards)
	if needBytes > 0 || errors.Is(err, ErrValueSize) {
		// Room is made without locks, for this one; the others may need none. And a
		// value that is too long for a record may go in parts.
		if err = c.Put(keys[n], values[n], 0); err == nil {
			n++
		}
	}
	return n, err
}
