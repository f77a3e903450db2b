package offheap

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"mcached/kvcache"
)

// smallBudget is so little that containers run into it soon.
const smallBudget = 8 << 20

func newTestMemory(t testing.TB, budget int64) *kvcache.Memory {
	t.Helper()
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: budget, RegionBytes: 64 << 10, ReserveBytes: 2 * budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// triple is of a size that divides no page.
type triple struct{ a, b, c uint64 }

// TestVectorModel holds a Vector to a slice.
func TestVectorModel(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := newTestMemory(t, 64<<20)
		v := NewVector[triple](m)
		var want []triple
		grown, freed, reserved := 0, 0, 0
		for step := range 60_000 {
			room := v.Cap()
			switch {
			case r.IntN(20_000) == 0:
				v.Free()
				want, freed = nil, freed+1
				if v.Bytes() != 0 || v.Cap() != 0 {
					t.Fatalf("seed %d step %d: %d bytes after Free", seed, step, v.Bytes())
				}
			case r.IntN(1000) == 0:
				n := r.IntN(400)
				if err := v.Reserve(n); err != nil || v.Cap() < v.Len()+n {
					t.Fatalf("seed %d step %d: room for %d of %d: %v", seed, step, v.Cap()-v.Len(), n, err)
				}
				reserved++
			case len(want) > 0 && r.IntN(2) == 0:
				i := r.IntN(len(want))
				want[i].b = r.Uint64()
				v.At(uint32(i)).b = want[i].b
			default:
				x := triple{r.Uint64(), r.Uint64(), uint64(step)}
				i, err := v.Append(x)
				if err != nil || int(i) != len(want) {
					t.Fatalf("seed %d step %d: number %d, %v, want %d", seed, step, i, err, len(want))
				}
				want = append(want, x)
			}
			if v.Cap() > room {
				grown++
			}
			if v.Len() != len(want) || step%1000 == 0 && !slices.Equal(v.All(), want) {
				t.Fatalf("seed %d step %d: %d values, want %d", seed, step, v.Len(), len(want))
			}
		}
		if !slices.Equal(v.All(), want) {
			t.Errorf("seed %d: other values", seed)
		}
		if grown < 10 || reserved == 0 || seed == 0 && freed == 0 {
			t.Errorf("seed %d: grown %d times, freed %d, reserved %d", seed, grown, freed, reserved)
		}
		if used := m.Used(); used != int64(v.Bytes()) {
			t.Errorf("seed %d: %d bytes used, the Vector says %d", seed, used, v.Bytes())
		}
	}
}

// A Vector that cannot grow is as it was, and what was reserved cannot fail.
func TestVectorWithoutMemory(t *testing.T) {
	v := NewVector[triple](newTestMemory(t, smallBudget))
	var err error
	for n := uint64(0); err == nil; n++ {
		_, err = v.Append(triple{c: n})
	}
	if !errors.Is(err, kvcache.ErrNoMemory) || v.Len() < 1000 {
		t.Fatalf("full with %d values: %v", v.Len(), err)
	}
	for i, x := range v.All() {
		if x.c != uint64(i) {
			t.Fatalf("value %d is %d", i, x.c)
		}
	}
	if err := v.Reserve(1 << 20); !errors.Is(err, kvcache.ErrNoMemory) {
		t.Errorf("reserved beyond the budget: %v", err)
	}
}
