package query

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// TestCompleteFromOracle compares with the definition, taken literally: every T
// is tried, every era and every slot looked at.
func TestCompleteFromOracle(t *testing.T) {
	const slots, last = 12, 40
	for seed := range uint64(4000) {
		rnd := rand.New(rand.NewPCG(seed, 16))
		names := make([]string, 1+rnd.IntN(5))
		c := claims{}
		for i := range names {
			names[i] = strconv.Itoa(i)
			switch rnd.IntN(6) {
			case 0: // does not answer
			case 1:
				c[names[i]] = math.MinInt64
			default:
				c[names[i]] = rnd.Int64N(last)
			}
		}
		var eras []Era
		from := int64(0)
		for from < last {
			to := from + 1 + rnd.Int64N(15)
			if to >= last || rnd.IntN(4) == 0 {
				to = math.MaxInt64
			}
			copies := 1 + rnd.IntN(min(3, len(names)))
			order := rnd.Perm(len(names))[:copies+rnd.IntN(len(names)-copies+1)]
			table := make([][]uint16, slots)
			for s := range table {
				for _, k := range rnd.Perm(len(order))[:copies] {
					table[s] = append(table[s], uint16(order[k]))
				}
			}
			eras = append(eras, NewEra(uint64(len(eras)/2+1), from, to, NewOwners(names, slots, func(s uint16) []uint16 { return table[s] })))
			from = to
			if to == math.MaxInt64 {
				break
			}
		}
		var cs claimed
		lost := claims{}
		for _, name := range names {
			if rnd.IntN(3) > 0 {
				lost[name] = math.MinInt64 // and the others do not answer
			}
			if rnd.IntN(6) == 0 {
				lost[name] = rnd.Int64N(last)
			}
		}
		for range rnd.IntN(6) {
			var of []ClaimedEra
			for i := range eras {
				if rnd.IntN(3) > 0 {
					of = append(of, ClaimedEra{uint64(i/2 + 1), rnd.Int64N(last)})
				}
			}
			cs = append(cs, memberClaim{names[rnd.IntN(len(names))], SlotClaim{rnd.Int64N(last), rnd.Int64N(2 * last), []byte{byte(rnd.Uint32()), byte(rnd.Uint32())}, of}})
		}
		holds := func(at int64, only int) bool {
			for _, e := range eras {
				if e.To <= at {
					continue
				}
				for s := range slots {
					least := int64(math.MaxInt64)
					for _, m := range e.owners.of(uint16(s)) {
						least = min(least, c.of(names[m]))
					}
					claim := int64(math.MaxInt64)
					for _, x := range cs {
						if l, ok := lost[x.name]; ok && x.Has(uint16(s)) && e.To <= x.Until && slices.ContainsFunc(x.Eras, func(c ClaimedEra) bool { return c.ID == e.ID && c.Since <= e.From }) {
							claim = min(claim, max(x.From, l))
						}
					}
					if (only < 0 || only == s) && least > max(at, e.From) && claim > at {
						return false
					}
				}
			}
			return true
		}
		want := func(only int) int64 {
			if holds(math.MinInt64, only) {
				return math.MinInt64
			}
			for at := int64(-1); at <= last+20; at++ {
				if holds(at, only) {
					return at
				}
			}
			return never
		}
		if got, want := cs.completeFrom(eras, c, lost), want(-1); got != want {
			t.Fatalf("seed %d: complete from %d, by the definition %d\n%v\n%v", seed, got, want, eras, c)
		}
		all := int64(math.MinInt64)
		for s := range slots {
			got := cs.slotCompleteFrom(eras, uint16(s), c, lost)
			if want := want(s); got != want {
				t.Fatalf("seed %d, slot %d: complete from %d, by the definition %d", seed, s, got, want)
			}
			all = max(all, got)
		}
		if all != cs.completeFrom(eras, c, lost) {
			t.Fatalf("seed %d: the slots do not make the whole", seed)
		}
	}
}

// TestSince: eras that are over are left out, and the first that is known has
// had no beginning.
func TestSince(t *testing.T) {
	o := NewOwners([]string{"a"}, 4, func(uint16) []uint16 { return []uint16{0} })
	eras := []Era{NewEra(1, 10e3, 20e3, o), NewEra(1, 20e3, 30e3, o), NewEra(1, 30e3, math.MaxInt64, o)}
	for at, want := range map[int64][]int64{5e3: {math.MinInt64, 20e3, 30e3}, 21_999: {math.MinInt64, 20e3, 30e3}, 22_000: {20e3, 30e3}, 32_000: {30e3}} {
		var got []int64
		for _, e := range since(eras, at, 0) {
			got = append(got, e.From)
		}
		if !slices.Equal(got, want) {
			t.Errorf("since %d: %v, want %v", at, got, want)
		}
	}
}

func BenchmarkCompleteFrom(b *testing.B) {
	const members = 300
	names := make([]string, members)
	c := claims{}
	for i := range names {
		names[i] = strconv.Itoa(i)
		c[names[i]] = int64(i)
	}
	var eras []Era
	for k := range int64(10) {
		rnd := rand.New(rand.NewPCG(uint64(k), 1))
		eras = append(eras, NewEra(uint64(k), k, k+1, NewOwners(names, 16384, func(uint16) []uint16 {
			p := rnd.IntN(members)
			return []uint16{uint16(p), uint16((p + 1 + rnd.IntN(members-1)) % members)}
		})))
	}
	b.ReportMetric(float64(len(eras[0].owners.sets)), "sets/era")
	for b.Loop() {
		completeFrom(eras, c)
	}
}
