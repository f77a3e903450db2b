package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"mcached/mcache"
)

// TestNewestOfAll: of each series the newest sample comes, however long ago it was,
// and whichever member has it; what ended a series is none.
func TestNewestOfAll(t *testing.T) {
	tc := newTestCluster(t, 2, FanOutOptions{}, "a", "b", "c")
	const minute = 60_000
	at := func(ms int64, v float64) mcache.Sample { return mcache.Sample{T: t0 + ms, V: math.Float64bits(v)} }
	write := func(i int, samples ...mcache.Sample) {
		tc.write("default", seriesOf(t, fmt.Sprintf("m{i=%d}", i)), samples...)
	}
	tc.now = t0 + 3*24*60*minute
	want := map[string]mcache.Sample{}
	for i := range 20 {
		last := at([]int64{0, 2 * 24 * 60 * minute, 3*24*60*minute - minute}[i%3], float64(i)) // days, a day, a minute ago
		for k := range int64(30) {
			write(i, at(last.T-t0-(30-k)*1000, 1))
		}
		write(i, last)
		if i%4 == 0 {
			write(i, mcache.Sample{T: last.T + 1000, V: value.StaleNaN})
		}
		want[fmt.Sprint(i)] = last
	}
	// One member alone has a newer one.
	newer := at(3*24*60*minute-1000, 77)
	tc.nodes[tc.owners("default", seriesOf(t, "m{i=7}"))[1]].put("default", seriesOf(t, "m{i=7}"), newer)
	want["7"] = newer

	m := labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")
	s := Selection{Bucket: "default", Matchers: []*labels.Matcher{m}, From: math.MinInt64, To: math.MaxInt64, LastOnly: true}
	for _, n := range tc.lives() {
		found, notes, err := n.api.SelectAll(context.Background(), unbounded{}, s)
		if err != nil || len(notes) > 0 || found.Len() != len(want) {
			t.Fatalf("%s found %v, %v, %v", n.name, found, notes, err)
		}
		for i := range found.Len() {
			ls, _ := found.Labels(i)
			var samples mcache.Snapshot
			if !found.Snapshot(i, -mcache.MaxTime, mcache.MaxTime, &samples) {
				t.Fatal(ls, "has gone")
			}
			var last mcache.Sample
			count := 0
			for it := samples.Iterator(); it.Next(); count++ {
				if it.At().V != value.StaleNaN {
					last = it.At()
				}
			}
			if last != want[ls.Get("i")] || count > 2 {
				t.Errorf("%s of %s: %v of %d, want %v", ls, n.name, last, count, want[ls.Get("i")])
			}
		}
	}
}

// TestKeysOfAll: all members say what they have names for, or nothing is said.
func TestKeysOfAll(t *testing.T) {
	tc := newTestCluster(t, 2, FanOutOptions{}, "a", "b", "c")
	for _, n := range tc.lives() {
		n.fan.keys = func(of []byte, put func(string) error) error {
			return errors.Join(put(n.name+" "+string(of)), put("\xff"))
		}
	}
	ask := func() ([]string, error) {
		all, err := tc.nodes["b"].api.KeysOfAll(context.Background(), unbounded{}, []byte("x"))
		slices.Sort(all)
		return all, err
	}
	if all, err := ask(); err != nil || fmt.Sprintf("%q", all) != `["a x" "b x" "c x" "\xff" "\xff" "\xff"]` {
		t.Errorf("%q, %v", all, err)
	}
	tc.kill("c")
	if all, err := ask(); err == nil || !strings.Contains(err.Error(), "the member c did not answer") {
		t.Errorf("%q, %v", all, err)
	}
}
