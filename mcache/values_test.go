package mcache

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestManyValues lists values of all lengths, of which many begin alike and
// some are in every shard. Answers are not touched by those that come after,
// whether their lists are kept, as all but those of 40,000 series are, or not.
func TestManyValues(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	type list struct{ got, want []string }
	var lists []list
	for _, x := range []struct {
		prefix string
		series int
		kinds  int // of values: with one, all shards have the same
	}{{"", 6000, 4}, {"pod-", 6000, 4}, {"a long prefix that all have-", 40_000, 4}, {"alike-", 6000, 1}} {
		prefix := x.prefix
		c := newTestCache(t, Options{Shards: 4})
		want := map[string]bool{}
		for i := range x.series {
			v := prefix
			switch rnd.IntN(x.kinds) {
			case 0: // shared
				v += fmt.Sprint("x", rnd.IntN(500))
			case 1:
				v += fmt.Sprintf("%016x", rnd.Uint64()>>rnd.IntN(64))
			case 2:
				v += fmt.Sprintf("12345678%d", rnd.IntN(1000)) // eight bytes do not tell
			default:
				b := make([]byte, 1+rnd.IntN(12))
				for k := range b {
					b[k] = byte(rnd.Uint32())
				}
				v += string(b)
			}
			want[v] = true
			if err := c.AppendSamples("b", []Label{{"__name__", "m"}, {"i", fmt.Sprint(i)}, {"v", v}}, Sample{T: 1, V: 0}); err != nil {
				t.Fatal(err)
			}
		}
		for _, limit := range []int{0, 1, 777, 100_000} {
			got, err := c.LabelValues("b", "v", nil, limit)
			if err != nil || !slices.Equal(got, sorted(want, limit)) {
				t.Fatalf("prefix %q, limit %d: %d values, want %d, %v", prefix, limit, len(got), len(sorted(want, limit)), err)
			}
			lists = append(lists, list{got, sorted(want, limit)})
		}
	}
	for i, l := range lists {
		if !slices.Equal(l.got, l.want) {
			t.Errorf("list %d is another after others were made", i)
		}
	}
}

func TestSortKeys(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		keys := make([]textKey, rnd.IntN(3*minRadix))
		mask := uint64(0)
		for range rnd.IntN(9) {
			mask |= 0xff << (8 * rnd.IntN(8))
		}
		for i := range keys {
			keys[i] = textKey{rnd.Uint64() & mask, uint32(i)}
		}
		want := slices.Clone(keys)
		slices.SortStableFunc(want, func(a, b textKey) int { return cmp.Compare(a.key, b.key) })
		keys, _ = sortKeys(keys, nil)
		if len(keys) < minRadix { // then the order of what is alike is not kept
			slices.SortFunc(keys, func(a, b textKey) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.place, b.place)) })
		}
		if !slices.Equal(keys, want) {
			t.Fatalf("round %d: %d keys of mask %x are not in order", round, len(keys), mask)
		}
	}
}
