package mcache

// A generation passes by what the memory holds, too. An age cycle is a number
// of points. A small cache, or one with much churn, evicts a point long before
// as many have come: all its series would be of generation 1, and eviction would
// take the largest first, which are those that are still written. So a shard
// counts turns. One passes when it has taken a quarter of the points that it
// held when the turn began. What was written neither in this turn nor in the one
// before, so not among the last quarter of what the memory holds, and perhaps
// not among the last half, is of generation 3.
//
// Turns are a shard's own: to count them takes one comparison under a lock that
// is held anyway. Fingerprints spread series evenly, so the turns of all shards
// are about as long. They pass before the memory is full, too. A young cache
// turns at each round of scrapes; but a write to a series of another age only
// stores the age, and no list is touched until something is evicted. Hence there
// is a generation 3 when memory runs out, however suddenly: by a budget that
// falls, by the heads of new series, or by what others store.

// turns is the part of a shard that counts them. Numbers of points are those
// inserted, as shard.inserted.
type turns struct {
	passed uint32
	ends   uint64   // the turn does, at this number of points
	mark   uint64   // number of points at which the next mark is made
	next   uint64   // the lesser of both
	marks  []agesOf // by bucket id
}

// agesOf is the ages of a bucket at the last mark and at the one before.
type agesOf struct{ last, before uint32 }

const (
	// turnShare: so many turns are the points that a shard holds. Those written
	// in the last two are at most half of them, so that there is a generation 3
	// whenever series end; and a series that is written once in every turn, four
	// times while the memory fills, is never in it.
	turnShare = 4
	// minTurn points are the shortest turn.
	minTurn = 16
)

// ageLocked is the age by which the shard tells the generations of a bucket:
// its own, of age cycles, and the turns. It never falls.
func (s *shard) ageLocked(b *bucket) uint32 { return b.age.Load() + s.turns.passed }

// turnLocked ends the turn, or makes a mark, or both.
func (s *shard) turnLocked() {
	t, turn := &s.turns, s.turnLengthLocked()
	if s.inserted >= t.ends {
		t.passed++
		s.log.RenewOpen()
		s.blobs.RenewOpen()
		t.ends = s.inserted + turn
	}
	if s.inserted >= t.mark {
		s.markLocked()
		t.mark = s.inserted + min(turn, max(coldRounds*uint64(s.live), s.leastTurnLocked()))
	}
	t.next = min(t.ends, t.mark)
}

// turnLengthLocked is a turn in points, by what the shard holds now. What is in
// blobs is left out: series go there, and leave from there, whole.
func (s *shard) turnLengthLocked() uint64 {
	held := uint64(s.hot.Stats().Weight + s.partials.Stats().Weight + s.log.Stats().Weight)
	return max(held/turnShare, s.leastTurnLocked())
}

// leastTurnLocked is the shortest turn in points. A mark looks at every bucket.
func (s *shard) leastTurnLocked() uint64 { return uint64(max(minTurn, len(s.lists))) }

// shortenTurnLocked ends the turn earlier when the shard holds less than it did.
func (s *shard) shortenTurnLocked() {
	t := &s.turns
	t.ends = min(t.ends, s.inserted+s.turnLengthLocked())
	t.mark = min(t.mark, t.ends)
	t.next = min(t.ends, t.mark)
}

// markLocked notes the ages of all buckets.
func (s *shard) markLocked() {
	t := &s.turns
	for len(t.marks) < len(s.lists) {
		t.marks = append(t.marks, agesOf{})
	}
	for id := range t.marks {
		if b := s.cache.bucket(uint16(id)); b != nil {
			t.marks[id] = agesOf{before: t.marks[id].last, last: s.ageLocked(b)}
		}
	}
}

// coldLocked reports whether a series of b that was written last at age touched
// is cold: of generation 3, and not written since the mark before the last one.
// From mark to mark the shard takes coldRounds of points for each of its
// series, or as many as a turn if that is less.
func (s *shard) coldLocked(b *bucket, touched uint32) bool {
	if b.rest.long.Load() {
		return true
	}
	marks := s.turns.marks
	return int(b.id) < len(marks) && touched < marks[b.id].before && generation(s.ageLocked(b), touched) == 3
}
