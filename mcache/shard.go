package mcache

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"mcached/kvcache"
	"mcached/mcache/block"
	"mcached/mcache/index"
)

// shard is the part of a Cache under one lock: the series whose fingerprint
// leads here, their chunks, and an index of their labels. What all shards use
// besides, the Memory, the tally of metrics, the ages of buckets, has locks of
// its own that are leaves, or none: so none ever waits for two shards' locks.
//
// It has four parts that are nothing by themselves, and are embedded: the
// roster says which series there are, the ledger what of them a downstream store
// has not got, counts what became of points; scratch is what calls would
// otherwise allocate. All below mu needs it, but for what is atomic.
type shard struct {
	cache  *Cache
	number int
	owner  int // at the Memory

	mu sync.Mutex

	hot *kvcache.Tables // heads, and chunks of records that may take more
	// partials holds partial blocks, apart from heads: they live from one sealing of
	// a head to the next, and heads for as long as their series. None is put
	// among those of the sealing before, which all die (ReuseOpen).
	partials *kvcache.Tables
	log      *kvcache.Tables // sealed blocks
	fix      *kvcache.Tables // directories

	blobs *kvcache.Tables // what eviction took; see blob.go

	roster
	index index.Index
	// editions counts the indexes that there were: pair ids are of one edition.
	editions uint32
	turns    turns

	bytes int64 // allocated for series, as eviction counts
	// allocated is bytes as of the last unlock, for those who have no lock.
	allocated atomic.Int64
	unpruned  bool   // a region was dropped since the last prune of all
	yields    uint64 // times that a write let go of the lock
	changed   changedIn

	ledger
	counts
	scratch
}

func newShard(c *Cache, number int, blobs kvcache.Account) *shard {
	s := &shard{cache: c, number: number, roster: newRoster(c.memory), ledger: newLedger(c.memory), scratch: newScratch()}
	s.owner = c.memory.Register(s)
	s.hot = kvcache.NewTables(c.memory, s.owner, kvcache.Hot, s.movedLocked)
	s.partials = kvcache.NewTables(c.memory, s.owner, kvcache.Hot, s.movedLocked)
	s.partials.ReuseOpen()
	s.log = kvcache.NewTables(c.memory, s.owner, kvcache.Log, s.movedLocked)
	s.fix = kvcache.NewTables(c.memory, s.owner, kvcache.Fixed, s.movedLocked)
	s.blobs = kvcache.NewTables(c.memory, c.memory.RegisterFor(s, blobs), kvcache.Log, s.movedLocked)
	s.index = index.New(c.memory, c.hasher)
	return s
}

// movedLocked puts the new address of an entry where its old one was.
func (s *shard) movedLocked(aux uint16, id uint32, from, to kvcache.Ref) int {
	r := s.recs.At(id)
	switch aux {
	case kindHead:
		r.head = to
		return r.headLen()
	case kindDir:
		r.dir = to
		return 0
	case kindRecordDir:
		r.records = to
		return 0
	case kindBlob:
		r.setBlob(to)
		return block.BlobPoints(s.blobs.Value(to))
	case kindRecords:
		dir := s.recordDirLocked(r).entries()
		for k := len(dir) - 1; k >= 0; k-- {
			if dir[k].ref == from {
				dir[k].ref = to
				return block.RecordCount(s.blockLocked(dir[k]))
			}
		}
		panic("mcache: a record chunk that no directory knows")
	default:
		dir := s.dirOfLocked(r)
		for k := len(dir) - 1; k >= 0; k-- {
			if dir[k].ref == from {
				dir[k].ref = to
				return block.Len(s.blockLocked(dir[k]))
			}
		}
		panic("mcache: a block that no directory knows")
	}
}

// DropRegion implements kvcache.Owner: what was in r is lost from now on. A
// region that may hold points which the downstream store has not got is pinned.
func (s *shard) DropRegion(r kvcache.Region, epoch uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range [...]*kvcache.Tables{s.log, s.hot, s.partials, s.blobs} {
		if t.Owns(r, epoch) {
			if s.pinnedLocked(t.Written(r)) {
				return false
			}
			points := uint64(t.Drop(r))
			s.lost += points
			if t == s.blobs {
				s.blob.lost += points
			}
			s.unpruned = true
			s.shortenTurnLocked()
			return true
		}
	}
	return false
}

// DropAll implements kvcache.Owner.
func (s *shard) DropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirty > 0 {
		s.cache.kickNow()
		return
	}
	s.dropAllLocked()
}

// dropAllLocked is DropAll of a shard that has nothing dirty.
func (s *shard) dropAllLocked() {
	s.noteAllGoneLocked()
	inBlobs := uint64(s.blobs.DropAll())
	s.blob.lost += inBlobs
	s.lost += uint64(s.log.DropAll()+s.hot.DropAll()+s.partials.DropAll()) + inBlobs
	s.resetLocked()
}

// RegionUse says how full a region is, for kvcache.Memory.RegionMap.
func (s *shard) RegionUse(r kvcache.Region, epoch uint32) (live, dead int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range [...]*kvcache.Tables{s.log, s.hot, s.partials, s.fix, s.blobs} {
		if t.Owns(r, epoch) {
			live, dead = t.Use(r)
			return live, dead, true
		}
	}
	return 0, 0, false
}

// resetLocked leaves the shard without a series. Their points are counted by
// the caller.
func (s *shard) resetLocked() {
	s.giveBackAllLocked()
	s.log.DropAll()
	s.hot.DropAll()
	s.partials.DropAll()
	s.blobs.DropAll()
	s.fix.DropAll()
	s.recs.Free()
	s.after.Free()
	s.freeDirtLocked()
	s.ids.Free()
	s.index.Free()
	s.index = index.New(s.cache.memory, s.cache.hasher)
	s.forgetPairsLocked()
	s.live, s.dead, s.rebuildAt, s.bytes, s.free, s.tombs = 0, 0, 0, 0, noID, noID
	s.lists = nil
	s.shortenTurnLocked()
	s.unpruned = false
}

// createLocked makes the series f with the pairs of names and values given, which
// hold no duplicate. pairs, if there is one, sets s.pairIDs to what pairsOfLocked would.
// The error is ErrNoMemory or ErrSeriesLimit.
func (s *shard) createLocked(b *bucket, f Fingerprint, flags seriesFlags, labels []Label, pairs func() error) (uint32, error) {
	if flags&(flagShadow|flagClaimed) != 0 {
		return s.createUnclaimedLocked(b, f, flags, labels, pairs)
	}
	l := *b.limits.Load()
	if flags&flagHeld != 0 {
		l = l.countOnly()
	}
	p, err := s.cache.claimFor(b, labels, l)
	if err != nil {
		return noID, err
	}
	id, err := s.createUnclaimedLocked(b, f, flags, labels, pairs)
	if err != nil {
		s.cache.giveBack(p)
	}
	return id, err
}

func (s *shard) createUnclaimedLocked(b *bucket, f Fingerprint, flags seriesFlags, labels []Label, pairs func() error) (uint32, error) {
	if s.dead*5 > s.live && s.dead >= max(rebuildMin, s.rebuildAt) {
		s.rebuildAt = 0
		if s.rebuildLocked() != nil {
			// Without memory for it the tombstones wait until there are a fifth
			// more: each try is a walk over all series.
			s.rebuildAt = s.dead + s.live/5
		}
	}
	x := &s.index
	if pairs == nil {
		pairs = func() error { return s.pairsOfLocked(b, labels) }
	}
	if err := pairs(); err != nil {
		return noID, err
	}
	if err := s.ids.Reserve(1); err != nil {
		return noID, err
	}
	set, err := x.PutSet(s.pairIDs)
	if err != nil {
		return noID, err
	}
	if s.free == noID && s.recs.Len() >= maxSeriesShard {
		return noID, fmt.Errorf("%w: %d series in a shard", ErrSeriesLimit, maxSeriesShard)
	}
	var id uint32
	if s.free == noID {
		if s.cache.writeBack {
			if err = s.reserveDirtLocked(s.recs.Len() + 1); err != nil {
				return noID, err
			}
		}
		if s.after.Len() == s.recs.Len() {
			if _, err = s.after.Append(0); err != nil {
				return noID, err
			}
		}
		if id, err = s.recs.Append(series{}); err != nil {
			return noID, err
		}
		s.recs.At(id).newer = s.free
		s.free = id
	}
	id = s.free
	if err := x.Post(id, s.pairIDs); err != nil {
		return noID, err
	}
	s.free = s.recs.At(id).newer
	life := uint32(0)
	if flags&(flagHeld|flagClaimed) == 0 { // else the loader sets it
		life = s.cache.lives.Add(1)
	}
	s.changed.reserve(b)
	*s.recs.At(id) = series{
		fp: f, bucket: b.id, life: life, flags: flagInUse | flags&^(flagHeld|flagClaimed),
		touched: s.ageLocked(b), sealedEnd: math.MinInt64, completeFrom: math.MinInt64,
		pairs: set, nPairs: uint16(len(s.pairIDs)), older: noID, newer: noID,
	}
	s.ids.Add(f.tag(), id)
	s.live++
	s.accountLocked(s.recs.At(id), seriesBytes)
	s.listLocked(id)
	return id, nil
}

// pairsOfLocked sets s.pairIDs to the pairs of a label set and makes those that
// are new. Many stand where the series made before has the same name, or the
// same pair: that costs a comparison instead of a lookup.
func (s *shard) pairsOfLocked(b *bucket, labels []Label) error {
	s.before, s.pairIDs = s.pairIDs, s.before[:0]
	if err := s.addPairLocked(bucketName, b.name); err != nil {
		return err
	}
	for i := range labels {
		if l := &labels[i]; l.Value != "" {
			if err := s.addPairLocked(l.Name, l.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// addPairLocked appends one pair to s.pairIDs.
func (s *shard) addPairLocked(nameText, valueText string) (err error) {
	x, name := &s.index, uint32(noID)
	if k := len(s.pairIDs); k < len(s.before) {
		if p := s.before[k]; string(x.Name(p)) == nameText {
			if string(x.Value(p)) == valueText {
				s.pairIDs = append(s.pairIDs, p)
				return nil
			}
			name = x.NameOf(p)
		}
	}
	if name == noID {
		if name, err = x.AddName(s.cache.HashString(nameText), nameText); err != nil {
			return err
		}
	}
	vh := s.cache.HashString(valueText)
	recent := &s.recent[index.PairTag(name, vh)%recentPairs]
	if recent.value != vh || recent.name != name {
		id, err := x.AddPair(name, vh, valueText)
		if err != nil {
			return err
		}
		*recent = recentPair{vh, name, id}
	}
	s.pairIDs = append(s.pairIDs, recent.pair)
	return nil
}

// pairLocked is the pair of a label, which is made if it is new. h is its hashes.
func (s *shard) pairLocked(l Label, h labelHash) (uint32, error) {
	name, err := s.index.AddName(h.name, l.Name)
	if err != nil {
		return noID, err
	}
	return s.index.AddPair(name, h.value, l.Value)
}

// forgetPairsLocked forgets the pairs that were used last: those of another
// index.
func (s *shard) forgetPairsLocked() {
	s.pairIDs = s.pairIDs[:0]
	clear(s.recent[:])
	s.editions++
}

const (
	// maxSeriesShard is what a SeriesID has bits for.
	maxSeriesShard = 1 << 24
	// rebuildMin tombstones are few enough to be left in peace.
	rebuildMin = 256
)

// removeLocked takes a series out of the shard. Its points are counted by the caller.
func (s *shard) removeLocked(id uint32) {
	r := s.recs.At(id)
	if shadow := s.shadowLocked(r); shadow != noID {
		s.removeLocked(shadow)
	}
	s.unlistLocked(id)
	s.forgetDirtLocked(id)
	s.freeLiveLocked(r)
	s.freeBlobLocked(r)
	s.accountLocked(r, -int(r.bytes))
	s.ids.Remove(r.fp.tag(), id)
	if p, ok := s.claimedLocked(r); ok {
		s.cache.giveBack(p)
	}
	s.index.Unpost(s.index.Set(r.pairs, int(r.nPairs)))
	*r = series{newer: s.tombs}
	s.tombs = id
	s.dead++
	s.live--
}

// compactAllLocked compacts until nothing is worth it.
func (s *shard) compactAllLocked() {
	for s.tidyLocked() {
	}
}

// tidyLocked compacts one region of each kind, where it is worth it, and reports
// whether it did: a bounded piece of work.
func (s *shard) tidyLocked() bool {
	more := false
	for _, t := range [...]*kvcache.Tables{s.hot, s.partials, s.log, s.fix, s.blobs} {
		more = t.Compact() || more
	}
	return more
}
