package query

import (
	"math"
	"testing"
)

// What a member is handed over while it hands over itself may have come after it was
// read: nobody may claim it of whom it is sent to. What it loses meanwhile counts.
func TestClaimableIsOfBefore(t *testing.T) {
	tc := newTestCluster(t, 1, FanOutOptions{}, "a")
	first := ClaimedEra{tc.eras[0].ID, t0}
	tc.pass(60_000)
	tc.start("b")
	tc.start("c")
	tc.change("b", "c")
	tc.pass(10_000)
	b := tc.nodes["b"]
	gone := int64(math.MinInt64)
	claimed := func(of func(slot uint16, tell func(e ClaimedEra, from, until int64))) (n int, from int64) {
		for slot := range uint16(tc.slots) {
			of(slot, func(e ClaimedEra, at, until int64) {
				if e == first && until == t0+65_000 {
					n, from = n+1, max(from, at)
				}
			})
		}
		return n, from
	}
	ask := func() func(slot uint16, tell func(e ClaimedEra, from, until int64)) {
		return b.fan.Claimable(t0, tc.now, func() int64 { return gone })
	}
	has := ask()
	all := make([]byte, tc.slots/8)
	for i := range all {
		all[i] = 0xff
	}
	b.claims.Version, b.claims.Claims = 1, []SlotClaim{{t0, t0 + 65_000, all, []ClaimedEra{first}}}
	if n, _ := claimed(has); n != 0 {
		t.Errorf("%d slots are claimed that b was handed over meanwhile", n)
	}
	if n, from := claimed(ask()); n != tc.slots || from != t0 {
		t.Errorf("%d slots are claimed from %d of what b was handed over before", n, from-t0)
	}
	has = ask()
	gone = t0 + 5000
	if n, from := claimed(has); n != tc.slots || from != gone {
		t.Errorf("%d slots are claimed from %d of what b has lost until 5000", n, from-t0)
	}
}
