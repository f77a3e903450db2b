package cluster

import (
	"fmt"
	"testing"
)

func (p *SeriesPrints) pairPrint(name, value string) (slot, a, b uint64) {
	x, y, kind := p.Name(name)
	return p.Pair(x, y, kind, value)
}

func TestSeriesPrints(t *testing.T) {
	keys := testKeys(t, "a secret of a cluster")
	for _, spread := range []int{0, 8} {
		h := NewSeriesHash(keys.Series(), []string{"replica"}, spread)
		p := NewSeriesPrints(keys.Prints(), h)
		seen := map[[2]uint64]string{}
		halves := map[uint64]bool{}
		for i := range 3000 {
			name, value := fmt.Sprint("label", i%7), fmt.Sprint(i)
			if i%3 == 0 {
				name = []string{"le", "quantile", "replica", "job"}[i/3%4]
			}
			slot, a, b := p.pairPrint(name, value)
			if slot != h.Pair(name, value) {
				t.Fatalf("%s=%q adds %d to the slot, not %d", name, value, slot, h.Pair(name, value))
			}
			if was, ok := seen[[2]uint64{a, b}]; ok || halves[a] || halves[b] || a == b {
				t.Fatalf("%s=%q and %s have a print", name, value, was)
			}
			seen[[2]uint64{a, b}], halves[a], halves[b] = name+value, true, true
		}
		if a, b := p.BucketPrint("one"); a == b {
			t.Error("both sums of a bucket are the same")
		} else if c, d := p.BucketPrint("two"); a == c || b == d {
			t.Error("two buckets are the same")
		}
		same := NewSeriesPrints(keys.Prints(), NewSeriesHash(keys.Series(), nil, 0)) // what is left out of slots is not left out of prints
		other := testKeys(t, "another secret of it")
		_, a, b := p.pairPrint("job", "x")
		if _, c, d := same.pairPrint("job", "x"); a != c || b != d || p.Check() != same.Check() {
			t.Error("the same keys make other prints")
		}
		others := NewSeriesPrints(other.Prints(), NewSeriesHash(other.Series(), nil, 0))
		if _, c, d := others.pairPrint("job", "x"); a == c || b == d || p.Check() == others.Check() {
			t.Error("other keys make the same prints")
		}
	}
	if k, err := NewKeys("test", nil); err != nil || k.Prints() != nil {
		t.Errorf("without a secret there are prints, which all can make: %v", err)
	}
}
