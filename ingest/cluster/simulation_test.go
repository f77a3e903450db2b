package cluster

import (
	"fmt"
	"slices"
	"testing"
)

// The figures of the package comment for clusters that no test machine can run.
// What is random is so by names, so each run has the same.
func TestSimulation(t *testing.T) {
	keys := testKeys(t, "a secret of a cluster")
	for _, n := range []int{3, 100, 300} {
		members := some(n)
		tab := table(members, Layout{Copies: 2, BlobCopies: 1})

		// A request of 2,000 series of 10 targets, as a Prometheus sends them.
		parts := func(spread int) int {
			h := NewSeriesHash(keys.Series(), nil, TargetSlots(spread, 2))
			on := map[uint16]bool{}
			for i := range 2000 {
				slot := slotOf(h, "default", label{"job", "node"}, label{"instance", fmt.Sprint("10.0.0.", i%10, ":9100")}, label{"__name__", fmt.Sprint("metric", i/10)})
				for _, o := range tab.Owners(slot) {
					on[o] = true
				}
			}
			return len(on)
		}
		whole, spread := parts(0), parts(8)

		// What Redis clients are told: neighbouring slots of one owner in one line,
		// of some 100 bytes.
		ranges, last := 0, uint16(1<<16-1)
		for slot := range uint16(Slots) {
			if o := tab.KeyOwners(slot)[0]; o != last {
				ranges, last = ranges+1, o
			}
		}

		// Every member is restarted, one after the other: leaves, is gone, is back.
		h := history{settled: true}
		l := Layout{Copies: 2}
		now := int64(1_700_000_000_000)
		h.observe(now, members, l)
		for i := range members {
			leaving := slices.Clone(members)
			leaving[i].State = Leaving
			h.observe(now+10_000, leaving, l)
			h.observe(now+11_000, slices.Delete(slices.Clone(members), i, i+1), l)
			now += 20_000
			members[i].ID = MemberID(members[i].Name, now)
			h.observe(now, members, l)
		}
		eras := h.since(0)
		wire := len(encodeEras(eras))
		t.Logf("%3d members: %3d parts of a request, %2d with a spread of 8; %4d ranges of keys; %3d eras after a rolling restart, %6d bytes", n, whole, spread, ranges, len(eras), wire)
		if n >= 100 && (spread > 80 || spread >= whole) {
			t.Errorf("%d members: a request of 10 targets has %d parts with a spread of 8, %d without", n, spread, whole)
		}
		if len(eras) > maxEras+1 || wire > maxHistoryBytes/8 {
			t.Errorf("%d members: %d eras in %d bytes", n, len(eras), wire)
		}
		if n > 200 && eras[0].Members != nil {
			t.Errorf("%d members: more eras than are kept, and none is unknown", n)
		}
		if ranges*110 > 450<<10 || n == 3 && ranges*110 > 110<<10 {
			t.Errorf("%d members: %d ranges of keys", n, ranges)
		}
		if back, err := decodeEras(encodeEras(eras)); err != nil && len(eras) <= maxEras || err == nil && len(back) != len(eras) {
			t.Errorf("%d members: the history does not travel: %v", n, err)
		}
	}
}
