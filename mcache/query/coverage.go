package query

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"

	"mcached/mcache"
)

// What several members cover together is what decides which steps of a query they
// compute, and which the store behind does. It is stricter than completeness, which
// only warns: a time is covered if, in every era that it is in or near, each slot
// had an owner that covers it. Each member covers what its own cache says: from the
// first write to it on, not from its start, as a store may have what was sent
// elsewhere before. A member that does not answer covers nothing.
//
// Who was passed over owns nothing in an era of its own, as with completeness.

// coverLag is how near to an era a time has to be for its owners to count: what was
// taken at that time may have been on its way until then, as closeLagMs of the cache.
const coverLag = 60_000 // ms

// Coverage implements coverer.
func (f *FanOut) Coverage(bucket string) []mcache.Interval {
	q := f.questionOf(askCoverage, Selection{Bucket: bucket})
	of := map[string][]mcache.Interval{}
	for _, r := range f.same(context.Background(), &q, anyone) {
		var list []mcache.Interval
		if r.got != nil && json.Unmarshal(r.got.json, &list) == nil {
			of[r.name] = list
		}
	}
	return covered(f.members.Eras(math.MinInt64), of, coverLag+f.apartMs())
}

// CoveredFrom reports false if all of the time from from to to, in unix ms and
// inclusive, is covered. Else it returns the time from which on all is.
func (f *FanOut) CoveredFrom(bucket string, from, to int64) (complete int64, ok bool) {
	complete = f.o.Now().UnixMilli() + f.apartMs()
	for _, x := range f.Coverage(bucket) {
		if x.From <= from && to <= x.To {
			return 0, false
		}
		if x.To == mcache.MaxTime {
			complete = x.From
		}
	}
	return complete, true
}

// answerCoverage answers with what this member's cache covers.
func (f *FanOut) answerCoverage(bucket string, out answerSink) error {
	c, ok := f.local.(coverer)
	if !ok {
		return out.putJSON([]mcache.Interval{})
	}
	return out.putJSON(c.Coverage(bucket))
}

// covered is what members cover together that cover each what of says. Eras count for
// times that are as near as lag, in ms.
func covered(eras []Era, of map[string][]mcache.Interval, lag int64) []mcache.Interval {
	var all []mcache.Interval // nothing is known of what is in no era
	for _, e := range eras {
		all = append(all, mcache.Interval{From: e.From, To: min(e.To, mcache.MaxTime)})
	}
	all = joinIntervals(all)
	for _, e := range eras {
		from, to := max(e.From, math.MinInt64+lag)-lag, min(e.To, mcache.MaxTime-lag)+lag
		for _, set := range e.owners.sets {
			if len(all) == 0 {
				return nil
			}
			var own []mcache.Interval
			if from > math.MinInt64 {
				own = append(own, mcache.Interval{From: math.MinInt64, To: from - 1})
			}
			if to < mcache.MaxTime {
				own = append(own, mcache.Interval{From: to + 1, To: mcache.MaxTime})
			}
			for _, m := range set {
				own = append(own, of[e.owners.names[m]]...)
			}
			all = meetIntervals(all, joinIntervals(own))
		}
	}
	return all
}

// joinIntervals is what is in any of the intervals, in order and disjoint. It sorts list.
func joinIntervals(list []mcache.Interval) (joined []mcache.Interval) {
	slices.SortFunc(list, func(a, b mcache.Interval) int { return cmp.Compare(a.From, b.From) })
	for _, x := range list {
		n := len(joined)
		switch {
		case x.From > x.To:
		case n > 0 && (joined[n-1].To == math.MaxInt64 || x.From <= joined[n-1].To+1):
			joined[n-1].To = max(joined[n-1].To, x.To)
		default:
			joined = append(joined, x)
		}
	}
	return joined
}

// meetIntervals is what is in both lists, each of which is in order and disjoint.
func meetIntervals(a, b []mcache.Interval) (both []mcache.Interval) {
	for len(a) > 0 && len(b) > 0 {
		if from, to := max(a[0].From, b[0].From), min(a[0].To, b[0].To); from <= to {
			both = append(both, mcache.Interval{From: from, To: to})
		}
		if a[0].To < b[0].To {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}
