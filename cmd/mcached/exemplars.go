package main

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"mcached/mcache"
	"mcached/remotewrite"
)

// exemplars lets the query API read what remote write keeps of a bucket.
func (d *daemon) exemplars(_ context.Context, bucket string) (storage.ExemplarQuerier, error) {
	return exemplarQuerier{d.writes, bucket}, nil
}

type exemplarQuerier struct {
	writes *remotewrite.Handler
	bucket string
}

// Select implements storage.ExemplarQuerier: a series is wanted if it matches
// all matchers of any of the sets.
func (q exemplarQuerier) Select(from, to int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	found := q.writes.Exemplars(q.bucket, from, to, func(series []mcache.Label) bool {
		for _, set := range sets {
			if matchesAll(set, series) {
				return true
			}
		}
		return false
	})
	results := make([]exemplar.QueryResult, 0, len(found))
	for _, s := range found {
		r := exemplar.QueryResult{SeriesLabels: promLabels(s.Labels)}
		for _, e := range s.Exemplars {
			r.Exemplars = append(r.Exemplars, exemplar.Exemplar{Labels: promLabels(e.Labels), Value: math.Float64frombits(e.V), Ts: e.T, HasTs: true})
		}
		results = append(results, r)
	}
	return results, nil
}

// matchesAll says whether a series has what every matcher wants; a label that
// is not there is an empty one.
func matchesAll(set []*labels.Matcher, series []mcache.Label) bool {
	for _, m := range set {
		v := ""
		for _, l := range series {
			if l.Name == m.Name {
				v = l.Value
				break
			}
		}
		if !m.Matches(v) {
			return false
		}
	}
	return true
}

func promLabels(ls []mcache.Label) labels.Labels {
	b := labels.NewScratchBuilder(len(ls))
	for _, l := range ls {
		b.Add(l.Name, l.Value)
	}
	b.Sort()
	return b.Labels()
}
