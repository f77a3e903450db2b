package kvcache

import (
	crand "crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"
)

// Values that are longer than a region takes are kept in parts:
//
//	key ──▶ manifest: nonce, length     (a record of kindManifest)
//	              │
//	              ├─ nonce, 0 ──▶ part  (records of kindPart, in any shard)
//	              ├─ nonce, 1 ──▶ part
//	              └─ …
//
// A part is a record like any other, under a key that nobody can guess: it is
// counted as read, moved, aged and evicted as such, and not shown. Parts never
// change. To write a value is to write new parts and then, under the lock of the
// key, the manifest; so a reader that has a manifest needs no lock beyond one
// part at a time, and gets all of one value or finds a part missing. Then the
// value is a miss, and what is left of it is removed.
//
// Parts whose manifest was replaced, deleted or has expired are orphans: the shard
// notes them, as other shards' locks cannot be had there, and the next large value
// or the next Sweep removes them. The parts of a manifest that vanished with its
// region stay until they age out, which is soon, as nobody reads them.
//
// What asks for the length alone (ViewPart) reads no part, as Has and KindOf do not: it
// may tell of a value that is found to be a miss when it is read.
//
// A manifest costs 29 bytes beside key and headers, a part 24 and its index.

const (
	// kindManifest and kindPart are this file's; callers' kinds are below.
	kindManifest Kind = 255
	kindPart     Kind = 254

	nonceBytes    = 16
	partKeyBytes  = nonceBytes + 4
	manifestBytes = nonceBytes + 8

	// regionParts: a part is an eighth of a region, so that the end of a region
	// that none fits in is a sixteenth of it on average.
	regionParts = 8
	// largePart: a value may be a quarter of the budget at the most, or writing
	// its end would evict its beginning.
	largePart = 4
	// MaxLargeBytes bounds CacheOptions.MaxLargeBytes.
	MaxLargeBytes = 512 << 20
	// maxOutraced is how often a change of a large value begins anew because
	// another writer came first.
	maxOutraced = 100
)

// ErrBusy says that other writers changed a large value again and again while it
// was to be changed.
var ErrBusy = errors.New("kvcache: the value changes too often")

// manifest is what is known of a large value.
type manifest struct {
	nonce  [nonceBytes]byte
	length int
}

func (m *manifest) append(dst []byte) []byte {
	return le.AppendUint64(append(dst, m.nonce[:]...), uint64(m.length))
}

func readManifest(b []byte) (m manifest) {
	copy(m.nonce[:], b)
	m.length = int(le.Uint64(b[nonceBytes:]))
	return m
}

// isManifest reports whether the record whose header is at p is one.
func isManifest(p unsafe.Pointer) bool { return recordKind(p) == kindManifest }

func (c *Cache) partBytes() int { return c.m.regionBytes / regionParts }

func (c *Cache) partsOf(m *manifest) int { return (m.length + c.partBytes() - 1) / c.partBytes() }

func (m *manifest) partKey(i int) []byte {
	key := make([]byte, 0, partKeyBytes)
	return le.AppendUint32(append(key, m.nonce[:]...), uint32(i))
}

// MaxLarge is the longest value in bytes, of kind String, in parts if need be.
// The budget bounds it too: a quarter of it at the time of writing.
func (c *Cache) MaxLarge() int { return max(c.maxLarge, c.MaxValue()) }

// checkLarge is checkValue for values that may be kept in parts.
func (c *Cache) checkLarge(key []byte, n int, kind Kind) error {
	limit := c.maxValueBytes(len(key))
	if kind == String {
		limit = max(limit, c.maxLarge)
	}
	if n > limit {
		return fmt.Errorf("%w must be at most %d bytes with a key of %d, got %d", ErrValueSize, limit, len(key), n)
	}
	if most := c.m.Budget() / largePart; n > c.maxValueBytes(len(key)) && int64(n) > most {
		return fmt.Errorf("%w must be at most %d bytes, a quarter of the memory that there is now, got %d", ErrValueSize, most, n)
	}
	return nil
}

// putParts stores a value's parts. On an error there are none.
func (c *Cache) putParts(value []byte) (m manifest, err error) {
	_, _ = crand.Read(m.nonce[:]) // which never fails
	m.length = len(value)
	for i, part := range slices.Collect(slices.Chunk(value, c.partBytes())) {
		if err := c.putEntry(m.partKey(i), Entry{Value: part, Kind: kindPart}); err != nil {
			c.removeParts(m)
			return m, err
		}
	}
	return m, nil
}

// putEntry stores an entry that is no longer than a region takes.
func (c *Cache) putEntry(key []byte, e Entry) error {
	h := c.hash(key)
	s := c.shard(h)
	for try := 0; ; try++ {
		s.mu.Lock()
		f := s.findLocked(h, key)
		need := s.storeLocked(&f, h, key, &e)
		s.mu.Unlock()
		if need == 0 {
			return nil
		}
		if err := c.makeRoom(s, h, key, need, try); err != nil {
			return err
		}
	}
}

// eachPart shows f the bytes of a value from from to to, part by part, each under a
// lock. It reports false if one of these parts is gone.
func (c *Cache) eachPart(m manifest, from, to int, f func(part []byte)) bool {
	for size := c.partBytes(); from < to; {
		i, whole := from/size, false
		c.with(m.partKey(i), func(_ *shard, at *found) {
			part := recordValue(at.p)
			if whole = recordKind(at.p) == kindPart && len(part) == min(size, m.length-i*size); !whole {
				return
			}
			at.line().touch(at.slot)
			end := min(to-i*size, len(part))
			f(part[from-i*size : end : end])
		})
		if !whole {
			return false
		}
		from = (i + 1) * size
	}
	return true
}

func (c *Cache) removeParts(m manifest) {
	for i := range c.partsOf(&m) {
		c.with(m.partKey(i), func(s *shard, f *found) { s.removeLocked(f) })
	}
}

// forget removes a large value of which a part is gone, if it is still the same.
func (c *Cache) forget(key []byte, m manifest) {
	c.with(key, func(s *shard, f *found) {
		if isManifest(f.p) && readManifest(recordValue(f.p)) == m {
			s.count.evicted++
			s.removeLocked(f) // which makes orphans of the rest
		}
	})
	c.removeOrphans()
}

// orphan notes that the parts of a manifest are to be removed. It may be called
// with any shard's lock held.
func (c *Cache) orphan(m manifest) {
	c.orphansMu.Lock()
	c.orphans = append(c.orphans, m)
	c.orphansMu.Unlock()
}

// removeOrphans removes parts that no manifest leads to any more.
func (c *Cache) removeOrphans() {
	c.orphansMu.Lock()
	orphans := c.orphans
	c.orphans = nil
	c.orphansMu.Unlock()
	for _, m := range orphans {
		c.removeParts(m)
	}
}

// appendLarge appends the value of a key that was large. It reports false, and returns
// dst as it was, if there is none, any more.
func (c *Cache) appendLarge(dst, key []byte) (value []byte, ok bool) {
	at := len(dst)
	ok, _ = c.ViewLarge(key, func(bytes int) error {
		dst = slices.Grow(dst[:at], bytes)
		return nil
	}, func(part []byte) { dst = append(dst, part...) })
	if !ok {
		dst = dst[:at]
	}
	return dst, ok
}

// ViewLarge shows the value of a key that View or GetMany have told to be large: it
// calls begin with the length, and then part with views of the value's parts, one after
// the other. It reports false if there is none, any more. A view is valid during the call, which is under a lock, so part must be
// quick and must not call the Cache. If a part is gone or something else
// was stored meanwhile, it calls begin again, and what came before is void, as it
// is where it reports false or begin fails.
func (c *Cache) ViewLarge(key []byte, begin func(bytes int) error, part func(part []byte)) (ok bool, err error) {
	for range maxOutraced {
		var m manifest
		var short []byte
		large := false
		there := c.with(key, func(s *shard, f *found) {
			if large = isManifest(f.p); large {
				m = readManifest(recordValue(f.p))
				f.line().touch(f.slot)
			} else if recordKind(f.p) == String {
				short = append([]byte{}, recordValue(f.p)...) // now
			}
		})
		switch {
		case !there:
			c.countMiss(key)
			return false, nil
		case !large && short == nil:
			return false, nil
		case !large:
			if err := begin(len(short)); err != nil {
				return false, err
			}
			part(short)
			return true, nil
		}
		if err := begin(m.length); err != nil {
			return false, err
		}
		if c.eachPart(m, 0, m.length, part) {
			return true, nil
		}
		c.forget(key, m)
	}
	return false, nil
}

// ViewPart shows some bytes of the string of a key: it calls choose with the string's
// length, and then part with views of the bytes that choose returned, one after the
// other. Of a value in parts it reads those with these bytes, and none if there are no
// such bytes. Both may be called again, and part is bound, as in ViewLarge. choose is
// called under a lock, too, unless the string is longer than MaxValue. Where kind is not
// String neither is called.
func (c *Cache) ViewPart(key []byte, choose func(length int) (from, to int, err error), part func(part []byte)) (kind Kind, ok bool, err error) {
	for range maxOutraced {
		var m manifest
		large := false
		ok = c.with(key, func(_ *shard, f *found) {
			f.line().touch(f.slot)
			kind = recordKind(f.p)
			if large = kind == kindManifest; large {
				m, kind = readManifest(recordValue(f.p)), String
			} else if kind == String {
				v := recordValue(f.p)
				var from, to int
				if from, to, err = choose(len(v)); err == nil && from < to {
					part(v[from:to:to])
				}
			}
		})
		if !large {
			return kind, ok && err == nil, err
		}
		from, to, err := choose(m.length)
		if err != nil {
			return String, false, err
		}
		if c.eachPart(m, from, to, part) {
			return String, true, nil
		}
		c.forget(key, m)
	}
	return String, false, nil
}

func (c *Cache) countMiss(key []byte) {
	s := c.shard(c.hash(key))
	s.mu.Lock()
	s.count.misses++
	s.mu.Unlock()
}

// version is what was stored under a key when a change of it was decided.
type version struct {
	any   bool // whatever it is
	there bool
	entry Entry // a copy; of a large value its manifest
}

// versionLocked copies what is found.
func versionLocked(f *found) (v version) {
	if v.there = f.p != nil; !v.there {
		return v
	}
	v.entry = Entry{Value: slices.Clone(recordValue(f.p)), ExpiresMs: recordExpiry(f.p), Kind: recordKind(f.p)}
	return v
}

func (v *version) isLocked(f *found) bool {
	if v.any {
		return true
	}
	if f.p == nil {
		return !v.there
	}
	return v.there && recordKind(f.p) == v.entry.Kind && recordExpiry(f.p) == v.entry.ExpiresMs && string(recordValue(f.p)) == string(v.entry.Value)
}

// putLarge stores a value in parts in place of what was there. outraced says that
// something else is there meanwhile, and nothing was done.
func (c *Cache) putLarge(key []byte, e Entry, was version) (outraced bool, err error) {
	m, err := c.putParts(e.Value)
	if err != nil {
		c.Delete(key) // as for any value that there is no room for
		return false, err
	}
	e.Value, e.Kind = m.append(nil), kindManifest
	h := c.hash(key)
	s := c.shard(h)
	for try := 0; ; try++ {
		s.mu.Lock()
		at := s.getLocked(h, key)
		if !was.isLocked(&at) {
			s.mu.Unlock()
			c.removeParts(m)
			return true, nil
		}
		need := s.storeLocked(&at, h, key, &e)
		if need == 0 {
			s.count.puts++
		}
		s.mu.Unlock()
		if need == 0 {
			c.removeOrphans()
			return false, nil
		}
		if err := c.makeRoom(s, h, key, need, try); err != nil {
			c.removeParts(m)
			return false, err
		}
	}
}

// putLargeTTL is Put for a value that is kept in parts.
func (c *Cache) putLargeTTL(key, value []byte, ttl time.Duration) error {
	e := Entry{Value: value}
	if ttl > 0 {
		e.ExpiresMs = c.nowMs() + int64((ttl-1)/time.Millisecond) + 1
	}
	_, err := c.putLarge(key, e, version{any: true})
	return err
}

// updateLarge is Update for a key whose value is m. It reports whether it is to be
// begun anew.
func (c *Cache) updateLarge(s *shard, h hash, key []byte, m manifest, try int, f func(Entry, bool) (Entry, Op)) (again bool, err error) {
	if c.lend != nil {
		release, err := c.lend(int64(m.length))
		if err != nil {
			return false, err
		}
		defer release()
	}
	value := make([]byte, 0, m.length)
	if !c.eachPart(m, 0, m.length, func(part []byte) { value = append(value, part...) }) {
		c.forget(key, m)
		return true, nil
	}
	s.mu.Lock()
	at := s.getLocked(h, key)
	if at.p == nil || !isManifest(at.p) || readManifest(recordValue(at.p)) != m {
		s.mu.Unlock()
		return true, nil
	}
	at.line().touch(at.slot)
	e, op := f(Entry{Value: value, ExpiresMs: recordExpiry(at.p)}, true)
	if op == Store {
		if op, err = c.storeOp(e); err == nil {
			err = c.checkLarge(key, len(e.Value), e.Kind)
		}
		if err != nil {
			s.mu.Unlock()
			return false, err
		}
	}
	var need int64
	switch {
	case op == Remove:
		s.count.deletes++
		s.removeLocked(&at)
	case op == Keep:
	case len(e.Value) == len(value) && unsafe.SliceData(e.Value) == unsafe.SliceData(value) && e.Kind == String:
		// The value is the same, the time to live may not be.
		need = s.storeLocked(&at, h, key, &Entry{Value: m.append(nil), ExpiresMs: e.ExpiresMs, Kind: kindManifest})
	case len(e.Value) > c.maxValueBytes(len(key)):
		was := versionLocked(&at)
		s.mu.Unlock()
		return c.putLarge(key, e, was)
	default:
		if need = s.storeLocked(&at, h, key, &e); need == 0 {
			s.count.puts++
		}
	}
	s.mu.Unlock()
	if need > 0 {
		return true, c.makeRoom(s, h, key, need, try)
	}
	c.removeOrphans()
	return false, nil
}
