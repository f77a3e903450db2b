package promqltest

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/util/teststorage"

	"mcached/mcache"
	"mcached/mcache/query"
)

// TestSplitOfMembersIsPrometheus: three members before a store divide a query by
// what they cover together, and whichever is asked asks the store once. Each covers
// other times, and has of its series what it covers and no more.
func TestSplitOfMembersIsPrometheus(t *testing.T) {
	theirs := teststorage.New(t)
	list := allWrites(t)
	appendAll(t, theirs.AppenderV2(t.Context()), list, all)
	at := func(ms int64) int64 { return dataStart + ms }
	covers := [][]mcache.Interval{
		{{From: at(1_234_567), To: mcache.MaxTime}},
		{{From: at(1_500_001), To: mcache.MaxTime}},
		{{From: at(1_000_000), To: at(1_400_000)}, {From: at(2_700_000), To: mcache.MaxTime}},
	}
	s := newMemberStorage(t, 2, true)
	t.Cleanup(func() { s.Close() })
	for _, w := range list {
		for _, m := range s.owners(member{s, 0}.Slot(bucket, w.ls)) {
			if slices.ContainsFunc(covers[m], func(x mcache.Interval) bool { return x.From <= w.t && w.t <= x.To }) {
				appendAll(t, s.caches[m].AppenderV2(t.Context()), []write{w}, all)
			}
		}
	}
	store, err := url.Parse(startPrometheus(t, theirs))
	if err != nil {
		t.Fatal(err)
	}
	prom := prometheusAPI(theirs, theirs, settings{})
	now := func() time.Time { return time.UnixMilli(dataEnd) }
	for i := range s.apis {
		source := &covered{query.FromCache(s.caches[i].cache, nil), covers[i]}
		fan := query.NewFanOut(source, member{s, i}, query.FanOutOptions{ReadTimeout: time.Hour, Now: now, Began: func() int64 { return dataStart }})
		s.apis[i] = query.NewAPIOf(fan, query.Options{DefaultBucket: bucket, Now: now, FanOut: fan, Upstream: &query.UpstreamOptions{URL: store}})
	}
	sources := map[string]int{}
	for i, e := range expressions() {
		params := url.Values{"query": {e}, "start": {ms(dataStart - 60_000)}, "end": {ms(dataEnd + 400_000)}, "step": {"61.5"}}
		if i%2 == 0 {
			params = url.Values{"query": {e}, "start": {ms(at(2_000_001))}, "end": {ms(at(2_999_999))}, "step": {"47.001"}}
		}
		want, got := send(prom, params), send(s.apis[i%3], params)
		sources[got.Header().Get("X-Mcached-Source")]++
		if !sameAnswer(want, got, e) {
			t.Errorf("%v\nPrometheus: %.600s\nours:       %.600s", params, want.Body, got.Body)
		}
	}
	pushed := uint64(0)
	for _, a := range s.apis {
		pushed += a.FanOut().Stats().Pushed
	}
	t.Log(sources, pushed, "plans were carried out by members")
	if sources["both"] < 150 || sources["memory"] < 1 || sources["upstream"] < 20 || pushed < 5 {
		t.Errorf("answers by source: %v, %d plans", sources, pushed)
	}
}
