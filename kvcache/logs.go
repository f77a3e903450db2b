package kvcache

// A shard keeps two logs of records. What is new is on probation: a short log,
// from which a record goes to the lasting one if it was read by the time its
// region is the oldest, and is dropped otherwise. So keys that never return
// cost little, and what lasts is not washed away by them. This is S3-FIFO
// (Yang et al., SOSP 2023) at the granularity of regions:
//
//	                ghost hit: it came back
//	         ┌──────────────────────────────────────┐
//	write ───┤                                      ▼
//	         └▶ probation ▶ ▶ oldest ── read ──▶ lasting ▶ ▶ ▶ ▶ ▶ ▶ oldest
//	                          │                  ▲                  │ │ │
//	                          │ unread           ├── read, less one ┘ │ │
//	                          ▼                  └── nearly all read ─┘ ▼
//	                        ghosts                  (a second chance)  dropped
//
// Hit ratios of GET, and SET on a miss, means of 27 request mixes (two block
// traces, Zipf 0.7 to 1.2, keys that never return, loops, shifts, scans, bursts,
// sizes from 100 B to 100 KiB, caches of 2 to 256 MiB); models get the same bytes:
//
//	one log, what was read is kept      0.537
//	two logs                            0.558
//	+ ghosts                            0.597
//	+ a second chance for regions       0.605
//	S3-FIFO, by objects                 0.598
//	SIEVE, by objects                   0.560
//	least recently used                 0.531
//
// Known holes: scans back and forth over one and a half to four times what there is room
// for (0.08 where one log has 0.39 and S3-FIFO 0.08), and working sets that
// shift (0.710 where one log has 0.719). A share of probation that follows how much of each log was read
// when it aged mends the second (0.723) and a part of the first, at 0.02 to 0.03 for loops and
// up to 0.2 for scans of little more than there is room for; it was left out.
//
// Whichever region the Memory asks for, the shard answers with the one that it
// values least, and the two exchange their ages in the Memory's list: how much
// a shard holds beside others is decided there.
const (
	probation = 0
	lasting   = 1
)

const (
	// probationPart: of the bytes of a shard's regions, a tenth is for probation.
	// From a twentieth to a tenth is as good, and a tenth the better for working
	// sets that shift; a quarter costs 0.02 of the hit ratio.
	probationPart = 10
	// minLogRegions is how many regions a shard needs for two logs. With fewer,
	// the second open region is too much of them: one log then has all.
	minLogRegions = 8
	// keepQuarters of a region may be kept when it ages, and this many must have
	// been read for it to get a second chance as a whole.
	keepQuarters = 3
)

// policy is what a shard remembers to choose its victims; under its lock.
type policy struct {
	// single says that there are too few regions for two logs. It is decided
	// when a region begins or goes.
	single bool
	// hot says that the lasting log's oldest region was nearly all read when it
	// was looked at: what comes back is on probation like all else, until the
	// lasting log has something to give up.
	hot bool
	// turnedAway is the bytes of what came back and was put on probation since
	// the lasting log was last looked at.
	turnedAway int
}

// logOfLocked is the log that the region of a live ref is in.
func (s *shard) logOfLocked(ref Ref) *Tables { return s.logs[s.m.tables[ref.region()].log] }

func (s *shard) ownsLocked(r Region, epoch uint32) bool {
	return s.logs[probation].Owns(r, epoch) || s.logs[lasting].Owns(r, epoch)
}

func (s *shard) regionsLocked() int {
	return len(s.logs[probation].list) + len(s.logs[lasting].list)
}

// weightLocked is the sum of recordWeight over all records.
func (s *shard) weightLocked() int64 {
	return s.logs[probation].weight + s.logs[lasting].weight
}

// admitLocked is the log for a record of n bytes that is new.
func (s *shard) admitLocked(x *index, h hash, n int) *Tables {
	if s.policy.single || !x.takeGhost(h) {
		return s.logs[probation]
	}
	if s.policy.hot {
		s.policy.turnedAway += n
		return s.logs[probation]
	}
	s.count.returned++
	return s.logs[lasting]
}

// keepLogLocked is where records go that are kept when a region ages.
func (s *shard) keepLogLocked() *Tables {
	if s.policy.single {
		return s.logs[probation]
	}
	return s.logs[lasting]
}

// leastLocked is the log that gives up a region next.
func (s *shard) leastLocked() *Tables {
	p, l := s.logs[probation], s.logs[lasting]
	switch {
	case l.oldest() == noRegion:
		return p
	case s.policy.single || p.oldest() == noRegion:
		return l
	case p.fill*probationPart >= int64(s.regionsLocked())*int64(s.m.regionBytes):
		return p
	}
	return l
}

// firstLocked is the region of the log that goes first: one that is still
// written only when there is no other. It is noRegion if there is none at all.
func (s *shard) firstLocked(t *Tables) Region {
	r := t.oldest()
	if r == noRegion {
		r = t.old
	}
	if r == noRegion {
		r = t.cur
	}
	return r
}

// DropRegion implements Owner: a region vanishes as it is. Probation goes
// first, then what lasts by age.
func (s *shard) DropRegion(r Region, epoch uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ownsLocked(r, epoch) {
		return false
	}
	for _, t := range s.logs {
		if v := t.oldest(); v != noRegion {
			s.giveUpLocked(r, epoch, v)
			return true
		}
	}
	s.dropLocked(r)
	return true
}

// giveUpLocked drops the victim in place of the region that was asked for.
func (s *shard) giveUpLocked(asked Region, epoch uint32, victim Region) {
	if s.ownsLocked(asked, epoch) {
		s.m.exchange(asked, victim)
	}
	s.dropLocked(victim)
}

func (s *shard) dropLocked(r Region) {
	s.count.evicted += uint64(weightRecords(s.logs[s.m.tables[r].log].Drop(r)))
	s.count.regions++
	s.policy.single = s.regionsLocked() < minLogRegions
}

// DropAll implements Owner.
func (s *shard) DropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count.evicted += uint64(s.clearLocked())
}

// clearLocked forgets everything and returns how many records that was.
func (s *shard) clearLocked() int64 {
	n := int64(0)
	for _, t := range s.logs {
		n += weightRecords(t.DropAll())
	}
	for x := range s.dir.all() {
		x.clear()
	}
	s.places.clear()
	s.sweeping = false
	s.policy = policy{}
	return n
}
