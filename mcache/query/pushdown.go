package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/kahansum"
)

// Carrying out a plan at the members. Each slot has one of them that evaluates
// its series: the first of its owners that is there, and that was one in all of
// the time that is asked for, if there is such a one. The members send what became
// of the groups of the series that are theirs: partial sums, or rows.
//
// # How it is known that nothing was left out
//
// A copy can lack samples that another has: it was frozen for a while, its samples
// are still on their way, it joined later, or a series is where no table says. So
// all members send a digest of the samples of each series they have, of those
// that they do not evaluate as well. Where all copies of a series have the same
// digest, that of the one who evaluates it included, what it found is what a merge
// would have. The others, the unequal, are fetched as samples, merged, and computed
// here, while those who evaluated some of them do so again without. If too many are
// unequal, everything is merged here. So a sample that any member had when it was
// asked counts, as it does in a merge, whoever owns it.
//
// For that each copy is decoded once, by a member that is idle otherwise.
//
// # Results
//
// Rows, counts, minima and maxima are those of one node to the last bit. Sums are
// kept with what rounding lost, by member and then together: they differ from
// those of one node by rounding only, as sums of the same series in another order
// do. An average is a sum and a count; if a sum overflows, the samples are merged.

// shares is who evaluates which slots.
type shares struct {
	key  string
	bits [][]byte // of each member, self first
}

// slotCount is how many slots there can be.
const slotCount = 1 << 14

// share divides the slots among members that are there, self first.
func (f *FanOut) share(eras []Era, names []string) *shares {
	var key strings.Builder
	for _, e := range eras {
		fmt.Fprintf(&key, "%p ", e.owners)
	}
	key.WriteString(strings.Join(names, "\x00"))
	if s := f.shares.Load(); s != nil && s.key == key.String() {
		return s
	}
	s := &shares{key: key.String(), bits: make([][]byte, len(names))}
	for i := range s.bits {
		s.bits[i] = make([]byte, slotCount/8)
	}
	places := map[string]int{}
	for i, n := range names {
		places[n] = i
	}
	now := current(eras).owners
	for slot := range uint16(slotCount) {
		best := -1
		for _, o := range now.of(slot) {
			i, ok := places[now.names[o]]
			if !ok {
				continue
			}
			if best < 0 {
				best = i
			}
			if ownedAlways(eras, slot, now.names[o]) {
				best = i
				break
			}
		}
		best = max(best, 0)
		s.bits[best][slot/8] |= 1 << (slot % 8)
	}
	f.shares.Store(s)
	return s
}

// ownedAlways reports that a member owned a slot in all eras.
func ownedAlways(eras []Era, slot uint16, name string) bool {
	for _, e := range eras {
		if !slices.ContainsFunc(e.owners.of(slot), func(o uint16) bool { return e.owners.names[o] == name }) {
			return false
		}
	}
	return true
}

// distributor is a Source that can have plans carried out elsewhere.
type distributor interface {
	// distribute reports false if it is better done here.
	distribute(ctx context.Context, q *Queryable, c *computer, p *plan) (out *collector, notes annotations.Annotations, ok bool, err error)
}

// maxUnequal bounds the series that are fetched although the rest was computed by
// members, as does half of all series.
const maxUnequal = 20_000

// distribute implements distributor.
func (f *FanOut) distribute(ctx context.Context, q *Queryable, c *computer, p *plan) (*collector, annotations.Annotations, bool, error) {
	if f.o.NoPushDown {
		return nil, nil, false, nil
	}
	hints := c.hintsOf(p)
	d := &distribution{f: f, ctx: ctx, q: q, c: c, p: p, s: Selection{Bucket: q.bucket, Matchers: p.selector.LabelMatchers, From: hints.Start, To: hints.End}}
	d.eras, d.claimed = f.relevant(&d.s), f.claimed(ctx)
	if current(d.eras) == nil {
		return nil, nil, false, nil
	}
	without := map[string]error{}
	for range 2 { // once more if a member is not there after all
		replies, again := d.ask(without, nil, nil)
		all := f.judge(&d.s, d.eras, d.claimed, replies)
		if err := all.err(); err != nil {
			return nil, nil, false, err
		}
		if slices.ContainsFunc(replies, func(r reply) bool { return errors.Is(r.err, errNotSpoken) }) {
			break // its samples may be had all the same
		}
		if again {
			continue
		}
		return d.finish(all, without)
	}
	f.counts.raw.Add(1)
	return nil, nil, false, nil
}

// distribution is one plan that is carried out by members.
type distribution struct {
	f       *FanOut
	ctx     context.Context
	q       *Queryable
	c       *computer
	p       *plan
	s       Selection
	eras    []Era
	claimed claimed
}

// ask has the members carry out the plan: but those that are not there, and only
// those of only if that is not nil. again reports that one was not there, which
// without has from now on.
func (d *distribution) ask(without map[string]error, not []uint64, only func(name string) bool) (replies []reply, again bool) {
	f := d.f
	a := f.asker(d.ctx)
	names := []string{f.members.Self()}
	for _, p := range a.peers {
		if without[p.Name] == nil {
			names = append(names, p.Name)
		}
	}
	bits := f.share(d.eras, names).bits
	questions := make([]*question, 1+len(a.peers))
	next := 0
	for i := range questions {
		name := f.members.Self()
		if i > 0 {
			name = a.peers[i-1].Name
		}
		if i > 0 && without[name] != nil {
			continue
		}
		q := f.questionOf(askPlan, d.s)
		q.Plan, q.Slots, q.Not = d.c.toWire(d.p), bits[next], not
		if next++; only == nil || only(name) {
			questions[i] = &q
		}
	}
	a.enough = f.enough(&d.s, d.eras, d.claimed)
	replies = a.all(func(i int) *question { return questions[i] }, func(got *collected) error {
		return f.answer(d.ctx, questions[0], localSink{got})
	})
	for i, r := range replies {
		if i == 0 || r.got != nil {
			continue
		}
		if questions[i] != nil {
			without[r.name], again = r.err, true
		}
		replies[i].err = without[r.name]
	}
	return replies, again
}

// finish makes the result of what members answered.
func (d *distribution) finish(all *answers, without map[string]error) (*collector, annotations.Annotations, bool, error) {
	f, q, c := d.f, d.q, d.c
	series, unequal, evaluators := all.compare()
	if q.o.MaxSeries > 0 && series > q.o.MaxSeries {
		return nil, nil, false, q.tooManySeries(series)
	}
	if len(unequal) > min(maxUnequal, series/2) {
		f.counts.raw.Add(1)
		return nil, nil, false, nil
	}
	out := newCollector(c.steps, d.p.aggregate, series)
	out.room = c.room
	if len(unequal) > 0 {
		replies, failed := d.ask(without, unequal, func(name string) bool { return evaluators[name] })
		for i := range replies {
			if evaluators[replies[i].name] {
				all.replies[i] = replies[i]
			}
		}
		if failed || all.err() != nil || len(replies) != len(all.replies) {
			f.counts.raw.Add(1)
			return nil, nil, false, all.err()
		}
		f.counts.unequal.Add(uint64(len(unequal)))
		f.counts.repaired.Add(1)
	} else {
		f.counts.pushed.Add(1)
	}
	notes, ok, err := d.merge(out, all)
	if err == nil && ok && len(unequal) > 0 {
		err = d.repair(out, unequal, &notes)
	}
	if err != nil || !ok {
		out.giveBack()
		return nil, nil, false, err
	}
	q.selected.Add(int64(series))
	if series == 0 {
		q.empty.Store(true)
	}
	d.note(all)
	slices.SortStableFunc(out.groups, func(a, b group) int { return labels.Compare(a.labels, b.labels) })
	return out, notes, true, nil
}

// compare finds the series whose copies are unequal, or that nobody evaluated, in
// the order of their hashes, and who evaluated any of them.
func (a *answers) compare() (series int, unequal []uint64, evaluators map[string]bool) {
	type copies struct {
		sum       uint64
		evaluated int
		unequal   bool
	}
	all := map[uint64]copies{}
	for _, r := range a.replies {
		if r.got == nil {
			continue
		}
		for _, d := range r.got.digests {
			c, seen := all[d.hash]
			if c.unequal = c.unequal || seen && c.sum != d.sum; !seen {
				c.sum = d.sum
			}
			if d.evaluated {
				c.evaluated++
			}
			all[d.hash] = c
		}
	}
	for hash, c := range all {
		if c.unequal || c.evaluated != 1 {
			unequal = append(unequal, hash)
		}
	}
	if len(unequal) == 0 {
		return len(all), nil, nil
	}
	slices.Sort(unequal)
	evaluators = map[string]bool{}
	for _, r := range a.replies {
		if r.got == nil {
			continue
		}
		for _, d := range r.got.digests {
			if _, ok := slices.BinarySearch(unequal, d.hash); ok && d.evaluated {
				evaluators[r.name] = true
				break
			}
		}
	}
	return len(all), unequal, evaluators
}

// merge adds up what the members found, in the order of their names. It reports
// false if it has to be done otherwise.
func (d *distribution) merge(out *collector, all *answers) (notes annotations.Annotations, ok bool, err error) {
	replies := slices.Clone(all.replies)
	slices.SortFunc(replies, func(a, b reply) int { return strings.Compare(a.name, b.name) })
	held, samples := 0, 0
	for _, r := range replies {
		if r.got == nil {
			continue
		}
		for t := range answersAs[totals]([]reply{r}) {
			out.points, held, samples = out.points+t.Points, held+t.Held, samples+t.Samples
		}
		for i := range r.got.groups {
			if !out.merge(&r.got.groups[i]) {
				return nil, false, nil
			}
			if err := out.lend(d.ctx, d.q.loan); err != nil {
				return nil, false, err
			}
		}
	}
	d.c.held = max(d.c.held, held)
	d.q.computed.Add(int64(samples))
	switch {
	case out.points > d.c.maxSamples:
		return nil, false, promql.ErrTooManySamples("query execution")
	case out.size > d.c.maxSamples:
		return nil, false, errUnplanned
	}
	if d.p.rangeMs > 0 && out.points > 0 {
		d.p.noteName(&notes)
	}
	return notes, true, nil
}

// merge adds a part of a group. It reports false if the parts do not make the whole.
func (c *collector) merge(part *group) bool {
	if c.op == 0 {
		c.groups = append(c.groups, group{labels: part.labels, first: part.first, value: c.keep(part.value)})
		return true
	}
	if len(part.value) != c.n {
		return false
	}
	g := c.groupOf(part.labels)
	switch c.op {
	case parser.MIN:
		g.min(part.value)
	case parser.MAX:
		g.max(part.value)
	default:
		return g.addPart(part, c.op)
	}
	return true
}

// addPart adds sums and counts.
func (g *group) addPart(part *group, op parser.ItemType) bool {
	for k, v := range part.value {
		if isNone(v) {
			continue
		}
		if isNone(g.value[k]) {
			g.value[k] = v
			if g.carry != nil && part.carry != nil {
				g.carry[k] = part.carry[k]
			}
		} else if op == parser.SUM || op == parser.AVG {
			g.value[k], g.carry[k] = kahansum.Inc(v, g.value[k], g.carry[k])
			if part.carry != nil {
				g.carry[k] += part.carry[k]
			}
			if op == parser.AVG && math.IsInf(g.value[k], 0) {
				return false
			}
		} else {
			g.value[k] += v
		}
		if op == parser.AVG && part.count != nil {
			g.count[k] += part.count[k]
		}
	}
	return true
}

// repair adds the series whose copies were unequal.
func (d *distribution) repair(out *collector, unequal []uint64, notes *annotations.Annotations) error {
	q := d.f.questionOf(askSamples, d.s)
	q.Only = unequal
	found, err := d.f.selectBy(d.ctx, &d.s, &q)
	if err != nil {
		return err
	}
	d.q.note(d.s.From, found.Missing())
	d.q.warn(found.Notes())
	set := &seriesSet{q: d.q, found: found, mint: d.s.From, maxt: d.s.To}
	for i := range found.series {
		set.series = append(set.series, series{set: set, place: i, labels: found.series[i].labels})
	}
	more, err := d.c.addTo(d.ctx, d.q, d.p, set.series, out, nil)
	notes.Merge(more)
	return err
}

// note tells the query what the members lack.
func (d *distribution) note(all *answers) {
	m := all.missing()
	type lack struct {
		slot uint16
		of   claims
	}
	lacking := map[uint64]lack{}
	for _, r := range all.replies {
		if r.got == nil {
			continue
		}
		for _, x := range r.got.digests {
			if x.completeFrom <= d.s.From {
				continue
			}
			l, ok := lacking[x.hash]
			if !ok {
				l = lack{x.slot, claims{}}
				lacking[x.hash] = l
			}
			l.of[r.name] = x.completeFrom
		}
	}
	worst := nothingMissing.Gone
	for _, l := range lacking {
		worst = max(worst, all.slotMissing(l.slot, l.of))
	}
	m.Gone = max(m.Gone, worst)
	d.q.note(d.s.From, m)
	d.q.warn(all.notes(worst))
}
