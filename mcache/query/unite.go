package query

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// Select implements Source.
func (f *FanOut) Select(ctx context.Context, s Selection) (Found, error) {
	what := askSamples
	if s.LabelsOnly {
		what = askSeries
	}
	q := f.questionOf(what, s)
	q.Last = s.LastOnly
	return f.selectBy(ctx, &s, &q)
}

// selectBy selects what a question asks for.
func (f *FanOut) selectBy(ctx context.Context, s *Selection, q *question) (*united, error) {
	eras := f.relevant(s)
	claimed := f.claimed(ctx)
	all := f.judge(s, eras, claimed, f.same(ctx, q, f.enough(s, eras, claimed)))
	if err := all.err(); err != nil {
		return nil, err
	}
	return all.unite(s), nil
}

// united is the Found of a FanOut.
type united struct {
	series  []unitedSeries // in the order of their labels
	missing Missing
	notes   []error
}

// unitedSeries is a series of all members that have it.
type unitedSeries struct {
	labels       labels.Labels
	parts        []*mcache.Snapshot // none where samples are not wanted
	completeFrom int64              // unix ms
}

// unite puts the series of all answers together.
func (a *answers) unite(s *Selection) *united {
	u := &united{missing: a.missing()}
	places := map[uint64][]int{} // by the hash of labels
	lacking := map[int]claims{}  // of series of which a part lacks something: what their members claim
	for _, r := range a.replies {
		if r.got == nil {
			continue
		}
		for _, x := range r.got.series {
			i := u.place(places, x.labels)
			if x.snapshot == nil {
				continue
			}
			u.series[i].parts = append(u.series[i].parts, x.snapshot)
			if c := x.snapshot.CompleteFrom(); c > s.From {
				if lacking[i] == nil {
					lacking[i] = claims{}
				}
				lacking[i][r.name] = c
			}
		}
	}
	worst := nothingMissing.Gone
	for i, c := range lacking {
		u.series[i].completeFrom = a.slotMissing(a.f.members.Slot(s.Bucket, u.series[i].labels), c)
		worst = max(worst, u.series[i].completeFrom)
	}
	slices.SortFunc(u.series, func(x, y unitedSeries) int { return labels.Compare(x.labels, y.labels) })
	u.notes = a.notes(worst)
	return u
}

// place is that of a series in u, which it gets if it is new.
func (u *united) place(places map[uint64][]int, ls labels.Labels) int {
	hash := ls.Hash()
	for _, i := range places[hash] {
		if labels.Equal(u.series[i].labels, ls) {
			return i
		}
	}
	u.series = append(u.series, unitedSeries{labels: ls, completeFrom: nothingMissing.Gone})
	places[hash] = append(places[hash], len(u.series)-1)
	return len(u.series) - 1
}

// slotMissing is from when on a series of a slot is complete, of which members
// lack more than they do of others: they have it from the given times on.
func (a *answers) slotMissing(slot uint16, lack claims) int64 {
	c, lost := claims{}, claims{}
	for name, t := range a.all {
		c[name], lost[name] = t, a.gone[name]
		if l, ok := lack[name]; ok {
			c[name], lost[name] = max(t, l), max(lost[name], l)
		}
	}
	return a.capped(a.claimed.slotCompleteFrom(a.eras, slot, c, lost))
}

// Len implements Found.
func (u *united) Len() int { return len(u.series) }

// Missing implements Found.
func (u *united) Missing() Missing { return u.missing }

// Notes are warnings for the answer.
func (u *united) Notes() []error { return u.notes }

// Labels implements Found.
func (u *united) Labels(i int) (labels.Labels, bool) { return u.series[i].labels, true }

// Snapshot implements Found. What was selected for its labels has a point, which
// says nothing.
func (u *united) Snapshot(i int, from, to int64, s *mcache.Snapshot) bool {
	x := &u.series[i]
	if len(x.parts) == 0 {
		s.Hold(mcache.Sample{T: from})
		return true
	}
	s.Union(x.parts, from, to, x.completeFrom)
	return true
}
