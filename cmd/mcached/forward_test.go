package main

import "testing"

// TestNextMaxDirty lets the budget fall while much waits for the receiver: no
// write is refused as long as the receiver takes more than comes, and no more
// waits than might before, whether it takes anything or not.
func TestNextMaxDirty(t *testing.T) {
	for _, x := range []struct {
		name             string
		comes, goes      int64 // points a second
		refused, settled bool
	}{
		{"a receiver that takes more", 100, 300, false, true},
		{"one that takes as much", 300, 300, false, false},
		{"one that is away", 300, 0, true, false},
	} {
		const before, after = 4000, 1000
		limit := nextMaxDirty(before, 0, 0)
		waiting, refused := int64(2500), false
		for range 100 {
			next := nextMaxDirty(after, limit, waiting)
			if next > limit {
				t.Fatalf("%s: the bound goes up, from %d to %d", x.name, limit, next)
			}
			limit = next
			for range 10 { // parts of a second
				waiting = max(0, waiting-x.goes/10)
				if waiting >= limit {
					refused = true
					continue
				}
				waiting += x.comes / 10
			}
		}
		if refused != x.refused || x.settled != (limit == after) || waiting > 2500+after/2+x.comes {
			t.Errorf("%s: refused %v, bound %d, %d waiting", x.name, refused, limit, waiting)
		}
	}
	if n := nextMaxDirty(500, 400, 400); n != 500 {
		t.Errorf("a bound that may grow is %d", n)
	}
}
