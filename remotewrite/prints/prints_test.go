package prints

import (
	"math/rand/v2"
	"testing"

	"mcached/remotewrite/wire"
)

// printOf is that of a series with a number. Sets are shared by many, or they never fill.
func printOf(n int) wire.Print {
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	return wire.Print{A: x >> 40, B: x ^ x<<32}
}

// What is found is what was put last, whatever the order: a map is the model. That it
// forgets some, of sets that are full, is no fault, but most must be found.
func TestTrailIsAMap(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var trail Trail[int]
		model := map[wire.Print]int{}
		found, looked := 0, 0
		for round := range 200 {
			from, n := rng.IntN(3000), 1+rng.IntN(300)
			if rng.IntN(3) == 0 {
				c := trail.Write()
				for i := range n {
					c.Put(printOf(from+i), round*1000+i)
					model[printOf(from+i)] = round*1000 + i
				}
				c.Close()
				continue
			}
			c := trail.Read()
			for i := range n {
				p := printOf(from + i)
				if rng.IntN(10) == 0 {
					p = printOf(rng.IntN(3000))
				}
				want, known := model[p]
				got, ok := c.Find(p)
				if ok && (!known || got != want) {
					t.Fatalf("seed %d: %v is %d, want %d, %v", seed, p, got, want, known)
				}
				if known {
					looked++
					if ok {
						found++
					}
				}
			}
			c.Close()
		}
		if looked == 0 || found < looked*9/10 {
			t.Errorf("seed %d: of %d that were put %d are found", seed, looked, found)
		}
		trail.Forget()
		c := trail.Read()
		for p := range model {
			if v, ok := c.Find(p); ok {
				t.Fatalf("%d is found after all is forgotten", v)
			}
		}
		c.Close()
	}
}

// More series than there is room for neither grow it nor make it forget all of them before
// they come again, and it does not search for each of them.
func TestTrailIsBounded(t *testing.T) {
	var trail Trail[struct{}]
	const all, request = MaxEntries * 3 / 2, 2000
	random := func(n int) wire.Print {
		x := uint64(n+1) * 0x9e3779b97f4a7c15
		return wire.Print{A: x ^ x>>29, B: x*0xd1b54a32d192ed03 ^ x>>31}
	}
	found, searched := 0, 0
	for range 3 {
		found, searched = 0, 0
		for from := 0; from < all; from += request {
			c := trail.Write()
			for n := from; n < from+request; n++ {
				if _, ok := c.Find(random(n)); ok {
					found++
				} else {
					c.Put(random(n), struct{}{})
				}
			}
			searched += c.missed
			c.Close()
		}
	}
	if len(trail.entries) != MaxEntries || len(trail.index) > MaxEntries {
		t.Errorf("%d entries, %d sets", len(trail.entries), len(trail.index))
	}
	if found == 0 || searched > all/2 {
		t.Errorf("of %d series %d are found and %d searched for", all, found, searched)
	}
}

// Find is for the series of a request that come in the order of the one before.
func BenchmarkFind(b *testing.B) {
	const series = 200_000
	var trail Trail[struct{}]
	c := trail.Write()
	for n := range series {
		c.Put(printOf(n), struct{}{})
	}
	c.Close()
	b.ResetTimer()
	for n := 0; n < b.N; {
		c := trail.Read()
		for k := 0; k < 2000 && n < b.N; k++ {
			c.Find(printOf(n % series))
			n++
		}
		c.Close()
	}
}
