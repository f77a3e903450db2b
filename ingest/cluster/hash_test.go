package cluster

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

type label struct{ name, value string }

func slotOf(h *SeriesHash, bucket string, labels ...label) uint16 {
	sum := h.Bucket(bucket)
	for _, l := range labels {
		sum += h.Pair(l.name, l.value)
	}
	return h.Slot(sum)
}

func testKeys(t testing.TB, secret string) *Keys {
	k, err := NewKeys("test", [][]byte{[]byte(secret)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSeriesHash(t *testing.T) {
	for _, spread := range []int{0, 8} {
		h := NewSeriesHash(testKeys(t, "a secret of a cluster").Series(), []string{"replica"}, spread)
		labels := []label{{"__name__", "http_requests_total"}, {"job", "api"}, {"instance", "10.0.0.1:80"}, {"code", "200"}}
		at := slotOf(h, "default", labels...)
		for range 50 {
			rand.Shuffle(len(labels), func(i, j int) { labels[i], labels[j] = labels[j], labels[i] })
			if slotOf(h, "default", labels...) != at {
				t.Fatal("the order of labels changes the slot")
			}
		}
		for _, left := range []label{{"le", "0.5"}, {"quantile", "0.9"}, {"replica", "b"}} {
			if slotOf(h, "default", append(labels, left)...) != at {
				t.Errorf("%s=%q changes the slot", left.name, left.value)
			}
		}
		changed := 0
		for i := range 100 {
			if slotOf(h, "default", append(labels, label{"pod", fmt.Sprint(i)})...) != at {
				changed++
			}
			if slotOf(h, fmt.Sprint("bucket", i), labels...) != at {
				changed++
			}
		}
		if changed < 150 {
			t.Errorf("spread %d: of 200 changes of a label or the bucket %d change the slot", spread, changed)
		}
		other := NewSeriesHash(testKeys(t, "another secret of one").Series(), []string{"replica"}, spread)
		if same := h.Place() == other.Place() || h.Place() == NewSeriesHash(testKeys(t, "a secret of a cluster").Series(), nil, spread).Place(); same {
			t.Error("hashes that place series differently say that they do not")
		}
		if slotOf(other, "default", labels...) == at && slotOf(other, "x", labels...) == slotOf(h, "x", labels...) {
			t.Error("the key does not matter")
		}
	}
}

// Slots are hit evenly, by chi-square over their groups; and with a spread a
// target's series are in one group of slots, which they fill.
func TestSeriesHashIsEven(t *testing.T) {
	for _, spread := range []int{0, 8} {
		h := NewSeriesHash(testKeys(t, "a secret of a cluster").Series(), nil, spread)
		var hits [256]int
		const targets, series = 2000, 50
		for i := range targets {
			groups := map[int]bool{}
			slots := map[uint16]bool{}
			for j := range series {
				slot := slotOf(h, "default", label{"job", fmt.Sprint("job", i%20)}, label{"instance", fmt.Sprint("10.0.0.", i/20)}, label{"__name__", fmt.Sprint("m", j)})
				hits[slot%256]++
				slots[slot] = true
				if spread > 0 {
					groups[int(slot)/spread] = true
				}
			}
			if spread > 0 && (len(groups) != 1 || len(slots) < spread-3) {
				t.Fatalf("a target's %d series are in %d groups and %d slots", series, len(groups), len(slots))
			}
		}
		mean, chi := float64(targets*series)/256, 0.0
		for _, n := range hits {
			chi += (float64(n) - mean) * (float64(n) - mean) / mean
		}
		// 255 degrees of freedom: 350 is beyond one in 30,000. Series of a target
		// come together with a spread, so there it is a sum of fewer.
		if limit := map[int]float64{0: 350, 8: 350 * series / 4}[spread]; chi > limit {
			t.Errorf("spread %d: chi-square %.0f over 256 cells", spread, chi)
		}
	}
}

func TestSeriesHashAllocatesNothing(t *testing.T) {
	h := NewSeriesHash(testKeys(t, "a secret of a cluster").Series(), []string{"replica"}, 0)
	if n := testing.AllocsPerRun(100, func() {
		slotOf(h, "default", label{"job", "api"}, label{"replica", "a"})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The series of a target go to as many members as the spread says.
func TestTargetSlots(t *testing.T) {
	for _, c := range []struct{ spread, copies, want int }{{0, 2, 0}, {8, 1, 8}, {8, 2, 4}, {8, 3, 2}, {1, 2, 1}, {12, 1, 8}, {1 << 30, 1, MaxSpread}} {
		if got := TargetSlots(c.spread, c.copies); got != c.want {
			t.Errorf("a spread of %d at %d copies takes %d slots, want %d", c.spread, c.copies, got, c.want)
		}
	}
	h := NewSeriesHash(testKeys(t, "a secret of a cluster").Series(), nil, TargetSlots(8, 2))
	tab := table(some(300), Layout{Copies: 2})
	for i := range 100 {
		on := map[uint16]bool{}
		for j := range 200 {
			for _, o := range tab.Owners(slotOf(h, "default", label{"instance", fmt.Sprint(i)}, label{"__name__", fmt.Sprint(j)})) {
				on[o] = true
			}
		}
		if len(on) > 8 || len(on) < 4 {
			t.Errorf("the series of target %d are on %d members of 300, with a spread of 8", i, len(on))
		}
	}
}

func BenchmarkSeriesHash(b *testing.B) {
	h := NewSeriesHash(testKeys(b, "a secret of a cluster").Series(), nil, 0)
	b.Run("pair", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Pair("instance", "10.0.0.17:9100")
		}
	})
	b.Run("pair-of-hashes", func(b *testing.B) {
		n, v := h.Text("instance"), h.Text("10.0.0.17:9100")
		for b.Loop() {
			h.PairOf(n, v, true)
		}
	})
}
