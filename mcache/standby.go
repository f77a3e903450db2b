package mcache

import (
	"fmt"
	"math"
	"unsafe"
)

// Several caches may hold the same points before one downstream store, and one
// of them hands each on. The others keep it on standby: as dirty as their own,
// but not to be collected, until they are told that it was handed on (then it is
// clean), or that nobody does (then it is collected like all).
//
// Who hands on says of the time up to which he has done so, not of points. So
// each series on standby has a checkpoint: a tick and the time of its last point
// then. When all that came before that tick was handed on, the points up to that
// time are clean, and there is another checkpoint:
//
//	           upTo, made at `tick`     newest
//	─────────────────┼────────────────────▶ time
//	came before tick │ came after          and from…to: written since, not after upTo
//
// A series is on standby as a whole: when some of what is dirty of it is this
// cache's own, all of it is collected. That happens round a failure, and sends
// some points twice, which changes nothing in the store.

// Duty says who hands points on to the downstream store.
type Duty uint8

const (
	Mine    Duty = iota // this cache
	Standby             // another one, until SettleStandby learns otherwise
	Nobodys             // nobody: the store has them, or shall not
)

// standby is what is known of a series on standby; ledger.standbys[id].
type standby struct {
	upTo     int64  // last point at the checkpoint, or dirt.sent if that is later
	from, to int64  // times not after upTo, written since the checkpoint; empty if from > to
	tick     uint32 // of the checkpoint; 0: there is none
	since    uint32 // points written since the checkpoint; all, if there is none
	slot     uint32 // what the caller says of the labels, plus one; 0: he was not asked
	_        uint32
}

var _ [40]byte = [unsafe.Sizeof(standby{})]byte{}

// wroteAsLocked is wroteLocked for points of which anybody may be the one to
// hand them on.
func (l *ledger) wroteAsLocked(id uint32, ss []Sample, tick uint32, duty Duty) {
	switch {
	case duty == Nobodys:
		l.wroteLocalLocked(id, content{samples: ss})
		return
	case duty == Mine || !l.takeDutyLocked(id, duty):
		l.wroteLocked(id, ss, tick)
		return
	}
	d := l.dirt.At(id)
	first, last := ss[0].T, ss[len(ss)-1].T
	if d.since == 0 {
		l.firstDirtyLocked(id, d, first, tick)
	}
	l.noteOutOfOrderLocked(id, first, last)
	l.noteLateLocked(id, first, last)
	l.countStandbyLocked(id, len(ss))
	l.addLocked(id, d, len(ss))
}

// takeDutyLocked is told that points come to a series, and reports whether it
// is on standby with them.
func (l *ledger) takeDutyLocked(id uint32, duty Duty) bool {
	m := l.marks.At(id)
	if duty != Standby {
		if l.standing > 0 {
			l.promoteLocked(id)
		}
		return false
	}
	if *m&markStandby != 0 {
		return true
	}
	if l.dirt.At(id).since != 0 || l.reserveStandbysLocked() != nil {
		return false
	}
	*m |= markStandby
	l.standing++
	l.standbys.At(id).clear()
	return true
}

func (l *ledger) reserveStandbysLocked() error {
	for l.standbys.Len() < l.dirt.Len() {
		if _, err := l.standbys.Append(standby{}); err != nil {
			return err
		}
	}
	return nil
}

// clear forgets all but the slot.
func (x *standby) clear() {
	*x = standby{from: math.MaxInt64, to: math.MinInt64, slot: x.slot}
}

func (l *ledger) countStandbyLocked(id uint32, points int) {
	l.standbyPoints += int64(points)
	l.standbys.At(id).since += uint32(points)
}

// noteLateLocked notes points that a checkpoint does not stand for, though
// their times are not after it.
func (l *ledger) noteLateLocked(id uint32, from, to int64) {
	if x := l.standbys.At(id); x.tick != 0 && from <= x.upTo {
		x.from, x.to = min(x.from, from), max(x.to, min(to, x.upTo))
	}
}

// promoteLocked makes what is on standby of a series, if it is, this cache's own.
func (l *ledger) promoteLocked(id uint32) {
	if *l.marks.At(id)&markStandby == 0 {
		return
	}
	d := l.dirt.At(id)
	l.endStandbyLocked(id)
	// It lies behind passes that took it for another's, and is older than what
	// was said of this cache's own.
	l.returns++
	l.sentBefore.Store(min(l.sentBefore.Load(), d.since))
}

// endStandbyLocked takes a series off standby, with what is dirty of it.
func (l *ledger) endStandbyLocked(id uint32) {
	*l.marks.At(id) &^= markStandby
	l.standing--
	l.standbyPoints -= int64(l.dirt.At(id).points)
	l.standbys.At(id).clear()
}

// forgetStandbyLocked is part of removing a series.
func (l *ledger) forgetStandbyLocked(id uint32) {
	if *l.marks.At(id)&markStandby != 0 {
		l.endStandbyLocked(id)
	}
	if int(id) < l.standbys.Len() {
		*l.standbys.At(id) = standby{}
	}
}

// checkpointLocked makes a checkpoint of a series whose last point is at newest.
func (l *ledger) checkpointLocked(id uint32, newest int64, tick uint32) {
	x := l.standbys.At(id)
	x.clear()
	// Where the last points were deleted, newest is before what was sent: what comes in between is late.
	x.upTo, x.tick = max(newest, l.dirt.At(id).sent), tick
}

// releaseStandbyLocked makes what a series had at its checkpoint clean.
func (l *ledger) releaseStandbyLocked(id uint32) {
	d, o, x, m := l.dirt.At(id), l.outOfOrder.At(id), l.standbys.At(id), l.marks.At(id)
	d.sent = max(d.sent, x.upTo)
	o.from, o.to = x.from, x.to
	*m &^= markOutOfOrder
	if o.from <= o.to {
		*m |= markOutOfOrder
	}
	gone := d.points - x.since
	d.points = x.since
	l.dirty -= int64(gone)
	l.standbyPoints -= int64(gone)
	if d.points == 0 {
		d.since = 0
		l.endStandbyLocked(id)
		return
	}
	d.since = x.tick
	since := x.since
	x.clear()
	x.since = since
}

// checkStandbyLocked checks counts, and what a standby is.
func (l *ledger) checkStandbyLocked() error {
	standing, points := 0, int64(0)
	for id := range uint32(l.dirt.Len()) {
		d, m := l.dirt.At(id), *l.marks.At(id)
		if m&markStandby == 0 {
			if d.since != 0 && d.since < l.sentBefore.Load() {
				return fmt.Errorf("series %d: dirty since %d, sent before %d", id, d.since, l.sentBefore.Load())
			}
			continue
		}
		x := l.standbys.At(id)
		standing++
		points += int64(d.points)
		if d.since == 0 || x.since > d.points || x.from <= x.to && (x.tick == 0 || x.to > x.upTo) {
			return fmt.Errorf("series %d is on standby: %+v, %+v", id, *d, *x)
		}
	}
	if standing != l.standing || points != l.standbyPoints {
		return fmt.Errorf("%d series with %d points on standby, %d and %d counted", standing, points, l.standing, l.standbyPoints)
	}
	return nil
}

// SentBefore is the tick before which all has been handed on, or was rejected,
// that came to be so by this cache. What comes to be so later because of
// SettleStandby, and is older, takes it back.
func (c *Cache) SentBefore() uint32 {
	before := uint32(math.MaxUint32)
	for _, s := range c.shards {
		before = min(before, s.sentBefore.Load())
	}
	return before
}

// StandbyRules say what becomes of points on standby.
type StandbyRules struct {
	// Slot says of which kind a series is. It is asked once for each, and keeps nothing.
	Slot func(bucket string, labels []Label) uint16
	// Judge says of points of a series of that kind that came at ticks from from to
	// to, whether this cache is to hand them on, or else the tick before which all
	// has been that came. It must be quick.
	Judge func(slot uint16, from, to uint32) (before uint32, mine bool)
}

// SettleStandby goes through what a shard has on standby, and returns how many
// points it made clean, and how many this cache's own.
func (c *Cache) SettleStandby(shard int, rules StandbyRules) (released, promoted int64) {
	s := c.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	var labels []Label
	for id := 0; id < s.standbys.Len() && s.standing > 0; id++ {
		if id%scanPiece == scanPiece-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		if id >= s.standbys.Len() {
			break
		}
		if *s.marks.At(uint32(id))&(markStandby|markBusy|markFlying) != markStandby {
			continue
		}
		had := s.standbyPoints
		if s.settleStandbyLocked(uint32(id), rules, &labels) {
			promoted += had - s.standbyPoints
		} else {
			released += had - s.standbyPoints
		}
	}
	s.publishLocked()
	return released, promoted
}

// settleStandbyLocked is SettleStandby for one series. It reports whether the
// cache hands it on from now on.
func (s *shard) settleStandbyLocked(id uint32, rules StandbyRules, labels *[]Label) (mine bool) {
	d, x := s.dirt.At(id), s.standbys.At(id)
	r := s.recs.At(id)
	if x.slot == 0 {
		*labels = s.appendLabelsLocked(r, (*labels)[:0])
		x.slot = uint32(rules.Slot(s.cache.bucket(r.bucket).name, *labels)) + 1
	}
	now := max(s.cache.tick.Load(), 1)
	to := now
	if x.tick != 0 {
		to = x.tick
	}
	before, mine := rules.Judge(uint16(x.slot-1), d.since, to)
	if mine {
		s.promoteLocked(id)
		return true
	}
	if x.tick != 0 && before > x.tick {
		s.releaseStandbyLocked(id)
	}
	if x.tick == 0 && d.since != 0 {
		s.checkpointLocked(id, s.newestLocked(r), now)
	}
	return false
}
