package index

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestPostTogether posts series as they are made: with most pairs, and the next id, of the one
// before, but not always. What is pending meanwhile comes to lie in the same bytes as what is
// put in its posting at once, and whoever asks knows of it.
func TestPostTogether(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 8))
		x, once := New(newTestMemory(t, 64<<20), NewHasher()), New(newTestMemory(t, 64<<20), NewHasher())
		const places, values = 2 * maxPending, 4
		var of [places][values]uint32 // pairs
		for k := range of {
			for v := range of[k] {
				of[k][v] = pairOf(t, &x, k, v)
				if p := pairOf(t, &once, k, v); p != of[k][v] {
					t.Fatalf("pairs %d and %d", of[k][v], p)
				}
			}
		}
		live := make([]int, places*values)
		posted := func(y *Index, p uint32) []uint32 { return slices.Collect(y.Posted(p)) }
		set, id, together := of[0][:1:1], uint32(0), 0
		given := map[uint32]bool{}
		for range 2000 {
			switch rng.IntN(30) {
			case 0: // other labels
				set = nil
				for k := range 1 + rng.IntN(places) {
					set = append(set, of[k][rng.IntN(values)])
				}
			case 1: // all one place on
				if len(set) > 1 {
					set = slices.Clone(set[1:])
				}
			case 2:
				id += uint32(rng.IntN(100))
			case 3:
				id -= min(id, uint32(rng.IntN(1000)))
			case 4:
				p := set[rng.IntN(len(set))]
				if got, want := posted(&x, p), posted(&once, p); !slices.Equal(got, want) {
					t.Fatalf("seed %d: pair %d is posted for %d, want %d", seed, p, got, want)
				}
			case 5:
				gone := set[:rng.IntN(len(set))]
				x.Unpost(gone)
				once.Unpost(gone)
				for _, p := range gone {
					live[p]--
				}
			case 6:
				if p := set[rng.IntN(len(set))]; x.Live(p) != live[p] {
					t.Fatalf("seed %d: %d are live of pair %d, want %d", seed, x.Live(p), p, live[p])
				}
			case 7:
				if x.Sizes() != once.Sizes() {
					t.Fatalf("seed %d: the sizes are %+v, want %+v", seed, x.Sizes(), once.Sizes())
				}
			default:
				if k := rng.IntN(len(set)); rng.IntN(2) == 0 {
					set = slices.Clone(set)
					set[k] = of[x.NameOf(set[k])][rng.IntN(values)]
				}
			}
			for range []int{1, 2, 5, 50, 2 * pendingIDs}[max(rng.IntN(60), 55)-55] {
				for given[id] {
					id++
				}
				given[id] = true
				if err := x.Post(id, set); err != nil {
					t.Fatal(err)
				}
				if n := x.pending.end - x.pending.begin; n > 1 {
					if together++; n > pendingIDs {
						t.Fatalf("seed %d: %d ids are pending", seed, n)
					}
				}
				if room := x.chunks.Bytes() - x.chunks.Len(); room < x.pending.n*(chunkHeader+chunkMaxBytes) {
					t.Fatalf("seed %d: room for %d bytes, %d pairs are pending", seed, room, x.pending.n)
				}
				if err := once.Post(id, set); err != nil {
					t.Fatal(err)
				}
				once.settle()
				for _, p := range set {
					live[p]++
				}
				id++
			}
		}
		for p := range uint32(places * values) {
			if got, want := posted(&x, p), posted(&once, p); !slices.Equal(got, want) {
				t.Fatalf("seed %d: pair %d is posted for %d, want %d", seed, p, got, want)
			}
		}
		if x.Sizes() != once.Sizes() || together < 1000 {
			t.Errorf("seed %d: %d were pending with others; the sizes are %+v, want %+v", seed, together, x.Sizes(), once.Sizes())
		}
	}
}

// TestOwn posts few series, of one bucket or of two, one behind the other, and asks each pair
// of which all of its series are.
func TestOwn(t *testing.T) {
	t.Parallel()
	answers := map[bool]int{}
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 8))
		x := New(newTestMemory(t, 8<<20), NewHasher())
		const places, values = maxPending + 8, 3
		set := make([]uint32, 2+rng.IntN(places-2))
		for k := range set {
			set[k] = pairOf(t, &x, k, 0)
		}
		own := map[uint32]uint32{} // None: of several
		for id := range uint32(1 + rng.IntN(20)) {
			if k := rng.IntN(len(set)); k > 0 {
				set[k] = pairOf(t, &x, k, rng.IntN(values))
			}
			if rng.IntN(10) == 0 {
				set[0] = pairOf(t, &x, 0, rng.IntN(2))
			}
			if err := x.Post(id, set); err != nil {
				t.Fatal(err)
			}
			for _, p := range set {
				if of, ok := own[p]; ok && of != set[0] {
					own[p] = None
				} else {
					own[p] = set[0]
				}
			}
			if rng.IntN(10) == 0 {
				x.Unpost(set) // what is dead counts, too
			}
			if k := rng.IntN(len(set)); rng.IntN(5) == 0 && x.Own(set[k]) != own[set[k]] {
				t.Fatalf("seed %d: pair %d is of %d, want %d", seed, set[k], x.Own(set[k]), own[set[k]])
			}
		}
		for p := range uint32(x.Pairs()) {
			want, ok := own[p]
			if !ok {
				want = None
			}
			if got := x.Own(p); got != want {
				t.Fatalf("seed %d: pair %d is of %d, want %d", seed, p, got, want)
			}
			answers[want == None]++
		}
		x.Free()
	}
	if answers[true] < 1000 || answers[false] < 1000 {
		t.Errorf("%d pairs are of several buckets, %d of one: too little was tried", answers[true], answers[false])
	}
}
