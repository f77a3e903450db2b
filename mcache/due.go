package mcache

import (
	"math"

	"mcached/mcache/block"
)

// Due says which dirty series are to be collected.
type Due struct {
	Sealed bool   // those with as many dirty points as fill a sealed block: their run is long enough
	Since  uint32 // those with points that came at this tick or before
	// Without are buckets the series of which are left for later.
	Without []string
}

// Pass is a walk over the dirty series of one shard. The zero value is its
// beginning.
type Pass struct {
	next   uint32 // series that Collect looks at next
	begun  bool
	ended  bool
	began  uint32 // tick
	oldest uint32 // tick at which the oldest point came that was not collected; 0 if all were
	// standby is the same of those that another cache hands on.
	standby uint32
	// returns is ledger.returns as of the beginning: what comes back lies behind
	// the pass, and it does not know how old that is.
	returns uint32
}

// leave notes a series that is not collected.
func (p *Pass) leave(since uint32, m mark) {
	if m&markStandby != 0 {
		p.standby = older(p.standby, since)
		return
	}
	p.oldest = older(p.oldest, since)
}

// older is the earlier of two ticks, of which 0 is none.
func older(a, b uint32) uint32 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// A pass looks at all that is dirty to find what is due, eight times while a point
// grows old. So series are summed up by groups of neighbours, which became dirty
// together as a rule, and a pass skips the groups of which nothing is due.

// dirtGroup is what is known of groupSeries series with consecutive ids, if none of them
// is on standby; ledger.groups[id/groupSeries].
type dirtGroup struct {
	oldest uint32 // tick; nothing came before it that is not in flight; 0: nothing is dirty
	long   bool   // some may have as many dirty points as fill a sealed block
}

// groupSeries are few enough that not many are looked at in vain, and together no more
// than 8 cache lines.
const groupSeries = 32

// add counts a series in.
func (g *dirtGroup) add(since, points uint32) {
	g.oldest = older(g.oldest, since)
	g.long = g.long || points >= block.MaxSamples
}

// groupLocked is the group of a series.
func (l *ledger) groupLocked(id uint32) *dirtGroup { return l.groups.At(id / groupSeries) }

// addLocked counts points that became dirty, of which a series has some: its since is set.
func (l *ledger) addLocked(id uint32, d *dirt, points int) {
	d.points += uint32(points)
	l.dirty += int64(points)
	if d.points >= block.MaxSamples {
		l.groupLocked(id).long = true
	}
}

// keepLocked is told of a series that findDueLocked found, and that is dirty still.
func (l *ledger) keepLocked(id uint32) {
	if d := l.dirt.At(id); d.since != 0 {
		l.groupLocked(id).add(d.since, d.points)
	}
}

const (
	collectPiece = 64   // series collected under one hold of a shard's lock, and less than a group more
	scanPiece    = 4096 // series looked at under one
)

// findDueLocked finds some series from p.next on that are due and have about
// `most` points together, moves the pass behind them, and notes how old the
// others are. Their groups forget those that it found.
func (s *shard) findDueLocked(p *Pass, due Due, most int, o *Outgoing) []uint32 {
	ids, points := o.due[:0], 0
	dirt, groups := s.dirt.All(), s.groups.All()
	marks := s.marks.All()[:len(dirt)]
	enough := uint32(math.MaxUint32)
	if due.Sealed {
		enough = block.MaxSamples
	}
	id := int(p.next)
	for last := min(len(dirt), id+scanPiece); id < last && len(ids) < collectPiece && points < most; {
		g := &groups[id/groupSeries]
		end := min((id/groupSeries+1)*groupSeries, len(dirt))
		if s.standing == 0 && (g.oldest == 0 || g.oldest > due.Since && !(g.long && due.Sealed)) {
			p.oldest = older(p.oldest, g.oldest)
			id = end
			continue
		}
		whole, left := id%groupSeries == 0, dirtGroup{}
		for ; id < end; id++ {
			d := &dirt[id]
			if d.since == 0 {
				continue
			}
			// It may be in flight, in the middle of a write, another cache's, or of a bucket that is left out.
			if d.since > due.Since && d.points < enough || marks[id]&(markFlying|markBusy|markStandby) != 0 ||
				len(o.without) > 0 && o.leaves(s.recs.At(uint32(id)).bucket) {
				p.leave(d.since, marks[id])
				left.add(d.since, d.points)
				continue
			}
			ids = append(ids, uint32(id))
			points += int(d.points)
		}
		if whole {
			*g = left
		}
	}
	p.next, o.due = uint32(id), ids
	s.touchDueLocked(ids)
	return ids
}

// touchDueLocked brings into the processor's caches what collecting series reads
// first: their descriptors, heads and pairs. As in findAllLocked each is read in
// a loop of its own, so that many cache misses overlap.
func (s *shard) touchDueLocked(ids []uint32) {
	recs, touch := s.recs.All(), uint64(0)
	for _, id := range ids {
		touch += uint64(recs[id].sealedEnd) + recs[id].have
	}
	for _, id := range ids {
		r := &recs[id]
		if p := s.hot.Pointer(r.head); p != nil && r.next > 0 {
			touch += *slot(p, int(r.next)-1)
		}
		touch += uint64(s.index.Touch(r.pairs))
	}
	s.touched = touch
}
