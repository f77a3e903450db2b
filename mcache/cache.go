package mcache

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"mcached/kvcache"
	"mcached/kvcache/offheap"
	"mcached/mcache/block"
	"mcached/mcache/index"
)

var (
	// ErrNoMemory says that the budget has no room although everything that
	// may go has gone. A sender should try again later.
	ErrNoMemory = kvcache.ErrNoMemory
	// ErrDataSize says that a bucket holds data of another width.
	ErrDataSize = errors.New("mcache: bucket holds data of another width")
	// ErrSeriesLimit says that a shard or a bucket holds as many series as it
	// may: a new one was refused.
	ErrSeriesLimit = errors.New("mcache: too many series")
	// ErrMetricLimit is an ErrSeriesLimit, of the series of one metric name.
	ErrMetricLimit = fmt.Errorf("%w of one metric", ErrSeriesLimit)
	// ErrLabels says that a label set is not one.
	ErrLabels = errors.New("mcache: bad label set")
	// ErrTime says that a time or an offset is beyond what can be stored.
	ErrTime = errors.New("mcache: time out of range")
	// ErrValues says that raw values are empty or not a whole number.
	ErrValues = errors.New("mcache: bad values")
	// ErrKeySize says that a key is empty or too long.
	ErrKeySize = errors.New("mcache: bad key size")
	// ErrBuckets says that there are as many buckets as there may be.
	ErrBuckets = errors.New("mcache: too many buckets")
	// ErrLocal: the bucket is Options.LocalBucket, and AppendLocal alone writes there.
	ErrLocal = errors.New("mcache: the bucket is kept for the program's own series")
	// ErrClosed says that the cache was closed.
	ErrClosed = errors.New("mcache: closed")
)

// Limits that the layout sets.
const (
	// MaxTime bounds times and offsets on both sides, so that their distances
	// never overflow: ±2^61 ms is 73 million years.
	MaxTime = block.MaxTime
	// MaxKey is the length of a key of the raw API.
	MaxKey = 1<<16 - 1
	// MaxLabels of a series.
	MaxLabels = 1<<16 - 2
)

// Options configure a Cache; the zero value of a field means its default.
// Beside each stands the ancestor's option that it continues.
type Options struct {
	// Memory is where everything is kept. Required. It may be shared.
	Memory *kvcache.Memory
	// MaxBytes bounds what is allocated for series, ("maximum size"). Keys are
	// evicted beyond it. Default: none; the Memory's budget is then the only bound.
	MaxBytes int64
	// AgeCycle is how many points a bucket takes before it ages by itself
	// ("age cycle"). Default 1,000,000.
	AgeCycle int
	// Shards is a power of two ("slots"). Default: 4 × (GOMAXPROCS − 1), at least
	// 4, at most 64; fewer if the Memory has less than regionsPerShard for each.
	Shards int
	// MaxBuckets bounds the number of buckets. A new one replaces one without a
	// series. Default 1,024, at most 65,535.
	MaxBuckets int
	// KeepBuckets exist from the start and are never replaced.
	KeepBuckets []string
	// Limits of each bucket but those named in BucketLimits, which have their
	// own. Default: none.
	Limits       Limits
	BucketLimits map[string]Limits
	// Blobs keeps what eviction takes in blobs, where reads find it until
	// their memory is wanted. Only a series that has nothing but a blob is
	// evicted whole.
	Blobs bool
	// BlobAccount of the Memory is what blobs count against; all else counts
	// against account 0.
	BlobAccount kvcache.Account
	// Evicted is handed every key that eviction takes whole, after it is gone.
	// It is called without locks, from whoever made the eviction necessary.
	Evicted func(Evicted)
	// WriteBack says that someone hands all labelled points on to a downstream
	// store, by Collect and Acknowledge, and that what is not acknowledged yet
	// must stay: it is neither reclaimed nor evicted.
	WriteBack bool
	// LocalBucket names the bucket that AppendLocal alone may write to; writes
	// by other ways fail with ErrLocal. Default: none is kept so.
	LocalBucket string
	// Now tells the time in unix ms at which points arrive. With it the cache
	// knows from when to when it has all that was written: see CoveredFrom.
	// Default: none; CoveredFrom then says nothing.
	Now func() int64

	// The ancestor's other options have no use here: "initial data size" and
	// "initial entries" (arrays have 64 bytes or 192), "max gap" (a
	// sealed block spans any gap, since it stores times), "hash seed" (drawn
	// anew by each Cache, so that clients cannot aim at a shard).
}

// Evicted is a key that was evicted, with all it held.
type Evicted struct {
	Bucket  string
	Key     []byte  // of the raw API, or nil
	Labels  []Label // sorted, or nil
	Samples []Sample
	Starts  []int64  // start times of Samples, or nil if none has one
	Records []Record // in order of time
}

// Cache is a three-generation cache of time series. It is safe for concurrent use.
type Cache struct {
	memory   *kvcache.Memory
	hasher   index.Hasher
	shards   []*shard
	pickers  sync.Pool // *index.Picker, of Select
	maxBytes atomic.Int64
	ageCycle uint64
	blobs    bool
	evicted  func(Evicted)
	cursor   atomic.Uint64 // shard that eviction took from last
	coldNext atomic.Uint64 // shard that overflowCold begins with
	coldSeen atomic.Uint64 // points that came to all buckets, as far as noteRest saw them
	closed   atomic.Bool
	asideMu  sync.Mutex    // of the one index that is written by way of other memory
	lives    atomic.Uint32 // of the series made last
	checks   checks        // of debug builds

	// Of write-back.
	writeBack    bool
	kick         chan struct{}
	tick         atomic.Uint32 // see SetTick
	maxDirty     atomic.Int64  // points
	dirtyRefused atomic.Uint64

	// Buckets by id; grows by copying. Ids are not reused.
	bucketsMu  sync.Mutex
	byName     atomic.Pointer[map[string]*bucket]
	byID       atomic.Pointer[[]*bucket]
	serial     int // of the bucket made last
	maxBuckets int
	limits     bucketLimits
	local      string       // Options.LocalBucket
	kept       []string     // Options.KeepBuckets and local
	loads      atomic.Int32 // Loads under way
	displaced  atomic.Int64 // until when buckets that were replaced had lost something; notGone if none had
	now        func() int64 // Options.Now; may be nil

	perMetric *offheap.Tally // series by bucket and metric name, where that is limited
	retained  retentions
	changes   changes
}

// bucket is a namespace of keys.
type bucket struct {
	name    string
	id      uint16
	salt    Hash
	width   atomic.Uint32 // bytes of a point of the raw API; 0 until the first write
	age     atomic.Uint32
	inserts atomic.Uint64 // points
	series  atomic.Int64  // keys included, start times not
	limits  atomic.Pointer[Limits]
	// Series refused because of limits.
	overSeries, overMetric atomic.Uint64
	evictions              atomic.Uint64
	gone                   atomic.Pointer[gone] // nil until a series left whole
	rest                   rest
	cover                  coverage
	changed                changeLog // under the lock of the Cache's changes
}

// Widths of a point. A bucket of labelled series holds times with values, as
// one of InsertHPTS does.
const (
	widthValue = 8
	widthHPTS  = 16
)

// New makes a Cache in o.Memory, which must outlive it.
func New(o Options) (*Cache, error) {
	if o.Memory == nil {
		return nil, errors.New("mcache: Options.Memory is required")
	}
	if o.Shards == 0 {
		o.Shards = 4
		for o.Shards < min(shardsPerOther*(runtime.GOMAXPROCS(0)-1), 64) {
			o.Shards *= 2
		}
		for o.Shards > 1 && o.Memory.Budget()/int64(o.Memory.RegionBytes()) < int64(regionsPerShard*o.Shards) {
			o.Shards /= 2
		}
	}
	if o.Shards < 1 || o.Shards > maxShards || o.Shards&(o.Shards-1) != 0 {
		return nil, fmt.Errorf("mcache: shards must be a power of two up to %d, got %d", maxShards, o.Shards)
	}
	if o.AgeCycle == 0 {
		o.AgeCycle = 1_000_000
	}
	if o.MaxBuckets == 0 {
		o.MaxBuckets = 1024
	}
	if o.AgeCycle < 0 || o.MaxBytes < 0 || o.MaxBuckets < 0 || o.MaxBuckets > 1<<16-1 {
		return nil, fmt.Errorf("mcache: negative or too large option: age cycle %d, max bytes %d, max buckets %d (limit %d)",
			o.AgeCycle, o.MaxBytes, o.MaxBuckets, 1<<16-1)
	}
	limits := bucketLimits{o.Limits, maps.Clone(o.BucketLimits)}
	if err := limits.check(); err != nil {
		return nil, err
	}
	if o.BlobAccount >= kvcache.MaxAccounts {
		return nil, fmt.Errorf("mcache: blob account must be below %d, got %d", kvcache.MaxAccounts, o.BlobAccount)
	}
	if need := headMax + 64; o.Memory.RegionBytes() < need*2 {
		return nil, fmt.Errorf("mcache: regions of %d bytes are below %d", o.Memory.RegionBytes(), need*2)
	}
	c := &Cache{memory: o.Memory, hasher: index.NewHasher(), ageCycle: uint64(o.AgeCycle), blobs: o.Blobs, evicted: o.Evicted, maxBuckets: o.MaxBuckets,
		writeBack: o.WriteBack, kick: make(chan struct{}, 1), limits: limits, local: o.LocalBucket, now: o.Now}
	c.perMetric = offheap.NewTally(o.Memory)
	c.maxBytes.Store(o.MaxBytes)
	c.byName.Store(&map[string]*bucket{})
	c.byID.Store(new([]*bucket))
	c.displaced.Store(notGone)
	c.kept = slices.Clone(o.KeepBuckets)
	if o.LocalBucket != "" {
		c.kept = append(c.kept, o.LocalBucket)
	}
	for i := range o.Shards {
		c.shards = append(c.shards, newShard(c, i, o.BlobAccount))
	}
	for _, name := range c.kept {
		if _, err := c.makeBucket(name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// shardsPerOther is how many shards there are by default to each processor but one:
// whoever writes finds the lock of a shard held by one of the others in at most a
// quarter of all cases. With eight shards on two processors in place of four, 100,000
// series of 240 samples take 150 bytes more of the budget each, of which 10 to 50 are
// resident, in regions that are not full; and a batch finds twice as many series that
// none before it led to.
const shardsPerOther = 4

// regionsPerShard is how many regions of the first budget there are to each shard
// by default. A shard has up to five open ones, however few series it holds: for
// heads, partial blocks, full ones, directories and blobs. So they are at most 4 %
// of the budget, which others could fill: with 16 for each, the daemon's own 714
// series took 2.5 MiB of 32.
const regionsPerShard = 128

// maxShards is what a SeriesID has bits for.
const maxShards = 256

// Close gives all memory back to the Memory. Calls after it return ErrClosed
// or find nothing.
func (c *Cache) Close() error {
	if c.closed.Swap(true) {
		return ErrClosed
	}
	for _, s := range c.shards {
		s.mu.Lock()
		s.resetLocked()
		s.mu.Unlock()
	}
	c.perMetric.Free()
	return nil
}

// SetMaxBytes changes the maximum and evicts what is over it.
func (c *Cache) SetMaxBytes(n int64) {
	c.maxBytes.Store(n)
	c.evict()
}

// allocated is the bytes of all series, as eviction counts.
func (c *Cache) allocated() int64 {
	var n int64
	for _, s := range c.shards {
		n += s.allocated.Load()
	}
	return n
}

func (c *Cache) shardOf(f Fingerprint) *shard { return c.shards[f.hi&uint64(len(c.shards)-1)] }

func (c *Cache) bucket(id uint16) *bucket { return (*c.byID.Load())[id] }

// findBucket returns the bucket of that name, or nil.
func (c *Cache) findBucket(name string) *bucket { return (*c.byName.Load())[name] }

// openTo is openBucket for whoever may not write to the local bucket.
func (c *Cache) openTo(name string, width uint32) (*bucket, error) {
	if c.local != "" && name == c.local {
		return nil, fmt.Errorf("%w: %q", ErrLocal, name)
	}
	return c.openBucket(name, width)
}

// openBucket returns the bucket of that name for points of the given width.
func (c *Cache) openBucket(name string, width uint32) (*bucket, error) {
	if c.closed.Load() {
		return nil, ErrClosed
	}
	b := c.findBucket(name)
	if b == nil {
		var err error
		if b, err = c.makeBucket(name); err != nil {
			return nil, err
		}
	}
	if w := b.width.Load(); w != width && (w != 0 || !b.width.CompareAndSwap(0, width)) {
		if w := b.width.Load(); w != width {
			return nil, fmt.Errorf("%w: %q holds points of %d bytes, got %d", ErrDataSize, name, w, width)
		}
	}
	return b, nil
}

func (c *Cache) makeBucket(name string) (*bucket, error) {
	if len(name) > MaxKey {
		return nil, fmt.Errorf("%w: bucket name of %d bytes, limit %d", ErrKeySize, len(name), MaxKey)
	}
	c.bucketsMu.Lock()
	defer c.bucketsMu.Unlock()
	if b := c.findBucket(name); b != nil {
		return b, nil
	}
	old := *c.byID.Load()
	names := make(map[string]*bucket, len(old)+1)
	for k, v := range *c.byName.Load() {
		names[k] = v
	}
	c.serial++                 // a bucket made again shares nothing with the one that was removed
	name = strings.Clone(name) // it may be a part of a request
	b := &bucket{name: name, salt: c.HashString(fmt.Sprintf("bucket %d", c.serial)), changed: madeAt(c.changes.next())}
	limits := c.limits.of(name)
	b.limits.Store(&limits)
	place := c.placeLocked(old, names)
	if place < 0 {
		return nil, fmt.Errorf("%w: %d, limit %d", ErrBuckets, len(old)+1, c.maxBuckets)
	}
	ids := make([]*bucket, max(len(old), place+1))
	copy(ids, old)
	b.id = uint16(place)
	ids[place] = b
	names[name] = b
	c.byID.Store(&ids)
	c.byName.Store(&names)
	return b, nil
}

// placeLocked is a place for one more bucket, or -1. That of a removed bucket
// is free once its last series has gone. When all are taken, a bucket that has
// no series is replaced, and taken out of names.
func (c *Cache) placeLocked(old []*bucket, names map[string]*bucket) int {
	for i, was := range old {
		if names[was.name] != was && was.end() {
			return i
		}
	}
	if len(old) < c.maxBuckets {
		return len(old)
	}
	if c.loads.Load() > 0 {
		return -1 // a bucket may have been opened for what is still being read
	}
	for i, was := range old {
		if !slices.Contains(c.kept, was.name) && was.end() {
			if names[was.name] == was {
				delete(names, was.name)
				raise(&c.displaced, was.goneUntil())
			}
			return i
		}
	}
	return -1
}

// endedBucket is what the number of series of a bucket is when its place is another's.
const endedBucket = math.MinInt64 / 2

// end ends a bucket if it has no series: none can be claimed in it any more, by
// whoever found it before.
func (b *bucket) end() bool {
	return b.series.Load() <= endedBucket || b.series.CompareAndSwap(0, endedBucket)
}

// claim counts n series that are to be made. The error is ErrBuckets if the bucket has
// ended: a series in it would stand in the place of another.
func (b *bucket) claim(n int64) error {
	for {
		was := b.series.Load()
		if was < 0 {
			return b.errEnded()
		}
		if b.series.CompareAndSwap(was, was+n) {
			return nil
		}
	}
}

func (b *bucket) errEnded() error {
	return fmt.Errorf("%w: %q was replaced by another just now", ErrBuckets, b.name)
}

// insertedInto counts n points that were written to a bucket.
func (c *Cache) insertedInto(b *bucket, n int) {
	if n > 0 {
		c.countInto(b, n)
		c.arrived(b)
	}
}

// countInto counts n points and ages the bucket at the end of a cycle.
func (c *Cache) countInto(b *bucket, n int) {
	after := b.inserts.Add(uint64(n))
	if cycles := after/c.ageCycle - (after-uint64(n))/c.ageCycle; cycles > 0 {
		b.age.Add(uint32(cycles))
	}
}

// makeRoom finds memory for a shard that had none. Dead bytes go first, then
// heads of generation 3 where heads are most of what there is, a quarter of a
// shard's keys where indexes are nearly all, then the oldest Log regions of all
// owners, the largest index where they still are nearly all, keys as eviction takes
// them, and Hot regions when all of that was not enough. It is called without
// locks and reports whether trying again makes sense. Most want one region; an
// index that grows by an eighth may want a hundred, so each of the tries asks for
// twice as much as the one before, up to an eighth of the budget.
func (c *Cache) makeRoom(s *shard, tries int) bool {
	s.mu.Lock()
	s.compactAllLocked()
	s.mu.Unlock()
	least := int64(2 * c.memory.RegionBytes())
	room := max(least, min(least<<tries, c.memory.Budget()/8))
	return c.evictCold(room) || tries < thinTries && c.thinOut(s) || c.memory.EvictLog(room) || c.dropIndex(room) || c.evictKeys(room) || c.memory.Evict(room)
}

// thinTries bounds how often a writer thins out indexes. Where a shard has few
// regions, its open ones are what is short, and that gives back none of them.
const thinTries = 2

// indexShare of the budget is where it is indexes that leave no room. They do
// not shrink when keys are evicted, so that this would go on without an end. thinShare
// is where a quarter of a shard's series is better evicted than what others have sealed: with one
// sample each, the index is 180 bytes of 250 that a series takes.
const (
	indexShare = 0.75
	thinShare  = 0.65
)

// mostlyIndexes reports whether indexes take that share of the budget.
func (c *Cache) mostlyIndexes(share float64) bool {
	var all int64
	for _, s := range c.shards {
		s.mu.Lock()
		all += c.indexBytesLocked(s)
		s.mu.Unlock()
	}
	return float64(all) >= share*float64(c.memory.Budget())
}

// indexBytesLocked is what does not become less when a shard's keys are evicted.
func (c *Cache) indexBytesLocked(s *shard) int64 {
	return s.indexBytesLocked() + int64(s.fix.Stats().Regions)*int64(c.memory.RegionBytes())
}

// dropIndex forgets all series of the shard with the largest index, if indexes
// are nearly all there is, as after a great fall of the budget. A shard with
// dirty points stays.
func (c *Cache) dropIndex(n int64) bool {
	if !c.mostlyIndexes(indexShare) {
		return false
	}
	var largest *shard
	var most int64
	for _, s := range c.shards {
		s.mu.Lock()
		if bytes := c.indexBytesLocked(s); s.dirty == 0 && bytes > most {
			largest, most = s, bytes
		}
		s.mu.Unlock()
	}
	if largest == nil {
		return false
	}
	largest.DropAll()
	return c.memory.EvictLog(n)
}

// evictKeys makes n bytes free where only heads are left. With blobs, series go
// into these (overflowHot). Without, or if that was not enough, the coldest keys
// are evicted and what they leave behind is compacted. Regions are freed only
// once a quarter of a shard's bytes is dead, so this frees much at once, and is
// seldom needed.
func (c *Cache) evictKeys(n int64) bool {
	if c.blobs {
		if c.overflowHot(n) == 0 && c.memory.Evict(int64(c.memory.RegionBytes())) {
			c.overflowHot(n) // with the one region that this takes to begin with
		}
		if c.memory.EvictLog(n) {
			return true
		}
	}
	c.evictTo(c.allocated()*3/4, (*shard).evictOne)
	c.compactShards()
	return c.memory.EvictLog(n)
}

// compactShards compacts all shards until nothing is worth it.
func (c *Cache) compactShards() {
	for _, s := range c.shards {
		s.mu.Lock()
		s.compactAllLocked()
		s.publishLocked()
		s.mu.Unlock()
	}
}

// Maintain does the work that no caller should wait for, in bounded pieces:
// compaction, moving cold series into blobs when memory gets short, and
// forgetting series of which everything has vanished. It is
// meant to be called every second or so by whoever owns the cache.
func (c *Cache) Maintain() {
	c.closeGaps()
	if c.blobs {
		c.overflowCold()
	}
	for _, s := range c.shards {
		for more := true; more; {
			s.mu.Lock()
			more = s.tidyLocked()
			s.mu.Unlock()
		}
		s.pruneAll()
	}
	c.checks.now(c.Check)
}

// pruneAll takes vanished blocks out of all directories, some series at a
// time, and removes series that hold nothing any more.
func (s *shard) pruneAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.unpruned {
		return
	}
	s.unpruned = false
	for id, r := range s.inUseLocked {
		if !s.pruneLocked(r) {
			s.lost += uint64(s.pointsLocked(id)) // start times that outlived their samples
			s.noteGoneLocked(r)
			s.removeLocked(id)
		}
	}
}
