package offheap

import (
	"math/rand/v2"
	"testing"
)

// TestTallyModel holds a Tally to a map, with keys that meet in few slots.
func TestTallyModel(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	c := NewTally(newTestMemory(t, 64<<20))
	want := map[uint64]int{}
	grown, emptied, refused := 0, 0, 0
	for step := range 60_000 {
		key := uint64(r.IntN(40))<<58 | uint64(r.IntN(400)) // the low bits choose the slot
		if step/15_000%2 == 0 == (r.IntN(3) > 0) {
			before := len(c.view)
			n, err := c.Add(key, 4)
			if err != nil || n != want[key] {
				t.Fatalf("seed %d step %d: %d, %v, want %d", seed, step, n, err, want[key])
			}
			if n == 4 {
				refused++
			} else {
				want[key]++
			}
			if len(c.view) != before {
				grown++
			}
		} else if want[key] > 0 {
			c.Remove(key)
			if want[key]--; want[key] == 0 {
				delete(want, key)
				emptied++
			}
		}
		if c.Len() != len(want) {
			t.Fatalf("seed %d step %d: %d keys, want %d", seed, step, c.Len(), len(want))
		}
	}
	if grown < 3 || emptied < 1000 || refused < 100 {
		t.Errorf("grown %d times, emptied %d, refused %d", grown, emptied, refused)
	}
	for key, n := range want {
		if got := c.view[c.slot(key)].n; int(got) != n {
			t.Errorf("key %x: %d, want %d", key, got, n)
		}
	}
	c.Free()
}
