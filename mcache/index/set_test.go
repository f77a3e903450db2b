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

// TestMark has postings whose ids lie near each other and far apart, either way.
func TestMark(t *testing.T) {
	t.Parallel()
	const ids = 5_000_000
	w := newWorld(t, 8<<20)
	rng := rand.New(rand.NewPCG(6, 0))
	var pair uint32
	for range 2000 {
		id := uint32(rng.IntN([]int{100, 10_000, ids}[rng.IntN(3)]))
		if _, there := w.sets[id]; there {
			continue
		}
		if err := w.add(id, map[string]string{"n": "v"}); err != nil {
			t.Fatal(err)
		}
		pair = w.pairs(id)[1]
	}
	got, want := NewSet(ids), NewSet(ids)
	w.x.mark(pair, got.words)
	for id := range w.x.Posted(pair) {
		want.Add(id)
	}
	if !slices.Equal(got.words, want.words) || want.Count() != len(w.sets) {
		t.Errorf("%d are posted, there are %d; marked are others", want.Count(), len(w.sets))
	}
}
