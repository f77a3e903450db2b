package mcache

import (
	"math"
	"sort"
	"sync"
	"sync/atomic"
)

// Changes: who keeps what it computed of a bucket's samples asks from which time on they
// are not any more what they were. That is known by the time of the earliest point
// that was written or deleted since, of all series of the bucket: senders write what is of
// now, so that all before stays as it is, and one that writes far back is seen at once.
//
//	shard    changed: of each bucket what came since it was asked, under its lock ─┐
//	bucket   changed: what shards had, in the order in which they were asked ◀─────┘
//
// A write costs a comparison.
//
// To evict and to reclaim is no change: what was computed before that was computed
// of more. Nor is it what a write hides of its series by a retention, long before the
// time of its point: what was computed of such series is not to be kept, see
// Snapshot.Retained.

// Stamp is a moment in the order of a Cache's changes. The zero value is before all.
type Stamp uint64

// noChange is later than any point.
const noChange = math.MaxInt64

// ChangedSince returns the time in unix ms of the earliest point of the bucket that was
// written, replaced, deleted or popped since the moment since, at most a second more than that, and
// math.MaxInt64 if none was; math.MinInt64 if there is no such bucket or it was made since,
// a snapshot was loaded, a retention of it set, or a series found to lack what others have
// of a gap that was closed. A write or deletion
// that has returned is told of; one that has not may be. now is the moment of the
// call: what is read from then on is what was not changed since now.
//
// What lies far back is told of more coarsely: from may be earlier than it was,
// never later. It takes the lock of each shard.
func (c *Cache) ChangedSince(bucket string, since Stamp) (from int64, now Stamp) {
	x := &c.changes
	x.mu.Lock()
	defer x.mu.Unlock()
	now = x.now() // before the bucket is looked for, which may be made meanwhile
	b := c.findBucket(bucket)
	if b == nil {
		return math.MinInt64, now
	}
	earliest := int64(noChange)
	for _, s := range c.shards {
		s.mu.Lock()
		earliest = min(earliest, s.takeChangedLocked(b))
		s.mu.Unlock()
	}
	x.noteLocked(b, earliest)
	return b.changed.since(since), x.now()
}

// changedIn is the earliest time of what was written or deleted in each bucket, by id,
// since takeChangedLocked.
type changedIn []int64

// reserve has room for the changes of a bucket.
func (x *changedIn) reserve(b *bucket) {
	for len(*x) <= int(b.id) {
		*x = append(*x, noChange)
	}
}

// changedLocked notes that a point of r, of time t, was written or deleted.
func (s *shard) changedLocked(r *series, t int64) {
	if from := &s.changed[r.bucket]; t < *from {
		*from = t
	}
}

// takeChangedLocked is for who holds the lock of changes. If b was removed since it was found
// with that, this may be of the bucket in its place, for whose changes nobody can have asked yet.
func (s *shard) takeChangedLocked(b *bucket) (from int64) {
	if int(b.id) >= len(s.changed) {
		return noChange // nothing was ever written
	}
	from, s.changed[b.id] = s.changed[b.id], noChange
	return from
}

// changes counts those of all buckets.
type changes struct {
	mu    sync.Mutex // of the logs; it comes before those of shards
	count atomic.Uint64
}

func (x *changes) now() Stamp  { return Stamp(x.count.Load()) }
func (x *changes) next() Stamp { return Stamp(x.count.Add(1)) }

// changeLog is the changes of a bucket, of rising moments and rising times: what a later
// one covers is left out.
type changeLog []change

// change says that nothing before from changed after the entry before, up to at.
type change struct {
	at   Stamp
	from int64
}

const (
	// maxChanges bounds the log of a bucket, at 8 KiB: some minutes of seconds, and hours
	// of half a minute each.
	maxChanges = 512
	// changesApart is the least distance of two entries in ms. Less would be as
	// many as there are queries, and who looks at steps knows of none that are closer.
	changesApart = 1000
)

// madeAt is the log of a bucket that is made at that moment: what was known of one of its name
// is of another.
func madeAt(at Stamp) changeLog { return changeLog{{at, math.MinInt64}} }

// noteAll notes a change of all times.
func (x *changes) noteAll(b *bucket) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.noteLocked(b, math.MinInt64)
}

func (x *changes) noteLocked(b *bucket, from int64) {
	if from != noChange {
		b.changed.note(x.next(), from)
	}
}

func (x *changeLog) note(at Stamp, from int64) {
	log := *x
	for len(log) > 0 && log[len(log)-1].from >= from {
		log = log[:len(log)-1]
	}
	if n := len(log); n > 0 && from-changesApart <= log[n-1].from {
		log[n-1].at = at
		*x = log
		return
	}
	if len(log) == maxChanges { // of the older half two become one
		for i := range maxChanges / 4 {
			log[i] = change{log[2*i+1].at, log[2*i].from}
		}
		log = append(log[:maxChanges/4], log[maxChanges/2:]...)
	}
	*x = append(log, change{at, from})
}

// since is the time from which on there were changes after a moment.
func (x changeLog) since(at Stamp) int64 {
	i := sort.Search(len(x), func(i int) bool { return x[i].at > at })
	if i == len(x) {
		return noChange
	}
	return x[i].from
}
