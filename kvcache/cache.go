package kvcache

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
)

// MaxKeyBytes bounds a key; see Cache.MaxKey for the limit in force.
const MaxKeyBytes = 1<<16 - 1

// Errors of Put and Update. What is returned wraps one of them with the limit
// and what came.
var (
	ErrKeySize   = errors.New("kvcache: key size")
	ErrValueSize = errors.New("kvcache: value size")
	ErrTTL       = errors.New("kvcache: time to live")
)

// CacheOptions configure a Cache; the zero value of a field means its default.
type CacheOptions struct {
	// Memory lends the regions. Required; it must outlive the Cache.
	Memory *Memory
	// Account is what the regions and indexes count against; see Memory.SetShare.
	Account Account
	// Shards is rounded up to a power of two, at most MaxShards. Default: four
	// for each processor, at most 256, so that cursors of Scan are below 2^52, and so few that one open region for each of them is
	// at most a 128th part of the budget: what is kept is better chosen from 128
	// regions than from 64, by 0.003 of the hit ratio.
	Shards int
	// SweepEvery is how often expired records are looked for and space is
	// compacted. Default one second; negative never, and then the caller
	// calls Sweep.
	SweepEvery time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// MaxLargeBytes is the longest value, up to MaxLargeBytes of the package: those
	// beyond a region are kept in parts (large.go). Default: what a region takes.
	MaxLargeBytes int
	// Lend, if set, is asked for the memory in which Update collects a large value,
	// and release gives it back. It must not wait.
	Lend func(bytes int64) (release func(), err error)
	// Random chooses RandomKey's keys. Default rand.Uint64.
	Random func() uint64
}

// mostByDefault is how many shards there are at most unless more are asked for.
const mostByDefault = 256

// MaxShards bounds CacheOptions.Shards.
const MaxShards = 1 << shardBits

// Cache holds opaque values by key, in regions that may vanish at any time:
// a record that vanished is a miss. When the Memory is full, the oldest
// records make room for the youngest; those that were read since are kept.
//
// A Cache is safe for concurrent use. Methods copy what they are given, and
// append what they return to a slice of the caller's.
type Cache struct {
	m      *Memory
	seed   maphash.Seed
	now    func() time.Time
	random func() uint64
	shards []shard

	maxLarge int
	lend     func(bytes int64) (release func(), err error)

	orphansMu sync.Mutex // a leaf
	orphans   []manifest // whose parts are to be removed; see large.go

	sweepMu   sync.Mutex // held by Sweep
	sweepNext int        // the shard where it goes on
	checks    checks     // of debug builds

	stop   chan struct{} // closed by Close
	done   sync.WaitGroup
	closed sync.Once
}

// NewCache returns an empty cache. Close it.
func NewCache(o CacheOptions) (*Cache, error) {
	if o.Memory == nil {
		return nil, errors.New("kvcache: a cache needs a Memory")
	}
	if o.Shards < 0 || o.Shards > MaxShards {
		return nil, fmt.Errorf("kvcache: shards must be from 1 to %d, got %d", MaxShards, o.Shards)
	}
	if o.Account >= MaxAccounts {
		return nil, fmt.Errorf("kvcache: account must be below %d, got %d", MaxAccounts, o.Account)
	}
	if o.MaxLargeBytes < 0 || o.MaxLargeBytes > MaxLargeBytes {
		return nil, fmt.Errorf("kvcache: large values must be of 0 to %d bytes, got %d", MaxLargeBytes, o.MaxLargeBytes)
	}
	m := o.Memory
	n := o.Shards
	if n == 0 {
		n = max(1, min(4*runtime.GOMAXPROCS(0), mostByDefault, int(m.Budget()/int64(m.regionBytes)/128)))
		n = 1 << (bits.Len(uint(n)) - 1)
	}
	c := &Cache{m: m, seed: maphash.MakeSeed(), now: o.Now, random: o.Random, maxLarge: o.MaxLargeBytes, lend: o.Lend, stop: make(chan struct{})}
	if c.now == nil {
		c.now = time.Now
	}
	if c.random == nil {
		c.random = rand.Uint64
	}
	c.shards = make([]shard, 1<<bits.Len(uint(n-1)))
	for i := range c.shards {
		s := &c.shards[i]
		s.c, s.m = c, m
		s.dir = newDirectory(m, o.Account)
		s.places = newPlaces(m)
		owner := m.RegisterFor(s, o.Account)
		for n := range s.logs {
			t := NewTables(m, owner, Log, s.movedLocked)
			t.log, t.opened, t.closed = uint8(n), s.openedLocked, s.places.retire
			s.logs[n] = t
		}
	}
	if o.SweepEvery == 0 {
		o.SweepEvery = time.Second
	}
	if o.SweepEvery > 0 {
		c.done.Go(func() { c.sweepEvery(o.SweepEvery) })
	}
	return c, nil
}

// Close stops the sweeper, waits for it and forgets everything. The Cache
// must not be used afterwards; the Memory may be closed then.
func (c *Cache) Close() {
	c.closed.Do(func() {
		close(c.stop)
		c.done.Wait()
		c.Clear()
	})
}

func (c *Cache) hash(key []byte) hash { return hash(maphash.Bytes(c.seed, key)) }

func (c *Cache) shard(h hash) *shard { return &c.shards[uint32(h)&uint32(len(c.shards)-1)] }

func (c *Cache) nowMs() int64 { return c.now().UnixMilli() }

// recordOverhead is what a record may need beside key and value.
const recordOverhead = headerBytes + expiryBytes + longKeyBytes

// MaxKey is the longest key in bytes: MaxKeyBytes, or less if regions are small.
// The empty key is a key.
func (c *Cache) MaxKey() int { return min(MaxKeyBytes, c.m.regionBytes/4) }

// MaxValue is the longest value in bytes that goes with a key of one byte. A
// longer key leaves that much less.
func (c *Cache) MaxValue() int { return c.maxValueBytes(1) }

func (c *Cache) maxValueBytes(keyLen int) int { return c.m.regionBytes - recordOverhead - keyLen }

func (c *Cache) checkKey(key []byte) error {
	if n := len(key); n > c.MaxKey() {
		return fmt.Errorf("%w must be at most %d bytes, got %d", ErrKeySize, c.MaxKey(), n)
	}
	return nil
}

func (c *Cache) checkValue(key, value []byte) error {
	if limit := c.maxValueBytes(len(key)); len(value) > limit {
		return fmt.Errorf("%w must be at most %d bytes with a key of %d, got %d", ErrValueSize, limit, len(key), len(value))
	}
	return nil
}

// Put stores a copy of value under a copy of key. A ttl of 0 means that it
// does not expire; shorter ones than a millisecond count as one.
//
// When memory is short, older records go. Only when there is none to be had at
// all, because the budget has no room for a region, is the error ErrNoMemory;
// what was stored under the key before is then gone as well.
func (c *Cache) Put(key, value []byte, ttl time.Duration) error {
	if err := c.checkKey(key); err != nil {
		return err
	}
	large := len(value) > c.maxValueBytes(len(key))
	if large {
		if err := c.checkLarge(key, len(value), String); err != nil {
			return err
		}
	}
	if ttl < 0 {
		return fmt.Errorf("%w must not be negative, got %v", ErrTTL, ttl)
	}
	if large {
		return c.putLargeTTL(key, value, ttl)
	}
	var expiresMs int64
	if ttl > 0 {
		expiresMs = c.nowMs() + int64((ttl-1)/time.Millisecond) + 1
	}
	h := c.hash(key)
	s := c.shard(h)
	for try := 0; ; try++ {
		s.mu.Lock()
		f := s.findLocked(h, key)
		need := s.storeLocked(&f, h, key, &Entry{Value: value, ExpiresMs: expiresMs})
		if need == 0 {
			s.count.puts++
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		if err := c.makeRoom(s, h, key, need, try); err != nil {
			return err
		}
	}
}

// maxTries bounds how often a writer makes room that others take before it.
const maxTries = 64

// patience is after how many tries a writer drops its own shard's oldest
// region although there should be room: so often in a row the kernel, not
// another writer, must have refused an index its growth. What vanishes leaves
// slots behind. The cache gets smaller, and works.
const patience = 4

// makeRoom evicts what is oldest, or gives up on the key.
func (c *Cache) makeRoom(s *shard, h hash, key []byte, needBytes int64, try int) error {
	room := try < maxTries && c.m.Evict(needBytes)
	if try >= patience {
		room = try < maxTries && c.m.dropOldestOf(s.logs[probation].owner) || room
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count.waited++
	if room {
		return nil
	}
	s.count.refused++
	if f := s.findLocked(h, key); f.p != nil {
		s.removeLocked(&f)
	}
	return fmt.Errorf("%w: %d bytes wanted, %d of %d used", ErrNoMemory, needBytes, c.m.Used(), c.m.Budget())
}

// Get appends the value to dst. It reports false, and returns dst as it was,
// if there is none.
func (c *Cache) Get(dst, key []byte) ([]byte, bool) {
	h := c.hash(key)
	s := c.shard(h)
	s.mu.Lock()
	f := s.getLocked(h, key)
	if f.p == nil {
		s.count.misses++
		s.mu.Unlock()
		return dst, false
	}
	f.line().touch(f.slot)
	s.count.hits++
	if isManifest(f.p) {
		s.mu.Unlock()
		return c.appendLarge(dst, key)
	}
	dst = append(dst, recordValue(f.p)...)
	s.mu.Unlock()
	return dst, true
}

// View is Get for callers that copy the value themselves: it calls f once, with
// a view that is valid during the call and the value's kind, or with false if
// there is none. f runs under a lock: it must be quick and must not call the
// Cache.
//
// A value that is kept in parts is not shown: f is not called, large is true, and
// the caller goes on with ViewLarge.
func (c *Cache) View(key []byte, f func(value []byte, kind Kind, ok bool)) (large bool) {
	h := c.hash(key)
	s := c.shard(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.getLocked(h, key)
	if at.p == nil {
		s.count.misses++
		f(nil, String, false)
		return false
	}
	at.line().touch(at.slot)
	s.count.hits++
	v, kind := recordValue(at.p), recordKind(at.p)
	if kind == kindManifest {
		return true
	}
	f(v[:len(v):len(v)], kind, true)
	return false
}

// with calls f with what is stored under key, if anything, under the lock.
func (c *Cache) with(key []byte, f func(s *shard, f *found)) bool {
	h := c.hash(key)
	s := c.shard(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.getLocked(h, key)
	if at.p == nil {
		return false
	}
	f(s, &at)
	return true
}

// Has reports whether there is a value. It does not count as a read.
func (c *Cache) Has(key []byte) bool {
	return c.with(key, func(*shard, *found) {})
}

// Touch counts as a read of the key. It reports whether there is a value.
func (c *Cache) Touch(key []byte) bool {
	return c.with(key, func(_ *shard, f *found) { f.line().touch(f.slot) })
}

// Delete removes the key and reports whether there was a value.
func (c *Cache) Delete(key []byte) bool {
	return c.with(key, func(s *shard, f *found) {
		s.count.deletes++
		s.removeLocked(f)
	})
}

// KindOf is the kind of the value of a key. It reports false if there is none.
func (c *Cache) KindOf(key []byte) (kind Kind, ok bool) {
	ok = c.with(key, func(_ *shard, f *found) {
		if kind = recordKind(f.p); kind == kindManifest {
			kind = String
		}
	})
	return kind, ok
}

// Expiry is the time in Unix milliseconds at which the key expires, 0 for
// never. It reports false if there is no value.
func (c *Cache) Expiry(key []byte) (expiresMs int64, ok bool) {
	ok = c.with(key, func(_ *shard, f *found) { expiresMs = recordExpiry(f.p) })
	return expiresMs, ok
}

// Frequency is how often the key was read of late, at most 3. It reports
// false if there is no value.
func (c *Cache) Frequency(key []byte) (frequency uint8, ok bool) {
	ok = c.with(key, func(_ *shard, f *found) { frequency = uint8(f.line().frequency(f.slot)) })
	return frequency, ok
}

// Idle is for how long the key has not been used, as far as that is known, in ms:
// since its region was begun, or 0 if it was read since it was written or moved
// there. It reports false if there is no value.
func (c *Cache) Idle(key []byte) (ms int64, ok bool) {
	ok = c.with(key, func(s *shard, f *found) {
		if f.line().frequency(f.slot) == 0 {
			ms = max(c.nowMs()-s.places.opened[f.ref()>>s.places.unitBits], 0)
		}
	})
	return ms, ok
}

// EntryBytes is what the key costs: its record and its slot in the index.
func (c *Cache) EntryBytes(key []byte) (n int, ok bool) {
	ok = c.with(key, func(_ *shard, f *found) {
		const slot = (lineBytes + lineSlots - 1) / lineSlots
		n = int((*(*header)(f.p)).bytes()) + slot
		if isManifest(f.p) {
			m := readManifest(recordValue(f.p))
			n += m.length + c.partsOf(&m)*(headerBytes+longKeyBytes+partKeyBytes+slot)
		}
	})
	return n, ok
}

// Entry is what is stored under a key.
type Entry struct {
	Value     []byte
	ExpiresMs int64 // Unix milliseconds, 0 for never
	Kind      Kind
}

// Op is what Update is to do.
type Op uint8

const (
	Keep   Op = iota // leave everything as it is
	Store            // store the entry returned
	Remove           // remove the key
)

// Update reads, decides and writes without another writer in between. f gets
// what is stored, if ok; old.Value is a view that is valid during the call,
// and the entry that f returns may point into it. An entry that is stored with
// a time that has passed is removed.
//
// f runs under the shard's lock: it must be quick and must not call the Cache.
// It is called again if memory had to be found first, with what is stored
// then, so that only its last call counts.
//
// The errors are those of Put. On ErrNoMemory the key is gone; on others
// nothing has changed.
func (c *Cache) Update(key []byte, f func(old Entry, ok bool) (Entry, Op)) error {
	if err := c.checkKey(key); err != nil {
		return err
	}
	h := c.hash(key)
	s := c.shard(h)
	for try := 0; ; try++ {
		s.mu.Lock()
		if at := s.getLocked(h, key); at.p != nil && isManifest(at.p) {
			m := readManifest(recordValue(at.p))
			s.mu.Unlock()
			if again, err := c.updateLarge(s, h, key, m, try, f); !again || err != nil {
				return err
			}
			if try > maxOutraced {
				return ErrBusy
			}
			continue
		}
		need, large, was, err := c.updateLocked(s, h, key, f)
		s.mu.Unlock()
		if large != nil {
			outraced, err := c.putLarge(key, *large, was)
			if !outraced {
				return err
			}
			if try > maxOutraced {
				return ErrBusy
			}
			continue
		}
		if need == 0 {
			return err
		}
		if err := c.makeRoom(s, h, key, need, try); err != nil {
			return err
		}
	}
}

// updateLocked is one try of Update. It returns an entry that is to be stored in
// parts, which cannot be done here, with what was there.
func (c *Cache) updateLocked(s *shard, h hash, key []byte, f func(Entry, bool) (Entry, Op)) (needBytes int64, large *Entry, was version, err error) {
	at := s.getLocked(h, key)
	var old Entry
	if at.p != nil {
		old = recordEntry(at.p)
	}
	e, op := f(old, at.p != nil)
	if op == Store {
		if op, err = c.storeOp(e); err != nil {
			return 0, nil, was, err
		}
	}
	switch op {
	case Store:
		if len(e.Value) > c.maxValueBytes(len(key)) {
			if err := c.checkLarge(key, len(e.Value), e.Kind); err != nil {
				return 0, nil, was, err
			}
			return 0, &Entry{Value: e.Value, ExpiresMs: e.ExpiresMs}, versionLocked(&at), nil
		}
		if needBytes = s.storeLocked(&at, h, key, &e); needBytes == 0 {
			s.count.puts++
		}
	case Remove:
		if at.p != nil {
			s.count.deletes++
			s.removeLocked(&at)
		}
	}
	return needBytes, nil, was, nil
}

// storeOp is what is done to store an entry: one that has expired is removed.
func (c *Cache) storeOp(e Entry) (Op, error) {
	switch {
	case e.ExpiresMs < 0:
		return Keep, fmt.Errorf("%w must not end before 1970, got %d ms", ErrTTL, e.ExpiresMs)
	case e.ExpiresMs != 0 && e.ExpiresMs <= c.nowMs():
		return Remove, nil
	}
	return Store, nil
}

// Clear forgets everything and gives the memory back to the kernel.
func (c *Cache) Clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n := s.clearLocked()
		s.count.deletes += uint64(n)
		s.mu.Unlock()
	}
	c.m.Trim(0)
}

// Len is how many records there are, expired ones that were not found yet included.
func (c *Cache) Len() int {
	n := int64(0)
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += weightRecords(s.weightLocked())
		s.mu.Unlock()
	}
	return int(n)
}
