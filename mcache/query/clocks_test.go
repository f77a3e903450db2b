package query

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// TestClocksApart: with one copy, a member is lost. The times that eras have are by
// clocks that are behind those of the senders by up to apart. Who asks for what the lost
// member had is told that it may be missing, whatever his clock; who asks for later
// times is not.
func TestClocksApart(t *testing.T) {
	for _, apart := range []int64{0, 20_000, 90_000, 3_600_000} {
		for _, behind := range []int64{0, apart / 2, apart} {
			tc := newTestCluster(t, 1, FanOutOptions{ClocksApart: func() time.Duration { return time.Duration(apart) * time.Millisecond }}, "a", "b", "c")
			var series labels.Labels
			lost := ""
			for i := 0; lost != "a"; i++ { // a series that a has
				series = labels.FromStrings("__name__", "m", "i", time.Duration(i).String())
				lost = tc.owners("b", series)[0]
			}
			tc.pass(600_000)
			sent := tc.clock() + behind // the sender's clock is right
			tc.write("b", series, mcache.Sample{T: sent, V: 1})
			tc.kill("a")
			tc.pass(1000)
			tc.change("b", "c")
			missing := func(from, to int64) bool {
				found, err := tc.nodes["b"].fan.Select(t.Context(), Selection{Bucket: "b", From: from, To: to})
				if err != nil {
					t.Fatal(err)
				}
				return found.Missing().Uncovered > from
			}
			if !missing(sent-1000, sent+1000) {
				t.Errorf("clocks %d ms apart, %d behind: what a had is missing, and nobody says so", apart, behind)
			}
			// The clock passes what it is behind by.
			tc.pass(behind + 3_600_000)
			if !missing(sent-1000, sent+1000) {
				t.Errorf("clocks %d ms apart, %d behind: later nobody says so", apart, behind)
			}
			if late := sent + apart + eraLag + 2000; missing(late, late+1000) {
				t.Errorf("clocks %d ms apart, %d behind: from %d ms after the loss on something is missing", apart, behind, late-sent)
			}
		}
	}
}

// TestClocksApartAfterAStart: a member that was started again, empty and with a clock that
// is behind, seems to have been there when something was written before.
func TestClocksApartAfterAStart(t *testing.T) {
	const behind = 20_000
	tc := newTestCluster(t, 1, FanOutOptions{ClocksApart: func() time.Duration { return 2 * behind * time.Millisecond }}, "a", "b")
	tc.pass(600_000)
	tc.start("c")
	tc.change("a", "b", "c")
	began := tc.clock()
	var series labels.Labels
	for i := 0; series.IsEmpty() || tc.owners("b", series)[0] != "b"; i++ {
		series = labels.FromStrings("__name__", "m", "i", time.Duration(i).String())
	}
	tc.pass(5000)
	tc.write("b", series, mcache.Sample{T: tc.clock(), V: 1})
	tc.pass(5000)
	tc.kill("b")
	tc.start("b").began -= behind
	if b := tc.nodes["b"].began; b > began {
		t.Fatalf("it began at %d, the era at %d", b, began)
	}
	found, err := tc.nodes["a"].fan.Select(t.Context(), Selection{Bucket: "b", From: began + 4000, To: began + 6000})
	if err != nil {
		t.Fatal(err)
	}
	if found.Missing().Uncovered <= began+4000 {
		t.Error("what the member had before it was started again is missing, and nobody says so")
	}
}
