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
			for range rng.IntN(200) {
				id := uint32(rng.IntN(n))
				s.Add(id)
				ids[id] = true
			}
			if rng.IntN(3) == 0 {
				from := uint32(rng.IntN(n))
				to := from + uint32(rng.IntN(n-int(from)))
				s.mayGet(from, to)
				markRange(s.words, from, to)
				for id := from; id <= to; id++ {
					ids[id] = true
				}
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

// pair makes a pair that no series has.
func (w *world) pair(t *testing.T) uint32 {
	t.Helper()
	name, err := w.x.AddName(w.x.hasher.HashString("n"), "n")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := w.x.AddPair(name, w.x.hasher.HashString("v"), "v")
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// TestMark has postings whose ids lie near each other and far apart, either way, and in
// runs of all lengths: what is posted is what was put there, in that order, and what is
// marked is the same, or the same of what is in another set.
func TestMark(t *testing.T) {
	t.Parallel()
	const ids = 5_000_000
	for seed := range uint64(20) {
		w := newWorld(t, 8<<20)
		rng := rand.New(rand.NewPCG(6, seed))
		pair := w.pair(t)
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
		w.x.settle()
		w.x.mark(pair, got, nil)
		var posted []uint32
		for id := range w.x.Posted(pair) {
			posted = append(posted, id)
			want.Add(id)
		}
		if !slices.Equal(posted, put) {
			t.Fatalf("seed %d: %d ids are posted, %d were put; or others, or in another order", seed, len(posted), len(put))
		}
		if !slices.Equal(got.words, want.words) || !slices.Equal(got.some, want.some) {
			t.Errorf("seed %d: marked are others than posted", seed)
		}
		for range 20 {
			of, some := NewSet(ids), NewSet(ids)
			for range 1 + rng.IntN(3) {
				from := uint32(rng.IntN(ids))
				to := min(from+uint32(rng.IntN(100_000)), ids-1)
				of.mayGet(from, to)
				markRange(of.words, from, to)
			}
			w.x.mark(pair, some, &of)
			some.retain(of, false)
			of.retain(want, false)
			if !slices.Equal(some.words, of.words) {
				t.Fatalf("seed %d: of another set others are marked than posted", seed)
			}
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

// TestMarkPassesOver has a long posting in order, of which few are asked for: nearly all of it is passed
// over, until ids come again that were given before.
func TestMarkPassesOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8<<20)
	pair := w.pair(t)
	const ids, every = 900_000, 9
	post := func(id uint32) {
		if err := w.x.Post(id, []uint32{pair}); err != nil {
			t.Fatal(err)
		}
	}
	for id := uint32(0); id < ids; id += every {
		post(id)
	}
	w.x.settle()
	for _, id := range []uint32{0, ids / 2 / every * every, (ids - 1) / every * every} {
		got, of := NewSet(ids), NewSet(ids)
		of.Add(id)
		w.x.mark(pair, got, &of)
		if n := got.Count(); !got.Has(id) || n > 2500 {
			t.Errorf("for the one id %d, %d of %d are marked; itself: %v", id, n, ids/every, got.Has(id))
		}
	}
	for id := uint32(ids/2 + 1); id > ids/2-5000; id -= 7 {
		post(id)
	}
	w.x.settle()
	for id := uint32(ids/2 + 1); id > ids/2-5000; id -= 7 {
		got, of := NewSet(ids), NewSet(ids)
		of.Add(id)
		if w.x.mark(pair, got, &of); !got.Has(id) {
			t.Fatalf("%d, posted out of order, is not marked", id)
		}
	}
}
