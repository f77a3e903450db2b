package mcache

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// The raw API is the ancestor's: a key of a bucket is a map from offset to
// value. An offset is an integer of any meaning; with InsertHPTS it is a time.
// Values are 8 bytes each, pairs are 16 (offset, then value), little-endian.

// le is the byte order of everything outside the heap.
var le = binary.LittleEndian

// Run is points of a key in order of offset. In a bucket of values they have
// consecutive offsets, the first of which is Offset. In a bucket of pairs
// there is one run, in order of time.
type Run struct {
	Offset int64
	Values []byte
}

// Insert writes values to consecutive offsets of a key. The last write to an
// offset wins. key and values are copied.
func (c *Cache) Insert(bucket string, key []byte, offset int64, values []byte) error {
	if len(values) == 0 || len(values)%widthValue != 0 {
		return fmt.Errorf("%w: %d bytes are not a whole number of %d", ErrValues, len(values), widthValue)
	}
	n := len(values) / widthValue
	if offset < -MaxTime || offset > MaxTime-int64(n) {
		return fmt.Errorf("%w: %d values from %d on go beyond ±2^61", ErrTime, n, offset)
	}
	ss := make([]Sample, min(n, rawPiece))
	for at := 0; at < n; at += len(ss) {
		ss = ss[:min(len(ss), n-at)]
		for i := range ss {
			ss[i] = Sample{T: offset + int64(at+i), V: le.Uint64(values[(at+i)*widthValue:])}
		}
		if err := c.insertRaw(bucket, key, widthValue, ss); err != nil {
			return err
		}
	}
	return nil
}

// rawPiece is how many values are decoded at a time: a megabyte. What is longer
// is written in pieces, those before an error stay.
const rawPiece = 64 << 10

// InsertHPTS writes pairs of a time and a value to a key. They need not be in order.
func (c *Cache) InsertHPTS(bucket string, key []byte, pairs []byte) error {
	if len(pairs) == 0 || len(pairs)%widthHPTS != 0 {
		return fmt.Errorf("%w: %d bytes are not a whole number of %d", ErrValues, len(pairs), widthHPTS)
	}
	n := len(pairs) / widthHPTS
	for i := range n {
		if t := int64(le.Uint64(pairs[i*widthHPTS:])); t > MaxTime || t < -MaxTime {
			return fmt.Errorf("%w: %d is beyond ±2^61", ErrTime, t)
		}
	}
	ss := make([]Sample, min(n, rawPiece))
	for at := 0; at < n; at += len(ss) {
		ss = ss[:min(len(ss), n-at)]
		for i := range ss {
			ss[i] = Sample{T: int64(le.Uint64(pairs[(at+i)*widthHPTS:])), V: le.Uint64(pairs[(at+i)*widthHPTS+8:])}
		}
		if err := c.insertRaw(bucket, key, widthHPTS, ss); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) insertRaw(bucket string, key []byte, width uint32, ss []Sample) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes, limit 1 to %d", ErrKeySize, len(key), MaxKey)
	}
	b, err := c.openTo(bucket, width)
	if err != nil {
		return err
	}
	n, err := c.appendToNew(b, c.rawFingerprint(key), flagRaw, []Label{{rawName, string(key)}}, content{samples: ss})
	c.insertedInto(b, n)
	c.evict()
	return err
}

func (c *Cache) rawFingerprint(key []byte) (f Fingerprint) {
	f.Add(c.HashString(rawName), c.Hash(key))
	return f
}

// Get returns all that a key holds, in order; nothing for a key that is not there.
func (c *Cache) Get(bucket string, key []byte) ([]Run, error) {
	return c.Range(bucket, key, math.MinInt64, math.MaxInt64)
}

// Range returns what a key holds from offset from to offset to, both inclusive.
func (c *Cache) Range(bucket string, key []byte, from, to int64) ([]Run, error) {
	var snap Snapshot
	width, err := c.ReadKey(bucket, key, from, to, &snap)
	if width == 0 {
		return nil, err
	}
	return snap.runs(width), nil
}

// ReadKey is Range for what is too large to be held decoded: it copies what the
// key holds into snap, encoded, and returns the bytes that a point has in its
// bucket, 8 or 16; 0 if the key is not there.
func (c *Cache) ReadKey(bucket string, key []byte, from, to int64, snap *Snapshot) (width int, err error) {
	if c.closed.Load() {
		return 0, ErrClosed
	}
	b, s, id := c.lockKey(bucket, key)
	if s == nil {
		return 0, nil
	}
	s.snapshotLocked(s.recs.At(id), from, to, snap)
	s.mu.Unlock()
	return int(b.width.Load()), nil
}

// KeyBytes is what a key has allocated, which a Snapshot of it takes, too.
func (c *Cache) KeyBytes(bucket string, key []byte) int64 {
	if c.closed.Load() {
		return 0
	}
	_, s, id := c.lockKey(bucket, key)
	if s == nil {
		return 0
	}
	defer s.mu.Unlock()
	r := s.recs.At(id)
	return int64(r.bytes) + s.blobSizeLocked(r)
}

// lockKey finds a key and returns its shard, locked; nil if it is not there.
func (c *Cache) lockKey(bucket string, key []byte) (*bucket, *shard, uint32) {
	b := c.findBucket(bucket)
	if b == nil {
		return nil, nil, 0
	}
	f := c.rawFingerprint(key).in(b)
	s := c.shardOf(f)
	s.mu.Lock()
	if id := s.findLocked(f); id != noID {
		return b, s, id
	}
	s.mu.Unlock()
	return nil, nil, 0
}

// runs puts the samples into runs of the given width of points.
func (s *Snapshot) runs(width int) (runs []Run) {
	next := int64(math.MinInt64)
	for it := s.Iterator(); it.Next(); {
		if it.OnRecord() {
			continue
		}
		x := it.At()
		if len(runs) == 0 || width == widthValue && x.T != next {
			runs = append(runs, Run{Offset: x.T})
		}
		r := &runs[len(runs)-1]
		if width == widthHPTS {
			r.Values = le.AppendUint64(r.Values, uint64(x.T))
		}
		r.Values = le.AppendUint64(r.Values, x.V)
		next = x.T + 1
	}
	return runs
}

// Take returns all that a key holds and removes it.
func (c *Cache) Take(bucket string, key []byte) ([]Run, error) {
	var snap Snapshot
	width, err := c.TakeKey(bucket, key, &snap)
	if width == 0 {
		return nil, err
	}
	return snap.runs(width), nil
}

// TakeKey is to Take what ReadKey is to Get.
func (c *Cache) TakeKey(bucket string, key []byte, snap *Snapshot) (width int, err error) {
	if c.closed.Load() {
		return 0, ErrClosed
	}
	b, s, id := c.lockKey(bucket, key)
	if s == nil {
		return 0, nil
	}
	defer s.mu.Unlock()
	s.snapshotLocked(s.recs.At(id), math.MinInt64, math.MaxInt64, snap)
	s.taken += uint64(s.pointsLocked(id))
	s.removeLocked(id)
	s.publishLocked()
	return int(b.width.Load()), nil
}

// Pop takes the key that eviction would take next: the largest of the coldest
// generation of the next shard that has one, and at last those that have a blob
// only. Series with labels are popped too: their key is nil, and runs lack
// their records. ok is false when the cache is empty.
func (c *Cache) Pop() (bucket string, key []byte, runs []Run, ok bool) {
	var snap Snapshot
	bucket, key, width := c.PopKey(&snap)
	if width == 0 {
		return "", nil, nil, false
	}
	return bucket, key, snap.runs(width), true
}

// PopKey is to Pop what ReadKey is to Get. Width is 0 when the cache is empty.
func (c *Cache) PopKey(snap *Snapshot) (bucket string, key []byte, width int) {
	for gen := 3; gen >= genBlob; gen-- {
		for range c.shards {
			s := c.shards[c.cursor.Add(1)%uint64(len(c.shards))]
			s.mu.Lock()
			id := s.coldestLocked(gen)
			if id == noID {
				s.mu.Unlock()
				continue
			}
			r := s.recs.At(id)
			hidden := r.flags&flagShadow != 0
			b := s.cache.bucket(r.bucket)
			if !hidden {
				s.pruneLocked(r)
				s.snapshotLocked(r, math.MinInt64, math.MaxInt64, snap)
				if r.flags&flagRaw != 0 {
					key = []byte(s.appendLabelsLocked(r, nil)[0].Value)
				} else if first, ok := snap.firstTime(); ok {
					s.changedLocked(r, first)
				}
			}
			s.popped += uint64(s.pointsLocked(id))
			s.noteLostLocked(r)
			s.removeLocked(id)
			s.publishLocked()
			s.mu.Unlock()
			if hidden {
				return c.PopKey(snap)
			}
			return b.name, key, int(b.width.Load())
		}
	}
	return "", nil, 0
}

// exportLocked is everything a series holds, copied and decoded.
func (s *shard) exportLocked(id uint32) Evicted {
	r := s.recs.At(id)
	s.pruneLocked(r)
	o := Evicted{Bucket: s.cache.bucket(r.bucket).name}
	if labels := s.appendLabelsLocked(r, nil); r.flags&flagRaw != 0 {
		o.Key = []byte(labels[0].Value)
	} else {
		o.Labels = labels
	}
	var snap Snapshot
	s.snapshotLocked(r, math.MinInt64, math.MaxInt64, &snap)
	for it := snap.Iterator(); it.Next(); {
		if it.OnRecord() {
			x := it.Record()
			o.Records = append(o.Records, Record{T: x.T, Value: slices.Clone(x.Value)})
			continue
		}
		o.Samples = append(o.Samples, it.At())
		if snap.starts != nil {
			o.Starts = append(o.Starts, it.StartTime())
		}
	}
	return o
}

// Age ages a bucket by one: generation 2 joins 3, generation 1 becomes 2.
func (c *Cache) Age(bucket string) {
	if b := c.findBucket(bucket); b != nil {
		b.age.Add(1)
	}
}

// IsEmpty reports whether a bucket holds no key.
func (c *Cache) IsEmpty(bucket string) bool {
	b := c.findBucket(bucket)
	return b == nil || b.series.Load() <= 0
}

// SeriesOf is how many series and keys a bucket has.
func (c *Cache) SeriesOf(bucket string) int {
	if b := c.findBucket(bucket); b != nil {
		return int(max(b.series.Load(), 0))
	}
	return 0
}

// Buckets lists the names of all buckets, sorted.
func (c *Cache) Buckets() []string {
	set := map[string]bool{}
	for name := range *c.byName.Load() {
		set[name] = true
	}
	return sorted(set, 0)
}

// RemoveBucket removes a bucket with all it holds and reports whether there
// was one. Writes to it that run at the same time may or may not be part of it.
func (c *Cache) RemoveBucket(name string) bool {
	c.bucketsMu.Lock()
	old := *c.byName.Load()
	b := old[name]
	if b != nil {
		names := make(map[string]*bucket, len(old))
		for k, v := range old {
			if k != name {
				names[k] = v
			}
		}
		c.byName.Store(&names)
	}
	c.bucketsMu.Unlock()
	if b == nil {
		return false
	}
	for _, s := range c.shards {
		s.emptyBucket(b)
	}
	return true
}

// emptyBucket removes the series of b, letting others have the lock now and then.
func (s *shard) emptyBucket(b *bucket) {
	const piece = 1024
	for more := true; more; {
		more = false
		s.mu.Lock()
		n := 0
		for class := range sizeClasses + 1 {
			for n < piece && int(b.id) < len(s.lists) {
				id := s.lists[b.id][class].firstSeries()
				if id == noID {
					break
				}
				s.removed += uint64(s.pointsLocked(id))
				s.removeLocked(id)
				n++
			}
		}
		more = n == piece
		s.tidyLocked()
		s.publishLocked()
		s.mu.Unlock()
	}
}

func sorted(set map[string]bool, limit int) []string {
	all := make([]string, 0, len(set))
	for v := range set {
		all = append(all, v)
	}
	slices.Sort(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}
