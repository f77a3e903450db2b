package index

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSetModel does to sets what is done to them, with one memory for sets of
// many sizes, and compares with maps.
func TestSetModel(t *testing.T) {
	t.Parallel()
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, 0))
	var have, other Set
	for range 3000 {
		n := 1 + rng.IntN([]int{1, 100, 5000, 100_000}[rng.IntN(4)])
		fill := func(s Set) map[uint32]bool {
			ids := map[uint32]bool{}
			if rng.IntN(3) == 0 {
				s.addMany()
			}
			for range rng.IntN(200) {
				id := uint32(rng.IntN(n))
				s.Add(id)
				ids[id] = true
			}
			return ids
		}
		have, other = have.empty(n), other.empty(n)
		want, out := fill(have), fill(other)
		if rng.IntN(2) == 0 {
			not := rng.IntN(2) == 0
			have.retain(other, not)
			maps.DeleteFunc(want, func(id uint32, _ bool) bool { return out[id] == not })
		}
		drop := uint32(1 + rng.IntN(4))
		var got []uint32
		have.Each(func(id uint32) {
			got = append(got, id)
			if id%drop == 0 {
				have.Remove(id)
			}
		})
		if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("below %d: %d, want %d", n, got, slices.Sorted(maps.Keys(want)))
		}
		maps.DeleteFunc(want, func(id uint32, _ bool) bool { return id%drop == 0 })
		if have.Count() != len(want) {
			t.Fatalf("%d are counted, there are %d", have.Count(), len(want))
		}
		for range 20 {
			if id := uint32(rng.IntN(n)); have.Has(id) != want[id] {
				t.Fatalf("%d is in the set: %v", id, have.Has(id))
			}
		}
	}
	if have = have.empty(200_000); have.Count() != 0 || slices.ContainsFunc(have.words, func(w uint64) bool { return w != 0 }) {
		t.Error("an empty set has ids")
	}
}

// TestMark has postings whose ids lie near each other and far apart, either way, and in
// runs of all lengths: what is posted is what was put there, in that order, and what is
// marked is the same.
func TestMark(t *testing.T) {
	t.Parallel()
	const ids = 5_000_000
	for seed := range uint64(20) {
		w := newWorld(t, 8<<20)
		rng := rand.New(rand.NewPCG(6, seed))
		name, err := w.x.AddName(w.x.hasher.HashString("n"), "n")
		if err != nil {
			t.Fatal(err)
		}
		pair, err := w.x.AddPair(name, w.x.hasher.HashString("v"), "v")
		if err != nil {
			t.Fatal(err)
		}
		there := map[uint32]bool{}
		var put []uint32
		for range 1000 {
			id := uint32(rng.IntN([]int{100, 10_000, ids}[rng.IntN(3)]))
			if rng.IntN(3) > 0 && len(put) > 0 {
				id = put[len(put)-1] + 1 + uint32(rng.IntN(2)) // a run, or one with a hole
			}
			for range []int{1, 1, 2, 3, 70, 200, 600}[rng.IntN(7)] {
				if there[id] || id >= ids {
					break
				}
				if err := w.x.Post(id, []uint32{pair}); err != nil {
					t.Fatal(err)
				}
				there[id] = true
				put = append(put, id)
				id++
			}
		}
		got, want := NewSet(ids), NewSet(ids)
		w.x.mark(pair, got.words)
		var posted []uint32
		for id := range w.x.Posted(pair) {
			posted = append(posted, id)
			want.Add(id)
		}
		if !slices.Equal(posted, put) {
			t.Fatalf("seed %d: %d ids are posted, %d were put; or others, or in another order", seed, len(posted), len(put))
		}
		if !slices.Equal(got.words, want.words) {
			t.Errorf("seed %d: marked are others than posted", seed)
		}
		if n := w.x.chunks.Len(); n > len(put)/2 || len(put) < 20_000 {
			t.Errorf("seed %d: %d ids, mostly in runs, take %d bytes", seed, len(put), n)
		}
		for k := range put { // those who stop early stop there
			if k%1000 == 0 {
				n := 0
				for range w.x.Posted(pair) {
					if n++; n > k {
						break
					}
				}
			}
		}
	}
}
