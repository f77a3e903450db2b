package query

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"mcached/mcache"
)

// What members cover together, held against each moment asked by itself.
func TestCoveredByMembers(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	const minute, span = int64(coverLag), 60
	some := 0
	for range 300 {
		names := []string{"a", "b", "c"}
		var eras []Era
		for at := int64(rng.IntN(5)); at < span; {
			to := at + 1 + int64(rng.IntN(40))
			e := NewEra(0, at*minute, to*minute, NewOwners(names, 8, func(slot uint16) []uint16 {
				return rendezvous(names, slot)[:1+rng.IntN(2)]
			}))
			if at = to + int64(rng.IntN(6)/5); at >= span { // some time may be in no era
				e.To = math.MaxInt64
			}
			eras = append(eras, e)
		}
		of := map[string][]mcache.Interval{}
		for _, n := range names {
			for at := int64(rng.IntN(20)); at < span && rng.IntN(8) > 0; at += int64(rng.IntN(9)) {
				x := mcache.Interval{From: at * minute, To: (at + int64(rng.IntN(50))) * minute}
				if at = x.To/minute + 1; at >= span {
					x.To = mcache.MaxTime
				}
				of[n] = append(of[n], x)
			}
		}
		has := func(name string, t int64) bool {
			for _, x := range of[name] {
				if x.From <= t && t <= x.To {
					return true
				}
			}
			return false
		}
		want := func(t int64) bool {
			in := false
			for _, e := range eras {
				in = in || e.From <= t && t <= e.To
				if t < e.From-coverLag || e.To != math.MaxInt64 && t > e.To+coverLag {
					continue
				}
				for slot := range uint16(8) {
					any := false
					for _, m := range e.owners.of(slot) {
						any = any || has(names[m], t)
					}
					if !any {
						return false
					}
				}
			}
			return in
		}
		list := covered(eras, of, coverLag)
		for i, x := range list {
			if x.From > x.To || i > 0 && x.From <= list[i-1].To {
				t.Fatalf("out of order: %v", list)
			}
		}
		for at := -2 * minute; at < (span+5)*minute; at += minute / 2 {
			for _, moment := range []int64{at - 1, at, at + 1} {
				in := false
				for _, x := range list {
					in = in || x.From <= moment && moment <= x.To
				}
				if in != want(moment) {
					t.Fatalf("at %d: covered %t\n%v\n%v\n%v", moment, in, list, eras, of)
				}
				if in {
					some++
				}
			}
		}
	}
	if some < 1000 {
		t.Errorf("only %d moments were covered", some)
	}
}

// A cluster covers from the first writes on, whoever is asked; without a member
// what it alone had is not covered.
func TestCoverageOfMembers(t *testing.T) {
	const minute = 60_000
	for _, copies := range []int{1, 2} {
		tc := newTestCluster(t, copies, FanOutOptions{}, "a", "b", "c")
		tc.pass(10 * minute) // nobody writes
		first := tc.now
		for i := range 60 {
			tc.write("default", seriesOf(t, fmt.Sprintf("m{i=%d}", i)), mcache.Sample{T: tc.now, V: 1})
		}
		tc.pass(5 * minute)
		look := func(name string) string { return fmt.Sprint(tc.nodes[name].fan.Coverage("default")) }
		whole := fmt.Sprint([]mcache.Interval{{From: first, To: mcache.MaxTime}})
		for _, n := range tc.lives() {
			if got := look(n.name); got != whole {
				t.Errorf("%d copies, %s covers %s, want %s", copies, n.name, got, whole)
			}
			if from, lacks := n.fan.CoveredFrom("default", first-1, tc.now); !lacks || from != first {
				t.Errorf("%d copies, %s: %d, %t", copies, n.name, from-first, lacks)
			}
			if _, lacks := n.fan.CoveredFrom("default", first, tc.now); lacks {
				t.Errorf("%d copies, %s lacks what is covered", copies, n.name)
			}
		}
		tc.kill("b")
		want := map[int]string{1: "[]", 2: whole}[copies]
		if got := look("a"); got != want {
			t.Errorf("%d copies, without b %s, want %s", copies, got, want)
		}
		tc.change("a", "c")
		changed := tc.now
		tc.pass(5 * minute)
		if copies == 1 {
			want = fmt.Sprint([]mcache.Interval{{From: changed + coverLag + 1, To: mcache.MaxTime}})
		}
		if got := look("c"); got != want {
			t.Errorf("%d copies, when b is gone %s, want %s", copies, got, want)
		}
	}
}
