package route

import (
	"math"
	"net/http"
	"slices"
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// Who was handed over all of a slot may claim what the sender had of it, also from
// one that leaves; not if a node rejected something.
func TestClaimsAfterHandover(t *testing.T) {
	now := writetest.Now.UnixMilli()
	const hour = int64(time.Hour / time.Millisecond)
	for _, c := range []struct {
		name     string
		perSec   int
		rejected bool
		claimed  bool
	}{{"whole", math.MaxInt, false, true}, {"drain", 0, false, true}, {"rejected", math.MaxInt, true, false}} {
		t.Run(c.name, func(t *testing.T) {
			nodes := newNodes(t, 3, 2, Options{Timeout: time.Minute, Acks: 2}, remotewrite.Options{}, mcache.Options{})
			before, after := members(nodes, 0, 2, nil, 0, 1), members(nodes, 0, 2, nil, 0, 1, 2)
			nodes[0].cluster.table = after
			var planned map[uint16][]int // what is to be sent
			read := false
			h, err := nodes[0].router.NewHandover(HandoverOptions{
				Holdings: passes(func(newest bool, from int64, f func(string, uint16, send.Series) bool) {
					read = true
					for slot := range planned {
						if !c.rejected || !newest {
							break
						}
						f("default", slot, send.Series{Labels: writetest.Labels("no", "name"), Samples: []mcache.Sample{{T: now}}})
						break
					}
				}),
				Leaving: func(Table, int) bool { return false }, Now: func() time.Time { return writetest.Now },
				Claimable: func(from, until int64) func(slot uint16, tell func(e ClaimedEra, from, until int64)) {
					if read {
						t.Error("asked after something was read")
					}
					if from != now-hour || until != now {
						t.Errorf("asked from %d until %d", from, until)
					}
					return func(slot uint16, tell func(e ClaimedEra, from, until int64)) {
						for id := uint64(9); id > 7; id-- {
							if slot%3 < 2 {
								tell(ClaimedEra{id, 5}, []int64{from, from + 60_000}[slot%3], until)
							}
						}
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			h.base = before
			plan := h.plan(before, after)
			planned = plan
			if !h.job(t.Context(), after, c.perSec) {
				t.Fatal("not done")
			}
			_, list := nodes[2].router.Claimed()
			n := 0
			for slot := range uint16(slots) {
				from := int64(math.MaxInt64)
				for _, x := range list {
					if x.Until != now || !slices.Equal(x.Eras, eras(8, 9)) {
						t.Fatalf("until %d, of %v", x.Until, x.Eras)
					}
					if wire.Bits(x.Slots).Has(int(slot)) {
						from = x.From
					}
				}
				want := int64(math.MaxInt64)
				if len(plan[slot]) > 0 && c.claimed {
					want = []int64{now - hour, now - hour + 60_000, math.MaxInt64}[slot%3]
				}
				if from != want {
					t.Fatalf("slot %d is claimed from %d, want %d", slot, from, want)
				}
				if from != math.MaxInt64 {
					n++
				}
			}
			if int64(n) != nodes[2].router.claims.slots() || (n > 0) != c.claimed {
				t.Errorf("%d slots are claimed, %d counted", n, nodes[2].router.claims.slots())
			}
		})
	}
}

func TestClaimsAreBounded(t *testing.T) {
	var r Router
	set := func(from, to int) (b wire.Bits) {
		for i := from; i < to; i++ {
			b.Add(i)
		}
		return append(b, make([]byte, claimSlotBytes-len(b))...)
	}
	take := func(c Claim) {
		t.Helper()
		if err := r.Claim(appendClaim(nil, &c)); err != nil {
			t.Fatal(err)
		}
	}
	const min = 60_000
	take(Claim{10 * min, 20 * min, set(0, 100), eras(3, 7)})
	take(Claim{10 * min, 30 * min, set(50, 100), eras(3, 5, 7)}) // more of half of it
	take(Claim{15 * min, 40 * min, set(0, 50), eras(3, 7)})      // other times: both are true
	if v, all := r.Claimed(); v != 3 || len(all) != 3 || wire.Bits(all[0].Slots).Has(50) || !wire.Bits(all[0].Slots).Has(49) {
		t.Errorf("version %d: %d claims", v, len(all))
	}
	take(Claim{10 * min, 50 * min, set(0, 100), eras(3, 7)})
	if _, all := r.Claimed(); len(all) != 2 {
		t.Errorf("%d claims, of which one says nothing of an era", len(all))
	}
	take(Claim{10 * min, 50 * min, set(0, 100), eras(3, 5, 7, 8)})
	if _, all := r.Claimed(); len(all) != 1 {
		t.Errorf("%d claims, of which one says all", len(all))
	}
	take(Claim{10*min + 5, 50*min - 5, set(100, 200), eras(3, 5, 7, 8)}) // made one, of the least
	if _, all := r.Claimed(); len(all) != 1 || all[0].From != 10*min+5 || all[0].Until != 50*min-5 || r.claims.slots() != 200 {
		t.Errorf("%d claims, of %d slots", len(all), r.claims.slots())
	}
	for i := range int64(2 * maxClaims) {
		take(Claim{(100 + i) * min, (1000 + i) * min, set(int(i), int(i)+1), eras(3)})
	}
	if _, all := r.Claimed(); len(all) != maxClaims || all[0].From != (100+maxClaims)*min {
		t.Errorf("%d claims", len(all))
	}
	for _, bad := range [][]byte{nil, make([]byte, claimHeadBytes), make([]byte, claimHeadBytes+claimEraBytes+1), make([]byte, claimHeadBytes+claimEraBytes*(maxClaimEras+1)),
		appendClaim(nil, &Claim{20, 10, nil, eras(1)}), appendClaim(nil, &Claim{10, 20, nil, eras(2, 1)})} {
		if r.Claim(bad) == nil {
			t.Errorf("%d bytes are a claim", len(bad))
		}
	}
}

// A claim comes over the wire, with proof of who sends it.
func TestClaimIsAPart(t *testing.T) {
	nodes := newNodes(t, 2, 2, Options{Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
	c := Claim{1, 2, wire.Bits{3}, eras(4)}
	for _, body := range [][]byte{appendClaim(nil, &c), []byte("no claim")} {
		a, err := nodes[0].router.post(t.Context(), nodes[0].cluster.Table(), 1, wire.Part{Protocol: wire.Claim, Body: body})
		if err != nil || (a.Status == http.StatusNoContent) != (len(body) > claimHeadBytes) {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if n := nodes[1].router.claims.slots(); n != 2 {
		t.Errorf("%d slots", n)
	}
}

// eras are some with these numbers.
func eras(ids ...uint64) (all []ClaimedEra) {
	for _, id := range ids {
		all = append(all, ClaimedEra{id, 5})
	}
	return all
}
