package query

import (
	"fmt"
	"math"
	"slices"
)

// answers is what all members said, and what that is worth.
type answers struct {
	f       *FanOut
	from    int64
	eras    []Era
	replies []reply
	all     claims // from when on they have all that they were sent
	covered claims // the same, but for what was evicted or reclaimed
	claimed claimed
	gone    claims // from when on they have lost nothing
	nothing claims // that nobody has
	apart   int64  // ms, see apartMs
}

// relevant are the eras that matter to a selection. Who asks of all times asks
// for what there is.
func (f *FanOut) relevant(s *Selection) []Era {
	apart := f.apartMs()
	if s.ofAllTimes() {
		return since(f.members.Eras(never-1), never-1, apart)
	}
	return since(f.members.Eras(s.From-eraLag-apart), s.From, apart)
}

// judge takes stock of the answers.
func (f *FanOut) judge(s *Selection, eras []Era, claimed claimed, replies []reply) *answers {
	a := &answers{f: f, from: s.From, eras: eras, replies: replies, all: claims{}, covered: claims{}, claimed: claimed, gone: claims{}, nothing: claims{}, apart: f.apartMs()}
	for i := range replies {
		if r := &replies[i]; r.got != nil {
			uncovered := r.got.missing.Uncovered
			if uncovered != math.MinInt64 { // by that member's clock
				uncovered += a.apart
			}
			a.covered[r.name] = uncovered
			a.all[r.name] = max(uncovered, r.got.missing.Gone)
			a.gone[r.name], a.nothing[r.name] = r.got.missing.Gone, math.MinInt64
		}
	}
	return a
}

// better reports that the answer could be more complete if those who gave none did.
func (a *answers) better() bool {
	t := a.claimed.completeFrom(a.eras, a.all, a.gone)
	if t <= a.from {
		return false
	}
	best, gone := claims{}, claims{}
	for _, r := range a.replies {
		best[r.name], gone[r.name] = math.MinInt64, math.MinInt64
		if r.got != nil {
			best[r.name], gone[r.name] = a.all[r.name], a.gone[r.name]
		}
	}
	return a.claimed.completeFrom(a.eras, best, gone) < t
}

// own is what this member lacks, in the words that members use for it: whatever
// came since it began is here, or was evicted or reclaimed.
func (f *FanOut) own(m Missing) Missing {
	if m.Uncovered != math.MinInt64 {
		m.Uncovered = min(m.Uncovered, f.o.Began())
	}
	return m
}

// missing is what the answers lack together.
func (a *answers) missing() Missing {
	return Missing{
		Gone:      a.capped(a.claimed.completeFrom(a.eras, a.all, a.gone)),
		Uncovered: a.capped(a.claimed.completeFrom(a.eras, a.covered, a.nothing)),
	}
}

// capped is a time before which something may be missing: none is later than now, by
// any member's clock.
func (a *answers) capped(t int64) int64 { return min(t, a.f.o.Now().UnixMilli()+1+a.apart) }

// apartMs is FanOutOptions.ClocksApart. What members say of times is by their clocks,
// and what is asked for by somebody else's.
func (f *FanOut) apartMs() int64 { return f.o.ClocksApart().Milliseconds() }

// err is what makes the whole query fail.
func (a *answers) err() error {
	if err := a.replies[0].err; err != nil && a.replies[0].got == nil {
		return err
	}
	for _, r := range a.replies {
		if r.err != nil && fatal(r.err) {
			return r.err
		}
	}
	return nil
}

// lacks reports that a series lacks something from a time on.
func (c *collected) lacks(from int64) bool {
	return slices.ContainsFunc(c.series, func(s collectedSeries) bool {
		return s.snapshot != nil && s.snapshot.CompleteFrom() > from
	}) || slices.ContainsFunc(c.digests, func(d digest) bool { return d.completeFrom > from })
}

// notes name the members that did not answer, if something may be missing for it:
// of series as complete as is said.
func (a *answers) notes(completeFrom int64) (notes []error) {
	if completeFrom <= a.from && !a.better() {
		return nil
	}
	for _, r := range a.replies {
		if r.got == nil && r.err != nil {
			notes = append(notes, fmt.Errorf("the member %s did not answer: %w", r.name, r.err))
		}
	}
	return notes
}

// enough reports, for an asker, that those who have not answered yet would not make
// it more complete.
func (f *FanOut) enough(s *Selection, eras []Era, claimed claimed) func([]reply) bool {
	return func(replies []reply) bool {
		for _, r := range replies {
			if r.got != nil && r.got.lacks(s.From) {
				return false // another copy may have it
			}
		}
		return !f.judge(s, eras, claimed, replies).better()
	}
}
