package mcache

import (
	"math"
	"sort"
	"sync"
)

// Changes: who keeps what it computed of samples asks from which time on they are
// not any more what they were. That is known by the time of the earliest point
// that was written or deleted since, of all series: senders write what is of now,
// so that all before stays as it is, and one that writes far back is seen at once.
//
//	shard    changedFrom: of what came since it was asked, under its lock ─┐
//	Cache    changes: what shards had, in the order in which they were asked ◀┘
//
// A write costs a comparison with what is in the same line as what it counts.
//
// To evict and to reclaim is no change: what was computed before that was computed
// of more. Nor is it what a write hides of its series by a retention, long before the
// time of its point: what was computed of such series is not to be kept, see
// Snapshot.Retained.

// Stamp is a moment in the order of a Cache's changes. The zero value is before all.
type Stamp uint64

// noChange is later than any point.
const noChange = math.MaxInt64

// ChangedSince returns the time in unix ms of the earliest point that was
// written, replaced, deleted or popped since the moment since, at most a second more than that, and
// math.MaxInt64 if none was; math.MinInt64 if a bucket was removed, a snapshot was
// loaded, a retention set, or a series found to lack what others have of a gap that
// was closed. A write or deletion
// that has returned is told of; one that has not may be. now is the moment of the
// call: what is read from then on is what was not changed since now.
//
// What lies far back is told of more coarsely: from may be earlier than it was,
// never later. It takes the lock of each shard.
func (c *Cache) ChangedSince(since Stamp) (from int64, now Stamp) {
	x := &c.changes
	x.mu.Lock()
	defer x.mu.Unlock()
	earliest := int64(noChange)
	for _, s := range c.shards {
		s.mu.Lock()
		earliest = min(earliest, s.changedFrom)
		s.changedFrom = noChange
		s.mu.Unlock()
	}
	x.noteLocked(earliest)
	return x.sinceLocked(since), x.now
}

// changedLocked notes that a point of time t was written or deleted.
func (s *shard) changedLocked(t int64) {
	if t < s.changedFrom {
		s.changedFrom = t
	}
}

// changes are those that shards told of. Its lock comes before theirs.
type changes struct {
	mu  sync.Mutex
	now Stamp
	log []change // of rising moments and rising times: what a later one covers is left out
}

// change says that nothing before from changed after the entry before, up to at.
type change struct {
	at   Stamp
	from int64
}

const (
	// maxChanges bounds the log: an hour of seconds.
	maxChanges = 4096
	// changesApart is the least distance of two entries in ms. Less would be as
	// many as there are queries, and who looks at steps knows of none that are closer.
	changesApart = 1000
)

// noteAll notes a change of all times.
func (x *changes) noteAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.noteLocked(math.MinInt64)
}

func (x *changes) noteLocked(from int64) {
	if from == noChange {
		return
	}
	x.now++
	for len(x.log) > 0 && x.log[len(x.log)-1].from >= from {
		x.log = x.log[:len(x.log)-1]
	}
	if n := len(x.log); n > 0 && from-changesApart <= x.log[n-1].from {
		x.log[n-1].at = x.now
		return
	}
	if len(x.log) == maxChanges {
		for i := range maxChanges / 2 {
			x.log[i] = change{x.log[2*i+1].at, x.log[2*i].from}
		}
		x.log = x.log[:maxChanges/2]
	}
	x.log = append(x.log, change{x.now, from})
}

// sinceLocked is the time from which on there were changes after a moment.
func (x *changes) sinceLocked(since Stamp) int64 {
	i := sort.Search(len(x.log), func(i int) bool { return x.log[i].at > since })
	if i == len(x.log) {
		return noChange
	}
	return x.log[i].from
}
