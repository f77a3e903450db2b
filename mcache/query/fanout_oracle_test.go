package query

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// oracle is what was acknowledged: by series, by time.
type oracle struct {
	t      testing.TB
	tc     *testCluster
	rnd    *rand.Rand
	series []labels.Labels
	points []map[int64]*oraclePoint
	names  int
	within bool // a handover
	rounds struct{ whole, partial, pushed, raw, handed, claimed, passed int }
}

type oraclePoint struct {
	v       uint64
	holders []*testNode
}

// TestFanOutOracle: whatever joins, leaves, dies, loses memory or misses writes,
// an answer without a warning is what was written, and one with a warning is so
// from the time on that it says.
func TestFanOutOracle(t *testing.T) {
	ops, runs := 20_000, 20
	if testing.Short() {
		ops, runs = 1000, 10
	}
	claimed := 0
	for seed := range uint64(runs) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			// In a bubble nobody is slow but who is frozen.
			synctest.Test(t, func(t *testing.T) { claimed += oracleRun(t, seed, ops/runs) })
		})
	}
	if claimed == 0 && !testing.Short() {
		t.Errorf("%d answers were whole by what was claimed", claimed)
	}
}

func oracleRun(t *testing.T, seed uint64, ops int) (claimed int) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	o := &oracle{t: t, rnd: rnd, names: 3}
	o.tc = newTestCluster(t, 1+int(seed%3), FanOutOptions{NoPushDown: seed%5 == 4}, "n0", "n1", "n2")
	for i := range 12 {
		o.series = append(o.series, seriesOf(t, fmt.Sprintf("m{g=%d,i=%d}", i%3, i)))
		o.points = append(o.points, map[int64]*oraclePoint{})
	}
	for op := range ops {
		o.tc.pass(1 + rnd.Int64N(3000))
		switch x := rnd.IntN(100); {
		case x < 3:
			o.join()
		case x < 5:
			o.leave()
		case x < 8:
			o.kill()
		case x < 11:
			o.drop()
		case x < 13:
			o.reclaim()
		case x < 15:
			o.freeze()
		case x < 20:
			o.handover()
		case x < 75:
			o.write()
		default:
			if o.query(); t.Failed() {
				t.Fatalf("op %d", op)
			}
		}
	}
	if o.rounds.passed == 0 || o.rounds.whole < ops/200*min(o.tc.copies, 2) || // with one copy nearly every death is told of
		o.rounds.partial < ops/100 {
		t.Errorf("that shows too little: %+v", o.rounds)
	}
	return o.rounds.claimed
}

// up are the members that answer.
func (o *oracle) up() (list []*testNode) { return o.tc.lives() }

func (o *oracle) join() {
	if len(o.tc.table) == 5 {
		return
	}
	name := fmt.Sprintf("n%d", o.rnd.IntN(6)) // perhaps one that was there before
	if slices.Contains(o.tc.table, name) {
		return
	}
	if n := o.tc.nodes[name]; n != nil {
		n.stop()
	}
	o.tc.start(name)
	o.tc.change(append(slices.Clone(o.tc.table), name)...)
	if o.rnd.IntN(4) == 0 {
		return
	}
	o.tc.pass(1000 + o.rnd.Int64N(3000)) // too soon at times
	to := o.tc.nodes[name]
	for _, source := range o.up() {
		if source != to && o.rnd.IntN(8) > 0 {
			o.handOver(source, to)
		}
	}
}

// without takes a member out of the table.
func (o *oracle) without(name string) {
	o.tc.change(slices.DeleteFunc(slices.Clone(o.tc.table), func(n string) bool { return n == name })...)
}

func (o *oracle) leave() {
	if up := o.up(); len(up) > 1 {
		n := up[o.rnd.IntN(len(up))]
		o.lost(n)
		o.tc.kill(n.name)
		o.without(n.name)
	}
}

func (o *oracle) kill() {
	if up := o.up(); len(up) > 1 {
		n := up[o.rnd.IntN(len(up))]
		o.lost(n)
		o.tc.kill(n.name)
	}
}

// drop takes one that is dead out of the table.
func (o *oracle) drop() {
	for _, name := range o.tc.table {
		if o.tc.nodes[name].dead {
			o.without(name)
			return
		}
	}
}

// lost notes that a member has nothing any more.
func (o *oracle) lost(n *testNode) {
	for _, points := range o.points {
		for _, p := range points {
			i := slices.Index(p.holders, n)
			if i >= 0 {
				p.holders = slices.Delete(p.holders, i, i+1)
			}
		}
	}
}

func (o *oracle) reclaim() {
	up := o.up()
	n := up[o.rnd.IntN(len(up))]
	n.memory.SetBudget(n.memory.Used() - int64(1+o.rnd.IntN(2)*100)*int64(n.memory.RegionBytes()))
	n.memory.SetBudget(8 << 20)
	n.cache.Maintain()
}

// freeze stops a member for a while, or lets one go on.
func (o *oracle) freeze() {
	for _, name := range o.tc.table {
		if n := o.tc.nodes[name]; n.frozen {
			n.frozen = false
			return
		}
	}
	if up := o.up(); len(up) > 1 {
		up[o.rnd.IntN(len(up))].frozen = true
	}
}

// handover has one member give another what it has of all slots, from some time
// on, and claim what it may claim; or only a part of it, without a claim.
func (o *oracle) handover() {
	up := o.up()
	if len(up) < 2 {
		return
	}
	o.rnd.Shuffle(len(up), func(i, j int) { up[i], up[j] = up[j], up[i] })
	o.handOver(up[0], up[1])
}

func (o *oracle) handOver(source, to *testNode) {
	from, until := int64(t0), o.tc.now
	if o.rnd.IntN(3) == 0 {
		from = max(t0, o.tc.now-o.rnd.Int64N(400_000))
	}
	whole := o.rnd.IntN(8) > 0
	claimable := source.fan.Claimable(from, until, func() int64 {
		if t, ok := source.cache.GoneUntil("default", nil); ok {
			return t
		}
		return math.MinInt64
	})
	lacks := map[uint16]int64{}
	var snap mcache.Snapshot
	ids, _ := source.cache.Select("default", nil, nil)
	for _, id := range ids {
		ls, ok := source.cache.Labels(id, nil)
		if !ok || !whole && o.rnd.IntN(2) == 0 {
			continue
		}
		b := labels.NewScratchBuilder(len(ls))
		for _, l := range ls {
			b.Add(l.Name, l.Value)
		}
		b.Sort()
		series := b.Labels()
		slot := slotOfTest("default", series) % uint16(o.tc.slots)
		i, _ := strconv.Atoi(series.Get("i"))
		if !source.cache.Snapshot(id, from, math.MaxInt64, &snap) {
			continue
		}
		lacks[slot] = max(snap.CompleteFrom(), lacks[slot])
		for it := snap.Iterator(); it.Next(); {
			to.put("default", series, it.At())
			if p := o.points[i][it.At().T]; p != nil && !slices.Contains(p.holders, to) {
				p.holders = append(p.holders, to)
			}
		}
	}
	o.rounds.handed++
	if !whole {
		return
	}
	// Meanwhile the source itself is handed over what it has been asked for already.
	if up := o.up(); !o.within && o.rnd.IntN(2) == 0 {
		o.within = true
		if third := up[o.rnd.IntN(len(up))]; third != source && third != to {
			o.handOver(third, source)
		}
		o.within = false
	}
	type key struct {
		e           ClaimedEra
		from, until int64
	}
	sets := map[key][]byte{}
	for slot := range uint16(o.tc.slots) {
		claimable(slot, func(e ClaimedEra, from, until int64) {
			k := key{e, max(from, lacks[slot]), until}
			if sets[k] == nil {
				sets[k] = make([]byte, o.tc.slots/8)
			}
			sets[k][slot/8] |= 1 << (slot % 8)
		})
	}
	for k, set := range sets {
		to.claims.Claims = append(to.claims.Claims, SlotClaim{k.from, k.until, set, []ClaimedEra{k.e}})
	}
	to.claims.Version++
}

func (o *oracle) write() {
	i := o.rnd.IntN(len(o.series))
	at := o.tc.now
	if o.rnd.IntN(5) == 0 {
		at -= o.rnd.Int64N(60_000)
	}
	if at < t0 {
		return
	}
	p := &oraclePoint{v: math.Float64bits(float64(o.rnd.IntN(1000)))}
	if old := o.points[i][at]; old != nil {
		return
	}
	owners := o.tc.owners("default", o.series[i])
	var passed []string // before the last that takes it
	copies := 0
	for k, name := range owners {
		n := o.tc.nodes[name]
		if n.dead || n.frozen || o.rnd.IntN(20) == 0 && k < len(owners)-1 {
			passed = append(passed, name)
			continue
		}
		n.put("default", o.series[i], mcache.Sample{T: at, V: p.v})
		p.holders = append(p.holders, n)
		if copies++; copies == o.tc.copies {
			break
		}
	}
	if copies > 0 && len(passed) > 0 {
		o.rounds.passed++
		o.tc.passOver(slices.DeleteFunc(slices.Clone(owners), func(n string) bool { return slices.Contains(passed, n) }))
	}
	if copies > 0 {
		o.points[i][at] = p
	}
}

func (o *oracle) query() {
	up := o.up()
	n := up[o.rnd.IntN(len(up))]
	from := max(t0, o.tc.now-o.rnd.Int64N(o.tc.now-t0+1)-1)
	if o.rnd.IntN(2) == 0 {
		from = max(t0, o.tc.now-o.rnd.Int64N(60_000))
	}
	to := from + o.rnd.Int64N(o.tc.now-from+1)
	q := NewQueryable(n.fan, "default", QueryableOptions{})
	if o.rnd.IntN(2) == 0 {
		o.compareRaw(q, from, to)
	} else {
		o.comparePlan(q, from, to)
	}
	if _, lacks := q.CompleteFrom(); !lacks && o.withoutClaims(n, from, to) {
		o.rounds.claimed++
	}
	if _, lacks := q.CompleteFrom(); lacks {
		o.rounds.partial++
	} else {
		o.rounds.whole++
	}
}

// withoutClaims reports whether an answer would lack something if nobody claimed anything.
func (o *oracle) withoutClaims(n *testNode, from, to int64) bool {
	was := n.fan.o.Claims
	n.fan.o.Claims = nil
	defer func() { n.fan.o.Claims = was }()
	q := NewQueryable(n.fan, "default", QueryableOptions{})
	qr, _ := q.Querier(from, to)
	for set := qr.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")); set.Next(); {
		_ = set.At()
	}
	_, lacks := q.CompleteFrom()
	return lacks
}

// compareRaw reads samples.
func (o *oracle) compareRaw(q *Queryable, from, to int64) {
	qr, _ := q.Querier(from, to)
	set := qr.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	got := make([]map[int64]uint64, len(o.series))
	for set.Next() {
		s := set.At()
		i, _ := strconv.Atoi(s.Labels().Get("i"))
		got[i] = map[int64]uint64{}
		for it := s.Iterator(nil); it.Next() != 0; {
			at, v := it.At()
			got[i][at] = math.Float64bits(v)
		}
	}
	if set.Err() != nil {
		o.t.Fatal(set.Err())
	}
	complete, lacks := q.CompleteFrom()
	if !lacks {
		complete = from
	}
	for i, points := range o.points {
		for _, at := range slices.Sorted(maps.Keys(points)) {
			if at < from || at > to {
				continue
			}
			if v, ok := got[i][at]; ok && v != points[at].v || !ok && at >= complete {
				o.t.Errorf("from %d to %d, complete from %d (%t): series %d lacks %d, or it is %x for %x: %+v", from-t0, to-t0, complete-t0, lacks, i, at-t0, v, points[at].v, points[at])
			}
		}
	}
	o.rounds.raw++
}

// comparePlan has counts of samples computed: at each step, how many series have a
// sample within the minute before. The warning must cover whatever is missing.
func (o *oracle) comparePlan(q *Queryable, from, to int64) {
	c := newComputer(time.UnixMilli(from), time.UnixMilli(to), 10*time.Second, time.Minute, 1<<30, new(room))
	expr, err := newBoundedParser(new(Features).parserOptions()).ParseExpr("sum by (g)(m)")
	if err != nil {
		o.t.Fatal(err)
	}
	p, _ := wholePlanOf(expr)
	q.computer = c
	r := (&wholePlan{computer: c, q: q, plan: p}).Exec(context.Background())
	if r.Err != nil {
		o.t.Fatal(r.Err)
	}
	complete, lacks := q.CompleteFrom()
	if !lacks {
		complete = math.MinInt64
	}
	rows := map[string]*computedRow{}
	m := r.Value.(*computedMatrix)
	for i := range m.rows {
		rows[m.rows[i].labels.Get("g")] = &m.rows[i]
	}
	for g := range 3 {
		for k := range c.n {
			at := from + int64(k)*c.interval
			if at-60_000 < complete {
				continue
			}
			sum, some := 0.0, false
			for i := g; i < len(o.series); i += 3 {
				last := int64(math.MinInt64)
				for t := range o.points[i] {
					if t <= at && t > at-60_000 {
						last = max(last, t)
					}
				}
				if last != math.MinInt64 {
					sum, some = sum+math.Float64frombits(o.points[i][last].v), true
				}
			}
			row := rows[strconv.Itoa(g)]
			got := none
			if row != nil {
				got = row.at(k)
			}
			if isNone(got) == some || some && got != sum {
				o.t.Errorf("from %d to %d, complete from %d (%t): group %d at %d is %v, want %v (%t)", from-t0, to-t0, complete-t0, lacks, g, at-t0, got, sum, some)
				return
			}
		}
	}
	o.rounds.pushed++
}
