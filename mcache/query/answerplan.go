package query

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// totals is how much a member computed.
type totals struct{ Points, Held, Samples int }

// answerPlan carries out a plan for the series that are this member's to evaluate.
func (f *FanOut) answerPlan(ctx context.Context, q *question, s *Selection, out answerSink) error {
	if q.Plan == nil {
		return errNotSpoken
	}
	c, p, err := q.Plan.plan(s.Matchers, f.limits.Load().maxSamples, &f.room)
	if err != nil {
		return err
	}
	queryable := f.here(ctx, s.Bucket)
	set, err := c.selectFor(ctx, queryable, p)
	if err != nil {
		return err
	}
	if err := out.putMissing(set.found.Missing()); err != nil {
		return err
	}
	mine, others, slots := f.divide(q, s.Bucket, set.series)
	if p.rangeMs > 0 && slices.ContainsFunc(set.series, func(s series) bool { return typed(s.labels) }) {
		return errUnplanned // two that differ in that alone can be at two members
	}
	result := newCollector(c.steps, p.aggregate, len(mine))
	result.room = c.room
	defer result.giveBack()
	if err := result.lendAll(ctx, queryable.loan); err != nil {
		return err
	}
	digests := make([]digest, len(set.series))
	if _, err := c.addTo(ctx, queryable, p, mine, result, digests[:len(mine)]); err != nil {
		return err
	}
	if err := c.digest(ctx, others, digests[len(mine):]); err != nil {
		return err
	}
	for i := range digests {
		d := &digests[i]
		d.slot, d.evaluated = slots[i], i < len(mine)
		if d.evaluated {
			d.hash = mine[i].labels.Hash()
		} else {
			d.hash = others[i-len(mine)].labels.Hash()
		}
	}
	for i := range result.groups {
		g := &result.groups[i]
		if g.mean != nil {
			return errUnplanned // a sum overflowed
		}
		if err := out.putGroup(g); err != nil {
			return err
		}
	}
	if err := out.putDigests(digests, s.From); err != nil {
		return err
	}
	return out.putJSON(totals{result.points, c.held, int(queryable.computed.Load())})
}

// divide puts the series that are to be evaluated here in front, each part in the
// order of before, and tells of the slots of all.
func (f *FanOut) divide(q *question, bucket string, all []series) (mine, others []series, slots []uint16) {
	slots = make([]uint16, 0, len(all))
	var theirs []uint16
	for i := range all {
		slot := f.members.Slot(bucket, all[i].labels)
		own := int(slot/8) < len(q.Slots) && q.Slots[slot/8]&(1<<(slot%8)) != 0
		if own && len(q.Not) > 0 {
			_, not := slices.BinarySearch(q.Not, all[i].labels.Hash())
			own = !not
		}
		if own {
			mine, slots = append(mine, all[i]), append(slots, slot)
		} else {
			others, theirs = append(others, all[i]), append(theirs, slot)
		}
	}
	return mine, others, append(slots, theirs...)
}

// digest makes digests of series that are not evaluated.
func (c *computer) digest(ctx context.Context, list []series, digests []digest) error {
	if len(list) == 0 {
		return nil
	}
	// As many steps as make a batch that is worth a turn; what they find is not used.
	const few = 64
	s := c.steps
	s.n = min(s.n, few)
	latest := &plan{selector: &parser.VectorSelector{}}
	team := crew{
		series: list, digests: digests,
		hire:     func() *worker { return c.room.worker().reuse(s, latest) },
		dismiss:  c.room.keep,
		handOver: func(*series, []float64, int, int) error { return nil },
	}
	_, err := team.run(ctx, s.n)
	return err
}
