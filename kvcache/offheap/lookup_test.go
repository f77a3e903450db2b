package offheap

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"mcached/kvcache"
)

// TestLookupModel holds a Lookup to a map from tag to ids, with few tags, so
// that they meet, probing goes round the end, and deleted slots are used again.
func TestLookupModel(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 0))
		tag := func() uint32 {
			if r.IntN(4) == 0 {
				return ^uint32(r.IntN(30)) // the last slots
			}
			return uint32(r.IntN(300)) << 23
		}
		l := NewLookup(newTestMemory(t, 64<<20))
		want := map[uint32][]uint32{}
		n, next, shared, removed, grown := 0, uint32(0), 0, 0, 0
		for step := range 40_000 {
			k := tag()
			switch adding := step/8000%2 == 0; {
			case adding == (r.IntN(3) > 0):
				before := l.Bytes()
				if err := l.Reserve(1); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				if l.Bytes() != before {
					grown++
				}
				if len(want[k]) > 0 {
					shared++
				}
				l.Add(k, next)
				want[k] = append(want[k], next)
				next, n = next+1, n+1
			case len(want[k]) > 0:
				i := r.IntN(len(want[k]))
				l.Remove(k, want[k][i])
				want[k] = slices.Delete(want[k], i, i+1)
				removed, n = removed+1, n-1
			}
			if l.Len() != n {
				t.Fatalf("seed %d step %d: %d entries, want %d", seed, step, l.Len(), n)
			}
			k = tag()
			if got := l.First(k); got == NoID != (len(want[k]) == 0) || got != NoID && !slices.Contains(want[k], got) {
				t.Fatalf("seed %d step %d: first of %x is %d, want one of %d", seed, step, k, got, want[k])
			}
			var seen []uint32
			none := l.Find(k, func(id uint32) bool { seen = append(seen, id); return false })
			slices.Sort(seen)
			if none != NoID || !sameSet(seen, want[k]) {
				t.Fatalf("seed %d step %d: candidates of %x are %d, want %d", seed, step, k, seen, want[k])
			}
			if len(seen) > 0 {
				if last := seen[len(seen)-1]; l.Find(k, func(id uint32) bool { return id == last }) != last {
					t.Fatalf("seed %d step %d: id %d is not found", seed, step, last)
				}
			}
		}
		if shared < 1000 || removed < 1000 || grown < 2 {
			t.Errorf("seed %d: %d tags shared, %d entries removed, grown %d times", seed, shared, removed, grown)
		}
		l.Free()
		if l.Bytes() != 0 || l.Len() != 0 || l.First(0) != NoID {
			t.Errorf("seed %d: not empty after Free", seed)
		}
	}
}

func sameSet(a, b []uint32) bool {
	b = slices.Clone(b)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// A Lookup that cannot grow is as it was.
func TestLookupWithoutMemory(t *testing.T) {
	l := NewLookup(newTestMemory(t, smallBudget))
	n := uint32(0)
	for ; ; n++ {
		if err := l.Reserve(1); err != nil {
			if !errors.Is(err, kvcache.ErrNoMemory) {
				t.Fatal(err)
			}
			break
		}
		l.Add(n*0x9e3779b9, n)
	}
	if n < 1000 {
		t.Fatalf("full with %d entries", n)
	}
	for id := range n {
		if l.First(id*0x9e3779b9) != id {
			t.Fatalf("entry %d of %d is lost", id, n)
		}
	}
	if got, most := l.Bytes(), int(n)*LookupEntryBytes*2+kvcache.MinRegionBytes; got > most {
		t.Errorf("%d bytes for %d entries, want at most %d", got, n, most)
	}
}

func TestLookupRemoveOfNothingPanics(t *testing.T) {
	l := NewLookup(newTestMemory(t, 64<<20))
	if err := l.Reserve(2); err != nil {
		t.Fatal(err)
	}
	l.Add(1, 1)
	defer func() {
		if recover() == nil {
			t.Error("an entry that is not there was removed")
		}
	}()
	l.Remove(1, 2)
}
