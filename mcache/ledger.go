package mcache

import (
	"fmt"
	"math"
	"sort"
	"sync/atomic"
	"unsafe"

	"mcached/kvcache"
	"mcached/kvcache/offheap"
	"mcached/mcache/block"
)

// ledger is what a shard knows of points that a downstream store has not got;
// writeback.go has the design. It knows of no points but by their times and
// their number. What is published is as of the last unlock or Settle. Where a
// cache does not write back the vectors are empty.
type ledger struct {
	dirt       offheap.Vector[dirt] // by id, as the next two
	outOfOrder offheap.Vector[outOfOrder]
	marks      offheap.Vector[mark]
	groups     offheap.Vector[dirtGroup]
	standbys   offheap.Vector[standby] // empty until another cache hands something on

	dirty          int64    // points
	returns        uint32   // how many runs were in flight and came back, over and over
	flightHoles    bool     // a series that is in flight was removed
	flight         []outRun // that are on their way, by id; views of an Outgoing
	cleanBefore    uint32   // no region that was written to last before this tick holds a dirty point
	dirtyPublished atomic.Int64
	oldestDirty    atomic.Uint32 // tick, 0 if nothing is that this cache hands on

	standing      int           // series that are on standby
	standbyPoints int64         // of dirty, those of these
	sentBefore    atomic.Uint32 // of what came before this tick nothing is dirty that this cache hands on
	standbyShown  atomic.Int64  // standbyPoints
}

// dirt is what write-back knows of one series, as far as most writes need it;
// ledger.dirt[id].
type dirt struct {
	sent   int64  // in order: up to this time all was acknowledged or is in flight; math.MinInt64 if nothing was
	since  uint32 // tick at which the oldest dirty point that is not in flight came; 0: there is none
	points uint32 // written since they were last collected; may count a time twice
}

// mark says of one series what seldom is; ledger.marks[id].
type mark uint8

const (
	markFlying     mark = 1 << iota // it has points in ledger.flight
	markOutOfOrder                  // ledger.outOfOrder has a range
	markStandby                     // another cache hands on what is dirty (standby.go)
	markBusy                        // there are writes that have let go of the lock half way
)

// outOfOrder is the rest of it: the range of out-of-order points;
// ledger.outOfOrder[id].
type outOfOrder struct {
	from, to int64  // empty if from > to; both at or before dirt.sent
	writing  uint32 // writes that have let go of the lock half way
	_        uint32
}

// Four series share a cache line of dirt: ids that are written one after the
// other are neighbours.
const dirtBytes = 16 + 24 + 1

var _ [dirtBytes]byte = [unsafe.Sizeof(dirt{}) + unsafe.Sizeof(outOfOrder{}) + unsafe.Sizeof(mark(0))]byte{}

func newLedger(m *kvcache.Memory) ledger {
	return ledger{dirt: offheap.NewVector[dirt](m), outOfOrder: offheap.NewVector[outOfOrder](m), marks: offheap.NewVector[mark](m),
		groups: offheap.NewVector[dirtGroup](m), standbys: offheap.NewVector[standby](m), cleanBefore: 1}
}

// beginWriteLocked notes, before they are written, that points become dirty.
func (l *ledger) beginWriteLocked(id uint32, what content, tick uint32) {
	standby := l.takeDutyLocked(id, what.duty)
	d := l.dirt.At(id)
	n := len(what.samples) + len(what.records)
	for i := range n {
		var t int64
		if i < len(what.samples) {
			t = what.samples[i].T
		} else {
			t = what.records[i-len(what.samples)].T
		}
		if d.since == 0 {
			l.firstDirtyLocked(id, d, t, tick)
		}
		l.noteOutOfOrderLocked(id, t, t)
		if standby {
			l.noteLateLocked(id, t, t)
		}
	}
	if standby {
		l.countStandbyLocked(id, n)
	}
	l.addLocked(id, d, n)
	l.outOfOrder.At(id).writing++
	*l.marks.At(id) |= markBusy
}

// wroteLocked is beginWriteLocked and endWriteLocked of samples in order that
// were written at once, under the stamp of tick: their series is not dated
// later than their region.
func (l *ledger) wroteLocked(id uint32, ss []Sample, tick uint32) {
	d := l.dirt.At(id)
	if l.standing > 0 {
		l.promoteLocked(id)
	}
	if d.since == 0 {
		l.firstDirtyLocked(id, d, ss[0].T, tick)
	}
	if ss[0].T <= d.sent {
		l.noteOutOfOrderLocked(id, ss[0].T, ss[len(ss)-1].T)
	}
	l.addLocked(id, d, len(ss))
}

// firstDirtyLocked is told of the first point of a series that is dirty. If it is
// the first of all, what comes later, and is before it, is out of order: it may
// be nobody's to hand on.
func (l *ledger) firstDirtyLocked(id uint32, d *dirt, t int64, tick uint32) {
	d.since = tick
	l.groupLocked(id).add(tick, 0)
	if d.sent == noDirt.sent && t > -MaxTime {
		d.sent = min(t, MaxTime) - 1
	}
}

// endWriteLocked is called when all of beginWriteLocked's points were written,
// or refused.
func (l *ledger) endWriteLocked(id uint32) {
	o := l.outOfOrder.At(id)
	if o.writing > 0 { // not if the series was removed meanwhile
		o.writing--
	}
	if o.writing == 0 {
		*l.marks.At(id) &^= markBusy
	}
}

// wroteLocalLocked is called when points were written that are not handed on.
// While nothing of the series is dirty they move the line after which all is,
// so that the next write that is handed on does not take them along.
func (l *ledger) wroteLocalLocked(id uint32, what content) {
	if !l.isCleanLocked(id) {
		return
	}
	d := l.dirt.At(id)
	for i := range what.samples {
		if t := what.samples[i].T; t <= MaxTime {
			d.sent = max(d.sent, t)
		}
	}
	for i := range what.blocks {
		d.sent = max(d.sent, what.blocks[i].last)
	}
}

// noteOutOfOrderLocked notes points from from to to if they are out of order,
// not after what was sent.
func (l *ledger) noteOutOfOrderLocked(id uint32, from, to int64) {
	if sent := l.dirt.At(id).sent; from <= sent {
		o := l.outOfOrder.At(id)
		o.from, o.to = min(o.from, from), max(o.to, min(to, sent))
		*l.marks.At(id) |= markOutOfOrder
	}
}

// noDirt and noOutOfOrder are those of a new series.
var (
	noDirt       = dirt{sent: math.MinInt64}
	noOutOfOrder = outOfOrder{from: math.MaxInt64, to: math.MinInt64}
)

// reserveDirtLocked makes room for what write-back knows of n series.
func (l *ledger) reserveDirtLocked(n int) error {
	for l.groups.Len()*groupSeries < n {
		if _, err := l.groups.Append(dirtGroup{}); err != nil {
			return err
		}
	}
	for l.dirt.Len() < n {
		if l.marks.Len() == l.dirt.Len() {
			if _, err := l.marks.Append(0); err != nil {
				return err
			}
		}
		if l.outOfOrder.Len() == l.dirt.Len() {
			if _, err := l.outOfOrder.Append(noOutOfOrder); err != nil {
				return err
			}
		}
		if _, err := l.dirt.Append(noDirt); err != nil {
			return err
		}
	}
	return nil
}

// isCleanLocked reports whether nothing of a series is dirty or in flight.
func (l *ledger) isCleanLocked(id uint32) bool {
	return l.dirt.At(id).since == 0 && *l.marks.At(id)&markFlying == 0
}

// forgetDirtLocked is part of removing a series. What it has in flight is dirty
// until that has landed.
func (l *ledger) forgetDirtLocked(id uint32) {
	if int(id) >= l.dirt.Len() {
		return // the cache does not write back
	}
	d := l.dirt.At(id)
	l.dirty -= int64(d.points)
	l.forgetStandbyLocked(id)
	l.flightHoles = l.flightHoles || *l.marks.At(id)&markFlying != 0
	*d, *l.outOfOrder.At(id), *l.marks.At(id) = noDirt, noOutOfOrder, 0
}

// unsentFromLocked is the least time of a series that may be dirty, if any is:
// what a snapshot has to say of it.
func (l *ledger) unsentFromLocked(id uint32) (t int64, dirty bool) {
	if int(id) >= l.dirt.Len() {
		return 0, false // the cache does not write back
	}
	t = l.outOfOrder.At(id).from
	if *l.marks.At(id)&markFlying != 0 {
		i := sort.Search(len(l.flight), func(i int) bool { return l.flight[i].id >= id })
		t = min(t, l.flight[i].first)
	}
	if d := l.dirt.At(id); d.since != 0 {
		t = min(t, max(d.sent, -MaxTime-1)+1)
	}
	return t, !l.isCleanLocked(id)
}

// loadedCleanLocked notes that all of a series that was loaded is clean, as its
// snapshot says, up to its last point, at newest.
func (l *ledger) loadedCleanLocked(id uint32, newest int64) {
	if l.isCleanLocked(id) {
		d := l.dirt.At(id)
		d.sent = max(d.sent, newest)
	}
}

// beginLoadLocked notes, before they are written, that points of a series from
// unsentFrom on become dirty, as a snapshot says. How many those are is seen when
// they are there: until then they are one, and the series is not collected.
func (l *ledger) beginLoadLocked(id uint32, unsentFrom int64, tick uint32) {
	l.promoteLocked(id)
	if unsentFrom > -MaxTime {
		l.loadedCleanLocked(id, min(unsentFrom, MaxTime)-1) // all before
	}
	d := l.dirt.At(id)
	if d.since == 0 {
		l.firstDirtyLocked(id, d, unsentFrom, tick)
	}
	l.noteOutOfOrderLocked(id, unsentFrom, math.MaxInt64)
	l.addLocked(id, d, 1)
	l.outOfOrder.At(id).writing++
	*l.marks.At(id) |= markBusy
}

// endLoadLocked is called when all of beginLoadLocked's points were written, or
// refused, and those of the series from unsentFrom on are so many.
func (l *ledger) endLoadLocked(id uint32, points int) {
	l.endWriteLocked(id)
	if points > 1 {
		l.addLocked(id, l.dirt.At(id), points-1)
	}
}

// collectLocked begins the flight of what is dirty of a series, up to about
// `most` points, and reports whether that is all. read adds the points from from
// to to, both inclusive, to the run, or the first of them, and reports whether
// these were all. A run without points is not in flight: what was dirty has been
// deleted.
func (l *ledger) collectLocked(id uint32, most int, run *outRun, read func(from, to int64, most int) bool) (all bool) {
	d := l.dirt.At(id)
	all = true
	if *l.marks.At(id)&markOutOfOrder != 0 {
		o := l.outOfOrder.At(id)
		if all = read(o.from, o.to, most); all {
			o.from, o.to = noOutOfOrder.from, noOutOfOrder.to
			*l.marks.At(id) &^= markOutOfOrder
		} else {
			o.from = run.last + 1
		}
	}
	if all && d.sent < MaxTime {
		all = read(d.sent+1, MaxTime, most-int(run.points))
		d.sent = max(d.sent, run.last)
	}
	return l.departLocked(id, run, all)
}

// departLocked is the end of collectLocked.
func (l *ledger) departLocked(id uint32, run *outRun, all bool) bool {
	d := l.dirt.At(id)
	run.taken, run.since = d.points, d.since
	if !all { // one is left in any case: a series that is dirty has points that are
		run.taken = min(run.taken-1, run.points)
	}
	d.points -= run.taken
	if all {
		d.since = 0
	}
	if run.points == 0 {
		l.dirty -= int64(run.taken)
		return all
	}
	*l.marks.At(id) |= markFlying
	return all
}

// landing is how a flight ends.
type landing uint8

const (
	acknowledged landing = iota // what is not kept is clean
	returned                    // all of it is dirty again
)

// landLocked ends the flight of runs, which are all that is in flight. same reports whether
// the series of a run is still that which was collected.
func (l *ledger) landLocked(runs []outRun, how landing, same func(run *outRun) bool) {
	for i := range runs {
		run := &runs[i]
		l.dirty -= int64(run.taken)
		if l.flightHoles && !same(run) {
			continue // the series was removed, and another may have its id
		}
		*l.marks.At(run.id) &^= markFlying
		if how == acknowledged && !run.kept {
			continue
		}
		l.returns++
		l.promoteLocked(run.id)
		d := l.dirt.At(run.id)
		d.since = older(d.since, run.since)
		l.addLocked(run.id, d, int(run.taken))
		l.keepLocked(run.id)
		l.noteOutOfOrderLocked(run.id, run.first, run.last)
	}
	l.flight, l.flightHoles = nil, false
}

// settleLocked notes what a pass that ended has found: regions that were written
// to last before its beginning, and before the oldest point that is dirty, hold
// nothing dirty. A pass behind which something was returned tells nothing.
func (l *ledger) settleLocked(p *Pass) {
	clean, oldest := p.began, p.oldest
	for i := range l.flight { // as a rule there is nothing when this is called
		oldest = older(oldest, l.flight[i].since)
	}
	sent := clean
	if oldest != 0 {
		sent = min(clean, oldest)
	}
	clean = sent
	if p.standby != 0 {
		clean = min(clean, p.standby)
	}
	if p.returns == l.returns {
		l.cleanBefore = max(l.cleanBefore, clean)
		l.sentBefore.Store(max(l.sentBefore.Load(), sent))
		l.oldestDirty.Store(oldest)
	}
}

// freeDirtLocked forgets all series. Regions stay as clean as they were.
func (l *ledger) freeDirtLocked() {
	l.dirt.Free()
	l.outOfOrder.Free()
	l.marks.Free()
	l.groups.Free()
	l.standbys.Free()
	l.dirty, l.flight, l.flightHoles = 0, nil, false
	l.standing, l.standbyPoints = 0, 0
}

// checkDirtLocked checks that marks, ranges, times and sums agree. used reports
// whether a series has that id; same is as in landLocked.
func (l *ledger) checkDirtLocked(used func(id uint32) bool, same func(run *outRun) bool) error {
	dirty, flying := int64(0), 0
	for i := range l.flight {
		run := &l.flight[i]
		dirty += int64(run.taken)
		if i > 0 && run.id <= l.flight[i-1].id {
			return fmt.Errorf("series %d is in flight behind %d", run.id, l.flight[i-1].id)
		}
		if run.since < l.cleanBefore || run.since < l.sentBefore.Load() {
			return fmt.Errorf("series %d: in flight since %d, clean before %d, sent before %d", run.id, run.since, l.cleanBefore, l.sentBefore.Load())
		}
		if same(run) {
			flying++
			if *l.marks.At(run.id)&markFlying == 0 {
				return fmt.Errorf("series %d is in flight and not marked", run.id)
			}
		}
	}
	for id := range uint32(l.dirt.Len()) {
		d, o, m := *l.dirt.At(id), *l.outOfOrder.At(id), *l.marks.At(id)
		dirty += int64(d.points)
		if used := used(id); (d.since == 0) != (d.points == 0) || !used && (d != noDirt || o != noOutOfOrder || m != 0) {
			return fmt.Errorf("series %d in use %v: %+v, %+v, %b", id, used, d, o, m)
		}
		if (m&markOutOfOrder != 0) != (o.from <= o.to) || o.from <= o.to && o.to > d.sent || (m&markBusy != 0) != (o.writing > 0) {
			return fmt.Errorf("series %d is marked %b: %+v", id, m, o)
		}
		if m&markFlying != 0 {
			flying--
		}
		if g := l.groupLocked(id); d.since != 0 && older(g.oldest, d.since) != g.oldest || d.points >= block.MaxSamples && !g.long {
			return fmt.Errorf("series %d: %+v, its group %+v", id, d, *g)
		}
		if d.since != 0 && d.since < l.cleanBefore {
			return fmt.Errorf("series %d: dirty since %d, clean before %d", id, d.since, l.cleanBefore)
		}
	}
	if err := l.checkStandbyLocked(); err != nil {
		return err
	}
	if flying != 0 {
		return fmt.Errorf("%d series too many in flight", flying)
	}
	if dirty != l.dirty {
		return fmt.Errorf("%d points dirty, %d counted", dirty, l.dirty)
	}
	return nil
}
