package mcache

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLedgerModel holds a ledger alone to a map of what the downstream store is
// owed, with series and a clock but without a cache: whatever is written,
// collected, returned, overwritten or removed in whatever order, a point that is
// owed is in flight or in what the next collection reads, its region is pinned,
// and a snapshot says that it may be dirty.
func TestLedgerModel(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(12) {
		w := newLedgerModel(t, seed, seen)
		for w.step = range 6000 {
			w.act()
			w.check()
		}
		w.drain()
	}
	for _, what := range []string{
		"writes",
		"out of order",
		"local",
		"yields",
		"collected",
		"collected in part",
		"overwritten in flight",
		"acknowledged",
		"returned",
		"kept",
		"removed in flight",
		"deleted",
		"settled",
		"passes behind which runs came back",
		"loaded",
		"standby",
		"standby late",
		"checkpoints",
		"released",
		"released in part",
		"promoted",
	} {
		if seen[what] < 50 {
			t.Errorf("%s: %d times", what, seen[what])
		}
	}
}

const (
	modelSeries = 6
	modelTimes  = 40
)

// owedPoint is one that was accepted and not acknowledged.
type owedPoint struct {
	tick   uint32 // at which its region was written to last, at the earliest
	flying bool   // what is in flight has it as it is now
	other  bool   // another cache hands it on
}

// modelSeriesState is a series as the cache would hold it.
type modelSeriesState struct {
	used    bool
	life    uint32
	held    map[int64]bool // the times it has, clean or dirty
	owed    map[int64]owedPoint
	writing int // writes that let go of the lock half way
}

type ledgerModel struct {
	t     *testing.T
	seed  uint64
	step  int
	rnd   *rand.Rand
	l     ledger
	tick  uint32
	lives uint32
	all   [modelSeries]modelSeriesState
	runs  []outRun
	times [][]int64 // of each run
	pass  Pass
	skips bool           // the pass leaves out series that are not due
	seen  map[string]int // what happened, and how often, over all seeds
}

func newLedgerModel(t *testing.T, seed uint64, seen map[string]int) *ledgerModel {
	m := newTestMemory(t, 8<<20, 64<<10)
	w := &ledgerModel{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), l: newLedger(m), tick: 1, seen: seen}
	if err := w.l.reserveDirtLocked(modelSeries); err != nil {
		t.Fatal(err)
	}
	for i := range w.all {
		w.make(uint32(i))
	}
	return w
}

func (w *ledgerModel) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d step %d: "+format, append([]any{w.seed, w.step}, args...)...)
}

func (w *ledgerModel) make(id uint32) {
	w.lives++
	w.all[id] = modelSeriesState{used: true, life: w.lives, held: map[int64]bool{}, owed: map[int64]owedPoint{}}
}

func (w *ledgerModel) act() {
	id := uint32(w.rnd.IntN(modelSeries))
	s := &w.all[id]
	if !s.used {
		w.make(id)
		if w.rnd.IntN(2) == 0 {
			w.load(id)
		}
		return
	}
	what := w.rnd.IntN(22)
	if what < 5 && id%2 == 1 && w.rnd.IntN(8) > 0 {
		what = 16 // some series are mostly another's
	}
	switch what {
	case 0, 1, 2:
		w.write(id, w.pick())
	case 3, 4:
		w.begin(id, w.pick())
	case 5, 6:
		for ; s.writing > 0; s.writing-- {
			w.l.endWriteLocked(id)
			w.seen["yields"]++
		}
	case 7:
		w.local(id, w.pick())
	case 8, 9, 10:
		w.collect(1 + w.rnd.IntN(40))
	case 11:
		w.land(landing(w.rnd.IntN(3) / 2))
	case 12:
		w.settle()
	case 13:
		w.tick++
	case 14:
		if w.rnd.IntN(4) == 0 {
			w.remove(id)
		}
	case 15:
		w.erase(id)
	case 16, 17, 18, 19:
		w.standby(id, w.pick())
	case 20, 21:
		w.settleStandby()
	}
}

// pick is some times in order, near each other.
func (w *ledgerModel) pick() (ss []Sample) {
	at := w.rnd.Int64N(modelTimes)
	for n := 1 + w.rnd.IntN(4); n > 0 && at < modelTimes; n-- {
		ss = append(ss, Sample{T: at})
		at += 1 + w.rnd.Int64N(3)
	}
	return ss
}

func (w *ledgerModel) owe(s *modelSeriesState, ss []Sample) {
	for _, x := range ss {
		if s.owed[x.T].flying {
			w.seen["overwritten in flight"]++
		}
		s.held[x.T] = true
		s.owed[x.T] = owedPoint{tick: w.tick}
	}
	w.seen["writes"]++
}

func (w *ledgerModel) noteOutOfOrder(id uint32, ss []Sample) {
	if ss[0].T <= w.l.dirt.At(id).sent {
		w.seen["out of order"]++
	}
}

// write writes at once, as most are.
func (w *ledgerModel) write(id uint32, ss []Sample) {
	w.noteOutOfOrder(id, ss)
	w.l.wroteLocked(id, ss, w.tick)
	w.owe(&w.all[id], ss)
}

// begin writes what may let go of the lock before it ends.
func (w *ledgerModel) begin(id uint32, ss []Sample) {
	s := &w.all[id]
	w.noteOutOfOrder(id, ss)
	w.l.beginWriteLocked(id, content{samples: ss}, w.tick)
	w.owe(s, ss)
	s.writing++
}

// local writes what nobody is owed.
func (w *ledgerModel) local(id uint32, ss []Sample) {
	s := &w.all[id]
	for _, x := range ss {
		s.held[x.T] = true // a point that is owed stays so, with its new value
	}
	w.l.wroteLocalLocked(id, content{samples: ss})
	w.seen["local"]++
}

// standby writes what another cache hands on.
func (w *ledgerModel) standby(id uint32, ss []Sample) {
	s := &w.all[id]
	w.noteOutOfOrder(id, ss)
	if w.rnd.IntN(3) == 0 {
		w.l.beginWriteLocked(id, content{samples: ss, duty: Standby}, w.tick)
		s.writing++
	} else {
		w.l.wroteAsLocked(id, ss, w.tick, Standby)
	}
	w.owe(s, ss)
	if *w.l.marks.At(id)&markStandby == 0 {
		return // there was something of its own
	}
	for _, x := range ss {
		s.owed[x.T] = owedPoint{tick: w.tick, other: true}
	}
	w.seen["standby"]++
	if x := w.l.standbys.At(id); x.from <= x.to {
		w.seen["standby late"]++
	}
}

// settleStandby learns up to when another cache has handed on, or that it does not.
func (w *ledgerModel) settleStandby() {
	w.tick++
	before := w.tick - uint32(w.rnd.IntN(2))
	for i := range w.all {
		id, s := uint32(i), &w.all[i]
		if int(id) >= w.l.standbys.Len() || *w.l.marks.At(id)&(markStandby|markBusy|markFlying) != markStandby {
			continue
		}
		if w.rnd.IntN(6) == 0 {
			w.l.promoteLocked(id)
			for at, p := range s.owed {
				p.other = false
				s.owed[at] = p
			}
			w.seen["promoted"]++
			continue
		}
		for at, p := range s.owed {
			if p.other && p.tick < before {
				delete(s.owed, at)
			}
		}
		if x := w.l.standbys.At(id); x.tick != 0 && before > x.tick {
			w.l.releaseStandbyLocked(id)
			w.seen["released"]++
			if w.l.dirt.At(id).since != 0 {
				w.seen["released in part"]++
			}
		}
		if x := w.l.standbys.At(id); x.tick == 0 && w.l.dirt.At(id).since != 0 {
			newest := int64(-1)
			for at := range s.held {
				newest = max(newest, at)
			}
			w.l.checkpointLocked(id, newest, w.tick)
			w.seen["checkpoints"]++
		}
	}
}

// load makes a series what a snapshot has said of it.
func (w *ledgerModel) load(id uint32) {
	s := &w.all[id]
	ss := w.pick()
	for _, x := range ss {
		s.held[x.T] = true
	}
	w.seen["loaded"]++
	if w.rnd.IntN(2) == 0 {
		w.l.loadedCleanLocked(id, ss[len(ss)-1].T)
		return
	}
	from, n := ss[w.rnd.IntN(len(ss))].T, 0
	for _, x := range ss {
		if x.T >= from {
			s.owed[x.T] = owedPoint{tick: w.tick}
			n++
		}
	}
	w.l.beginLoadLocked(id, from, w.tick)
	if s.writing++; w.rnd.IntN(2) == 0 { // else others come in between, and how many they are is never said
		w.l.endLoadLocked(id, n)
		s.writing--
	}
}

// collect goes on with a pass, or begins one if nothing is in flight, and ends
// it now and then in the middle, as Collect does.
func (w *ledgerModel) collect(most int) {
	if !w.pass.begun || w.pass.ended {
		if len(w.runs) > 0 {
			return // a series is in flight once at the most
		}
		w.pass = Pass{begun: true, began: w.tick, returns: w.l.returns}
		w.skips = w.rnd.IntN(4) == 0
	}
	for ; w.pass.next < modelSeries && most > 0; w.pass.next++ {
		id := w.pass.next
		d := w.l.dirt.At(id)
		if d.since == 0 {
			continue
		}
		if m := *w.l.marks.At(id); w.skips && w.rnd.IntN(4) == 0 || m&(markFlying|markBusy|markStandby) != 0 {
			w.pass.leave(d.since, m)
			continue
		}
		before := len(w.runs)
		all := w.collectOne(id, most)
		for _, run := range w.runs[before:] {
			most -= int(run.points)
		}
		if !all {
			w.seen["collected in part"]++
			// What is left is dirty, and as old as it was.
			if w.pass.oldest == 0 || d.since < w.pass.oldest {
				w.pass.oldest = d.since
			}
		}
	}
	w.pass.ended = w.pass.next >= modelSeries
}

func (w *ledgerModel) collectOne(id uint32, most int) (all bool) {
	s := &w.all[id]
	run := outRun{id: id, life: s.life, first: math.MaxInt64, last: math.MinInt64}
	var times []int64
	all = w.l.collectLocked(id, most, &run, func(from, to int64, most int) bool {
		for at := max(from, 0); at <= min(to, modelTimes); at++ {
			if !s.held[at] {
				continue
			}
			if most--; most < 0 && run.points > 0 {
				return false
			}
			times = append(times, at)
			run.points++
			run.first, run.last = min(run.first, at), max(run.last, at)
		}
		return true
	})
	if run.points == 0 {
		return all
	}
	for _, at := range times {
		if o, ok := s.owed[at]; ok {
			o.flying = true
			s.owed[at] = o
		}
	}
	w.runs, w.times = append(w.runs, run), append(w.times, times)
	w.l.flight = w.runs
	w.seen["collected"]++
	return all
}

func (w *ledgerModel) same(run *outRun) bool { return w.all[run.id].life == run.life }

// land ends the flight of all that is in flight.
func (w *ledgerModel) land(how landing) {
	if len(w.runs) == 0 {
		return
	}
	for i := range w.runs {
		w.runs[i].kept = how == acknowledged && w.rnd.IntN(4) == 0
	}
	w.l.landLocked(w.runs, how, w.same)
	for i := range w.runs {
		run := &w.runs[i]
		if !w.same(run) {
			continue
		}
		s := &w.all[run.id]
		for _, at := range w.times[i] {
			switch o, ok := s.owed[at]; {
			case !ok || !o.flying:
			case how == returned || run.kept:
				o.flying = false
				s.owed[at] = o
			default:
				delete(s.owed, at)
			}
		}
		switch {
		case how == returned:
			w.seen["returned"]++
		case run.kept:
			w.seen["kept"]++
		default:
			w.seen["acknowledged"]++
		}
	}
	w.runs, w.times = nil, nil
}

// settle ends the pass, or makes one that collects nothing.
func (w *ledgerModel) settle() {
	p := w.pass
	if !p.ended || p.returns != w.l.returns {
		if p.ended {
			w.seen["passes behind which runs came back"]++
			w.l.settleLocked(&p) // tells nothing, and must do no harm
			w.check()
		}
		p = Pass{began: w.tick, returns: w.l.returns}
		for id, d := range w.l.dirt.All() {
			if d.since != 0 {
				p.leave(d.since, *w.l.marks.At(uint32(id)))
			}
		}
	}
	before := w.l.cleanBefore
	w.l.settleLocked(&p)
	if w.l.cleanBefore > before {
		w.seen["settled"]++
	}
	w.pass = Pass{}
}

func (w *ledgerModel) remove(id uint32) {
	if *w.l.marks.At(id)&markFlying != 0 {
		w.seen["removed in flight"]++
	}
	w.l.forgetDirtLocked(id)
	w.all[id] = modelSeriesState{}
}

// erase takes a time out of a series that is not being written.
func (w *ledgerModel) erase(id uint32) {
	s := &w.all[id]
	for at := range int64(modelTimes) {
		if s.held[at] && w.rnd.IntN(4) == 0 {
			delete(s.held, at)
			delete(s.owed, at)
			w.seen["deleted"]++
			return
		}
	}
}

// check holds the ledger to the model.
func (w *ledgerModel) check() {
	w.t.Helper()
	l := &w.l
	if err := l.checkDirtLocked(func(id uint32) bool { return w.all[id].used }, w.same); err != nil {
		w.fatal("%v", err)
	}
	owed := 0
	for i := range w.all {
		id, s := uint32(i), &w.all[i]
		first := int64(math.MaxInt64)
		d, o := l.dirt.At(id), l.outOfOrder.At(id)
		for at, p := range s.owed {
			owed++
			first = min(first, at)
			if !p.flying && (d.since == 0 || at <= d.sent && (at < o.from || at > o.to)) {
				w.fatal("series %d: time %d is owed, and is not collected by %+v %+v", id, at, *d, *o)
			}
			if p.tick < l.cleanBefore {
				w.fatal("series %d: time %d is owed since tick %d, and its region is clean before %d", id, at, p.tick, l.cleanBefore)
			}
			if on := *l.marks.At(id)&markStandby != 0; !on && p.tick < l.sentBefore.Load() {
				w.fatal("series %d: time %d is owed since tick %d, and said to be sent before %d", id, at, p.tick, l.sentBefore.Load())
			} else if on && !p.other && !p.flying {
				w.fatal("series %d: time %d is this cache's own, and on standby", id, at)
			}
			if p.flying && !slices.ContainsFunc(w.runs, func(run outRun) bool { return run.id == id && w.same(&run) }) {
				w.fatal("series %d: time %d is owed and nowhere", id, at)
			}
		}
		if len(s.owed) == 0 {
			continue
		}
		if t, dirty := l.unsentFromLocked(id); !dirty || t > first || l.isCleanLocked(id) {
			w.fatal("series %d is owed from %d on, and a snapshot would say %v from %d on", id, first, dirty, t)
		}
	}
	if owed > 0 && l.dirty <= 0 {
		w.fatal("%d points are owed, and %d dirty", owed, l.dirty)
	}
}

// drain sends everything: nothing is left, and every region is clean.
func (w *ledgerModel) drain() {
	w.land(returned)
	for i := range w.all {
		for s := &w.all[i]; s.writing > 0; s.writing-- {
			w.l.endWriteLocked(uint32(i))
		}
	}
	w.tick++
	for id := range uint32(modelSeries) {
		w.l.promoteLocked(id)
		if w.l.dirt.At(id).since != 0 && !w.collectOne(id, math.MaxInt32) {
			w.fatal("series %d was not collected whole", id)
		}
	}
	w.l.landLocked(w.runs, acknowledged, w.same)
	w.l.settleLocked(&Pass{began: w.tick, returns: w.l.returns})
	if w.l.dirty != 0 || w.l.cleanBefore != w.tick || w.l.oldestDirty.Load() != 0 {
		w.fatal("after all was sent: %d dirty, clean before %d of %d", w.l.dirty, w.l.cleanBefore, w.tick)
	}
	for id := range uint32(modelSeries) {
		if !w.l.isCleanLocked(id) {
			w.fatal("series %d is dirty after all was sent", id)
		}
	}
}
